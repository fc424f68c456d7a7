"""How a value of the configuration becomes a value of ours: one parser a kind, and the field that a setting is.

A parser takes what TOML gives, or the text of an environment variable or flag.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any

from kata_node_agent.errors import ConfigError, QuantityError
from kata_node_agent.quantity import parse_bytes

# Raw values are what TOML gives; environment and flags give str for every type.
Parser = Callable[[object], Any]


def _refuse(raw: object, wanted: str) -> ConfigError:
    try:
        shown = repr(raw)
    except ValueError:
        # A number of more digits than Python converts.
        shown = "a number of thousands of digits"
    return ConfigError(f"{shown if len(shown) <= 80 else shown[:80] + '…'} is not {wanted}")


def text(raw: object) -> str:
    """Any text."""
    if not isinstance(raw, str):
        raise _refuse(raw, "a text")
    return raw


def path(raw: object) -> Path:
    """A path; not an empty one."""
    given = text(raw)
    if not given or "\0" in given:
        raise _refuse(raw, "a path")
    return Path(given)


def optional_path(raw: object) -> Path | None:
    """A path, or ``None`` for an empty text."""
    return None if raw == "" else path(raw)


def integer(minimum: int, maximum: int) -> Parser:
    """A parser of whole numbers in a range."""

    def parse(raw: object) -> int:
        if isinstance(raw, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", raw.strip()):
            raw = int(raw)
        if not isinstance(raw, int) or isinstance(raw, bool) or not minimum <= raw <= maximum:
            raise _refuse(raw, f"a whole number from {minimum} to {maximum}")
        return raw

    return parse


def amount(raw: object) -> int:
    """An amount of memory as Kubernetes writes it, in bytes."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw)
    if not isinstance(raw, str):
        raise _refuse(raw, "an amount of memory such as 350Mi")
    try:
        return parse_bytes(raw)
    except QuantityError as error:
        raise ConfigError(error.message, hint=error.hint) from error


def optional_amount(raw: object) -> int | None:
    """The same, or ``None`` for an empty text."""
    return None if raw == "" else amount(raw)


def eviction(raw: object) -> str:
    """An amount, a percentage, or nothing; resolved against the node's capacity later."""
    given = text(raw)
    if given.endswith("%"):
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", given[:-1]) or float(given[:-1]) > 100:
            raise _refuse(raw, "a percentage from 0% to 100%")
    elif given:
        amount(given)
    return given


def ratio(minimum: float, maximum: float) -> Parser:
    """A parser of numbers in a range, whole or not."""

    def parse(raw: object) -> float:
        if isinstance(raw, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", raw.strip()):
            raw = float(raw)
        if not isinstance(raw, int | float) or isinstance(raw, bool) or not minimum <= raw <= maximum:
            raise _refuse(raw, f"a number from {minimum:g} to {maximum:g}")
        return float(raw)

    return parse


def boolean(raw: object) -> bool:
    """True or false."""
    if isinstance(raw, str) and raw in {"true", "false"}:
        return raw == "true"
    if not isinstance(raw, bool):
        raise _refuse(raw, "true or false")
    return raw


def names(raw: object) -> tuple[str, ...]:
    """A list of names; in an environment variable or flag they stand between commas."""
    if isinstance(raw, str):
        raw = [name.strip() for name in raw.split(",") if name.strip()]
    if not isinstance(raw, list) or not all(isinstance(name, str) for name in raw):
        raise _refuse(raw, "a list of names")
    return tuple(raw)


def one_of(*names: str) -> Parser:
    """A parser of one of these words."""

    def parse(raw: object) -> str:
        if raw not in names:
            raise _refuse(raw, "one of " + ", ".join(names))
        return str(raw)

    return parse


_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_RESOURCE = re.compile(rf"{_LABEL}(\.{_LABEL})*/[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_MAX_RESOURCE_LENGTH = 253


def resource(raw: object) -> str:
    """An extended resource: a DNS domain, a slash, a name of at most 63 characters; not in Kubernetes' own domain."""
    given = text(raw)
    domain = given.partition("/")[0]
    if (
        len(given) > _MAX_RESOURCE_LENGTH
        or not _RESOURCE.fullmatch(given)
        or domain == "kubernetes.io"
        or domain.endswith(".kubernetes.io")
    ):
        raise _refuse(raw, "the name of an extended resource such as katacontainers.io/sandbox")
    return given


def address(raw: object) -> str:
    """Host and port, or nothing.

    An address of IPv6 gets its brackets where it comes without, as ``$(POD_IP):9440`` does: gRPC would not know where the
    port begins.
    """
    given = text(raw)
    host, separator, port = given.rpartition(":")
    if given and not (
        separator and host and port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 2**16
    ):
        raise _refuse(raw, "an address such as 127.0.0.1:9440 or [::1]:9440")
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else given


def configz_url(raw: object) -> str:
    """An address for HTTP, or nothing."""
    given = text(raw)
    if given and not re.fullmatch(r"https?://[!-~]{1,400}", given):
        raise _refuse(raw, "a URL such as https://localhost:10250/configz")
    if "@" in given.partition("://")[2].partition("/")[0]:
        # Not `_refuse`, which shows what was given.
        raise ConfigError("names a user in the URL; a token belongs into kubelet.configz_token_file")
    return given


def setting(default: object, parse: Parser, doc: str, *, live: bool = True) -> Any:
    """A field of a section. `live`: takes effect on reload; otherwise only at a restart."""
    return field(
        default=parse(default), metadata={"parse": parse, "doc": doc, "live": live, "default": default}
    )
