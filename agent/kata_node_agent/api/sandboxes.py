"""The calls of NodeAgent about the Kata VMs that run: the document of `sandboxes`, asked for or followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import grpc

from kata_node_agent.errors import AgentError
from kata_node_agent.pb import agent_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

# Each watcher gets all sandboxes at each change.
MAX_WATCHERS = 16


class Seen(Protocol):
    """The sandboxes as the daemon has them."""

    async def document(self) -> Mapping[str, Any]:
        """What `sandboxes --format json` prints; raises AgentError."""

    def changes(self) -> AsyncIterator[None]:
        """Goes on at once, and whenever there may be something new to say."""


class SandboxCalls:
    """The calls, over what the daemon follows; ``None`` where it follows nothing."""

    def __init__(self, seen: Seen | None) -> None:
        self._seen = seen
        self._watchers = 0

    async def ListSandboxes(
        self, request: agent_pb2.ListSandboxesRequest, context: Any
    ) -> agent_pb2.Sandboxes:
        """All sandboxes, as they were last seen."""
        return await self._message(context, self._seen)

    async def WatchSandboxes(
        self, request: agent_pb2.WatchSandboxesRequest, context: Any
    ) -> AsyncIterator[agent_pb2.Sandboxes]:
        """All sandboxes, and again at each change, until the caller hangs up."""
        if self._watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} callers watch already")
        self._watchers += 1
        told: agent_pb2.Sandboxes | None = None
        try:
            if self._seen is None:
                await self._message(context, None)
                return
            async for _ in self._seen.changes():
                message = await self._message(context, self._seen)
                if message != told:
                    told = message
                    yield message
        finally:
            self._watchers -= 1

    async def _message(self, context: Any, seen: Seen | None) -> agent_pb2.Sandboxes:
        if seen is None:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "the agent follows no sandboxes (sandbox.follow is false); `kata-node-agent sandboxes` reads them itself",
            )
            raise AssertionError("abort always raises")
        try:
            return as_message(await seen.document())
        except AgentError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise


def as_message(document: Mapping[str, Any]) -> agent_pb2.Sandboxes:
    """The message with the document's fields; ``None`` is a field that is not set."""
    from google.protobuf.json_format import ParseDict

    return ParseDict(dict(document), agent_pb2.Sandboxes())
