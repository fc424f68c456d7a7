"""The wheel and the sdist: what is in them, and nothing else."""

from __future__ import annotations

import re
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.host

# What a user looks for after pip install, below the environment's folder.
SHARED = (
    "man/man1/kata-node-agent.1",
    "man/man1/kata-node-agent-check.1",
    "man/man5/kata-node-agent.toml.5",
    "bash-completion/completions/kata-node-agent",
    "zsh/site-functions/_kata-node-agent",
    "fish/vendor_completions.d/kata-node-agent.fish",
    "kata-node-agent/systemd/kata-node-agent.service",
    "kata-node-agent/systemd/examples/listeners.conf",
    "kata-node-agent/systemd/quadlet/kata-node-agent.container",
    "kata-node-agent/nfd/nodefeaturerule.yaml",
    "kata-node-agent/kubernetes/daemonset.yaml",
    "kata-node-agent/selinux/kata_node_agent.te",
    "doc/kata-node-agent/README.md",
    "doc/kata-node-agent/docs/install.md",
)


@pytest.fixture(scope="module")
def wheel(package: Path) -> list[str]:
    (path,) = package.parent.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


@pytest.fixture(scope="module")
def sdist(package: Path) -> list[str]:
    (path,) = package.parent.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return [name.partition("/")[2] for name in archive.getnames()]


def test_the_wheel_has_what_a_user_looks_for(wheel: list[str]) -> None:
    shared = {name.partition(".data/data/share/")[2] for name in wheel}
    assert set(SHARED) - shared == set()
    assert any(re.search(r"\.dist-info/licenses/LICENSE$", name) for name in wheel)
    assert "kata_node_agent/_native.abi3.so" in wheel


def test_the_sdist_has_what_the_wheel_is_built_of(sdist: list[str]) -> None:
    wanted = {"LICENSE", "Makefile", "setup.py", "pyproject.toml", "native/build.py", "packages/tree.py"}
    wanted |= {
        "proto/kata_node_agent/v1/agent.proto",
        "generated/man/man1/kata-node-agent.1",
        "docs/install.md",
    }
    assert wanted - set(sdist) == set()


def test_neither_has_tests_or_anything_that_was_compiled(wheel: list[str], sdist: list[str]) -> None:
    assert [
        name for name in [*wheel, *sdist] if re.match(r"(tests|bench|build|\.ci)/|.*\.(pyc|log)$", name)
    ] == []
    assert [name for name in sdist if re.search(r"\.(so|o)$|_pb2", name)] == []
