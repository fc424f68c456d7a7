"""What NFD's worker would read of the agent: the two files in its folder."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.conformance.support import wait_until
from tests.daemon.support import COMMAND

if TYPE_CHECKING:
    from tests.conformance.support import RealNode


def read_features(node: RealNode, suffix: str) -> dict[str, str]:
    """The features in the file with this suffix: `name=value` a line."""
    path = node.features / f"kata-node-agent{suffix}"
    wait_until(path.exists, f"{path.name} is there")
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def set_ceiling(node: RealNode, count: int) -> None:
    """As the administrator does it."""
    command = [
        *COMMAND, "label", "ceiling", "--set", str(count), "--host-root", str(node.folder / "host"),
        "--features-dir", "/features.d",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=60)
