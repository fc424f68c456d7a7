"""Only `make conformance` runs these: they need programs that are built for minutes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.support import RealNode, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

if not os.environ.get("CONFORMANCE_BIN"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module")
def node() -> Iterator[RealNode]:
    """A node with containerd, kubelet and an agent that is registered."""
    programs = Path(os.environ["CONFORMANCE_BIN"])
    with tempfile.TemporaryDirectory(prefix="kna-") as folder, RealNode(Path(folder), programs) as real:
        real.start_kubelet()
        real.start_agent()
        try:
            wait_until(real.registered, "the agent is registered")
            yield real
        except BaseException:
            print(real.log("kubelet"), real.log("agent"))
            raise
