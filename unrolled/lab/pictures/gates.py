"""Gates, candidates and states over time, as heat maps."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser

from ...cell import Cell
from ...errors import InputError
from ...network import Trace
from ...views.latex import latex
from .canvas import GivenAxes, heat_map, label_steps, panels
from .readings import Reading, kept_names, labels_of
from .scales import colour_bar, range_of, scale_of

_LINE_END = r"\\"  # of an equation in LaTeX


def gates(
    trace: Trace,
    names: str | Sequence[str] | None = None,
    *,
    layer: int | None = None,
    direction: int = 0,
    example: int = 1,
    labels: str | Sequence[str] | None = None,
    axes: GivenAxes | None = None,
) -> Figure:
    """Draw named values over time: units from top to bottom, steps from left to right.

    What its equation keeps in 0..1, a gate, goes from dark (closed) to light (open); what has a
    sign is drawn about 0. Neighbours of one scale share a colour bar.

    Args:
        trace: a network's run.
        names: the values to draw, a panel each, from top to bottom. If None, all that the cell's
            equations give and the trace kept: gates, candidates, states.
        layer: which layer, counted from one; the last if None.
        direction: 0, or 1 for what reads from the end.
        example: which row of the batch, counted from one.
        labels: a text for each step, such as the characters that were read; the steps' numbers,
            counted from one, if None.
        axes: matplotlib Axes to draw into, one for each panel; a new figure if None.

    Returns:
        The figure; its first axes are the panels, each with its numbers (units, steps) as an image.

    Raises:
        InputError: if the trace has no such value or place, or labels or axes do not fit.
    """
    reading = Reading.of(trace, layer, direction, example)
    wanted = _default(trace) if names is None else [names] if isinstance(names, str) else [*names]
    if not wanted:
        raise InputError("there is no value to draw: names is empty, or this trace kept none.")
    arrays = [reading.series(name).T for name in wanted]
    steps = reading.steps
    texts = labels_of(labels, steps, "labels")
    width = float(np.clip(2 + 0.16 * steps, 7, 15))
    heights = [float(np.clip(0.35 + 0.07 * len(array), 0.8, 1.9)) for array in arrays]
    figure, found, new = panels(axes, heights, 1, width, f"one for each of {', '.join(wanted)}")
    cell = trace.network.cell
    scales = [scale_of(cell, *drawn) for drawn in zip(wanted, arrays, strict=True)]
    images = []
    for ax, name, array, scale in zip(found, wanted, arrays, scales, strict=True):
        images.append(heat_map(ax, array, scale.colours(ax), scale.norm))
        ax.set_title(_title(cell, name), loc="left", fontsize="medium")
        ax.set_ylabel("unit")
        if ax is not found[-1]:
            ax.tick_params(axis="x", labelbottom=False, length=0)
    label_steps(found[-1].xaxis, texts, steps, width - 1.5)
    found[-1].set_xlabel("step" if texts is None else "what was read at each step")
    for scale, run in groupby(range(len(wanted)), key=lambda panel: scales[panel]):
        among = [*run]
        colour_bar(images[among[0]], scale, [found[panel] for panel in among])
    if new:
        figure.suptitle(f"Gates and states of {reading.where}")
    return figure


def _default(trace: Trace) -> list[str]:
    """What the equations give: gates, then what has a sign, then what may outgrow −1..1."""
    cell = trace.network.cell
    given = [equation.name for equation in cell.equations.equations]
    found = [name for name in kept_names(trace) if name in given]
    ranges = {name: range_of(cell, name) for name in found}
    return sorted(found, key=lambda name: (ranges[name][0] < 0, ranges[name][1]))


def _title(cell: Cell, name: str) -> str:
    """A value's equation if matplotlib can typeset it, else its name."""
    lines = latex(cell.equations).splitlines()[1:-1]
    equations = dict(zip(cell.equations.written_order, lines, strict=True))
    if name not in equations:
        return name
    formula = f"${equations[name].removesuffix(_LINE_END).replace('&', '').strip()}$"
    return formula if _can_be_typeset(formula) else name


@lru_cache(maxsize=256)
def _can_be_typeset(formula: str) -> bool:
    """Whether matplotlib knows all that a formula needs; it knows no case distinction."""
    parser: MathTextParser[Any] = MathTextParser("path")
    try:
        parser.parse(formula)
    except ValueError:
        return False
    return True
