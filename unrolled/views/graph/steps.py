"""The unrolled graph: a network written out over its steps, as SVG."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from ...cell import Cell
from ...errors import InputError
from ...network import Gradients, Network, Trace
from . import svg
from .arrows import Arrow, Arrows, lines
from .grid import Column, Grid, beside, chips
from .names import Highlight, Name, Wanted
from .numbers import Numbers
from .svg import Point, Rect, Svg
from .unrolling import Unrolling, Words

Source = Trace | Gradients


def unrolled_graph(
    what: Cell | Network | Trace | Gradients | Unrolling,
    length: int | None = None,
    *,
    values: Source | Sequence[Source] | None = None,
    example: int = 1,
    gradient: bool = False,
    highlight: Highlight = (),
    name: str = "graph",
) -> Svg:
    """Draw a network written out over its steps.

    Each box, gate and arrow says under the pointer what it is, and of a run its numbers. It is a
    group with an id and with `data-kind` (cell, gate, state, input, output, join, feedback, or
    gradient), `data-name`, `data-step`, `data-layer` and `data-direction`; steps and layers are
    counted from one, direction 1 reads from the end, and parts have `data-part`.

    Args:
        what: a cell (one layer of it), a network, a run, the gradients of a run, or an `Unrolling`
            such as the types of networks are.
        length: how many steps are drawn, as in `Unrolling.of`, which reads everything but an
            `Unrolling`.
        values: of an `Unrolling`, the run whose numbers are told, or one for each of its parts.
        example: the row of the batch whose numbers are told, counted from one.
        gradient: whether the arrows of the gradients are drawn beside those of the values, back
            through time. Always so for `Gradients`.
        highlight: a step (3), a name in the field's notation (`"h<3>"`, `"→c[2]<3>"`;
            `"dh_prev<3>"` for a gradient's arrow; `"h"` for all of them), or several of these.
        name: what the ids begin with; give two drawings on one page two names.

    Raises:
        InputError: if arguments do not fit together, or nothing drawn is what shall be highlighted.
    """
    if isinstance(what, Trace | Gradients):
        if values is not None:
            raise InputError(
                "a run brings its own numbers: leave values= out, or give an Unrolling."
            )
        values = what
    source = what.trace if isinstance(what, Gradients) else what
    if isinstance(source, Unrolling):
        if length is not None:
            raise InputError("an Unrolling says how long it is: leave length= out.")
        unrolling = source
    else:
        unrolling = Unrolling.of(source, length)
    several = [values] if isinstance(values, Trace | Gradients) else list(values or ())
    numbers = [Numbers.of(one, example) for one in several]
    _check(unrolling, numbers)
    gradient = gradient or any(one.gradients is not None for one in numbers)
    arrows = Arrows(Grid(unrolling, gradient), numbers)
    return _Painting(arrows, gradient, Wanted(highlight), name).drawn()


def _check(unrolling: Unrolling, numbers: Sequence[Numbers]) -> None:
    """Whether the runs are runs of what is drawn."""
    parts = unrolling.parts or (("", unrolling.steps),)
    if numbers and len(numbers) != len(parts):
        raise InputError(
            f"values= is one run for each of the {len(parts)} parts; found {len(numbers)}."
        )
    for one, (part, count) in zip(numbers, parts, strict=False):
        network = one.trace.network
        found = (network.cell, network.num_layers, network.directions)
        if found != (unrolling.cell, unrolling.layers, unrolling.directions):
            of = f" of the {part}" if part else ""
            raise InputError(
                f"the run{of} is one of cell '{unrolling.cell.name}' with {unrolling.layers} "
                f"layers and {unrolling.directions} directions; found '{network.cell.name}' with "
                f"{network.num_layers} and {network.directions}."
            )
        if len(one.trace.x) < count:
            raise InputError(f"{count} steps are drawn; the run has {len(one.trace.x)}.")


class _Painting:
    """Draws what the grid places."""

    def __init__(self, arrows: Arrows, gradient: bool, wanted: Wanted, name: str) -> None:
        self.arrows = arrows
        self.grid = arrows.grid
        self.unrolling = arrows.grid.unrolling
        self.gradient = gradient
        self.wanted = wanted
        self.name = name
        self.names: list[Name] = []

    def drawn(self) -> Svg:
        grid, unrolling = self.grid, self.unrolling
        root = svg.document(self.name, grid.total_width, grid.total_height, *_told(unrolling))
        self._panels(root)
        every, ground = list(self.arrows), svg.group(root, "arrows")
        for arrow in every:
            self._arrow(ground, arrow)
        for arrow in every:
            self._gradient(ground, arrow)
        boxes = svg.group(root, "cells")
        for layer in range(1, unrolling.layers + 1):
            for column in grid.columns:
                for direction in range(unrolling.directions):
                    self._cell(boxes, column, layer, direction)
                self._join(boxes, column, layer)
        self._words(root)
        self.wanted.check(self.names)
        return svg.finished(root)

    def _group(
        self, parent: Element, classes: str, kind: str, name: Name, number: int, layer: int,
        direction: int, told: str,
    ) -> Element:  # fmt: skip
        """What stands for a value: highlighted if wanted, named for people and programs."""
        self.names.append(name)
        mark = self.wanted.mark(name, cell=kind == "cell")
        column = self.grid.columns[number - 1]
        run = self.arrows.run(column)
        classes += " second" * (column.part % 2)
        classes += " ended" * (run is not None and run.ended(column.step))
        part = f"{column.part + 1}-" if self.unrolling.parts else ""
        data = {
            "id": f"{self.name}-{kind}-{name.value}-{layer}-{direction}-{part}{name.step}",
            "data_kind": kind,
            "data_name": name.value,
            "data_step": name.step,
            "data_layer": layer,
            "data_direction": direction,
            **({"data_part": name.part} if self.unrolling.parts else {}),
        }
        return svg.group(parent, classes + mark, told, **data)

    def _arrow(self, parent: Element, arrow: Arrow) -> None:
        colour = {"input": "input" if arrow.layer == 1 else "state", "join": "state"}
        classes = f"arrow {colour.get(arrow.kind, arrow.kind)}" + " cut" * arrow.cut
        place = (arrow.number, arrow.layer, arrow.direction)
        found = self._group(parent, classes, arrow.kind, arrow.name, *place, arrow.told)
        svg.arrow(found, arrow.points)
        if arrow.label is not None:
            svg.symbol(found, arrow.label, arrow.name.letter, arrow.name.place)

    def _gradient(self, parent: Element, arrow: Arrow) -> None:
        if not self.gradient or arrow.gradient is None:
            return
        name, told = arrow.gradient
        place = (arrow.number, arrow.layer, arrow.direction)
        found = self._group(parent, "arrow gradient", "gradient", name, *place, told)
        svg.arrow(found, beside(arrow.points))

    def _cell(self, parent: Element, column: Column, layer: int, direction: int) -> None:
        grid, cell = self.grid, self.unrolling.cell
        place, box = (column.number, layer, direction), grid.box(column.number, layer, direction)
        name = self.arrows.name(cell.name, column, layer, direction)
        told = f"{name}: one step of cell {cell.name}" + ", reading from the end" * direction
        values = [self._told(value, column, layer, direction) for value in cell.names]
        found = self._group(parent, "cell", "cell", name, *place, lines(told, *values))
        svg.box(found, box, 12)
        x, y = box.center
        title = svg.shortened(cell.name, box.width - 12, 12)
        svg.words(found, (x, box.y + 16 if grid.chips else y + 4), title, "small")
        for gate, rect in chips(grid, box):
            value = self.arrows.name(gate, column, layer, direction)
            told = self._told(gate, column, layer, direction)
            chip = self._group(found, "gate", "gate", value, *place, told)
            svg.box(chip, rect, 7)
            svg.symbol(chip, (rect.center[0], rect.bottom - 6), gate)

    def _told(self, value: str, column: Column, layer: int, direction: int) -> str:
        """A named value of a step: its name, its equation, and its numbers."""
        equations = {e.name: str(e) for e in self.unrolling.cell.equations.equations}
        name = self.arrows.name(value, column, layer, direction)
        run = self.arrows.run(column)
        back = ""
        if run is None:
            return f"{name}: {equations[value]}" if value in equations else ""
        if number := run.gradient(value, layer, direction, column.step):
            back = f"{name.of_gradient()} {number}"
        number = run.value(value, layer, direction, column.step)
        return lines(f"{name} {number}", back, equations.get(value, ""))

    def _join(self, parent: Element, column: Column, layer: int) -> None:
        """Where the two directions of a layer are put side by side."""
        unread = self.unrolling.outputs[column.number - 1] is None
        if self.unrolling.directions == 1 or (layer == self.unrolling.layers and unread):
            return
        state = self.unrolling.cell.states[0]
        halves = [self.arrows.name(state, column, layer, direction) for direction in (0, 1)]
        rect = self.grid.join(column.number, layer)
        told = f"{halves[0]} and {halves[1]} side by side"
        found = svg.group(parent, "operation", told, data_kind="side-by-side")
        svg.box(found, rect, 11)
        svg.words(found, (rect.center[0], rect.bottom - 6), "[→ ; ←]", "small")

    def _words(self, root: Element) -> None:
        """What is read and given, the numbers of the steps, "…" and the names of the parts."""
        grid, unrolling = self.grid, self.unrolling
        letter = unrolling.cell.equations.inputs[0]
        found = svg.group(root, "words")
        for column in grid.columns:
            at = grid.x[column.number - 1]
            self._value(found, column, unrolling.inputs, letter, (at, grid.foot + 20))
            self._value(found, column, unrolling.outputs, unrolling.output, (at, grid.head - 8))
            svg.words(found, (at, grid.step_line), f"t = {column.step}", "small")
            if column.elided:
                self._dots(found, column)
        ends = 0
        for part, count in unrolling.parts:
            left, right = grid.x[ends] - grid.width / 2, grid.x[ends + count - 1] + grid.width / 2
            svg.words(found, ((left + right) / 2, grid.part_line), part, "part")
            ends += count

    def _value(
        self, parent: Element, column: Column, all_words: Words, letter: str, at: Point
    ) -> None:
        told = all_words[column.number - 1]
        if told:
            room = self.grid.width + self.grid.gap - 8
            svg.words(parent, at, svg.shortened(svg.visible(told), room, 14), "word")
        elif told == "":
            svg.symbol(parent, at, letter, f"⟨{column.step}⟩")

    def _dots(self, parent: Element, column: Column) -> None:
        """The steps that are left out."""
        grid, unrolling = self.grid, self.unrolling
        for layer in range(1, unrolling.layers + 1):
            for direction in range(unrolling.directions):
                box = grid.box(column.number, layer, direction)
                before = grid.box(column.number - 1, layer, direction)
                for state in range(len(unrolling.cell.states)):
                    at = ((before.right + box.x) / 2, grid.lane(box, state) + 1)
                    svg.words(parent, at, "…")

    def _panels(self, root: Element) -> None:
        """A ground behind each part."""
        grid, first = self.grid, 0
        top, bottom = grid.stack
        for _, count in self.unrolling.parts:
            left = grid.x[first] - grid.width / 2 - 14
            right = grid.x[first + count - 1] + grid.width / 2 + 14
            rect = Rect(left, top - 14, right - left, bottom - top + 28)
            svg.box(root, rect, 18, "panel")
            first += count


def _told(unrolling: Unrolling) -> tuple[str, str]:
    """Title and description of a drawing."""
    name, steps = unrolling.cell.name, unrolling.total or unrolling.steps
    both = ", each reading in both directions" if unrolling.directions == 2 else ""
    layers = "One layer" if unrolling.layers == 1 else f"{unrolling.layers} layers"
    sentences = [f"{layers} of cell {name}{both}, over {steps} steps."]
    for what, words in (("Inputs", unrolling.inputs), ("Outputs", unrolling.outputs)):
        there = [str(step) for step, word in enumerate(words, 1) if word is not None]
        sentences.append(f"{what} at {len(there)} of {len(words)} steps: {', '.join(there)}.")
    if unrolling.feedback:
        fed = ", ".join(map(str, unrolling.feedback))
        sentences.append(f"The outputs of steps {fed} are the inputs of the next.")
    if unrolling.parts:
        parts = " and ".join(f"{part} ({count} steps)" for part, count in unrolling.parts)
        sentences.append(f"Parts: {parts}.")
    return f"{name}, unrolled over {steps} steps", " ".join(sentences)
