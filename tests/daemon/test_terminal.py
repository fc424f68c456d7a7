"""The pictures of commands in the documentation."""

import os
import sys

import pytest

from tests.daemon.terminal import picture, printed


@pytest.mark.host
def test_a_command_writes_to_a_terminal_of_that_size() -> None:
    program = "import os, sys; print(sys.stdout.isatty(), *os.get_terminal_size(1))"
    assert printed([sys.executable, "-c", program], dict(os.environ), 84, 60) == "True 84 60\n"


def test_a_picture_has_colours_and_fetches_nothing() -> None:
    drawn = picture("\x1b[1;31mnot eligible\x1b[0m: a < b\n", "check", 84)
    assert "not&#160;eligible" in drawn
    assert "&lt;" in drawn
    assert "font-weight: bold" in drawn
    assert "url(http" not in drawn
    assert "@font-face" not in drawn
