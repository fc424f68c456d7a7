import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.config import load
from kata_node_agent.config.load import env_name, keep_restart_only, settings
from kata_node_agent.config.schema import MAX_SLOTS, Mode
from kata_node_agent.errors import AgentError, ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("")
    return path


def test_later_sources_win_and_each_value_knows_its_origin(file: Path) -> None:
    file.write_text('mode = "off"\n[device_plugin]\nmax_slots = 1\n[sandbox]\nvm_memory = "1Gi"\n')
    drop_in = file.with_name("config.toml.d")
    drop_in.mkdir()
    (drop_in / "10.toml").write_text("[device_plugin]\nmax_slots = 2\n")
    (drop_in / "20.toml").write_text("[device_plugin]\nmax_slots = 3\n")
    (drop_in / ".30.toml.swp").write_text("[device_plugin]\nmax_slots = 4\n")
    loaded = load(file, flags={"mode": "warn"}, environ={"KATA_NODE_AGENT_SANDBOX_HOST_OVERHEAD": "100Mi"})
    assert loaded.config.mode is Mode.WARN
    assert loaded.config.device_plugin.max_slots == 3
    sandbox = loaded.config.sandbox
    assert (sandbox.vm_memory, sandbox.host_overhead) == (1 << 30, 100 << 20)
    assert loaded.origins["mode"] == "flag --mode"
    assert loaded.origins["device_plugin.max_slots"] == str(drop_in / "20.toml")
    assert loaded.origins["sandbox.vm_memory"] == str(file)
    assert loaded.origins["sandbox.host_overhead"] == "environment KATA_NODE_AGENT_SANDBOX_HOST_OVERHEAD"
    assert loaded.origins["log_level"] == "default"


def test_config_file_may_be_named_in_the_environment(file: Path) -> None:
    file.write_text('mode = "off"')
    assert load(environ={"KATA_NODE_AGENT_CONFIG": str(file)}).config.mode is Mode.OFF


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mod = 'warn'", ["unknown key mod", "did you mean mode?"]),
        (
            "[device_plugin]\nmax_slot = 3",
            ["unknown key device_plugin.max_slot", "did you mean device_plugin.max_slots?"],
        ),
        ("[device_plugins]\nmax_slots = 3", ["unknown key device_plugins", "did you mean device_plugin?"]),
        ("device_plugin = 3", ["device_plugin is a section"]),
        ("mode = 'enforced'", ["mode", "'enforced' is not one of enforce, warn, off"]),
        ("[device_plugin]\nmax_slots = true", ["max_slots", "True is not a whole number"]),
        ("[device_plugin]\nresource = 'kata'", ["'kata' is not the name of an extended resource"]),
        ("[device_plugin]\nresource = 'x.kubernetes.io/kata'", ["is not the name of an extended resource"]),
        ("[sandbox]\nvm_memory = '2 Gi'", ["sandbox.vm_memory", "not a quantity: '2 Gi'"]),
        (
            "[sandbox]\nvm_memory = 0\nhost_overhead = 0",
            ["sandbox.vm_memory and sandbox.host_overhead are both 0"],
        ),
        ("[kubelet]\neviction_hard_memory = '101%'", ["not a percentage from 0% to 100%"]),
        ("[health]\ntcp_address = ':80x'", ["not an address"]),
        ("[eligibility]\nrequire = [1]", ["is not a list of names"]),
        ("mode = ", ["not TOML"]),
        ("log_level = " + "9" * 5000, ["not TOML"]),
        ("log_level = 0x" + "f" * 5000, ["log_level", "thousands of digits"]),
        ("[health]\ntcp_address = '127.0.0.1:" + "9" * 5000 + "'", ["not an address"]),
        ("[sandbox]\nvm_memory = 2048", ["sandbox.vm_memory = 2048", "2048Mi"]),
        ("\x00", ["not TOML"]),
    ],
)
def test_bad_file_is_one_error_that_names_file_and_key(file: Path, text: str, words: list[str]) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert str(file) in caught.value.message or "are both 0" in caught.value.message
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("fd00::1:9440", "[fd00::1]:9440"),
        ("[::1]:9440", "[::1]:9440"),
        ("10.0.0.1:9440", "10.0.0.1:9440"),
        ("node:9440", "node:9440"),
    ],
)
def test_an_address_of_ipv6_that_comes_without_brackets_gets_them(file: Path, given: str, meant: str) -> None:
    environ = {"KATA_NODE_AGENT_HEALTH_TCP_ADDRESS": given}
    assert load(file, environ=environ).config.health.tcp_address == meant


def test_a_password_in_a_url_is_refused_and_not_shown(file: Path) -> None:
    file.write_text('[kubelet]\nconfigz_url = "https://me:s3cr3t@localhost:10250/configz"\n')
    with pytest.raises(ConfigError, match=r"kubelet\.configz_url.*configz_token_file") as caught:
        load(file, environ={})
    assert "s3cr3t" not in str(caught.value)


def test_more_slots_than_a_message_holds_are_refused_with_the_number(file: Path) -> None:
    file.write_text(f"[device_plugin]\nmax_slots = {MAX_SLOTS + 1}")
    with pytest.raises(ConfigError, match=f"which holds {MAX_SLOTS} devices") as caught:
        load(file, environ={})
    assert caught.value.message.startswith(str(file))


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        load(tmp_path / "none.toml", environ={})


def test_a_folder_in_place_of_the_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path, environ={})


def test_a_huge_file_is_refused(file: Path) -> None:
    file.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load(file, environ={})


def test_unknown_environment_variable_is_an_error_with_the_nearest_name(file: Path) -> None:
    with pytest.raises(ConfigError, match="KATA_NODE_AGENT_MODES") as caught:
        load(file, environ={"KATA_NODE_AGENT_MODES": "warn"})
    assert caught.value.hint == "did you mean KATA_NODE_AGENT_MODE?"


def test_lists_and_numbers_can_be_given_as_text(file: Path) -> None:
    environ = {
        "KATA_NODE_AGENT_ELIGIBILITY_WAIVE": "os, cpu.sse4",
        "KATA_NODE_AGENT_DEVICE_PLUGIN_MAX_SLOTS": " 12 ",
    }
    config = load(file, environ=environ).config
    assert config.eligibility.waive == ("os", "cpu.sse4")
    assert config.device_plugin.max_slots == 12


def test_environment_names_are_unique() -> None:
    names = [env_name(key) for key, _ in settings()]
    assert len(set(names)) == len(names)


def test_reload_keeps_what_only_a_restart_can_change(file: Path) -> None:
    before = load(file, environ={})
    after = load(file, flags={"mode": "warn", "run_dir": "/elsewhere"}, environ={})
    merged, waiting = keep_restart_only(before, after)
    assert merged.config.mode is Mode.WARN
    assert merged.config.run_dir == before.config.run_dir
    assert waiting == ["run_dir"]


@given(st.binary(max_size=200))
def test_any_bytes_in_the_file_are_a_configuration_or_a_typed_error(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.toml"
        path.write_bytes(content)
        with contextlib.suppress(AgentError):
            load(path, environ={})


def test_a_fifo_in_place_of_the_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load(tmp_path / "c.toml", environ={})


def test_what_kubernetes_puts_into_a_container_is_no_setting(file: Path) -> None:
    environ = dict.fromkeys(
        [
            "KATA_NODE_AGENT_SERVICE_HOST",
            "KATA_NODE_AGENT_SERVICE_PORT_GRPC",
            "KATA_NODE_AGENT_PORT",
            "KATA_NODE_AGENT_PORT_80_TCP_ADDR",
        ],
        "tcp://10.0.0.1:80",
    )
    assert load(file, environ=environ).origins["mode"] == "default"


@pytest.mark.parametrize(("raw", "value"), [(1, 1.0), (0.5, 0.5), ("1.25", 1.25), ("2", 2.0)])
def test_a_share_is_a_number_whole_or_not(file: Path, raw: object, value: float) -> None:
    file.write_text(f"[accounting]\nshare = {raw}\n" if not isinstance(raw, str) else "")
    environ = {"KATA_NODE_AGENT_ACCOUNTING_SHARE": raw} if isinstance(raw, str) else {}
    assert load(file, environ=environ).config.accounting.share == value


@pytest.mark.parametrize("raw", ["0", "-1", "11", "nan", "inf", "1e1", "true", "", "1.", "½"])
def test_a_share_out_of_range_is_refused(file: Path, raw: str) -> None:
    with pytest.raises(ConfigError, match=r"accounting\.share"):
        load(file, environ={"KATA_NODE_AGENT_ACCOUNTING_SHARE": raw})


def test_all_mistakes_of_the_files_are_told_at_once(file: Path) -> None:
    file.write_text("mod = 1\nmode = 'enforced'\nnfd = 3\n[device_plugin]\nmax_slots = -1\n")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert caught.value.message.startswith("4 mistakes: ")
    for word in (
        "unknown key mod (did you mean mode?)",
        "'enforced' is not",
        "nfd is a section",
        "-1 is not",
    ):
        assert word in caught.value.message
    assert "\n" not in caught.value.message
