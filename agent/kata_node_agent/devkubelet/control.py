"""The control socket: how another process tells a development kubelet what to do.

One JSON object a line, both ways. A request is ``{"do": "admit", …}``; an answer has ``"ok": true`` and what
was asked, or ``"ok": false`` with reason, message and hint. ``watch`` is answered with events without end.
Whatever else comes in is answered with an error, and the connection stays; only a line without end closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from kata_node_agent.errors import AgentError
from kata_node_agent.sockets import make_room

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kata_node_agent.devkubelet.events import Event
    from kata_node_agent.devkubelet.kubelet import DevKubelet
    from kata_node_agent.devkubelet.state import Pod

MAX_LINE_BYTES = 64 * 1024
MAX_NAME_LENGTH = 253
# What a watcher may be behind before it misses something.
MAX_WAITING_EVENTS = 1000


class RequestError(AgentError):
    """A request on the control socket is no request."""

    reason = "BadRequest"


class Control:
    """Serves the control socket of one development kubelet."""

    def __init__(self, kubelet: DevKubelet, path: Path) -> None:
        self._kubelet = kubelet
        self._path = path
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._since_unix_seconds = time.time()
        # Two restarts at once would start one life twice.
        self._lives = asyncio.Lock()
        self.stop_asked = asyncio.Event()
        self._commands: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "status": self._status,
            "pods": self._pods,
            "admit": self._admit,
            "delete": self._delete,
            "restart": self._restart,
            "stop": self._stop,
        }

    async def start(self) -> None:
        """Listens; only our own user may connect."""
        make_room(self._path)
        self._server = await asyncio.start_unix_server(self._connected, str(self._path), limit=MAX_LINE_BYTES)
        self._path.chmod(0o600)

    async def close(self) -> None:
        """Ends every connection and removes the socket: it is ours, not a kubelet's."""
        if self._server is None:
            return
        self._server.close()
        for task in self._calls:
            task.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        await self._server.wait_closed()
        self._server = None
        self._path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs us
        self._calls.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._calls.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                await _send(writer, _failure(RequestError(f"a line has more than {MAX_LINE_BYTES} bytes")))
                return
            try:
                request = parse(line)
                if request["do"] == "watch":
                    await self._watch(reader, writer)
                    return
                answer = {"ok": True, **await self._do(request)}
            except AgentError as error:
                answer = _failure(error)
            await _send(writer, answer)

    async def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        command = self._commands.get(request["do"])
        if command is None:
            raise RequestError(
                f"no such command: {request['do'][:40]!r}",
                hint=f"there are {', '.join(sorted([*self._commands, 'watch']))}",
            )
        return await command(request)

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        kubelet = self._kubelet
        return {
            "pid": os.getpid(),
            "directory": str(kubelet.directory),
            "kubelet_socket": str(kubelet.socket),
            "pod_resources_socket": str(kubelet.pod_resources_socket),
            "running": kubelet.running,
            "since_unix_seconds": self._since_unix_seconds,
            "resources": [
                _resource(kubelet, name) for name in (kubelet.resources() if kubelet.running else [])
            ],
            "pods": len(kubelet.pods()) if kubelet.running else 0,
        }

    async def _pods(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"pods": [self._pod(pod) for pod in self._kubelet.pods()]}

    async def _admit(self, request: dict[str, Any]) -> dict[str, Any]:
        containers = request.get("containers", {"c0": 1})
        if not (isinstance(containers, dict) and all(_is_count(count) for count in containers.values())):
            raise RequestError("containers must be an object: name → number of devices")
        overhead = request.get("overhead", 0)
        if not _is_count(overhead):
            raise RequestError("overhead must be a number of devices")
        extra = {"resource": _text(request, "resource")} if "resource" in request else {}
        pod = await self._kubelet.admit(
            _text(request, "namespace", "default"),
            _text(request, "name"),
            containers,
            overhead=overhead,
            **extra,
        )
        return {"pod": self._pod(pod)}

    async def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        pod = self._kubelet.delete(_text(request, "namespace", "default"), _text(request, "name"))
        return {"pod": self._pod(pod)}

    async def _restart(self, request: dict[str, Any]) -> dict[str, Any]:
        down_seconds = request.get("down_seconds", 0.0)
        if not isinstance(down_seconds, int | float) or not 0 <= down_seconds <= 3600:
            raise RequestError("down_seconds must be a number from 0 to 3600")
        async with self._lives:
            await self._kubelet.restart(down_seconds)
            self._since_unix_seconds = time.time()
        return {}

    async def _stop(self, _: dict[str, Any]) -> dict[str, Any]:
        self.stop_asked.set()
        return {"pid": os.getpid()}

    async def _watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """First all resources as they are, then every event until the caller goes or sends something."""
        queue: asyncio.Queue[Event] = asyncio.Queue(MAX_WAITING_EVENTS)

        def put(event: Event) -> None:
            # Who does not read misses events.
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(event)

        unlisten = self._kubelet.log.listen(put)
        tasks: set[asyncio.Task[Any]] = set()
        try:
            await _send(writer, {"ok": True, **await self._status({})})
            tasks = {asyncio.create_task(_pump(queue, writer)), asyncio.create_task(reader.read(1))}
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            unlisten()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _pod(self, pod: Pod) -> dict[str, Any]:
        return {
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "phase": pod.phase,
            "reason": pod.reason,
            "message": pod.message,
            "resource": pod.resource,
            "overhead": pod.overhead,
            "containers": {container.name: container.count for container in pod.containers},
            "device_ids": list(self._kubelet.device_ids(pod)),
        }


def parse(line: bytes) -> dict[str, Any]:
    """A request from a line.

    Raises:
        RequestError: it is none.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"not a line of JSON: {error}") from None
    if not isinstance(request, dict) or not isinstance(request.get("do"), str):
        raise RequestError('not a request: {"do": COMMAND} is wanted')
    return request


def _resource(kubelet: DevKubelet, name: str) -> dict[str, Any]:
    counts = kubelet.counts(name)
    return {
        "resource": name,
        "capacity": counts.capacity,
        "allocatable": counts.allocatable,
        "in_use": counts.in_use,
        "endpoints": kubelet.endpoints(name),
    }


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000


def _text(request: dict[str, Any], key: str, default: str | None = None) -> str:
    value = request.get(key, default)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_LENGTH or not value.isprintable():
        raise RequestError(f"{key} must be a text of 1 to {MAX_NAME_LENGTH} characters")
    return value


async def _pump(queue: asyncio.Queue[Event], writer: asyncio.StreamWriter) -> None:
    while True:
        await _send(writer, (await queue.get()).to_json())


def _failure(error: AgentError) -> dict[str, Any]:
    return {"ok": False, "reason": error.reason, "message": error.message, "hint": error.hint}


async def _send(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()
