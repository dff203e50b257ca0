"""What networks remember: how much each earlier step still moves one output.

In backpropagation through time the gradient passes through the derivative of every step between.
Where those shrink it, it vanishes (Hochreiter 1991; Bengio, Simard & Frasconi 1994); where they
stretch it, it explodes (Pascanu, Mikolov & Bengio 2013).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import ColorType

from ...backends.steps import Array
from ...cell import Cell
from ...cells import gru, lstm, simple
from ...errors import InputError
from ...network import Network, Trace
from .canvas import GivenAxes, panels
from .readings import Reading

Filled = tuple[Cell, Mapping[str, float]]
Subject = Cell | Filled | Network | Trace
DEFAULT: Mapping[str, Subject] = {
    "simple RNN": simple,
    "GRU": gru,
    "LSTM": lstm,
    "LSTM, forget bias 1": (lstm, {"b.f": 1}),
    "LSTM, forget bias 3": (lstm, {"b.f": 3}),
}
RADII = (0.5, 1.0, 3.0)
_COLOURS = color_sequences["petroff10"]  # told apart by the colour-blind, on any ground
_LOWEST = 1e-10  # what the axis shows at least: less is nothing, to an optimiser


def memory(
    subjects: Subject | Sequence[Subject] | Mapping[str, Subject] = DEFAULT,
    *,
    radius: float | Sequence[float | None] | None = RADII,
    name: str | None = None,
    layer: int | None = None,
    direction: int = 0,
    length: int = 50,
    input_size: int = 8,
    hidden_size: int | Mapping[str, int] = 32,
    draws: int = 10,
    rng: np.random.Generator | int | None = 0,
    axes: GivenAxes | None = None,
) -> Figure:
    """Draw the norm of the gradient of the last output with respect to each earlier step.

    The output is the sum of its units; the norm is drawn relative to its median at the last step
    that moves the output, on an axis of powers of ten. Lines are medians, bands the middle half: of
    several draws of a cell, of several random sequences that a network reads, or of the examples of
    a trace. A line that falls to the left forgets: the gradient vanishes; one that rises explodes.

    Args:
        subjects: what to compare, one or several, or label → subject. A cell is drawn anew `draws`
            times as `Cell.init` draws; a pair `(lstm, {"b.f": 1})` is a cell some of whose blocks
            are filled with a number: a forget bias of 1 (Gers, Schmidhuber & Cummins 2000;
            Jozefowicz, Zaremba & Sutskever 2015). A `Network`, such as a trained one, reads `draws`
            random sequences, and a `Trace` shows what the network read. By default a simple RNN, a
            GRU, and an LSTM with forget biases of about 0, 1 and 3.
        radius: the spectral radius to which drawn cells' recurrent matrices are scaled, each; a
            panel for each radius if several; None leaves them as drawn.
        name: the gradient's other end: None is the input of the network, `"h"` or `"c"` that value.
        layer: the layer of that value, counted from one; the last if None.
        direction: the direction of that value: 0, or 1 for what reads from the end.
        length: T, of random sequences; their numbers are normal with variance 1.
        input_size: I, of drawn cells.
        hidden_size: H, of drawn cells, as `Cell.bind` takes it.
        draws: how many cells or random sequences.
        rng: a generator, or a seed for one.
        axes: matplotlib Axes to draw into, one for each radius; a new figure if None.

    Returns:
        The figure; each panel has a line with its label, and a band, for each subject.

    Raises:
        InputError: if a subject is none of these, or an argument does not fit.
    """
    named = _labelled(subjects)
    if length < 1 or draws < 1:
        raise InputError(f"length and draws are at least 1; found {length} and {draws}.")
    drawn = any(isinstance(subject, Cell | tuple) for subject in named.values())
    radii = _radii(radius) if drawn else [None]
    seeds = np.random.default_rng(rng).integers(2**62, size=draws).tolist()
    width = 1.0 + 3.2 * len(radii) + (2.2 if len(radii) == 1 else 0)
    figure, found, new = panels(axes, [3.5], len(radii), width, "one for each radius")
    curves: list[Array] = []
    for ax, one in zip(found, radii, strict=True):
        for position, (label, subject) in enumerate(named.items()):
            traces = _traces(subject, one, seeds, (length, input_size, hidden_size), name)
            rows = [row for trace in traces for row in _norms(trace, name, layer, direction)]
            curves.append(_curves(rows, name))
            _draw(ax, curves[-1], label, _COLOURS[position % len(_COLOURS)])
        _describe(ax, one, drawn)
    _share_scale(found, curves)
    found[0].set_ylabel(rf"$\|\partial y_T\,/\,\partial {name or 'x'}_t\|$, last step = 1")
    if new:
        figure.suptitle("How much each earlier step still moves the last output")
        handles, labels = found[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    else:
        found[0].legend(frameon=False)
    return figure


def _labelled(subjects: Any) -> dict[str, Subject]:
    """Label → subject, whichever way they were given."""
    if isinstance(subjects, Mapping):
        named = list(subjects.items())
    elif isinstance(subjects, Sequence) and not _is_subject(subjects):
        named = [(_label(one), one) for one in subjects]
    else:
        named = [(_label(subjects), subjects)]
    wrong = [type(one).__name__ for _, one in named if not _is_subject(one)]
    if wrong or not named:
        raise InputError(
            "memory compares cells, pairs such as (lstm, {'b.f': 1}), networks and traces, one or "
            f"more; found {', '.join(wrong) or 'none'}."
        )
    labels = [label for label, _ in named]
    if len({*labels}) < len(labels):
        raise InputError(
            f"two subjects would have one label: {', '.join(labels)}; give labels with a mapping, "
            'such as {"before": network, "after": trained}.'
        )
    return dict(named)


def _is_subject(one: object) -> bool:
    if isinstance(one, tuple):
        return len(one) == 2 and isinstance(one[0], Cell) and isinstance(one[1], Mapping)
    return isinstance(one, Cell | Network | Trace)


def _label(one: Any) -> str:
    match one:
        case (Cell() as cell, filled):
            return ", ".join([cell.name, *(f"{block} = {n:g}" for block, n in filled.items())])
        case Trace():
            return one.network.cell.name
        case Network():
            return one.cell.name
        case Cell():
            return one.name
        case _:
            return ""  # it is no subject


def _radii(radius: float | Sequence[float | None] | None) -> list[float | None]:
    found = list(radius) if isinstance(radius, Sequence | np.ndarray) else [radius]
    if not found or not all(one is None or 0 < one < np.inf for one in found):
        raise InputError(f"a spectral radius is a number above 0, or None; found {radius!r}.")
    return found


def _traces(
    subject: Subject,
    radius: float | None,
    seeds: Iterable[int],
    sizes: tuple[int, int, int | Mapping[str, int]],
    name: str | None,
) -> Iterator[Trace]:
    """What a subject reads, in one batch or one draw after the other."""
    length, input_size, hidden_size = sizes
    names = () if name is None else (name,)
    if isinstance(subject, Trace):
        yield subject
    elif isinstance(subject, Network):
        width = subject.sizes[0]["I"]
        drawn = [np.random.default_rng(seed).standard_normal((length, width)) for seed in seeds]
        yield subject.trace(np.stack(drawn, axis=1), names=names)
    else:
        cell, filled = subject if isinstance(subject, tuple) else (subject, {})
        for seed in seeds:
            generator = np.random.default_rng(seed)
            params = _drawn(cell, cell.init(input_size, hidden_size, generator), radius, filled)
            x = generator.standard_normal((length, input_size))
            yield Network(cell, ((params,),)).trace(x, names=names)


def _drawn(
    cell: Cell, params: dict[str, Array], radius: float | None, filled: Mapping[str, float]
) -> dict[str, Array]:
    """Parameters with their recurrent weights scaled, and some blocks filled with a number."""
    if unknown := [block for block in filled if block not in params]:
        raise InputError(
            f"cell '{cell.name}' has no parameters {', '.join(unknown)}; "
            f"it has {', '.join(params)}."
        )
    scaled = {}
    for block in cell.recurrent_blocks if radius is not None else ():
        array = params[block]
        if array.ndim == 1 or array.shape[0] == array.shape[1]:
            matrix = np.diag(array) if array.ndim == 1 else array
            scaled[block] = array * (radius / np.max(np.abs(np.linalg.eigvals(matrix))))
    full = {block: np.full_like(params[block], number) for block, number in filled.items()}
    return {**params, **scaled, **full}


def _curves(rows: Sequence[Array], name: str | None) -> Array:
    """Norms relative to their first median that is not 0; NaN where a sequence had not begun."""
    longest = max(map(len, rows), default=0)
    if not longest:
        raise InputError("there are no steps to look back on.")
    found = np.full((len(rows), longest), np.nan)
    for row, norms in zip(found, rows, strict=True):
        row[: len(norms)] = norms
    medians = np.nanmedian(found, axis=0)
    if not np.any(medians > 0):
        raise InputError(
            f"the last output does not depend on {name or 'the input'} of any step; "
            "name= another value."
        )
    relative: Array = found / medians[np.argmax(medians > 0)]
    return relative


def _norms(trace: Trace, name: str | None, layer: int | None, direction: int) -> list[Array]:
    """For each example the norms of the gradient, from its last step back to its first."""
    ends = trace.lengths - 1
    examples = np.flatnonzero(ends >= 0)
    if not len(examples):
        return []
    dy = np.zeros_like(trace.y)
    dy[ends[examples], examples] = 1
    reading = Reading.of(trace, layer, direction, int(examples[0]) + 1)
    if name is not None:
        reading.series(name)  # says what is not there
    gradients = trace.backward(dy)
    wanted = gradients.x if name is None else gradients[name, reading.layer, direction]
    norms: Array = np.linalg.norm(wanted, axis=2)
    return [norms[ends[example] :: -1, example] for example in examples]


def _draw(ax: Axes, curves: Array, label: str, colour: ColorType) -> None:
    low, middle, high = np.nanquantile(curves, [0.25, 0.5, 0.75], axis=0)
    back = -np.arange(curves.shape[1])
    point = "o" if len(back) == 1 else None
    ax.plot(back, middle, color=colour, label=label, lw=2, marker=point, solid_capstyle="round")
    ax.fill_between(back, low, high, color=colour, alpha=0.2, lw=0)


def _describe(ax: Axes, radius: float | None, drawn: bool) -> None:
    ax.set_yscale("log")
    ax.axhline(1, color=ax.xaxis.label.get_color(), lw=0.8, ls=(0, (2, 3)), zorder=0)
    ax.set_xlabel("steps before the output")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    ax.xaxis.set_major_formatter(lambda back, _: f"{abs(back):g}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0.01)
    for word, y in (("explodes ↑", 0.96), ("vanishes ↓", 0.04)):  # where no line ever comes
        ax.annotate(word, (0.97, y), xycoords="axes fraction", ha="right", va="center", alpha=0.7)
    if drawn:
        title = "as drawn" if radius is None else f"spectral radius {radius:g}"
        ax.set_title(title, loc="left", fontsize="medium")


def _share_scale(found: Sequence[Axes], curves: Sequence[Array]) -> None:
    """One axis for all panels; what lies far below can as well be nothing."""
    medians = np.concatenate([np.nanmedian(some, axis=0) for some in curves])
    seen = medians[np.isfinite(medians)]
    for ax in found:
        ax.set_ylim(max(float(np.min(seen)), _LOWEST) / 3, float(np.max(seen)) * 30)
    for ax in found[1:]:
        ax.tick_params(axis="y", labelleft=False)
