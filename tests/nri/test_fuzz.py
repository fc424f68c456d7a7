"""Damaged bytes on the socket: whatever comes, the conversation goes on or ends as a protocol error.

FUZZ_MUTATIONS=100000 makes it thorough. The inputs are the same in every run.
"""

from __future__ import annotations

import asyncio
import random
import socket
from typing import TYPE_CHECKING

from kata_node_agent.nri.connection import Connection, Limits
from kata_node_agent.nri.frames import FrameReader, ProtocolError, header_of
from kata_node_agent.nri.mux import RUNTIME, MuxReader
from tests.host.test_mutations import INPUTS, mutate
from tests.nri.support import echo, request, sent

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        for _ in range(max(1, INPUTS // _FRAMES)):
            await one(mutate(conversation(), chance))

    asyncio.run(run())
