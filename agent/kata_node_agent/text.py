"""Texts for people: those of unknown origin made fit for a log, a terminal and a protocol; and how long ago something was."""

from __future__ import annotations


def printable(text: str, limit: int = 500) -> str:
    """One line that any log and protocol takes: control characters and lone surrogates are ``?``, what is long is cut."""
    if len(text) <= limit and text.isprintable():
        return text
    shown = "".join(char if char.isprintable() else "?" for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "…"


def ago(then: float, now: float) -> str:
    """Seconds since ``then`` in the two largest units: ``2h 5m``."""
    seconds = max(0, int(now - then))
    parts = [
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "m"),
        (seconds % 60, "s"),
    ]
    first = next((index for index, (number, _) in enumerate(parts) if number), 3)
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2] if number or unit == "s")
