"""The native module as it is built."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.host
def test_the_same_source_gives_the_same_module_in_whatever_folder_it_is_built(tmp_path: Path) -> None:
    """Else no two packages could be compared: the wheel is built in a folder with a random name."""
    built = []
    for name in ("one", "another-with-a-longer-name"):
        folder = tmp_path / name
        shutil.copytree(ROOT / "native", folder / "native", ignore=shutil.ignore_patterns("build", "*.o"))
        (folder / "agent/kata_node_agent").mkdir(parents=True)
        subprocess.run(
            [sys.executable, folder / "native/build.py"], check=True, capture_output=True, timeout=300
        )
        (module,) = folder.glob("agent/kata_node_agent/_native*.so")
        built.append(module.read_bytes())
    assert built[0] == built[1]
