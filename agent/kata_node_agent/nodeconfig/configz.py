"""Kubelet's own word on its settings: /configz, where one has been told how to read it.

It needs a token that may get ``nodes/configz`` (or ``nodes/proxy``), so it is an option and not the way. TLS costs 4 MiB of
memory and is loaded only then.
"""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kata_node_agent.errors import AgentError, HostError, describe_os_error
from kata_node_agent.nodeconfig.document import parse_document, printable

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse
    from pathlib import Path

    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.document import Document

_TIMEOUT_SECONDS = 2.0
_MAX_BYTES = 1024 * 1024


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
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    try:
        parts = urlsplit(url)
        connection = _connect(root, parts.scheme, parts.hostname or "", parts.port, ca_file)
        try:
            headers = {"Accept": "application/json"}
            if token_file is not None and parts.scheme == "https":
                headers["Authorization"] = f"Bearer {_token(root, token_file)}"
            connection.request("GET", (parts.path or "/configz"), headers=headers)
            answer = connection.getresponse()
            content = _read(answer, deadline)
        finally:
            connection.close()
    except OSError as error:
        raise _unusable(url, describe_os_error(error)) from error
    except AgentError:
        raise
    except Exception as error:
        # http.client's errors and those of URLs and headers have no common base.
        raise _unusable(url, repr(error)) from error
    if answer.status != 200:
        hint = "the token must be allowed to get nodes/configz" if answer.status in {401, 403} else ""
        raise _unusable(url, f"HTTP status {answer.status}", hint)
    return parse_document(content, configz=True)


def _connect(
    root: HostRoot, scheme: str, host: str, port: int | None, ca_file: Path | None
) -> HTTPConnection:
    from http.client import HTTPConnection, HTTPSConnection

    if scheme == "https":
        import ssl

        if ca_file is None:
            context = ssl.create_default_context()
        else:
            context = ssl.create_default_context(cadata=root.read_text(ca_file, _MAX_BYTES))
        return HTTPSConnection(host, port, timeout=_TIMEOUT_SECONDS, context=context)
    if not is_loopback(host):
        raise HostError(f"{printable(host)}: without TLS only a loopback address is asked")
    return HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)


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


def _read(answer: HTTPResponse, deadline: float) -> bytes:
    """The whole answer. A peer that gives a byte a second must not keep a look for minutes."""
    content = b""
    while chunk := answer.read1(1 << 16):
        content += chunk
        if len(content) > _MAX_BYTES:
            raise HostError(f"an answer of more than {_MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("no whole answer in time")
    return content


def _unusable(url: str, why: str, hint: str = "") -> HostError:
    hint = hint or "kubelet's files and flags are read instead; see kubelet.configz_url"
    return HostError(f"{printable(url)}: {printable(why)}", hint=hint, reason="ConfigzUnusable")
