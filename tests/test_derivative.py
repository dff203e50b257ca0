"""The derivative: its table line by line, then whole cells against autograd and by hand."""

import itertools

import numpy as np
import pytest
from oracles import ORACLES, both_passes
from own_cells import OWN_CELLS
from passes import Case, assert_close

from unrolled import Cell, cells, layer_norm
from unrolled.backends import reference
from unrolled.backends.blocks import split_blocks, stack_blocks
from unrolled.backends.steps import Steps
from unrolled.derivative import DERIVATIVES, differentiate, kept_values
from unrolled.lab import gradient_check
from unrolled.language.expressions import Name, Number
from unrolled.language.operations import ELEMENTWISE, OPERATIONS
from unrolled.language.reading import read_expression
from unrolled.program import count_of

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
    "where": lambda a, b, c: b if a.real else c,
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
    # Where 1 − y or 1 − y² has lost its digits, because y is nearly 1, a rounding error of that 1
    # is all that can be asked for; elsewhere every digit is, also of numbers such as exp(−50).
    saturated = operation == "tanh" or (operation == "sigmoid" and point > 0)
    atol = 2.3e-16 if saturated else 0
    np.testing.assert_allclose(rule(operation, 0, [point]), exact, rtol=1e-13, atol=atol)


def test_a_saturated_gate_has_no_gradient_of_the_wrong_sign():
    for operation, point in itertools.product(("sigmoid", "tanh"), (*POINTS, -1e4, 1e4)):
        assert 0 <= rule(operation, 0, [point]) <= 1


@pytest.mark.parametrize("operation", ["add", "sub", "mul", "div", "maximum", "minimum"])
def test_functions_of_two_numbers(operation):
    for a, b in itertools.product(POINTS, POINTS):
        if operation in ("maximum", "minimum") and a == b:
            continue
        for position in (0, 1):
            exact = complex_step(operation, position, [a, b])
            np.testing.assert_allclose(rule(operation, position, [a, b]), exact, rtol=1e-13)


def whole_power(a, b):
    """A power with a whole exponent, as a product: it is smooth on both sides of 0."""
    product = np.prod([a] * int(abs(b)))
    return product if b >= 0 else 1 / product


def test_powers_of_positive_numbers():
    def power(a, b):
        return np.exp(b * np.log(a))

    for a, b in itertools.product((0.1, 5.0, 50.0), POINTS):
        for position in (0, 1):
            moved = [np.complex128(a), np.complex128(b)]
            moved[position] += 1e-30j
            exact = np.imag(power(*moved)) / 1e-30
            np.testing.assert_allclose(rule("pow", position, [a, b]), exact, rtol=1e-12)


def test_whole_powers_of_all_numbers():
    for a, b in itertools.product(POINTS, (-50.0, -5.0, -2.0, -1.0, 1.0, 2.0, 3.0, 5.0, 50.0)):
        exact = np.imag(whole_power(a + 1e-30j, b)) / 1e-30
        np.testing.assert_allclose(rule("pow", 0, [a, b]), exact, rtol=1e-13)
    for b in (0.0, 1.0, 2.0, 3.0):
        assert rule("pow", 0, [0.0, b]) == (b == 1)  # a ** 0 is 1 everywhere
        assert rule("pow", 1, [0.0, b]) == 0


def test_a_choice_hands_the_gradient_to_what_was_chosen():
    for chosen, b, c in itertools.product((True, False), POINTS, POINTS):
        for position in (1, 2):
            exact = complex_step("where", position, [chosen, b, c])
            assert rule("where", position, [chosen, b, c]) == exact == (chosen == (position == 1))


def test_truth_values_have_no_gradient_and_give_none():
    for operation, rules in DERIVATIVES.items():
        for position, text in enumerate(rules):
            of_truth = operation == "where" and position == 0
            assert (text is None) == (OPERATIONS[operation].truth or of_truth)


@pytest.mark.parametrize("operation", ["maximum", "minimum"])
def test_at_a_tie_both_sides_share(operation):
    for point in (0.0, *POINTS):
        shares = [rule(operation, position, [point, point], dy=3) for position in (0, 1)]
        assert shares == [1.5, 1.5]


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
        for recompute in ("cheap", "near", "all"):
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


def test_published_numbers_of_backpropagation_through_time():
    """The course's laboratory: stated draws with examples as columns, weights on [a_prev; x]."""
    rng = np.random.RandomState(1)
    x, a0, W, U, _, b, _, da = (
        rng.randn(*shape)
        for shape in [(3, 10, 4), (5, 10), (5, 3), (5, 5), (2, 5), (5, 1), (2, 1), (5, 10, 4)]
    )
    found = by_columns(cells.simple, x, [a0], {"W": W, "U": U, "b": b[:, 0]}, da)
    expected = [-2.071016886851007, -0.592556274588873, 0.02466854778006253, 0.01483316637574825]
    np.testing.assert_allclose(found["dx"][1][2], expected, rtol=1e-12)
    assert found["dh_0"].T[2][3] == pytest.approx(-0.3149423751266506, rel=1e-12)
    assert found["dW"][3][1] == pytest.approx(11.264104496527771, rel=1e-12)
    assert found["dU"][1][2] == pytest.approx(2.303333126579893, rel=1e-12)
    assert found["db"][4] == pytest.approx(-0.7474772166221403, rel=1e-12)


def test_published_numbers_of_the_lstm():
    rng = np.random.RandomState(1)
    gate = [(5, 8), (5, 1)]
    x, a0, Wf, bf, Wi, bi, Wo, bo, Wg, bg, da = (
        rng.randn(*shape) for shape in [(3, 10, 7), (5, 10), *gate * 4, (5, 10, 7)]
    )
    both = np.concatenate([Wi, Wf, Wg, Wo])
    parameters = {"W": both[:, 5:], "U": both[:, :5], "b": np.concatenate([bi, bf, bg, bo])[:, 0]}
    found = by_columns(cells.lstm, x, [a0, np.zeros((5, 10))], parameters, da)
    expected = [
        *(-0.03559116097652347, 0.16214985704457283, 0.5517464454346912, 0.46615569554876685),
        *(0.4352902082903002, 0.16976809126309522, 0.6255026052326188),
    ]
    np.testing.assert_allclose(found["dx"][1][2], expected, rtol=1e-12)
    assert found["dh_0"].T[2][3] == pytest.approx(-0.1721353534064506, rel=1e-12)
    assert found["dc_0"].T[2][3] == pytest.approx(0.0017781452334752655, rel=1e-12)
    i, f, g, o = found["dU"].reshape(4, 5, 5)
    for gradient, value in ((f[3][1], -0.22638467525191924), (i[1][2], 0.28679382245026486)):
        assert gradient == pytest.approx(value, rel=1e-12)
    for gradient, value in ((g[3][1], 0.10261063342290468), (o[1][2], 0.06417416071020463)):
        assert gradient == pytest.approx(value, rel=1e-12)
    biases = [0.12896283809314374, -0.13413502271602878, 0.32840043959100695, -0.7701848872277554]
    np.testing.assert_allclose(found["db"].reshape(4, 5)[:, 4], biases, rtol=1e-12)


def by_columns(cell, x, states, parameters, da):
    """Both passes of a cell on arrays (n, m, T), dx too; nothing comes back from the end."""
    _, m, T = x.shape
    case = Case(
        cell,
        cell.bind(len(x), len(da)),
        Steps.dense(T, m),
        x.transpose(2, 1, 0).reshape(T * m, -1),
        [state.T for state in states],
        parameters,
        da.transpose(2, 1, 0).reshape(T * m, -1),
        [np.zeros_like(state.T) for state in states],
    )
    found = case.both_passes(reference.run)
    return {**found, "dx": found["dx"].reshape(T, m, -1).transpose(2, 1, 0)}


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
    near, everything = (
        kept_values(differentiate(cells.lstm.forward, recompute=recompute))
        for recompute in ("near", "all")
    )
    assert near == ("i", "f", "g", "o", "h_prev", "c_prev")
    assert everything == ("h_prev", "c_prev")
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


@pytest.mark.parametrize(
    "line",
    [
        "h = tanh(d * (1 / sqrt(mean(d * d) + 0.1)))",
        "h = tanh(d * mean(d * a) - mean(d))",
        "h = tanh(a - mean(a) * 2)",
        "h = tanh((d - mean(d)) * sum(d * d)) - d * sum(a)",
        "h = d * 3 * mean(b) + 2 * b",
        "h = tanh((b - mean(a)) * mean(d)) + mean(d * d)",
        "h = -(d - mean(-d)) * sqrt(1 + mean(d * b)) * (1 / sqrt(1 + mean(d * b)))",
        "h = tanh(d + d * d * mean(d)) + sum(d)",
    ],
)
def test_what_is_centred_adds_up_to_nothing(line):
    text = (
        "def centring(x, h_prev, *, U):\n    a = x + U.h @ h_prev\n    b = a * x\n"
        f"    d = a - mean(a)\n    {line}\n    return h\n"
    )
    gradient_check(Cell.parse(text)).check()


def test_a_norm_waits_for_one_pair_of_sums():
    """Ba 2016: the gradients of a mean and of a variance need nothing of each other."""
    adjoint = differentiate(layer_norm(cells.simple).forward)
    sums = [i for i in adjoint.instructions if i.operation == "sum"]
    assert len(sums) == 4  # two norms
    above: dict[str, int] = {}  # how many sums stand above each value
    for instruction in adjoint.instructions:
        here = max((above.get(name, 0) for name in instruction.operands), default=0)
        above[instruction.name] = here + (instruction.operation == "sum")
    assert max(above.values()) == 1


def test_a_root_whose_reciprocal_is_known_has_a_gradient_without_a_division():
    adjoint = differentiate(layer_norm(cells.simple).forward)
    assert "sqrt" not in {instruction.operation for instruction in adjoint.instructions}
    divisors = {i.arguments[1] for i in adjoint.instructions if i.operation == "div"}
    assert divisors == {count_of("H")}


@pytest.mark.parametrize("recompute", ["near", "all"])
def test_a_long_chain_of_values_that_are_used_twice_takes_no_time(recompute):
    """Each of its values is found once, not once for each of the 2^60 ways that lead to it."""
    lines = [f"    a{number + 1} = a{number} * (1 - a{number})" for number in range(60)]
    head = ["def doubled(x, h_prev, *, W, U):", "    a0 = W.a @ x + U.a @ h_prev"]
    cell = Cell.parse("\n".join([*head, *lines, "    h = tanh(a60)", "    return h"]))
    adjoint = differentiate(cell.forward, recompute=recompute)
    assert len(adjoint.instructions) > 60
