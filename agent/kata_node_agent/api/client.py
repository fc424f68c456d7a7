"""Asks the running agent over its socket; for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from kata_node_agent.api.server import GROUP, SOCKET_NAME
from kata_node_agent.errors import SocketError
from kata_node_agent.pb import agent_pb2, agent_pb2_grpc
from kata_node_agent.sockets import check_socket_path, connect_once, unix_target

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_SECONDS = 5.0


def get_status(run_dir: Path) -> agent_pb2.Status:
    """The status of the agent that serves in ``run_dir``.

    Raises:
        SocketError: no agent answers there; the message says why.
    """
    path = run_dir / SOCKET_NAME
    check_socket_path(path)
    # gRPC's own words for an unreachable socket are about addresses and subchannels; the file system's are clearer.
    try:
        connect_once(path)
    except PermissionError as error:
        hint = f"run as root or as a member of the group {GROUP}"
        raise SocketError(f"{path}: permission denied", hint=hint) from error
    except OSError as error:
        dead = "; a dead one left its socket" if isinstance(error, ConnectionRefusedError) else ""
        hint = "start it with `kata-node-agent run` or systemctl; give its folder with --run-dir if it is another"
        text = f"{path}: no agent is running here{dead}"
        raise SocketError(text, hint=hint, reason="AgentNotRunning") from error
    with grpc.insecure_channel(unix_target(path)) as channel:
        try:
            answer = agent_pb2_grpc.NodeAgentStub(channel).GetStatus(
                agent_pb2.GetStatusRequest(), timeout=_TIMEOUT_SECONDS
            )
        except grpc.RpcError as error:
            text = f"{path}: the agent does not answer: {error.code().name}"
            hint = f"see its log; you must be root or in the group {GROUP}"
            raise SocketError(text, hint=hint, reason="AgentNotAnswering") from error
    assert isinstance(answer, agent_pb2.Status)  # noqa: S101 - the stub is untyped
    return answer
