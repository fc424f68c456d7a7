"""Asks the running agent over its socket; for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from kata_node_agent.api.account import DETAILS
from kata_node_agent.api.server import SOCKET_NAME
from kata_node_agent.errors import SocketError
from kata_node_agent.pb import agent_pb2, agent_pb2_grpc
from kata_node_agent.sockets import GROUP, check_socket_path, connect_once, unix_target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
_TIMEOUT_SECONDS = 5.0


def get_status(run_dir: Path) -> agent_pb2.Status:
    """The status of the agent that serves in ``run_dir``.

    Raises:
        SocketError: no agent answers there; the message says why.
    """
    request = agent_pb2.GetStatusRequest()
    answer = ask(run_dir, lambda stub: stub.GetStatus(request, timeout=_TIMEOUT_SECONDS))
    assert isinstance(answer, agent_pb2.Status)  # noqa: S101 - the stub is untyped
    return answer


def ask(run_dir: Path, call: Callable[[Any], T]) -> T:
    """Calls the agent that serves in ``run_dir``.

    Args:
        run_dir: its folder.
        call: calls one method of the stub that it is given.

    Raises:
        SocketError: no agent answers there, or it cannot do what is asked; the message says why.
    """
    path = run_dir / SOCKET_NAME
    check_socket_path(path)
    # gRPC's own words for an unreachable socket are about addresses and subchannels; the file system's are clearer.
    try:
        connect_once(path)
    except PermissionError as error:
        hint = f"run as root or as a member of the group {GROUP}"
        raise SocketError(f"{path}: permission denied", hint=hint, reason="NotPermitted") from error
    except OSError as error:
        dead = "; a dead one left its socket" if isinstance(error, ConnectionRefusedError) else ""
        hint = "start it with `kata-node-agent run` or systemctl; give its folder with --run-dir if it is another"
        text = f"{path}: no agent is running here{dead}"
        raise SocketError(text, hint=hint, reason="AgentNotRunning") from error
    with grpc.insecure_channel(unix_target(path)) as channel:
        try:
            return call(agent_pb2_grpc.NodeAgentStub(channel))
        except grpc.RpcError as error:
            if (problem := _problem(error)) is not None:
                raise SocketError(problem.message, hint=problem.remedy, reason=problem.reason) from error
            text = f"{path}: the agent does not answer: {error.code().name}"
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                text = f"{path}: the agent that runs is of another version"
            hint = f"see its log; you must be root or in the group {GROUP}"
            raise SocketError(text, hint=hint, reason="AgentNotAnswering") from error


def _problem(error: grpc.RpcError) -> agent_pb2.Problem | None:
    """What the agent says is wrong, in the status's details; ``None`` where it does not."""
    trailer = {pair.key: pair.value for pair in error.trailing_metadata() or ()}
    content = trailer.get(DETAILS)
    if not isinstance(content, bytes):
        return None
    for packed in agent_pb2.RpcStatus.FromString(content).details:
        problem = agent_pb2.Problem()
        if packed.Unpack(problem):
            return problem
    return None
