"""What a bundle shows of the configuration's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_node_agent.cli.written import read_files, without_secrets

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("[device_plugin]", "[device_plugin]"),
        ("max_slot = 3", "max_slot = 3"),
        ('mode = "warn" # s3cr3t', 'mode = "warn"'),
        ("mode = 'warn", "mode = 'warn"),
        ('require = ["kvm.open", "os"]', 'require = ["kvm.open", "os"]'),
        ('configz_token_file = "/etc/token"', 'configz_token_file = "/etc/token"'),
        ('configz_token = "s3cr3t"', "configz_token = (left out)"),
        ("Password=s3cr3t", "Password=(left out)"),
        ('tls_key = """-----BEGIN s3cr3t', "tls_key = (left out)"),
        ('tls_key = "/a" "s3cr3t"', 'tls_key = "/a" (and more, left out)'),
        ('url = "https://me:s3cr3t@host/x"', 'url = "https://(left out)@host/x"'),
        ("MIIs3cr3t==", "# (a line that is no setting was here)"),
        ("MIIs3cr3t", "# (a line that is no setting was here)"),
        ("# password: s3cr3t", "# (a comment was here)"),
        ("", ""),
    ],
)
def test_a_line_is_shown_without_what_may_be_secret(line: str, shown: str) -> None:
    assert without_secrets(line + "\n") == shown + "\n"


def test_a_text_of_several_lines_is_left_out() -> None:
    shown = without_secrets('tls_key = """\na = s3cr3t\n\'\'\'\nb = s3cr3t\n"""\nmode = 1\n')
    assert "s3cr3t" not in shown
    assert shown.splitlines()[-1] == "mode = 1"
    assert len(shown.splitlines()) == 6


def test_the_file_and_its_drop_ins_are_there_in_their_order_and_what_cannot_be_read_is_said(
    tmp_path: Path,
) -> None:
    main = tmp_path / "config.toml"
    main.write_bytes(b"mode = \xff\n")
    folder = tmp_path / "config.toml.d"
    folder.mkdir()
    (folder / "10-a.toml").write_text("x = 1\n")
    (folder / "20-b.toml").mkdir()
    texts, missing = read_files(main)
    assert texts == {
        "written/00-config.toml": f"# {main}\nmode = \ufffd\n",
        "written/01-10-a.toml": f"# {folder}/10-a.toml\nx = 1\n",
    }
    assert list(missing) == ["written/02-20-b.toml"]
    assert read_files(tmp_path / "none.toml")[1].keys() == {"written/00-none.toml"}
