import io
import logging
from pathlib import Path

from kata_node_agent.daemon.logs import _Formatter, under_journal


def line(message: str, *, journal: bool = False, level: int = logging.INFO, **extra: object) -> str:
    record = logging.LogRecord("x", level, "x.py", 1, message, (), None)
    record.__dict__.update(extra)
    return _Formatter(journal=journal).format(record)


def test_an_event_is_one_line_of_keys_and_values() -> None:
    text = line("devices", healthy=3, why='no "room" here', empty="")
    assert text.endswith('info    devices healthy=3 why="no \\"room\\" here" empty=""')


def test_foreign_text_cannot_forge_a_line_or_move_the_cursor() -> None:
    text = line("refused", why="a\n<0>forged\x1b[2J")
    assert "\n" not in text
    assert "\x1b" not in text
    assert "\\n" in text


def test_journald_gets_the_priority_and_no_time() -> None:
    assert line("x", journal=True, level=logging.ERROR) == "<3>x"
    assert line("x", journal=True, level=logging.WARNING) == "<4>x"


def test_journal_is_recognised_by_the_stream_that_systemd_named(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        status = (tmp_path / "log").stat()
        assert under_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not under_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not under_journal(stream, {})
    assert not under_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})
