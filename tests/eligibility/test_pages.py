"""Document, pages and code say the same."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from kata_node_agent import eligibility
from kata_node_agent.eligibility.pages import COMMON, all_pages, document, render
from kata_node_agent.eligibility.profiles import CHECKS

ROOM = Path(eligibility.__file__).parent
ROOT = Path(__file__).parents[2]


def test_the_document_is_made_from_the_pages() -> None:
    made = 'python -c "from kata_node_agent.eligibility.pages import document; print(document(), end=str())"'
    assert (ROOT / "docs/checks.md").read_text() == document(), f"make it anew: {made} > docs/checks.md"


def test_every_check_has_a_page() -> None:
    assert set(all_pages()) == set(CHECKS)


def test_every_reason_in_the_code_is_on_a_page_and_the_other_way_round() -> None:
    documented = {reason.name for page in all_pages().values() for reason in (*page.reasons, *COMMON)}
    used: set[str] = set()
    given: set[str] = set()
    for path in ROOM.glob("*.py"):
        if path.name.startswith("pages") or path.name in {"model.py", "judge.py", "profiles.py"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.add(node.value)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                first = node.args[0]
                if node.func.id in {"holds", "fails", "unknown", "skip"} and isinstance(first, ast.Constant):
                    given.add(str(first.value))
    assert documented <= used, documented - used
    assert given <= documented, given - documented


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_a_page_fits_a_terminal(name: str) -> None:
    text = render(all_pages()[name], "Required by nobody.")
    assert max(map(len, text.split("\n"))) <= 80


def test_reasons_are_named_as_conditions_are() -> None:
    for page in all_pages().values():
        names = [reason.name for reason in page.reasons]
        assert len(set(names)) == len(names)
        assert all(name.isalnum() and name[0].isupper() for name in names)
        # A cell of a table, and a line.
        assert not any("|" in text for reason in page.reasons for text in (reason.meaning, reason.remedy))
