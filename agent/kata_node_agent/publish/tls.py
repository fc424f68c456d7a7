"""TLS for the HTTP listener: a certificate of ours, and where wanted only peers with one that an authority has signed.

The files are looked at for each connection and read anew when they are others, so that a certificate is renewed without a
word to the agent. OpenSSL (6 MiB) is loaded with the first of them.
"""

from __future__ import annotations

import binascii
import logging
import os
import re
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kata_node_agent.errors import CertificateError, describe_os_error

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from kata_node_agent.publish.listener import Connection

log = logging.getLogger(__name__)

_MAX_FILE_BYTES = 1024 * 1024
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_NO_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"400 Bad Request: TLS is spoken here; ask with https\n"
)
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
# Seconds before the end at which it is said.
EXPIRES_SOON_SECONDS = 7 * 24 * 3600.0

# What tells a file from what it was: device, inode, size, time of change in ns. Kubernetes swaps a link to renew a secret.
_State = tuple[tuple[int, int, int, int] | None, ...]


class Tls:
    """Speaks TLS with peers, by three files of PEM."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        """Reads them.

        Args:
            certificate: ours, and what leads from it to its authority.
            key: its private key, without a passphrase; may be in the same file.
            client_ca: who signs the peers' certificates; ``None``: any peer is served.

        Raises:
            CertificateError: one of them cannot be used.
        """
        self._files = (certificate, key, client_ca)
        self._lock = threading.Lock()
        self._seen = self._look()
        self._context, self._expires = self._read()
        self._error: CertificateError | None = None

    def accept(self, connection: Connection) -> None:
        """Speaks TLS on a connection from now on. Blocking.

        Raises:
            OSError: the peer does not speak it, or showed no certificate that we trust.
        """
        import ssl

        self.renew()
        wrapped = self._context.wrap_socket(
            connection.socket, server_side=True, do_handshake_on_connect=False
        )
        connection.socket = wrapped
        try:
            wrapped.do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                # Past the TLS layer, which has nothing to say any more. What is left unread would take the answer back.
                socket.socket.recv(wrapped, 4096)
                socket.socket.sendall(wrapped, _NO_TLS)
            raise

    def renew(self) -> None:
        """Reads the files if they are others. What cannot be used leaves the present ones in force."""
        with self._lock:
            if (seen := self._look()) == self._seen:
                return
            self._seen = seen
            try:
                self._context, self._expires = self._read()
                self._error = None
            except CertificateError as error:
                self._error = error
                log.error("the certificate that was read before stays", extra={"why": str(error)})

    @property
    def problem(self) -> CertificateError | None:
        """What is wrong with the files, or with the certificate in force at this time."""
        if self._error is not None:
            return CertificateError(
                f"{self._error.message}; the one that was read before stays", hint=self._error.hint
            )
        left = self._expires - time.time()
        if left > EXPIRES_SOON_SECONDS:
            return None
        ended = datetime.fromtimestamp(self._expires, UTC).isoformat(timespec="seconds")
        verb = "ended" if left <= 0 else "ends"
        return CertificateError(
            f"{self._files[0]}: the certificate {verb} {ended}",
            hint="put a new one in its place; it is read by itself",
            reason="CertificateExpired" if left <= 0 else "CertificateExpires",
        )

    def _look(self) -> _State:
        return tuple(_state_of(path) for path in self._files if path is not None)

    def _read(self) -> tuple[ssl.SSLContext, float]:
        import ssl

        certificate, key, client_ca = self._files
        chain, _ = _content(certificate), _content(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # A key with a passphrase would have OpenSSL ask for it on the terminal.
            context.load_cert_chain(certificate, key, password=lambda: b"")
        except ssl.SSLError as error:
            raise _unusable(certificate, key, error) from error
        except OSError as error:
            raise CertificateError(f"{certificate}: {describe_os_error(error)}", hint=_PERMIT) from error
        if client_ca is not None:
            _content(client_ca)
            try:
                context.load_verify_locations(client_ca)
            except OSError as error:
                raise CertificateError(
                    f"{client_ca}: no certificates in it that could be used",
                    hint="give the authority's certificates in PEM",
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context, expiry_of(chain)


_PERMIT = "is it there, and may the agent read it? metrics.tls_cert, tls_key and tls_client_ca name the files"


def _unusable(certificate: Path, key: Path, error: ssl.SSLError) -> CertificateError:
    if error.reason == "KEY_VALUES_MISMATCH":
        return CertificateError(
            f"{key}: not the key of the certificate in {certificate}",
            hint="give the two that belong together",
        )
    return CertificateError(
        f"{certificate}, {key}: no certificate with its key that could be used ({error.reason or 'no PEM'})",
        hint="give both in PEM, the key without a passphrase",
    )


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise CertificateError(f"{path}: {describe_os_error(error)}", hint=_PERMIT) from error


def _state_of(path: Path) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


def expiry_of(pem: bytes) -> float:
    """When the first certificate in a PEM text ends, in seconds since 1970; infinity where that cannot be read.

    The standard library shows a peer's certificate, but not one's own. Source of the fields: RFC 5280, 4.1.
    """
    try:
        if (match := _PEM.search(pem)) is None:
            return float("inf")
        certificate = _inner(binascii.a2b_base64(match[1]))[1]
        fields = _inner(certificate)[1]
        if fields[0] == 0xA0:  # the version, where it is not 1
            fields = _inner(fields)[2]
        for _ in ("serial number", "signature", "issuer"):
            fields = _inner(fields)[2]
        validity = _inner(fields)[1]
        kind, value, _ = _inner(_inner(validity)[2])
        text = value.decode("ascii")
        if kind == _UTC_TIME:
            # Two digits of the year: 1950 to 2049.
            text = ("20" if int(text[:2]) < 50 else "19") + text
        elif kind != _GENERALIZED_TIME:
            return float("inf")
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (ValueError, IndexError):
        return float("inf")


def _inner(der: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows of the first element of a DER text."""
    kind, length, start = der[0], der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    return kind, der[start : start + length], der[start + length :]
