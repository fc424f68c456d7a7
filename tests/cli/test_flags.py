from pathlib import Path

import pytest

from kata_node_agent.cli.flags import SETTING_FLAGS, plain_run_flags
from kata_node_agent.config import load
from kata_node_agent.config.load import settings


def test_plain_flags_are_read_in_both_spellings() -> None:
    assert plain_run_flags(["--config", "c.toml", "--mode=warn", "--run-dir", "/x"]) == (
        Path("c.toml"),
        {"mode": "warn", "run_dir": "/x"},
    )
    assert plain_run_flags([]) == (None, {})


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["--mode"], ["--mod", "warn"], ["warn"], ["--mode", "--run-dir"]]
)
def test_anything_else_goes_the_ordinary_way(arguments: list[str]) -> None:
    assert plain_run_flags(arguments) is None


def test_every_flag_names_a_setting() -> None:
    keys = {key for key, _ in settings()}
    assert {key for key, _, _ in SETTING_FLAGS.values()} <= keys


def test_both_ways_give_the_same_settings(tmp_path: Path) -> None:
    from kata_node_agent.cli.options import given_settings

    plain = plain_run_flags(["--device-plugin-dir", "/x"])
    assert plain is not None
    click_way = given_settings({"device_plugin__directory": "/x", "mode": None})
    assert plain[1] == click_way
    (tmp_path / "c.toml").write_text("")
    assert load(tmp_path / "c.toml", flags=plain[1], environ={}).config.device_plugin.directory == Path("/x")
