"""`unrolled.nn.RNN`, `GRU` and `LSTM` in the place of torch's: numbers, names, errors."""

import copy
import inspect
import random

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from unrolled import nn
from unrolled.errors import InputError

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def configurations(count: int):
    """Random layers and inputs, the same on every machine."""
    draw = random.Random(20)
    for number in range(count):
        name = ("RNN", "GRU", "LSTM")[number % 3]
        hidden = draw.choice([1, 2, 5, 8, 16, 33])
        options = {
            "input_size": draw.choice([1, 3, 8, 17]),
            "hidden_size": hidden,
            "num_layers": draw.choice([1, 1, 2, 3]),
            "bias": draw.random() < 0.8,
            "batch_first": draw.random() < 0.4,
            "bidirectional": draw.random() < 0.4,
        }
        if name == "RNN":
            options["nonlinearity"] = draw.choice(["tanh", "relu"])
        if name == "LSTM" and hidden > 1 and draw.random() < 0.5:
            options["proj_size"] = draw.randrange(1, hidden)
        shape = draw.choice(["batch", "batch", "alone", "packed sorted", "packed unsorted"])
        dtype = torch.float32 if draw.random() < 0.4 else torch.float64
        length, batch = draw.choice([1, 2, 7, 12]), draw.choice([1, 2, 5, 9])
        yield name, options, shape, dtype, length, batch, draw.random() < 0.5, number


CONFIGURATIONS = list(configurations(60))


def inputs(options, shape, dtype, length, batch):
    """The sequences, as leaves of the graph, and the function that makes the input of them."""
    width = options["input_size"]
    if shape == "alone":
        leaf = torch.randn(length, width, dtype=dtype, requires_grad=True)
        return [leaf], lambda: leaf
    if shape == "batch":
        sizes = (batch, length, width) if options["batch_first"] else (length, batch, width)
        leaf = torch.randn(*sizes, dtype=dtype, requires_grad=True)
        return [leaf], lambda: leaf
    lengths = [random.Random(number).randint(1, length) for number in range(batch)]
    is_sorted = shape == "packed sorted"
    if is_sorted:
        lengths.sort(reverse=True)
    leaves = [torch.randn(n, width, dtype=dtype, requires_grad=True) for n in lengths]
    return leaves, lambda: pack_sequence(leaves, enforce_sorted=is_sorted)


def initial_state(name, options, shape, dtype, batch):
    rows = options["num_layers"] * (1 + options["bidirectional"])
    sizes = [options.get("proj_size") or options["hidden_size"]]
    sizes += [options["hidden_size"]] if name == "LSTM" else []
    middle = () if shape == "alone" else (batch,)
    return [torch.randn(rows, *middle, n, dtype=dtype, requires_grad=True) for n in sizes]


def everything(layer, x, state, leaves):
    """Outputs, last states and all gradients of a layer."""
    given = None if state is None else state[0] if len(state) == 1 else tuple(state)
    y, last = layer(x, given)
    if isinstance(y, PackedSequence):
        assert y.batch_sizes.equal(x.batch_sizes)
        y = y.data
    outputs = [y, *([last] if isinstance(last, torch.Tensor) else last)]
    torch.manual_seed(1)
    weights = [torch.randn_like(output) for output in outputs]
    loss = sum((a * b).sum() for a, b in zip(outputs, weights, strict=True))
    named = dict(layer.named_parameters())
    gradients = torch.autograd.grad(loss, [*leaves, *(state or ()), *named.values()])
    return [*outputs, *gradients]


def assert_close(found, expected, tolerance) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        scale = max(1.0, float(theirs.detach().abs().max()))
        assert float((ours - theirs).detach().abs().max()) <= tolerance * scale


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda c: f"{c[-1]}-{c[0]}-{c[2]}")
def test_the_same_numbers_as_torch(configuration) -> None:
    name, options, shape, dtype, length, batch, with_state, seed = configuration
    torch.manual_seed(seed)
    theirs = getattr(torch.nn, name)(**options, dtype=dtype)
    ours = getattr(nn, name)(**options, dtype=dtype)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    leaves, make = inputs(options, shape, dtype, length, batch)
    state = initial_state(name, options, shape, dtype, batch) if with_state else None
    expected = everything(theirs, make(), state, leaves)
    assert_close(everything(ours, make(), state, leaves), expected, TOLERANCE[dtype])

    back = getattr(torch.nn, name)(**options, dtype=dtype)
    back.load_state_dict(ours.state_dict(), strict=True)
    assert_close(everything(back, make(), state, leaves), expected, 0.0)


@pytest.mark.parametrize("configuration", CONFIGURATIONS[:12], ids=lambda c: f"{c[-1]}-{c[0]}")
@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_the_same_numbers_from_every_backend(configuration, backend: str) -> None:
    name, options, shape, _, length, batch, with_state, seed = configuration
    torch.manual_seed(seed)
    fast = getattr(nn, name)(**options, dtype=torch.float64, backend="cpu")
    other = getattr(nn, name)(**options, dtype=torch.float64, backend=backend)
    other.load_state_dict(fast.state_dict())
    leaves, make = inputs(options, shape, torch.float64, length, batch)
    state = initial_state(name, options, shape, torch.float64, batch) if with_state else None
    expected = everything(fast, make(), state, leaves)
    assert_close(everything(other, make(), state, leaves), expected, 1e-10)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_the_same_arguments_parameters_and_seed(name: str) -> None:
    options = {"num_layers": 2, "bidirectional": True}
    if name == "LSTM":
        options["proj_size"] = 3
    torch.manual_seed(5)
    theirs = getattr(torch.nn, name)(4, 6, **options)
    torch.manual_seed(5)
    ours = getattr(nn, name)(4, 6, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        assert ours.state_dict()[key].equal(value), key
    arguments = [p for p in inspect.signature(getattr(nn, name)).parameters if p != "backend"]
    expected = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout",
                "bidirectional", "device", "dtype"]  # fmt: skip
    assert set(arguments) == {*expected, *{"RNN": ["nonlinearity"], "LSTM": ["proj_size"]}.get(
        name, [])}  # fmt: skip
    assert [[w.shape for w in ws] for ws in ours.all_weights] == [
        [w.shape for w in ws] for ws in theirs.all_weights
    ]
    ours.flatten_parameters()


def test_positional_arguments_stand_where_torch_has_them() -> None:
    rnn = nn.RNN(3, 4, 2, "relu", False, True, 0.0, True)
    assert rnn.nonlinearity == "relu"
    assert rnn.batch_first
    assert rnn.bidirectional
    assert not rnn.bias
    lstm = nn.LSTM(3, 4, 2, True, True, 0.0, False, 2)
    assert lstm.proj_size == 2


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_without_bias_there_are_no_parameters_for_it(name: str) -> None:
    theirs = getattr(torch.nn, name)(3, 4, bias=False)
    ours = getattr(nn, name)(3, 4, bias=False)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all("bias" not in key for key, _ in ours.named_parameters())


def test_dropout_drops_what_torch_drops() -> None:
    theirs = torch.nn.LSTM(3, 8, num_layers=3, dropout=0.5, dtype=torch.float64)
    ours = nn.LSTM(3, 8, num_layers=3, dropout=0.5, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    torch.manual_seed(3)
    expected, _ = theirs(x)
    torch.manual_seed(3)
    found, _ = ours(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x)[0])
    assert not torch.allclose(found, ours(x)[0])


def test_a_packed_sequence_of_bad_width() -> None:
    packed = pack_sequence([torch.randn(3, 5), torch.randn(2, 5)])
    with pytest.raises(InputError, match=r"input_size 4; the packed sequence has 5 values"):
        nn.LSTM(4, 6)(packed)


def test_initial_state_of_a_packed_sequence_in_the_order_given() -> None:
    layer = nn.GRU(2, 3, dtype=torch.float64)
    sequences = [torch.randn(n, 2, dtype=torch.float64) for n in (1, 4, 2)]
    state = torch.randn(1, 3, 3, dtype=torch.float64)
    _, last = layer(pack_sequence(sequences, enforce_sorted=False), state)
    for row, sequence in enumerate(sequences):
        _, alone = layer(sequence, state[:, row])
        torch.testing.assert_close(last[:, row], alone)


def test_errors_are_sentences() -> None:
    with pytest.raises(InputError, match="nonlinearity is 'sin'; it is 'tanh' or 'relu'"):
        nn.RNN(3, 4, nonlinearity="sin")
    with pytest.raises(InputError, match=r"proj_size is 4; it is smaller than hidden_size \(4\)"):
        nn.LSTM(3, 4, proj_size=4)


def test_deepcopy_has_its_own_parameters() -> None:
    layer = nn.GRU(3, 4)
    twin = copy.deepcopy(layer)
    x = torch.randn(2, 1, 3)
    before = layer(x)[0]
    with torch.no_grad():
        twin.weight_hh_l0.zero_()
    assert torch.equal(layer(x)[0], before)
    assert not torch.equal(twin(x)[0], before)


def test_what_is_printed() -> None:
    text = str(nn.LSTM(3, 4, num_layers=2, bias=False, proj_size=2))
    assert text == "LSTM(3, 4, num_layers=2, bias=False, proj_size=2)"
    assert str(nn.RNN(3, 4, nonlinearity="relu")) == "RNN(3, 4, nonlinearity='relu')"
