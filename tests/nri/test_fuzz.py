"""Damaged bytes on the socket: whatever comes, the conversation goes on or ends as a protocol error.

FUZZ_MUTATIONS=100000 makes it thorough. The inputs are the same in every run.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.nri.connection import Call, Connection, Limits, StatusError
from kata_node_agent.nri.frames import FrameReader, ProtocolError, header_of
from kata_node_agent.nri.mux import RUNTIME, MuxReader
from kata_node_agent.nri.plugin import SERVICE, Plugin
from kata_node_agent.nri.sizing import size_with
from kata_node_agent.nri.tally import Tally
from kata_node_agent.pb import nri_pb2
from tests.host.test_mutations import INPUTS, mutate
from tests.nri.budget import Budget
from tests.nri.recorded import RECORDINGS, requests_in
from tests.nri.runtime import container, pod
from tests.nri.support import echo, request, sent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

# Requests in one conversation.
_FRAMES = 10


def conversation() -> bytes:
    """Requests as they come, and something for nobody."""
    parts = [sent(request(stream, payload=b"payload" * stream)) for stream in range(1, 2 * _FRAMES, 2)]
    return b"".join([*parts, sent(request(1), RUNTIME)])


def cut(data: bytes, chance: random.Random) -> Iterable[bytes]:
    while data:
        size = chance.randint(1, 200)
        yield data[:size]
        data = data[size:]


def test_damaged_frames_are_frames_or_a_protocol_error() -> None:
    chance = random.Random("frames")
    frames = b"".join(header_of(f) + f.data for f in (request(1, payload=b"a" * 40), request(3), request(5)))
    for _ in range(INPUTS):
        reader, data, got = FrameReader(), mutate(frames, chance), 0
        try:
            for part in cut(data, chance):
                got += sum(len(frame.data) + 10 for frame in reader.feed(part))
        except ProtocolError:
            continue
        # Nothing is made up.
        assert got <= len(data)
        assert reader.unfinished == (got < len(data))


def test_damaged_pieces_are_pieces_or_a_protocol_error() -> None:
    chance = random.Random("mux")
    pieces = conversation()[:600]
    for _ in range(INPUTS):
        reader, data, got = MuxReader(), mutate(pieces, chance), 0
        try:
            for part in cut(data, chance):
                got += sum(len(piece) for _, piece in reader.feed(part))
        except ProtocolError:
            continue
        assert got <= len(data)


def test_a_damaged_conversation_ends_and_nothing_else_happens() -> None:
    chance = random.Random("conversation")

    async def one(data: bytes) -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            async with asyncio.timeout(10):
                await Connection(reader, writer, echo, Limits()).run()
        except ProtocolError:
            pass
        finally:
            theirs.close()

    async def run() -> None:
        whole = [conversation(), *(recording.read_bytes() for recording in RECORDINGS.values())]
        for _ in range(max(1, INPUTS // _FRAMES)):
            await one(mutate(chance.choice(whole), chance))

    asyncio.run(run())


def messages() -> dict[str, list[bytes]]:
    """For each method, messages of real shape: our own, and those recorded from real runtimes."""
    one = pod(1, 1 << 30, overhead_bytes=1 << 28)
    one.annotations["io.katacontainers.config.hypervisor.default_memory"] = "4096"
    main = container(one, "main", 1 << 30)
    main.linux.resources.hugepage_limits.add(page_size="2MB", limit=1 << 21)
    update = nri_pb2.UpdateContainerRequest(pod=one, container=main)
    update.linux_resources.memory.limit.value = 1 << 31
    resize = nri_pb2.UpdatePodSandboxRequest(pod=one)
    resize.linux_resources.memory.limit.value = 1 << 31
    of_pod, of_container = nri_pb2.PodRequest(pod=one), nri_pb2.ContainerRequest(pod=one, container=main)
    shapes: dict[str, Message] = {
        "Configure": nri_pb2.ConfigureRequest(
            runtime_name="containerd", runtime_version="v2.4.2", request_timeout=2000, NRI_version="v0.12.3"
        ),
        "Synchronize": nri_pb2.SynchronizeRequest(pods=[one, pod(2)], containers=[main]),
        "RunPodSandbox": of_pod,
        "StopPodSandbox": of_pod,
        "RemovePodSandbox": of_pod,
        "CreateContainer": of_container,
        "StopContainer": of_container,
        "RemoveContainer": of_container,
        "UpdateContainer": update,
        "UpdatePodSandbox": resize,
        "StateChange": nri_pb2.StateChangeEvent(event=1, pod=one, container=main),
        "Shutdown": nri_pb2.Empty(),
    }
    found = {method: [message.SerializeToString()] for method, message in shapes.items()}
    for recording in RECORDINGS.values():
        for call in requests_in(recording.read_bytes()):
            found[call.method].append(call.payload)
    return found


@pytest.mark.parametrize("method", list(messages()))
def test_a_damaged_message_is_answered_or_a_protocol_error(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(method)
    shapes = messages()[method]
    caplog.set_level(logging.CRITICAL)

    async def run() -> None:
        gate, tally = Budget(1 << 34), Tally()
        size = size_with(VmSettings(enable_annotations=(".*",)))
        plugin = Plugin(
            gate, lambda handler: size if handler != "runc" else None, tally, allow_undecided=lambda: True
        )
        for number in range(INPUTS):
            payload = mutate(shapes[number % len(shapes)], chance)
            now = time.monotonic()
            try:
                await plugin.serve(Call(SERVICE, method, payload, now, now + 2))
            except (ProtocolError, StatusError):
                continue
            finally:
                assert gate.committed_bytes <= gate.budget_bytes
        assert not any("undecided" in outcome for _, outcome in tally.decisions)
        await plugin.close()

    asyncio.run(run())
