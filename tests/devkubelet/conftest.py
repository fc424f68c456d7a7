"""Where the development kubelet of a test keeps its sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def directory(short_dir: Path) -> Path:
    """The device plugin directory, not made yet."""
    return short_dir / "device-plugins"
