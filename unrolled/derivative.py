"""Reverse-mode differentiation of a program, which gives a program: backpropagation through time.

The forward step turns the values of one step into the next; the adjoint step, taken from the last
step to the first, turns the gradients with respect to the one into those of the other
(Werbos 1990). The rules are a table with one line per operation, written in the language itself.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Literal

from .language.expressions import Expression
from .language.operations import ELEMENTWISE, OPERATIONS, PRODUCTS, REDUCTIONS
from .language.reading import read_expression
from .language.sizes import ONE
from .program import STEP_NUMBER, Argument, Builder, Instruction, Program, Total, count_of
from .simplify import simplify

# Operation → for each argument (a, b, c) its gradient, given dy, the gradient of the result y.
# None: a truth value has no gradient. At a kink the two sides share: a tie of maximum gives half
# to each, abs and relu give nothing at 0.
DERIVATIVES: dict[str, tuple[str | None, ...]] = {
    "same": ("dy",),
    "add": ("dy", "dy"),
    "sub": ("dy", "-dy"),
    "mul": ("dy * b", "dy * a"),
    "div": ("dy / b", "-dy * y / b"),
    "neg": ("-dy",),
    "pow": ("where(b == 0, 0, dy * b * a ** (b - 1))", "where(a == 0, 0, dy * y * log(a))"),
    "where": (None, "where(a, dy, 0)", "where(a, 0, dy)"),
    "maximum": (
        "where(a > b, dy, where(a == b, dy / 2, 0))",
        "where(b > a, dy, where(a == b, dy / 2, 0))",
    ),
    "minimum": (
        "where(a < b, dy, where(a == b, dy / 2, 0))",
        "where(b < a, dy, where(a == b, dy / 2, 0))",
    ),
    "sigmoid": ("dy * y * (1 - y)",),
    "tanh": ("dy * (1 - y * y)",),
    "exp": ("dy * y",),
    "log": ("dy / a",),
    "sqrt": ("dy / (2 * y)",),
    "abs": ("where(a > 0, dy, where(a < 0, -dy, 0))",),
    "relu": ("where(y > 0, dy, 0)",),
    "softplus": ("dy * sigmoid(a)",),
    "lt": (None, None),
    "le": (None, None),
    "gt": (None, None),
    "ge": (None, None),
    "eq": (None, None),
    "ne": (None, None),
}
# What is no work unit by unit has rules of another shape. y = W @ v gives dv = Wᵀ @ dy and
# dW = dy ⊗ v; y = sum(a) gives every unit of a the gradient dy, and y = mean(a) an equal share of
# it. A number that goes with every unit of a vector has the sum of what comes back from them.


Recompute = Literal["cheap", "near", "all"]

# Instructions. To compute tanh(c) again takes less than to write it to memory and read it: training
# an LSTM of 150 steps, 16 rows and 256 units takes 0.97 of the time. With gates of a layer norm,
# which are seven and more from what is kept, it is 1.06 at a single row.
_NEAR = 5

# Where a reciprocal is known, a gradient needs no division: of 1 / b, and of a root y whose
# reciprocal r the program computes.
_OF_A_RECIPROCAL = "-dy * y * y"
_OF_A_ROOT = "0.5 * dy * r"


@cache
def _read(text: str) -> Expression:
    return read_expression(text, ("a", "b", "c", "y", "dy", "r"))


def differentiate(
    program: Program,
    outputs: Iterable[str] | None = None,
    recompute: Recompute = "cheap",
    traced: Iterable[str] = (),
) -> Program:
    """The adjoint program: one step of backpropagation through time.

    Args:
        program: a forward program, simplified or not.
        outputs: the values whose gradient is given at every step; the program's outputs if None.
        recompute: what is computed again, rather than kept: what is `"cheap"`; or also what is
            costly but `"near"` to what is kept, as tanh(c) of the LSTM is, which takes less memory;
            or `"all"` but the states.
        traced: values whose gradients are wanted at every step, beside those of the inputs.

    Returns:
        A program whose inputs are those of `program`, then two groups: the values of the forward
        pass to keep (`kept_values`), and the gradients `d<output>_out` of the outputs.
        Every state `s` receives `ds_next` and hands on `ds_prev`. Its output is one group, the
        gradient `d<input>` of the cell's input, random values having none, and where some values
        are traced a second one, in their order; its totals are the gradients of the parameters.
    """
    wanted = [value for group in program.outputs for value in group]
    given = tuple(wanted if outputs is None else outputs)
    return _Adjoint(program, given, recompute, tuple(traced)).program()


def kept_values(adjoint: Program) -> tuple[str, ...]:
    """What the forward pass keeps, at every step, for an adjoint program."""
    return adjoint.inputs[-2]


class _Adjoint:
    def __init__(
        self,
        forward: Program,
        outputs: tuple[str, ...],
        recompute: Recompute,
        traced: tuple[str, ...],
    ) -> None:
        self.forward = forward
        self.outputs = outputs
        self.recompute = recompute
        self.traced = traced
        self.drawn = {value for group in forward.inputs[1:] for value in group}
        self.of_vectors = _numbers_of_vectors(forward)
        self.reciprocals = {
            instruction.arguments[1]: instruction.name
            for instruction in forward.instructions
            if _is_reciprocal(instruction)
        }
        self._forward = forward.by_name
        self.builder = Builder(forward.sizes, forward.shapes)
        self.terms: dict[str, list[Argument]] = {}
        self.products: dict[str, list[tuple[str, str]]] = {}  # value → (matrix, gradient) pairs
        self.totals: list[Total] = []

    def program(self) -> Program:
        forward, builder = self.forward, self.builder
        received = [self._incoming(f"d{handed_on}_next", handed_on) for _, handed_on in
                    forward.carried]  # fmt: skip
        given = [self._incoming(f"d{output}_out", output) for output in self.outputs]
        found: dict[str, str | None] = {}
        for instruction in reversed(forward.instructions):
            name = instruction.name
            found[name] = dy = self._gradient(name, wanted=name in self.traced)
            if dy is not None:
                self._through(instruction, dy)
        received_values = [prev for prev, _ in forward.carried]
        inputs = forward.inputs[0]
        for value in (*received_values, *inputs):
            found[value] = self._gradient(value, wanted=True)
        handed_on = [str(found[value]) for value in received_values]
        groups = [tuple(str(found[value]) for value in inputs)]
        if self.traced:
            groups.append(tuple(str(found[value]) for value in self.traced))
        kept, again = self._values_needed()
        order = [*forward.shapes]
        sizes = {**builder.sizes, **{value: forward.sizes[value] for value in kept}}
        return simplify(
            Program(
                name=f"{forward.name}_backward",
                inputs=(*forward.inputs, kept, tuple(given)),
                carried=tuple(zip(received, handed_on, strict=True)),
                families=forward.families,
                instructions=(*again, *builder.instructions),
                outputs=tuple(groups),
                totals=tuple(sorted(self.totals, key=lambda total: order.index(total.parameter))),
                sizes=sizes,
                shapes=forward.shapes,
                adjoint=True,
            )
        )

    def _incoming(self, wish: str, value: str) -> str:
        name = self.builder.fresh(wish)
        self.builder.sizes[name] = self.forward.sizes[value]
        self.terms.setdefault(value, []).append(name)
        return name

    def _gradient(self, value: str, wanted: bool = False) -> str | None:
        """Add up the terms of a value's gradient; None if there are none and none is wanted."""
        terms = list(self.terms.get(value, ()))
        pairs = sorted(self.products.get(value, ()), key=self._place_in_family)
        if not terms and not pairs and not wanted:
            return None
        size = self.forward.sizes[value]
        name = self.builder.fresh(f"d{value}")
        if pairs:
            whole = name if not terms else self.builder.fresh()
            arguments = tuple(name for pair in pairs for name in pair)
            terms.append(self.builder.emit("matmul_t", arguments, whole, size))
            if whole == name:
                return name
        if not terms:
            return self.builder.emit("same", (0.0,), name, size)
        last = terms.pop()
        while terms:
            sizes = {self.builder.size_of(terms[-1]), self.builder.size_of(last)}
            wish = name if len(terms) == 1 and size in sizes else self.builder.fresh()
            last = self.builder.emit("add", (terms.pop(), last), wish)
        return name if last == name else self.builder.emit("same", (last,), name, size)

    def _place_in_family(self, pair: tuple[str, str]) -> int:
        # Blocks in the order in which their family is stacked can be multiplied as they lie.
        return [*self.forward.shapes].index(pair[0])

    def _through(self, instruction: Instruction, dy: str) -> None:
        """Hand the gradient of an instruction's result on to its arguments."""
        if instruction.operation in PRODUCTS:
            for matrix, vector in instruction.pairs:
                self.products.setdefault(vector, []).append((matrix, dy))
                self.totals.append(Total(matrix, (dy, vector)))
            return
        if instruction.operation in REDUCTIONS:
            self._through_reduction(instruction, dy)
            return
        names = dict(zip("abc", instruction.arguments, strict=False))
        names |= {"y": instruction.name, "dy": dy}
        if reciprocal := self.reciprocals.get(instruction.name):
            names["r"] = reciprocal
        for position, argument in enumerate(instruction.arguments):
            rule = self._rule(instruction, position)
            if rule is None or not self._has_gradient(argument):
                continue
            term = self.builder.expression(rule, lambda text: names[text])
            number = argument in self.of_vectors
            if number and isinstance(term, str) and self.builder.size_of(term) != ONE:
                term = self._sum(term)
            self._add_term(str(argument), term)

    def _rule(self, instruction: Instruction, position: int) -> Expression | None:
        """The gradient of an argument."""
        if _is_reciprocal(instruction) and position == 1:
            return _read(_OF_A_RECIPROCAL)
        if instruction.operation == "sqrt" and instruction.name in self.reciprocals:
            return _read(_OF_A_ROOT)
        text = DERIVATIVES[instruction.operation][position]
        return None if text is None else _read(text)

    def _through_reduction(self, instruction: Instruction, dy: Argument) -> None:
        argument = instruction.values[0]
        if self._has_gradient(argument):
            if instruction.operation == "mean":
                builder, (part, sign) = self.builder, self._without_sign(dy)
                count = count_of(builder.size_of(argument))
                dy = builder.emit("div", (part, count), builder.fresh(), ONE)
                dy = builder.emit("neg", (dy,), builder.fresh(), ONE) if sign < 0 else dy
            self._add_term(argument, dy)

    def _without_sign(self, value: Argument) -> tuple[Argument, int]:
        """What a number is but for its sign: what it is added to can subtract it then."""
        made, sign = self._made(), 1
        while value in made and made[str(value)].operation in ("same", "neg"):
            instruction = made[str(value)]
            sign = -sign if instruction.operation == "neg" else sign
            (value,) = instruction.arguments
        return value, sign

    def _sum(self, vector: str) -> Argument:
        """The sum of a vector's units.

        What is centred adds up to nothing. So what a mean hands back does not wait for the sums of
        a norm's variance, whose share of the gradient is a number times the centred vector: the
        usual formula of layer normalisation (Ba 2016), with its two sums side by side.
        """
        made = self._made()

        def is_number(value: Argument) -> bool:
            """Whether all units are the same."""
            if self.builder.size_of(value) == ONE:
                return True
            instruction = made.get(str(value))
            return (
                instruction is not None
                and instruction.operation == "same"
                and self.builder.size_of(instruction.arguments[0]) == ONE
            )

        def is_centred(value: Argument) -> bool:
            instruction = self._forward.get(str(value))
            if instruction is None or instruction.operation != "sub":
                return False
            left, right = instruction.arguments
            mean = self._forward.get(str(right))
            return mean is not None and (mean.operation, mean.arguments) == ("mean", (left,))

        def terms(value: Argument, sign: int) -> Iterator[tuple[Argument, int]]:
            """What the vector is a sum of, with signs; 0 for what adds up to nothing."""
            instruction = made.get(str(value))
            match instruction and instruction.operation, instruction and instruction.arguments:
                case "neg", (a,):
                    yield from terms(a, -sign)
                case "add" | "sub" as operation, (a, b):
                    yield from terms(a, sign)
                    yield from terms(b, sign if operation == "add" else -sign)
                case "mul", (a, b) if is_number(a) and is_centred(b):
                    yield value, 0
                case "mul", (a, b) if is_number(b) and is_centred(a):
                    yield value, 0
                case _:
                    yield value, 0 if is_centred(value) else sign

        builder, found = self.builder, list(terms(vector, 1))
        if all(sign for _, sign in found):
            return builder.emit("sum", (vector,), builder.fresh(), ONE)
        rest = [(value, sign) for value, sign in found if sign]
        if not rest:
            return 0.0
        (first, sign), *others = rest
        for value, other in others:
            first = builder.emit("add" if other == sign else "sub", (first, value), builder.fresh())
        if builder.size_of(first) == ONE:  # a number that goes with every unit
            first = builder.emit("same", (first,), builder.fresh(), builder.size_of(vector))
        total = builder.emit("sum", (first,), builder.fresh(), ONE)
        return total if sign > 0 else builder.emit("neg", (total,), builder.fresh(), ONE)

    def _made(self) -> dict[str, Instruction]:
        """The instructions so far, by the name of what they compute."""
        return {instruction.name: instruction for instruction in self.builder.instructions}

    def _add_term(self, argument: str, term: Argument) -> None:
        if self.forward.is_parameter(argument):
            self.totals.append(Total(argument, (self._vector(term, argument),)))
        else:
            self.terms.setdefault(argument, []).append(term)

    def _has_gradient(self, argument: Argument) -> bool:
        if not isinstance(argument, str) or argument in (STEP_NUMBER, *self.drawn):
            return False
        if self.forward.is_parameter(argument) or argument in self.of_vectors:
            return True
        return self.forward.sizes[argument] != ONE

    def _vector(self, term: Argument, like: str) -> str:
        """A total sums a named vector up; a term that is a number gets the size of `like`."""
        if isinstance(term, str) and self.builder.size_of(term) != ONE:
            return term
        return self.builder.emit("same", (term,), self.builder.fresh(), self.builder.size_of(like))

    def _values_needed(self) -> tuple[tuple[str, ...], list[Instruction]]:
        """The forward values to keep, and the instructions that compute the others again.

        What is cheap is computed again if that needs nothing more to be kept.
        """
        forward = self._forward
        received = [prev for prev, _ in self.forward.carried]
        needed = self._needed()
        again: set[str] = set()
        everything = self.recompute == "all"
        kept = {name for name in needed if not (self._cheap(forward[name]) or everything)}
        for name in forward:  # in order of computation: what is kept is a source for what follows
            if name in needed and name not in kept:
                truth = OPERATIONS[forward[name].operation].truth  # no number, so never kept
                if everything or truth or self._sources(name, kept) <= kept:
                    again.update(self._chain(name, kept))
                else:
                    kept.add(name)
        for name in forward:
            others = kept - {name}
            if self.recompute == "near" and name in kept and self._is_near(name, others):
                kept = others
                again.update(self._chain(name, kept))
        used = {name for i in self.builder.instructions for name in i.operands}
        used |= {total.factors[-1] for total in self.totals}
        used |= {name for other in again for name in forward[other].operands}
        found = [name for name in [*forward, *received] if name in kept | (used & {*received})]
        # Numbers stand behind the vectors, which lie better where nothing odd is between them.
        found.sort(key=lambda name: self.forward.sizes[name] == ONE)
        return tuple(found), [instruction for name, instruction in forward.items() if name in again]

    def _needed(self) -> set[str]:
        """The forward values that the adjoint reads, or that must be there to compute one again."""
        forward = self._forward
        read = {total.factors[-1] for total in self.totals}
        read |= {name for i in self.builder.instructions for name in i.operands}
        needed = read & forward.keys() - {i.name for i in self.builder.instructions}
        for name in reversed(forward):
            if name in needed and (
                self.recompute == "all" or OPERATIONS[forward[name].operation].truth
            ):
                needed |= forward.keys() & {*forward[name].operands}
        return needed

    def _cheap(self, instruction: Instruction) -> bool:
        if instruction.operation in REDUCTIONS:
            return False
        number = self.forward.sizes[instruction.name] == ONE
        return number or OPERATIONS[instruction.operation].cheap

    def _sources(self, name: str, kept: set[str]) -> set[str]:
        """The values that computing `name` again would start from: kept ones, or costly ones."""
        found: set[str] = set()
        seen, ahead = {name}, [name]
        while ahead:
            for part in self._forward[ahead.pop()].operands:
                if part in kept or (part in self._forward and not self._cheap(self._forward[part])):
                    found.add(part)
                elif part in self._forward and part not in seen:
                    seen.add(part)
                    ahead.append(part)
        return found

    def _is_near(self, name: str, kept: set[str]) -> bool:
        """Whether a vector is computed from kept ones in few steps, as tanh(c) is of the LSTM."""
        instruction = self._forward.get(name)
        return (
            instruction is not None
            and instruction.operation in ELEMENTWISE
            and self.forward.sizes[name] != ONE
            and len(self._chain(name, kept)) <= _NEAR
            and self._sources(name, kept) <= kept
        )

    def _chain(self, name: str, kept: set[str]) -> set[str]:
        """What must be computed again for `name`: itself, and what it needs and is not kept."""
        found, ahead = {name}, [name]
        while ahead:
            for part in self._forward[ahead.pop()].operands:
                if part in self._forward and part not in kept and part not in found:
                    found.add(part)
                    ahead.append(part)
        return found


def _is_reciprocal(instruction: Instruction) -> bool:
    return instruction.operation == "div" and instruction.arguments[0] == 1


def _numbers_of_vectors(program: Program) -> set[str]:
    """The numbers that depend on vectors, by a sum or a mean: they have gradients."""
    found: set[str] = set()
    for instruction in program.instructions:
        if program.sizes[instruction.name] == ONE and (
            instruction.operation in REDUCTIONS or not found.isdisjoint(instruction.operands)
        ):
            found.add(instruction.name)
    return found
