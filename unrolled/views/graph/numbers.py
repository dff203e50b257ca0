"""The numbers of a run, as they are told under the pointer."""

from dataclasses import dataclass

from ...backends.steps import Array
from ...errors import InputError
from ...network import Gradients, Trace

_SHOWN = 12  # so many units of a value are told
Step = int | str | None


@dataclass(frozen=True, eq=False)
class Numbers:
    """What a run says about one example; layers and steps are counted from one.

    Attributes:
        trace: the run.
        gradients: its gradients, if they are to be told.
        example: which row of the batch, counted from one.
    """

    trace: Trace
    gradients: Gradients | None
    example: int

    @classmethod
    def of(cls, source: Trace | Gradients, example: int) -> "Numbers":
        """The numbers of a trace, or of gradients.

        Raises:
            InputError: if the batch has no such example.
        """
        trace = source.trace if isinstance(source, Gradients) else source
        batch = trace.x.shape[1]
        if not 1 <= example <= batch:
            raise InputError(
                f"the examples of this run are counted from 1 to {batch}; found example={example}."
            )
        return cls(trace, source if isinstance(source, Gradients) else None, example)

    @property
    def length(self) -> int:
        """How many steps the example has."""
        return int(self.trace.lengths[self.example - 1])

    def ended(self, step: Step) -> bool:
        """Whether the example ends before a step."""
        return isinstance(step, int) and step > self.length

    def starts_anew(self, step: Step) -> bool:
        """Whether a reset stands before a step, so that no state reaches it from before."""
        ragged = self.trace.ragged
        begun = ragged.steps.active[0]
        starts = ragged.places[:begun] // self.trace.x.shape[1] + 1
        mine = ragged.rows[:begun] == self.example - 1
        return bool(((starts == step) & mine).any()) and step != 1

    def value(self, name: str, layer: int, direction: int, step: Step) -> str:
        """A named value; step 0 of a state is what the direction begins with."""
        if step == 0:
            name, step = f"{name}_prev", self.length if direction else 1
        return self._named(self.trace, name, layer, direction, step)

    def gradient(self, name: str, layer: int, direction: int, step: Step) -> str:
        """The gradient with respect to a named value."""
        return self._named(self.gradients, name, layer, direction, step)

    def last_gradient(self, position: int, layer: int, direction: int) -> str:
        """The gradient with respect to the last value of a state, as it was given; "" if none."""
        if self.gradients is None:
            return ""
        rows = self.gradients.layers[layer - 1][direction].last[position]
        return self._row(rows) if rows.any() else ""

    def read(self, layer: int, step: Step) -> str:
        """What a layer reads."""
        trace = self.trace
        if layer == 1:
            return self._at(trace.x, step)
        return self._joined([one.y for one in trace.layers[layer - 2]], step)

    def read_gradient(self, layer: int, step: Step) -> str:
        """The gradient with respect to what a layer reads, of all directions together."""
        if self.gradients is None:
            return ""
        first, *others = self.gradients.layers[layer - 1]
        return self._at(sum((one.x for one in others), start=first.x), step)

    def given(self, step: Step) -> str:
        """What the network gives."""
        return self._at(self.trace.y, step)

    def given_gradient(self, step: Step) -> str:
        """The gradient with respect to it."""
        return "" if self.gradients is None else self._at(self.gradients.y, step)

    def _named(
        self, source: Trace | Gradients | None, name: str, layer: int, direction: int, step: Step
    ) -> str:
        if source is None:
            return ""
        try:
            return self._at(source[name, layer - 1, direction], step)
        except KeyError:
            return "not kept in this trace"

    def _joined(self, parts: list[Array], step: Step) -> str:
        if not isinstance(step, int) or self.ended(step):
            return self._at(parts[0], step)
        return _vector([float(v) for part in parts for v in part[step - 1, self.example - 1]])

    def _at(self, array: Array, step: Step) -> str:
        if not isinstance(step, int):
            return ""
        if self.ended(step):
            return f"example {self.example} ends with step {self.length}"
        return self._row(array[step - 1])

    def _row(self, rows: Array) -> str:
        return _vector([float(value) for value in rows[self.example - 1]])


def _vector(values: list[float]) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:_SHOWN])
    more = ", …" if len(values) > _SHOWN else ""
    return f"({len(values)},): {shown}{more}"
