"""What equations must obey as a whole: names given once, states returned, no circles."""

import graphlib
from collections.abc import Mapping, Sequence

from .equations import Equation, Source
from .expressions import Apply, Block, Name, Place, walk
from .operations import OPERATIONS


_NO_NUMBER = "a comparison is no number; choose with it: where(a > b, 1, 0)."


def check_names(
    source: Source,
    equations: Sequence[Equation],
    inputs: Sequence[str],
    remembered: Sequence[str],
    states: Sequence[str],
    families: Sequence[str],
    constants: Mapping[str, float],
) -> None:
    """Each name is given once, each remembered state is returned, each family is used.

    Raises:
        EquationError: pointing at the first place that breaks a rule.
    """
    taken = {
        **dict.fromkeys(inputs, "the input"),
        **{f"{state}_prev": "a state of the step before" for state in remembered},
        **dict.fromkeys(families, "a family of parameters"),
        **dict.fromkeys(constants, "a constant"),
    }
    for equation in equations:
        name = equation.name
        if name in taken:
            raise source.equation_error(
                equation.place,
                f"{name} is given twice: it is {taken[name]} already. "
                "Each name is given once; choose another.",
            )
        if name.endswith("_prev"):
            raise source.equation_error(
                equation.place,
                f"{name} names the value of {name.removesuffix('_prev')} at the step before, "
                f"which is given by that step. Write {name.removesuffix('_prev')} = …",
            )
        taken[name] = f"the left side of line {equation.place.line}"
    for state in remembered:
        if state not in states:
            raise source.equation_error(
                _place_of(source, f"{state}_prev"),
                f"{state}_prev is used, but {state} is not returned, so no step could hand it "
                f"to the next. Write: return {', '.join([*states, state])}.",
            )
    used = {part.family for e in equations for part in walk(e.expression) if type(part) is Block}
    for family in families:
        if family not in used:
            raise source.equation_error(
                _place_of(source, family),
                f"{family} is never used. Leave it out, or write it with a block: {family}.h.",
            )


def check_families(
    source: Source, equations: Sequence[Equation], families: Sequence[str]
) -> None:
    """A family is made of matrices (left of `@`) or of vectors, not of both.

    Raises:
        EquationError: pointing at the first use that differs from the first one.
    """
    kinds: dict[str, tuple[str, Block]] = {}
    for equation in equations:
        for part in walk(equation.expression):
            if not isinstance(part, Apply):
                if isinstance(equation.expression, Block):
                    _one_kind(source, kinds, equation.expression, "vector")
                continue
            for position, argument in enumerate(part.arguments):
                if isinstance(argument, Block):
                    left = part.operation == "matmul" and position == 0
                    _one_kind(source, kinds, argument, "matrix" if left else "vector")


def _one_kind(
    source: Source, kinds: dict[str, tuple[str, Block]], block: Block, kind: str
) -> None:
    first_kind, first = kinds.setdefault(block.family, (kind, block))
    if kind != first_kind:
        raise source.equation_error(
            block.place,
            f"{block.name} is used as a {kind}, but {first.name} on line {first.place.line} is a "
            f"{first_kind}. A family is one or the other: give the {kind} a family of its own.",
        )


def check_truths(source: Source, equations: Sequence[Equation], states: Sequence[str]) -> None:
    """A comparison stands as the first argument of `where`, and nothing else stands there.

    Raises:
        EquationError: pointing at the argument that is of the wrong kind.
    """
    truths = {
        equation.name
        for equation in equations
        if isinstance(equation.expression, Apply) and _is_truth(equation.expression)
    }
    for equation in equations:
        if equation.name in truths and equation.name in states:
            raise source.equation_error(equation.expression.place, _NO_NUMBER)
        for part in walk(equation.expression):
            if not isinstance(part, Apply):
                continue
            for position, argument in enumerate(part.arguments):
                wanted = part.operation == "where" and position == 0
                found = (isinstance(argument, Name) and argument.id in truths) or (
                    isinstance(argument, Apply) and _is_truth(argument)
                )
                if found and not wanted:
                    raise source.equation_error(argument.place, _NO_NUMBER)
                if wanted and not found:
                    raise source.equation_error(
                        argument.place,
                        "the first argument of where is a comparison, such as x > 0.",
                    )


def _is_truth(expression: Apply) -> bool:
    return OPERATIONS[expression.operation].truth


def in_order_of_use(source: Source, equations: Sequence[Equation]) -> tuple[Equation, ...]:
    """Sort the equations so that each uses earlier ones; keep the written order where it can be.

    Raises:
        EquationError: if equations go round in a circle.
    """
    by_name = {equation.name: equation for equation in equations}
    uses = {
        equation.name: [
            part.id
            for part in walk(equation.expression)
            if isinstance(part, Name) and part.id in by_name
        ]
        for equation in equations
    }
    try:
        graphlib.TopologicalSorter(uses).prepare()
    except graphlib.CycleError as error:
        circle = list(reversed(error.args[1]))
        start = by_name[circle[0]]
        raise source.equation_error(
            start.place,
            f"these equations go round in a circle: {' needs '.join(circle)}. "
            f"Perhaps the value of the step before is meant: {circle[1]}_prev.",
        ) from None
    ordered: dict[str, Equation] = {}

    def place(name: str) -> None:
        if name not in ordered:
            for used in uses[name]:
                place(used)
            ordered[name] = by_name[name]

    for equation in equations:
        place(equation.name)
    return tuple(ordered.values())


def _place_of(source: Source, argument: str) -> Place:
    for number, line in enumerate(source.lines, 1):
        if argument in line:
            start = line.index(argument)
            return Place(number, start, start + len(argument))
    return Place(0, 0, 0)
