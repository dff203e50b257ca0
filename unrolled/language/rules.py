"""What equations must obey as a whole: names given once, states returned, no circles."""

import graphlib
from collections.abc import Iterator, Mapping, Sequence

from .equations import Equation, Head, Source
from .expressions import Apply, Block, Expression, Name, walk, written
from .operations import OPERATIONS


def check_given(source: Source, head: Head, equations: Sequence[Equation]) -> None:
    """Each name is given once, and none by an equation that is given by the step before.

    Raises:
        EquationError: pointing at the first name that breaks a rule.
    """
    taken = {
        **dict.fromkeys(head.inputs, "the input"),
        **dict.fromkeys(head.families, "a family of parameters"),
        **dict.fromkeys(head.constants, "a constant"),
        **dict.fromkeys(head.draws, "a random value"),
    }
    for equation in equations:
        name = equation.name
        if name.endswith("_prev"):
            state = name.removesuffix("_prev")
            raise source.equation_error(
                equation.place,
                f"{name} is the value of {state} at the step before, so no equation of this step "
                f"gives it. Write {state} = …",
            )
        if name in taken:
            raise source.equation_error(
                equation.place,
                f"{name} is given twice: it is {taken[name]} already. Choose another name.",
            )
        taken[name] = f"the left side of line {equation.place.line}"


def check_used(
    source: Source, head: Head, equations: Sequence[Equation], states: Sequence[str]
) -> None:
    """Each state of the step before is returned by this one, and each family is used.

    Raises:
        EquationError: pointing at the argument that breaks a rule.
    """
    given = {equation.name for equation in equations}
    for state in head.remembered:
        if state not in states:
            before = "" if state in given else f", and before it an equation {state} = …"
            raise source.equation_error(
                head.places[f"{state}_prev"],
                f"{state} is not returned, so no step could hand it to the next as {state}_prev. "
                f"Write: return {', '.join([*states, state])}{before}.",
            )
    parts = [part for equation in equations for part in walk(equation.expression)]
    names = {part.id for part in parts if isinstance(part, Name)}
    for draw in head.draws:
        if draw not in names:
            raise source.equation_error(
                head.places[draw], f"no equation uses the random value {draw}. Leave it out."
            )
    used = {part.family for part in parts if isinstance(part, Block)}
    for family in head.families:
        if family not in used:
            raise source.equation_error(
                head.places[family],
                f"no equation uses a block of the family {family}. Leave it out, or use one, such "
                f"as {family}.{states[0]}; a constant would have a value: {family}=0.1.",
            )


def check_families(source: Source, equations: Sequence[Equation]) -> None:
    """A family is made of matrices (left of `@`) or of vectors, not of both.

    Raises:
        EquationError: pointing at the first use that differs from the first one.
    """
    kinds: dict[str, tuple[str, Block]] = {}  # family → kind, first block
    for equation in equations:
        for block, kind in _blocks_as(equation.expression):
            first_kind, first = kinds.setdefault(block.family, (kind, block))
            if kind != first_kind:
                raise source.equation_error(
                    block.place,
                    f"{block.name} is a {kind} here, but {first.name} on line {first.place.line} "
                    f"is a {first_kind}. A family is all matrices, as in W.i @ x, or all vectors, "
                    f"as in b.i: give the {kind} a family of its own.",
                )


def _blocks_as(expression: Expression, kind: str = "vector") -> Iterator[tuple[Block, str]]:
    """Each use of a block, as it is written, and as what it is used."""
    if isinstance(expression, Block):
        yield expression, kind
    elif isinstance(expression, Apply):
        for position, argument in enumerate(expression.arguments):
            matrix = expression.operation == "matmul" and position == 0
            yield from _blocks_as(argument, "matrix" if matrix else "vector")


def check_truths(source: Source, equations: Sequence[Equation], states: Sequence[str]) -> None:
    """A comparison stands as the first argument of `where`, and nothing else stands there.

    Raises:
        EquationError: pointing at the argument that is of the wrong kind.
    """
    truths = {equation.name for equation in equations if _is_comparison(equation.expression)}

    def is_truth(expression: Expression) -> bool:
        return _is_comparison(expression) or (
            isinstance(expression, Name) and expression.id in truths
        )

    for equation in equations:
        alias = isinstance(equation.expression, Name) and is_truth(equation.expression)
        if alias or (equation.name in truths and equation.name in states):
            raise _no_number(source, equation.expression)
        for part in walk(equation.expression):
            if not isinstance(part, Apply):
                continue
            for position, argument in enumerate(part.arguments):
                condition = part.operation == "where" and position == 0
                if is_truth(argument) and not condition:
                    raise _no_number(source, argument)
                if condition and not is_truth(argument):
                    raise source.equation_error(
                        argument.place,
                        "the first argument of where is a comparison; "
                        f"write {written(argument, 4)} > 0.",
                    )


def _no_number(source: Source, truth: Expression) -> Exception:
    return source.equation_error(
        truth.place, f"a comparison is no number; make one of it: where({written(truth)}, 1, 0)."
    )


def _is_comparison(expression: Expression) -> bool:
    return isinstance(expression, Apply) and OPERATIONS[expression.operation].truth


def in_order_of_use(
    source: Source, equations: Sequence[Equation], states: Sequence[str]
) -> tuple[Equation, ...]:
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
        raise _circle(source, by_name, error.args[1][:0:-1], states) from None
    ordered: dict[str, Equation] = {}

    def place(name: str) -> None:
        if name not in ordered:
            for used in uses[name]:
                place(used)
            ordered[name] = by_name[name]

    for equation in equations:
        place(equation.name)
    return tuple(ordered.values())


def _circle(
    source: Source, by_name: Mapping[str, Equation], circle: list[str], states: Sequence[str]
) -> Exception:
    """The error for equations of which each needs the next, and the last the first."""
    first = min(range(len(circle)), key=lambda at: by_name[circle[at]].place.line)
    circle = circle[first:] + circle[:first]
    state = next((name for name in circle if name in states), None)
    remedy = f"If the value of the step before is meant, write {state}_prev."
    if state is None:
        remedy = (
            f"If the value of the step before is meant, write {circle[0]}_prev, name it among the "
            f"arguments, and return {', '.join([*states, circle[0]])}."
        )
    return source.equation_error(
        by_name[circle[0]].place,
        f"these equations go round in a circle: {' needs '.join([*circle, circle[0]])}. {remedy}",
    )
