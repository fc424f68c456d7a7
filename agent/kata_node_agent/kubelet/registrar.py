"""Keeps us registered with kubelet, whatever kubelet does.

A new registration is needed when kubelet has restarted: it deletes every socket in its folder, makes kubelet.sock anew,
and waits. Three signs tell it, any of which may come first or be missed: our own socket is gone, kubelet.sock is another
file, the ListAndWatch stream has ended. That another plugin has had the resource shows in none of them: who asks kubelet
calls `register_again`. Kubelet kills running pods when a plugin is more than a second late, so the way from the first sign
to Register is kept short.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import time
from typing import TYPE_CHECKING

import grpc

from kata_node_agent.backoff import Backoff
from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import AgentError, SocketError, StartAnewError
from kata_node_agent.host.watch import FolderWatch
from kata_node_agent.kubelet.endpoint import Endpoint
from kata_node_agent.pb import deviceplugin_pb2, deviceplugin_pb2_grpc
from kata_node_agent.sockets import FRESH_CONNECTION, FileIdentity, identity_of, unix_target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kata_node_agent.kubelet.service import DevicePluginService

log = logging.getLogger(__name__)

KUBELET_SOCKET = "kubelet.sock"
API_VERSION = "v1beta1"
# Kubelet dials back before it answers, with 10 s of its own for that.
_REGISTER_TIMEOUT_SECONDS = 15.0
# After this time without a stream a registration has not taken, or was taken from us.
_STREAM_TIMEOUT_SECONDS = 1.0
# A registration that held this long was a good one: the next trouble is a new one.
_STABLE_SECONDS = 10.0


class State(enum.StrEnum):
    """Where the conversation stands."""

    NO_DIRECTORY = "waiting for kubelet's device plugin folder"
    NO_KUBELET = "waiting for kubelet's socket"
    REGISTERING = "registering"
    REGISTERED = "registered"


@dataclass(slots=True)
class Status:
    """What `status` tells of the conversation. Times are seconds since 1970."""

    state: State = State.NO_DIRECTORY
    since: float = 0.0
    registrations: int = 0
    last_error: str = ""


class Registrar:
    """Serves an endpoint, registers it, and does both again whenever needed."""

    def __init__(
        self,
        directory: Path,
        resource: str,
        make_service: Callable[[], DevicePluginService],
        on_change: Callable[[], None] = lambda: None,
        claim: Callable[[], None] = lambda: None,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """Serves nothing yet.

        Args:
            directory: kubelet's device plugin folder.
            resource: to be registered.
            make_service: answers kubelet; a new one for each listener.
            on_change: called when `status` or the streams have changed.
            claim: called before each attempt; raises AgentError where we may not. StartAnewError ends `run`.
            on_turn: called every few seconds while all goes on, also without a kubelet.
        """
        self._directory = directory
        self._resource = resource
        self._make_service = make_service
        self._on_change = on_change
        self._claim = claim
        self._on_turn = on_turn
        self._watch = FolderWatch(directory)
        self._kubelet: FileIdentity | None = None
        self._doubt = ""
        self._streams_task: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self.endpoint: Endpoint | None = None
        self.status = Status(since=time.time())
        self.connected_since = time.monotonic()
        self.answered_at = float("-inf")

    @property
    def socket_path(self) -> Path:
        """Kubelet's socket."""
        return self._directory / KUBELET_SOCKET

    @property
    def stream_open(self) -> bool:
        """Whether kubelet holds a ListAndWatch stream."""
        return self.endpoint is not None and self.endpoint.service.streams > 0

    async def run(self) -> None:
        """Runs until cancelled; then ends the endpoint."""
        backoff = Backoff()
        try:
            while True:
                seen = identity_of(self.socket_path)
                if seen is None:
                    self._set_state(
                        State.NO_KUBELET if os.path.isdir(self._directory) else State.NO_DIRECTORY
                    )
                    backoff.reset()
                    await self._wait()
                    continue
                if seen != self._kubelet:
                    backoff.reset()
                if await self._register(seen) and await self._stay_registered() > _STABLE_SECONDS:
                    backoff.reset()
                # If kubelet.sock is still the same file, kubelet is going down, or another plugin has the resource, and
                # the two of us must not take it from each other in a tight loop. A new file is tried at once.
                await self._pause(backoff, seen)
        finally:
            self._watch.close()
            await self._retire_endpoint()
            await asyncio.gather(*self._retiring)

    def register_again(self, why: str) -> None:
        """Gives the present registration up, for a reason that none of our own signs tells."""
        self._doubt = why
        self._watch.wake()

    async def probe(self) -> bool:
        """Calls our own endpoint over its socket and remembers when it answered (`time.monotonic`)."""
        endpoint = self.endpoint
        answered = endpoint is not None and await endpoint.answers()
        if answered:
            self.answered_at = time.monotonic()
        return answered

    async def _wait(self, timeout_seconds: float | None = None) -> None:
        """The one place where this waits for the world."""
        self._on_turn()
        await self._watch.wait(timeout_seconds)

    async def _pause(self, backoff: Backoff, seen: FileIdentity) -> None:
        """Waits for the next try, or for a new kubelet.sock, which is tried at once."""
        deadline = time.monotonic() + backoff.pause()
        while (left := deadline - time.monotonic()) > 0 and identity_of(self.socket_path) == seen:
            await self._wait(left)

    async def _register(self, seen: FileIdentity) -> bool:
        """One attempt: serve first, as kubelet dials back before it answers; then call Register."""
        self._set_state(State.REGISTERING)
        self._kubelet = seen
        try:
            self._claim()
            endpoint = await self._ready_endpoint()
            request = deviceplugin_pb2.RegisterRequest(
                version=API_VERSION,
                endpoint=endpoint.name,
                resource_name=self._resource,
                options=deviceplugin_pb2.DevicePluginOptions(get_preferred_allocation_available=True),
            )
            # A channel of its own for each attempt: a shared one would keep its own pauses after a refusal.
            async with grpc.aio.insecure_channel(
                unix_target(self.socket_path), options=FRESH_CONNECTION
            ) as channel:
                stub = deviceplugin_pb2_grpc.RegistrationStub(channel)
                call = stub.Register(request, timeout=_REGISTER_TIMEOUT_SECONDS)
                await self._answer(asyncio.ensure_future(_result(call)), seen, endpoint)
        except StartAnewError:
            raise
        except AgentError as error:
            self._failed(str(error))
            return False
        except grpc.aio.AioRpcError as error:
            self._failed(in_words(error.code().name, error.details() or ""))
            return False
        self.status.registrations += 1
        self.status.last_error = ""
        self.connected_since = time.monotonic()
        self._doubt = ""
        self._set_state(State.REGISTERED)
        log.info("registered", extra={"resource": self._resource, "endpoint": endpoint.name})
        return True

    async def _answer(self, answer: asyncio.Future[None], seen: FileIdentity, endpoint: Endpoint) -> None:
        """Waits for kubelet's answer as long as it can be a yes.

        A kubelet that starts after we have looked and before we call deletes our socket first. It takes the call, and dials a
        socket that is not there for 10 s: nobody waits for that.

        Raises:
            SocketError: our socket or kubelet's is not the one that we registered with. AioRpcError: kubelet's error.
        """
        answer.add_done_callback(lambda _: self._watch.wake())
        try:
            while not answer.done():
                if not endpoint.in_place or identity_of(self.socket_path) != seen:
                    raise SocketError(
                        "kubelet started anew while we registered", hint="it is tried again at once"
                    )
                await self._wait()
            answer.result()
        finally:
            answer.cancel()

    async def _ready_endpoint(self) -> Endpoint:
        """The endpoint, made anew when its socket is gone or kubelet has used it: what was lost once is not trusted again."""
        if self.endpoint is not None and self.endpoint.in_place and not self.endpoint.service.had_stream:
            return self.endpoint
        await self._retire_endpoint()
        self.endpoint = await Endpoint(self._directory, self._resource, self._make_service()).start()
        self._streams_task = asyncio.create_task(self._follow_streams(self.endpoint.service))
        return self.endpoint

    async def _follow_streams(self, service: DevicePluginService) -> None:
        while True:
            await service.streams_changed.wait()
            self._watch.wake()
            self._on_change()

    async def _retire_endpoint(self) -> None:
        """Ends the endpoint: its streams now, the rest in the background, as kubelet must not wait for that.

        A kubelet that still lives marks all devices unhealthy when a stream of ours ends, even one that it has replaced:
        so the old one must have ended before the next is registered.
        """
        endpoint, self.endpoint = self.endpoint, None
        if self._streams_task is not None:
            self._streams_task.cancel()
            self._streams_task = None
        if endpoint is not None:
            # First the task, so that a cancellation here loses nothing.
            task = asyncio.create_task(endpoint.stop())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            await endpoint.service.end_streams()

    async def _stay_registered(self) -> float:
        """Returns when one of the signs says that we are not registered any more; how many seconds it held."""
        without_stream_since = time.monotonic()
        while True:
            if identity_of(self.socket_path) != self._kubelet:
                why = "kubelet.sock is another one"
            elif self.endpoint is None or not self.endpoint.in_place:
                why = "our socket was deleted"
            elif self._doubt:
                why = self._doubt
            elif self.stream_open:
                without_stream_since = float("inf")
                await self._wait()
                continue
            elif without_stream_since == float("inf"):
                why = "kubelet ended the stream"
            elif (left := without_stream_since + _STREAM_TIMEOUT_SECONDS - time.monotonic()) > 0:
                await self._wait(left)
                continue
            else:
                why = "kubelet did not open a stream"
            self._failed(why)
            return time.monotonic() - self.connected_since

    def _failed(self, why: str) -> None:
        if why != self.status.last_error:
            log.warning("not registered", extra={"why": why})
        self.status.last_error = why
        self._set_state(State.REGISTERING)

    def _set_state(self, state: State) -> None:
        if state != self.status.state:
            self.status.state = state
            self.status.since = time.time()
            if state is not State.REGISTERED and state is not State.REGISTERING:
                log.info(state.value, extra={"path": str(self._directory)})
        self._on_change()


def in_words(code: str, details: str) -> str:
    """Kubelet's words with gRPC's code; where nobody took the call, the system's reason, which gRPC wraps in four others."""
    if details.startswith("failed to connect"):
        details = f"nobody answers at kubelet.sock: {details.rpartition(': ')[2]}"
    return f"{code}: {details}"


async def _result(call: Awaitable[object]) -> None:
    await call
