"""Text of unknown origin, made fit for a log, a terminal and a protocol."""

from __future__ import annotations


def printable(text: str, limit: int = 500) -> str:
    """One line that any log and protocol takes: control characters and lone surrogates are ``?``, what is long is cut."""
    shown = "".join(char if char.isprintable() else "?" for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "…"
