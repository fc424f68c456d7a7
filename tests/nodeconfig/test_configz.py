"""Kubelet's /configz, over real HTTP and TLS on a loopback address."""

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Kubelet

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.path} {self.headers.get('Authorization', 'no token')}")
        self.send_response(self.server.status)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(self.server.body)

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


@contextmanager
def dripping(start: bytes) -> Iterator[int]:
    """Takes connections and sends `start`, then a byte now and then until the peer hangs up. Its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            peer, _ = listener.accept()
            with peer:
                peer.sendall(start)
                while True:
                    peer.sendall(b"x")
                    time.sleep(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # The request was ended, not left to itself: the peer sees it.
        thread.join(5)
        hung_up = not thread.is_alive()
        listener.close()
        assert hung_up


@pytest.mark.parametrize(
    ("scheme", "start"),
    [
        ("http", b"HTTP/1.0 200 OK\r\n\r\n"),
        ("http", b"HTTP/1.0 200 OK\r\nName: "),
        # A TLS record of handshake that never becomes whole.
        ("https", b"\x16\x03\x03\x40\x00"),
    ],
)
def test_a_byte_now_and_then_does_not_keep_a_look(tmp_path: Path, scheme: str, start: bytes) -> None:
    with dripping(start) as port, pytest.raises(AgentError, match="no whole answer in time"):
        read_configz(HostRoot(tmp_path), f"{scheme}://127.0.0.1:{port}/configz", None, None)


def wait_for(asked: list[object]) -> None:
    """Until the request is under way, which on a busy machine may be after its time."""
    end = time.monotonic() + 20
    while not asked and time.monotonic() < end:
        time.sleep(0.01)


def test_a_request_that_cannot_be_ended_does_not_become_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    released = threading.Event()

    def stuck(*where: object, **_: object) -> socket.socket:
        asked.append(where)
        released.wait(30)
        raise OSError("released")

    monkeypatch.setattr("kata_node_agent.nodeconfig.configz._TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(socket, "create_connection", stuck)
    try:
        with pytest.raises(AgentError, match="no whole answer in time"):
            read_configz(HostRoot(tmp_path), "http://127.0.0.1:1/configz", None, None)
        wait_for(asked)
        with pytest.raises(AgentError, match="an earlier request is still without an answer"):
            read_configz(HostRoot(tmp_path), "http://127.0.0.1:1/configz", None, None)
        assert len(asked) == 1
    finally:
        released.set()
    while any(thread.name == "configz" for thread in threading.enumerate()):
        time.sleep(0.01)


def test_what_no_configuration_has_comes_from_the_flags_beside_it(tmp_path: Path) -> None:
    root = node(tmp_path)
    process = tmp_path / "proc/9"
    process.mkdir()
    (process / "comm").write_text("kubelet\n")
    (process / "status").write_text("Uid:\t0\t0\t0\t0\nNSpid:\t9\n")
    (process / "cmdline").write_text("kubelet\0--runtime-cgroups=/r\0--root-dir\0/k\0--max-pods=7\0")
    with kubelet() as server:
        ours = KubeletConfig(configz_url=f"http://127.0.0.1:{server.server_port}/configz")
        settings = read_budget(root, ours)[1]
    assert [settings.text(name) for name in ("runtimeCgroups", "rootDir", "maxPods")] == ["/r", "/k", "250"]


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
