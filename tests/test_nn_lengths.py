"""Ragged batches by `lengths=`: padded equals alone in every backend; padding is never read."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unrolled import InputError, cells
from unrolled.nn import GRU, LSTM, Recurrent

pytestmark = pytest.mark.usefixtures("both_ways")
DOUBLE = torch.float64
CELLS = list(cells.catalogue().values())


def layer_of(cell, backend="auto", layers=2):
    H = {"h": 4, "c": 6} if cell.name == "projected_lstm" else 5
    return Recurrent(cell, 3, H, layers, bidirectional=True, dtype=DOUBLE, backend=backend)


def several(state):
    return state if isinstance(state, tuple) else (state,)


def gradients(layer, outputs, leaves):
    weights = [torch.linspace(-1, 1, out.numel(), dtype=DOUBLE).view(out.shape) for out in outputs]
    loss = sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))
    return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_padded_row_is_the_row_alone(data):
    cell = data.draw(st.sampled_from(CELLS))
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    T = data.draw(st.integers(max(lengths), 7))
    backend = data.draw(st.sampled_from(["auto", "eager", "reference"]))
    torch.manual_seed(0)
    layer = layer_of(cell, backend)
    B = len(lengths)
    x = torch.randn(T, B, 3, dtype=DOUBLE)
    padded = x.clone()
    for row, length in enumerate(lengths):
        padded[length:, row] = float("nan")
    initial = tuple(torch.randn_like(state) for state in several(layer(x)[1]))
    leaves = [padded.requires_grad_(), *(s.requires_grad_() for s in initial), *layer.parameters()]
    state = initial if len(initial) > 1 else initial[0]
    y, last = layer(padded, state, lengths=lengths)

    alone = []
    for row, length in enumerate(lengths):
        own = tuple(s[:, [row]] for s in initial)
        one, one_last = layer(padded[:length, [row]], own if len(own) > 1 else own[0])
        one = torch.nn.functional.pad(one, (0, 0, 0, 0, 0, T - length))
        alone.append((one, *several(one_last)))
    expected = [torch.cat(parts, 1) for parts in zip(*alone, strict=True)]
    found = [y, *several(last)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(
        gradients(layer, found, leaves), gradients(layer, expected, leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_the_same_as_a_packed_sequence_of_torch(kind):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind.__name__)(3, 5, 2, bidirectional=True, dtype=DOUBLE)
    ours = kind(3, 5, 2, bidirectional=True, dtype=DOUBLE)
    ours.load_state_dict(theirs.state_dict())
    x, lengths = torch.randn(6, 4, 3, dtype=DOUBLE), [2, 6, 1, 4]
    packed, last = theirs(pack_padded_sequence(x, lengths, enforce_sorted=False))
    y, _ = pad_packed_sequence(packed)
    found, found_last = ours(x, lengths=torch.tensor(lengths, dtype=torch.int32))
    torch.testing.assert_close(found, y)
    torch.testing.assert_close(found_last, last)


def test_batch_first_takes_the_same_lengths():
    torch.manual_seed(0)
    layer = GRU(3, 5, batch_first=True, dtype=DOUBLE)
    x = torch.randn(4, 6, 3, dtype=DOUBLE)
    y, last = layer(x, lengths=[2, 6, 0, 4])
    assert y.shape == (4, 6, 5)
    torch.testing.assert_close(last[0, 0], y[0, 1])
    for beyond in (y[2], y[0, 2:], last[0, 2]):
        assert not beyond.any()


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_what_inference_has_seen_serves_training(backend):
    layer, x, lengths = layer_of(cells.gru, backend), torch.randn(4, 3, 3, dtype=DOUBLE), [4, 1, 3]
    with torch.inference_mode():
        expected, _ = layer(x, lengths=lengths)
    y, _ = layer(x.requires_grad_(), lengths=lengths)
    torch.testing.assert_close(y, expected.clone(), rtol=1e-12, atol=1e-12)
    y.sum().backward()
    assert x.grad[1:, 1].abs().max() == 0 < x.grad[:1, 1].abs().min()


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("lengths", [[3], [3, 3, 3], [3, 3, 2], [0, 0], [3, 0], [1, 0]])
def test_rows_that_come_first_are_the_rows_alone(backend, lengths):
    """Where nothing is gathered, and next to it where something is."""
    layer = layer_of(cells.lstm, backend)
    x = torch.randn(4, len(lengths), 3, dtype=DOUBLE, requires_grad=True)
    state = [torch.randn(4, len(lengths), 5, dtype=DOUBLE, requires_grad=True) for _ in range(2)]
    leaves = [x, *state, *layer.parameters()]
    y, last = layer(x, tuple(state), lengths=lengths)
    rows = [
        layer(x[:n, row], tuple(part[:, row] for part in state))
        if n
        else (x.new_zeros(0, 10), tuple(part[:, row] for part in state))
        for row, n in enumerate(lengths)
    ]
    alone = torch.stack(
        [torch.cat([found, found.new_zeros(4 - len(found), 10)]) for found, _ in rows], 1
    )
    ends = [torch.stack([found[part] for _, found in rows], 1) for part in range(2)]
    torch.testing.assert_close([y, *last], [alone, *ends], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(layer, [y, *last], leaves), gradients(layer, [alone, *ends], leaves),
        rtol=1e-11, atol=1e-11,
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["auto", "eager", "reference"])
@pytest.mark.parametrize(("T", "lengths"), [(0, [0, 0]), (4, [0, 0]), (3, []), (0, [])])
def test_nothing_to_read_is_legal(backend, T, lengths):
    layer = layer_of(cells.lstm, backend)
    x = torch.zeros(T, len(lengths), 3, dtype=DOUBLE, requires_grad=True)
    state = tuple(torch.randn(4, len(lengths), 5, dtype=DOUBLE) for _ in range(2))
    y, last = layer(x, state, lengths=lengths)
    assert y.shape == (T, len(lengths), 10)
    assert not y.any()
    for ours, given_ in zip(last, state, strict=True):
        torch.testing.assert_close(ours, given_)
    (y.sum() + last[0].sum()).backward()
    assert not x.grad.any()


def test_compiled_and_exported_with_other_lengths_than_were_seen():
    torch.manual_seed(0)
    layer = layer_of(cells.gru)
    x = torch.randn(6, 4, 3, dtype=DOUBLE)
    first, second = torch.tensor([2, 6, 0, 4]), torch.tensor([5, 1, 3, 6])
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    exported = torch.export.export(layer, (x, None, first)).module()
    for lengths in (first, second):
        y, _ = layer(x, lengths=lengths)
        torch.testing.assert_close(compiled(x, None, lengths)[0], y)
        torch.testing.assert_close(exported(x, None, lengths)[0], y)
        wanted = torch.autograd.grad(y.sum(), list(layer.parameters()))
        found = torch.autograd.grad(
            compiled(x, None, lengths)[0].sum(), list(layer.parameters())
        )  # fmt: skip
        torch.testing.assert_close(found, wanted)


def test_rows_that_have_ended_are_not_computed(monkeypatch, long_way):
    from unrolled.nn import direction

    seen = []
    run = direction.run_kernels
    monkeypatch.setattr(
        direction,
        "run_kernels",
        lambda *a: seen.append([len(g) for g in a[3][0].inputs]) or run(*a),
    )
    layer = Recurrent(cells.gru, 3, 5)
    y, _ = layer(torch.randn(10, 4, 3), lengths=[1, 10, 2, 3])
    y.sum().backward()
    assert seen == [[16], [16, 16, 16]]  # of 40 padded rows, forward and backward


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2], r"one for each of the 4 rows; found torch\.int64 of shape \(2,\)"),
        ([7, 1, 1, 1], r"from 0 to T = 6; found \[7, 1, 1, 1\]"),
        ([-1, 1, 1, 1], r"from 0 to T = 6; found \[-1, 1, 1, 1\]"),
        ([1.0, 1, 1, 1], "whole numbers"),
        ([True] * 4, "whole numbers"),
        (np.array([1, 1, 1, 1j]), "whole numbers"),
    ],
)
def test_wrong_lengths_get_a_sentence(lengths, message):
    with pytest.raises(InputError, match=message):
        GRU(3, 5)(torch.randn(6, 4, 3), lengths=lengths)


def test_a_packed_sequence_has_its_lengths():
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(2, 3), torch.randn(1, 3)])
    with pytest.raises(InputError, match="lengths=… for that"):
        GRU(3, 5)(packed, lengths=[2, 1])
