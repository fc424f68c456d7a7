"""Each link of a page leads to a file and a heading that is there, and each page can be found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.docs.commands import ROOT, documents, page

if TYPE_CHECKING:
    from pathlib import Path

PAGES = [*documents(), ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"]


def headings(text: str) -> set[str]:
    """As a forge makes anchors of them."""
    lines = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_each_link_leads_somewhere(path: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (heading and heading not in headings(target.read_text())):
            broken.append(link)
    assert not broken


def test_the_table_of_pages_has_each_page() -> None:
    told = set(re.findall(r"\]\(([\w-]+\.md)\)", page("README.md")))
    assert told == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_drawing_says_in_words_what_it_shows() -> None:
    drawing = (ROOT / "docs" / "pictures" / "node.svg").read_text()
    for element in ("<title", "<desc", "prefers-color-scheme: dark"):
        assert element in drawing
