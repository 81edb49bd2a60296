"""Every `python` block of the README and of docs/ runs; the blocks of one page share their names.

What a block needs and a reader does not is in `<!-- invisible-code-block: python ... -->`. There
is no way to skip one.
"""

import re
from pathlib import Path

import pytest
from sybil import Document, Sybil
from sybil.parsers.myst import PythonCodeBlockParser

ROOT = Path(__file__).parents[1]
LANGUAGES = {"python", "console", "toml", "text", "{eval-rst}", "{toctree}"}  # only the first runs

PAGES = {
    str(path.relative_to(ROOT)): path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in path.parts
}
SYBIL = Sybil(parsers=[PythonCodeBlockParser()])


def parsed(page: str) -> Document:
    return SYBIL.parse(PAGES[page])


@pytest.mark.parametrize("page", PAGES)
def test_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a block may write a file
    for example in parsed(page).examples():
        example.evaluate()


@pytest.mark.parametrize("page", PAGES)
def test_page_has_no_block_in_an_unknown_language(page):
    """A block marked `py` or not at all would look like one that runs."""
    text = PAGES[page].read_text(encoding="utf-8")
    openings = re.findall(r"^ *```+([^\n`]*)$", text, re.MULTILINE)[::2]
    assert {language.partition(" ")[0] for language in openings} <= LANGUAGES


def test_readme_has_blocks_that_run():
    assert list(parsed("README.md").examples())
