"""Only `make package-test` runs these, as root: they need the RPM, which is built for a minute or two."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.packages.support import Installed, rpm

if TYPE_CHECKING:
    from collections.abc import Iterator

if not os.environ.get("PACKAGE_RPM"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def package() -> Path:
    """The RPM that was built."""
    return Path(os.environ["PACKAGE_RPM"]).resolve()


@pytest.fixture(scope="module")
def installed(package: Path) -> Iterator[Installed]:
    """The RPM in a root folder that was empty before."""
    with tempfile.TemporaryDirectory(prefix="kna-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        rpm(root, "--install", str(package))
        with Installed(root) as inside:
            yield inside
