"""Kubelet's /configz, over real HTTP and TLS on a loopback address."""

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kata_node_agent.config.schema import KubeletConfig
from kata_node_agent.errors import AgentError
from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig.configz import is_loopback, read_configz
from kata_node_agent.nodeconfig.memory import read_budget, with_ours

SETTINGS = {
    "kubeletconfig": {
        "systemReserved": {"memory": "3Gi", "cpu": "500m"},
        "evictionHard": {"memory.available": "100Mi"},
        "enforceNodeAllocatable": ["pods"],
        "maxPods": 250,
        "cgroupsPerQOS": True,
        "memoryManagerPolicy": "Static",
        "reservedMemory": [{"numaNode": 0, "limits": {"memory": "3172Mi", "hugepages-2Mi": "4Mi"}}],
        "topologyManagerPolicy": "single-numa-node",
    }
}


class Kubelet(HTTPServer):
    """Answers with `body`; remembers what it was asked."""

    body = json.dumps(SETTINGS).encode()
    status = 200
    byte_seconds = 0.0
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Kubelet

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.path} {self.headers.get('Authorization', 'no token')}")
        self.send_response(self.server.status)
        self.end_headers()
        try:
            if not self.server.byte_seconds:
                self.wfile.write(self.server.body)
            for byte in self.server.body if self.server.byte_seconds else b"":
                self.wfile.write(bytes([byte]))
                time.sleep(self.server.byte_seconds)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def kubelet(tls: ssl.SSLContext | None = None) -> Iterator[Kubelet]:
    server = Kubelet(("127.0.0.1", 0), Handler)
    server.asked = []
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def node(tmp_path: Path) -> HostRoot:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 33554432 kB\n")
    folder = tmp_path / "etc/kubernetes"
    folder.mkdir(parents=True)
    (folder / "kubelet.conf").write_text(
        '{"kind": "KubeletConfiguration", "systemReserved": {"memory": "1Gi"}}'
    )
    return HostRoot(tmp_path)


def test_kubelets_own_word_counts_and_ours_stays_on_top(tmp_path: Path) -> None:
    with kubelet() as server:
        url = f"http://127.0.0.1:{server.server_port}/configz"
        ours = KubeletConfig(configz_url=url, eviction_hard_memory="1Gi")
        budget, settings = read_budget(node(tmp_path), ours)
    assert budget.system_reserved_bytes == 3 << 30
    assert budget.eviction_hard_bytes == 1 << 30
    values = with_ours(settings, ours).values
    assert values["maxPods"].origin == "kubelet's /configz"
    assert values["reservedMemory"].value == ("0:memory=3172Mi,hugepages-2Mi=4Mi",)
    assert values["evictionHard.memory.available"].origin.startswith("our configuration")
    assert settings.problem == ""
    assert server.asked == ["/configz no token"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b"Unauthorized"),
        (200, b"{"),
        (200, b"[]"),
        (200, b'{"kubeletconfig": 7}'),
        (200, b"x" * (2 << 20)),
    ],
)
def test_an_answer_that_cannot_be_used_is_said_and_files_count(
    tmp_path: Path, status: int, body: bytes
) -> None:
    with kubelet() as server:
        server.status, server.body = status, body
        ours = KubeletConfig(configz_url=f"http://127.0.0.1:{server.server_port}/configz")
        budget, settings = read_budget(node(tmp_path), ours)
    assert budget.system_reserved_bytes == 1 << 30
    assert settings.problem


def test_nobody_there_is_said_and_what_was_known_stays(tmp_path: Path) -> None:
    root = node(tmp_path)
    with kubelet() as server:
        ours = KubeletConfig(configz_url=f"http://127.0.0.1:{server.server_port}/configz")
        known = read_budget(root, ours)[1]
    budget, settings = read_budget(root, ours, known)
    assert budget.system_reserved_bytes == 3 << 30
    assert "ECONNREFUSED" in settings.problem


def test_a_byte_now_and_then_does_not_keep_a_look(tmp_path: Path) -> None:
    with kubelet() as server:
        server.byte_seconds = 0.3
        with pytest.raises(AgentError):
            read_configz(node(tmp_path), f"http://127.0.0.1:{server.server_port}/configz", None, None)


def test_only_this_machine_is_asked_without_tls(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="only a loopback address"):
        read_configz(node(tmp_path), "http://10.0.0.1/configz", None, None)
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "10.0.0.1", "kubelet", "")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url", ["http://[::1", "https://localhost:99999999/configz", "http://127.0.0.1:1/\u20ac"]
)
def test_a_url_that_is_none_is_an_error_with_a_hint(tmp_path: Path, url: str) -> None:
    with pytest.raises(AgentError, match=r"configz_url|loopback"):
        read_configz(node(tmp_path), url, None, None)


@pytest.mark.host
def test_over_tls_the_token_is_sent_only_to_a_kubelet_whose_certificate_is_trusted(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "token").write_text("secret\n")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    root = HostRoot(tmp_path)
    with kubelet(tls) as server:
        url = f"https://localhost:{server.server_port}/configz"
        document = read_configz(root, url, Path("/token"), Path("/ca.pem"))
        assert document.fields["maxPods"] == 250
        assert server.asked == ["/configz Bearer secret"]
        with pytest.raises(AgentError, match="CERTIFICATE_VERIFY_FAILED"):
            read_configz(root, url, Path("/token"), None)
        assert len(server.asked) == 1
