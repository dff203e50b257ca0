"""Every state of every step, by `return_all=True`."""

import numpy as np
import pytest
import torch

from unrolled import InputError, cells
from unrolled.nn import LSTM, Recurrent

pytestmark = pytest.mark.usefixtures("both_ways")
DOUBLE = torch.float64
CELLS = cells.catalogue()
LENGTHS = [3, 7, 0, 5]


def several(state):
    return state if isinstance(state, tuple) else (state,)


def layer_of(cell, **options):
    H = {"h": 4, "c": 6} if cell.name == "projected_lstm" else 5
    torch.manual_seed(0)
    return Recurrent(cell, 3, H, 2, bidirectional=True, dtype=DOUBLE, **options)


@pytest.mark.parametrize("backend", ["auto", "eager", "reference"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_they_are_those_of_the_reference_network(cell, backend):
    layer = layer_of(cell, backend=backend)
    x = torch.randn(7, 4, 3, dtype=DOUBLE)
    y, last, every = layer(x, lengths=LENGTHS, return_all=True)
    trace = layer.network().trace(x.numpy(), lengths=LENGTHS)
    np.testing.assert_allclose(y.detach(), trace.y, rtol=1e-10, atol=1e-12)
    for name, states, final in zip(cell.states, several(every), several(last), strict=True):
        assert states.shape[:3] == (4, 7, 4)
        for number in range(4):
            expected = trace[name, number // 2, number % 2]
            np.testing.assert_allclose(states[number].detach(), expected, rtol=1e-10, atol=1e-12)
            for row, length in enumerate(LENGTHS):
                step = 0 if number % 2 else length - 1
                if length:
                    torch.testing.assert_close(final[number, row], states[number, step, row])


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_gradients_flow_from_each_of_them(cell):
    layers = [layer_of(cell, backend=backend) for backend in ("auto", "eager")]
    x = torch.randn(7, 4, 3, dtype=DOUBLE, requires_grad=True)
    found = []
    for layer in layers:
        y, last, every = layer(x, lengths=LENGTHS, return_all=True)
        torch.manual_seed(1)
        loss = sum((a * torch.randn_like(a)).sum() for a in (y, *several(last), *several(every)))
        found.append(torch.autograd.grad(loss, [x, *layer.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


def test_shapes_follow_the_input():
    layer = LSTM(3, 5, num_layers=2, batch_first=True)
    _, _, (h, c) = layer(torch.randn(4, 7, 3), return_all=True)
    assert h.shape == c.shape == (2, 4, 7, 5)
    y, _, (h, c) = layer(torch.randn(7, 3), return_all=True)
    assert h.shape == c.shape == (2, 7, 5)
    torch.testing.assert_close(h[1], y)


def test_compiled():
    layer = layer_of(cells.lstm)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(7, 4, 3, dtype=DOUBLE)
    torch.testing.assert_close(compiled(x, return_all=True), layer(x, return_all=True))


def test_a_packed_sequence_is_refused():
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(2, 3), torch.randn(1, 3)])
    with pytest.raises(InputError, match="no resets, masks nor return_all"):
        LSTM(3, 5)(packed, return_all=True)
