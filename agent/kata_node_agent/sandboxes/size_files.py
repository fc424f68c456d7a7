"""The sizes of VMMs, which are looked at twice a second: their files stay open, as far as there is room for them."""

from __future__ import annotations

import os
import resource
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_node_agent.host.process_files import ProcessFiles


class SizeFiles:
    """Reads the same processes again and again."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], int] = {}
        self._who: list[tuple[int, int]] = []
        self._pids, self._descriptors = array("i"), array("i")

    def read(self, files: ProcessFiles, who: Sequence[tuple[int, int]]) -> array[int]:
        """As `ProcessFiles.sizes`. One that has ended has no size any more, also when its number is another's.

        Args:
            files: an open /proc.
            who: number and start of each process.
        """
        if who != self._who:
            for gone in self._files.keys() - set(who):
                os.close(self._files.pop(gone))
            # The rest of the agent needs descriptors, too.
            room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4 - len(self._files)
            for one in [one for one in who if one not in self._files][: max(0, room)]:
                if (descriptor := files.open_sizes(one[0])) >= 0:
                    self._files[one] = descriptor
            self._who = list(who)
            self._pids = array("i", [pid for pid, _ in who])
            self._descriptors = array("i", [self._files.get(one, -1) for one in who])
        return files.sizes(self._pids, self._descriptors)

    def __del__(self) -> None:
        """Gives the descriptors back. Whoever looks now and then has no moment to say that it was the last time."""
        for descriptor in self._files.values():
            os.close(descriptor)
