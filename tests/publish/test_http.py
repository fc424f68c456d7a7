"""What is answered to what, word for word."""

from __future__ import annotations

import socket
from email.parser import BytesHeaderParser
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.errors import HostError
from kata_node_agent.publish.http import MAX_REQUEST_BYTES, Answer, Request, serve
from kata_node_agent.publish.listener import Connection

if TYPE_CHECKING:
    from email.message import Message


def echo(request: Request) -> Answer:
    words = f"{request.path}|{request.query}|{request.headers.get('accept', '')}"
    return Answer(words.encode(), headers={"Content-Security-Policy": "default-src 'self'"})


def broken(request: Request) -> Answer:
    raise HostError("/proc/meminfo: no usable MemTotal", hint="mount it")


def faulty(request: Request) -> Answer:
    raise KeyError("a fault")


def stuck(request: Request) -> Answer:
    raise TimeoutError


ROUTES = {"/": echo, "/metrics": echo, "/broken": broken, "/faulty": faulty, "/stuck": stuck}


def talk(words: bytes) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(words)
        theirs.shutdown(socket.SHUT_WR)
        serve(Connection(ours), ROUTES)
        ours.shutdown(socket.SHUT_WR)
        found = b""
        while more := theirs.recv(65536):
            found += more
        return found


def ask(words: bytes) -> tuple[int, Message, bytes]:
    head, _, body = talk(words).partition(b"\r\n\r\n")
    first, _, rest = head.partition(b"\r\n")
    version, status, _ = first.split(b" ", 2)
    assert version == b"HTTP/1.1"
    headers = BytesHeaderParser().parsebytes(rest)
    return int(status), headers, body


def test_a_route_is_asked_by_path_and_gets_query_and_headers() -> None:
    status, headers, body = ask(b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nACCEPT: text/plain\r\n\r\n")
    assert (status, body) == (200, b"/metrics|a=b|text/plain")
    assert headers["Content-Length"] == str(len(body))
    assert headers["Connection"] == "close"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers.get_all("Content-Security-Policy") == ["default-src 'self'"], "the route's own"
    assert "Python" not in str(headers)


def test_head_has_the_headers_of_get_and_no_body() -> None:
    status, headers, body = ask(b"HEAD / HTTP/1.0\r\n\r\n")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == "3"


def test_an_absolute_address_is_the_same_as_its_path() -> None:
    assert ask(b"GET http://node:9441/metrics HTTP/1.1\r\n\r\n")[2] == b"/metrics||"
    assert ask(b"GET HTTP://node?a HTTP/1.1\n\n")[2] == b"/|a|"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", 404, b"404 Not Found: there is /, "),
        (b"GET /metrics/../metrics HTTP/1.1\r\n\r\n", 404, b"404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405, b"GET and HEAD"),
        (b"DELETE / HTTP/1.1\r\n\r\n", 405, b"GET and HEAD"),
        (b"\xff\xfe\x00 HTTP/9 \r\n\r\n", 400, b"400"),
        (b"GET /\r\n\r\n", 400, b"no request of HTTP/1.1"),
        (b"GET / HTTP/2.0\r\n\r\n", 505, b"505"),
        (b"GET //metrics HTTP/1.1\r\n\r\n", 404, b"404"),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", 405, b"GET and HEAD"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400, b"no header"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, b"no header"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 2000 + b"\r\n", 431, b"431"),
        (b"GET /" + b"x" * 2 * MAX_REQUEST_BYTES, 431, b"at most 8192 bytes"),
        (
            b"GET /broken HTTP/1.1\r\n\r\n",
            503,
            b"HostUnreadable: /proc/meminfo: no usable MemTotal (mount it)",
        ),
        (b"GET /stuck HTTP/1.1\r\n\r\n", 503, b"in time"),
        (b"GET /faulty HTTP/1.1\r\n\r\n", 500, b"its log"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(words: bytes, status: int, said: bytes) -> None:
    found, headers, body = ask(words)
    assert found == status
    assert said in body
    assert body.startswith(f"{status} {HTTPStatus(status).phrase}: ".encode())
    assert body.count(b"\n") == 1
    assert headers["Content-Type"].startswith("text/plain")
    assert "KeyError" not in body.decode(), "tracebacks are for the log"
    assert (headers["Allow"] is not None) == (status == 405)


def test_a_peer_that_leaves_gets_no_answer() -> None:
    assert talk(b"") == b""
    assert talk(b"GET / HT") == b""


@given(st.binary(max_size=300))
def test_any_bytes_get_one_answer_or_none(noise: bytes) -> None:
    for words in (noise, noise + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + noise + b"\r\n\r\n"):
        found = talk(words)
        assert found == b"" or found.startswith(b"HTTP/1.1 ")
        assert found.count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9441", 200),
        ("127.0.0.1", 200),
        ("[::1]:9441", 200),
        ("10.0.0.1:8443", 200),  # as a proxy passes it on
        ("", 200),
        ("evil.example:9441", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
    ],
)
def test_a_name_of_somebody_elses_on_a_loopback_address_is_refused(host: str, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, theirs:
        theirs.sendall(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        theirs.shutdown(socket.SHUT_WR)
        serve(Connection(ours), ROUTES)
        assert int(theirs.recv(65536).split()[1]) == status
