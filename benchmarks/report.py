"""Tables, for the terminal and for the page of the docs alike."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.machine import Machine
from benchmarks.turns import Turns

NOTHING = "–"


@dataclass(frozen=True)
class Settings:
    """How the sections measure.

    Attributes:
        machine: the machine as it was before the first section.
        turns: how competitors take turns.
        cells: the names of those wanted, in small letters; all if empty.
        quick: whether tiny shapes are enough, for a try.
        without: peers that take no part.
        say: told what is measured next.
    """

    machine: Machine
    turns: Turns
    cells: frozenset[str] = frozenset()
    quick: bool = False
    without: frozenset[str] = frozenset()
    say: Callable[[str], None] = print

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Those of the names that are wanted."""
        return [name for name in names if not self.cells or name.lower() in self.cells]


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: what it shows.
        columns: its head; all but `words` hold numbers.
        rows: the texts; those in `**` miss what they should reach.
        words: how many columns at the left hold words.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 2

    def rich(self) -> RichTable:
        """For the terminal."""
        table = RichTable(title=self.title, title_justify="left")
        for place, column in enumerate(self.columns):
            word = place < self.words
            table.add_column(column, justify="left" if word else "right", no_wrap=word)
        for row in self.rows:
            table.add_row(*(_styled(text) for text in row))
        return table

    def markdown(self) -> str:
        """For a page."""
        ruler = ["---"] * self.words + ["---:"] * (len(self.columns) - self.words)
        lines = ["| " + " | ".join(row) + " |" for row in (self.columns, ruler, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines])


def _styled(text: str) -> Text:
    return Text(text.strip("*"), style="bold red" if text.startswith("**") else "")


def microseconds(seconds: float | None) -> str:
    """A time."""
    return NOTHING if seconds is None else _digits(seconds * 1e6)


def ratio(value: float | None, floor: float | None = None, ceiling: float | None = None) -> str:
    """A ratio, with what it should reach beside it."""
    if value is None:
        return NOTHING
    text = _digits(value)
    if floor is not None:
        text = f"{text} of {floor:g}"
        return f"**{text}**" if value < floor else text
    return f"**{text}**" if ceiling is not None and value > ceiling else text


def _digits(value: float) -> str:
    """Three digits, or more where they stand before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def percent(value: float, floor: float | None = None) -> str:
    """A part of one, in percent."""
    return f"**{value:.0%}**" if floor is not None and value < floor else f"{value:.0%}"


def show(tables: Iterable[Table], console: Console) -> None:
    """Print tables."""
    for table in tables:
        console.print(table.rich())


def write(path: Path, section: str, text: str) -> None:
    """Put a section's text into a page, in the place of what stands there between its marks."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    if begin not in page:
        page = f"{page}{begin}\n{end}\n"
    between = re.compile(f"{begin}.*?{end}", re.DOTALL)
    path.write_text(between.sub(lambda _: f"{begin}\n{text}\n{end}", page), encoding="utf-8")
