"""Where pictures are drawn: a figure that notebooks show without pyplot, or the caller's axes."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.colors import Colormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from ...backends.steps import Array
from ...errors import InputError

GivenAxes = Axes | Sequence[Axes] | Sequence[Sequence[Axes]] | Array
MARKS = {" ": "·", "\n": "↵", "\t": "→"}  # what stands for what no one would see
_SMALLEST, _LARGEST = 5.0, 10.0  # points, of the letters of labels: the first can just be read


class Picture(Figure):
    """A matplotlib figure that shows itself in notebooks, though pyplot knows nothing of it."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def panels(
    axes: GivenAxes | None,
    heights: Sequence[float],
    columns: int,
    width: float,
    what: str,
    margin: float = 0.9,
) -> tuple[Figure, list[Axes], bool]:
    """Axes to draw into: those given, or those of a new picture.

    Args:
        axes: as the caller of a picture gave them.
        heights: of each row of panels, in inches.
        columns: how many panels a row has.
        width: of a new picture, in inches.
        what: what the panels are, for the error.
        margin: inches above and below all rows.

    Returns:
        The figure, its panels row by row, and whether it is new.

    Raises:
        InputError: if the axes are not one for each panel.
    """
    count = len(heights) * columns
    if axes is None:
        figure = Picture(figsize=(width, margin + sum(heights)), layout="constrained")
        grid = figure.subplots(
            len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": [*heights]}
        )
        return figure, list(grid.flat), True
    found = list(np.array(axes, dtype=object).flat)
    if len(found) != count or not all(isinstance(ax, Axes) for ax in found):
        kinds = ", ".join(sorted({type(ax).__name__ for ax in found}))
        raise InputError(
            f"axes= takes {count} matplotlib Axes, {what}; found {len(found)} of {kinds}."
        )
    return figure_of(found[0]), found, False


def figure_of(ax: Axes) -> Figure:
    """The whole figure that axes stand in.

    Raises:
        InputError: if they were taken out of theirs.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        raise InputError("axes= takes Axes that stand in a figure; these were removed from theirs.")
    return figure


class FromOne(MaxNLocator):
    """Ticks of what is counted from one: at 1, 2, 3 … or 1, 3, 5 … or 1, 5, 10 … and so on."""

    def __init__(self, most: int | Literal["auto"]) -> None:
        """Set at most about so many ticks, or as many as the axis has room for."""
        super().__init__(most, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Where ticks stand between two numbers."""
        multiples = np.asarray(super().tick_values(vmin, vmax))
        if len(multiples) > 1 and multiples[1] - multiples[0] == 2:
            multiples = multiples + 1
        found: list[float] = np.unique(np.maximum(multiples, 1)).tolist()
        return found


def heat_map(ax: Axes, array: Array, colours: Colormap, norm: Normalize) -> AxesImage:
    """Draw an array, its first row on top, on axes that count its rows and columns from one."""
    rows, columns = array.shape
    image = ax.imshow(
        array,
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        norm=norm,
        extent=(0.5, columns + 0.5, rows + 0.5, 0.5),
    )
    ax.yaxis.set_major_locator(FromOne(5))
    ax.xaxis.set_major_locator(FromOne("auto"))
    ax.spines[:].set_visible(False)
    return image


def label_steps(axis: Axis, labels: Sequence[str] | None, steps: int, inches: float) -> None:
    """Write what was read along an axis of steps; without labels the steps' numbers stay.

    Words stand upright where they cannot lie side by side. Letters shrink to fit; where even small
    ones do not, every second label is written, or every third …

    Args:
        axis: `ax.xaxis` or `ax.yaxis`, of a heat map.
        labels: a text for each step, or None.
        steps: how many steps there are.
        inches: about how long the axis is.
    """
    if labels is None:
        return
    points = inches / steps * 72
    longest = max(map(len, labels))
    level = isinstance(axis, XAxis)
    lying = points / (0.75 * max(longest, 1))  # the size at which labels fit side by side
    upright = level and longest > 1 and lying < _LARGEST
    room = lying if level and not upright else points / 1.2  # a letter is higher than it is wide
    size = float(np.clip(room, _SMALLEST, _LARGEST))
    every = int(np.ceil(size / room))
    texts = [visible(label) for label in labels][::every]
    axis.set_ticks(range(1, steps + 1, every), texts, parse_math=False)
    axis.set_tick_params(length=0, labelsize=size, labelrotation=90 if upright else 0)


def is_dark(ax: Axes) -> bool:
    """Whether people will see the axes on a dark ground."""
    return luminance(ax.get_facecolor()) < 0.3


def luminance(colour: Any) -> float:
    """How light a colour is, from 0 to 1: its relative luminance (WCAG 2)."""
    channels = np.asarray(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def visible(text: str) -> str:
    """Text with marks for what no one would see: · is a space, ↵ a new line, → a tab."""
    return "".join(MARKS.get(one, one if one.isprintable() else "�") for one in text)


def signed(number: float) -> str:
    """A number with its sign, as short as it can be read: `+0.5`, `−1`, `0`."""
    return f"{number:+.2g}".replace("-", "−") if number else "0"
