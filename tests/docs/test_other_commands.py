"""Each command of another program that the documentation shows: run here, run by a test that is named here, or the reader's own.

A command that is in none of the tables fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.daemon.support import Node
from tests.deploy.test_manifests import MANIFESTS
from tests.docs.commands import OURS, ROOT, commands

COMMANDS = [command for command in commands() if command.program != OURS]
RPM, SYSTEMD = "tests/packages/test_rpm.py", "tests/systemd/test_documents.py"
IMAGE, TLS = "tests/packages/test_image.py", "tests/docs/test_tls_howto.py"
_UNIT = "test_each_systemctl_command_does_what_the_documents_say"
_PIP = "test_the_service_of_a_pip_installation_is_set_up_by_the_printed_commands"
_TLS = "test_the_commands_lead_to_a_scrape_that_only_prometheus_may_make"
# By what a line matches as a whole: which test does the same, and the words of the line that stand in it, or in what it calls.
ELSEWHERE = {
    r"rpm --(install|upgrade).*\.rpm": (f"{RPM}::test_is_updated_and_rolled_back_as_the_documents_say", "--install --upgrade --oldpackage"),
    r"rpm --(verify|erase) kata-node-agent": (f"{RPM}::test_nothing_is_changed_by_use_and_nothing_of_it_stays", "--verify --erase"),
    r"rpm -q --provides": (f"{RPM}::test_says_what_is_bundled", "--provides"),
    r"semodule --install kata_node_agent.pp": (f"{RPM}::test_selinux_module_loads_where_types_of_containers_are_missing", "kata_node_agent.pp"),
    r"podman (exec|rmi) kata-node-agent.*": (f"{IMAGE}::test_serves_with_what_the_quadlet_gives_it", "exec kata-node-agent status"),
    r"podman build": (f"{IMAGE}::test_is_the_tree_and_nothing_else", "build --tag"),
    r"systemctl (daemon-reload|(enable --now|disable --now|start|status|reload|restart|stop) kata-node-agent)": (f"{SYSTEMD}::{_UNIT}", "systemctl daemon-reload enable disable start status reload restart stop"),
    r"systemctl (status|reload|stop)": (f"{SYSTEMD}::{_UNIT}", "systemctl status reload stop"),
    r"systemd-analyze security kata-node-agent": (
        f"{SYSTEMD}::{_UNIT}",
        "systemd-analyze security",
    ),
    r"journalctl (-k|-u kata-node-agent( -p warning)?)": (f"{SYSTEMD}::{_UNIT}", "journalctl"),
    r"(cp kata-node-agent|systemd-(sysusers|tmpfiles)).*": (f"{SYSTEMD}::{_PIP}", "systemd-sysusers systemd-tmpfiles cp"),
    r"openssl .*|install -m .*/etc/kata-node-agent/|curl --cacert .*": (f"{TLS}::{_TLS}", "openssl install curl"),
    r"curl --unix-socket .*/metrics": (f"{TLS}::test_the_unix_socket_is_asked_as_the_page_says", "--unix-socket"),
    r"python3 -m venv /opt/kata-node-agent|/opt/\S+/pip install dist/\S+\.whl|pip install \.": (".ci/run", "python3 venv pip install"),
    r"man -M build/man kata-node-agent": ("tests/tools/test_manual.py::test_man_finds_the_pages_where_they_are_written", "man -M"),
    r"source build/completion/\S+": ("tests/tools/test_completion.py::test_the_shell_completes", "source complete"),
    r"man kata-node-agent\S*": ("tests/tools/test_manual.py::test_each_command_and_the_configuration_have_a_page", "kata-node-agent.toml.5"),
}  # fmt: skip
# Nothing of ours is in them, or they need what only the reader has: why.
OF_THE_READER = {
    r"podman (save|load)": "an image from one host to another",
    r"ssh -L 9441:127\.0\.0\.1:9441 NODE": "a node to log in to",
    r"systemctl edit kata-node-agent": "opens an editor",
    r"systemctl status kubelet": "kubelet's unit",
    r"kubectl (cordon|drain|uncordon) NODE": "a cluster with a node to empty",
    r"kubectl (delete|get nodefeaturerules -A .*)": "a cluster with Node Feature Discovery",
    r"pip install --upgrade": "the next version of a wheel",
    r"python -c pass": "what others are measured beside",
}
# Read-only or on folders of the test's own, and quick.
RUN_AS_PRINTED = r"sysctl \S+|ss -ltnp|df \S+|promtool .*"
IN_PLACE = r"ps -p N|ls -l /\S+|mount -o remount,\S+ /dev/shm"
MODULES, MAKE, APT = r"python -m .*", r"make [a-z]+( [a-z]+)*", r"apt install .*"
KUBECTL = r"kubectl (apply|delete) -[kf] deploy/.*"
COPIED = r"cp systemd/\S+ /etc/\S+|ln -s /opt/\S+ /usr/bin/\S+"
PAGE = r"curl --unix-socket .*/metrics.sock http://localhost/"
UNPACK = r"tar -xzf kata-node-agent-\S+"
HERE = (UNPACK, RUN_AS_PRINTED, IN_PLACE, MODULES, MAKE, APT, KUBECTL, COPIED, PAGE)


def lines(pattern: str) -> list[str]:
    """Each once."""
    return sorted({command.line for command in COMMANDS if re.fullmatch(pattern, command.line)})


def run(line: str, folder: Path = ROOT) -> str:
    """What it prints; it has to succeed."""
    path = f"{Path(sys.executable).parent}:/usr/sbin:/sbin:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path}
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{line}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_each_command_is_run_by_a_test_or_is_the_readers_own() -> None:
    tables = (*HERE, *ELSEWHERE, *OF_THE_READER)
    unknown = [str(command) for command in COMMANDS if not any(re.fullmatch(p, command.line) for p in tables)]
    assert not unknown
    assert not [pattern for pattern in tables if not lines(pattern)], "no command matches these: remove them"


@pytest.mark.parametrize("pattern", ELSEWHERE)
def test_what_is_run_elsewhere_is_there(pattern: str) -> None:
    test, words = ELSEWHERE[pattern]
    file, _, name = test.partition("::")
    text = (ROOT / file).read_text()
    if name:
        # The test itself and the names that it uses; the words may stand in its helpers.
        assert f"def {name}(" in text, f"{file} has no {name}"
    # A list of arguments, or a line of a shell.
    missing = [
        word for word in words.split() if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)
    ]
    assert not missing, f"{file} does not run {missing}"


@pytest.mark.host
@pytest.mark.parametrize("line", lines(RUN_AS_PRINTED))
def test_a_command_that_only_reads_works_as_it_is_printed(line: str) -> None:
    assert run(line)


@pytest.mark.host
@pytest.mark.parametrize("line", lines(IN_PLACE))
def test_a_command_with_a_place_or_a_number_works_with_one(line: str, tmp_path: Path) -> None:
    if line.startswith("ps"):
        assert str(os.getpid()) in run(line.replace("N", str(os.getpid())))
    elif line.startswith("ls"):
        (tmp_path / "kubelet.sock").touch()
        assert "kubelet.sock" in run(line.replace("/var/lib/kubelet/device-plugins/", f"{tmp_path}/"))
    else:
        if os.geteuid() != 0:
            pytest.skip("only root may mount")
        own = f"mount -t tmpfs -o size=1M tmpfs /dev/shm; {line}; stat -f -c %b /dev/shm"
        blocks = run(f"unshare --mount sh -euc '{own}'")
        assert int(blocks) > 256


@pytest.mark.host
@pytest.mark.parametrize("line", lines(MODULES))
def test_a_module_that_is_run_is_there(line: str) -> None:
    *_, module = re.findall(r"-m (\S+)", line)
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists() or (
        ROOT / module / "__main__.py"
    ).exists()
    if module == "bench":
        helped = run("python -m bench --help")
        topic = line.split()[3]
        assert topic in helped


@pytest.mark.host
@pytest.mark.parametrize("line", lines(MAKE))
def test_make_knows_what_to_do(line: str) -> None:
    assert run(f"{line} --dry-run")


@pytest.mark.host
@pytest.mark.parametrize("line", lines(APT))
def test_the_packages_to_install_are_what_ci_installs(line: str) -> None:
    wanted = set(line.split()[2:])
    known = set(re.findall(r"[\w.-]+", (ROOT / ".ci" / "run").read_text()))
    assert wanted <= known


@pytest.mark.parametrize("line", lines(KUBECTL))
def test_what_kubectl_is_given_is_what_the_api_server_was_given(line: str) -> None:
    """`MANIFESTS` are created on the real API server, or held against their schema where the kind is not Kubernetes' own."""
    *_, option, name = line.split()
    path, tried = ROOT / name, {where.partition(":")[0] for where, _ in MANIFESTS}
    files = [path]
    if option == "-k":
        kustomization = yaml.safe_load((path / "kustomization.yaml").read_text())
        files = [path / each for each in kustomization["resources"]]
    assert files
    assert {str(file.relative_to(ROOT / "deploy")) for file in files} <= tried


@pytest.mark.host
@pytest.mark.parametrize("line", lines(COPIED))
def test_files_are_copied_and_linked_to_where_they_belong(line: str, tmp_path: Path) -> None:
    *rest, target = line.split()
    place = tmp_path / target.lstrip("/")
    (place if target.endswith("/") else place.parent).mkdir(parents=True)
    run(" ".join([*rest, f"{place}/" if target.endswith("/") else str(place)]))
    made = place / Path(rest[-1]).name if target.endswith("/") else place
    assert made.is_symlink() or made.read_bytes() == (ROOT / rest[-1]).read_bytes()


@pytest.mark.host
@pytest.mark.parametrize("line", lines(UNPACK))
def test_a_bundle_is_unpacked_as_it_is_printed(line: str, tmp_path: Path) -> None:
    # Without an agent parts are missing, which is exit code 1.
    run(f"{OURS} support-bundle --run-dir=. --state-dir=. || test $? = 1", tmp_path)
    run(line, tmp_path)
    assert list(tmp_path.glob("kata-node-agent-*/about.json"))


@pytest.mark.host
@pytest.mark.parametrize("line", lines(PAGE))
def test_the_page_is_asked_for_as_it_is_printed(line: str, short_dir: Path) -> None:
    node = Node(short_dir)
    with node.agent() as agent:
        agent.wait_for("serving socket")
        page = run(line.replace("/run/kata-node-agent", str(node.run_dir)))
    assert page.startswith("<!DOCTYPE html>")
