"""What a layer cannot take gets one sentence, and the layer goes on as if nothing had been."""

import numpy as np
import pytest
import torch

import unrolled
from unrolled import InputError, cells
from unrolled.nn import Recurrent, tbptt

T, B, X, H = 6, 4, 3, 5


@pytest.fixture(scope="module")
def layer():
    torch.manual_seed(0)
    return Recurrent(cells.lstm, X, H, backend="reference")


def x():
    return torch.randn(T, B, X, generator=torch.Generator().manual_seed(0))


def states(*shape, **options):
    return (torch.zeros(*shape, **options),) * 2


CALLS = {
    "x on another device": (lambda at: at(x().to("meta")), "the input is float32 on meta"),
    "x of whole numbers": (lambda at: at(x().int()), "the input is int32 on cpu"),
    "x of complex numbers": (lambda at: at(x().cfloat()), "the input is complex64 on cpu"),
    "x with blanks": (lambda at: at(x().to_sparse()), "the input is a dense tensor"),
    "x that is no tensor": (lambda at: at(x().numpy()), "found ndarray"),
    "a state that is a number": (lambda at: at(x(), 5), r"a tuple of tensors \(h, c\).*found int"),
    "a state by name": (lambda at: at(x(), {"h": 1, "c": 2}), "a tuple of tensors.*found dict"),
    "half a state": (lambda at: at(x(), torch.zeros(1, B, H)), "has 2 states .h, c.; 1 was given"),
    "nested states": (lambda at: at(x(), ([1], [2])), "the initial state h is a tensor"),
    "states of another batch": (lambda at: at(x(), states(1, 3, H)), r"expected \(1, 4, 5\)"),
    "states of another dtype": (
        lambda at: at(x(), states(1, B, H, dtype=torch.float64)),
        "a state or parameter of the layer is float64 on cpu",
    ),
    "states on another device": (
        lambda at: at(x(), states(1, B, H, device="meta")),
        "a state or parameter of the layer is float32 on meta",
    ),
    "lengths as text": (lambda at: at(x(), lengths="abcd"), "whole numbers.*found 'abcd'"),
    "lengths of nothing": (lambda at: at(x(), lengths=[None] * 4), "whole numbers.*found .None"),
    "lengths in lists": (lambda at: at(x(), lengths=[[1], [1, 2], 3, 4]), "whole numbers"),
    "one length": (lambda at: at(x(), lengths=3), "one for each of the 4 rows"),
    "a length below 0": (lambda at: at(x(), lengths=[-1, 2, 3, 4]), "from 0 to T = 6"),
    "a length above T": (lambda at: at(x(), lengths=[7, 2, 3, 4]), "from 0 to T = 6"),
    "resets of numbers": (lambda at: at(x(), resets=torch.zeros(T, B)), "a tensor of bool"),
    "resets of NumPy": (lambda at: at(x(), resets=np.zeros((T, B), bool)), "a tensor of bool"),
    "resets turned": (
        lambda at: at(x(), resets=torch.zeros(B, T, dtype=torch.bool)),
        r"of shape \(6, 4\); found torch.bool of shape \(4, 6\)",
    ),
    "masks of nothing random": (lambda at: at(x(), masks=[{"m": x()}]), "are none; found m"),
    "a step that is a number": (lambda at: at.step(x()[0], 5), "a tuple of tensors"),
    "a trace of whole numbers": (lambda at: at.trace(x().int()), "numbers with a point"),
    "resets of the whole stream": (
        lambda at: next(tbptt(x(), 2)).run(at, resets=torch.zeros(T, B, dtype=torch.bool)),
        r"this window has 2 steps, along axis 0; found a tensor \(6, 4\)",
    ),
    "states of a stream by number": (
        lambda at: next(tbptt(x(), 2, states=[1])),
        "given by layer.*found list",
    ),
}


@pytest.mark.parametrize(("call", "says"), CALLS.values(), ids=CALLS)
def test_a_call_that_does_not_fit_gets_a_sentence_and_harms_nothing(layer, call, says):
    before, (y, state) = layer.state_dict(), layer(x())
    before = {name: value.clone() for name, value in before.items()}
    with pytest.raises(InputError, match=says) as error:
        call(layer)
    assert "\n" not in str(error.value)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])
    torch.testing.assert_close(layer(x()), (y, state), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_layers": 1.5}, "num_layers is 1.5; a network has one layer or more"),
        ({"num_layers": True}, "num_layers is True"),
        ({"dropout": None}, "dropout is None; it is a probability, from 0 to 1"),
        ({"weight_dropout": "a"}, "weight_dropout is 'a'; it is a probability"),
        ({"initial_state": None}, "initial_state is 'zero' or 'learned'; found None"),
        ({"hidden_size": "a"}, "the size of h is 'a'; a size is a whole number from 1 on"),
        ({"hidden_size": None}, "the size of h is None"),
        ({"hidden_size": 2.0}, "the size of h is 2.0"),
        ({"input_size": [3]}, r"the size of x is \[3\]"),
        ({"input_size": True}, "the size of x is True"),
    ],
)
def test_options_that_make_no_layer(options, says):
    with pytest.raises((InputError, unrolled.EquationError), match=says):
        Recurrent(cells.lstm, **{"input_size": X, "hidden_size": H, **options})


TRANSFORMS = {
    "recurrent_dropout": (unrolled.recurrent_dropout, "from 0 to below 1"),
    "candidate_dropout": (unrolled.candidate_dropout, "from 0 to below 1"),
    "zoneout": (unrolled.zoneout, "from 0 to below 1"),
    "clipped": (unrolled.clipped, "a limit above 0"),
    "layer_norm": (unrolled.layer_norm, "an epsilon above 0"),
}


@pytest.mark.parametrize(("transform", "says"), TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_transform_takes_a_cell_and_a_number(transform, says):
    for number in ("a", None, [0.1], True, -0.1, float("nan")):
        with pytest.raises(InputError, match=says):
            transform(cells.lstm, number)
    for cell in ("lstm", Recurrent(cells.lstm, X, H)):
        with pytest.raises(InputError, match="takes a cell, such as"):
            transform(cell, 0.1)


def test_what_a_trace_does_not_have(layer):
    trace = layer.trace(x())
    trace.y.sum().backward()
    with pytest.raises(KeyError, match="q was not kept; this trace has x, h_prev"):
        trace.gradient_norm("q")
    for look in (lambda: trace["h", 4], lambda: trace.gradient("h", 0, 1)):
        with pytest.raises(IndexError, match="there are 1 layers, from 0, of 1 directions; found"):
            look()
