"""Simplifying: each rule, and that it never changes a bit."""

import itertools

import numpy as np
import pytest
from own_cells import OWN_CELLS
from passes import Case

from unrolled import Cell, cells
from unrolled.backends import reference
from unrolled.backends.steps import Steps
from unrolled.language.operations import OPERATIONS
from unrolled.simplify import _COMPARISONS, _ON_NUMBERS, simplify

ALL_CELLS = {**cells.catalogue(), **OWN_CELLS}


def simplified(*equations, state="h"):
    """The instructions that are left of a cell with inputs x, states h and c."""
    body = "".join(f"    {equation}\n" for equation in equations)
    text = f"def some(x, h_prev, c_prev, *, P, k=3):\n{body}    c = P.c * c_prev\n    return h, c\n"
    left = Cell.parse(text).forward.instructions
    return [str(instruction) for instruction in left if instruction.name != "c"]


@pytest.mark.parametrize(
    ("equation", "left"),
    [
        ("h = h_prev + 2 * 3 - 1", ["_2 = h_prev + 6", "h = _2 - 1"]),
        ("h = h_prev * (k - 1)", ["h = h_prev * 2"]),
        ("h = h_prev + 0", ["h = h_prev"]),
        ("h = 0 + h_prev", ["h = h_prev"]),
        ("h = h_prev - 0", ["h = h_prev"]),
        ("h = 0 - h_prev", ["h = -h_prev"]),
        ("h = 1 * h_prev", ["h = h_prev"]),
        ("h = h_prev * 1", ["h = h_prev"]),
        ("h = h_prev / 1", ["h = h_prev"]),
        ("h = h_prev ** 1", ["h = h_prev"]),
        ("h = h_prev ** 2", ["h = h_prev * h_prev"]),
        ("h = h_prev ** 0.5", ["h = sqrt(h_prev)"]),
        ("h = h_prev ** -1", ["h = 1 / h_prev"]),
        ("h = h_prev * tanh(0)", ["h = h_prev * 0"]),  # stays: it is NaN where h_prev is
        ("h = where(1 < 2, h_prev, x)", ["h = h_prev"]),
        ("h = where(k == 2, h_prev, x)", ["h = x"]),
        ("h = h_prev * maximum(2, k)", ["h = h_prev * 3"]),
        ("h = tanh(h_prev) * tanh(h_prev)", ["_1 = tanh(h_prev)", "h = _1 * _1"]),
        ("h = h_prev + -x", ["h = h_prev - x"]),
        ("h = h_prev - -x", ["h = h_prev + x"]),
        ("h = -x + h_prev", ["_1 = -x", "h = _1 + h_prev"]),  # sums keep their order
        ("h = h_prev + -x * -x", ["_1 = -x", "_3 = _1 * _1", "h = h_prev + _3"]),
        ("h = h_prev * (0 - 1)", ["h = h_prev * (-1)"]),
        ("h = h_prev * where(2 >= 2, 3, k)", ["h = h_prev * 3"]),
    ],
)
def test_a_rule(equation, left):
    assert simplified(equation) == left


def test_what_nobody_wants_is_left_out():
    assert simplified("unused = exp(x)", "h = h_prev") == ["h = h_prev"]


@pytest.mark.parametrize("operation", sorted(_ON_NUMBERS))
def test_numbers_are_folded_to_what_the_reference_computes(operation):
    function, truth = _ON_NUMBERS[operation], reference.OPERATIONS[operation]
    points = (-1000.0, -50.0, -0.3, -0.0, 0.0, 0.3, 2.0, 50.0, 1000.0, np.inf, -np.inf, np.nan)
    folded = 0
    for arguments in itertools.product(points, repeat=OPERATIONS[operation].arity):
        try:
            number = function(*arguments)
        except (ValueError, OverflowError, ZeroDivisionError):
            continue  # it is left to the run
        with np.errstate(all="ignore"):
            expected = truth(*map(np.float64, arguments))
        np.testing.assert_allclose(number, expected, rtol=4e-15, atol=0, err_msg=str(arguments))
        folded += 1
    assert folded > len(points) // 3


@pytest.mark.parametrize("operation", sorted(_COMPARISONS))
def test_numbers_are_compared_as_the_reference_does(operation):
    for a, b in itertools.product((-1.0, -0.0, 0.0, 2.0, np.inf, np.nan), repeat=2):
        assert _COMPARISONS[operation](a, b) == reference.OPERATIONS[operation](a, b)


def test_what_is_handed_on_or_given_keeps_its_name():
    program = Cell.parse(
        "def f(x, h_prev, c_prev):\n    c = x\n    h = x\n    k = x\n    return h, c\n"
    ).program.with_outputs(("h",), ("k",))
    simple = simplify(program)
    assert [str(i) for i in simple.instructions] == ["c = x", "h = x", "k = x"]
    assert (simple.outputs, simple.carried) == (program.outputs, program.carried)


def test_numbers_that_python_cannot_work_out_are_left_to_the_run():
    for number in ("1 / 0", "log(-1)", "exp(1000)", "(-8) ** 0.5"):
        cell = Cell.parse(f"def f(x, h_prev):\n    h = h_prev + x + {number}\n    return h\n")
        x = np.ones((1, 1, 2))
        before = cell.run(x, {})[0]
        steps = Steps.dense(1, 1)
        after = reference.run(cell.forward, {"I": 2}, [x[0]], [np.zeros((1, 2))], {}, steps)
        np.testing.assert_array_equal(after.outputs[0], before[0])
        assert not np.isfinite(before).any()


@pytest.mark.parametrize("cell", ALL_CELLS.values(), ids=ALL_CELLS.keys())
def test_not_a_bit_is_changed(cell):
    case = Case.draw(cell, Steps.dense(6, 3), 7, 7)
    arguments = (case.sizes, [case.x], case.states, case.parameters, case.steps)
    before = reference.run(cell.program, *arguments)
    after = reference.run(simplify(cell.program), *arguments)
    for one, other in zip(
        (*before.outputs, *before.states), (*after.outputs, *after.states), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert len(simplify(cell.program).instructions) <= len(cell.program.instructions)


@pytest.mark.parametrize("cell", ALL_CELLS.values(), ids=ALL_CELLS.keys())
def test_simplifying_twice_is_simplifying_once(cell):
    for program in (cell.forward, cell.backward):
        assert simplify(program) == program
