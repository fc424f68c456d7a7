"""Makes noise until it is ended, or whoever started it is gone.

python noise.py cpu | python noise.py files FOLDER…
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# Between two rounds; the disk's own time comes on top.
_PAUSE_SECONDS = 0.001


def _spin() -> None:
    for _ in range(200_000):
        pass


def _scribble(folders: list[Path]) -> None:
    """What kubelet does with its checkpoint: a new file, written, synced, renamed over the old; and then removed."""
    for folder in folders:
        new, old = folder / ".noise.new", folder / ".noise"
        with new.open("wb") as file:
            file.write(os.urandom(16384))
            file.flush()
            os.fsync(file.fileno())
        new.rename(old)
        old.unlink()
    time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    parent = os.getppid()
    while os.getppid() == parent:
        if sys.argv[1] == "cpu":
            _spin()
        else:
            _scribble([Path(name) for name in sys.argv[2:]])
