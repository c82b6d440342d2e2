"""A table on terminals of every width: whole columns or none."""

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from perjoule.bench.columns import Columns

CELLS = {"name": ["demo-001", "demo-002"], "joules>": ["1,234.56", "9.00"], "of all>": ["99%", "1%"],
         "what": ["a chat", "b"]}
SPARE = ("what", "name", "of all>")
NARROWEST = 10  # the joules and their frame


def drawn(width):
    """The table as lines of words."""
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(Columns(CELLS, SPARE))
    return [line.split() for line in capture.get().splitlines()]


@given(st.integers(NARROWEST, 200))
def test_what_is_shown_is_whole(width):
    """Where the joules fit, each row has its kept cells uncut, and a spare column goes only after those before it."""
    rows = drawn(width)
    forms = [[column for head, column in CELLS.items() if head not in SPARE[:left_out]] for left_out in range(4)]
    assert any(all(" ".join(row).split() in rows for row in zip(*form, strict=True)) for form in forms)


def test_wide_is_everything_and_narrow_is_what_cannot_be_spared():
    """At 80 columns nothing is left out; at the narrowest only the joules remain."""
    assert drawn(80)[1] == ["name", "joules", "of", "all", "what"]
    assert drawn(NARROWEST)[1] == ["joules"]
