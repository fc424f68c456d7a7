"""The shells' completion scripts, as click writes them.

    python -m tools.completion FOLDER

writes one file a shell, under the name that the shell's folder of completions wants.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from click.shell_completion import get_completion_class

from kata_node_agent.cli.group import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "kata-node-agent"
# shell -> (the name that its folder wants, where distributions have that folder)
NAMES = {
    "bash": (PROGRAM, "/usr/share/bash-completion/completions"),
    "zsh": (f"_{PROGRAM}", "/usr/share/zsh/site-functions"),
    "fish": (f"{PROGRAM}.fish", "/usr/share/fish/vendor_completions.d"),
}


def scripts() -> Iterator[tuple[str, str, str]]:
    """Each shell, its file's name and text."""
    for shell, (name, _) in NAMES.items():
        kind = get_completion_class(shell)
        assert kind is not None  # noqa: S101 - click has these three
        variable = f"_{PROGRAM}_COMPLETE".replace("-", "_").upper()
        yield shell, name, kind(cli, {}, PROGRAM, variable).source()


def main() -> None:
    """Writes the scripts into folders of the folder that is named, one a shell."""
    for shell, name, text in scripts():
        folder = Path(sys.argv[1]) / shell
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
