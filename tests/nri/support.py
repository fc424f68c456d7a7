"""A runtime's side of the conversation, and bytes as they come from one."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kata_node_agent.nri.connection import Call, Connection, Limits
from kata_node_agent.nri.frames import REQUEST, Frame
from kata_node_agent.nri.mux import PLUGIN, pieces_of
from kata_node_agent.pb import ttrpc_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

SERVICE = "nri.pkg.api.v1alpha1.Plugin"


def request(
    stream: int, method: str = "Configure", payload: bytes = b"", timeout_nano: int = 2_000_000_000
) -> Frame:
    """A request as the runtime sends it."""
    message = ttrpc_pb2.Request(service=SERVICE, method=method, payload=payload, timeout_nano=timeout_nano)
    return Frame(stream, REQUEST, message.SerializeToString())


def sent(frame: Frame, connection: int = PLUGIN) -> bytes:
    """A frame on the socket."""
    return pieces_of(connection, frame)


def pieces(data: bytes) -> list[tuple[int, bytes]]:
    """Written bytes taken apart as the runtime's reader does: one piece a read."""
    found = []
    while data:
        connection, length = struct.unpack(">II", data[:8])
        found.append((connection, data[8 : 8 + length]))
        assert len(found[-1][1]) == length
        data = data[8 + length :]
    return found


async def echo(call: Call) -> bytes:
    """Answers with what was asked."""
    return call.payload


class Peer:
    """The other end of a connection under test, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Writes."""
        self.writer.write(data)
        await self.writer.drain()

    async def response(self) -> tuple[int, ttrpc_pb2.Response]:
        """The next answer: its stream and what it says."""
        head = await self.reader.readexactly(18)
        assert struct.unpack(">II", head[:8]) == (PLUGIN, 10)
        length, stream, kind, _ = struct.unpack(">IIBB", head[8:])
        assert kind == 2
        if not length:
            return stream, ttrpc_pb2.Response()
        assert struct.unpack(">II", await self.reader.readexactly(8)) == (PLUGIN, length)
        return stream, ttrpc_pb2.Response.FromString(await self.reader.readexactly(length))


@asynccontextmanager
async def connected(
    folder: Path, serve: Callable[[Call], Awaitable[bytes]] = echo, limits: Limits | None = None
) -> AsyncIterator[tuple[Connection, Peer, asyncio.Task[None]]]:
    """A connection under test, its peer, and the task that runs it."""
    accepted: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(Peer(reader, writer))

    path = folder / "nri.sock"
    server = await asyncio.start_unix_server(accept, path)
    reader, writer = await asyncio.open_unix_connection(path)
    connection = Connection(reader, writer, serve, limits)  # type: ignore[arg-type]
    running = asyncio.create_task(connection.run())
    peer = await accepted
    try:
        yield connection, peer, running
    finally:
        running.cancel()
        await asyncio.wait([running])
        peer.writer.transport.abort()
        server.close()
