"""The arrows of an unrolled graph: what flows along each, from where to where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .grid import Column, Grid
from .names import Name
from .numbers import Numbers
from .svg import Point

Step = int | str
_TIP = 2.5  # a head stops so far before what it points to


@dataclass(frozen=True)
class Arrow:
    """One arrow.

    Attributes:
        kind: state, input (of any layer), output, join (into what both directions give), feedback.
        name: the value that flows along it.
        number: the column that it is counted to.
        layer: counted from one.
        direction: 0, or 1 for the one that reads from the end.
        points: its way.
        told: what it says under the pointer.
        label: where its name is written, None if it is not.
        gradient: name of what flows back along it, and what that says; None if nothing does.
        cut: whether a reset keeps back what would flow along it.
    """

    kind: str
    name: Name
    number: int
    layer: int
    direction: int
    points: tuple[Point, ...]
    told: str
    label: Point | None = None
    gradient: tuple[Name, str] | None = None
    cut: bool = False


@dataclass(frozen=True, eq=False)
class Arrows:
    """All arrows of a graph.

    Attributes:
        grid: where things stand.
        numbers: the runs whose numbers are told, one for each part, or none.
    """

    grid: Grid
    numbers: Sequence[Numbers]

    def __iter__(self) -> Iterator[Arrow]:
        unrolling = self.grid.unrolling
        for layer in range(1, unrolling.layers + 1):
            for column in self.grid.columns:
                yield from self._inputs(column, layer)
                yield from self._outputs(column, layer)
            for direction in range(unrolling.directions):
                for state in range(len(unrolling.cell.states)):
                    yield from self._states(layer, direction, state)
        for number in unrolling.feedback:
            yield self._feedback(self.grid.columns[number - 1])

    def name(
        self,
        value: str,
        column: Column,
        layer: int = 0,
        direction: int | None = None,
        step: int | str | None = None,
    ) -> Name:
        """The name of a value: with its layer and direction only where there are several."""
        unrolling = self.grid.unrolling
        return Name(
            value,
            column.step if step is None else step,
            layer if layer and unrolling.layers > 1 else None,
            direction if unrolling.directions == 2 else None,
            unrolling.parts[column.part][0] if unrolling.parts else "",
        )

    def run(self, column: Column) -> Numbers | None:
        """The run whose numbers a column tells."""
        return self.numbers[column.part] if self.numbers else None

    def _inputs(self, column: Column, layer: int) -> Iterator[Arrow]:
        """What a layer reads, an arrow for each direction."""
        grid, unrolling, run = self.grid, self.grid.unrolling, self.run(column)
        letter = unrolling.cell.equations.inputs[0]
        below = layer - 1
        if not below and unrolling.inputs[column.number - 1] is None:
            return
        name = self.name(letter, column, layer if below else 0)
        what = f"{name}: what layer {layer} reads" if below else f"{name}: the input"
        if not below and unrolling.inputs[column.number - 1]:
            what += f", {unrolling.inputs[column.number - 1]!r}"
        told = lines(what, run and run.read(layer, column.step))
        back = name.of_gradient()
        gradient = (
            back,
            lines(f"{back}: its gradient", run and run.read_gradient(layer, column.step)),
        )
        for direction in range(unrolling.directions):
            box = grid.box(column.number, layer, direction)
            x = grid.x[column.number - 1]
            if not below:
                start = grid.foot
            elif unrolling.directions == 2:
                start = grid.join(column.number, below).y - 1
            else:
                start = grid.box(column.number, below, 0).y - 1
            end = (box.center[0], box.bottom + _TIP)
            points: tuple[Point, ...] = ((x, start), end)
            if unrolling.directions == 2:
                turn = grid.split(layer)
                points = ((x, start), (x, turn), (end[0], turn), end)
            yield Arrow(
                "input", name, column.number, layer, direction, points, told, None, gradient
            )

    def _outputs(self, column: Column, layer: int) -> Iterator[Arrow]:
        """What the last layer gives, and what two directions give to be put side by side."""
        grid, unrolling, run = self.grid, self.grid.unrolling, self.run(column)
        top = layer == unrolling.layers
        if top and unrolling.outputs[column.number - 1] is None:
            return
        start = grid.box(column.number, layer, 0).y
        if unrolling.directions == 2:
            join = grid.join(column.number, layer)
            start = join.y
            for direction in range(2):
                yield self._half(column, layer, direction)
        if not top:
            return
        name = self.name(unrolling.output, column)
        words = unrolling.outputs[column.number - 1]
        what = f"{name}: the output" + (f", {words!r}" if words else "")
        back = name.of_gradient()
        x = grid.x[column.number - 1]
        yield Arrow(
            "output", name, column.number, layer, 0, ((x, start - 1), (x, grid.head)),
            lines(what, run and run.given(column.step)), None,
            (back, lines(f"{back}: its gradient", run and run.given_gradient(column.step))),
        )  # fmt: skip

    def _half(self, column: Column, layer: int, direction: int) -> Arrow:
        grid, run = self.grid, self.run(column)
        box, join = grid.box(column.number, layer, direction), grid.join(column.number, layer)
        x, y = box.center[0], join.center[1]
        edge = join.right + _TIP if direction else join.x - _TIP
        state = grid.unrolling.cell.states[0]
        name = self.name(state, column, layer, direction)
        told = lines(
            f"{name}: what {_reading(direction)} gives",
            run and run.value(state, layer, direction, column.step),
        )
        back = name.of_gradient()
        gradient = (back, f"{back}: the output's part of its gradient")
        return Arrow(
            "join", name, column.number, layer, direction, ((x, box.y - 1), (x, y), (edge, y)),
            told, None, gradient,
        )  # fmt: skip

    def _states(self, layer: int, direction: int, state: int) -> Iterator[Arrow]:
        """A state's way through a direction of a layer, from the initial to the last."""
        columns = self.grid.columns
        order = columns[::-1] if direction else columns
        way = _Way(self, layer, direction, state)
        yield way.entering(order[0], 0)
        for before, after in pairwise(order):
            if (before if direction else after).elided:
                yield way.leaving(before, before.before if direction else _next(before.step))
                yield way.entering(after, _next(after.step) if direction else after.before)
            else:
                yield way.between(before, after)
        yield way.leaving(order[-1], None)

    def _feedback(self, column: Column) -> Arrow:
        """An output on its way to the next step's input."""
        grid, unrolling = self.grid, self.grid.unrolling
        x, box = grid.x[column.number - 1], grid.box(column.number, 1, 0)
        beside = box.right + grid.crossing
        reads = unrolling.inputs[column.number] is not None
        target = grid.x[column.number] - (14 if reads else 0)
        high, low = grid.head + 14, grid.foot - 12
        name = self.name(unrolling.output, column)
        points = (
            *((x, high), (beside, high), (beside, low), (target, low)),
            (target, box.bottom + _TIP),
        )
        told = f"{name}: the output, read as the next step's input"
        return Arrow("feedback", name, column.number, 1, 0, points, told)


@dataclass(frozen=True, eq=False)
class _Way:
    """The way of one state through one direction of one layer."""

    arrows: Arrows
    layer: int
    direction: int
    state: int

    @property
    def value(self) -> str:
        return self.arrows.grid.unrolling.cell.states[self.state]

    @property
    def sign(self) -> int:
        return -1 if self.direction else 1

    def entering(self, after: Column, carried: Step) -> Arrow:
        """From nowhere that is drawn: the initial state, or one from steps that are left out."""
        end = self._edge(after, -1) - self.sign * _TIP
        start = end - self.sign * (self.arrows.grid.gap - 14)
        return self._arrow(after, carried, start, end, (after, after.step), start)

    def leaving(self, before: Column, reader: Step | None) -> Arrow:
        """To nowhere that is drawn: the last state (read at no step), or to steps left out."""
        start = self._edge(before, 1) + self.sign
        end = start + self.sign * (self.arrows.grid.gap - 14)
        reads = None if reader is None else (before, reader)
        return self._arrow(before, before.step, start, end, reads, self._free(start))

    def between(self, before: Column, after: Column) -> Arrow:
        """From one step to the next."""
        start = self._edge(before, 1) + self.sign
        end = self._edge(after, -1) - self.sign * _TIP
        reader = (after, after.step)
        arrow = self._arrow(before, before.step, start, end, reader, self._free(start))
        later = before if self.direction else after
        run = self.arrows.run(later)
        if later.opens or run is None or not run.starts_anew(later.step):
            return arrow
        told = lines(arrow.told, f"cut by a reset before step {later.step}")
        return replace(arrow, told=told, gradient=None, cut=True)

    def _edge(self, column: Column, side: int) -> float:
        """The edge of a box at which its state leaves (1) or enters (-1)."""
        box = self.arrows.grid.box(column.number, self.layer, self.direction)
        return box.right if side * self.sign > 0 else box.x

    def _free(self, start: float) -> float:
        """Where nothing crosses any more."""
        return start + self.sign * self.arrows.grid.beside

    def _arrow(
        self,
        owner: Column,
        carried: Step,
        start: float,
        end: float,
        reader: tuple[Column, Step] | None,
        free: float,
    ) -> Arrow:
        arrows, layer, direction, value = self.arrows, self.layer, self.direction, self.value
        box = arrows.grid.box(owner.number, layer, direction)
        y = arrows.grid.lane(box, self.state)
        name = arrows.name(value, owner, layer, direction, carried)
        when = "before the first step" if carried == 0 else f"after step {carried}"
        run = arrows.run(owner)
        number = run and run.value(value, layer, direction, carried)
        label = ((free + end - self.sign * 6) / 2, y - 7)
        return Arrow(
            "state", name, owner.number, layer, direction, ((start, y), (end, y)),
            lines(f"{name}: state {value} {when}", number), label, self._gradient(owner, reader),
        )  # fmt: skip

    def _gradient(
        self, owner: Column, reader: tuple[Column, Step] | None
    ) -> tuple[Name, str] | None:
        """What the step that reads a state hands back along the arrow."""
        arrows, layer, direction = self.arrows, self.layer, self.direction
        if reader is None:
            run = arrows.run(owner)
            number = run and run.last_gradient(self.state, layer, direction)
            name = arrows.name(f"d{self.value}_last", owner, layer, direction)
            return (name, lines(f"{name}: given from outside", number)) if number else None
        column, step = reader
        run, value = arrows.run(column), f"{self.value}_prev"
        if run is not None and run.ended(step):
            return None
        name = arrows.name(f"d{value}", column, layer, direction, step)
        number = run and run.gradient(value, layer, direction, step)
        return name, lines(f"{name}: what step {step} hands back of the gradient", number)


def _next(step: Step) -> Step:
    return step + 1 if isinstance(step, int) else f"{step}+1"


def _reading(direction: int) -> str:
    return "the direction that reads from the end" if direction else "the forward direction"


def lines(*texts: object) -> str:
    """Those that say something, each on a line."""
    return "\n".join(str(text) for text in texts if text)
