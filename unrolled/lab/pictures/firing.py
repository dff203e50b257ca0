"""Neurons firing over text, coloured character by character (Karpathy, Johnson & Fei-Fei 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from ...backends.steps import Array
from ...errors import InputError
from ...network import Trace
from .canvas import MARKS, GivenAxes, heat_map, luminance, panels, visible
from .readings import Reading, labels_of
from .scales import Scale, colour_bar, scale_of

_CELL = (0.09, 0.19)  # inches that a character takes: width, height
_EM = 1.62  # size of letters in widths of a cell: one of a monospace font is about 0.6 wide
_LIGHT = 0.18  # the luminance above which black reads better than white (WCAG 2)
_NARROWEST = 3.6  # inches, of a figure, for its title
_SHOWN = 3  # how many units are drawn if none are named


def firing(
    trace: Trace,
    text: str | Sequence[str],
    name: str | None = None,
    units: int | Sequence[int] | None = None,
    *,
    layer: int | None = None,
    direction: int = 0,
    example: int = 1,
    width: int = 80,
    axes: GivenAxes | None = None,
) -> Figure:
    """Write the text that a network read, each character on the colour of a unit's value after it.

    Lines break after spaces and at new lines; · is a space, ↵ a new line, → a tab. One scale serves
    all units: 0..1 for a gate, else as wide as their values.

    Args:
        trace: a network's run over the text.
        text: what it read, a text for each step: characters, or the words of a list.
        name: which value to look at, such as `"h"`, `"c"` or `"f"`; the output if None.
        units: one unit or several, counted from one, a panel each; if None the three that vary
            most.
        layer: which layer, counted from one; the last if None.
        direction: 0, or 1 for what reads from the end.
        example: which row of the batch, counted from one.
        width: how many characters a line has at most.
        axes: matplotlib Axes to draw into, one for each unit; a new figure if None.

    Returns:
        The figure; its first axes are the panels, each an image (lines, columns) and, upon it, a
        collection of its characters.

    Raises:
        InputError: if the trace has no such value, place or unit, or text or axes do not fit.
    """
    reading = Reading.of(trace, layer, direction, example)
    cell = trace.network.cell
    name = cell.states[0] if name is None else name
    values = reading.series(name)
    tokens = labels_of(text, len(values), "the text") or []
    if width < 1:
        raise InputError(f"a line has at least one character; found width={width}.")
    numbers = _units(values, units)
    page = _set(tokens, width)
    if not page:
        raise InputError("the text has no characters, only empty tokens.")
    drawn = values[:, [number - 1 for number in numbers]]
    scale = scale_of(cell, name, drawn, least=0)
    lines, columns = page[-1].line + 1, 1 + max(one.column for one in page)
    heights = [0.36 + lines * _CELL[1]] * len(numbers)
    inches = max(1.1 + columns * _CELL[0], _NARROWEST)
    what = f"one for each of the units {', '.join(map(str, numbers))}"
    figure, found, new = panels(axes, heights, 1, inches, what, margin=0.35)
    for ax, number, unit in zip(found, numbers, drawn.T, strict=True):
        image = _write(ax, page, unit, scale)
        ax.set_title(f"{name}, unit {number}", loc="left", fontsize="medium")
    colour_bar(image, scale, found)
    if new:
        figure.suptitle(f"What units of {reading.where} fire at")
    return figure


def _units(values: Array, units: int | Sequence[int] | None) -> list[int]:
    """The numbers of the units to draw, counted from one."""
    count = values.shape[1]
    if units is None:
        return sorted(int(unit) + 1 for unit in np.argsort(-np.std(values, axis=0))[:_SHOWN])
    chosen = [units] if isinstance(units, int | np.integer) else [*units]
    if not chosen or not all(
        isinstance(unit, int | np.integer) and 1 <= unit <= count for unit in chosen
    ):
        raise InputError(
            f"units are whole numbers from 1 to {count}, one or more; found {units!r}."
        )
    return [int(unit) for unit in chosen]


@dataclass(frozen=True)
class _Character:
    """A character on the page.

    Attributes:
        shown: what is written.
        step: the index of the step at which it was read; −1 of a gap between words.
        line: the index of its line.
        column: the index of its place in the line.
    """

    shown: str
    step: int
    line: int
    column: int


def _set(tokens: Sequence[str], width: int) -> list[_Character]:
    """Set a text in lines, with a gap between its tokens if they are words."""
    gap = [(" ", -1)] if any(len(token) > 1 for token in tokens) else []
    raw: list[tuple[str, int]] = []
    for step, token in enumerate(tokens):
        raw += [*(gap if step else []), *((character, step) for character in token)]
    page: list[_Character] = []
    line = start = 0
    while start < len(raw):
        end = start + _line_length("".join(character for character, _ in raw[start:]), width)
        for column, (character, step) in enumerate(raw[start:end]):
            page.append(_Character(visible(character) if step >= 0 else "", step, line, column))
        line, start = line + 1, end
    return page


def _line_length(rest: str, width: int) -> int:
    """How many characters the first line of a text takes."""
    head = rest[:width]
    if "\n" in head:
        return head.index("\n") + 1
    if len(rest) <= width:
        return len(rest)
    return head.rfind(" ") + 1 or width


def _write(ax: Axes, page: Sequence[_Character], values: Array, scale: Scale) -> AxesImage:
    lines = page[-1].line + 1
    ground = np.full((lines, 1 + max(one.column for one in page)), np.nan)
    for one in page:
        if one.step >= 0:
            ground[one.line, one.column] = values[one.step]
    colours = scale.colours(ax)
    image = heat_map(ax, ground, colours, scale.norm)
    ax.set_axis_off()
    ax.set_aspect(_CELL[1] / _CELL[0], anchor="NW")
    written = [one for one in page if one.shown.strip()]
    inks = [_ink(colours(scale.norm(values[one.step])), one.shown) for one in written]
    ax.add_collection(
        PathCollection([_glyph(one) for one in written], facecolors=inks, lw=0, snap=False)
    )
    return image


def _ink(ground: Any, shown: str) -> tuple[float, float, float, float]:
    """Black or white, whichever reads better; thin for the marks of white space."""
    grey = 0.0 if luminance(ground) > _LIGHT else 1.0
    return grey, grey, grey, 0.5 if shown in MARKS.values() else 1.0


def _glyph(one: _Character) -> Path:
    """The outline of a character in its cell: shapes scale with the axes, as no font size does."""
    place = Affine2D().scale(_EM, -_EM * _CELL[0] / _CELL[1])
    return _outline(one.shown).transformed(place.translate(one.column + 0.5, one.line + 1.27))


@lru_cache(maxsize=1024)
def _outline(character: str) -> Path:
    """The outline of a character in a monospace font of size 1, from its origin."""
    return TextPath((0, 0), character, size=1, prop=FontProperties(family="monospace"))
