"""`recompute=True`: the forward pass keeps states only, and every number is as without it."""

import copy
import warnings

import pytest
import torch
from own_cells import OWN_CELLS

import unrolled
from unrolled import Cell, cells
from unrolled.nn import Recurrent, choice
from unrolled.nn.direction import direction_of

DOUBLE = torch.float64
CELLS = cells.catalogue()
NOISY = unrolled.zoneout(unrolled.recurrent_dropout(cells.simple, 0.4), 0.2)
REMEMBERS_NOTHING = Cell.parse(
    "def line(x, h_prev, *, W):\n    h = W.h @ x + h_prev * 0.9\n    return h"
)


def several(state):
    return state if isinstance(state, tuple) else (state,)


def pair(cell, **options):
    """The same layer twice, without and with recomputation."""
    H = {"h": 4, "c": 6} if cell.name == "projected_lstm" else 5
    torch.manual_seed(0)
    usual = Recurrent(cell, 3, H, dtype=DOUBLE, **options)
    again = Recurrent(cell, 3, H, dtype=DOUBLE, recompute=True, **options)
    again.load_state_dict(usual.state_dict())
    return usual, again


def numbers(layer, x, *arguments, **options):
    """What a call gives, and the gradients of a sum of all of it."""
    found = [part for one in layer(x, *arguments, **options) for part in several(one)]
    loss = sum((part * torch.linspace(-1, 1, part.numel(), dtype=x.dtype).view(part.shape)).sum()
               for part in found)  # fmt: skip
    leaves = [x, *layer.parameters()]
    return found, torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


def assert_same(found, expected, tolerance=1e-10):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance / 10)


# Each would make kernels of its own: one of the catalogue is compiled.
SOME = [
    cells.gru_original,
    REMEMBERS_NOTHING,
    *(
        pytest.param(cell, marks=pytest.mark.plain)
        for cell in (*CELLS.values(), OWN_CELLS["stages"])
        if cell != cells.gru_original
    ),
]


@pytest.mark.parametrize("backend", ["auto", "eager", "reference"])
@pytest.mark.parametrize("cell", SOME, ids=lambda cell: cell.name)
def test_the_same_numbers_and_gradients(cell, backend):
    usual, again = pair(cell, backend=backend, num_layers=2, bidirectional=True)
    x = torch.randn(6, 4, 3, dtype=DOUBLE, requires_grad=True)
    lengths, resets = [6, 0, 3, 5], torch.rand(6, 4) < 0.2
    for options in ({}, {"lengths": lengths, "resets": resets, "return_all": True}):
        assert_same(numbers(again, x, **options), numbers(usual, x, **options))


@pytest.mark.parametrize("lengths", [None, [6, 0, 3, 5], [0, 0, 0, 0]], ids=str)
@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_a_state_that_is_made_of_parameters_alone(backend, lengths):
    """It has all rows of a step, though nothing that it is made of has any."""
    cell = Cell.parse(
        """def constant(x, h_prev, *, W, U, b):
            h = tanh(W.h @ x + U.h @ h_prev)
            c = tanh(b.c - mean(b.c))
            return c, h"""
    )
    torch.manual_seed(0)
    usual, again = (
        Recurrent(cell, 3, {"h": 3, "c": 4}, dtype=DOUBLE, backend=backend, recompute=recompute)
        for recompute in (False, True)
    )
    again.load_state_dict(usual.state_dict())
    x = torch.randn(6, 4, 3, dtype=DOUBLE, requires_grad=True)
    options = {"lengths": lengths, "return_all": True}
    assert_same(numbers(again, x, **options), numbers(usual, x, **options))
    state = torch.tanh(usual.b_l0 - usual.b_l0.mean())
    for last in again(x, lengths=[6, 6, 6, 1])[1][0][0]:
        torch.testing.assert_close(last, state)


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_the_same_masks_because_they_are_inputs(backend):
    usual, again = pair(NOISY, num_layers=2, dropout=0.3, weight_dropout=0.3, backend=backend)
    x = torch.randn(6, 4, 3, dtype=DOUBLE, requires_grad=True)
    found = []
    for layer in (again, usual):
        torch.manual_seed(1)  # all is drawn in the forward pass, and nothing in the backward pass
        found.append(numbers(layer, x))
        torch.rand(3)
    assert_same(*found)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_states_only_are_kept(cell):
    numbers = tuple(3 + place for place, _ in enumerate(cell.sizes.letters))
    usual, again = (
        direction_of(cell.text, numbers, False, "auto", recompute=recompute)
        for recompute in (False, True)
    )
    states = sum(again.sizes[cell.sizes.values[state]] for state in cell.states)
    assert again.widths[-1] <= states < usual.widths[-1]


def kept(layer, x, states=()):
    """How many numbers autograd holds for the backward pass, beside the layer's own tensors."""
    held = {}

    def hold(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        y, _ = layer(x, states or None)
    own = {x, *states, *layer.parameters(), y}
    for tensor in own:
        held.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(held.values()) // x.element_size()


def test_how_much_is_kept_is_what_the_docstring_says():
    T, B, H = 40, 3, 8
    for cell, without, within in ((cells.lstm, 6, 2), (cells.gru, 5, 1)):
        x = torch.randn(T, B, 3)
        counts = []
        for recompute in (False, True):
            layer = Recurrent(cell, 3, H, recompute=recompute)
            states = tuple(torch.randn(1, B, H) for _ in cell.states)
            counts.append(kept(layer, x, states) / (T * B * H))
        assert counts == [without, within]


def test_the_eager_backend_keeps_less_too():
    x = torch.randn(40, 3, 3)
    usual, again = (
        kept(Recurrent(cells.lstm, 3, 8, backend="eager", recompute=recompute), x)
        for recompute in (False, True)
    )
    assert again < usual / 3


def test_copied_compiled_and_exported():
    usual, again = pair(cells.gru, bidirectional=True)
    x = torch.randn(5, 2, 3, dtype=DOUBLE, requires_grad=True)
    expected = numbers(usual, x)
    assert_same(numbers(copy.deepcopy(again), x), expected)
    assert copy.deepcopy(again)._directions[0].recompute
    graphs = []
    compiled = torch.compile(
        again, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph
    )
    assert_same(numbers(compiled, x), expected)
    forward = (torch.ops.unrolled.forward, torch.ops.unrolled.forward.default)
    assert any(node.target in forward for graph in graphs for node in graph.graph.nodes)
    exported = torch.export.export(again, (x,)).module()
    assert_same(exported(x), usual(x))
    y, _ = exported(x)
    found = torch.autograd.grad(y.sum(), x)
    assert_same(found, torch.autograd.grad(usual(x)[0].sum(), x))


def test_the_operator_is_a_good_operator():
    layer = Recurrent(cells.lstm, 3, 5, recompute=True)
    direction = layer._directions[0]
    about = (direction.text, list(direction.numbers), False, "auto", False, True)
    x, states = torch.randn(4, 2, 3, requires_grad=True), [torch.randn(2, 5) for _ in range(2)]
    torch.library.opcheck(
        torch.ops.unrolled.forward,
        (x, states, list(layer._families(0)), None, None, None, [], direction.widths[-1], *about),
    )


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_second_derivatives_and_transforms(backend, monkeypatch):
    monkeypatch.setattr(choice, "_said", set())
    usual, again = pair(cells.gru_original, backend=backend)
    x = torch.randn(4, 2, 3, dtype=DOUBLE, requires_grad=True)

    def penalty(layer):
        (dx,) = torch.autograd.grad(layer(x)[0].sin().sum(), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), list(layer.parameters()))

    def of_function(layer):
        return torch.func.grad(lambda x: layer(x)[0].sin().sum())(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the eager backend takes over
        assert_same(penalty(again), penalty(usual))
        assert_same(of_function(again), of_function(usual))


def test_it_is_printed():
    assert repr(Recurrent(cells.gru, 3, 5, recompute=True)).endswith("recompute=True)")
