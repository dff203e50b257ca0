"""Gates, candidates and states over time, as heat maps."""

from collections.abc import Sequence
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
from .readings import kept_names, labels_of, place, series, where
from .scales import colour_bar, range_of, scale_of


def gates(
    trace: Trace,
    names: str | Sequence[str] | None = None,
    *,
    layer: int = -1,
    direction: int = 0,
    example: int = 0,
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
        layer: which layer; the last by default.
        direction: 0, or 1 for what reads from the end.
        example: which row of the batch.
        labels: a text for each step, such as the characters that were read; the steps' numbers,
            from 0, if None.
        axes: matplotlib Axes to draw into, one for each panel; a new figure if None.

    Returns:
        The figure; its first axes are the panels, each with its numbers (units, steps) as an image.

    Raises:
        InputError: if the trace has no such value or place, or labels or axes do not fit.
    """
    place(trace, layer, direction, example)
    wanted = _default(trace) if names is None else [names] if isinstance(names, str) else [*names]
    if not wanted:
        raise InputError("there is no value to draw: names is empty, or this trace kept none.")
    arrays = [series(trace, name, layer, direction, example).T for name in wanted]
    steps = int(trace.lengths[example])
    texts = labels_of(labels, steps, "labels")
    width = float(np.clip(2 + 0.16 * steps, 7, 15))
    heights = [float(np.clip(0.35 + 0.07 * len(array), 0.8, 1.9)) for array in arrays]
    figure, found, new = panels(axes, heights, 1, width, f"one for each of {', '.join(wanted)}")
    cell = trace.network.cell
    scales = [scale_of(cell, *drawn) for drawn in zip(wanted, arrays, strict=True)]
    formulas = _formulas(cell)
    images = []
    for ax, name, array, scale in zip(found, wanted, arrays, scales, strict=True):
        images.append(heat_map(ax, array, scale.colours(ax), scale.norm))
        ax.set_title(formulas.get(name, name), loc="left", fontsize="medium")
        ax.set_ylabel("unit")
        if ax is not found[-1]:
            ax.tick_params(axis="x", labelbottom=False, length=0)
    label_steps(found[-1].xaxis, texts, steps, width - 1.5)
    found[-1].set_xlabel("step" if texts is None else "what was read at each step")
    for scale, run in groupby(range(len(wanted)), key=lambda panel: scales[panel]):
        among = [*run]
        colour_bar(images[among[0]], scale, [found[panel] for panel in among])
    if new:
        figure.suptitle(f"Gates and states of {where(trace, layer, direction)}")
    return figure


def _default(trace: Trace) -> list[str]:
    """What the equations give: gates, then what has a sign, then what may outgrow −1..1."""
    cell = trace.network.cell
    given = [equation.name for equation in cell.equations.equations]
    found = [name for name in kept_names(trace) if name in given]
    ranges = {name: range_of(cell, name) for name in found}
    return sorted(found, key=lambda name: (ranges[name][0] < 0, ranges[name][1]))


def _formulas(cell: Cell) -> dict[str, str]:
    """Name → its equation as matplotlib can typeset it; those that it cannot are left out."""
    lines = latex(cell.equations).splitlines()[1:-1]
    parser: MathTextParser[Any] = MathTextParser("path")
    found = {}
    for name, line in zip(cell.equations.written_order, lines, strict=True):
        equation = line.removesuffix(r"\\").replace("&", "").strip()
        formula = f"${equation}$"
        try:
            parser.parse(formula)
        except ValueError:  # such as a case distinction, which matplotlib does not know
            continue
        found[name] = formula
    return found
