import subprocess
from pathlib import Path

import pytest

from kata_node_agent.cli.group import COMMANDS
from kata_node_agent.config.load import env_name, settings
from tests.conftest import need
from tools import manual, roff

DATE = "2026-01-31"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    for name, text in manual.pages(DATE):
        (folder / name).write_text(text)
    return folder


def test_each_command_and_the_configuration_have_a_page(folder: Path) -> None:
    names = {
        "kata-node-agent.1",
        "kata-node-agent.toml.5",
        *(f"kata-node-agent-{name}.1" for name in COMMANDS),
    }
    assert {path.name for path in folder.iterdir()} == names


@pytest.mark.host
def test_mandoc_has_nothing_to_say(folder: Path) -> None:
    need("mandoc")
    # Of style it only has that a page's one-line name is longer than 80 bytes.
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *sorted(folder.iterdir())], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.host
def test_groff_shows_each_page_without_a_warning(folder: Path) -> None:
    need("man")
    for page in sorted(folder.iterdir()):
        done = subprocess.run(
            ["man", "--warnings", "--local-file", "--encoding=utf8", "--pager=cat", str(page)],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MANWIDTH": "80"},
        )
        assert (done.returncode, done.stderr) == (0, ""), page.name
        assert "SEE ALSO" in done.stdout
        assert "\b" not in done.stdout, f"{page.name}: click's mark was left in"


def test_each_setting_is_told_with_its_default_and_its_variable(folder: Path) -> None:
    text = (folder / "kata-node-agent.toml.5").read_text()
    for key, _ in settings():
        name = key.rpartition(".")[2]
        assert f".TP\n\\fB{name}\\fR = " in text
        assert env_name(key) in text


def test_exit_codes_and_examples_of_a_command_have_sections_of_their_own(folder: Path) -> None:
    text = (folder / "kata-node-agent-check.1").read_text()
    codes = text.partition('.SH "EXIT STATUS"')[2].partition(".SH")[0]
    assert ".TP\n1\nnot eligible\n" in codes
    examples = text.partition('.SH "EXAMPLES"')[2].partition(".SH")[0]
    assert "\nkata\\-node\\-agent check \\-\\-profile openshift \\-\\-format json\n" in examples
    assert "Examples:" not in text


def test_the_commands_of_a_group_are_told_on_its_page(folder: Path) -> None:
    text = (folder / "kata-node-agent-ledger.1").read_text()
    for name in ("history", "list", "release", "verify"):
        assert f'.SS "{name}"' in text


def test_pages_are_the_same_each_time() -> None:
    assert list(manual.pages(DATE)) == list(manual.pages(DATE))
    assert all(DATE in text and text.isascii() for _, text in manual.pages(DATE))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (".config is a file", "\\&.config is a file"),
        ("'quoted'", "\\&'quoted'"),
        ("C:\\x --help", "C:\\ex \\-\\-help"),
        ("a ≥ b", "a \\[u2265] b"),
    ],
)
def test_what_means_something_to_the_formatter_is_escaped(text: str, escaped: str) -> None:
    assert roff.escape(text) == escaped


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("x.\n\nExit codes: 0 shown; 2 no answer.", [("0", "shown"), ("2", "no answer.")]),
        (
            "x.\n\n\b\nExit codes:\n  0  fine\n  1  not\n     at all",
            [("0", "fine"), ("1", "not\n     at all")],
        ),
        ("x.\n\nExit codes: 0 done; else the agent's.", [("0", "done"), ("else", "the agent's.")]),
    ],
)
def test_exit_codes_are_read_as_the_helps_write_them(text: str, codes: list[tuple[str, str]]) -> None:
    assert roff.split_help(text)[2] == codes


@pytest.mark.host
def test_man_finds_the_pages_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("man")
    monkeypatch.setattr("sys.argv", ["manual", str(tmp_path)])
    manual.main()
    for name in ("kata-node-agent-check", "kata-node-agent.toml"):
        done = subprocess.run(["man", "-M", str(tmp_path), "-w", name], capture_output=True, text=True)
        assert done.stdout.startswith(str(tmp_path)), done.stderr
