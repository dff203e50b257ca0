"""The derivative: its table line by line, then whole cells against autograd and by hand."""

import itertools

import numpy as np
import pytest
from oracles import ORACLES, both_passes
from own_cells import OWN_CELLS
from passes import Case, assert_close

from unrolled import Cell, cells
from unrolled.backends import reference
from unrolled.backends.blocks import split_blocks, stack_blocks
from unrolled.backends.steps import Steps
from unrolled.derivative import DERIVATIVES, differentiate, kept_values
from unrolled.language.expressions import Name, Number
from unrolled.language.operations import ELEMENTWISE, OPERATIONS
from unrolled.language.reading import read_expression

POINTS = (-50.0, -5.0, -0.1, 0.1, 5.0, 50.0)
ALL_CELLS = {**cells.catalogue(), **OWN_CELLS}
RAGGED = Steps(np.array([4, 4, 3, 1, 1]), 5)  # the fifth row has no step at all

# Where the functions are smooth and defined, for the complex step.
ANALYTIC = {
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "softplus": lambda a: (
        np.where(a.real > 0, a, 0) + np.log1p(np.exp(np.where(a.real > 0, -a, a)))
    ),
    "abs": lambda a: np.where(a.real > 0, a, -a),
    "relu": lambda a: np.where(a.real > 0, a, 0 * a),
    "maximum": lambda a, b: np.where(a.real > b.real, a, b),
    "minimum": lambda a, b: np.where(a.real < b.real, a, b),
    "pow": np.power,
}


def evaluate(text, values):
    """A rule of the table, by the reference's operations."""

    def of(expression):
        match expression:
            case Number(value=value):
                return np.float64(value)
            case Name(id=name):
                return values[name]
        return reference.OPERATIONS[expression.operation](*map(of, expression.arguments))

    with np.errstate(all="ignore"):
        return of(read_expression(text, values))


def rule(operation, position, arguments, dy=1.0):
    values = {name: np.float64(a) for name, a in zip("abc", arguments, strict=False)}
    values["y"] = reference.OPERATIONS[operation](*values.values())
    return evaluate(DERIVATIVES[operation][position], {**values, "dy": np.float64(dy)})


def complex_step(operation, position, arguments):
    """The derivative without cancellation: Im f(a + ih) / h (Squire & Trapp 1998)."""
    function = ANALYTIC.get(operation, reference.OPERATIONS[operation])
    moved = [np.complex128(a) for a in arguments]
    moved[position] += 1e-30j
    return np.imag(function(*moved)) / 1e-30


def test_the_table_has_a_line_for_every_operation_that_works_unit_by_unit():
    assert DERIVATIVES.keys() == ELEMENTWISE
    for operation, rules in DERIVATIVES.items():
        assert len(rules) == OPERATIONS[operation].arity


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    "operation",
    ["same", "neg", "sigmoid", "tanh", "exp", "log", "sqrt", "abs", "relu", "softplus"],
)
def test_functions_of_one_number(operation, point):
    if operation in ("log", "sqrt"):
        point = abs(point)  # elsewhere they are not defined
    exact = complex_step(operation, 0, [point])
    # Where a saturated function has lost its last digits (1 − y at y ≈ 1), one rounding error is
    # all that can be asked for; elsewhere every digit is.
    np.testing.assert_allclose(rule(operation, 0, [point]), exact, rtol=1e-13, atol=2.3e-16)


@pytest.mark.parametrize("operation", ["add", "sub", "mul", "div", "maximum", "minimum"])
def test_functions_of_two_numbers(operation):
    for a, b in itertools.product(POINTS, POINTS):
        if operation in ("maximum", "minimum") and a == b:
            continue
        for position in (0, 1):
            exact = complex_step(operation, position, [a, b])
            np.testing.assert_allclose(rule(operation, position, [a, b]), exact, rtol=1e-13)


def test_powers():
    for a, b in itertools.product((0.1, 5.0, 50.0), POINTS):
        for position in (0, 1):
            exact = complex_step("pow", position, [a, b])
            np.testing.assert_allclose(rule("pow", position, [a, b]), exact, rtol=1e-11)
    for a, b in itertools.product((-50.0, -0.1), (-5.0, -2.0, 1.0, 2.0, 3.0, 5.0)):
        np.testing.assert_allclose(rule("pow", 0, [a, b]), b * a ** (b - 1), rtol=1e-13)
    assert rule("pow", 0, [0.0, 2.0]) == 0
    assert rule("pow", 0, [0.0, 0.0]) == 0  # a ** 0 is 1 everywhere
    assert rule("pow", 1, [0.0, 3.0]) == 0


def test_a_choice_hands_the_gradient_to_what_was_chosen():
    for chosen, (da, db) in ((True, (7, 0)), (False, (0, 7))):
        assert rule("where", 1, [chosen, 2.0, 3.0], dy=7) == da
        assert rule("where", 2, [chosen, 2.0, 3.0], dy=7) == db


@pytest.mark.parametrize("operation", ["maximum", "minimum"])
def test_at_a_tie_both_sides_share(operation):
    assert [rule(operation, position, [2.0, 2.0], dy=3) for position in (0, 1)] == [1.5, 1.5]


@pytest.mark.parametrize("operation", ["abs", "relu"])
def test_at_a_kink_there_is_no_gradient(operation):
    assert rule(operation, 0, [0.0], dy=3) == 0


@pytest.mark.parametrize("operation", sorted(set(DERIVATIVES) - {"where", "same"}))
def test_every_rule_is_linear_in_the_gradient(operation):
    for position, text in enumerate(DERIVATIVES[operation]):
        if text is not None:
            arguments = [0.7, 1.9][: OPERATIONS[operation].arity]
            once, twice = (rule(operation, position, arguments, dy) for dy in (1.0, 2.0))
            assert twice == pytest.approx(2 * once, rel=1e-15)


# whole cells


def by_autograd(case, reverse=False):
    """The same gradients by torch's autograd, through the forward program only."""
    torch = pytest.importorskip("torch")
    from unrolled.backends import eager

    def leaf(array):
        return torch.from_numpy(array.copy()).requires_grad_()

    x, states = leaf(case.x), [leaf(state) for state in case.states]
    parameters = {name: leaf(array) for name, array in case.parameters.items()}
    forward = case.cell.program.with_outputs((case.cell.states[0],))
    result = eager.run(forward, case.sizes, [x], states, parameters, case.steps, reverse)
    torch.autograd.backward(
        [result.outputs[0], *result.states],
        [torch.from_numpy(gradient) for gradient in (case.dy, *case.dstates)],
    )
    names = case.cell.states
    gradients = {
        "dx": x,
        **{f"d{name}_0": state for name, state in zip(names, states, strict=True)},
        **{f"d{family}": array for family, array in parameters.items()},
    }
    return {
        "y": result.outputs[0].detach().numpy(),
        **{f"last {n}": a.detach().numpy() for n, a in zip(names, result.states, strict=True)},
        **{
            name: np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
            for name, leaf in gradients.items()
        },
    }


@pytest.mark.parametrize("cell", ALL_CELLS.values(), ids=ALL_CELLS.keys())
@pytest.mark.parametrize("steps", [Steps.dense(5, 3), RAGGED], ids=["dense", "ragged"])
def test_cells_agree_with_autograd(cell, steps):
    case = Case.draw(cell, steps, 6, 6)
    for reverse in (False, True):
        expected = by_autograd(case, reverse)
        for recompute in (False, True):
            found = case.both_passes(reference.run, reverse=reverse, recompute=recompute)
            assert_close(found, expected, 1e-11)


@pytest.mark.parametrize("name", ORACLES)
def test_cells_agree_with_backpropagation_by_hand(name):
    cell = getattr(cells, name)
    T, B, I, H = 7, 3, 4, 5  # noqa: E741
    case = Case.draw(cell, Steps.dense(T, B), I, H)
    blocks = split_blocks(cell.program, case.sizes, case.parameters)
    y, last, dx, dinitial, dp = both_passes(
        name, case.x.reshape(T, B, I), case.states, blocks, case.dy.reshape(T, B, H), case.dstates
    )
    expected = {
        "y": y.reshape(T * B, H),
        **{f"last {s}": a for s, a in zip(cell.states, last, strict=True)},
        "dx": dx.reshape(T * B, I),
        **{f"d{s}_0": a for s, a in zip(cell.states, dinitial, strict=True)},
        **{f"d{family}": a for family, a in stack_blocks(cell.program, dp).items()},
    }
    assert_close(case.both_passes(reference.run), expected, 1e-12)


def test_saturated_cells_have_finite_gradients():
    for cell in (cells.lstm, cells.gru, cells.simple, cells.peephole_lstm):
        case = Case.draw(cell, Steps.dense(4, 3), 5, 6)
        case.x *= 1e4
        for name, array in case.both_passes(reference.run).items():
            assert np.isfinite(array).all(), name


def test_the_gradient_of_every_state_at_every_step_can_be_given():
    torch = pytest.importorskip("torch")
    from unrolled.backends import eager

    cell, steps = cells.lstm, Steps.dense(4, 2)
    case = Case.draw(cell, steps, 3, 5)
    gradients = np.random.default_rng(1).standard_normal((steps.rows, 10))  # of h and of c
    adjoint = differentiate(cell.forward, outputs=("h", "c"))
    forward = cell.forward.with_outputs(("h", "c"), kept_values(adjoint))
    rest = (case.parameters, steps)
    _, kept = reference.run(forward, case.sizes, [case.x], case.states, *rest).outputs
    zeros = [np.zeros_like(state) for state in case.states]
    back = reference.run(adjoint, case.sizes, [case.x, kept, gradients], zeros, *rest)
    x = torch.from_numpy(case.x).requires_grad_()
    both = eager.run(
        cell.program.with_outputs(("h", "c")),
        case.sizes,
        [x],
        [torch.from_numpy(state) for state in case.states],
        {name: torch.from_numpy(array) for name, array in case.parameters.items()},
        steps,
    )
    both.outputs[0].backward(torch.from_numpy(gradients))
    np.testing.assert_allclose(back.outputs[0], x.grad.numpy(), rtol=1e-11, atol=1e-14)


def test_what_is_kept_is_what_is_costly():
    assert set(kept_values(cells.lstm.backward)) >= {"i", "f", "g", "o", "h_prev", "c_prev"}
    assert "c" not in kept_values(cells.lstm.backward)
    assert kept_values(differentiate(cells.lstm.forward, recompute=True)) == ("h_prev", "c_prev")
    assert kept_values(cells.simple_relu.backward) == ("h", "h_prev")


def test_names_that_look_like_gradients_are_no_trouble():
    cell = Cell.parse(
        "def tricky(x, h_prev, dh_prev, *, W):\n"
        "    dh = tanh(W.a @ x + dh_prev)\n"
        "    h = dh * h_prev + x_pre\n"
        "    x_pre = tanh(W.b @ x)\n"
        "    return h, dh\n"
    )
    case = Case.draw(cell, Steps.dense(4, 3), 2, 5)
    assert_close(case.both_passes(reference.run), by_autograd(case), 1e-11)
