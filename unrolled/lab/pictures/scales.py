"""Which colours a value is drawn in: what it can be follows from the cell's equations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, Normalize

from ...backends.steps import Array
from ...cell import Cell
from .canvas import figure_of, is_dark, signed

Range = tuple[float, float]
ANYTHING: Range = (-np.inf, np.inf)
_BAR = 0.13  # inches, the width of a colour bar


@dataclass(frozen=True)
class Scale:
    """The numbers at the ends of a colour bar.

    Attributes:
        low: the lowest number; 0 or −high.
        high: the highest number.
        gate: whether the equation keeps the value between 0, closed, and 1, open.
    """

    low: float
    high: float
    gate: bool = False

    @property
    def norm(self) -> Normalize:
        """From numbers to 0..1."""
        return Normalize(self.low, self.high)

    def colours(self, ax: Axes) -> Colormap:
        """Sequential from 0, diverging about 0; a diverging one is faint at 0 on any ground."""
        if self.low == 0:
            return colormaps["viridis"]
        return colormaps["berlin" if is_dark(ax) else "RdBu_r"]


def scale_of(cell: Cell, name: str, values: Array, least: float = 1.0) -> Scale:
    """The scale of a named value: 0..1 of a gate, else about 0 and as wide as the values need.

    Args:
        cell: whose equations say what the value can be.
        name: the value's name.
        values: those that are drawn.
        least: how wide a scale is at least that is no gate's.
    """
    low, high = range_of(cell, name)
    finite = np.abs(values[np.isfinite(values)])
    widest = max(least, float(np.max(finite, initial=0.0))) or 1.0
    if low >= 0:
        return Scale(0.0, 1.0, gate=True) if high <= 1 else Scale(0.0, widest)
    return Scale(-widest, widest)


def colour_bar(drawn: ScalarMappable, scale: Scale, beside: Sequence[Axes]) -> None:
    """Draw the bar of a scale to the right of some axes."""
    numbers = [scale.low, (scale.low + scale.high) / 2, scale.high]
    names = ["0 closed", "0.5", "1 open"] if scale.gate else [signed(number) for number in numbers]
    plain_bar(drawn, beside).set_ticks(numbers, labels=names)


def plain_bar(drawn: ScalarMappable, beside: Sequence[Axes]) -> Colorbar:
    """Draw a narrow colour bar to the right of some axes."""
    figure = figure_of(beside[0])
    height = sum(ax.get_window_extent().height for ax in beside) / figure.dpi
    bar = figure.colorbar(drawn, ax=beside, aspect=height / _BAR, pad=0.01, panchor=False)
    bar.outline.set_visible(False)
    return bar


def range_of(cell: Cell, name: str) -> Range:
    """The interval in which a named value lies for any input, as far as intervals can tell."""
    found: dict[str | float, Range] = {}
    for instruction in cell.program.instructions:
        rule = _RULES.get(instruction.operation)
        ranges = [
            found.get(a, ANYTHING) if isinstance(a, str) else (a, a) for a in instruction.arguments
        ]
        found[instruction.name] = rule(*ranges) if rule else ANYTHING
    return found.get(name, ANYTHING)


def _product(a: Range, b: Range) -> Range:
    with np.errstate(invalid="ignore"):
        corners = np.nan_to_num(np.outer(a, b), nan=0.0, posinf=np.inf, neginf=-np.inf)
    return float(corners.min()), float(corners.max())


_RULES: dict[str, Callable[..., Range]] = {
    "same": lambda a: a,
    "neg": lambda a: (-a[1], -a[0]),
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "mul": _product,
    "sigmoid": lambda a: (0.0, 1.0),
    "tanh": lambda a: (-1.0, 1.0),
    "relu": lambda a: (max(a[0], 0.0), max(a[1], 0.0)),
    "exp": lambda a: (0.0, np.inf),
    "softplus": lambda a: (0.0, np.inf),
    "abs": lambda a: (0.0, np.inf),
    "sqrt": lambda a: (0.0, np.inf),
}
