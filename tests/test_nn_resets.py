"""Resets: rows that start anew in their midst are sequences of their own."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from unrolled import Cell, InputError, cells
from unrolled.nn import GRU, Recurrent

pytestmark = pytest.mark.usefixtures("both_ways")
DOUBLE = torch.float64
CELLS = list(cells.catalogue().values())


def several(state):
    return state if isinstance(state, tuple) else (state,)


def one(states):
    return states if len(states) > 1 else states[0]


def layer_of(cell, **options):
    H = {"h": 4, "c": 6} if cell.name == "projected_lstm" else 5
    torch.manual_seed(0)
    layer = Recurrent(cell, 3, H, dtype=DOUBLE, **options)
    for parameter in layer.parameters():  # learned initial states too
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def in_pieces(layer, x, given_state, lengths, resets):
    """The outputs and last states of one layer, each piece of each row run by itself."""
    directions = 1 + layer.bidirectional
    anew = [torch.zeros_like(state[:, 0]) for state in given_state]
    if layer.initial_state == "learned":
        learned = [layer._learned(direction) for direction in range(directions)]
        anew = [torch.stack(parts) for parts in zip(*learned, strict=True)]
    rows = []
    for row, length in enumerate(lengths):
        cuts = [0, *(t for t in range(1, length) if resets[t, row]), length]
        continues = not (length and resets[0, row])
        pieces = []
        for start, end in pairwise(cuts):
            from_given = (start == 0 and continues, end == length)  # forward, and from the end
            state = tuple(
                torch.stack(
                    [given[d, [row]] if from_given[d] else new[[d]] for d in range(directions)]
                )
                for given, new in zip(given_state, anew, strict=True)
            )
            pieces.append(layer(x[start:end, [row]], one(state)))
        y = torch.cat([out for out, _ in pieces])
        y = torch.nn.functional.pad(y, (0, 0, 0, 0, 0, len(x) - len(y)))
        ends = (several(pieces[-1][1]), several(pieces[0][1]))  # forward, and from the end
        last = [
            torch.stack([ends[d][number][d] for d in range(directions)])
            for number in range(len(given_state))
        ]
        rows.append([y, *last])
    return [torch.cat(parts, 1) for parts in zip(*rows, strict=True)]


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_pieces_equal_each_alone(data):
    cell = data.draw(st.sampled_from(CELLS))
    backend = data.draw(st.sampled_from(["auto", "eager", "reference"]))
    learned = data.draw(st.sampled_from(["zero", "learned"]))
    bidirectional = data.draw(st.booleans())
    layer = layer_of(cell, backend=backend, initial_state=learned, bidirectional=bidirectional)
    T, B = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    lengths = data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B))
    marks = data.draw(st.lists(st.booleans(), min_size=T * B, max_size=T * B))
    resets = torch.tensor(marks).view(T, B)
    x = torch.randn(T, B, 3, dtype=DOUBLE)
    padded = x.clone()
    for row, length in enumerate(lengths):
        padded[length:, row] = float("nan")
    padded.requires_grad_()
    state = [torch.randn_like(s).requires_grad_() for s in several(layer(x)[1])]
    leaves = [padded, *state, *layer.parameters()]
    y, last, every = layer(padded, one(tuple(state)), lengths, resets, return_all=True)
    found = [y, *several(last)]
    expected = in_pieces(layer, padded, state, lengths, resets)
    trace = layer.trace(padded, one(tuple(state)), lengths, resets)
    looked = [trace.y, *several(trace.state)]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(looked, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(several(every)[0][0], y[..., : several(every)[0].shape[-1]])
    weights = [torch.randn_like(out) for out in expected]
    gradients = [
        torch.autograd.grad(
            sum((out * w).sum() for out, w in zip(outputs, weights, strict=True)),
            leaves,
            allow_unused=True,
            materialize_grads=True,
        )
        for outputs in (found, looked, expected)
    ]
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(gradients[1], gradients[2], rtol=1e-9, atol=1e-11)


def test_no_gradient_crosses_a_reset_in_any_layer_or_direction():
    layer = layer_of(cells.lstm, num_layers=2, bidirectional=True)
    x = torch.randn(9, 2, 3, dtype=DOUBLE, requires_grad=True)
    resets = torch.zeros(9, 2, dtype=torch.bool)
    resets[4, 0] = True
    y, _ = layer(x, resets=resets)
    y[6, 0].sum().backward()
    assert x.grad[4:, 0].abs().sum(1).gt(0).all()
    assert not x.grad[:4].any()
    assert not x.grad[:, 1].any()


def test_the_step_number_begins_anew():
    counting = Cell.parse("def counting(x, h_prev, *, W):\n    h = W.h @ x + t\n    return h")
    layer = Recurrent(counting, 1, 1)
    resets = torch.tensor([[False], [False], [True], [False]])
    y, _ = layer(torch.zeros(4, 1, 1), resets=resets)
    np.testing.assert_allclose(y.detach().flatten(), [1, 2, 1, 2])


def test_what_lies_between_resets_is_computed_side_by_side(monkeypatch, long_way):
    from unrolled.nn import direction

    seen = []
    run = direction.run_kernels
    monkeypatch.setattr(direction, "run_kernels", lambda *a: seen.append(a[4].active) or run(*a))
    resets = torch.zeros(100, 2, dtype=torch.bool)
    resets[::10] = True
    Recurrent(cells.gru, 3, 5)(torch.randn(100, 2, 3), resets=resets)
    assert seen[0].tolist() == [20] * 10


def test_batch_first_one_sequence_and_compiled():
    layer = GRU(3, 5, batch_first=True, dtype=DOUBLE)
    x = torch.randn(4, 7, 3, dtype=DOUBLE)
    resets = torch.rand(4, 7) < 0.3
    y, last = layer(x, resets=resets)
    for row in range(4):
        alone, final = layer(x[row], resets=resets[row])
        torch.testing.assert_close(y[row], alone)
        torch.testing.assert_close(last[:, row], final)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, resets=resets), (y, last))
    exported = torch.export.export(layer, (x,), {"resets": resets}).module()
    other = torch.rand(4, 7) < 0.5
    torch.testing.assert_close(exported(x, resets=other), layer(x, resets=other))


@pytest.mark.parametrize(
    ("resets", "message"),
    [
        (torch.zeros(7, 4), r"bool of shape \(7, 4\); found torch\.float32 of shape \(7, 4\)"),
        (torch.zeros(4, 7, dtype=torch.bool), r"found torch\.bool of shape \(4, 7\)"),
        ([True], r"found list of shape \(\)"),
    ],
)
def test_wrong_resets_get_a_sentence(resets, message):
    with pytest.raises(InputError, match=message):
        GRU(3, 5)(torch.randn(7, 4, 3), resets=resets)
