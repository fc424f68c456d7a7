"""docs/security.md says of files, sockets, limits and the unit what code, unit and manifests say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kata_node_agent.api import server as api
from kata_node_agent.cli.support_bundle import _PARTS
from kata_node_agent.config.schema import Config
from kata_node_agent.daemon import start, web
from kata_node_agent.host import root, snapshot
from kata_node_agent.kubelet import endpoint, podresources
from kata_node_agent.nodeconfig import configz, document, kubelet, process
from kata_node_agent.nri import asking, frames
from kata_node_agent.publish import http, listener
from kata_node_agent.sandboxes import census
from tests.deploy.test_manifests import one
from tests.docs.commands import ROOT, page
from tests.systemd.quadlet import FILE as QUADLET

PAGE = page("security.md")
UNIT = (ROOT / "systemd" / "kata-node-agent.service").read_text()
KIB, MIB = 1 << 10, 1 << 20


def section(title: str) -> str:
    text = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert text, f"no section {title}"
    return text


def rows(title: str) -> list[list[str]]:
    """The cells of all tables of a section, without headings."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [
        row
        for n, row in enumerate(cells)
        if "---" not in row[0] and (n + 1 == len(cells) or "---" not in cells[n + 1][0])
    ]


def values(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def test_what_is_written_is_what_unit_podman_and_daemonset_let_be_written() -> None:
    told = {cells[0].strip("`") for cells in rows("What it writes")}
    own = {f"/run/{values('RuntimeDirectory')[0]}", f"/var/lib/{values('StateDirectory')[0]}"}
    assert told == own | {path.removeprefix("-") for path in values("ReadWritePaths")}
    pod = one("DaemonSet", "kubernetes/daemonset.yaml")["spec"]["template"]["spec"]
    paths = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in pod["volumes"]}
    (container,) = pod["containers"]
    assert told == {paths[m["name"]] for m in container["volumeMounts"] if not m.get("readOnly")}
    volumes = [line.split(":") for line in re.findall(r"^Volume=(.*)$", QUADLET.read_text(), re.MULTILINE)]
    assert told == {source for source, _, *options in volumes if "ro" not in ",".join(options).split(",")}


def test_each_socket_is_told() -> None:
    config, told = Config(), section("Sockets")
    for path in (
        config.run_dir / api.SOCKET_NAME,
        config.run_dir / web.SOCKET_NAME,
        config.device_plugin.directory / "kubelet.sock",
        config.kubelet.pod_resources_socket,
        config.nri.socket,
    ):
        assert f"| `{path}` |" in told
    off = {"metrics.tcp_address": config.metrics.tcp_address, "health.tcp_address": config.health.tcp_address}
    for key, value in {**off, "kubelet.configz_url": config.kubelet.configz_url}.items():
        assert not value
        assert f"| TCP `{key}`, off unless set |" in told


def test_capabilities_are_those_of_the_unit_and_of_a_container() -> None:
    capabilities = [cells for cells in rows("Why root") if cells[1] in {"yes", "no"}]
    of_unit = {f"CAP_{cells[0].strip('`')}" for cells in capabilities if cells[1] == "yes"}
    of_container = {f"CAP_{cells[0].strip('`')}" for cells in capabilities if cells[2] == "yes"}
    assert of_unit == set(" ".join(values("CapabilityBoundingSet")).split())
    assert of_container == set(
        re.findall(r"^AddCapability=(.*)$", QUADLET.read_text(), re.MULTILINE)[0].split()
    )
    assert len(start._KEPT_CAPABILITIES) == len(of_container)


def test_the_options_of_the_unit_are_as_it_has_them() -> None:
    told = [
        word
        for cells in rows("What the unit's sandbox leaves open")
        for word in re.findall(r"`([^`]+)`", cells[0])
    ]
    for option in told:
        name, is_option, value = option.partition("=")
        if is_option and value:
            assert value in values(name), option
        elif is_option and name != "ReadWritePaths":
            assert not values(name), f"{name}= is set"
    # What is not simply on, and no matter of files or of how it is started and ended.
    sandbox = UNIT.partition("\nUser=")[2].partition("\n[Install]")[0]
    open_ones = set(re.findall(r"^(\w+)=(?!yes$|native$|$)", sandbox, re.MULTILINE))
    named = {option.partition("=")[0] for option in told}
    assert open_ones - named <= {"UMask", "KeyringMode", "SystemCallErrorNumber"}


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        ("a file of the host", {"4 MiB": root.MAX_FILE_BYTES / MIB}),
        ("a command line of a possible VM", {"128 KiB": census.MAX_COMMAND_LINE_BYTES / KIB}),
        ("kubelet's command line", {"256 KiB": process._MAX_COMMAND_LINE_BYTES / KIB}),
        (
            "kubelet's configuration",
            {"1 MiB": kubelet._MAX_FILE_BYTES / MIB, "200 drop-ins": kubelet._MAX_DROP_INS, "50 deep": document._MAX_DEPTH},
        ),
        ("answer of `/configz`", {"1 MiB": configz._MAX_BYTES / MIB, "2 s": configz._TIMEOUT_SECONDS}),
        ("answer of pod resources", {"16 MiB": podresources._MAX_MESSAGE_BYTES / MIB, "2 s": podresources._TIMEOUT_SECONDS}),
        ("a request on `agent.sock`", {"1 MiB": api._MAX_REQUEST_BYTES / MIB}),
        ("a request of a device plugin's client", {"4 MiB": endpoint._MAX_REQUEST_BYTES / MIB}),
        ("an NRI frame", {"4 MiB": frames.MAX_DATA_BYTES / MIB, "16 questions": asking._MAX_OUTSTANDING}),
        (
            "an HTTP request",
            {"8 KiB": http.MAX_REQUEST_BYTES / KIB, "5 s": listener.ASK_SECONDS, "16 connections": listener.MAX_CONNECTIONS},
        ),
        ("a snapshot to judge", {"8 MiB": snapshot.MAX_BYTES / MIB}),
    ],
)  # fmt: skip
def test_limits_are_those_of_the_code(words: str, limits: dict[str, Any]) -> None:
    (limit,) = [
        cells[2] for cells in rows("What it believes, and how foreign input is bounded") if cells[0] == words
    ]
    for told, value in limits.items():
        assert told in limit
        assert float(told.split()[0]) == value, f"{words}: {told}, and the code has {value}"


def test_the_parts_of_a_bundle_are_told() -> None:
    told = re.findall(r"`([\w-]+\.(?:json|toml|txt|sql))`", section("What is in a support bundle"))
    assert sorted(told) == sorted({"about.json", *_PARTS})
