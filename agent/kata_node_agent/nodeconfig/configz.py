"""Kubelet's own word on its settings: /configz, where one has been told how to read it.

It needs a token that may get ``nodes/configz`` (or ``nodes/proxy``), so it is an option and not the way. TLS costs 4 MiB of
memory and is loaded only then.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kata_node_agent.errors import AgentError, HostError, describe_os_error
from kata_node_agent.nodeconfig.document import parse_document
from kata_node_agent.text import printable

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.document import Document

_TIMEOUT_SECONDS = 2.0
_MAX_BYTES = 1024 * 1024
# The last request's thread: one that cannot be ended (a name that is not resolved) must not become many.
_unanswered: list[threading.Thread] = []


def read_configz(root: HostRoot, url: str, token_file: Path | None, ca_file: Path | None) -> Document:
    """Kubelet's settings as it has them in memory.

    Args:
        root: the host; both files are below it.
        url: ``https://…/configz``, or ``http://`` on a loopback address.
        token_file: a bearer token; ``None`` for none. Never sent without TLS.
        ca_file: certificates to trust instead of the system's.

    Raises:
        HostError: it cannot be reached, does not answer in two seconds, refuses, or answers with something else.
        QuantityError: an amount in it is none.
    """
    answers: list[tuple[int, bytes] | Exception] = []
    opened: list[socket.socket] = []
    deadline = time.monotonic() + _TIMEOUT_SECONDS

    def ask() -> None:
        try:
            answers.append(_ask(root, url, token_file, ca_file, opened, deadline))
        except Exception as error:  # noqa: BLE001 - judged by who waits; http.client's have no common base
            answers.append(error)

    # A thread: names are resolved, and each byte of a slow peer is waited for, without any bound on the whole.
    if any(thread.is_alive() for thread in _unanswered):
        raise _unusable(url, "an earlier request is still without an answer")
    thread = threading.Thread(target=ask, daemon=True, name="configz")
    thread.start()
    thread.join(_TIMEOUT_SECONDS)
    _unanswered[:] = [thread]
    if thread.is_alive():
        for connection in opened:
            # Closing alone would not wake it; the TLS layer's own shutdown would go on without TLS.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        # Whatever the thread makes of what has come until now.
        raise _unusable(url, "no whole answer in time")
    match answers:
        case [OSError() as error]:
            raise _unusable(url, describe_os_error(error)) from error
        case [AgentError() as error]:
            raise error
        case [Exception() as error]:
            raise _unusable(url, repr(error)) from error
        case [(200, bytes(content))]:
            return parse_document(content, configz=True)
        case [(int(status), _)]:
            hint = "the token must be allowed to get nodes/configz" if status in {401, 403} else ""
            raise _unusable(url, f"HTTP status {status}", hint)
    raise AssertionError(answers)


def _ask(
    root: HostRoot,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    opened: list[socket.socket],
    deadline: float,
) -> tuple[int, bytes]:
    """(status, body). Each connection is put where who waits can end it, from before the first byte on."""
    from http.client import HTTPConnection

    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    if not secure and not is_loopback(host):
        raise HostError(f"{printable(host)}: without TLS only a loopback address is asked")
    headers = {"Accept": "application/json"}
    if token_file is not None and secure:
        headers["Authorization"] = f"Bearer {_token(root, token_file)}"
    context = _tls(root, ca_file) if secure else None
    port = parts.port or (443 if secure else 80)
    connection = HTTPConnection(host, port)
    plain = socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS)
    opened.append(plain)
    try:
        if time.monotonic() > deadline:
            raise TimeoutError("the name was resolved too late")
        connection.sock = plain
        if context is not None:
            tls = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            opened.append(tls)
            connection.sock = tls
            tls.do_handshake()
        connection.request("GET", (parts.path or "/configz"), headers=headers)
        with connection.getresponse() as answer:
            content = answer.read(_MAX_BYTES + 1)
    finally:
        for each in opened:
            each.close()
    if len(content) > _MAX_BYTES:
        raise HostError(f"an answer of more than {_MAX_BYTES} bytes")
    return answer.status, content


def _tls(root: HostRoot, ca_file: Path | None) -> ssl.SSLContext:
    import ssl

    return ssl.create_default_context(
        cadata=root.read_text(ca_file, _MAX_BYTES) if ca_file is not None else None
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its address alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(root: HostRoot, path: Path) -> str:
    token = root.read_text(path, 64 * 1024).strip()
    if not token or not token.isascii() or not token.isprintable():
        raise HostError(f"{root.resolve(path)}: no token")
    return token


def _unusable(url: str, why: str, hint: str = "") -> HostError:
    hint = hint or "kubelet's files and flags are read instead; see kubelet.configz_url"
    return HostError(f"{printable(url)}: {printable(why)}", hint=hint, reason="ConfigzUnusable")
