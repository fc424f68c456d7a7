"""What is drawn over a screen leaves nothing of the one before, and takes nothing of itself."""

from kata_node_agent.cli.output import drawn_over


class Screen:
    """As much of a terminal (ECMA-48, and the pending wrap of a VT100) as is written to here."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.cells = [["x"] * columns for _ in range(rows)]
        self.row = self.column = 0

    def write(self, text: str) -> None:
        while text:
            for sequence, action in (
                ("\x1b[H", self._home),
                ("\x1b[K", self._erase_line),
                ("\x1b[J", self._erase_below),
                ("\r", self._return),
                ("\n", self._down),
            ):
                if text.startswith(sequence):
                    action()
                    text = text[len(sequence) :]
                    break
            else:
                self.cells[self.row][min(self.column, self.columns - 1)] = text[0]
                # On the last column it stays, until the next letter.
                self.column = min(self.column + 1, self.columns)
                text = text[1:]

    def _home(self) -> None:
        self.row = self.column = 0

    def _return(self) -> None:
        self.column = 0

    def _down(self) -> None:
        self.row += 1

    def _erase_line(self) -> None:
        start = min(self.column, self.columns - 1)
        self.cells[self.row][start:] = [" "] * (self.columns - start)

    def _erase_below(self) -> None:
        self._erase_line()
        for row in self.cells[self.row + 1 :]:
            row[:] = [" "] * self.columns

    @property
    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.cells]


def test_a_line_as_wide_as_the_terminal_keeps_its_last_letter() -> None:
    screen = Screen(8, 4)
    screen.write(drawn_over(["12345678", "ab", "87654321"]))
    assert screen.lines == ["12345678", "ab", "87654321", ""]
    screen.write(drawn_over(["short", "12345678"]))
    assert screen.lines == ["short", "12345678", "", ""]


def test_nothing_is_an_empty_screen() -> None:
    screen = Screen(3, 2)
    screen.write(drawn_over([]))
    assert screen.lines == ["", ""]
