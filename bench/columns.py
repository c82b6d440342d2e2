"""A table for any width of terminal: what does not fit is left out as a whole column, no cell is ever cut."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table

UNBOUNDED = 10_000  # characters: a width at which rich has no reason to shrink a table


@dataclass(frozen=True, slots=True)
class Columns:
    """Cells by the head of their column; columns whose heads end with > are numbers. Where the table is too wide, the
    `spare` columns are left out, the first one first."""

    cells: Mapping[str, Sequence[RenderableType]]
    spare: Sequence[str]
    dim: Sequence[bool] | None = None  # for each row

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The first table that fits."""
        for left_out in range(len(self.spare) + 1):
            table = self._table(self.spare[:left_out])
            if Measurement.get(console, options.update(max_width=UNBOUNDED), table).maximum <= options.max_width:
                break
        yield table

    def _table(self, left_out: Sequence[str]) -> Table:
        table = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
        kept = {head: column for head, column in self.cells.items() if head not in left_out}
        for head in kept:
            table.add_column(head.rstrip(">"), justify="right" if head.endswith(">") else "left", no_wrap=True,
                             style="bold" if "joules>" in head else "")
        for number, row in enumerate(zip(*kept.values(), strict=True)):
            table.add_row(*row, style="dim" if self.dim and self.dim[number] else "")
        return table
