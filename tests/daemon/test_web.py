"""The HTTP listeners of a running agent."""

from __future__ import annotations

import http.client
import shutil
import socket
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.daemon.support import Node
from tests.publish.certificates import Authority
from tests.publish.test_metrics import free_address

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.host


def over_unix(path: Path, target: str = "/metrics") -> str:
    """As `curl --unix-socket` does it."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", target)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def over_tcp(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def reasons(node: Node) -> list[str]:
    return [problem["reason"] for problem in node.status()["problems"]]


def test_metrics_are_on_the_unix_socket_without_any_configuration(short_dir: Path) -> None:
    node = Node(short_dir)
    with node.agent() as agent:
        agent.wait_for("serving socket", timeout=60)
        assert "kata_node_agent_info" in over_unix(node.run_dir / "metrics.sock")
        agent.end()
        assert not (node.run_dir / "metrics.sock").exists()


def test_the_unix_socket_comes_back_when_it_is_removed(short_dir: Path) -> None:
    node = Node(short_dir)
    path = node.run_dir / "metrics.sock"
    with node.agent() as agent:
        agent.wait_for("serving socket", timeout=60)
        shutil.rmtree(node.run_dir)
        until(path.exists)
        assert "kata_node_agent_info" in over_unix(path)


def test_an_agent_that_was_killed_leaves_nothing_in_the_way_of_the_next(short_dir: Path) -> None:
    node = Node(short_dir)
    path = node.run_dir / "metrics.sock"
    with node.agent() as agent:
        agent.wait_for("serving socket", timeout=60)
        agent.process.kill()
        agent.process.wait()
        assert path.exists()
    with node.agent() as agent:
        agent.wait_for("serving socket", times=2, timeout=60)
        assert "kata_node_agent_info" in over_unix(path)


def test_a_reload_opens_and_closes(short_dir: Path) -> None:
    node = Node(short_dir)
    first, second = free_address(), free_address()
    with node.agent() as agent:
        agent.wait_for("serving socket", timeout=60)
        for number, address in enumerate((first, second), start=1):
            node.config.write_text(f'[metrics]\nsocket = false\ntcp_address = "{address}"\n')
            agent.reload()
            agent.wait_for("serving metrics", times=number, timeout=60)
            assert "kata_node_agent_info" in over_tcp(address)
        assert not (node.run_dir / "metrics.sock").exists()
        with pytest.raises(OSError, match="refused"):
            over_tcp(first)
        node.config.write_text("")
        agent.reload()
        until((node.run_dir / "metrics.sock").exists)
        assert "RestartNeeded" not in reasons(node)


def test_a_port_that_is_taken_is_a_problem_and_tried_again(short_dir: Path) -> None:
    node = Node(short_dir)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        node.config.write_text(f'[metrics]\ntcp_address = "{address}"\n')
        with node.agent() as agent:
            agent.wait_for("serving socket", timeout=60)
            (problem,) = [p for p in node.status()["problems"] if p["reason"] == "SocketUnusable"]
            assert "Address already in use" in problem["message"]
            taken.close()
            agent.wait_for("serving metrics", timeout=60)
            assert "SocketUnusable" not in reasons(node)
            assert "kata_node_agent_info" in over_tcp(address)


def test_a_certificate_that_is_missing_is_a_problem_until_it_is_there(short_dir: Path) -> None:
    node, address = Node(short_dir), free_address()
    certificate, key = Authority(short_dir / "ca").sign("node")
    wanted = short_dir / "tls.crt"
    settings = f'[metrics]\ntcp_address = "{address}"\ntls_key = "{key}"\n'
    node.config.write_text(f'{settings}tls_cert = "{wanted}"\n')
    with node.agent() as agent:
        agent.wait_for("serving socket", timeout=60)
        (problem,) = [p for p in node.status()["problems"] if p["reason"] == "CertificateUnusable"]
        assert f"{wanted}: No such file or directory" in problem["message"]
        assert "kata_node_agent_info" in over_unix(node.run_dir / "metrics.sock"), "the rest is served"
        shutil.copy(certificate, wanted)
        agent.wait_for("serving metrics", timeout=60)
        assert "CertificateUnusable" not in reasons(node)
        # What cannot be used leaves the listener that is there.
        node.config.write_text(f'{settings}tls_cert = "{short_dir / "none"}"\n')
        agent.reload()
        until(lambda: "CertificateUnusable" in reasons(node))
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=10):
            pass


def test_a_key_without_a_certificate_is_no_configuration(short_dir: Path) -> None:
    node = Node(short_dir)
    node.config.write_text('[metrics]\ntls_key = "/k"\n')
    with node.agent() as agent:
        assert agent.process.wait(timeout=20) == 2
        assert "only one of them is set" in agent.text
