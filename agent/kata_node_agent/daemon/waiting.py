"""Waiting for a hint, but not for ever: the pace of the daemon's loops."""

from __future__ import annotations

import asyncio
import contextlib


async def wait_for_hint(hint: asyncio.Event, seconds: float) -> bool:
    """Waits until the hint is given, at most so long, and takes it; returns whether it was given."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hint.wait()
    given = hint.is_set()
    hint.clear()
    return given
