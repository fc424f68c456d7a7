"""HTTP on one connection: one request is read, a table of routes answers it, then the connection is closed.

GET and HEAD only, no files, no bodies, nothing that a request could change: so little of HTTP that it is read here. The
standard library's server would load its client, the parser of mails and OpenSSL: 5 MiB on every node that is scraped.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from dataclasses import field
from http import HTTPStatus
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata_node_agent.publish.listener import Connection

log = logging.getLogger(__name__)

# Prometheus asks with some 500 bytes, a browser with 2 KiB at most where no cookies are.
MAX_REQUEST_BYTES = 8192
_MAX_BODY_BYTES = 64 * 1024
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN.pattern + rb") ([!-~]+) HTTP/([0-9]\.[0-9])")
# Proxies, and some clients, name the host in the target, too.
_AUTHORITY = re.compile(r"https?://[^/?]*", re.IGNORECASE)
# What a browser names as the host where nobody has led it: a name of somebody else's may be made to mean this machine.
_OWN_HOST = re.compile(r"(localhost|[0-9.]+|\[[0-9a-f:.]+\])(:[0-9]*)?", re.IGNORECASE)
# How long a peer that still sends may take to see that we have closed.
_LINGER_SECONDS = 1.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "kata-node-agent",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    path: str
    query: str = ""
    # Names in small letters; of a header that comes twice, the last.
    headers: Mapping[str, str] = field(default_factory=dict)
    head_only: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to it. Headers are laid over those that every answer has."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


if TYPE_CHECKING:
    # Blocking, on the connection's thread. An AgentError becomes an answer, and so does a TimeoutError of the event loop.
    Route = Callable[[Request], Answer]


def refusal(status: HTTPStatus, why: str, **headers: str) -> Answer:
    """An answer of one line for a person."""
    return Answer(
        f"{status.value} {status.phrase}: {why}\n".encode("utf-8", "replace"), status=status, headers=headers
    )


def serve(connection: Connection, routes: Mapping[str, Route]) -> None:
    """Reads one request and answers it. Blocking.

    Args:
        connection: as accepted, or with TLS already spoken on it.
        routes: path → who answers.

    Raises:
        OSError: the peer is gone, or was hung up on.
    """
    request = _read(connection)
    if request is None:
        return
    connection.asked()
    if isinstance(request, Answer):
        answer = request
    elif _is_led_astray(connection.socket, request):
        answer = refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            "on a loopback address only localhost and addresses are answered, not a Host with another name",
        )
    else:
        answer = answer_to(request, routes)
    head_only = isinstance(request, Request) and request.head_only
    connection.socket.sendall(_head(answer) + (b"" if head_only else answer.body))
    _linger(connection.socket)


def answer_to(request: Request, routes: Mapping[str, Route]) -> Answer:
    """The answer of the route that the path names."""
    route = routes.get(request.path)
    if route is None:
        return refusal(HTTPStatus.NOT_FOUND, "there is " + ", ".join(sorted(routes)))
    try:
        return route(request)
    except AgentError as error:
        return refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"{error.reason}: {error}")
    except TimeoutError:
        return refusal(
            HTTPStatus.SERVICE_UNAVAILABLE, "the agent did not answer in time; see its log and `status`"
        )
    except Exception:
        log.exception("cannot answer", extra={"path": request.path})
        return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the agent's; its log has the traceback")


def _is_led_astray(peer: socket.socket, request: Request) -> bool:
    """Whether a browser asks for a page of somebody else's, whose name means this machine by now, to read us (DNS rebinding).

    On a loopback address only: there nobody else comes, and no name is used. With TLS the browser sees it by itself.
    """
    where, host = peer.getsockname(), request.headers.get("host", "")
    local = isinstance(where, tuple) and (where[0] == "::1" or where[0].startswith(("127.", "::ffff:127.")))
    return local and not hasattr(peer, "unwrap") and host != "" and not _OWN_HOST.fullmatch(host)


def parse(head: bytes) -> Request | Answer:
    """The request that a head is, or what to say to one that cannot be answered. Source: RFC 9112."""
    first, *lines = head.replace(b"\r\n", b"\n").split(b"\n")
    if (found := _REQUEST_LINE.fullmatch(first)) is None:
        return refusal(HTTPStatus.BAD_REQUEST, "that is no request of HTTP/1.1")
    method, target, version = (part.decode("ascii") for part in found.groups())
    if not version.startswith("1."):
        return refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.0 and 1.1 are spoken here")
    if method not in {"GET", "HEAD"}:
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD are answered", Allow="GET, HEAD")
    headers: dict[str, str] = {}
    for line in lines:
        if not line:
            break
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            return refusal(HTTPStatus.BAD_REQUEST, "a line of the head is no header")
        headers[name.decode("ascii").lower()] = value.strip(b" \t").decode("latin-1")
    if (authority := _AUTHORITY.match(target)) is not None:
        target = target[authority.end() :]
    path, _, query = target.partition("?")
    return Request(path or "/", query, headers, method == "HEAD")


def _read(connection: Connection) -> Request | Answer | None:
    """The request, or what to say to it; ``None`` for a peer that has left."""
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        if len(head) == MAX_REQUEST_BYTES:
            return refusal(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"at most {MAX_REQUEST_BYTES} bytes are read"
            )
        if not (more := connection.socket.recv(MAX_REQUEST_BYTES - len(head))):
            return None
        head += more
    return parse(head)


def _head(answer: Answer) -> bytes:
    headers = {
        "Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
        **_HEADERS,
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def _linger(peer: socket.socket) -> None:
    """Lets the peer read the answer: what it sent and we did not read would make the system take the answer back."""
    peer.settimeout(_LINGER_SECONDS)
    if (end_tls := getattr(peer, "unwrap", None)) is not None:
        end_tls()
        return
    peer.shutdown(socket.SHUT_WR)
    left = _MAX_BODY_BYTES
    while left > 0 and (read := len(peer.recv(4096))):
        left -= read
