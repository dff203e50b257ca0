"""Where the parts of an unrolled graph stand: columns are steps, rows are layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .names import Name
from .svg import Point, Rect, text_width
from .unrolling import Unrolling

MARGIN = 16
BESIDE = 8  # a gradient's arrow runs so far beside that of its value
_CHIP = 22  # height of a gate
_GAP = 5  # between gates
_ROW = 150  # gates fill rows of this width
_CROSSING = 22  # a line that passes a box keeps this distance
_STUB = 42  # length of an arrow upwards
_JOIN = 22  # height of the pill that joins two directions


@dataclass(frozen=True)
class Column:
    """One step as it is drawn.

    Attributes:
        number: its place from the left, counted from one.
        part: the number of its part, from zero.
        step: its step within its part, counted from one, or the letter of the last step.
        before: the step before it, and what the state between them is called.
        opens: whether it is the first of its part.
        elided: whether "…" stands before it.
    """

    number: int
    part: int
    step: int | str
    before: int | str
    opens: bool
    elided: bool


def columns_of(unrolling: Unrolling) -> tuple[Column, ...]:
    """The steps that are drawn."""
    counts = [count for _, count in unrolling.parts] or [unrolling.steps]
    found: list[Column] = []
    for part, count in enumerate(counts):
        for number in range(1, count + 1):
            step: int | str = number
            elided = unrolling.total is not None and number == count
            if elided and unrolling.total is not None:
                step = unrolling.total
            before = step - 1 if isinstance(step, int) else f"{step}−1"
            found.append(Column(len(found) + 1, part, step, before, number == 1, elided))
    return tuple(found)


class Grid:
    """Sizes and places.

    Args:
        unrolling: what is drawn.
        gradient: whether gradients' arrows are drawn beside the others.
    """

    def __init__(self, unrolling: Unrolling, gradient: bool) -> None:
        self.unrolling = unrolling
        self.gradient = gradient
        self.columns = columns_of(unrolling)
        self.two = unrolling.directions == 2
        self.chips = _rows_of_gates(gates_of(unrolling))
        rows = [sum(w for _, w in row) + _GAP * (len(row) - 1) for row in self.chips]
        states = len(unrolling.cell.states)
        name = min(text_width(unrolling.cell.name, 12), 130)
        self.width = max(92, name + 20, *(row + 26 for row in rows))
        lanes = 34 * (states + 1) if states > 1 else 0
        self.height = max(58, lanes, 34 + (_CHIP + _GAP) * len(rows) if rows else 0)
        self.shift = self.width / 4 + _CROSSING / 2 if self.two else 0.0
        self._place_columns()
        self._place_rows()

    def _place_columns(self) -> None:
        unrolling, gradient = self.unrolling, self.gradient
        layer = unrolling.layers if unrolling.layers > 1 else None
        label = max(
            text_width(Name(state, 1, None, 1 if self.two else None).letter, 16)
            + text_width(Name(state, self.columns[-1].before, layer).place, 11)
            for state in unrolling.cell.states
        )
        self.crossing = _CROSSING
        self.beside = _CROSSING + (BESIDE if gradient else 0) + 8 if self._crossed else 0
        self.gap = max(66, label + 34 + self.beside)
        x = MARGIN + self.gap + self.width / 2 + self.shift
        self.x: list[float] = []
        for column in self.columns:
            if column.number > 1:
                x += self.width + self.gap * (2 if column.elided else 1)
                x += 26 if column.opens else 0
            self.x.append(x)
        self.total_width = x + self.shift + self.width / 2 + self.gap + MARGIN

    @property
    def _crossed(self) -> bool:
        return self.two or bool(self.unrolling.feedback)

    def _place_rows(self) -> None:
        unrolling = self.unrolling
        self.head = MARGIN + 24.0 if any(w is not None for w in unrolling.outputs) else MARGIN
        y = self.head + _STUB
        self.tops: dict[int, float] = {}
        for layer in range(unrolling.layers, 0, -1):
            self.tops[layer] = y
            y += self.height
            if self.two:
                y += _JOIN + 28 + self.height + 44 + 24
            y += _STUB - 20 if self.two else _STUB + 4
        self.foot = y + (8 if self.two else 0)
        self.step_line = self.foot + 44
        self.part_line = self.step_line + 34
        last = self.part_line if unrolling.parts else self.step_line
        self.total_height = last + MARGIN

    def box(self, column: int, layer: int, direction: int) -> Rect:
        """The cell of a column, counted from one."""
        center = self.x[column - 1] + (self.shift if direction else -self.shift)
        y = self.tops[layer]
        if self.two:
            y += _JOIN + 28 + (0 if direction else self.height + 44)
        return Rect(center - self.width / 2, y, self.width, self.height)

    def join(self, column: int, layer: int) -> Rect:
        """Where the two directions of a layer are put side by side."""
        return Rect(self.x[column - 1] - 24, self.tops[layer], 48, _JOIN)

    def split(self, layer: int) -> float:
        """The height at which what a layer reads parts into its two directions."""
        return self.box(1, layer, 0).bottom + 26

    def lane(self, box: Rect, state: int) -> float:
        """The height of a state's arrow: the first state is the lowest."""
        count = len(self.unrolling.cell.states)
        lift = BESIDE / 2 if self.gradient else 0
        return box.y + box.height * (count - state) / (count + 1) - lift

    @cached_property
    def stack(self) -> tuple[float, float]:
        """Upper and lower edge of all cells."""
        return self.tops[self.unrolling.layers], self.box(1, 1, 0).bottom


def gates_of(unrolling: Unrolling) -> tuple[str, ...]:
    """The named values of a step that are no states."""
    equations = unrolling.cell.equations
    by_order = (name for name in equations.written_order if name not in equations.states)
    return tuple(by_order)


def _rows_of_gates(names: Sequence[str]) -> list[list[tuple[str, float]]]:
    """The gates, with their widths, in rows that are not too wide."""
    rows: list[list[tuple[str, float]]] = []
    used = 0.0
    for name in names:
        width = max(24, text_width(name, 14) + 12)
        if not rows or used + width > _ROW:
            rows.append([])
            used = 0
        rows[-1].append((name, width))
        used += width + _GAP
    return rows


def chips(grid: Grid, box: Rect) -> list[tuple[str, Rect]]:
    """The gates of a cell and their places in its box."""
    found = []
    high = len(grid.chips) * (_CHIP + _GAP) - _GAP
    y = box.y + 22 + (box.height - 28 - high) / 2
    for row in grid.chips:
        x = box.center[0] - (sum(width for _, width in row) + _GAP * (len(row) - 1)) / 2
        for name, width in row:
            found.append((name, Rect(x, y, width, _CHIP)))
            x += width + _GAP
        y += _CHIP + _GAP
    return found


def beside(points: Sequence[Point]) -> list[Point]:
    """The way back, at the right of a way up and below one to the side; ends stay at the boxes."""
    moved = [(x + BESIDE, y + BESIDE) for x, y in points]
    for end, inner in ((0, 1), (-1, -2)):
        vertical = points[end][0] == points[inner][0]
        x, y = moved[end]
        moved[end] = (x, points[end][1]) if vertical else (points[end][0], y)
    return moved[::-1]
