"""Kubelet's effective settings: defaults < file < drop-ins < flags of the running kubelet, each value with its origin.

The files and the command line belong to a foreign program: they may be absent, torn or full of surprises. A source that
cannot be used is left out, and that is said (`KubeletSettings.problem`); nothing here raises for what a source contains.
"""

from __future__ import annotations

import os
import stat
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import AgentError, HostError, describe_os_error
from kata_node_agent.nodeconfig import merge
from kata_node_agent.nodeconfig.document import parse_document
from kata_node_agent.nodeconfig.flags import FLAGS_ONLY, Flags, parse_flags
from kata_node_agent.nodeconfig.node_sizing import read_node_sizing
from kata_node_agent.nodeconfig.process import KubeletProcess, find_kubelet
from kata_node_agent.quantity import parse_bytes
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.document import Document, Value
    from kata_node_agent.nodeconfig.merge import Setting, Settings

# Where no kubelet was seen yet: the file, and the folder of drop-ins that its unit names. RHCOS, then kubeadm.
# Sources: machine-config-operator's kubelet.service; the kubeadm documentation.
USUAL_FILES = (
    (Path("/etc/kubernetes/kubelet.conf"), "/etc/openshift/kubelet.conf.d"),
    (Path("/var/lib/kubelet/config.yaml"), ""),
)
CONFIGZ = "kubelet's /configz"
_MAX_FILE_BYTES = 1024 * 1024
# Drop-ins are a handful; folders in folders count too, as kubelet walks the whole tree.
_MAX_DROP_INS = 200
_MAX_FOLDERS = 200
# Of many faults the first ones are enough to begin with.
_MAX_SAID = 10


@dataclass(frozen=True, slots=True)
class Complaint:
    """Settings that were taken as they are, but that kubelet refuses or does not take as written.

    Attributes:
        reason: ``KubeletWouldRefuse``: it does not start with them; ``KubeletOverrides``: it starts, with others.
        message: which, in kubelet's words where it has some.
    """

    reason: str
    message: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.reason == "KubeletWouldRefuse":
            return "mend kubelet's settings before its next start: it does not start with these"
        return "remove what does not count from kubelet's settings"


@dataclass(frozen=True, slots=True)
class KubeletSettings:
    """What kubelet is set to do.

    Attributes:
        values: each setting by its dotted name, with its origin; maps are flat (``systemReserved.memory``).
        origin: the file that was read, or ``kubelet's defaults``.
        process: the kubelet whose flags count; it may have ended since. ``None`` where none was seen.
        problem: why a source that exists was not used; empty when all is well.
        complaints: what kubelet would say of the settings.
    """

    values: Mapping[str, Setting] = field(default_factory=merge.defaults)
    origin: str = merge.DEFAULT_ORIGIN
    process: KubeletProcess | None = None
    problem: str = ""
    complaints: tuple[Complaint, ...] = ()

    def text(self, name: str) -> str:
        """A setting by its dotted name; empty where it is not set."""
        setting = self.values.get(name)
        return str(setting.value) if setting is not None else ""

    @property
    def system_reserved_bytes(self) -> int:
        """systemReserved.memory in bytes."""
        return parse_bytes(self.text("systemReserved.memory") or "0")

    @property
    def kube_reserved_bytes(self) -> int:
        """kubeReserved.memory in bytes."""
        return parse_bytes(self.text("kubeReserved.memory") or "0")

    @property
    def eviction_hard_memory(self) -> str:
        """The hard threshold memory.available, an amount or a percentage; empty for none."""
        return self.text("evictionHard.memory.available")


def parse_kubelet_settings(content: bytes, origin: str) -> KubeletSettings:
    """The settings in one KubeletConfiguration document, over kubelet's defaults.

    Raises:
        HostError: neither YAML nor JSON, not a KubeletConfiguration, or a field of a wrong type.
        QuantityError: a reservation or threshold is no amount.
    """
    document = parse_document(content)
    values = merge.finish(merge.with_file(merge.defaults(), document.fields, origin))
    return KubeletSettings(values, origin, complaints=_leniently(document, origin))


def read_kubelet_settings(
    root: HostRoot,
    file: Path | None = None,
    known: KubeletProcess | None = None,
    ask: Callable[[], Document] | None = None,
) -> KubeletSettings:
    """Kubelet's settings now.

    Args:
        root: the host.
        file: read instead of the file that kubelet names in ``--config``, or of the usual ones.
        known: the kubelet of an earlier look. It is found again without a search, and while none runs (it is being
            restarted) its flags stay in force.
        ask: gets the settings from kubelet itself. What it says counts alone; where it cannot, files and flags do.
    """
    process = find_kubelet(root, known) or known
    flags = parse_flags(process.arguments if process is not None else ())
    unanswered = ""
    if ask is not None:
        try:
            return _as_kubelet_says(ask(), process, flags)
        except AgentError as error:
            unanswered = error.message
    problems: list[str] = []
    complaints: list[Complaint] = []
    origin, document, folder = _main_file(root, file, process, flags, problems)
    settings = merge.defaults()
    if document is not None:
        settings = merge.with_file(settings, document.fields, origin)
        complaints += _leniently(document, origin)
    settings = merge.with_drop_ins(settings, _drop_ins(root, folder, problems))
    if process is not None:
        settings = merge.with_flags(settings, flags.fields, process.pid)
        problems += [f"kubelet (pid {process.pid}): {problem}" for problem in flags.problems]
    else:
        try:
            if (sizing := read_node_sizing(root)) is not None:
                settings = merge.with_file(settings, *sizing)
        except AgentError as error:
            problems.append(f"node sizing: {error.message}")
    if unanswered:
        problems.append(unanswered)
    before, settings = settings, merge.finish(settings)
    complaints += _overridden(before, settings)
    problem = "; ".join(printable(line) for line in problems[:_MAX_SAID])
    return KubeletSettings(settings, origin, process, problem, tuple(complaints))


def _as_kubelet_says(document: Document, process: KubeletProcess | None, flags: Flags) -> KubeletSettings:
    """Settings that kubelet has merged and finished itself; only what it does not tell is left to flags and defaults."""
    settings = merge.with_file(merge.defaults(), document.fields, CONFIGZ)
    if process is not None:
        left = {name: flag for name, flag in flags.fields.items() if name in FLAGS_ONLY.values()}
        settings = merge.with_flags(settings, left, process.pid)
    return KubeletSettings(settings, CONFIGZ, process)


def _main_file(
    root: HostRoot, file: Path | None, process: KubeletProcess | None, flags: Flags, problems: list[str]
) -> tuple[str, Document | None, str]:
    """(origin, the document if it can be used, folder of drop-ins or empty)."""
    places: tuple[tuple[Path, str], ...]
    if process is not None:
        # A kubelet without --config reads no file.
        named = file or (Path("/", flags.config) if flags.config else None)
        places = ((named, flags.config_dir),) if named is not None else ()
        usual = False
    else:
        usual = file is None
        places = USUAL_FILES if file is None else ((file, ""),)
    for path, folder in places:
        try:
            content = root.read_bytes(path, _MAX_FILE_BYTES)
        except HostError as error:
            if not usual or not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                problems.append(error.message)
            continue
        try:
            document = parse_document(content)
        except AgentError as error:
            # With kubeadm, kubelet's credentials have the name that its settings have on RHCOS.
            if not usual or error.reason != "Kubeconfig":
                problems.append(f"{root.resolve(path)}: {error.message}")
            continue
        return printable(str(path)), document, "" if usual and not root.exists(folder) else folder
    # Drop-ins are merged without a file too, and beside one that cannot be used.
    return merge.DEFAULT_ORIGIN, None, flags.config_dir


def _drop_ins(root: HostRoot, folder: str, problems: list[str]) -> list[tuple[Mapping[str, Value], str]]:
    """The drop-ins that can be used, in kubelet's order."""
    found: list[tuple[Mapping[str, Value], str]] = []
    if not folder:
        return found
    for path in _walk(root, Path("/", folder), problems):
        try:
            document = parse_document(root.read_bytes(path, _MAX_FILE_BYTES), drop_in=True)
        except AgentError as error:
            where = "" if isinstance(error.__cause__, OSError) else f"{root.resolve(path)}: "
            problems.append(where + error.message.removeprefix(where))
            continue
        if document.duplicates:
            # Drop-ins are read strictly, unlike the file.
            names = ", ".join(document.duplicates[:5])
            problems.append(f"{root.resolve(path)}: strict decoding error: key already set in map: {names}")
            continue
        found.append((document.fields, printable(str(path))))
    return found


def _walk(root: HostRoot, folder: Path, problems: list[str]) -> Iterator[Path]:
    """Files ``*.conf`` in name order, folders walked where their name stands; links to folders are not followed.

    Source: Go's filepath.WalkDir, which kubelet uses, and filepath.Ext: ``.conf`` alone is such a name too.
    """
    files = folders = 0
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if path != folder and not _is_folder(root, path):
            if path.name.endswith(".conf"):
                files += 1
                yield path
        else:
            folders += 1
            try:
                names = sorted(os.listdir(root.resolve(path)), reverse=True)
            except OSError as error:
                problems.append(f"{root.resolve(path)}: {describe_os_error(error)}")
                continue
            waiting += [path / name for name in names]
        if files >= _MAX_DROP_INS or folders >= _MAX_FOLDERS:
            problems.append(f"{root.resolve(folder)}: more than {_MAX_DROP_INS} drop-ins or folders")
            return


def _is_folder(root: HostRoot, path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(root.resolve(path)).st_mode)
    except OSError:
        return False


def _leniently(document: Document, origin: str) -> tuple[Complaint, ...]:
    if not document.duplicates:
        return ()
    names = ", ".join(document.duplicates[:5])
    message = f"{origin}: using lenient decoding as strict decoding failed: key already set in map: {names}"
    return (Complaint("KubeletOverrides", printable(message)),)


def _overridden(before: Settings, after: Settings) -> list[Complaint]:
    """CPU reservations that kubelet overwrites."""
    names = ("systemReserved.cpu", "kubeReserved.cpu")
    given = [name for name in names if name in before and before[name] != after.get(name)]
    if not given:
        return []
    where = ", ".join(f"{name} ({before[name].origin})" for name in given)
    what = "reservedSystemCPUs (--reserved-cpus) is specified, it overwrites the cpu setting in"
    return [Complaint("KubeletOverrides", f"{what} {where}")]
