"""One step of a recurrence as single assignments: what every stage below reads and writes.

A program is repeated over the steps of a sequence. The forward pass of a cell is one, and so is
its derivative, backpropagation through time, which runs from the last step to the first.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, reduce

from .language.equations import Equations
from .language.expressions import Apply, Block, Expression, Name, Number, written
from .language.operations import OPERATIONS, PRODUCTS, REDUCTIONS
from .language.sizes import ONE, Sizes, infer_sizes

Argument = str | float
STEP_NUMBER = "t"


def count_of(size: str) -> str:
    """The name of a number that programs know: how many units a vector of this size has, `|H|`."""
    return f"|{size}|"


def is_count(name: str) -> bool:
    """Whether a name is one of `count_of`."""
    return name.startswith("|")


@dataclass(frozen=True)
class Instruction:
    """`name = operation(arguments)`; an argument is a value's or a block's name, or a number."""

    name: str
    operation: str
    arguments: tuple[Argument, ...]

    @property
    def values(self) -> tuple[str, ...]:
        """The names among the arguments."""
        return tuple(argument for argument in self.arguments if isinstance(argument, str))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Of a product: its (matrix, vector) pairs."""
        names = self.values
        return tuple(zip(names[::2], names[1::2], strict=True))

    @property
    def operands(self) -> tuple[str, ...]:
        """The values that it needs at this step: of a product its vectors, else all names."""
        if self.operation in PRODUCTS:
            return tuple(vector for _, vector in self.pairs)
        return self.values

    def expression(self, meaning: Mapping[str, Expression] | None = None) -> Expression:
        """The right side as a tree; `meaning` gives what to write for some of the names."""

        def of(argument: Argument) -> Expression:
            if isinstance(argument, str):
                return (meaning or {}).get(argument, Name(argument))
            return Number(argument)

        if self.operation == "same":
            return of(self.arguments[0])
        if self.operation in PRODUCTS:
            products = (Apply(self.operation, (of(m), of(vector))) for m, vector in self.pairs)
            return reduce(lambda sum_, product: Apply("add", (sum_, product)), products)
        return Apply(self.operation, tuple(of(argument) for argument in self.arguments))

    def __str__(self) -> str:
        return f"{self.name} = {written(self.expression())}"


@dataclass(frozen=True)
class Total:
    """A sum over all steps and all rows of the batch: one term of a parameter's gradient.

    `factors` is one vector (the gradient of a vector of parameters is its sum), or two (the
    gradient of a matrix is the sum of their outer products).
    """

    parameter: str
    factors: tuple[str, ...]

    def __str__(self) -> str:
        return f"d{self.parameter} += {' ⊗ '.join(self.factors)}"


@dataclass(frozen=True)
class Program:
    """One step, in single assignments.

    Attributes:
        name: what it is, for people and for files.
        inputs: values given at every step, in groups; a group is one array, side by side. Of a
            forward program the first is the cell's input, and a second holds its random values.
        carried: pairs (value received from the step before, value handed on to the next).
        families: family of parameters → names of its blocks, stacked along their rows.
        instructions: the assignments, each using earlier ones only.
        outputs: values wanted of every step, in groups as the inputs are.
        totals: sums over all steps, wanted once.
        sizes: value → its size as a letter; "1" is a number that goes with any vector.
        shapes: block → its shape in letters.
        adjoint: whether its steps go from the last to the first.
    """

    name: str
    inputs: tuple[tuple[str, ...], ...]
    carried: tuple[tuple[str, str], ...]
    families: Mapping[str, tuple[str, ...]]
    instructions: tuple[Instruction, ...]
    outputs: tuple[tuple[str, ...], ...]
    totals: tuple[Total, ...]
    sizes: Mapping[str, str]
    shapes: Mapping[str, tuple[str, ...]]
    adjoint: bool = False

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Kernels are looked up by their program at every call.
        return hash((self.name, self.instructions, self.outputs, self.totals))

    @cached_property
    def reads_step_number(self) -> bool:
        """Whether an instruction reads `t`."""
        return any(STEP_NUMBER in instruction.operands for instruction in self.instructions)

    @property
    def given(self) -> frozenset[str]:
        """What is there before the first instruction, parameters aside."""
        inputs = (value for group in self.inputs for value in group)
        received = (received for received, _ in self.carried)
        return frozenset([*inputs, *received, STEP_NUMBER, *self.counts])

    @property
    def counts(self) -> tuple[str, ...]:
        """The names of the numbers that say how many units vectors have, where one is used."""
        used = {name for instruction in self.instructions for name in instruction.values}
        return tuple(sorted(name for name in used if is_count(name)))

    @property
    def wanted(self) -> frozenset[str]:
        """Values that somebody outside the step needs."""
        return frozenset(
            [
                *(value for group in self.outputs for value in group),
                *(handed_on for _, handed_on in self.carried),
                *(factor for total in self.totals for factor in total.factors),
            ]
        )

    @property
    def by_name(self) -> dict[str, Instruction]:
        """Name → the instruction that gives it."""
        return {instruction.name: instruction for instruction in self.instructions}

    def is_parameter(self, name: str) -> bool:
        """Whether a name is that of a block of parameters."""
        return name in self.shapes

    def size_of(self, name: str) -> str:
        """The size of a value, or how many rows a block has."""
        if name in self.shapes:
            return self.shapes[name][0]
        return ONE if is_count(name) else self.sizes[name]

    def with_outputs(self, *outputs: tuple[str, ...]) -> "Program":
        """The same step with other groups of outputs."""
        return replace(self, outputs=outputs)

    def uses(self) -> dict[str, list[Instruction]]:
        """Value → the instructions that need it."""
        found: dict[str, list[Instruction]] = {}
        for instruction in self.instructions:
            for name in dict.fromkeys(instruction.operands):
                found.setdefault(name, []).append(instruction)
        return found

    def __str__(self) -> str:
        from .listing import listing  # it knows programs, so it stands below this file

        return listing(self)


def lower(equations: Equations, sizes: Sizes | None = None) -> Program:
    """The forward program of a cell: its equations as single assignments, in order of use.

    The values of the equations keep their names. The argument of a function that makes a whole
    right side is called `<name>_pre` (pre-activation); other parts are called `_1`, `_2` ….
    """
    sizes = sizes or infer_sizes(equations)
    builder = Builder(
        {**sizes.values, STEP_NUMBER: ONE},
        sizes.shapes,
        reserved=(*sizes.values, *equations.families, *equations.constants),
    )
    for equation in equations.equations:
        _lower_equation(builder, equation.name, equation.expression, equations.constants)
    return Program(
        name=equations.name,
        inputs=(equations.inputs, tuple(equations.draws))
        if equations.draws
        else (equations.inputs,),
        carried=tuple((f"{state}_prev", state) for state in equations.states),
        families={
            family: tuple(f"{family}.{block}" for block in blocks)
            for family, blocks in equations.blocks.items()
        },
        instructions=tuple(builder.instructions),
        outputs=((equations.states[0],),),
        totals=(),
        sizes={
            **{f"{state}_prev": sizes.values[state] for state in equations.states},
            **builder.sizes,
        },
        shapes=sizes.shapes,
    )


class Builder:
    """Collects instructions, gives names to what has none, and knows every size."""

    def __init__(
        self,
        sizes: Mapping[str, str],
        shapes: Mapping[str, tuple[str, ...]],
        reserved: Iterable[str] = (),
    ) -> None:
        self.sizes = dict(sizes)
        self.shapes = shapes
        self.instructions: list[Instruction] = []
        self._taken = {*self.sizes, *reserved}
        self._unnamed = 0

    def fresh(self, wish: str | None = None) -> str:
        """A name that nothing has yet: the one wished for, or `_1`, `_2` …."""
        name = wish
        while name is None or name in self._taken:
            self._unnamed += 1
            name = f"_{self._unnamed}" if wish is None else f"{wish}_{self._unnamed}"
        self._taken.add(name)
        return name

    def size_of(self, argument: Argument) -> str:
        """The size of a value, of a vector of parameters, or of a number."""
        if not isinstance(argument, str):
            return ONE
        return self.shapes[argument][0] if argument in self.shapes else self.sizes[argument]

    def emit(
        self, operation: str, arguments: tuple[Argument, ...], name: str, size: str | None = None
    ) -> str:
        """Add an instruction; its size follows from its arguments where it is not given."""
        if size is None:
            if operation in PRODUCTS:
                shape = self.shapes[str(arguments[0])]
                size = shape[0] if operation == "matmul" else shape[1]
            elif operation in REDUCTIONS:
                size = ONE
            else:
                vectors = (self.size_of(argument) for argument in arguments)
                size = next((vector for vector in vectors if vector != ONE), ONE)
        self.sizes[name] = size
        self.instructions.append(Instruction(name, operation, arguments))
        return name

    def expression(
        self, expression: Expression, resolve: Callable[[str], Argument], name: str | None = None
    ) -> Argument:
        """Add the instructions of an expression, the last under `name`; `resolve` reads names."""
        match expression:
            case Number(value=number):
                return number
            case Name(id=text):
                return resolve(text)
            case Block():
                return expression.name
            case Apply(operation=operation, arguments=parts):
                arguments = tuple(self.expression(part, resolve) for part in parts)
                return self.emit(operation, arguments, name or self.fresh())


def _lower_equation(
    builder: Builder, name: str, expression: Expression, constants: Mapping[str, float]
) -> None:
    def resolve(text: str) -> Argument:
        return constants.get(text, text)

    size = builder.sizes.get(name, ONE)
    if not isinstance(expression, Apply):
        builder.emit("same", (builder.expression(expression, resolve),), name, size)
        return
    operation = OPERATIONS[expression.operation]
    inner = expression.arguments[0]
    if operation.arity == 1 and not operation.cheap and isinstance(inner, Apply):
        inside = builder.expression(inner, resolve, builder.fresh(f"{name}_pre"))
        builder.emit(expression.operation, (inside,), name, size)
    else:
        builder.expression(expression, resolve, name)
