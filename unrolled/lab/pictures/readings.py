"""What pictures read off a trace, with sentences for what is not there.

Arguments count layers and examples from one; a `Reading` holds the indices of the trace's arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...backends.steps import Array
from ...errors import InputError
from ...network import Trace


@dataclass(frozen=True, eq=False)
class Reading:
    """What one direction of one layer did with one example of a run.

    Attributes:
        trace: the run.
        layer: an index, from 0.
        direction: 0, or 1 for what reads from the end.
        example: an index, from 0.
    """

    trace: Trace
    layer: int
    direction: int
    example: int

    @classmethod
    def of(cls, trace: Trace, layer: int | None, direction: int, example: int) -> "Reading":
        """Look at a place, its layer and example counted from one; layer None is the last.

        Raises:
            InputError: if the trace is none, or has no such layer, direction or example, or the
                example no steps.
        """
        if not isinstance(trace, Trace):
            raise InputError(
                "this picture is drawn from a Trace, as network.trace(x) gives (a torch layer's "
                f"trace holds it as .values); found {type(trace).__name__}."
            )
        network = trace.network
        last = network.num_layers
        found = cls(
            trace,
            index_of(last if layer is None else layer, last, "layer"),
            _direction(direction, network.directions),
            index_of(example, trace.x.shape[1], "example"),
        )
        if found.steps == 0:
            raise InputError(f"example {example} of this run has no steps.")
        return found

    @property
    def steps(self) -> int:
        """How many steps the example has."""
        return int(self.trace.lengths[self.example])

    def series(self, name: str) -> Array:
        """One named value over the steps, (steps, size).

        Raises:
            InputError: if the trace has no such value.
        """
        cell = self.trace.network.cell
        if name not in cell.names:
            raise InputError(
                f"cell '{cell.name}' has no value {name}; it has {', '.join(cell.names)}."
            )
        if name not in (kept := kept_names(self.trace)):
            raise InputError(
                f"{name} was not kept; this trace has {', '.join(kept) or 'no values'}. "
                "trace(x) without names= keeps all."
            )
        return self.trace[name, self.layer, self.direction][: self.steps, self.example]

    @property
    def of_layer(self) -> str:
        """The layer in words, as a title says it: `lstm`, and `lstm, layer 2` if there are more."""
        network = self.trace.network
        layer = f", layer {self.layer + 1}" if network.num_layers > 1 else ""
        return f"{network.cell.name}{layer}"

    @property
    def where(self) -> str:
        """The layer in words, and from where it reads if it reads both ways."""
        if self.trace.network.directions == 1:
            return self.of_layer
        return f"{self.of_layer}, reading from the {('start', 'end')[self.direction]}"


def index_of(number: int, count: int, what: str, whose: str = "this run") -> int:
    """The index of one of `count` layers, examples or steps that was counted from one.

    Raises:
        InputError: if there is none of that number.
    """
    if not isinstance(number, int | np.integer) or not 1 <= number <= count:
        several = "s" * (count != 1)
        raise InputError(
            f"{whose} has {count} {what}{several}, counted from one; found {what}={number!r}."
        )
    return int(number) - 1


def _direction(direction: int, count: int) -> int:
    if direction not in range(count):
        known = (
            "has one direction, which is 0"
            if count == 1
            else "has directions 0, and 1 which reads from the end"
        )
        raise InputError(f"this run {known}; found direction={direction!r}.")
    return int(direction)


def kept_names(trace: Trace) -> tuple[str, ...]:
    """The names of the values that a trace kept, in the order of computation."""
    kept = trace.layers[-1][0].values
    return tuple(name for name in trace.network.cell.names if name in kept)


def labels_of(labels: str | Sequence[str] | None, steps: int, what: str) -> list[str] | None:
    """One text for each step.

    Raises:
        InputError: if there are more or fewer.
    """
    if labels is None:
        return None
    found = list(labels)
    if len(found) != steps or not all(isinstance(label, str) for label in found):
        raise InputError(
            f"{what} is one text for each of the {steps} steps that this example has; "
            f"found {len(found)}."
        )
    return found
