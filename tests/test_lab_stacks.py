"""Bidirectional and deep networks of the course lab: against the cells' own functions."""

import numpy as np
import pytest
from course_draws import SMALL, Draws, check_gradients

from unrolled import InputError, cells
from unrolled.lab import course
from unrolled.network import Network

FORWARD = {
    "rnn": course.rnn_forward,
    "lstm": course.lstm_forward,
    "gru": course.gru_forward,
    "gru_simplified": course.gru_simplified_forward,
}
OUTPUT = ("Wya", "Wy", "by")


def one_layer(name):
    return {key: shape for key, shape in SMALL[name].items() if key not in OUTPUT}


def bidirectional(name, steps=4):
    draw = Draws()
    shapes = {f"{key}_{way}": shape for way in ("forward", "backward")
              for key, shape in one_layer(name).items()}  # fmt: skip
    return draw(2, 3, steps), draw(6, 3), draw.all({**shapes, "Wy": (2, 6), "by": (2, 1)})


def deep(name, layers=3, together=False):
    draw = Draws()
    shapes = {}
    for layer in range(1, layers + 1):
        width = 2 if layer == 1 else 3
        for key, (rows, columns) in one_layer(name).items():
            columns = {5: 3 + width, 2: width}.get(columns, columns)
            shapes[f"{key}{layer}"] = (rows, columns)
    p = draw.all({**shapes, "Wy": (2, 3), "by": (2, 1)})
    if together:
        for layer in range(1, layers + 1):
            p[f"Wa{layer}"] = np.hstack([p.pop(f"Waa{layer}"), p.pop(f"Wax{layer}")])
    return draw(2, 3, 4), [draw(3, 3) for _ in range(layers)], p


def of(parameters, suffix):
    """The parameters of one direction or layer for the cell's own functions."""
    no_output = {"Wya": np.zeros((2, 3)), "Wy": np.zeros((2, 3)), "by": np.zeros((2, 1))}
    end = len(suffix)
    found = {k[:-end]: array for k, array in parameters.items() if k.endswith(suffix)}
    return {**no_output, **found}


@pytest.mark.parametrize("name", FORWARD)
def test_a_bidirectional_network_is_two_that_read_from_both_ends(name):
    x, a0, p = bidirectional(name)
    a, y_pred, (there, back) = course.bidirectional_forward(x, a0, p)
    first, *_ = FORWARD[name](x, a0[:3], of(p, "_forward"))
    second, *_ = FORWARD[name](x[:, :, ::-1], a0[3:], of(p, "_backward"))
    expected = np.concatenate([first, second[:, :, ::-1]])
    np.testing.assert_allclose(a, expected, rtol=1e-12, atol=1e-14)
    for t in range(4):
        z = np.exp(p["Wy"] @ expected[:, :, t] + p["by"])
        np.testing.assert_allclose(y_pred[:, :, t], z / z.sum(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(there[0][t][0], a[:3, :, t])
        np.testing.assert_array_equal(back[0][t][0], a[3:, :, t])
        np.testing.assert_array_equal(back[0][t][-2], x[:, :, t])
    before = [*SMALL].index(name) == 1  # an LSTM's cell state stands between
    np.testing.assert_array_equal(back[0][3][1 + before], a0[3:])
    assert there[1] is back[1]


@pytest.mark.parametrize("name", FORWARD)
def test_the_gradients_of_a_bidirectional_network(name):
    x, a0, p = bidirectional(name, steps=3)
    da = Draws(2)(6, 3, 3)

    def run(arrays):
        return course.bidirectional_forward(arrays["x"], arrays["a0"], {k: arrays[k] for k in p})

    arrays = {"x": x, "a0": a0, **p}
    gradients = course.bidirectional_backward(da, run(arrays)[2])
    assert {*gradients} == {"dx", "da0", *(f"d{key}" for key in p if key not in OUTPUT)}
    found = {key[1:]: gradient for key, gradient in gradients.items()}
    check_gradients(lambda arrays: np.sum(run(arrays)[0] * da), arrays, found)


@pytest.mark.parametrize("name", FORWARD)
def test_a_deep_network_is_one_layer_after_the_other(name):
    x, a0, p = deep(name)
    a, y_pred, caches = course.deep_forward(x, a0, p)
    below = x
    for layer in range(3):
        np.testing.assert_array_equal(caches[layer][1], below)
        below, *_ = FORWARD[name](below, a0[layer], of(p, str(layer + 1)))
        kept = np.stack([cache[0] for cache in caches[layer][0]], axis=2)
        np.testing.assert_allclose(kept, below, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(a, below, rtol=1e-12, atol=1e-14)
    assert y_pred.shape == (2, 3, 4)
    np.testing.assert_allclose(y_pred.sum(axis=0), 1)


def test_a_deep_network_by_its_equation():
    x, a0, p = deep("rnn", layers=2, together=True)
    a, y_pred, _ = course.deep_forward(x, a0, p)
    before = [*a0]
    for t in range(4):
        below = x[:, :, t]
        for layer in (0, 1):
            both = np.concatenate([before[layer], below])
            before[layer] = np.tanh(p[f"Wa{layer + 1}"] @ both + p[f"ba{layer + 1}"])
            below = before[layer]
        np.testing.assert_allclose(a[:, :, t], below, rtol=1e-12, atol=1e-14)
        z = np.exp(p["Wy"] @ below + p["by"])
        np.testing.assert_allclose(y_pred[:, :, t], z / z.sum(axis=0), rtol=1e-12)


def test_a_deep_network_is_a_network_of_layers():
    x, a0, p = deep("rnn", layers=2)
    params = [
        ({"W.h": p[f"Wax{n}"], "U.h": p[f"Waa{n}"], "b.h": p[f"ba{n}"][:, 0]},) for n in (1, 2)
    ]
    network = Network(cells.simple, tuple(params))
    trace = network.trace(x.transpose(2, 1, 0), np.stack([state.T for state in a0]))
    a, _, caches = course.deep_forward(x, a0, p)
    np.testing.assert_array_equal(a, trace.y.transpose(2, 1, 0))
    da = Draws(2)(3, 3, 4)
    gradients = course.deep_backward(da, caches)
    expected = trace.backward(da.transpose(2, 1, 0))
    np.testing.assert_allclose(gradients["dx"], expected.x.transpose(2, 1, 0), rtol=1e-10)
    np.testing.assert_allclose(gradients["dWax1"], expected.params[0][0]["W.h"], rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "back"), [*((name, 2) for name in FORWARD), ("together", 2), ("rnn", 4)]
)
def test_the_gradients_of_a_deep_network(name, back):
    together = name == "together"
    x, a0, p = deep("rnn" if together else name, layers=2, together=together)
    da = Draws(2)(3, 3, back)

    def run(arrays):
        states = [arrays["a0 1"], arrays["a0 2"]]
        return course.deep_forward(arrays["x"], states, {k: arrays[k] for k in p})

    arrays = {"x": x, "a0 1": a0[0], "a0 2": a0[1], **p}
    gradients = course.deep_backward(da, run(arrays)[2])
    assert {*gradients} == {"dx", "da0", *(f"d{key}" for key in p if key not in OUTPUT)}
    found = {key[1:]: gradient for key, gradient in gradients.items() if key != "da0"}
    found |= {"a0 1": gradients["da0"][0], "a0 2": gradients["da0"][1]}
    found["x"] = np.concatenate([found["x"], np.zeros((2, 3, 4 - back))], axis=2)
    check_gradients(lambda arrays: np.sum(run(arrays)[0][:, :, :back] * da), arrays, found)


def test_layers_may_differ_in_width():
    draw = Draws()
    p = {"Wa1": draw(4, 6), "ba1": draw(4, 1), "Wa2": draw(3, 7), "ba2": draw(3, 1)}
    p |= {"Wy": draw(2, 3), "by": draw(2, 1)}
    a, _, caches = course.deep_forward(draw(2, 5, 3), [draw(4, 5), draw(3, 5)], p)
    assert a.shape == (3, 5, 3)
    gradients = course.deep_backward(np.ones_like(a), caches)
    assert [state.shape for state in gradients["da0"]] == [(4, 5), (3, 5)]


def test_wrong_arguments_get_a_sentence():
    x, a0, p = bidirectional("rnn")
    without = {key: array for key, array in p.items() if key != "ba_backward"}
    with pytest.raises(InputError, match=r"parameters \(backward\) need ba, of shape \(n_a, 1\)"):
        course.bidirectional_forward(x, a0, without)
    with pytest.raises(InputError, match="no parameters end in _forward; give those of one cell"):
        course.bidirectional_forward(x, a0, {"Wy": p["Wy"]})
    with pytest.raises(InputError, match=r"a0 has 5 rows; it has 2 · n_a"):
        course.bidirectional_forward(x, a0[:5], p)
    with pytest.raises(InputError, match=r"Waa \(forward\) has shape \(3, 3\); .*n_a = 2"):
        course.bidirectional_forward(x, a0[:4], p)
    with pytest.raises(InputError, match=r"Wy has shape .*\(n_y, 2 · n_a\) with 2 · n_a = 6"):
        course.bidirectional_forward(x, a0, {**p, "Wy": p["Wy"][:, :3]})
    with pytest.raises(InputError, match="dictionary of arrays by name; found a list"):
        course.bidirectional_forward(x, a0, [*p])
    a, _, caches = course.bidirectional_forward(x, a0, p)
    with pytest.raises(InputError, match="da has 3 steps, and the caches hold 4"):
        course.bidirectional_backward(a[:, :, :3], caches)
    for wrong in (caches[0][0], [x, x], None):
        with pytest.raises(InputError, match="bidirectional_forward"):
            course.bidirectional_backward(a, wrong)
    x, a0, p = deep("rnn", layers=2)
    with pytest.raises(InputError, match=r"for each layer, .* have 2; found 1"):
        course.deep_forward(x, a0[:1], p)
    with pytest.raises(InputError, match="have 2; found NoneType"):
        course.deep_forward(x, None, p)
    with pytest.raises(InputError, match="no parameters end in 1"):
        course.deep_forward(x, a0, {"Wy": p["Wy"]})
    with pytest.raises(InputError, match=r"Wax of layer 2 has shape \(3, 2\); .*n_x = 3"):
        course.deep_forward(x, a0, {**p, "Wax2": p["Wax1"]})
    with pytest.raises(InputError, match="deep_forward gives"):
        course.deep_backward(a, None)
    with pytest.raises(InputError, match="deep_forward give"):
        course.deep_backward(a, [x])
