"""What the account reads of the node besides its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.config.schema import Config
from kata_node_agent.daemon.memory import MemoryReader
from kata_node_agent.daemon.vms import NextVm
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from pathlib import Path


def default_of(root: Path) -> str:
    vms = NextVm(Config)
    vms.take(MemoryReader(HostRoot(root)).read(None, Config(), ()), ())
    return vms.default_handler


def test_pods_that_name_no_handler_are_katas_only_where_the_default_is(tmp_path: Path) -> None:
    crio = tmp_path / "etc/crio/crio.conf.d"
    crio.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (crio / "50-kata").write_text('[crio.runtime.runtimes.vms]\nruntime_type = "vm"\n')
    assert default_of(tmp_path) == ""
    (crio / "60-default.conf").write_text('[crio.runtime]\ndefault_runtime = "vms"\n')
    assert default_of(tmp_path) == "vms"
    (crio / "60-default.conf").write_text('[crio.runtime]\ndefault_runtime = "crun"\n')
    assert default_of(tmp_path) == ""
