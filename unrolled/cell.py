"""A cell is its equations; this class is the door to everything that follows from them.

The language: a function definition whose body is a docstring, equations `name = expression`, and
`return` with the names of the states, the output first. A bare name is a value at step t, `h_prev`
the value of h at step t − 1. The names after the `*` are families of parameters (`W.i @ x` is a
matrix, `b.i` a vector, `P.i * c_prev` a diagonal), which may say where all of a family begins:
`gain=initial(1)`. With a number for a default they are constants; with `dropout(0.3)` or
`bernoulli(0.1, every="step")` random values, which have their means in evaluation. Work goes unit
by unit, but for products, and `sum(v)` and `mean(v)`, which make one number of the units of a
vector; a number goes with vectors of any size. `t` is the number of the step, from 1 for the first
that is read.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .backends import reference
from .backends.blocks import family_shapes, stack_blocks
from .backends.steps import Array, Steps
from .derivative import differentiate
from .errors import EquationError, InputError
from .language.equations import Draw, Equations
from .language.reading import read
from .language.sizes import Sizes, bind_sizes, infer_sizes
from .listing import listing
from .program import Program, lower
from .simplify import simplify


@dataclass(frozen=True)
class Cell:
    """A recurrent cell: its equations, and what follows from them.

    Make one with the decorator `@cell` or with `Cell.parse(text)`.

    Attributes:
        equations: the equations, checked and sorted.
    """

    equations: Equations

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """Read a cell from text; nothing in the text is ever run.

        Args:
            text: one function definition in the language of equations.

        Raises:
            EquationError: if it is outside the language; the message points at the place.
            SizeError: if two sizes can never agree.
        """
        made = cls(read(text))
        _ = made.sizes  # finds what cannot have a size
        return made

    @property
    def name(self) -> str:
        """The name of the cell."""
        return self.equations.name

    @property
    def states(self) -> tuple[str, ...]:
        """The names of its states; the first is the output."""
        return self.equations.states

    @property
    def names(self) -> tuple[str, ...]:
        """The named values of a step, in the order of computation.

        The input, the states of the step before, and the left side of every equation.
        """
        return (
            self.equations.inputs[0],
            *(f"{state}_prev" for state in self.states),
            *(equation.name for equation in self.equations.equations),
        )

    @property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """Family → the names of its blocks, in order of first appearance."""
        return self.equations.blocks

    @property
    def constants(self) -> dict[str, float]:
        """The named numbers of the equations, which `with_` changes."""
        return dict(self.equations.constants)

    @property
    def draws(self) -> Mapping[str, Draw]:
        """The random values of the equations, such as `m=dropout(0.3)`."""
        return self.equations.draws

    @cached_property
    def expected(self) -> "Cell":
        """What runs in evaluation: each random value's mean in its place."""
        return Cell(self.equations.expected()) if self.draws else self

    @property
    def text(self) -> str:
        """The equations in their language: `Cell.parse(cell.text) == cell`."""
        return self.equations.text

    @cached_property
    def sizes(self) -> Sizes:
        """The sizes of all values and parameters, as letters."""
        return infer_sizes(self.equations)

    @cached_property
    def program(self) -> Program:
        """One step forward, as single assignments in the order of the equations."""
        return lower(self.equations, self.sizes)

    @cached_property
    def recurrent_blocks(self) -> tuple[str, ...]:
        """The matrices and diagonals that multiply what depends on the step before: `"U.i"`, …."""
        program = self.program
        later = {received for received, _ in program.carried}
        found = []
        for instruction in program.instructions:
            if later.isdisjoint(instruction.operands):
                continue
            later.add(instruction.name)
            if instruction.operation in ("matmul", "mul"):
                found += [value for value in instruction.values if program.is_parameter(value)]
        return tuple(dict.fromkeys(found))

    @cached_property
    def forward(self) -> Program:
        """One step forward, simplified: what kernels are made of."""
        return simplify(self.program)

    @cached_property
    def backward(self) -> Program:
        """One step of backpropagation through time, given the output's gradient at each step."""
        return differentiate(self.forward)

    def with_(self, **constants: float) -> "Cell":
        """The same cell with other values of its constants: `cell.with_(dt=0.05)`.

        Raises:
            EquationError: if the cell has no such constant, or its value is no finite number.
        """
        return Cell(self.equations.with_constants(constants))

    def bind(self, input_size: int, hidden_size: int | Mapping[str, int]) -> dict[str, int]:
        """Give every size its number: letter → number.

        Args:
            input_size: I.
            hidden_size: one number for every other size, or a number for each by the name of a
                state or other value: `{"h": 64, "c": 256}`.

        Raises:
            SizeError: if two sizes must be one and differ; the message points at the place.
            EquationError: if a size is left open.
        """
        return bind_sizes(self.equations, self.sizes, input_size, hidden_size)

    def init(
        self,
        input_size: int,
        hidden_size: int | Mapping[str, int],
        rng: np.random.Generator | int | None = None,
        dtype: Any = np.float64,
    ) -> dict[str, Array]:
        """Draw parameters, uniform in ±1/√H, where H is the size of the output (as PyTorch does).

        Families whose equations say where they begin (`gain=initial(1)`) begin there.

        Args:
            input_size: I.
            hidden_size: as in `bind`.
            rng: a generator, or a seed for one.
            dtype: of the arrays; float64 by default.

        Returns:
            Block → array: `"W.i"` (H, I), `"U.i"` (H, H), `"b.i"` (H,) …
        """
        sizes = self.bind(input_size, hidden_size)
        generator = np.random.default_rng(rng)
        bound = 1 / np.sqrt(sizes[self.sizes.values[self.states[0]]])
        initial = self.equations.initial
        found: dict[str, Array] = {}
        for block, letters in self.sizes.shapes.items():
            family, shape = block.partition(".")[0], [sizes[letter] for letter in letters]
            if family in initial:
                found[block] = np.full(shape, initial[family], dtype)
            else:
                found[block] = generator.uniform(-bound, bound, shape).astype(dtype)
        return found

    def run(
        self,
        x: Array,
        params: Mapping[str, Array],
        state: Array | Sequence[Array] | None = None,
    ) -> tuple[Array, Array | tuple[Array, ...]]:
        """Run the cell over a sequence in NumPy, step by step: the reference.

        Random values have their means, as in evaluation.

        Args:
            x: (T, B, I), or (T, I) for one sequence; float64 or float32.
            params: block → array, as `init` gives.
            state: the initial state (B, H), or one for each of several states; zeros if None.

        Returns:
            The outputs (T, B, H), and the last state: an array, or a tuple of several states.

        Raises:
            InputError: if an array is missing, holds no real numbers, or does not fit.
        """
        values, last = self.expected._run(x, params, state, (self.states[0],))
        return values[self.states[0]], last[0] if len(last) == 1 else last

    def trace(
        self,
        x: Array,
        params: Mapping[str, Array],
        state: Array | Sequence[Array] | None = None,
    ) -> dict[str, Array]:
        """Every named value at every step, as `run` computes them.

        Returns:
            Name → array (T, B, size), for each of `names`.
        """
        return self.expected._run(x, params, state, self.names)[0]

    def _run(
        self,
        x: Array,
        params: Mapping[str, Array],
        state: Array | Sequence[Array] | None,
        names: tuple[str, ...],
    ) -> tuple[dict[str, Array], tuple[Array, ...]]:
        x = self._numbers("the input", x)
        x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)
        if x.ndim not in (2, 3):
            raise InputError(
                f"cell '{self.name}' takes an input of shape (T, B, I), or (T, I) for one "
                f"sequence; found {x.shape}."
            )
        alone = x.ndim == 2
        sequence = x[:, None] if alone else x
        length, batch, input_size = sequence.shape
        params = {n: self._numbers(f"parameter {n}", array) for n, array in params.items()}
        sizes = self.sizes_of(input_size, params)
        states = self._states(state, batch, sizes, x.dtype, alone)
        result = reference.run(
            self.program.with_outputs(*((name,) for name in names)),
            sizes,
            [sequence.reshape(length * batch, input_size)],
            states,
            stack_blocks(self.program, params),
            Steps.dense(length, batch),
        )
        shaped = [output.reshape(length, batch, output.shape[1]) for output in result.outputs]
        last = tuple(final[0] if alone else final for final in result.states)
        return {
            name: output[:, 0] if alone else output
            for name, output in zip(names, shaped, strict=True)
        }, last

    def _numbers(self, what: str, given: Any) -> Array:
        array = np.asarray(given)
        if array.dtype.kind not in "fiub":
            raise InputError(
                f"{what} of cell '{self.name}' is an array of real numbers; "
                f"found one of {array.dtype}."
            )
        return array

    def sizes_of(self, input_size: int, params: Mapping[str, Array]) -> dict[str, int]:
        """Read the sizes off parameters, and check their shapes: letter → number.

        Args:
            input_size: I.
            params: block → array.

        Raises:
            InputError: if an array is missing or does not fit.
        """
        wanted = self.sizes.shapes
        if missing := [name for name in wanted if name not in params]:
            raise InputError(
                f"cell '{self.name}' needs the parameters {', '.join(missing)}; "
                f"given are {', '.join(params) or 'none'}. cell.init(…) draws a full set."
            )
        if unknown := [name for name in params if name not in wanted]:
            raise InputError(
                f"cell '{self.name}' has no parameters {', '.join(unknown)}; "
                f"it has {', '.join(wanted)}."
            )
        sizes = {"I": input_size}
        for name, letters in wanted.items():
            shape = params[name].shape
            expected = tuple(sizes.get(letter, letter) for letter in letters)
            if len(shape) != len(letters) or any(
                sizes.setdefault(letter, number) != number
                for letter, number in zip(letters, shape, strict=True)
            ):
                raise InputError(
                    f"parameter {name} of cell '{self.name}' has shape {shape}; "
                    f"expected ({', '.join(map(str, expected))}), that is "
                    f"({', '.join(letters)})."
                )
        return sizes

    def _states(
        self,
        state: Array | Sequence[Array] | None,
        batch: int,
        sizes: dict[str, int],
        dtype: Any,
        alone: bool,
    ) -> list[Array]:
        letters = [self.sizes.values[name] for name in self.states]
        if state is None:
            if unknown := [n for n, s in zip(self.states, letters, strict=True) if s not in sizes]:
                raise InputError(
                    f"no parameter of cell '{self.name}' tells the size of the state "
                    f"{', '.join(unknown)}; give the initial state, an array (B, size)."
                )
            return [np.zeros((batch, sizes[letter]), dtype) for letter in letters]
        given = list(state) if isinstance(state, list | tuple) else [state]
        if len(given) != len(self.states):
            raise InputError(
                f"the initial state of cell '{self.name}' is one array for each of its states "
                f"({', '.join(self.states)}); found {len(given)}."
            )
        arrays = []
        for name, letter, array in zip(self.states, letters, given, strict=True):
            array = self._numbers(f"the initial state {name}", array)
            size = (sizes[letter],) if letter in sizes else array.shape[-1:] or (letter,)
            expected = size if alone else (batch, *size)
            if array.shape != expected:
                found = f"has shape {array.shape}" if array.ndim else "is one number"
                raise InputError(
                    f"the initial state {name} of cell '{self.name}' {found}; expected {expected}."
                )
            sizes[letter] = array.shape[-1]
            arrays.append(array.reshape(batch, array.shape[-1]))
        return arrays

    def parameter_shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Family → the shape of its stacked blocks, given the sizes that `bind` gives."""
        return family_shapes(self.program, sizes)

    def __str__(self) -> str:
        return listing(self.program, [equation.name for equation in self.equations.equations])

    def __repr__(self) -> str:
        return f"<cell {self.name}({self.equations.inputs[0]}) → {', '.join(self.states)}>"


def cell(function: Callable[..., Any]) -> Cell:
    """Read a function's source as the equations of a cell. The function is never run.

    Raises:
        EquationError: if the source is outside the language, or Python kept no source.
        SizeError: if two sizes can never agree.
    """
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        raise EquationError(
            f"Python kept no source of '{getattr(function, '__name__', function)}', so its "
            "equations cannot be read (its plain prompt and exec keep none). Write them in a "
            'file or a notebook, or as text: Cell.parse("""def …""").'
        ) from None
    return Cell.parse(text)
