"""A table on terminals of every width: whole columns or none."""

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from perjoule.bench.columns import Columns

CELLS = {"name": ["demo-001", "demo-002"], "joules>": ["1,234.56", "9.00"], "of all>": ["99%", "1%"], "what": ["a chat", "b"]}
SPARE = ("what", "name", "of all>")


def drawn(width):
    """The table as lines of words."""
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(Columns(CELLS, SPARE))
    return [line.split() for line in capture.get().splitlines()]


@given(st.integers(8, 200))
def test_what_is_shown_is_whole(width):
    """From the width of its narrowest form on, each row has each kept cell uncut, and a spare column goes only after
    those before it."""
    lines = drawn(width)
    shown = next(left_out for left_out in range(4) if sum(lines, []).count("of") == (left_out < 3)
                 and ("name" in lines[1]) == (left_out < 2) and ("what" in lines[1]) == (left_out < 1))
    kept = [column for head, column in CELLS.items() if head not in SPARE[:shown]]
    rows = [" ".join(line) for line in lines]
    assert all(" ".join(row) in rows for row in zip(*kept, strict=True))


def test_wide_is_everything_and_narrow_is_what_cannot_be_spared():
    """At 80 columns nothing is left out; at 8 only the joules remain."""
    assert drawn(80)[1] == ["name", "joules", "of", "all", "what"]
    assert drawn(8)[1] == ["joules"]
