"""Sums and means over units, families that say where they begin, and layer norm made of both."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import unrolled
from unrolled import Cell, EquationError, InputError, SizeError, cells
from unrolled.backends.cpu import kernel_for
from unrolled.lab import gradient_check
from unrolled.nn import Recurrent
from unrolled.schedule import schedule

T, B, X, H = 6, 3, 4, 5
SOFTMAX = """
def softmax(x, h_prev, *, W, U):
    e = exp(W.e @ x + U.e @ h_prev)
    h = e / sum(e)
    return h
"""


def parsed(line, keywords="W, U"):
    return Cell.parse(f"def toy(x, h_prev, *, {keywords}):\n    {line}\n    return h")


# the language


def test_a_sum_over_units_is_one_number():
    cell = Cell.parse(SOFTMAX)
    assert cell.sizes.values["h"] == "H"
    y, _ = cell.run(np.random.default_rng(0).standard_normal((T, B, X)), cell.init(X, H, rng=0))
    np.testing.assert_allclose(y.sum(-1), np.ones((T, B)), rtol=1e-15)
    assert "sum(e)" in str(cell)


def test_a_mean_can_go_with_vectors_of_another_size():
    cell = Cell.parse(
        "def f(x, h_prev, c_prev, *, W, U):\n"
        "    c = tanh(W.c @ x) * mean(h_prev)\n"
        "    h = tanh(U.h @ c)\n"
        "    return h, c"
    )
    assert (cell.sizes.values["h"], cell.sizes.values["c"]) == ("H_h", "H_c")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("h = W.h @ x + U.h @ h_prev * mean(2)", "mean is taken over the units of a vector"),
        ("h = sum(W.h @ x + U.h @ h_prev)", "h is one number for all units"),
    ],
)
def test_a_number_has_no_units(line, says):
    with pytest.raises(SizeError, match=says):
        _ = parsed(line).sizes


def test_a_family_says_where_it_begins():
    line = "h = tanh(gain.h * (W.h @ x + U.h @ h_prev) + b.h)"
    cell = parsed(line, "W, U, gain=initial(1), b=initial(-2.5)")
    assert Cell.parse(cell.text) == cell
    assert cell != parsed(line, "W, U, gain=initial(1), b")
    params = cell.init(X, H, rng=0, dtype=np.float32)
    np.testing.assert_array_equal(params["gain.h"], np.ones(H, np.float32))
    np.testing.assert_array_equal(params["b.h"], np.full(H, -2.5, np.float32))
    assert params["W.h"].std() > 0
    layer = Recurrent(cell, X, H, num_layers=2)
    for name, parameter in layer.named_parameters():
        begin = {"gain": 1.0, "b": -2.5}.get(name.partition("_")[0])
        assert (parameter == begin).all() if begin else parameter.std() > 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("initial()", "a family begins at one number"),
        ("initial(1, 2)", "a family begins at one number"),
        ("initial(number=1)", "a family begins at one number"),
        ("initial(x)", "is a number, as in U=0.1"),
        ("initial(1e999)", "too large"),
        ("normal(1)", "normal is no distribution"),
    ],
)
def test_a_beginning_that_cannot_be_read_points_at_its_place(wrong, says):
    with pytest.raises(EquationError, match=says) as raised:
        parsed("h = tanh(W.h @ x + U.h @ h_prev)", f"W, U={wrong}")
    assert "^" in str(raised.value)


def test_names_of_a_definition_are_python_too():
    @unrolled.cell
    def softened(x, h_prev, *, W, gain=unrolled.initial(1), m=unrolled.dropout(0.5)):  # noqa: B008
        h = tanh(gain.h * (W.h @ x) + m * h_prev - mean(h_prev))  # noqa: F821
        return h

    assert softened.equations.initial == {"gain": 1.0}
    assert unrolled.bernoulli(0.2) == 0.2
    np.testing.assert_array_equal(unrolled.mean([[1.0, 3.0], [5.0, 5.0]]), [[2.0], [5.0]])


# the schedule


def test_what_needs_a_sum_stands_in_the_stage_after_it():
    found = schedule(unrolled.layer_norm(cells.simple).forward)
    assert [len(stage.products) for stage in found.before] == [1, 0]
    assert [len(stage.products) for stage in found.loop] == [1, 0, 0]
    back = schedule(unrolled.layer_norm(cells.simple).backward)
    assert [len(stage.products) for stage in back.loop] == [0, 0, 1]
    assert [len(stage.products) for stage in back.after] == [0, 0, 1]


def test_stages_without_a_product_go_through_the_batch_once():
    text = kernel_for(unrolled.layer_norm(cells.simple).backward, np.dtype("float32")).text
    assert text.count("for row in range(") == 2  # in the loop, and after it


# layer norm


def oracle(layer, x):
    """Equations 20 to 22 of the paper by torch's own layer norm, gate by gate."""
    W, U, b, gain, shift = layer._families(0)
    names = [name.partition(".")[2] for name in layer.cell.program.families["gain"]]
    gains = dict(zip(names, gain.split(H), strict=True))

    def norm(value, name):
        return F.layer_norm(value, (H,), gains[name])

    h = c = x.new_zeros(x.shape[1], H)
    found = []
    for x_t in x:
        pre = [
            norm(x_t @ w.T, f"W_{gate}") + norm(h @ u.T, f"U_{gate}") + bias
            for gate, w, u, bias in zip("ifgo", W.split(H), U.split(H), b.split(H), strict=True)
        ]
        i, f, o = (torch.sigmoid(pre[k]) for k in (0, 1, 3))
        c = f * c + i * torch.tanh(pre[2])
        h = o * torch.tanh(norm(c, "c") + shift)
        found.append(h)
    return torch.stack(found), h, c


@pytest.mark.parametrize("backend", ["auto", "eager", "reference"])
def test_layer_norm_is_that_of_the_paper(backend):
    torch.manual_seed(0)
    layer = Recurrent(unrolled.layer_norm(cells.lstm), X, H, backend=backend, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(T, B, X, dtype=torch.float64, requires_grad=True)
    y, (h, c) = layer(x)
    expected = oracle(layer, x)
    for found, wanted in zip((y, h[0], c[0]), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    everything = [x, *layer.parameters()]
    weights = torch.randn_like(y)
    found = torch.autograd.grad((y * weights).sum() + c.sum(), everything)
    wanted = torch.autograd.grad((expected[0] * weights).sum() + expected[2].sum(), everything)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_weights_get_their_gradients_where_the_input_wants_none():
    """What a norm of the input hands on is computed after the loop, with dx and without."""
    layer = Recurrent(unrolled.layer_norm(cells.lstm), X, H, dtype=torch.float64)
    x = torch.randn(T, B, X, dtype=torch.float64)
    parameters = [*layer.parameters()]
    found = torch.autograd.grad(layer(x)[0].sin().sum(), parameters)
    layer.backend = "reference"
    wanted = torch.autograd.grad(layer(x)[0].sin().sum(), parameters)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", cells.catalogue().values(), ids=cells.catalogue())
def test_every_cell_has_a_norm_with_exact_gradients(cell):
    normed = unrolled.layer_norm(cell)
    assert Cell.parse(normed.text) == normed
    assert normed.equations.initial["gain"] == 1
    gradient_check(unrolled.layer_norm(cell, 0.1)).check()


def test_how_large_the_weights_are_does_not_matter():
    layer = Recurrent(unrolled.layer_norm(cells.gru, epsilon=1e-12), X, H, dtype=torch.float64)
    larger = copy.deepcopy(layer)
    with torch.no_grad():
        larger.W_l0 *= 7
        larger.U_l0 *= 0.3
    x = torch.randn(T, B, X, dtype=torch.float64)
    with torch.no_grad():
        layer.b_U_l0.zero_()
        larger.b_U_l0.zero_()
        torch.testing.assert_close(layer(x)[0], larger(x)[0], rtol=1e-6, atol=1e-6)


def test_the_state_that_is_carried_on_is_left_as_it_is():
    text = unrolled.layer_norm(cells.lstm).text
    assert "c = f * c_prev + i * g\n" in text
    assert "h = o * tanh(gain.c * c_normed + shift.c)\n" in text


def test_a_name_that_is_taken_is_left_alone():
    taken = parsed("h = tanh(gain.h * (W.h @ x) + U.h @ h_prev)", "W, U, gain")
    assert unrolled.layer_norm(taken).equations.initial == {"gain_2": 1.0}


@pytest.mark.parametrize("epsilon", [0, -1, float("nan"), float("inf"), True])
def test_an_epsilon_that_is_none(epsilon):
    with pytest.raises(InputError, match="layer_norm needs an epsilon above 0; found"):
        unrolled.layer_norm(cells.lstm, epsilon)


def test_a_cell_without_a_product():
    with pytest.raises(InputError, match="has no product, so layer_norm has nothing to do"):
        unrolled.layer_norm(parsed("h = 0.5 * h_prev + P.h * x", "P"))
