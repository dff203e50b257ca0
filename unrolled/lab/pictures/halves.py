"""A bidirectional layer's two halves: what came before, and what comes after.

The forward half at step t has read the steps up to t, the backward half those from t to the end
(Schuster & Paliwal 1997).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from ...backends import reference
from ...backends.steps import Array, Ragged
from ...errors import InputError
from ...network import Trace
from .canvas import FromOne, GivenAxes, heat_map, label_steps, panels, visible
from .readings import Reading, index_of, labels_of
from .scales import colour_bar, plain_bar, scale_of

_TITLES = ("forward half → what came before", "backward half ← what comes after")
_DECADES = 4  # how far below the largest norm colours reach
_FRAME = "#e42536"


def halves(
    trace: Trace,
    step: int | None = None,
    *,
    layer: int | None = None,
    example: int = 1,
    labels: str | Sequence[str] | None = None,
    axes: GivenAxes | None = None,
) -> Figure:
    """Draw the outputs of both halves of a layer and, below, what each of them depends on.

    The squares below show, in row t and column s, the norm of the derivative of the half's output
    at step t, the sum of its units over √H, by what the layer read at step s: ‖∂h_t/∂x_s‖. What a
    half has not read yet is empty. In a deep network these are the halves of one layer, and x is
    what that layer reads, in which each step already knows of the whole sequence.

    Args:
        trace: a bidirectional network's run, with all its values kept.
        step: the step to point at, its row in both squares, counted from one; the middle one if
            None.
        layer: which layer, counted from one; the last if None.
        example: which row of the batch, counted from one.
        labels: a text for each step, such as the characters that were read; the steps' numbers,
            counted from one, if None.
        axes: matplotlib Axes to draw into: two above, two below; a new figure if None.

    Returns:
        The figure; its first four axes are the panels, row by row, each with its numbers as an
        image: outputs (units, steps) above, norms (steps, steps) below.

    Raises:
        InputError: if the network reads in one direction only, the trace lacks a value or place,
            or step, labels or axes do not fit.
    """
    forward = Reading.of(trace, layer, 0, example)
    if trace.network.directions != 2:
        raise InputError(
            "only a bidirectional network has two halves; this one reads in one direction. "
            "Network.init(…, bidirectional=True) makes one of both."
        )
    both = (forward, replace(forward, direction=1))
    steps = forward.steps
    chosen = steps // 2 + 1 if step is None else step
    index_of(chosen, steps, "step", whose=f"example {example} of this run")
    texts = labels_of(labels, steps, "labels")
    name = trace.network.cell.states[0]
    outputs = [half.series(name).T for half in both]
    norms = [dependence(half) for half in both]
    side = float(np.clip(1 + 0.15 * steps, 3.2, 6.5))
    words = _word_room(texts)
    figure, found, new = panels(
        axes,
        [0.5 * side, side],
        2,
        2 * side + 1 + words,
        "two above, two below",
        margin=1.15 + 2 * words,
    )
    scale = scale_of(trace.network.cell, name, np.concatenate(outputs))
    norm = _norm(norms)
    for half in (0, 1):
        upper, lower = found[half], found[2 + half]
        image = heat_map(upper, outputs[half], scale.colours(upper), scale.norm)
        square = _square(lower, norms[half], norm, half)
        _point_at(upper, lower, half, chosen, steps, len(outputs[half]))
        upper.set_title(_TITLES[half], loc="left", fontsize="medium")
        lower.set_title(_has_read(half, chosen, steps, texts, side), loc="left", fontsize="medium")
        for axis in (upper.xaxis, lower.xaxis, lower.yaxis):
            label_steps(axis, texts, steps, side - 0.5)
        lower.set_xlabel("input of step s")
    found[0].set_ylabel(f"unit of {name}")
    found[2].set_ylabel("output of step t")
    for right in (found[1], found[3]):  # its rows are those to the left
        right.tick_params(axis="y", labelleft=False)
    colour_bar(image, scale, found[:2])
    plain_bar(square, found[2:]).set_label(rf"$\|\partial {name}_t\,/\,\partial x_s\|$")
    if new:
        figure.suptitle(f"The two halves of {forward.of_layer}")
    return figure


def dependence(half: Reading) -> Array:
    """How much a half's output at step t, in rows, depends on what the layer read, in columns.

    Returns:
        (steps, steps): the norm of the gradient, with respect to what was read at step s, of the
        sum of the output's units at step t over √H.
    """
    trace, steps = half.trace, half.steps
    cell = trace.network.cell
    one = trace.layers[half.layer][half.direction]
    read = [array[:steps, half.example] for array in one.read]
    before = [half.series(f"{name}_prev") for name in cell.states]
    begins = np.zeros(trace.x.shape[:2], bool)
    begins.flat[trace.ragged.places[: trace.ragged.steps.active[0]]] = True
    resets = np.repeat(begins[:steps, [half.example]], steps, axis=1)
    resets[0] = False  # what the row began with is in `before`
    begin = -half.direction  # the first step, or the last one
    again = one.recurrence.forward(  # a row for each output asked about
        [np.repeat(array[:, None], steps, axis=1) for array in read],
        [np.tile(state[begin], (steps, 1)) for state in before],
        Ragged.of(np.full(steps, steps), steps, resets),
        (),
        reference.run,
    )
    dy = np.zeros_like(again.y)
    dy[np.arange(steps), np.arange(steps)] = 1 / np.sqrt(dy.shape[2])
    back = again.backward(dy, [np.zeros_like(state) for state in again.last], reference.run)
    norms: Array = np.linalg.norm(back.x, axis=2).T
    return norms


def _norm(norms: Sequence[Array]) -> LogNorm:
    highest = max(float(np.max(one)) for one in norms) or 1.0
    return LogNorm(highest / 10**_DECADES, highest)


def _square(ax: Axes, norms: Array, norm: LogNorm, half: int) -> AxesImage:
    image = heat_map(ax, np.where(norms > 0, norms, np.nan), colormaps["viridis"], norm)
    ax.set_aspect("equal", anchor="S")  # the layout makes room below for labels where it ends
    ax.yaxis.set_major_locator(FromOne("auto"))
    if len(norms) > 4:  # there is room for words
        x, y = ((0.72, 0.8), (0.28, 0.2))[half]
        ax.text(x, y, "not read yet", transform=ax.transAxes, ha="center", va="center", alpha=0.6)
    return image


def _point_at(upper: Axes, lower: Axes, half: int, step: int, steps: int, units: int) -> None:
    """Frame a step's outputs, and what they depend on."""
    first, count = (step, steps - step + 1) if half else (1, step)
    for ax, corner, width, height in (
        (upper, (step - 0.5, 0.5), 1, units),
        (lower, (first - 0.5, step - 0.5), count, 1),
    ):
        frame = Rectangle(corner, width, height, fill=False, ec=_FRAME, lw=1.8, clip_on=False)
        ax.add_patch(frame)


def _word_room(texts: Sequence[str] | None) -> float:
    """Inches that labels take beside an axis where they are words."""
    longest = max(map(len, texts or [""]))
    return min(0.085 * longest, 2.0) if longest > 1 else 0.0


def _has_read(half: int, step: int, steps: int, texts: Sequence[str] | None, inches: float) -> str:
    """What a half has read at a step, in words that fit above its panel."""
    first, last = (step, steps) if half else (1, step)
    if texts is None:
        those = f"step {first}" if first == last else f"steps {first} to {last}"
        return f"at step {step} it has read {those}"
    gap = " " if any(len(text) > 1 for text in texts) else ""
    read = [visible(text) for text in texts[first - 1 : last]]
    room = int(inches * 13) - 26  # 13 characters an inch, less those around
    whole = len(read)
    while len(read) > 1 and len(gap.join(read)) > room:
        del read[-1 if half else 0]  # what was read first or last … is farthest
    told = gap.join(read)
    if len(read) < whole:
        told = f"{told} …" if half else f"… {told}"
    return f"at step {step} it has read “{told}”".replace("$", r"\$")
