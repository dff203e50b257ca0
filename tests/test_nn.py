"""`unrolled.nn.Recurrent`: any cell, deep, in both directions, from its door to its gradients."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from unrolled import Cell, InputError, SizeError, cells
from unrolled.nn import GRU, LSTM, RNN, Recurrent

DOUBLE = torch.float64
MINE = Cell.parse(
    """
def mine(x, h_prev, s_prev, *, W, U, V, P, b, d, tau=0.5):
    s = s_prev * exp(-tau * sigmoid(P.s * s_prev + b.s)) + tanh(W.s @ x + U.s @ h_prev + b.in)
    h = tanh(V.h @ (s / (1 + s * s)) + d.h)
    return h, s
""".replace("b.in", "b.g")
)
BACKENDS = ["auto", "reference", "eager"]


def loop_of_mine(x, h, s, W, U, V, P, b, d):
    """The cell `mine`, written by hand."""
    H = s.shape[1]
    outputs = []
    for x_t in x:
        leak = torch.sigmoid(P * s + b[:H])
        s = s * torch.exp(-0.5 * leak) + torch.tanh(x_t @ W.T + h @ U.T + b[H:])
        h = torch.tanh((s / (1 + s * s)) @ V.T + d)
        outputs.append(h)
    return torch.stack(outputs), h, s


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-10), (torch.float32, 2e-5)])
def test_a_cell_of_ones_own_with_states_of_two_sizes(backend, dtype, tolerance) -> None:
    torch.manual_seed(0)
    layer = Recurrent(MINE, 7, {"h": 9, "s": 33}, backend=backend, dtype=dtype)
    shapes = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    assert shapes == {
        "W_l0": (33, 7), "U_l0": (33, 9), "V_l0": (9, 33), "P_l0": (33,), "b_l0": (66,),
        "d_l0": (9,),
    }  # fmt: skip
    x = torch.randn(11, 5, 7, dtype=dtype, requires_grad=True)
    h = torch.randn(1, 5, 9, dtype=dtype, requires_grad=True)
    s = torch.randn(1, 5, 33, dtype=dtype, requires_grad=True)
    leaves = [x, h, s, *layer.parameters()]
    y, (h_last, s_last) = layer(x, (h, s))
    found = [y, h_last[0], s_last[0]]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = loop_of_mine(exact[0], exact[1][0], exact[2][0], *exact[3:])
    weights = [torch.randn(value.shape, dtype=DOUBLE) for value in expected]
    found = [*found, *torch.autograd.grad(found, leaves, [w.to(dtype) for w in weights])]
    expected = [*expected, *torch.autograd.grad(expected, exact, weights)]
    for ours, theirs in zip(found, expected, strict=True):
        error = (ours.double() - theirs).abs().max() / theirs.abs().max()
        assert float(error.detach()) < tolerance


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", cells.catalogue())
def test_every_cell_runs_as_the_cell_itself(name: str, backend: str) -> None:
    cell = cells.catalogue()[name]
    layer = Recurrent(cell, 3, 5, dtype=DOUBLE, backend=backend)
    params = {}
    for family, blocks in cell.blocks.items():
        rows = getattr(layer, f"{family}_l0").detach().numpy()
        parts = zip(blocks, np.split(rows, len(blocks)), strict=True)
        params |= {f"{family}.{block}": part for block, part in parts}
    x = torch.randn(6, 2, 3, dtype=DOUBLE)
    expected, last = cell.run(x.numpy(), params)
    y, state = layer(x)
    np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-12)
    states = [state] if isinstance(state, torch.Tensor) else state
    for ours, theirs in zip(states, [last] if len(states) == 1 else last, strict=True):
        np.testing.assert_allclose(ours[0].detach().numpy(), theirs, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_deep_and_bidirectional_is_made_of_single_layers(backend: str) -> None:
    deep = Recurrent(
        cells.lstm, 3, 4, num_layers=2, bidirectional=True, dtype=DOUBLE, backend=backend
    )
    x, state = torch.randn(5, 2, 3, dtype=DOUBLE), torch.randn(2, 4, 2, 4, dtype=DOUBLE)
    y, (h, c) = deep(x, (state[0], state[1]))
    below, number = x, 0
    for layer in range(2):
        outputs = []
        for ending in ("", "_reverse"):
            single = Recurrent(cells.lstm, below.shape[-1], 4, dtype=DOUBLE)
            names = {f"{family}_l0": f"{family}_l{layer}{ending}" for family in "WUb"}
            single.load_state_dict(
                {name: deep.state_dict()[theirs] for name, theirs in names.items()}
            )
            part = (state[0, number, None], state[1, number, None])
            out, (h_last, c_last) = single(below.flip(0) if ending else below, part)
            outputs.append(out.flip(0) if ending else out)
            torch.testing.assert_close(h[number], h_last[0])
            torch.testing.assert_close(c[number], c_last[0])
            number += 1
        below = torch.cat(outputs, -1)
    torch.testing.assert_close(y, below)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_packed_batch_is_its_rows_alone(backend: str) -> None:
    counting = Cell.parse(
        "def counting(x, h_prev, *, W, U):\n"
        "    h = tanh(W.h @ x + U.h @ h_prev) + 0.1 * t\n    return h"
    )
    layer = Recurrent(
        counting, 3, 4, num_layers=2, bidirectional=True, dtype=DOUBLE, backend=backend
    )
    rows = [torch.randn(n, 3, dtype=DOUBLE, requires_grad=True) for n in (2, 7, 1, 7, 4)]
    y, last = layer(pack_sequence(rows, enforce_sorted=False))
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
    for number, row in enumerate(rows):
        alone, last_alone = layer(row)
        torch.testing.assert_close(padded[: len(row), number], alone)
        torch.testing.assert_close(last[:, number], last_alone)
        found = torch.autograd.grad(padded[:, number].sin().sum(), row, retain_graph=True)
        torch.testing.assert_close(found, torch.autograd.grad(alone.sin().sum(), row))


def test_shapes_at_the_door() -> None:
    layer = Recurrent(cells.lstm, 3, 4, num_layers=2, bidirectional=True)
    y, (h, c) = layer(torch.randn(5, 2, 3))
    assert (y.shape, h.shape, c.shape) == ((5, 2, 8), (4, 2, 4), (4, 2, 4))
    y, (h, c) = layer(torch.randn(5, 3), (h[:, 0], c[:, 0]))
    assert (y.shape, h.shape, c.shape) == ((5, 8), (4, 4), (4, 4))
    first = Recurrent(cells.gru, 3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    y, h = first(x)
    assert (y.shape, h.shape) == ((2, 5, 4), (1, 2, 4))
    torch.testing.assert_close(first(x[1])[0], y[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("length", "batch"), [(0, 2), (3, 0), (0, 0)])
def test_nothing_to_read(length: int, batch: int, backend: str) -> None:
    layer = Recurrent(cells.lstm, 3, 4, bidirectional=True, backend=backend)
    x = torch.randn(length, batch, 3, requires_grad=True)
    state = torch.randn(2, batch, 4, requires_grad=True), torch.randn(2, batch, 4)
    y, (h, c) = layer(x, state)
    assert y.shape == (length, batch, 8)
    if not length:
        torch.testing.assert_close((h, c), state)
    (y.sum() + h.sum()).backward()
    assert x.grad is None or x.grad.shape == x.shape
    assert torch.equal(state[0].grad, torch.full_like(state[0], 1.0 * (length == 0)))
    assert layer.W_l0.grad is None or not layer.W_l0.grad.any()


def test_a_cell_whose_derivative_needs_no_value_of_the_forward_pass() -> None:
    cell = Cell.parse("def line(x, h_prev, *, W):\n    h = W.h @ x + h_prev * 0.5\n    return h")
    layer = Recurrent(cell, 3, 2, bias=False)
    x = torch.randn(2, 4, 3)
    layer(x)[0].sum().backward()
    expected = (1.5 * x[0] + x[1]).sum(0).expand(2, 3)
    torch.testing.assert_close(layer.W_l0.grad, expected)


def test_a_state_given_back_continues_the_sequence() -> None:
    layer = Recurrent(cells.projected_lstm, 3, {"h": 4, "c": 6}, num_layers=2)
    x = torch.randn(7, 2, 3)
    y, last = layer(x)
    first, state = layer(x[:3])
    second, state = layer(x[3:], state)
    torch.testing.assert_close(torch.cat([first, second]), y)
    torch.testing.assert_close(state, last)


def test_inputs_that_are_not_contiguous() -> None:
    layer = Recurrent(cells.gru, 3, 4)
    x = torch.randn(2, 3, 5)
    y, _ = layer(x.permute(2, 0, 1))
    torch.testing.assert_close(y, layer(x.permute(2, 0, 1).contiguous())[0])
    state = torch.randn(4, 2, 1).permute(2, 1, 0)
    torch.testing.assert_close(layer(x.permute(2, 0, 1), state)[0],
                               layer(x.permute(2, 0, 1), state.contiguous())[0])  # fmt: skip


# parameters


def test_without_bias_added_vectors_are_zero_and_no_parameters() -> None:
    layer = Recurrent(MINE, 3, {"h": 4, "s": 5}, bias=False, dtype=DOUBLE)
    assert [name for name, _ in layer.named_parameters()] == ["W_l0", "U_l0", "V_l0", "P_l0"]
    assert list(layer.state_dict()) == ["W_l0", "U_l0", "V_l0", "P_l0"]
    whole = Recurrent(MINE, 3, {"h": 4, "s": 5}, dtype=DOUBLE)
    whole.load_state_dict({**layer.state_dict(), "b_l0": torch.zeros(10), "d_l0": torch.zeros(4)})
    x = torch.randn(5, 2, 3, dtype=DOUBLE)
    torch.testing.assert_close(layer(x), whole(x))
    assert layer.float()(x.float())[0].dtype == torch.float32


def test_parameters_are_drawn_from_plus_minus_one_over_root_h() -> None:
    layer = Recurrent(cells.projected_lstm, 20, {"h": 25, "c": 50}, num_layers=2)
    for parameter in layer.parameters():
        assert float(parameter.detach().abs().max()) <= 0.2
        assert float(parameter.detach().abs().max()) > 0.15
    torch.manual_seed(1)
    before = layer.U_l1.clone()
    layer.reset_parameters()
    assert not torch.equal(before, layer.U_l1)


def test_names_and_shapes_of_a_deep_layer() -> None:
    layer = Recurrent(cells.gru_original, 3, 4, num_layers=2, bidirectional=True)
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    expected = {}
    for number, width in enumerate((3, 8)):
        for ending in ("", "_reverse"):
            expected |= {f"W_l{number}{ending}": (12, width), f"U_l{number}{ending}": (12, 4)}
            expected |= {f"b_l{number}{ending}": (12,)}
    assert shapes == expected


@pytest.mark.parametrize(
    "layer",
    [
        Recurrent(MINE, 3, {"h": 4, "s": 5}, num_layers=2, bias=False),
        LSTM(3, 4, proj_size=2, bidirectional=True),
        RNN(3, 4, bias=False),
    ],
    ids=["recurrent", "lstm", "rnn"],
)
def test_copies(layer: torch.nn.Module) -> None:
    x = torch.randn(5, 2, 3)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert str(twin) == str(layer)
        torch.testing.assert_close(twin(x), layer(x))
        with torch.no_grad():
            next(twin.parameters()).add_(1)
        assert not torch.allclose(twin(x)[0], layer(x)[0])


def test_weights_may_be_parametrised() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(LSTM(3, 4), "weight_hh_l0")
    x = torch.randn(5, 2, 3)
    before = layer(x)[0]
    layer(x)[0].sum().backward()
    names = {name for name, parameter in layer.named_parameters() if parameter.grad is not None}
    assert "parametrizations.weight_hh_l0.original0" in names
    with torch.no_grad():
        layer.parametrizations.weight_hh_l0.original0.mul_(2)
    assert not torch.allclose(layer(x)[0], before)


def test_dropout_acts_between_layers_and_in_training_only() -> None:
    layer = Recurrent(cells.simple, 3, 64, num_layers=2, dropout=1.0)
    x = torch.randn(5, 2, 3)
    y, _ = layer(x)
    with torch.no_grad():
        layer.W_l1.zero_()
    torch.testing.assert_close(y, layer(x)[0])  # nothing came through to the second layer
    layer.reset_parameters()
    assert not torch.allclose(layer.eval()(x)[0], layer.train()(x)[0])
    single = Recurrent(cells.simple, 3, 4, dropout=1.0)
    torch.testing.assert_close(single(x), single.eval()(x))


def test_what_is_printed() -> None:
    assert str(Recurrent(cells.lstm, 3, 4)) == "Recurrent(lstm, 3, 4)"
    layer = Recurrent(MINE, 3, {"h": 4, "s": 5}, num_layers=2, bias=False, dropout=0.1,
                      bidirectional=True, batch_first=True, backend="eager")  # fmt: skip
    assert str(layer) == (
        "Recurrent(mine, 3, {'h': 4, 's': 5}, num_layers=2, bias=False, batch_first=True, "
        "dropout=0.1, bidirectional=True, backend='eager')"
    )


# errors


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (
            lambda: Recurrent(cells.lstm, 3, 4)(torch.randn(3)),
            "the input is a tensor (T, B, I), or (T, I) for one sequence, or a PackedSequence; "
            "found (3,).",
        ),
        (
            lambda: Recurrent(cells.lstm, 3, 4, batch_first=True)([1.0]),
            "the input is a tensor (B, T, I), or (T, I) for one sequence, or a PackedSequence; "
            "found list.",
        ),
        (
            lambda: Recurrent(cells.lstm, 3, 4)(torch.randn(5, 2, 4)),
            "this layer has input_size 3; the input of shape (5, 2, 4) has 4 values at each step.",
        ),
        (
            lambda: Recurrent(cells.lstm, 3, 4)(torch.randn(5, 2, 3), torch.zeros(1, 2, 4)),
            "cell 'lstm' has 2 states (h, c); 1 was given.",
        ),
        (
            lambda: GRU(3, 4)(torch.randn(5, 2, 3), (torch.zeros(1, 2, 4),) * 2),
            "cell 'gru' has 1 state (h); 2 were given.",
        ),
        (
            lambda: GRU(3, 4)(torch.randn(5, 2, 3), torch.zeros(2, 4)),
            "the initial state h has shape (2, 4); expected (1, 2, 4): "
            "(layers · directions, batch, size).",
        ),
        (
            lambda: GRU(3, 4, bidirectional=True)(torch.randn(5, 3), torch.zeros(1, 4)),
            "the initial state h has shape (1, 4); expected (2, 4): (layers · directions, size).",
        ),
        (
            lambda: GRU(3, 4)(torch.randn(5, 2, 3), [[0.0]]),
            "the initial state h is a tensor; found list.",
        ),
        (
            lambda: GRU(3, 4)(torch.ones(5, 2, 3, dtype=torch.int64)),
            "the input is int64 on cpu, and a state or parameter of the layer is float32 on cpu. "
            "Bring them together: layer.to(x), or x.to(…) and state.to(…).",
        ),
        (
            lambda: Recurrent("lstm", 3, 4),
            "the first argument is a cell, such as unrolled.cells.lstm; found 'lstm'.",
        ),
        (
            lambda: Recurrent(cells.lstm, 3, 4, num_layers=0),
            "num_layers is 0; a network has one layer or more.",
        ),
        (
            lambda: Recurrent(cells.lstm, 3, 4, dropout=1.5),
            "dropout is 1.5; it is a probability, from 0 to 1.",
        ),
    ],
)
def test_errors_are_sentences(run, text: str) -> None:
    with pytest.raises(InputError) as error:
        run()
    assert str(error.value) == text


def test_sizes_that_cannot_agree() -> None:
    residual = Cell.parse("def residual(x, h_prev, *, U):\n  h = x + U.h @ h_prev\n  return h")
    assert Recurrent(residual, 4, 4, num_layers=2)(torch.randn(2, 1, 4))[0].shape == (2, 1, 4)
    with pytest.raises(
        SizeError, match="two sizes cannot agree: 4, the size of h, and 3, the size of x"
    ):
        Recurrent(residual, 3, 4)


def test_layers_whose_states_would_differ_in_size() -> None:
    cell = Cell.parse("def mixed(x, h_prev, *, W):\n    h = W.h @ h_prev + x\n    return h")
    Recurrent(cell, 3, {}, num_layers=2)
    with pytest.raises(InputError, match=r"would be of \[3\] and \[6\] units in layers 1 and 2"):
        Recurrent(cell, 3, {}, num_layers=2, bidirectional=True)
