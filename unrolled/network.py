"""Deep and bidirectional networks of one cell, in NumPy: each number of them can be looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .backends import reference
from .backends.steps import Array, Ragged
from .cell import Cell
from .errors import InputError
from .recurrence import Back, Params, Pass, Recurrence, Run

Part = TypeVar("Part", Pass, Back)
State = Array | tuple[Array, ...]
Masks = Mapping[str, npt.ArrayLike]  # name of a random value → (B, size) or (T, B, size)


@dataclass(frozen=True, eq=False)
class Network:
    """Layers of a cell, one above the other, each reading in one direction or in both.

    Attributes:
        cell: the equations of every layer; random values have their means, as in evaluation.
        random: the same equations with their random values, which masks can be given for.
        params: `params[layer][direction]` is block → array; direction 1 reads from the end.
        initial: the state of every row before the first step where none is given: an array
            (layers · directions, size) for each state of the cell; zeros if None.

    Raises:
        InputError: if a layer's parameters are missing or do not fit.
    """

    cell: Cell
    params: tuple[tuple[Params, ...], ...]
    initial: State | None = None
    random: Cell = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "random", self.cell)
        object.__setattr__(self, "cell", self.cell.expected)
        directions = {len(layer) for layer in self.params}
        if len(directions) != 1 or not directions <= {1, 2}:
            raise InputError(
                "the parameters of a network are params[layer][direction], with one direction in "
                f"every layer or two in every layer; found {[len(layer) for layer in self.params]}."
            )
        _ = self.sizes

    @classmethod
    def init(
        cls,
        cell: Cell,
        input_size: int,
        hidden_size: int | Mapping[str, int],
        num_layers: int = 1,
        bidirectional: bool = False,
        rng: np.random.Generator | int | None = None,
    ) -> "Network":
        """Draw a network, layer after layer, as `Cell.init` draws.

        Args:
            cell: the equations of every layer.
            input_size: I of the first layer; the others read what the layer below gives.
            hidden_size: as in `Cell.bind`.
            num_layers: how many layers.
            bidirectional: whether each layer also reads the sequence from its end.
            rng: a generator, or a seed for one.
        """
        generator = np.random.default_rng(rng)
        layers = []
        width = input_size
        for _ in range(num_layers):
            directions = range(1 + bidirectional)
            layers.append(tuple(cell.init(width, hidden_size, generator) for _ in directions))
            output = cell.bind(width, hidden_size)[cell.sizes.values[cell.states[0]]]
            width = output * len(directions)
        return cls(cell, tuple(layers))

    @property
    def num_layers(self) -> int:
        """How many layers."""
        return len(self.params)

    @property
    def directions(self) -> int:
        """1, or 2 of a bidirectional network."""
        return len(self.params[0])

    @cached_property
    def sizes(self) -> tuple[dict[str, int], ...]:
        """Letter → number, for each layer."""
        found: list[dict[str, int]] = []
        for layer in self.params:
            width = self._width_into(found[-1] if found else None, layer[0])
            for params in layer:
                sizes = self.cell.sizes_of(width, params)
            found.append(sizes)
        return tuple(found)

    def _width_into(self, below: Mapping[str, int] | None, params: Params) -> int:
        """The size of what a layer reads."""
        if below is not None:
            return below[self.cell.sizes.values[self.cell.states[0]]] * self.directions
        for block, letters in self.cell.sizes.shapes.items():
            if "I" in letters and block in params:
                return int(np.shape(params[block])[letters.index("I")])
        return 1  # no parameter meets the input, or it is missing, which `sizes_of` finds

    def trace(
        self,
        x: npt.ArrayLike,
        state: State | None = None,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
        *,
        masks: Sequence[Masks] | None = None,
        names: Sequence[str] | None = None,
        run: Run = reference.run,
    ) -> "Trace":
        """Run the network over a batch, and keep what can be looked at.

        Args:
            x: (T, B, I), or (T, I) for one sequence, which becomes (T, 1, I).
            state: an array (layers · directions, B, size) for each state of the cell, a tuple if
                there are several, ordered as PyTorch's; `initial` if None.
            lengths: (B,) how many steps of each row count, T if None; the others give zeros.
            resets: (T, B) bool, the rows that start anew from `initial` before each step, whatever
                `state` was given; none if None.
            masks: for each direction of each layer, as they stand in a state, the random values of
                the cell, (B, size) or at every step (T, B, size); and above the first layer perhaps
                what its input is multiplied by, under the input's name. Means if None.
            names: which values to keep; every named one if None. The backward pass needs none.
            run: the `run` of a backend; the reference if None.

        Raises:
            InputError: if an array does not fit.
        """
        x = np.asarray(x)
        x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)
        x = x[:, None] if x.ndim == 2 else x
        if x.ndim != 3 or x.shape[2] != self.sizes[0]["I"]:
            raise InputError(
                f"this network reads an array (T, B, {self.sizes[0]['I']}); found {x.shape}."
            )
        length, batch, _ = x.shape
        counts = np.full(batch, length) if lengths is None else np.asarray(lengths)
        if (
            counts.shape != (batch,)
            or counts.dtype.kind not in "iu"
            or not (np.all(counts >= 0) and np.all(counts <= length))
        ):
            raise InputError(
                f"lengths are {batch} whole numbers from 0 to {length}, one for each row; "
                f"found {lengths!r}."
            )
        names = self.cell.names if names is None else tuple(names)
        if unknown := [name for name in names if name not in self.cell.names]:
            raise InputError(
                f"cell '{self.cell.name}' has no value {', '.join(unknown)}; "
                f"it has {', '.join(self.cell.names)}."
            )
        begins = None if resets is None else np.asarray(resets)
        if begins is not None and (begins.shape != (length, batch) or begins.dtype != bool):
            raise InputError(
                f"resets are truth values of shape (T, B) = {(length, batch)}; found "
                f"{begins.dtype} of shape {begins.shape}."
            )
        ragged = Ragged.of(counts, length, begins)
        layers: list[tuple[Pass, ...]] = []
        below, factors = x, self._factors(masks, x)
        for layer in range(self.num_layers):
            passes = []
            below = below if factors[layer] is None else below * factors[layer]
            for direction in range(self.directions):
                one = self.recurrence(layer, direction, random=masks is not None)
                noise = self._noise(masks, layer, direction, x)
                given = self._given(state, layer, direction, batch, x.dtype)
                if given is None:
                    given = [np.tile(start.astype(x.dtype), (batch, 1)) for start in one.anew]
                passes.append(one.forward([below, *noise], given, ragged, names, run))
            layers.append(tuple(passes))
            below = np.concatenate([one.y for one in passes], axis=2)
        return Trace(self, x, ragged, tuple(layers), below, factors)

    def run(
        self, x: npt.ArrayLike, state: State | None = None, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, State]:
        """Outputs (T, B, size · directions) and last state, of the arguments of `trace`."""
        trace = self.trace(x, state, lengths, names=())
        return trace.y, trace.state

    def recurrence(self, layer: int, direction: int, random: bool = False) -> Recurrence:
        """One direction of one layer; with its random values, or with their means."""
        sizes, params = self.sizes[layer], self.params[layer][direction]
        if self.initial is None:
            widths = (sizes[self.cell.sizes.values[state]] for state in self.cell.states)
            anew = tuple(np.zeros(width) for width in widths)
        else:
            number = layer * self.directions + direction
            anew = tuple(state[number] for state in _several(self.initial))
        cell = self.random if random else self.cell
        return Recurrence(cell, sizes, params, anew, direction == 1)

    def _factors(self, masks: Sequence[Masks] | None, x: Array) -> tuple[Array | None, ...]:
        """What each layer's input is multiplied by, (T, B, width); None if by nothing."""
        count, name = self.num_layers * self.directions, self.cell.equations.inputs[0]
        if masks is None:
            return (None,) * self.num_layers
        if len(masks) != count:
            raise InputError(
                f"masks are a dictionary for each of the {count} layers and directions; "
                f"found {len(masks)}."
            )
        return tuple(
            self._mask(masks[layer * self.directions], name, self.sizes[layer]["I"], x)
            if layer and name in masks[layer * self.directions]
            else None
            for layer in range(self.num_layers)
        )

    def _noise(
        self, masks: Sequence[Masks] | None, layer: int, direction: int, x: Array
    ) -> list[Array]:
        """The random values of one direction of one layer side by side, if it has some."""
        if masks is None or not self.random.draws:
            return []
        given, letters = masks[layer * self.directions + direction], self.random.sizes.values
        parts = [
            self._mask(given, name, self.sizes[layer][letters[name]], x)
            for name in self.random.draws
        ]
        return [np.concatenate(parts, 2)]

    def _mask(self, masks: Masks, name: str, size: int, x: Array) -> Array:
        """A mask at every step, (T, B, size)."""
        shape = (*x.shape[:2], size)
        found = np.asarray(masks.get(name), x.dtype)
        if found.shape not in (shape, shape[1:]):
            raise InputError(
                f"the mask {name} has the shape {shape[1:]} or, at every step, {shape}; "
                f"found {found.shape if name in masks else 'none'}."
            )
        return np.broadcast_to(found, shape)

    def _given(
        self, state: State | None, layer: int, direction: int, batch: int, dtype: npt.DTypeLike
    ) -> list[Array] | None:
        """For each state of the cell (B, size), of one direction of one layer."""
        if state is None:
            return None
        given = _several(state)
        if len(given) != len(self.cell.states):
            raise InputError(
                f"a state is one array for each of {', '.join(self.cell.states)}; "
                f"found {len(given)}."
            )
        found = []
        for name, array in zip(self.cell.states, given, strict=True):
            size = self.sizes[layer][self.cell.sizes.values[name]]
            expected = (self.num_layers * self.directions, batch, size)
            if np.shape(array) != expected:
                raise InputError(
                    f"the state {name} of this network has shape {expected}: (layers · "
                    f"directions, B, size); found {np.shape(array)}."
                )
            found.append(np.asarray(array[layer * self.directions + direction], dtype))
        return found


@dataclass(frozen=True, eq=False)
class Trace:
    """A network's run over a batch, with what was kept of it.

    `trace["c"]` is a value of the last layer, `trace["c", 0]` of the first, and
    `trace["c", 0, 1]` of the first layer's direction that reads from the end: (T, B, size), zero
    where a row has ended.

    Attributes:
        network: what ran.
        x: (T, B, I) what it read.
        ragged: the pieces of the rows, and which took part at which step.
        layers: what each direction of each layer did.
        y: (T, B, size · directions) what the last layer gave.
        factors: (T, B, width) what the input of each layer was multiplied by; None if by nothing.
    """

    network: Network
    x: Array
    ragged: Ragged
    layers: tuple[tuple[Pass, ...], ...]
    y: Array
    factors: tuple[Array | None, ...]

    def __getitem__(self, key: str | tuple[str, int] | tuple[str, int, int]) -> Array:
        name, layer, direction = _place(key)
        values = _at(self.layers, layer, direction).values
        if name not in values:
            raise KeyError(f"{name} was not kept; this trace has {', '.join(values)}.")
        return values[name]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(B,) how many steps of each row were read."""
        found = np.zeros(self.x.shape[1], np.int64)
        np.add.at(found, self.ragged.rows, self.ragged.steps.lengths)
        return found

    @property
    def state(self) -> State:
        """The last state: an array (layers · directions, B, size), or a tuple of several."""
        return _stacked([one.last for layer in self.layers for one in layer])

    def backward(
        self,
        dy: npt.ArrayLike | None = None,
        dstate: State | None = None,
        *,
        run: Run = reference.run,
    ) -> "Gradients":
        """Backpropagation through time, through all layers.

        Args:
            dy: the gradient with respect to `y`, of its shape; zeros if None.
            dstate: the gradient with respect to the last state, of its shape; zeros if None.
            run: the `run` of a backend; the reference if None.

        Returns:
            The gradients with respect to everything that this trace kept, and to the input, the
            parameters and the initial state.
        """
        above = np.zeros_like(self.y) if dy is None else np.asarray(dy, self.y.dtype)
        if above.shape != self.y.shape:
            raise InputError(f"dy has the shape of y, {self.y.shape}; found {above.shape}.")
        network = self.network
        directions = network.directions
        found: list[tuple[Back, ...]] = []
        for layer in reversed(range(network.num_layers)):
            parts = np.split(above, directions, axis=2)
            passes = []
            for direction, one in enumerate(self.layers[layer]):
                final = network._given(dstate, layer, direction, above.shape[1], above.dtype)
                if final is None:
                    final = [np.zeros_like(state) for state in one.last]
                passes.append(one.backward(parts[direction], final, run))
            found.insert(0, tuple(passes))
            above = sum((one.x for one in passes[1:]), start=passes[0].x)
            factor = self.factors[layer]
            above = above if factor is None else above * factor
        return Gradients(self, tuple(found), above)


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradients of a scalar with respect to everything in a trace.

    `gradients["i"]` is the gradient of the named value i; keys are those of the trace. What a
    state's gradient counts: all that the step's value moves, by its own output and by later steps.

    Attributes:
        trace: the run.
        layers: what each direction of each layer did on the way back.
        x: (T, B, I) the gradient with respect to the input.
    """

    trace: Trace
    layers: tuple[tuple[Back, ...], ...]
    x: Array

    def __getitem__(self, key: str | tuple[str, int] | tuple[str, int, int]) -> Array:
        name, layer, direction = _place(key)
        values = _at(self.layers, layer, direction).values
        if name not in values:
            raise KeyError(f"{name} was not kept; this trace has {', '.join(values)}.")
        return values[name]

    @property
    def y(self) -> Array:
        """The gradient with respect to the output, as it was given."""
        return np.concatenate([one.y for one in self.layers[-1]], axis=2)

    @property
    def params(self) -> tuple[tuple[dict[str, Array], ...], ...]:
        """The gradients of the parameters, as `Network.params`."""
        return tuple(tuple(one.params for one in layer) for layer in self.layers)

    @property
    def state(self) -> State:
        """The gradient with respect to the state that was given, as `Trace.state`."""
        return _stacked([one.given for layer in self.layers for one in layer])

    @property
    def anew(self) -> State:
        """The gradient with respect to `Network.initial`, by rows that start anew after a reset."""
        return _stacked([one.anew for layer in self.layers for one in layer])


def _at(layers: tuple[tuple[Part, ...], ...], layer: int, direction: int) -> Part:
    try:
        return layers[layer][direction]
    except IndexError:
        raise IndexError(
            f"there are {len(layers)} layers, from 0, of {len(layers[0])} directions; found layer "
            f"{layer}, direction {direction}."
        ) from None


def _place(key: str | tuple[str, int] | tuple[str, int, int]) -> tuple[str, int, int]:
    if isinstance(key, str):
        return key, -1, 0
    return (*key, 0) if len(key) == 2 else key


def _several(state: State) -> Sequence[Array]:
    return list(state) if isinstance(state, list | tuple) else [state]


def _stacked(passes: Sequence[tuple[Array, ...]]) -> State:
    states = tuple(np.stack(arrays) for arrays in zip(*passes, strict=True))
    return states[0] if len(states) == 1 else states
