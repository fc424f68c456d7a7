"""The container runtimes: how each is configured and started, and where it keeps what it runs.

Each has the handlers `kata` and `runc`. Both are run by runc, or Kata's by a program of the test's that calls runc.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tests.conformance.images import PAUSE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

RUNC = "/usr/sbin/runc"
HANDLERS = ("kata", "runc")
# CRI-O has no setting for this: where the test runs a process may not be allowed to lower its own score.
_WITHOUT_SCORE = """#!{python} -IS
import json, os, sys

words = sys.argv[1:]
if "create" in words:
    place = words[words.index("--bundle") + 1] + "/config.json"
    with open(place) as file:
        config = json.load(file)
    config["process"].pop("oomScoreAdj", None)
    with open(place, "w") as file:
        json.dump(config, file)
os.execv({runs!r}, [{runs!r}, *words])
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one runs.

    Attributes:
        folder: of all its files.
        programs: those that were built.
        kata: runs the containers of the handler `kata`.
    """

    folder: Path
    programs: Path
    kata: str = RUNC

    @property
    def socket(self) -> Path:
        """Of the CRI."""
        return self.folder / "cri.sock"

    @property
    def nri(self) -> Path:
        """Of NRI."""
        return self.folder / "nri.sock"


class Runtime(Protocol):
    """A container runtime, of one version.

    Attributes:
        name: for people.
        asked_about: events of later runtimes that it has as well.
    """

    name: str
    asked_about: frozenset[str]

    def path(self, place: Place) -> str:
        """Where it finds programs before all others."""

    def command(self, place: Place) -> list[str]:
        """Starts it, on a configuration that this writes."""

    def load(self, place: Place, archives: Iterable[Path]) -> None:
        """Gives it images."""

    def sandboxes(self, place: Place) -> Path:
        """A folder that has one of each sandbox's id for as long as that exists."""


class _Containerd:
    """What both have in common."""

    folder = ""

    def command(self, place: Place) -> list[str]:
        config = place.folder / "containerd.toml"
        config.write_text(
            f'root = "{place.folder}/cd"\nstate = "{place.folder}/state"\n{self._settings(place)}'
            f'[grpc]\n  address = "{place.socket}"\n'
            f'[plugins."io.containerd.nri.v1.nri"]\n  disable = false\n  socket_path = "{place.nri}"\n'
            f'  plugin_path = "{place.folder}/none"\n  plugin_config_path = "{place.folder}/none"\n'
        )
        return [str(self._programs(place) / "containerd"), "-c", str(config)]

    def path(self, place: Place) -> str:
        return f"{self._programs(place)}:{place.programs}"

    def load(self, place: Place, archives: Iterable[Path]) -> None:
        command = [
            str(self._programs(place) / "ctr"),
            "-a",
            str(place.socket),
            "-n",
            "k8s.io",
            "images",
            "import",
        ]
        for archive in archives:
            subprocess.run([*command, str(archive)], check=True, capture_output=True)

    def sandboxes(self, place: Place) -> Path:
        return place.folder / "state/io.containerd.runtime.v2.task/k8s.io"

    def _programs(self, place: Place) -> Path:
        return place.programs / self.folder

    def _settings(self, place: Place) -> str:
        raise NotImplementedError

    def _handlers(self, place: Place, table: str) -> str:
        runs = {"kata": place.kata, "runc": RUNC}
        return "".join(
            f'[{table}.containerd.runtimes.{name}]\n  runtime_type = "io.containerd.runc.v2"\n'
            f'[{table}.containerd.runtimes.{name}.options]\n  BinaryName = "{runs[name]}"\n'
            for name in HANDLERS
        )


class Containerd(_Containerd):
    """The newest; NRI is on without a word."""

    name = "containerd"
    asked_about = frozenset({"UpdatePodSandbox"})

    def _settings(self, place: Place) -> str:
        cri = 'plugins."io.containerd.cri.v1'
        return (
            f'version = 3\n[{cri}.images"]\n  snapshotter = "native"\n'
            f'[{cri}.images".pinned_images]\n  sandbox = "{PAUSE}"\n'
            # Where this test runs a process may not be allowed to lower its own score.
            f'[{cri}.runtime"]\n  restrict_oom_score_adj = true\n'
            '[plugins."io.containerd.nri.v1.nri".default_validator]\n  enable = true\n'
        ) + self._handlers(place, f'{cri}.runtime"')


class Containerd17(_Containerd):
    """The oldest line that is still maintained; NRI has to be switched on."""

    name = "containerd 1.7"
    folder = "containerd17"
    asked_about: frozenset[str] = frozenset()

    def _settings(self, place: Place) -> str:
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        return (
            f'version = 2\n[{cri}]\n  sandbox_image = "{PAUSE}"\n  restrict_oom_score_adj = true\n'
            f'[{cri}.containerd]\n  snapshotter = "native"\n'
        ) + self._handlers(place, cri)


class Crio:
    """CRI-O."""

    name = "CRI-O"
    asked_about: frozenset[str] = frozenset()

    def path(self, place: Place) -> str:
        return str(place.programs)

    def command(self, place: Place) -> list[str]:
        folder = place.folder
        # Signatures are not what is tried here.
        (folder / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        for name in ("none", "cni", "hooks"):
            (folder / name).mkdir(exist_ok=True)
        runs = {"kata": place.kata, "runc": RUNC}
        for name, path in runs.items():
            (folder / f"run-{name}").write_text(_WITHOUT_SCORE.format(python=sys.executable, runs=path))
            (folder / f"run-{name}").chmod(0o755)
        config = folder / "crio.toml"
        config.write_text(
            f'[crio]\nroot = "{folder}/storage"\nrunroot = "{folder}/run-storage"\nstorage_driver = "vfs"\n'
            f'log_dir = "{folder}/pod-logs"\nversion_file = "{folder}/version"\n'
            f'version_file_persist = "{folder}/version-persist"\nclean_shutdown_file = "{folder}/clean"\n'
            f'[crio.api]\nlisten = "{place.socket}"\nstream_port = "0"\n'
            f'[crio.image]\npause_image = "{PAUSE}"\npause_command = ""\nsignature_policy = "{folder}/policy.json"\n'
            f'signature_policy_dir = "{folder}/none"\n'
            f'[crio.network]\nnetwork_dir = "{folder}/cni"\nplugin_dirs = ["{folder}/none"]\n'
            f'[crio.nri]\nenable_nri = true\nnri_listen = "{place.nri}"\nnri_plugin_dir = "{folder}/none"\n'
            f'nri_plugin_config_dir = "{folder}/none"\n'
            '[crio.runtime]\ndefault_runtime = "runc"\ncgroup_manager = "cgroupfs"\nconmon_cgroup = "pod"\n'
            # As with Kata: its pause container is the VM's first process.
            f'drop_infra_ctr = false\nhooks_dir = ["{folder}/hooks"]\nnamespaces_dir = "{folder}/namespaces"\n'
            f'pinns_path = "{place.programs}/pinns"\ncontainer_exits_dir = "{folder}/exits"\n'
            f'container_attach_socket_dir = "{folder}/attach"\n'
            + "".join(
                f'[crio.runtime.runtimes.{name}]\nruntime_path = "{folder}/run-{name}"\nruntime_type = "oci"\n'
                f'runtime_root = "{folder}/runc"\nmonitor_path = "/usr/bin/conmon"\n'
                for name in HANDLERS
            )
        )
        return [str(place.programs / "crio"), "--config", str(config), "--config-dir", str(folder / "none")]

    def load(self, place: Place, archives: Iterable[Path]) -> None:
        for archive in archives:
            name = f"localhost/{archive.stem}:1"
            command = [
                place.programs / "copyimg", "--root", place.folder / "storage", "--runroot", place.folder / "run-storage",
                "--storage-driver", "vfs", "--signature-policy", place.folder / "policy.json",
                "--image-name", name, "--add-name", name, "--import-from", f"docker-archive:{archive}",
            ]  # fmt: skip
            subprocess.run([str(part) for part in command], check=True, capture_output=True)

    def sandboxes(self, place: Place) -> Path:
        return place.folder / "runc"


RUNTIMES: tuple[Runtime, ...] = (Containerd(), Containerd17(), Crio())
