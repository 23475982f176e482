"""What docs/tables.md shows is what there is."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def test_its_snippets_run() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 15
    assert found.failed == 0
