"""The RPM in an empty tree: no libc, no shell, no Python but its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.packages.support import Installed, all_files, end, mapped_files, rpm, wait_until

if TYPE_CHECKING:
    from typing import Any

pytestmark = [pytest.mark.host, pytest.mark.kvm]

AGENT = "/usr/bin/kata-node-agent"
HOME = "/usr/lib/kata-node-agent"
MAX_INSTALLED_BYTES = 60 * 1024 * 1024


def query(package: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        ["rpm", "-qp", *arguments, str(package)], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def status(inside: Installed) -> dict[str, Any]:
    done = inside.run(AGENT, "status", "--format", "json")
    document: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return document


def test_requires_nothing_that_it_does_not_bring(package: Path) -> None:
    files = query(package, "--list")
    wanted = [line.split()[0] for line in query(package, "--requires") if not line.startswith("rpmlib(")]

    assert [name for name in wanted if name not in files] == []
    assert f"{HOME}/bin/python3" in wanted  # who runs the scriptlets


def test_is_small(package: Path) -> None:
    assert int(query(package, "--queryformat", "%{SIZE}")[0]) <= MAX_INSTALLED_BYTES


def test_says_what_is_bundled(package: Path) -> None:
    provides = query(package, "--provides")

    for name in ("libc6", "libssl3", "libpython3.11-dev", "grpcio", "protobuf"):
        assert any(re.fullmatch(rf"bundled\({re.escape(name)}\) = [0-9].*", line) for line in provides), name


def test_every_library_has_its_licence_and_no_test_is_shipped(package: Path) -> None:
    files = query(package, "--list")

    for name in ("LICENSE", "libc6.copyright", "libssl3.copyright", "libpython3.11-dev.copyright"):
        assert f"/usr/share/licenses/kata-node-agent/{name}" in files
    # Those that the C library's file, and that of its compiler's library, refer to.
    for name in ("LGPL-2.1", "GPL-2", "GPL-3"):
        assert f"/usr/share/licenses/kata-node-agent/common-licenses/{name}" in files
    assert any(re.search(r"/packages/grpcio-[^/]*\.dist-info/(licenses/)?LICENSE$", name) for name in files)
    assert [name for name in files if re.search(r"/(tests?|bench)/", name)] == []


def test_records_nothing_of_the_machine_that_built_it(package: Path) -> None:
    (host,) = query(package, "--queryformat", "%{BUILDHOST}\n")
    assert host == "localhost"
    # Nothing is written into /var, /run or /opt: an image of RHCOS keeps only /usr and /etc.
    assert {line.split("/")[1] for line in query(package, "--list")} == {"usr", "etc"}


def test_settings_are_kept_by_an_update(package: Path) -> None:
    assert query(package, "--configfiles") == ["/etc/kata-node-agent/config.toml"]
    flags = dict(
        line.rsplit(" ", 1)
        for line in query(package, "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]")
    )
    assert flags["/etc/kata-node-agent/config.toml"] == "cn"  # config, noreplace


def test_runs_where_there_is_no_libc(installed: Installed) -> None:
    outside = [
        name for name in all_files(installed.root) if re.search(r"(^|/)(libc\.so|ld-linux|sh$|bash$)", name)
    ]
    assert {str(Path("/", name).parent) for name in outside} == {f"{HOME}/lib"}

    done = installed.run(AGENT, "--version")

    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"kata-node-agent, version \d+\.\d+\.\d+\n", done.stdout)


def test_proves_eligibility_there(installed: Installed) -> None:
    done = installed.run(AGENT, "check", "--profile", "upstream", "--format", "json")

    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["verdict"]) == (0, "eligible")
    held = {check["id"] for check in verdict["checks"] if check["status"] == "pass"}
    assert {"kvm.device", "kvm.open", "kvm.run-guest"} <= held


def test_serves_registers_and_answers_there(installed: Installed) -> None:
    kubelet = installed.start(AGENT, "devkubelet", "serve", "--dir", "/run/kubelet")
    agent = installed.start(AGENT, "run", "--device-plugin-dir", "/run/kubelet/device-plugins")
    try:
        wait_until(lambda: status(installed).get("kubelet", {}).get("registered"), "the agent is registered")
        found = status(installed)

        assert found["verdict"] == "eligible"
        assert found["slots"]["healthy"] > 0
        # As it is known to people: ps, top, systemctl.
        process = Path(f"/proc/{agent.pid}")
        assert process.joinpath("comm").read_text() == "kata-node-agent\n"
        assert process.joinpath("cmdline").read_bytes().startswith(b"/usr/bin/kata-node-agent\0run\0")
        assert process.joinpath("exe").readlink() == installed.root / AGENT[1:]
        strangers = {path for path in mapped_files(agent.pid) if not path.is_relative_to(installed.root)}
        assert {path for path in strangers if not str(path).startswith("/dev/")} == set()
        assert installed.root / HOME[1:] / "lib/libc.so.6" in mapped_files(agent.pid)
    finally:
        end(agent, kubelet)
    assert agent.returncode == 0


def test_every_command_of_the_manual_can_be_loaded(installed: Installed) -> None:
    pages = [Path(name).name for name in all_files(installed.root) if "/man/man1/" in name]
    commands = [
        name.removeprefix("kata-node-agent-").removesuffix(".1")
        for name in pages
        if name != "kata-node-agent.1"
    ]

    assert "check" in commands
    for command in commands:
        done = installed.run(AGENT, command, "--help")
        assert (done.returncode, done.stderr) == (0, ""), command


def test_every_module_can_be_imported(installed: Installed) -> None:
    program = """
import importlib, pkgutil, kata_node_agent
names = [m.name for m in pkgutil.walk_packages(kata_node_agent.__path__, "kata_node_agent.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
import ssl, sqlite3, zlib, lzma, bz2, ctypes, tarfile, yaml, prometheus_client, grpc_reflection.v1alpha.reflection
print(len(names))
"""
    done = installed.run(f"{HOME}/bin/python3", "-c", program)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_names_are_looked_up_in_files_only(installed: Installed) -> None:
    etc = installed.root / "etc"
    (etc / "group").write_text("kata-node-agent:x:4711:\n")
    (etc / "nsswitch.conf").write_text("group: sss systemd\npasswd: sss\n")
    try:
        done = installed.run(
            f"{HOME}/bin/python3", "-c", "import grp; print(grp.getgrnam('kata-node-agent').gr_gid)"
        )
    finally:
        (etc / "group").unlink()
        (etc / "nsswitch.conf").unlink()
    assert done.stdout == "4711\n"


def test_an_ordinary_host_lends_it_nothing(installed: Installed, tmp_path: Path) -> None:
    # This machine's own files, with another Python and C library, below those of the package.
    merged = tmp_path / "merged"
    merged.mkdir()
    # In memory, as no layer of an overlay may be part of another one.
    with tempfile.TemporaryDirectory(prefix="kna-", dir="/dev/shm") as memory:
        shutil.copytree(installed.root / "usr", Path(memory, "usr"), symlinks=True)
        script = (
            f"mount -t overlay overlay -o lowerdir={memory}:/ {merged} && mount -t proc proc {merged}/proc"
            f' && exec chroot {merged} "$@"'
        )
        wait = "import sys, ssl, sqlite3, grpc, kata_node_agent.api.server; print(*sys.path, flush=True); sys.stdin.read()"
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, "sh", f"{HOME}/bin/python3", "-c", wait],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                "LD_LIBRARY_PATH": "/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/usr/lib64",
                "PYTHONPATH": "/usr/lib/python3/dist-packages",
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            },
        )
        try:
            assert process.stdout is not None
            places = process.stdout.readline().decode().split()
            mapped = mapped_files(process.pid)
        finally:
            process.communicate(b"")

    assert places
    assert [place for place in places if not place.startswith(HOME)] == []
    ours = (f"{merged}{HOME}/", f"{merged}{AGENT}")
    assert [str(path) for path in mapped if not str(path).startswith(ours)] == []
    assert any(path.name == "libc.so.6" for path in mapped)


def test_sets_up_a_host_with_systemd_and_takes_that_back(package: Path, tmp_path: Path) -> None:
    # This machine's files, with a layer above them that takes what is written.
    merged = tmp_path / "merged"
    merged.mkdir()
    script = """
        mount -t overlay overlay -o lowerdir=/,upperdir=$1/upper,workdir=$1/work $2 || exit
        rpm="rpm --root $2 --dbpath /var/lib/kata-node-agent-test"
        $rpm --install $3 >&2 || exit
        grep kata-node-agent: $2/etc/group
        readlink $2/etc/systemd/system/multi-user.target.wants/kata-node-agent.service
        chroot $2 /usr/bin/kata-node-agent --version
        $rpm --erase kata-node-agent >&2 || exit
        find $2/etc/systemd/system $2/usr/lib/systemd/system $2/usr/lib/kata-node-agent $2/usr/bin -name '*kata-node-agent*'
        """
    with tempfile.TemporaryDirectory(prefix="kna-", dir="/dev/shm") as memory:
        for name in ("upper", "work"):
            Path(memory, name).mkdir()
        command = ["unshare", "--mount", "sh", "-c", script, "sh", memory, str(merged), str(package)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    group, link, version, *left = done.stdout.splitlines()
    assert re.fullmatch(r"kata-node-agent:x:\d+:", group), done.stderr
    assert link.endswith("/lib/systemd/system/kata-node-agent.service")
    assert version.startswith("kata-node-agent, version ")
    assert left == []


def test_nothing_is_changed_by_use_and_nothing_of_it_stays(package: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    rpm(root, "--install", str(package))
    before = all_files(root)
    with Installed(root) as inside:
        assert inside.run(AGENT, "config", "check").returncode == 0
        assert inside.run(AGENT, "report", "--format", "json").returncode == 0
    assert rpm(root, "--verify", "kata-node-agent") == ""
    (root / "etc/kata-node-agent/config.toml").write_text('mode = "warn"\n')

    rpm(root, "--install", "--replacepkgs", str(package))
    assert (root / "etc/kata-node-agent/config.toml").read_text() == 'mode = "warn"\n'
    subprocess.run(
        ["rpm", "--root", str(root), "--dbpath", "/var/lib/rpm", "--erase", "kata-node-agent"],
        check=True,
        capture_output=True,
    )

    left = {name for name in all_files(root) if not name.startswith("var/lib/rpm/")}
    assert left == {"etc/kata-node-agent/config.toml.rpmsave"}
    assert before > left - {"etc/kata-node-agent/config.toml.rpmsave"}
    assert not (root / HOME[1:]).exists()


def test_selinux_module_loads_where_types_of_containers_are_missing(installed: Installed) -> None:
    module = installed.root / "usr/share/kata-node-agent/selinux/kata_node_agent.pp"
    cil = subprocess.run(
        ["/usr/libexec/selinux/hll/pp", str(module)], capture_output=True, text=True, check=True
    ).stdout

    assert re.findall(r"^\(typeattributeset cil_gen_require (\w+)\)", cil, re.MULTILINE) == ["domain"]
    rules = [line for line in cil.splitlines() if "(allow " in line]
    assert rules
    assert [line for line in rules if not line.startswith("    ")] == []  # each in an optional block


def test_selinux_module_knows_each_file_that_is_run_and_each_folder_of_ours(installed: Installed) -> None:
    contexts = installed.root / "usr/share/kata-node-agent/selinux/kata_node_agent.fc"

    def label(path: str) -> str:
        command = ["selabel_lookup", "-b", "file", "-f", str(contexts), "-k", path, "-t", "8"]  # 8: a file
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.split(":")[3]

    assert label(AGENT) == "bin_t"
    for library in sorted(Path(installed.root, HOME[1:], "lib").iterdir()):
        expected = "ld_so_t" if library.name.startswith("ld-") else "lib_t"
        assert label(f"{HOME}/lib/{library.name}") == expected
    for path in ("/run/kata-node-agent/agent.sock", "/var/lib/kata-node-agent/history"):
        assert label(path) == "container_file_t"


def test_the_same_tree_gives_the_same_package(package: Path, tmp_path: Path) -> None:
    (when,) = query(package, "--queryformat", "%{BUILDTIME}\n")
    script = Path(__file__).parents[2] / "packages" / "rpm.py"
    subprocess.run(
        ["/usr/bin/python3", str(script), os.environ["PACKAGE_TREE"], str(tmp_path)],
        env={**os.environ, "SOURCE_DATE_EPOCH": when},
        check=True,
        capture_output=True,
    )

    assert (tmp_path / package.name).read_bytes() == package.read_bytes()


def test_is_updated_and_rolled_back_as_the_documents_say(package: Path, tmp_path: Path) -> None:
    tree, root = tmp_path / "tree", tmp_path / "root"
    shutil.copytree(os.environ["PACKAGE_TREE"], tree, symlinks=True)
    (metadata,) = tree.glob("usr/lib/kata-node-agent/python/packages/kata_node_agent-*.dist-info/METADATA")
    metadata.write_text(re.sub(r"(?m)^Version: .*$", "Version: 99.0", metadata.read_text()))
    script = Path(__file__).parents[2] / "packages" / "rpm.py"
    subprocess.run(
        ["/usr/bin/python3", str(script), str(tree), str(tmp_path)], check=True, capture_output=True
    )
    (later,) = tmp_path.glob("*.rpm")
    root.mkdir()
    rpm(root, "--install", str(package))
    configuration = root / "etc/kata-node-agent/config.toml"
    configuration.write_text('mode = "warn"\n')

    for options, which in ((["--upgrade"], later), (["--upgrade", "--oldpackage"], package)):
        rpm(root, *options, str(which))
        assert rpm(root, "--query", "kata-node-agent").strip() == which.name.removesuffix(".rpm")
        assert configuration.read_text() == 'mode = "warn"\n'
        with Installed(root) as inside:
            assert inside.run(AGENT, "config", "check").returncode == 0
    assert all("config.toml" in line for line in rpm_verify(root))


def rpm_verify(root: Path) -> list[str]:
    """Lines of `rpm --verify`, which fails when it has any."""
    command = ["rpm", "--root", str(root), "--dbpath", "/var/lib/rpm", "--verify", "kata-node-agent"]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
