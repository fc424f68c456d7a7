import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kata_node_agent.cli.config import command
from kata_node_agent.config import load
from kata_node_agent.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text("[device_plugin]\nmax_slots = 7\n")
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_show_is_a_valid_configuration_with_the_origin_of_each_value(file: Path, tmp_path: Path) -> None:
    result = invoke("show", "--config", file)
    assert result.exit_code == 0
    assert tomllib.loads(result.output)["device_plugin"]["max_slots"] == 7
    assert f"from: {file}; or KATA_NODE_AGENT_DEVICE_PLUGIN_MAX_SLOTS" in result.output
    again = tmp_path / "again.toml"
    again.write_text(result.output)
    assert load(again, environ={}).config == load(file, environ={}).config


def test_show_as_json_has_key_value_and_origin(file: Path) -> None:
    document = json.loads(invoke("show", "--config", file, "--format", "json", "--mode", "warn").output)
    assert document["schema"] == "kata-node-agent/config/v1"
    rows = {row["key"]: row for row in document["settings"]}
    assert rows["device_plugin.max_slots"] == {
        "key": "device_plugin.max_slots",
        "value": 7,
        "origin": str(file),
    }
    assert rows["mode"]["origin"] == "flag --mode"


def test_check_accepts_and_names_the_sources(file: Path) -> None:
    result = invoke("check", "--config", file)
    assert result.exit_code == 0
    assert str(file) in result.output


@pytest.mark.parametrize(
    "text", ['[eligibility]\nprofile = "openshit"', '[eligibility]\nrequire = ["kvm.opens"]', "x = 1"]
)
def test_check_refuses_what_the_agent_would_refuse(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError):
        invoke("check", "--config", file)


@pytest.mark.parametrize(
    "text", ['run_dir = "relative"', '[device_plugin]\ndirectory = "plug"', 'host_root = "tree"']
)
def test_check_refuses_a_path_that_is_relative_to_nothing(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match="not an absolute path"):
        invoke("check", "--config", file)


def test_check_refuses_a_relative_folder_of_the_daemon_on_the_command_line_too() -> None:
    with pytest.raises(ConfigError, match="flag --run-dir: run_dir = relative: not an absolute path"):
        invoke("check", "--run-dir", "relative")


def test_check_warns_of_what_is_hardly_meant(file: Path) -> None:
    file.write_text('[device_plugin]\nmax_slots = 0\n[kubelet]\nconfig_file = "/nope"\n')
    result = invoke("check", "--config", file)
    assert result.exit_code == 0
    warnings = [line for line in result.output.splitlines() if line.startswith(f"warning: {file}: ")]
    assert "device_plugin.max_slots = 0: no VM is ever advertised" in warnings[0]
    assert "kubelet.config_file = /nope: there is no such file now" in warnings[1]
    assert len(warnings) == 2
