"""Gradient checking: right gradients pass, wrong ones are named and guessed at."""

import dataclasses
import re

import numpy as np
import pytest

from unrolled import Cell, InputError, cells, derivative, recurrence
from unrolled.errors import GradientError
from unrolled.lab.differences import gradient_check
from unrolled.network import Network

RNG = np.random.default_rng(4)
X, A0 = RNG.standard_normal((3, 2, 5)), RNG.standard_normal((4, 2))  # (n, m, T), as in courses
WAX, WAA = RNG.standard_normal((4, 3)), RNG.standard_normal((4, 4)) / 2
ARRAYS = {"x": X, "a0": A0, "Wax": WAX, "Waa": WAA}


def rnn(x, a0, Wax, Waa):
    states = [a0]
    for t in range(x.shape[2]):
        states.append(np.tanh(Wax @ x[:, :, t] + Waa @ states[-1]))
    return np.stack(states[1:], axis=2)


def rnn_backward(da, x, a0, Wax, Waa, carried=1.0):
    a = np.concatenate([a0[:, :, None], rnn(x, a0, Wax, Waa)], axis=2)
    found = {f"d{name}": np.zeros_like(array) for name, array in ARRAYS.items()}
    behind = np.zeros_like(a0)
    for t in reversed(range(x.shape[2])):
        dz = (da[:, :, t] + carried * behind) * (1 - a[:, :, t + 1] ** 2)
        found["dx"][:, :, t] = Wax.T @ dz
        found["dWax"] += dz @ x[:, :, t].T
        found["dWaa"] += dz @ a[:, :, t].T
        behind = Waa.T @ dz
    return {**found, "da0": behind, "something": 1}


@pytest.mark.parametrize("cell", cells.catalogue().values(), ids=lambda cell: cell.name)
def test_every_cell_of_the_catalogue_is_right(cell, capsys):
    result = gradient_check(cell, entries=6).check()
    assert result.passed
    assert capsys.readouterr().out == f"{result}\n"
    names = [array.name for array in result.arrays]
    blocks = [f"d{block}" for block in cell.sizes.shapes]
    assert names == ["dx", *(f"d{state}<0>" for state in cell.states), *blocks]
    assert all(array.error < 1e-6 for array in result.arrays)
    assert "All gradients are right: the worst entry, " in str(result)


def test_networks_are_checked_on_data_of_ones_own():
    network = Network.init(cells.gru, 3, 2, 2, True, rng=0)
    x = np.random.default_rng(1).standard_normal((4, 3, 3)).astype(np.float32)
    before = x.copy(), network.params[0][0]["W.r"].copy()
    result = gradient_check(network, x=x, lengths=[4, 0, 2], entries=4).check()
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(network.params[0][0]["W.r"], before[1])
    assert [array.shape for array in result.arrays[:2]] == [(4, 3, 3), (4, 3, 2)]
    named = {array.name: array.worst for array in result.arrays}
    assert named["d←U.n[2]"].startswith("d←U.n[")
    assert named["d←U.n[2]"].endswith("][2]")
    assert "dh<0>" in named
    state = np.ones((4, 3, 2))
    assert gradient_check(network, x=x[:, :, :3], state=state, entries=2).passed
    assert gradient_check(Network.init(cells.lstm, 3, 2, rng=0), x=x[:, 0], entries=2).passed


def test_a_cell_whose_input_and_state_are_of_one_size():
    cell = Cell.parse("def leak(x, h_prev, *, P):\n    h = P.h * h_prev + x\n    return h\n")
    assert gradient_check(cell).passed


def test_the_table_and_the_result():
    result = gradient_check(cells.simple)
    lines = str(result).splitlines()
    assert lines[0] == "Gradient check of cell 'simple'"
    assert lines[2].split() == ["array", "shape", "worst", "error", "at", "gradient", "difference"]
    assert [line.split()[0] for line in lines[3:-2]] == ["dx", "dh<0>", "dW.h", "dU.h", "db.h"]
    assert repr(result).startswith("<gradient check of cell 'simple': right, d")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.tolerance = 1


@pytest.fixture
def wrong_rule(monkeypatch):
    """Changes a line of the table of derivatives, and forgets what follows from it."""

    def forget():
        recurrence._programs.cache_clear()

    def change(operation, rule):
        monkeypatch.setitem(derivative.DERIVATIVES, operation, rule)
        forget()

    yield change
    monkeypatch.undo()
    forget()


def test_a_wrong_adjoint_fails_and_names_the_worst_entry(wrong_rule):
    wrong_rule("tanh", ("dy * (1 - y)",))
    result = gradient_check(cells.simple)
    assert not result.passed
    assert "wrong" in str(result).splitlines()[3]
    with pytest.raises(GradientError) as error:
        result.check()
    worst = result.worst
    text = str(error.value)
    assert text.startswith("cell 'simple': dx, dh<0>, dW.h, dU.h, db.h wrong.")
    assert f"The worst entry is {worst.worst}: the gradient says {worst.exact:.8g}" in text
    assert f"difference {worst.numeric:.8g}; their ratio is {worst.ratio:.4g}" in text
    assert isinstance(error.value, AssertionError)
    assert "'simple': wrong" in repr(result)


def test_a_wrong_sign_in_the_adjoint_is_guessed(wrong_rule):
    wrong_rule("sub", ("dy", "dy"))  # 1 - z is all that the cell takes away
    text = gradient_check(cells.gru_simplified).verdict
    assert "db.z" in text
    cell = Cell.parse("def one(x, h_prev, *, W):\n    h = 1 - W.h @ x\n    return h\n")
    assert "Of dx, dW.h, every entry has the wrong sign." in gradient_check(cell).verdict


def test_functions_of_ones_own():
    assert gradient_check(rnn, rnn_backward, ARRAYS).check().title == "rnn"
    square = gradient_check(lambda x: x**2, lambda dy, x: {"x": 2 * x * dy}, {"x": 3})
    assert square.arrays[0].shape == ()
    assert square.worst.worst == "dx"
    assert square.check().worst.numeric == pytest.approx(square.worst.exact)


@pytest.mark.parametrize(
    ("spoil", "guess"),
    [
        (lambda g: {**g, "dx": -g["dx"]}, "Of dx, every entry has the wrong sign."),
        (lambda g: {**g, "dWax": g["dWax"] * 5}, "Of dWax, every entry is 5 times too large: a sum "
         "for a mean over axis 3 of x or axis 3 of the output."),
        (lambda g: {**g, "dWax": g["dWax"] / 5}, "5 times too small: a mean for a sum over axis 3"),
        (lambda g: {**g, "da0": g["da0"] / 2}, "2 times too small: a mean for a sum over axis 2 of "
         "x or axis 2 of a0 or axis 2 of the output, or a term left out."),
        (lambda g: {**g, "dWax": g["dWax"] * 0.7}, "every entry is 0.7 times what is right."),
        (lambda g: {**g, "dWaa": g["dWaa"].T}, "Of dWaa, every entry stands where its mirror"),
        (lambda g: {**g, "dWax": g["dWax"].T}, "the shape is (3, 4), that of the array (4, 3): t"),
        (lambda g: {**g, "dWax": g["dWax"][0]}, "the shape is (3,), that of the array (4, 3)."),
        (lambda g: {**g, "da0": g["da0"] * 0}, "Of da0, all is zero: nothing is handed on to it."),
        (lambda g: {**g, "dx": g["dx"][:, :, ::-1]}, "Of dx, the order along axis 3 is reversed."),
        (lambda g: {**g, "dx": g["dx"] * np.nan}, "dx wrong."),
        (lambda g: {**g, "da0": g["da0"] + 0.1, "dx": -g["dx"]}, "Of dx, every entry has"),
    ],
)  # fmt: skip
def test_what_a_wrong_gradient_tells(spoil, guess):
    result = gradient_check(rnn, lambda dy, **a: spoil(rnn_backward(dy, **a)), ARRAYS)
    assert not result.passed
    assert guess in result.verdict
    assert result.verdict in str(result)
    with pytest.raises(GradientError):
        result.check()


def test_a_gradient_that_is_not_carried_in_time_is_recognised():
    result = gradient_check(rnn, lambda dy, **a: rnn_backward(dy, **a, carried=0.0), ARRAYS)
    assert (
        "Of dx, only the last of axis 3 is right: the gradient is not carried from step to step."
    ) in result.verdict


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_beyond_all_bounds_are_told():
    cell = Cell.parse(
        "def grows(x, h_prev, *, W):\n    h = exp(exp(W.h @ x + h_prev * 3))\n    return h\n"
    )
    verdict = gradient_check(cell).verdict
    assert re.search(r"At \S+ the gradient is -?(inf|nan) and the central difference \S+:", verdict)


def test_large_arrays_are_tried_in_part():
    tried = []

    def f(x):
        tried.append(x.copy())
        return np.sin(x)

    x = np.linspace(0, 1, 500)
    gradient_check(f, lambda dy, x: {"dx": dy * np.cos(x)}, {"x": x}, entries=10).check()
    assert len({tuple(np.nonzero(one - x)[0]) for one in tried}) == 11
    wrong = gradient_check(f, lambda dy, x: {"dx": -dy * np.cos(x)}, {"x": x}, entries=10)
    assert "every entry has the wrong sign" in wrong.verdict
    np.testing.assert_array_equal(x, np.linspace(0, 1, 500))


def test_wrong_arguments_get_a_sentence():
    for what, problem in (
        (lambda: gradient_check(rnn), "give a cell, a network, or a function with its derivative"),
        (lambda: gradient_check(cells.lstm, rnn_backward), "go with a function, not with a cell"),
        (lambda: gradient_check(rnn, rnn_backward, {"x": X}), "takes the arrays by their names"),
        (lambda: gradient_check(rnn, lambda dy, **a: {}, ARRAYS), "gives no dx; it gives nothing"),
        (lambda: gradient_check(rnn, lambda dy, **a: 1, ARRAYS), "returns a dictionary"),
        (lambda: gradient_check(lambda x: (x, [x]), rnn_backward, {"x": X}), "returns one array"),
        (lambda: gradient_check(cells.lstm, x=np.ones((2, 1, 4))), "this network reads an array"),
    ):
        with pytest.raises(InputError, match=problem):
            what()
