"""TLS with real certificates, which openssl makes."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.errors import CertificateError
from kata_node_agent.publish import http
from kata_node_agent.publish.http import Answer
from kata_node_agent.publish.listener import Connection, Listener, listen_on_tcp
from kata_node_agent.publish.tls import Tls, expiry_of
from tests.publish.certificates import Authority, openssl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextlib.contextmanager
def serving(tls: Tls) -> Iterator[str]:
    def serve(connection: Connection) -> None:
        tls.accept(connection)
        http.serve(connection, {"/": lambda _: Answer(b"hello")})

    listening = listen_on_tcp("127.0.0.1:0", hint="")
    listener = Listener(listening, serve, "tls")
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listener.stop()


def ask(address: str, trust: Path, client: tuple[Path, Path] | None = None) -> bytes:
    context = ssl.create_default_context(cafile=trust)
    if client is not None:
        context.load_cert_chain(*client)
    with urllib.request.urlopen(f"https://{address}/", timeout=10, context=context) as answer:
        return bytes(answer.read())


@pytest.mark.host
def test_any_peer_is_served_where_no_authority_for_clients_is_named(authority: Authority) -> None:
    with serving(Tls(*authority.sign("node"), None)) as address:
        assert ask(address, authority.certificate) == b"hello"


@pytest.mark.host
def test_only_peers_that_the_authority_signed_are_served(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    with serving(Tls(*authority.sign("node"), authority.certificate)) as address:
        assert ask(address, authority.certificate, authority.sign("prometheus")) == b"hello"
        for client in (None, stranger.sign("prometheus"), authority.sign("late", days=-1)):
            with pytest.raises((OSError, urllib.error.URLError)):
                ask(address, authority.certificate, client)


@pytest.mark.host
def test_who_speaks_no_tls_is_told_so(authority: Authority) -> None:
    with (
        serving(Tls(*authority.sign("node"), None)) as address,
        pytest.raises(urllib.error.HTTPError, match="400") as error,
    ):
        urllib.request.urlopen(f"http://{address}/", timeout=10)
    assert b"https" in error.value.read()


@pytest.mark.host
def test_a_renewed_certificate_is_served_without_a_word_to_the_agent(
    authority: Authority, tmp_path: Path
) -> None:
    files = tuple(tmp_path / name for name in ("crt", "key"))

    def put(made: tuple[Path, Path]) -> None:
        for source, target in zip(made, files, strict=True):
            shutil.copy(source, target.with_suffix(".new"))
            target.with_suffix(".new").rename(target)

    put(authority.sign("first"))
    tls = Tls(files[0], files[1], None)
    other = Authority(tmp_path / "other", "other")
    with serving(tls) as address:
        assert ask(address, authority.certificate) == b"hello"
        put(other.sign("second"))
        assert ask(address, other.certificate) == b"hello"
        assert not tls.problem
        files[0].write_text("torn")
        assert ask(address, other.certificate) == b"hello"
        assert tls.problem is not None
        assert "the one that was read before stays" in tls.problem.message
        put(other.sign("third"))
        assert ask(address, other.certificate) == b"hello"
        assert tls.problem is None


@pytest.mark.host
@pytest.mark.parametrize(
    ("days", "reason"), [(-1, "CertificateExpired"), (2, "CertificateExpires"), (30, None)]
)
def test_an_end_that_is_near_or_past_is_said(authority: Authority, days: int, reason: str | None) -> None:
    certificate, key = authority.sign(f"days{days}", days)
    assert expiry_of(certificate.read_bytes()) == pytest.approx(time.time() + days * 86400, abs=600)
    problem = Tls(certificate, key, None).problem
    assert (problem.reason if problem else None) == reason
    assert problem is None or "UTC" not in problem.message


@pytest.mark.host
def test_files_that_cannot_be_used_are_named_with_what_is_wrong(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.sign("node")
    other = authority.sign("other")[1]
    junk, empty, locked = (tmp_path / name for name in ("junk", "empty", "locked"))
    junk.write_bytes(b"\x00\xff" * 50)
    empty.write_bytes(b"")
    openssl("ec", "-in", key, "-aes128", "-passout", "pass:secret", "-out", locked)
    cases: list[tuple[Path, Path, Path | None, str]] = [
        (tmp_path / "none", key, None, "none: No such file or directory (ENOENT)"),
        (certificate, tmp_path, None, "Is a directory"),
        (certificate, other, None, "not the key of the certificate"),
        (junk, key, None, "no certificate with its key"),
        (empty, key, None, "no certificate with its key"),
        (certificate, locked, None, "no certificate with its key"),
        (certificate, key, tmp_path / "none", "none: No such file"),
        (certificate, key, junk, "no certificates in it"),
        (certificate, key, empty, "no certificates in it"),
    ]
    for one, two, three, words in cases:
        with pytest.raises(CertificateError) as error:
            Tls(one, two, three)
        assert words in error.value.message
        assert error.value.hint


@given(st.binary(max_size=200))
def test_a_certificate_that_is_none_has_no_end(noise: bytes) -> None:
    import base64

    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(noise) + b"\n-----END CERTIFICATE-----\n"
    for text in (noise, pem):
        assert isinstance(expiry_of(text), float)


def test_years_of_two_and_of_four_digits_are_read() -> None:
    import base64

    def element(kind: int, content: bytes) -> bytes:
        return bytes([kind, len(content)]) + content

    for kind, text, year in (
        (0x17, b"490101000000Z", 2049),
        (0x17, b"990101000000Z", 1999),
        (0x18, b"20510101000000Z", 2051),
    ):
        validity = element(0x30, element(0x17, b"200101000000Z") + element(kind, text))
        fields = b"".join(element(tag, b"") for tag in (0x02, 0x30, 0x30)) + validity
        der = element(0x30, element(0x30, fields))
        pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(der) + b"\n-----END CERTIFICATE-----"
        assert time.gmtime(expiry_of(pem)).tm_year == year
