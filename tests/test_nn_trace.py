"""`layer.trace(x)`: every named value of a run of torch layers, and every gradient."""

import numpy as np
import pytest
import torch

import unrolled
from unrolled import InputError, cells
from unrolled.nn import GRU, LSTM, Recurrent

DOUBLE = torch.float64
CELLS = cells.catalogue()
LENGTHS = [3, 7, 0, 5]


def several(state):
    return state if isinstance(state, tuple) else (state,)


def loss_of(y, state):
    parts = [y, *several(state)]
    return sum((part * torch.arange(part.numel()).view(part.shape).cos()).sum() for part in parts)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_numbers_are_those_of_the_layer(cell, lengths):
    torch.manual_seed(0)
    H = {"h": 4, "c": 6} if cell.name == "projected_lstm" else 5
    layer = Recurrent(
        cell, 3, H, 2, bidirectional=True, dtype=DOUBLE, initial_state="learned"
    )  # fmt: skip
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(7, 4, 3, dtype=DOUBLE, requires_grad=True)
    y, state = layer(x, lengths=lengths)
    trace = layer.trace(x, lengths=lengths)
    torch.testing.assert_close((trace.y, trace.state), (y, state))
    leaves = [x, *layer.parameters()]
    wanted = torch.autograd.grad(loss_of(y, state), leaves)
    found = torch.autograd.grad(loss_of(trace.y, trace.state), leaves)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    for name in cell.names:
        assert trace[name, 0, 1].shape == trace.gradient(name, 0, 1).shape
    own = layer.network().trace(x.detach().numpy(), lengths=lengths)
    np.testing.assert_allclose(own.y, y.detach(), rtol=1e-10, atol=1e-12)


def test_a_gate_and_its_gradient_against_torch():
    torch.manual_seed(0)
    layer = LSTM(3, 5, batch_first=True, dtype=DOUBLE)
    x = torch.randn(4, 7, 3, dtype=DOUBLE)
    trace = layer.trace(x)
    trace.y.square().sum().backward()
    W, U, *biases = layer.all_weights[0]
    bias = sum(biases)
    h = c = torch.zeros(4, 5, dtype=DOUBLE)
    gates, outputs = [], []
    for step in range(7):
        i, f, g, o = (x[:, step] @ W.T + h @ U.T + bias).chunk(4, 1)
        f = torch.sigmoid(f)
        f.retain_grad()
        gates.append(f)
        c = f * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    sum(h.square().sum() for h in outputs).backward()
    torch.testing.assert_close(trace["f"], torch.stack(gates))
    torch.testing.assert_close(trace.gradient("f"), torch.stack([f.grad for f in gates]))
    norms = trace.gradient_norm("f")
    assert norms.shape == (7, 4)
    torch.testing.assert_close(norms[2, 1], gates[2].grad[1].norm())


def test_before_a_backward_pass_there_are_no_gradients():
    trace = GRU(3, 5).trace(torch.randn(7, 3))
    assert trace.y.shape == (7, 5)
    assert trace.y.dtype == trace["z"].dtype == torch.float32
    with pytest.raises(RuntimeError, match="no gradient went through this trace yet"):
        trace.gradient("h")
    with pytest.raises(KeyError, match="q was not kept; this trace has x, h_prev, r"):
        trace["q"]
    with pytest.raises(InputError, match="has input_size 3"):
        GRU(3, 5).trace(torch.randn(7, 4))


def test_a_learned_initial_state():
    torch.manual_seed(0)
    layer = Recurrent(
        cells.lstm, 3, 5, 2, bidirectional=True, initial_state="learned", dtype=DOUBLE
    )  # fmt: skip
    names = [name for name, _ in layer.named_parameters() if "_0_" in name]
    assert names == [
        f"{state}_0_l{layer}{end}"
        for layer in (0, 1) for end in ("", "_reverse") for state in ("h", "c")
    ]  # fmt: skip
    x = torch.randn(7, 4, 3, dtype=DOUBLE)
    plain = Recurrent(cells.lstm, 3, 5, 2, bidirectional=True, dtype=DOUBLE)
    plain.load_state_dict(layer.state_dict(), strict=False)
    torch.testing.assert_close(layer(x), plain(x))  # it begins at zero
    for name in names:
        torch.nn.init.normal_(layer.get_parameter(name))
    given = tuple(
        torch.stack([layer.get_parameter(n) for n in names[k::2]])[:, None].repeat(1, 4, 1)
        for k in (0, 1)
    )
    torch.testing.assert_close(layer(x), plain(x, given))
    torch.testing.assert_close(layer(x, given), plain(x, given))
    y, _ = layer(x, lengths=LENGTHS)
    loss_of(y, ()).backward()
    held = layer.get_parameter("c_0_l1_reverse")
    gradient = held.grad.clone()
    with torch.no_grad():
        losses = []
        for push in (1e-6, -1e-6):
            held[2] += push
            losses.append(loss_of(layer(x, lengths=LENGTHS)[0], ()))
            held[2] -= push
    torch.testing.assert_close(gradient[2], (losses[0] - losses[1]) / 2e-6, rtol=1e-6, atol=1e-8)
    layer.reset_parameters()
    assert not any(layer.get_parameter(name).any() for name in names)
    assert "initial_state='learned'" in repr(layer)
    with pytest.raises(InputError, match="'zero' or 'learned'; found 'random'"):
        Recurrent(cells.lstm, 3, 5, initial_state="random")


@pytest.mark.parametrize("every", ["step", "sequence"])
def test_with_masks_it_is_the_call_with_these_masks(every):
    torch.manual_seed(0)
    cell = unrolled.zoneout(unrolled.recurrent_dropout(cells.lstm, 0.4), 0.3)
    layer = Recurrent(
        cell, 3, 5, 2, bidirectional=True, batch_first=True, dropout=0.5, dropout_every=every,
        weight_dropout=0.5, initial_state="learned", dtype=DOUBLE,
    )  # fmt: skip
    x = torch.randn(4, 7, 3, dtype=DOUBLE, requires_grad=True)
    resets = torch.rand(4, 7) < 0.3
    masks = layer.draw_masks(7, 4)
    leaves = [x, *layer.parameters()]
    y, state = layer(x, lengths=LENGTHS, resets=resets, masks=masks)
    trace = layer.trace(x, lengths=LENGTHS, resets=resets, masks=masks)
    torch.testing.assert_close((trace.y, trace.state), (y, state))
    wanted = torch.autograd.grad(loss_of(y, state), leaves)
    found = torch.autograd.grad(loss_of(trace.y, trace.state), leaves)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    read = torch.cat([trace["h", 0, 0], trace["h", 0, 1]], -1)
    torch.testing.assert_close(trace["x", 1], read * masks[2]["x"])
    assert not torch.equal(layer.trace(x).y, layer.trace(x, masks=masks).y)


def test_masks_that_do_not_fit_get_a_sentence():
    layer = Recurrent(unrolled.zoneout(cells.lstm, 0.3), 3, 5)
    x = torch.randn(7, 4, 3)
    with pytest.raises(InputError, match="masks are a list with one dictionary for each of the 1"):
        layer.trace(x, masks=[])
    with pytest.raises(InputError, match=r"the mask keep_h has the shape \(4, 5\) or, at every"):
        layer.trace(x, masks=layer.draw_masks(6, 4))
    for masked in (layer, layer.trace):
        with pytest.raises(InputError, match=r"the mask keep_h is a tensor .*; found int"):
            masked(x, masks=[{**layer.draw_masks(7, 4)[0], "keep_h": 3}])
    network = layer.network()
    with pytest.raises(InputError, match="a dictionary for each of the 1 layers"):
        network.trace(x.numpy(), masks=[])
    with pytest.raises(InputError, match=r"the mask keep_c .* found none"):
        network.trace(x.numpy(), masks=[{"keep_h": np.ones((4, 5))}])
