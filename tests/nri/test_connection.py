"""The conversation over a real socket: answers, and what a bad peer may not do to us."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.errors import NriError
from kata_node_agent.nri.connection import UNIMPLEMENTED, Call, Limits, StatusError
from kata_node_agent.nri.dial import connect
from kata_node_agent.nri.frames import HEADER_BYTES, RESPONSE, Frame, ProtocolError
from kata_node_agent.nri.mux import PLUGIN, RUNTIME
from kata_node_agent.pb import ttrpc_pb2
from tests.nri.support import connected, request, sent

if TYPE_CHECKING:
    from pathlib import Path

IMPATIENT = Limits(frame_seconds=0.2, drain_seconds=0.2)


def test_requests_are_answered_in_order_on_their_streams(short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir) as (_, peer, _):
            await peer.send(b"".join(sent(request(stream, payload=b"%d" % stream)) for stream in (1, 3, 5)))
            answers = [await peer.response() for _ in range(3)]
            assert [(stream, answer.payload) for stream, answer in answers] == [
                (1, b"1"),
                (3, b"3"),
                (5, b"5"),
            ]

    asyncio.run(run())


def test_a_request_that_arrives_byte_by_byte_is_answered(short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir) as (_, peer, _):
            for byte in sent(request(1, payload=b"slow")):
                await peer.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await peer.response())[1].payload == b"slow"

    asyncio.run(run())


def test_an_answer_as_large_as_a_frame_arrives_whole(short_dir: Path) -> None:
    payload = os.urandom((4 << 20) - 100)

    async def run() -> None:
        async with connected(short_dir) as (_, peer, _):
            await peer.send(sent(request(1, payload=payload)))
            assert (await peer.response())[1].payload == payload

    asyncio.run(run())


def test_an_error_is_answered_with_its_code_and_message(short_dir: Path) -> None:
    async def refuse(call: Call) -> bytes:
        raise StatusError(UNIMPLEMENTED, f"no {call.method}")

    async def run() -> None:
        async with connected(short_dir, refuse) as (_, peer, _):
            await peer.send(sent(request(1, "Dance")))
            status = (await peer.response())[1].status
            assert (status.code, status.message) == (12, "no Dance")

    asyncio.run(run())


def test_a_fault_of_ours_is_an_answer_and_the_conversation_goes_on(short_dir: Path) -> None:
    async def stumble(call: Call) -> bytes:
        if call.payload:
            return call.payload
        raise ZeroDivisionError

    async def run() -> None:
        async with connected(short_dir, stumble) as (_, peer, _):
            await peer.send(sent(request(1)) + sent(request(3, payload=b"x")))
            assert (await peer.response())[1].status.code == 13
            assert (await peer.response())[1].payload == b"x"

    asyncio.run(run())


def test_the_callers_own_time_limit_is_known_to_who_answers(short_dir: Path) -> None:
    async def tell(call: Call) -> bytes:
        return b"none" if call.deadline is None else b"%d" % round(call.deadline - call.arrived)

    async def run() -> None:
        async with connected(short_dir, tell) as (_, peer, _):
            await peer.send(sent(request(1, timeout_nano=7_000_000_000)) + sent(request(3, timeout_nano=-1)))
            assert (await peer.response())[1].payload == b"7"
            assert (await peer.response())[1].payload == b"none"

    asyncio.run(run())


def test_we_call_on_the_other_connection_and_get_the_answer(short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir) as (connection, peer, _):
            calling = asyncio.create_task(connection.call("S", "M", b"payload", timeout_seconds=5))
            head = await peer.reader.readexactly(8 + HEADER_BYTES)
            assert struct.unpack(">IIIIBB", head)[0] == RUNTIME
            length, stream = struct.unpack(">II", head[8:16])
            await peer.reader.readexactly(8)
            asked = ttrpc_pb2.Request.FromString(await peer.reader.readexactly(length))
            assert (asked.service, asked.method, asked.payload) == ("S", "M", b"payload")
            answer = ttrpc_pb2.Response(payload=b"fine").SerializeToString()
            await peer.send(sent(Frame(stream, RESPONSE, answer), RUNTIME))
            assert await calling == b"fine"

    asyncio.run(run())


def test_a_call_that_is_not_answered_ends_in_an_error(short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir) as (connection, peer, running):
            with pytest.raises(NriError, match="no answer"):
                await connection.call("S", "M", b"", timeout_seconds=0.05)
            calling = asyncio.create_task(connection.call("S", "M", b"", timeout_seconds=60))
            await asyncio.sleep(0)
            peer.writer.close()
            with pytest.raises(NriError, match="hung up"):
                await calling
            await running

    asyncio.run(run())


def test_hanging_up_ends_the_conversation_without_an_error(short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir) as (_, peer, running):
            peer.writer.close()
            await running

    asyncio.run(run())


BROKEN = {
    "a frame of 4 GiB": struct.pack(">II", PLUGIN, 10) + struct.pack(">IIBB", 2**32 - 1, 1, 1, 0),
    "a piece of 4 GiB": struct.pack(">II", PLUGIN, 2**32 - 1),
    "the reserved connection": struct.pack(">II", 0, 1) + b"x",
    "an even stream": sent(request(2)),
    "a stream used twice": sent(request(3)) + sent(request(3)),
    "a request that is none": sent(Frame(1, 1, b"\xff\xff\xff")),
    "a flood of requests": b"".join(sent(request(stream)) for stream in range(1, 2001, 2)),
    "a flood for nobody": (struct.pack(">II", 77, 1 << 12) + bytes(1 << 12)) * 20,
    "a flood of answers": sent(Frame(1, RESPONSE, b""), RUNTIME) * 20_000,
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_peer_that_breaks_the_protocol_is_hung_up_on(name: str, short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir, limits=Limits(unwanted_bytes=10_000)) as (_, peer, running):
            peer.writer.write(BROKEN[name])
            with pytest.raises(ProtocolError):
                await running

    asyncio.run(run())


def test_what_a_later_runtime_may_add_is_skipped(short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir) as (_, peer, _):
            await peer.send(
                struct.pack(">II", 3, 5) + b"hello" + sent(Frame(1, 3, b"data")) + sent(Frame(1, 99, b""))
            )
            await peer.send(sent(request(1, payload=b"still here")))
            assert (await peer.response())[1].payload == b"still here"

    asyncio.run(run())


def test_a_peer_that_stops_in_mid_frame_is_hung_up_on(short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir, limits=IMPATIENT) as (_, peer, running):
            await peer.send(sent(request(1))[:-1])
            with pytest.raises(ProtocolError, match="not finished"):
                await running

    asyncio.run(run())


def test_a_peer_that_trickles_a_frame_is_hung_up_on(short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir, limits=IMPATIENT) as (_, peer, running):
            for byte in sent(request(1, payload=bytes(200))):
                if running.done():
                    break
                peer.writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
            with pytest.raises(ProtocolError, match="not finished"):
                await running

    asyncio.run(run())


def test_a_peer_that_is_silent_between_frames_is_left_alone(short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir, limits=IMPATIENT) as (_, peer, running):
            await asyncio.sleep(IMPATIENT.frame_seconds * 2)
            assert not running.done()
            await peer.send(sent(request(1, payload=b"hello")))
            assert (await peer.response())[1].payload == b"hello"

    asyncio.run(run())


def test_a_peer_that_never_reads_is_hung_up_on(short_dir: Path) -> None:
    async def run() -> None:
        async with connected(short_dir, limits=IMPATIENT) as (_, peer, running):
            # More than the kernel and both sides' buffers take.
            payload = bytes(1 << 20)
            for stream in range(1, 100, 2):
                peer.writer.write(sent(request(stream, payload=payload)))
                if running.done():
                    break
                await asyncio.sleep(0)
            with pytest.raises(ProtocolError):
                await running

    asyncio.run(run())


def test_nobody_at_the_socket_is_an_error_that_says_what_to_do(short_dir: Path) -> None:
    async def run() -> None:
        with pytest.raises(NriError, match="No such file") as missing:
            await connect(short_dir / "none")
        assert missing.value.hint
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(short_dir / "left"))
        left.close()
        with pytest.raises(NriError, match="refused"):
            await connect(short_dir / "left")

    asyncio.run(run())


LISTENER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
os.setuid(65534)
listener.listen()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.host
def test_a_socket_that_is_not_roots_is_not_talked_to(short_dir: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(short_dir / "s")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        with pytest.raises(NriError, match="is served by user 65534") as served:
            asyncio.run(connect(short_dir / "s"))
        os.chown(short_dir / "s", 65534, 65534)
        with pytest.raises(NriError, match="belongs to user 65534") as owned:
            asyncio.run(connect(short_dir / "s"))
        child.stdin.close()
    assert {served.value.reason, owned.value.reason} == {"NriSocketNotRoots"}
