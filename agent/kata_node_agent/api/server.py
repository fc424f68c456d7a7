"""The listeners: agent.sock for root and the group `kata-node-agent`, and health alone on TCP where configured."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from kata_node_agent.api.account import AccountCalls
from kata_node_agent.api.health import HealthService
from kata_node_agent.api.sandboxes import SandboxCalls
from kata_node_agent.errors import AgentError, SocketError
from kata_node_agent.pb import agent_pb2, agent_pb2_grpc
from kata_node_agent.sockets import (
    FileIdentity,
    check_tcp_permitted,
    give_to_group,
    identity_of,
    make_room,
    unix_target,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from kata_node_agent.api.account import Keeper
    from kata_node_agent.api.sandboxes import Seen

    # Reads the node when asked; raises AgentError where it cannot.
    ReadNode = Callable[[], Awaitable[agent_pb2.Node]]

log = logging.getLogger(__name__)

SOCKET_NAME = "agent.sock"
_MAX_REQUEST_BYTES = 1024 * 1024
_STOP_GRACE_SECONDS = 0.2
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/"


class NodeAgentService(AccountCalls, SandboxCalls):
    """The NodeAgent service over functions of the daemon."""

    def __init__(
        self, status: Callable[[], agent_pb2.Status], node: ReadNode, keeper: Keeper, sandboxes: Seen | None
    ) -> None:
        AccountCalls.__init__(self, keeper)
        SandboxCalls.__init__(self, sandboxes)
        self._status = status
        self._node = node

    async def GetStatus(self, request: agent_pb2.GetStatusRequest, context: Any) -> agent_pb2.Status:
        """What the agent advertises, what limits it, and what is wrong."""
        return self._status()

    async def GetNode(self, request: agent_pb2.GetNodeRequest, context: Any) -> agent_pb2.Node:
        """What the node has, what is kept from pods, and what is used, read now."""
        try:
            return await self._node()
        except AgentError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise


class _LateReflection(grpc.GenericRpcHandler):
    """Server reflection, loaded when somebody asks: it costs memory that a node without grpcurl need not pay."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._services = services
        self._handlers: dict[str, Any] = {}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler for a method of the reflection service; ``None`` for any other."""
        method = handler_call_details.method
        if not method.startswith(_REFLECTION):
            return None
        if not self._handlers:
            from grpc_reflection.v1alpha import reflection, reflection_pb2

            servicer = reflection.aio.ReflectionServicer(self._services)
            self._handlers[_REFLECTION + "ServerReflectionInfo"] = grpc.stream_stream_rpc_method_handler(
                servicer.ServerReflectionInfo,
                request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
                response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
            )
        return self._handlers.get(method)


class ApiServer:
    """Serves from `start` until `stop`."""

    def __init__(
        self,
        run_dir: Path,
        status: Callable[[], agent_pb2.Status],
        serving: Callable[[], Mapping[str, bool]],
        node: ReadNode,
        keeper: Keeper,
        sandboxes: Seen | None = None,
    ) -> None:
        self.path = run_dir / SOCKET_NAME
        self._service = NodeAgentService(status, node, keeper, sandboxes)
        self._serving = serving
        self._health = HealthService(serving)
        self._servers: list[grpc.aio.Server] = []
        self._identity: FileIdentity | None = None
        self._tcp_wanted = ""
        # What keeps us from serving, in part or at all; and what the log has of that.
        self.problem: AgentError | None = None
        self._told = ""

    async def start(self, tcp_address: str = "") -> None:
        """Listens on the Unix socket and, if given, on TCP: what keeps us from that is `problem`, and `look` tries again.

        Raises:
            SocketError, BusyError: the Unix socket cannot be had.
        """
        make_room(self.path)
        self._health = HealthService(self._serving)
        server = self._new_server()
        agent_pb2_grpc.add_NodeAgentServicer_to_server(self._service, server)
        names = (
            "kata_node_agent.v1.NodeAgent",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        )
        server.add_generic_rpc_handlers((_LateReflection(names),))
        # Nobody else may connect in the moment between the making of the socket and its mode.
        before = os.umask(0o177)
        try:
            _listen(
                server,
                unix_target(self.path),
                SocketError(f"{self.path}: cannot listen", hint="is the folder writable?"),
            )
        finally:
            os.umask(before)
        await server.start()
        give_to_group(self.path.parent)
        give_to_group(self.path, 0o660)
        self._identity = identity_of(self.path)
        self._tcp_wanted = tcp_address
        if not tcp_address:
            self._told = ""
        await self.look()

    async def look(self) -> None:
        """Listens on TCP where that is wanted and has not been possible yet."""
        if not (address := self._tcp_wanted):
            return
        hint = "choose a free port in health.tcp_address"
        why = SocketError(f"{address}: cannot listen; the port may be taken", hint=hint)
        server = self._new_server()
        try:
            check_tcp_permitted(address)
            _listen(server, address, why)
        except SocketError as error:
            self.fails(error)
            self._servers.remove(server)
            await server.stop(None)
            return
        self._tcp_wanted, self._told, self.problem = "", "", None
        await server.start()

    def fails(self, error: AgentError) -> None:
        """Remembers what keeps us from serving; the log has it once, however often it is tried again."""
        if str(error) != self._told:
            log.error("cannot serve", extra={"why": str(error)})
        self.problem, self._told = error, str(error)

    def _new_server(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", _MAX_REQUEST_BYTES), ("grpc.so_reuseport", 0)]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._servers.append(server)
        return server

    @property
    def in_place(self) -> bool:
        """Whether the file at our path is still the socket that we made; false where a start has failed, too."""
        return self._identity is not None and identity_of(self.path) == self._identity

    async def stop(self) -> None:
        """Stops listening; the library removes the socket."""
        self._identity, self.problem, self._tcp_wanted = None, None, ""
        self._health.close()
        for server in self._servers:
            await server.stop(_STOP_GRACE_SECONDS)
        self._servers.clear()


def _listen(server: grpc.aio.Server, address: str, error: AgentError) -> None:
    try:
        server.add_insecure_port(address)
    except RuntimeError as cause:
        raise error from cause
