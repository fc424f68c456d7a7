"""Peers that do not behave, on real sockets of the test's own."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.errors import BusyError, SocketError
from kata_node_agent.publish import http, listener
from kata_node_agent.publish.http import Answer, Request
from kata_node_agent.publish.listener import Connection, Listener, listen_on_tcp, listen_on_unix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def hello(request: Request) -> Answer:
    return Answer(f"hello {request.path}\n".encode())


def serve(connection: Connection) -> None:
    http.serve(connection, {"/metrics": hello})


def connect(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(10)
    peer.connect(str(path))
    return peer


def read(peer: socket.socket) -> bytes:
    found = b""
    with peer:
        while more := peer.recv(65536):
            found += more
    return found


def ask(path: Path, words: bytes = GET) -> bytes:
    peer = connect(path)
    peer.sendall(words)
    return read(peer)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def path(short_dir: Path) -> Iterator[Path]:
    path = short_dir / "metrics.sock"
    serving = Listener(listen_on_unix(path), serve, "test")
    yield path
    serving.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test")]


def test_a_peer_that_is_silent_stops_nobody_and_is_hung_up_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ASK_SECONDS", 0.3)
    silent = connect(path)
    half = connect(path)
    half.sendall(GET[:20])
    assert b"hello /metrics" in ask(path)
    assert read(silent) == b""
    assert read(half) == b""


def test_a_peer_that_sends_byte_by_byte_is_hung_up_on_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ASK_SECONDS", 0.3)
    peer = connect(path)

    def drip() -> bool:
        try:
            peer.sendall(b"X")
        except OSError:
            return True
        return False

    until(drip)
    peer.close()


def test_of_too_many_silent_peers_the_oldest_make_room(path: Path) -> None:
    """Nobody waits for a timeout here: that of a request is longer than the test."""
    silent = [connect(path) for _ in range(3 * listener.MAX_CONNECTIONS)]
    assert b"hello" in ask(path)
    assert read(silent[0]) == b""
    for peer in silent[1:]:
        peer.close()


def test_peers_that_are_being_answered_are_never_hung_up_on_for_others(short_dir: Path) -> None:
    may_answer = threading.Event()

    def slow(request: Request) -> Answer:
        may_answer.wait(10)
        return hello(request)

    path = short_dir / "s"
    serving = Listener(listen_on_unix(path), lambda each: http.serve(each, {"/metrics": slow}), "slow")
    try:
        asked = [connect(path) for _ in range(listener.MAX_CONNECTIONS)]
        for peer in asked:
            peer.sendall(GET)
        until(lambda: sum(not each.waiting for each in serving._open) == listener.MAX_CONNECTIONS)
        assert read(connect(path)) == b"", "one too many is refused at once"
        may_answer.set()
        assert all(b"hello" in read(peer) for peer in asked)
    finally:
        may_answer.set()
        serving.stop()


def test_a_peer_that_does_not_read_ends_with_the_time_of_an_answer(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ANSWER_SECONDS", 0.3)
    path = short_dir / "s"
    large = Answer(b"x" * 8_000_000)
    serving = Listener(
        listen_on_unix(path), lambda each: http.serve(each, {"/metrics": lambda _: large}), "l"
    )
    try:
        peer = connect(path)
        peer.sendall(GET)
        until(lambda: bool(serving._open))
        until(lambda: not serving._open)
        peer.close()
    finally:
        serving.stop()


def test_a_peer_that_goes_before_the_answer_leaves_the_rest_as_it_was(path: Path) -> None:
    for _ in range(20):
        peer = connect(path)
        peer.sendall(GET)
        peer.close()
    assert b"hello" in ask(path)


def test_an_end_waits_for_answers_but_not_for_the_silent(path: Path) -> None:
    with connect(path):
        time.sleep(0)  # the fixture ends the listener, and looks for threads that are left


def test_the_socket_is_ours_alone_until_it_is_given_to_the_group(path: Path) -> None:
    assert path.stat().st_mode & 0o7777 in {0o600, 0o660}


def test_a_living_listener_is_not_pushed_aside(path: Path) -> None:
    with pytest.raises(BusyError):
        listen_on_unix(path)


def test_a_port_that_is_taken_and_a_host_that_is_not_known_are_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(
            SocketError, match=r":\d+: cannot listen: Address already in use \(EADDRINUSE\) \(another\)$"
        ):
            listen_on_tcp(f"127.0.0.1:{taken.getsockname()[1]}", hint="another")
    with pytest.raises(SocketError, match=r"nobody.invalid:1: cannot listen: .+"):
        listen_on_tcp("nobody.invalid:1", hint="another")


def test_ipv6_addresses_are_listened_on() -> None:
    with listen_on_tcp("[::1]:0", hint="") as listening:
        assert listening.getsockname()[0] == "::1"


def test_every_address_is_that_of_ipv4_too() -> None:
    with listen_on_tcp("[::]:0", hint="") as listening:
        socket.create_connection(("127.0.0.1", listening.getsockname()[1])).close()
