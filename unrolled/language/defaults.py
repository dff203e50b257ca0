"""What an argument behind the `*` may be given: a constant, a random value, where to begin."""

import ast
import math
from dataclasses import dataclass
from typing import get_args

from .definition import place_of
from .equations import Distribution, Draw, Source


@dataclass(frozen=True)
class Initial:
    """`gain=initial(1)`: every parameter of the family begins at this number."""

    number: float


def value_of(source: Source, name: str, default: ast.expr | None) -> float | Draw | Initial | None:
    """Read `0.1`, `dropout(0.3)`, `bernoulli(0.1, every="step")` or `initial(1)`.

    Args:
        source: for errors.
        name: the argument's.
        default: what stands behind its `=`; None if nothing does, and it is a family.

    Raises:
        EquationError: if it is none of these.
    """
    if not isinstance(default, ast.Call):
        return None if default is None else _constant(source, name, default)
    written = ast.unparse(default.func)
    called = written.rpartition(".")[2]  # of `unrolled.dropout` too
    if called == "initial":
        if len(default.args) != 1 or default.keywords:
            raise _error(
                source, default, f"a family begins at one number, as in {name}=initial(1)."
            )
        return Initial(_constant(source, name, default.args[0]))
    if called in get_args(Distribution):
        return _draw(source, called, default)
    raise _error(
        source,
        default.func,
        f"{written} is no distribution. Known here: {', '.join(get_args(Distribution))}, and "
        "initial, which says where a family begins. A constant is a number, as in dt=0.1.",
    )


def finite_number(source: Source, node: ast.expr) -> float:
    """The number that stands there.

    Raises:
        EquationError: if it is beyond the largest float.
    """
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, int | float)
    try:
        value = float(node.value)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        raise _error(source, node, "this number is too large; the largest is about 1.8e308.")
    return value


def is_number(node: ast.expr) -> bool:
    """Whether a number stands there, and no truth value."""
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _constant(source: Source, name: str, default: ast.expr) -> float:
    negative = isinstance(default, ast.UnaryOp) and isinstance(default.op, ast.USub)
    number = default.operand if isinstance(default, ast.UnaryOp) and negative else default
    if not is_number(number):
        raise _error(source, default, f"the constant {name} is a number, as in {name}=0.1.")
    value = finite_number(source, number)
    return -value if negative else value


def _draw(source: Source, distribution: str, call: ast.Call) -> Draw:
    every = "sequence"
    match call.keywords:
        case []:
            pass
        case [ast.keyword(arg="every", value=ast.Constant(value="sequence" | "step" as given))]:
            every = given
        case _:
            raise _error(
                source,
                call,
                'a draw is made every="sequence", which is meant where nothing is said, or '
                f'every="step": {distribution}(0.1, every="step").',
            )
    if len(call.args) != 1 or not is_number(call.args[0]):
        raise _error(source, call, f"a draw has a probability: {distribution}(0.1).")
    p = finite_number(source, call.args[0])
    if not 0 <= p < 1:
        raise _error(source, call.args[0], f"{p:g} is no probability from 0 to below 1.")
    return Draw(distribution, p, every)  # type: ignore[arg-type]


def _error(source: Source, node: ast.AST, problem: str) -> Exception:
    return source.equation_error(place_of(source, node), problem)
