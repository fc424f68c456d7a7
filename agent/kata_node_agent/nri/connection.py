"""One conversation with the runtime: ttrpc both ways over a socket, until either side ends it.

Requests are answered one after the other, as the runtime itself asks under one lock. What a peer may make us keep is
bounded: one unfinished frame a connection, a few requests that wait, one buffer of answers that it does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import DecodeError

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import NriError
from kata_node_agent.nri.frames import REQUEST, RESPONSE, Frame, FrameReader, ProtocolError
from kata_node_agent.nri.mux import PLUGIN, RUNTIME, MuxReader, pieces_of
from kata_node_agent.pb import ttrpc_pb2
from kata_node_agent.text import printable

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Mapping

_READ_BYTES = 1 << 16
_NANOSECONDS = 1_000_000_000
# google.rpc.Code
INVALID_ARGUMENT = 3
UNIMPLEMENTED = 12
INTERNAL = 13


class StatusError(Exception):
    """An answer that is an error: a code of google.rpc.Code and a message for people."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Call:
    """A request. `arrived` and `deadline` are `time.monotonic`; no deadline: the caller set none."""

    service: str
    method: str
    payload: bytes
    arrived: float
    deadline: float | None


class Serve(Protocol):
    """Answers a call with a payload, or raises StatusError."""

    async def __call__(self, call: Call) -> bytes:
        """One answer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may do to us.

    Attributes:
        frame_seconds: from the first byte of a frame to its last.
        drain_seconds: until it reads what we have written.
        waiting: requests that were not answered yet.
        unwanted_bytes: for connections and streams that nobody opened; a newer runtime may try some.
    """

    frame_seconds: float = 10.0
    drain_seconds: float = 5.0
    waiting: int = 64
    unwanted_bytes: int = 1 << 20


class Connection:
    """Both ttrpc connections of one socket, as the plugin has them; the other way round for a runtime's side.

    `run` once; `call` while it runs.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        serve: Serve,
        limits: Limits | None = None,
        *,
        serves: int = PLUGIN,
        calls: int = RUNTIME,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._serve = serve
        self._limits = limits or Limits()
        self._serves = serves
        self._calls_on = calls
        self._mux = MuxReader()
        self._frames: Mapping[int, FrameReader] = {serves: FrameReader(), calls: FrameReader()}
        self._requests: asyncio.Queue[tuple[int, Call]] = asyncio.Queue(self._limits.waiting)
        self._last_stream = 0
        self._next_stream = 1
        self._calls: dict[int, asyncio.Future[ttrpc_pb2.Response]] = {}
        self._unwanted_bytes = 0

    async def run(self) -> None:
        """Reads and answers until the peer hangs up.

        Raises:
            ProtocolError: the peer broke the protocol or one of our limits; the socket is closed.
        """
        answering = asyncio.create_task(self._answer())
        answering.add_done_callback(lambda _: self._writer.transport.abort())
        try:
            await self._read()
        finally:
            answering.cancel()
            self._writer.transport.abort()
            for waiting in self._calls.values():
                if not waiting.done():
                    waiting.set_exception(NriError("the runtime hung up"))
            await asyncio.wait([answering])
        if not answering.cancelled() and (error := answering.exception()) is not None:
            raise error

    async def call(self, service: str, method: str, payload: bytes, *, timeout_seconds: float) -> bytes:
        """Calls the peer.

        Raises:
            NriError: it answered with an error, hung up, or did not answer in time.
        """
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        request = ttrpc_pb2.Request(
            service=service,
            method=method,
            payload=payload,
            timeout_nano=int(timeout_seconds * _NANOSECONDS),
        )
        waiting = asyncio.get_running_loop().create_future()
        self._calls[stream] = waiting
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._send(self._calls_on, Frame(stream, REQUEST, request.SerializeToString()))
                response: ttrpc_pb2.Response = await waiting
        except TimeoutError:
            raise NriError(f"{method}: no answer within {timeout_seconds:.0f} s") from None
        finally:
            del self._calls[stream]
            if waiting.done() and not waiting.cancelled():
                # Taken, so that nobody complains about it when we ourselves were cancelled.
                waiting.exception()
        if response.status.code:
            raise NriError(f"{method}: {printable(response.status.message)} (code {response.status.code})")
        return response.payload

    async def _read(self) -> None:
        begun = time.monotonic()
        while True:
            unfinished = self._mux.unfinished or any(frames.unfinished for frames in self._frames.values())
            left = begun + self._limits.frame_seconds - time.monotonic() if unfinished else None
            try:
                async with asyncio.timeout(left):
                    data = await self._reader.read(_READ_BYTES)
            except TimeoutError:
                raise ProtocolError(
                    f"a frame was not finished within {self._limits.frame_seconds:.0f} s"
                ) from None
            except OSError:
                return
            if not data:
                return
            if self._take(data) or not unfinished:
                begun = time.monotonic()

    def _take(self, data: bytes) -> bool:
        """Takes what was read; returns whether a frame ended in it."""
        ended = False
        for connection, part in self._mux.feed(data):
            if connection not in self._frames:
                self._unwanted(len(part))
                continue
            for frame in self._frames[connection].feed(part):
                ended = True
                if connection == self._serves and frame.kind == REQUEST:
                    self._take_request(frame)
                elif connection == self._calls_on and frame.kind == RESPONSE and frame.stream in self._calls:
                    self._take_response(frame)
                else:
                    # An answer that came too late, or a kind of a later version.
                    self._unwanted(len(frame.data) + 1)
        return ended

    def _unwanted(self, length: int) -> None:
        self._unwanted_bytes += length
        if self._unwanted_bytes > self._limits.unwanted_bytes:
            raise ProtocolError("too much for connections and streams that nobody opened")

    def _take_request(self, frame: Frame) -> None:
        if frame.stream % 2 != 1 or frame.stream <= self._last_stream:
            raise ProtocolError(f"request on stream {frame.stream} after stream {self._last_stream}")
        self._last_stream = frame.stream
        try:
            request = ttrpc_pb2.Request.FromString(frame.data)
        except DecodeError:
            raise ProtocolError("a request that cannot be decoded") from None
        now = time.monotonic()
        deadline = now + request.timeout_nano / _NANOSECONDS if request.timeout_nano > 0 else None
        try:
            self._requests.put_nowait(
                (frame.stream, Call(request.service, request.method, request.payload, now, deadline))
            )
        except asyncio.QueueFull:
            raise ProtocolError(f"more than {self._limits.waiting} requests wait for an answer") from None

    def _take_response(self, frame: Frame) -> None:
        try:
            response = ttrpc_pb2.Response.FromString(frame.data)
        except DecodeError:
            raise ProtocolError("a response that cannot be decoded") from None
        waiting = self._calls[frame.stream]
        if not waiting.done():
            waiting.set_result(response)

    async def _answer(self) -> None:
        while True:
            stream, call = await self._requests.get()
            response = ttrpc_pb2.Response()
            try:
                response.payload = await self._serve(call)
            except ProtocolError:
                raise
            except StatusError as error:
                response.status.code = error.code
                response.status.message = error.message
            except Exception:
                log.exception("NRI call failed", extra={"method": printable(call.method, 100)})
                response.status.code = INTERNAL
                response.status.message = "a fault of kata-node-agent; its log says more"
            await self._send(self._serves, Frame(stream, RESPONSE, response.SerializeToString()))

    async def _send(self, connection: int, frame: Frame) -> None:
        # One write, so that the frames of two senders do not mix.
        self._writer.write(pieces_of(connection, frame))
        try:
            async with asyncio.timeout(self._limits.drain_seconds):
                # The runtime hung up: reading tells.
                with contextlib.suppress(OSError):
                    await self._writer.drain()
        except TimeoutError:
            raise ProtocolError(
                f"our answers were not read within {self._limits.drain_seconds:.0f} s"
            ) from None
