import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.cli.group import cli
from kata_node_agent.cli.top_text import KEYS, picture
from kata_node_agent.config.schema import Config
from kata_node_agent.report.sandboxes import Overview, SandboxObserver
from tests.report.kata_node import KataNode


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> KataNode:
    made = KataNode(tmp_path_factory.mktemp("node"))
    made.sandbox(1, resident_mib=300)
    made.sandbox(2, limit_mib=512, resident_mib=1900)
    made.sandbox(3, limit_mib=4096, overhead_mib=2106, resident_mib=700)
    return made


@pytest.fixture
def overview(node: KataNode) -> Overview:
    return SandboxObserver(node.root, Config()).look()


def lines(
    overview: Overview, order: str = "resident", width: int = 80, height: int | None = None
) -> list[str]:
    drawn = picture(overview, order=order, width=width, height=height, clock="12:00:00", live=True)
    return [click.unstyle(line) for line in drawn]


def pods(drawn: list[str]) -> list[str]:
    return re.findall(r"default/(web-\d)", "\n".join(drawn))


def test_the_largest_is_first_and_each_key_sorts_by_its_own(overview: Overview) -> None:
    assert pods(lines(overview)) == ["web-2", "web-3", "web-1"]
    assert pods(lines(overview, "vm")) == ["web-1", "web-3", "web-2"]
    assert pods(lines(overview, "pod")) == ["web-1", "web-2", "web-3"]
    assert pods(lines(overview, "risks"))[-1] == "web-3"


def test_the_sums_stand_above(overview: Overview) -> None:
    drawn = lines(overview)
    assert drawn[0] == "3 Kata VMs, 3 with risks".ljust(72) + "12:00:00"
    assert re.fullmatch(r"given +16\.5Gi █+·+ +57 % of 28\.9Gi that pods may have", drawn[1])
    assert re.fullmatch(r"in shm +16\.5Gi █+ +103 % of 16Gi that it holds", drawn[3])


@given(width=st.integers(1, 300), height=st.integers(1, 40), order=st.sampled_from(sorted(KEYS.values())))
def test_a_picture_fits_the_terminal(width: int, height: int, order: str) -> None:
    drawn = lines(_overview(), order, width, height)
    assert all(len(line) <= max(60, width) for line in drawn)
    # A terminal of a few lines shows the sums and one VM; what is below is cut by whoever draws.
    assert len(drawn) <= max(height, 8)


_kept: list[Overview] = []


def _overview() -> Overview:
    return _kept[0]


@pytest.fixture(autouse=True)
def _keep(overview: Overview) -> None:
    _kept[:] = [overview]


def test_what_does_not_fit_is_counted(overview: Overview) -> None:
    drawn = lines(overview, height=9)
    assert (len(pods(drawn)), drawn[-2]) == (1, "and 2 more")


def test_at_80_columns_nothing_of_a_line_is_missing(overview: Overview) -> None:
    drawn = lines(overview)
    assert drawn[5].split()[:6] == ["pod", "VM", "plugged", "resident", "beside", "risks"]
    assert re.fullmatch(r"default/web-1 +8Gi +6Gi +358Mi +58Mi +\d   █+·+ +4 %", drawn[8])


def test_only_so_many_are_shown_and_the_sums_are_of_all(overview: Overview, node: KataNode) -> None:
    drawn = picture(overview, order="pod", width=80, height=24, clock="12:00:00", live=False, limit=2)
    assert pods([click.unstyle(line) for line in drawn]) == ["web-1", "web-2"]
    assert drawn[-1] == "and 1 more"
    assert "3 Kata VMs" in drawn[0]
    root = ["--host-root", str(node.folder), "--once", "--limit", "1"]
    assert pods(CliRunner().invoke(cli, ["top", *root]).output.splitlines()) == ["web-2"]
    found = json.loads(CliRunner().invoke(cli, ["top", *root, "--format", "json"]).output)
    assert [each["pod"] for each in found["sandboxes"]] == ["default/web-2"]


def test_without_a_terminal_it_is_one_plain_look(node: KataNode) -> None:
    done = CliRunner().invoke(cli, ["top", "--host-root", str(node.folder), "--sort", "pod"])
    assert done.exit_code == 0
    assert "\x1b" not in done.output
    assert pods(done.output.splitlines()) == ["web-1", "web-2", "web-3"]


@pytest.mark.parametrize(("order", "first"), [("resident", "web-2"), ("vm", "web-1")])
def test_json_is_the_document_of_sandboxes_in_the_order_of_top(
    node: KataNode, order: str, first: str
) -> None:
    root = ["--host-root", str(node.folder), "--format", "json"]
    sorted_one = CliRunner().invoke(cli, ["top", "--once", "--sort", order, *root])
    assert sorted_one.exit_code == 0
    found = json.loads(sorted_one.output)
    assert found["sandboxes"][0]["pod"] == f"default/{first}"
    whole = json.loads(CliRunner().invoke(cli, ["sandboxes", *root]).output)
    found["sandboxes"].sort(key=lambda each: each["id"])
    assert found == whole


class Terminal:
    """A terminal with `top` in it."""

    def __init__(self, folder: Path) -> None:
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self.before = termios.tcgetattr(self.ours)
        # Whoever runs the tests in the background may ignore the signal, and children inherit that.
        command = ["env", "--default-signal=INT", sys.executable, "-m", "kata_node_agent", "top"]
        self.child = subprocess.Popen(
            [*command, "--host-root", str(folder), "--interval", "0.2"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm"},
        )
        os.close(theirs)
        self.seen = ""

    def read_until(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self.seen and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.ours, 65536).decode(errors="replace")
                except OSError:
                    break
        assert text in self.seen, self.seen[-2000:]

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.ours)


@pytest.mark.host
@pytest.mark.parametrize("ending", ["q", "interrupt", "terminate"])
def test_a_terminal_is_left_as_it_was(node: KataNode, ending: str) -> None:
    terminal = Terminal(node.folder)
    try:
        terminal.read_until("q quit")
        assert terminal.seen.startswith("\x1b[?1049h")
        if ending == "q":
            os.write(terminal.ours, b"p")
            terminal.seen = ""
            terminal.read_until("q quit")
            terminal.seen = ""
            terminal.read_until("q quit")
            assert pods([click.unstyle(terminal.seen)])[:3] == ["web-1", "web-2", "web-3"]
            os.write(terminal.ours, b"q")
        else:
            terminal.child.send_signal(signal.SIGINT if ending == "interrupt" else signal.SIGTERM)
        terminal.seen = ""
        terminal.read_until("\x1b[?1049l")
        assert terminal.child.wait(10) == 0
        assert "Traceback" not in terminal.seen
        assert termios.tcgetattr(terminal.ours) == terminal.before
    finally:
        terminal.close()


@pytest.mark.host
def test_an_error_is_said_on_the_ordinary_screen(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    try:
        terminal.read_until("reason: HostUnreadable")
        assert terminal.child.wait(10) == 2
        assert "\x1b[?1049h" not in terminal.seen
    finally:
        terminal.close()
