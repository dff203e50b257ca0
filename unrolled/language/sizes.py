"""The sizes of a cell's values, which follow from how they are used.

Two values that meet unit by unit have one size; `W.i @ x` has as many columns as `x` has units
and as many rows as its result is used with. What is left free is I, the size of the input, and
the sizes of the states: H where they are one, H_h, H_c … where they differ.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .equations import Equations
from .expressions import NOWHERE, Apply, Block, Expression, Name, Number, Place, written
from .operations import REDUCTIONS

ONE = "1"  # the size of a number: it goes with any vector


@dataclass(frozen=True)
class Sizes:
    """Sizes as letters.

    Attributes:
        values: name of a value at this step or the one before → its size.
        shapes: name of a block → its shape: (rows, columns) of a matrix, (units,) of a vector.
    """

    values: Mapping[str, str]
    shapes: Mapping[str, tuple[str, ...]]

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters in use, the input's first."""
        used = [*self.values.values(), *(size for shape in self.shapes.values() for size in shape)]
        return tuple(dict.fromkeys(size for size in used if size != ONE))


@dataclass(frozen=True)
class _Vector:
    """A vector whose size is found under `key`."""

    key: str


class _Unknowns:
    """Sizes that are being found: sets of keys that have one size, with what is known of each."""

    def __init__(self, equations: Equations, known: Mapping[str, int]) -> None:
        self.source = equations.source
        self.parent: dict[str, str] = {}
        self.known = dict(known)  # root → number
        self.why = {key: key for key in known}  # root → the name that the number came from

    def root(self, key: str) -> str:
        while (above := self.parent.setdefault(key, key)) != key:
            key = above
        return key

    def join(self, left: str, right: str, place: Place, explain: Callable[[], str]) -> None:
        a, b = self.root(left), self.root(right)
        if a == b:
            return
        if a in self.known and b in self.known and self.known[a] != self.known[b]:
            raise self.source.size_error(
                place,
                f"two sizes cannot agree: {self.known[a]}, the size of {self.why[a]}, and "
                f"{self.known[b]}, the size of {self.why[b]}. {explain()}",
            )
        keep, drop = (a, b) if a in self.known or b not in self.known else (b, a)
        self.parent[drop] = keep


def _solve(equations: Equations, known: Mapping[str, int]) -> _Unknowns:
    """Join everything that has one size; with `known` numbers, find what cannot agree."""
    unknowns = _Unknowns(equations, known)
    for state in equations.remembered:
        unknowns.join(f"{state}_prev", state, NOWHERE, lambda: "")
    computed: dict[str, bool] = {}  # name → whether it is a vector

    def size_of(expression: Expression) -> _Vector | None:
        match expression:
            case Number():
                return None
            case Name(id=name):
                vector = computed.get(name, name not in (*equations.constants, "t"))
                return _Vector(name) if vector else None
            case Block():
                return _Vector(f"{expression.name} rows")
            case Apply(operation="matmul", arguments=(block, vector)):
                assert isinstance(block, Block)
                return product(block, vector)
        sizes = [(argument, size_of(argument)) for argument in expression.arguments]
        vectors = [(argument, size) for argument, size in sizes if size is not None]
        for argument, size in vectors[1:]:
            unknowns.join(
                vectors[0][1].key,
                size.key,
                argument.place,
                lambda first=vectors[0][0], other=argument: (  # type: ignore[misc]
                    f"{written(first)} and {written(other)} meet unit by unit, so they have one "
                    "size. Bring one to the size of the other with a product, such as W.i @ x."
                ),
            )
        if expression.operation in REDUCTIONS:
            if not vectors:
                raise equations.source.size_error(
                    expression.place,
                    f"{expression.operation} is taken over the units of a vector, and "
                    f"{written(expression.arguments[0])} is one number. Leave it out.",
                )
            return None
        return vectors[0][1] if vectors else None

    def product(block: Block, vector: Expression) -> _Vector:
        size = size_of(vector)
        if size is None:
            raise equations.source.size_error(
                vector.place,
                f"{written(vector)} is one number, and a product takes a vector. "
                "Multiply it unit by unit with a block of a family of vectors, such as "
                f"b.{block.block} * {written(vector, 6)}.",
            )
        # Blocks of a family are stacked along their rows, so they share their columns.
        unknowns.join(
            f"{block.family} columns",
            size.key,
            vector.place,
            lambda: (
                f"The blocks of {block.family} are applied to vectors of one size. "
                f"Give {block.name} a family of its own."
            ),
        )
        return _Vector(f"{block.name} rows")

    for equation in equations.equations:
        size = size_of(equation.expression)
        computed[equation.name] = size is not None
        if size is None and equation.name in equations.states:
            raise equations.source.size_error(
                equation.expression.place,
                f"{equation.name} is one number for all units, and a state is a vector. "
                f"Combine it with one, such as {equations.inputs[0]} or {equation.name}_prev.",
            )
        if size is not None:
            unknowns.join(
                equation.name,
                size.key,
                equation.expression.place,
                lambda name=equation.name: (  # type: ignore[misc]
                    f"{name} has one size wherever it is used, and its value of the step before "
                    "has the same."
                ),
            )
    return unknowns


def infer_sizes(equations: Equations) -> Sizes:
    """Give every value and block of parameters its size as a letter.

    Raises:
        SizeError: if a product, a sum or a mean is applied to a number, or a state is one.
    """
    unknowns = _solve(equations, {})
    letters = _letters(equations, unknowns)
    values = {}
    for name in (
        *equations.inputs,
        *(f"{state}_prev" for state in equations.remembered),
        *equations.draws,
        *(equation.name for equation in equations.equations),
    ):
        values[name] = letters(name) if name in (*unknowns.parent, *equations.inputs) else ONE
    shapes: dict[str, tuple[str, ...]] = {}
    kinds = equations.kinds
    for family, blocks in equations.blocks.items():
        for block in blocks:
            rows = letters(f"{family}.{block} rows")
            columns = (letters(f"{family} columns"),) if kinds[family] == "matrix" else ()
            shapes[f"{family}.{block}"] = (rows, *columns)
    return Sizes(values, shapes)


def _letters(equations: Equations, unknowns: _Unknowns) -> Callable[[str], str]:
    """A function from a key to the letter of its size."""
    roots = {unknowns.root(equations.inputs[0]): "I"}
    states = {unknowns.root(state): state for state in reversed(equations.states)}
    free = [root for root in states if root not in roots]
    for root in free:
        roots[root] = "H" if len(free) == 1 else f"H_{states[root]}"
    for equation in equations.equations:  # sizes that no state has: named by their first value
        if equation.name in unknowns.parent:  # else it is a number
            roots.setdefault(unknowns.root(equation.name), f"H_{equation.name}")

    def letter(key: str) -> str:
        root = unknowns.root(key)
        if root not in roots:
            wish = f"H_{key.split()[0].replace('.', '_')}"
            while wish in roots.values():  # a value may have the name W_k, and a block be W.k
                wish += "_"
            roots[root] = wish
        return roots[root]

    return letter


def bind_sizes(
    equations: Equations, sizes: Sizes, input_size: int, hidden_size: int | Mapping[str, int]
) -> dict[str, int]:
    """Give every letter its number.

    Args:
        equations: the cell.
        sizes: its sizes as letters.
        input_size: I, the size of the input.
        hidden_size: one number for all other sizes, or a number for each, by the name of a
            state or of another value of that size: `{"h": 64, "c": 256}`.

    Returns:
        Letter → number.

    Raises:
        SizeError: if two sizes must be one and differ; the message points at the place.
        EquationError: if a name is no value of the cell, or a size is left open.
    """
    given = {equations.inputs[0]: input_size}
    free = [letter for letter in sizes.letters if letter != "I"]
    if isinstance(hidden_size, Mapping):
        _check_named(equations, sizes, hidden_size)
        given |= hidden_size
    else:
        given |= dict.fromkeys(equations.states, hidden_size)
        for name, letter in sizes.values.items():
            if letter in free:
                given.setdefault(name, hidden_size)
    for name, size in given.items():
        whole = hasattr(size, "__index__") and not isinstance(size, bool)
        if not whole or size < 1:
            raise equations.source.equation_error(
                NOWHERE, f"the size of {name} is {size!r}; a size is a whole number from 1 on."
            )
    _solve(equations, given)
    numbers = {sizes.values[name]: size for name, size in given.items()}
    for letter in free:  # sizes that only parameters have, where hidden_size is one number
        if letter not in numbers and not isinstance(hidden_size, Mapping):
            numbers[letter] = hidden_size
    return numbers


def _check_named(equations: Equations, sizes: Sizes, hidden_size: Mapping[str, int]) -> None:
    """Each name is that of a vector with a size to choose, and every size is chosen."""
    named: dict[str, str] = {}  # size → the first state or other value that has it
    for name in (*equations.states, *sizes.values):
        if sizes.values[name] not in (ONE, "I"):
            named.setdefault(sizes.values[name], name)
    for name in hidden_size:
        if name == equations.inputs[0]:
            raise equations.source.equation_error(
                NOWHERE, f"hidden_size names {name}, the input; its size is the input size."
            )
        if sizes.values.get(name, ONE) == ONE:
            raise equations.source.equation_error(
                NOWHERE,
                f"hidden_size names {name}, which is no vector of this cell. "
                f"It chooses the sizes of {', '.join(named.values()) or 'none'}.",
            )
    chosen = {sizes.values[name] for name in hidden_size}
    for letter in sizes.letters:
        if letter == "I" or letter in chosen:
            continue
        if letter in named:
            wanted = ", ".join(f'"{name}": …' for name in named.values())
            raise equations.source.equation_error(
                NOWHERE,
                f"hidden_size leaves the size of {named[letter]} open: write {{{wanted}}}.",
            )
        block = next(name for name, shape in sizes.shapes.items() if letter in shape)
        raise equations.source.equation_error(
            NOWHERE,
            f"hidden_size leaves a size of {block} open, and no name has that size. "
            f"Give what {block} makes a name in an equation of its own.",
        )
