"""Short sequences: layers go the short way, and give what the ordinary way gives."""

import copy
import pickle
import threading
import warnings

import pytest
import torch
from own_cells import OWN_CELLS

import unrolled
from unrolled import Cell, cells, nn
from unrolled.backends.cpu import lending, memory
from unrolled.nn import Recurrent, choice, short

DOUBLE = torch.float64
ALL_CELLS = {**cells.catalogue(), **OWN_CELLS}
# One is compiled, the others run as plain Python; in a quick run `test_plain_kernels` has layers
# with cells drawn at random.
EVERY_CELL = [
    pytest.param(
        cell, id=name, marks=() if name == "lstm" else [pytest.mark.plain, pytest.mark.slow]
    )
    for name, cell in ALL_CELLS.items()
]


def flat(found):
    y, state = found
    return [y, *([state] if isinstance(state, torch.Tensor) else state)]


def both_passes(layer, x, state, seed=0):
    """Outputs, last states, and the gradient of everything that has one."""
    outputs = flat(layer(x, state))
    generator = torch.Generator().manual_seed(seed)
    gradients = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in outputs]
    inputs = [x, *(() if state is None else state), *layer.parameters()]
    return [*outputs, *torch.autograd.grad(outputs, inputs, gradients)]


@pytest.fixture
def short_only(monkeypatch):
    """Every call goes the short way, or the test fails."""
    monkeypatch.setattr(nn.layers.Layers, "_run", None)


@pytest.fixture
def ordinary():
    """What makes a copy of a layer that goes the ordinary way."""

    def turned(layer):
        other = copy.deepcopy(layer)
        other._served = False
        return other

    return turned


def layer_of(cell, hidden_size=5, **options):
    input_size = hidden_size if cell.name == "output" else 3
    layer = Recurrent(cell, input_size, hidden_size, dtype=DOUBLE, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return layer


@pytest.mark.parametrize("cell", EVERY_CELL)
def test_any_cell_in_any_stack(cell, ordinary, monkeypatch):
    for options, shape, recompute in (
        ({}, (6, 2), False),
        ({"num_layers": 3}, (4, 1), False),
        ({"num_layers": 2, "bidirectional": True}, (5, 3), False),
        ({"bidirectional": True, "batch_first": True}, (5, 3), True),
    ):
        if cell.name == "output" and options.get("num_layers", 1) > 1 and len(options) > 1:
            continue  # it reads as many values as it has units, and there would be twice as many
        layer = layer_of(cell, 9, recompute=recompute, **options)
        batch = shape[0] if "batch_first" in options else shape[1]
        x = torch.randn(*shape, layer.input_size, dtype=DOUBLE, requires_grad=True)
        count = len(layer._directions)
        state = tuple(
            torch.randn(count, batch, size, dtype=DOUBLE, requires_grad=True)
            for size in layer._state_sizes
        )
        expected = both_passes(ordinary(layer), x, state)
        with monkeypatch.context() as patch:
            patch.setattr(layer, "_run", None)
            found = both_passes(layer, x, state)
            with torch.no_grad():
                alone = flat(layer(x, state))
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(alone, expected[: len(alone)], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_drop_ins_are_torchs(kind, bias, short_only):
    peer = getattr(torch.nn, kind)(3, 10, num_layers=2, bias=bias, bidirectional=True)
    layer = getattr(nn, kind)(3, 10, num_layers=2, bias=bias, bidirectional=True)
    layer.load_state_dict(peer.state_dict())
    for shape in ((7, 2, 3), (7, 3), (1, 2, 3)):
        x = torch.randn(shape, requires_grad=True)
        torch.testing.assert_close(
            both_passes(layer, x, None), both_passes(peer, x, None), rtol=1e-4, atol=1e-5
        )


def test_every_shape_of_input(short_only):
    layer, peer = nn.GRU(3, 5, 2, batch_first=True), torch.nn.GRU(3, 5, 2, batch_first=True)
    peer.load_state_dict(layer.state_dict())
    for x in (
        torch.randn(4, 6, 3),
        torch.randn(6, 3),
        torch.randn(3, 6, 4).permute(2, 1, 0),
        torch.randn(1, 1, 3).expand(4, 6, 3),
        torch.randn(4, 6, 6)[..., ::2],
    ):
        for state in (None, torch.randn(5, 4, 2).permute(2, 1, 0)):
            if x.dim() == 2 and state is not None:
                state = state[:, 0]
            torch.testing.assert_close(flat(layer(x, state)), flat(peer(x, state)))


def test_gradients_that_lie_in_any_way(short_only):
    layer = layer_of(cells.lstm)
    x = torch.randn(6, 2, 3, dtype=DOUBLE, requires_grad=True)
    y, (_, c) = layer(x)
    parameters = [x, *layer.parameters()]
    summed = torch.autograd.grad(y.sum(), parameters, retain_graph=True)
    ones = torch.autograd.grad(y, parameters, torch.ones_like(y), retain_graph=True)
    torch.testing.assert_close(summed, ones)
    weights = torch.randn(2, 6, 5, dtype=DOUBLE)
    turned = torch.autograd.grad(y, parameters, weights.transpose(0, 1), retain_graph=True)
    straight = torch.autograd.grad(
        y, parameters, weights.transpose(0, 1).contiguous(), retain_graph=True
    )
    torch.testing.assert_close(turned, straight)
    alone = torch.autograd.grad(c.sum(), parameters)  # of the output none is there
    assert all(gradient.abs().sum() > 0 for gradient in alone)


def test_gradients_of_a_graph_used_twice_and_of_two_calls_before_one_backward(short_only):
    layer = layer_of(cells.gru, num_layers=2)
    x = torch.randn(2, 6, 2, 3, dtype=DOUBLE)
    alone = [torch.autograd.grad(layer(part)[0].sum(), layer.parameters()) for part in x]
    first, second = layer(x[0])[0], layer(x[1])[0]
    found = torch.autograd.grad(first.sum() + second.sum(), layer.parameters(), retain_graph=True)
    torch.testing.assert_close(found, tuple(a + b for a, b in zip(*alone, strict=True)))
    again = torch.autograd.grad(first.sum() + second.sum(), layer.parameters())
    torch.testing.assert_close(found, again, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        first.sum().backward()


@pytest.mark.parametrize("wanted", ["x", "state", "U_l0", "U_l1", "b_l1"])
def test_gradients_where_one_is_wanted_and_nowhere_else(wanted, short_only):
    layer = layer_of(cells.lstm, num_layers=2)
    x = torch.randn(6, 2, 3, dtype=DOUBLE, requires_grad=True)
    state = tuple(torch.randn(2, 2, 5, dtype=DOUBLE, requires_grad=True) for _ in "hc")
    named = {"x": x, "state": state[1], **dict(layer.named_parameters())}
    expected = torch.autograd.grad(layer(x, state)[0].sin().sum(), named[wanted])[0]
    for tensor in (*state, *named.values()):
        tensor.requires_grad_(tensor is named[wanted])
    layer(x, state)[0].sin().sum().backward()
    torch.testing.assert_close(named[wanted].grad, expected)
    assert all(t.grad is None for name, t in named.items() if name != wanted)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_products_behind_each_other_have_gradients_without_that_of_the_input(
    num_layers, short_only
):
    layer = layer_of(OWN_CELLS["deep_input"], num_layers=num_layers)
    x = torch.randn(6, 2, 3, dtype=DOUBLE, requires_grad=True)
    expected = torch.autograd.grad(layer(x)[0].sum(), layer.parameters())
    found = torch.autograd.grad(layer(x.detach())[0].sum(), layer.parameters())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("right_side", ["x + U.h @ h_prev", "u.h * h_prev", "x * u.h + h_prev"])
def test_an_input_that_goes_into_no_product_needs_no_gradient(right_side, num_layers, short_only):
    family = "u" if "u.h" in right_side else "U"
    cell = Cell.parse(f"def e(x, h_prev, *, {family}):\n    h = tanh({right_side})\n    return h")
    layer = Recurrent(cell, 5, 5, num_layers=num_layers, dtype=DOUBLE)
    x = torch.randn(6, 2, 5, dtype=DOUBLE, requires_grad=True)
    expected = torch.autograd.grad(layer(x)[0].sin().sum(), layer.parameters())
    found = torch.autograd.grad(layer(x.detach())[0].sin().sum(), layer.parameters())
    torch.testing.assert_close(found, expected)


def test_learned_initial_states(ordinary):
    layer = layer_of(cells.lstm, num_layers=2, initial_state="learned")
    for x in (torch.randn(6, 2, 3, dtype=DOUBLE), torch.randn(6, 3, dtype=DOUBLE)):
        x.requires_grad_()
        found = both_passes(layer, x, None)
        assert all(part.abs().sum() > 0 for part in found)
        expected = both_passes(ordinary(layer), x, None)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(0, 2, 3), (6, 0, 3), (0, 0, 3)])
def test_empty_sequences(shape):
    layer = layer_of(cells.lstm, num_layers=2)
    x = torch.randn(shape, dtype=DOUBLE, requires_grad=True)
    y, (h, c) = layer(x)
    assert y.shape == (*shape[:2], 5)
    assert h.shape == c.shape == (2, shape[1], 5)
    (y.sum() + h.sum()).backward()
    assert x.grad.shape == shape


def halved(layer):
    for parameter in layer.parameters():
        parameter.mul_(0.5)


def other_data(layer):
    for parameter in layer.parameters():
        parameter.data = parameter.data * 0.5


def through_numpy(layer):
    layer.U_l0.detach().numpy()[:] *= 0.5


@pytest.mark.parametrize("change", [halved, other_data, through_numpy])
def test_a_changed_weight_counts_at_once(change, short_only):
    layer = layer_of(cells.lstm)
    x = torch.randn(6, 2, 3, dtype=DOUBLE)
    before = [part.detach().clone() for part in both_passes(layer, x.requires_grad_(), None)]
    with torch.no_grad():
        change(layer)
    after = both_passes(layer, x, None)
    assert not torch.equal(after[0], before[0])
    fresh = both_passes(copy.deepcopy(layer), x, None)
    torch.testing.assert_close(after, fresh, rtol=0, atol=0)


class Marked(torch.nn.Parameter):
    """A parameter that might do anything with torch's operations."""


def strided(layer):
    layer.U_l0.data = layer.U_l0.t().contiguous().t()


def negative(layer):
    layer.U_l0.data = torch._neg_view(-layer.U_l0)


def of_another_class(layer):
    layer.U_l0 = Marked(layer.U_l0.data)


@pytest.mark.parametrize("change", [strided, negative, of_another_class])
def test_what_kernels_cannot_read_is_noticed_after_calls_that_could(change, monkeypatch):
    layer = layer_of(cells.lstm)
    x = torch.randn(6, 2, 3, dtype=DOUBLE, requires_grad=True)
    expected = both_passes(layer, x, None)
    change(layer)
    found = both_passes(layer, x, None)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(nn.layers.Layers, "_run", None)
    with pytest.raises(TypeError):  # it does not go the short way
        layer(x)


@pytest.mark.parametrize("bias", [True, False])  # without, those of a drop-in are buffers
def test_families_that_look_as_before_are_looked_at_by_one_call(bias, monkeypatch, short_only):
    layer = nn.LSTM(3, 5, num_layers=2, bidirectional=True, bias=bias, dtype=DOUBLE)
    x = torch.randn(6, 2, 3, dtype=DOUBLE)
    expected = layer(x)[0]
    frozen = copy.deepcopy(layer).requires_grad_(False)
    assert torch.equal(frozen(x)[0], expected)  # it looks at each: those had gradients
    monkeypatch.setattr(short, "TensorGuards", None)
    for known in (frozen, layer, frozen):
        assert torch.equal(known(x)[0], expected)
        with torch.no_grad():
            assert torch.equal(known(x)[0], expected)
    layer.weight_hh_l0.requires_grad_(False)
    with pytest.raises(TypeError):
        layer(x)


def test_nothing_is_shared_between_calls(short_only):
    layer = layer_of(cells.lstm, num_layers=2, bidirectional=True)
    x = torch.randn(2, 6, 2, 3, dtype=DOUBLE, requires_grad=True)
    found = [both_passes(layer, x[0], None)]
    kept = [part.detach().clone() for part in found[0]]
    both_passes(layer, x[1], None)
    torch.testing.assert_close(found[0], kept, rtol=0, atol=0)


def test_python_threads_at_once_have_the_same_bits(short_only):
    layer = layer_of(cells.lstm, 33, num_layers=2)
    x = torch.randn(4, 20, 2, 3, dtype=DOUBLE, requires_grad=True)
    expected = [both_passes(layer, part, None) for part in x]
    found = [[] for _ in x]
    begin = threading.Barrier(len(x))

    def work(number):
        begin.wait()
        for _ in range(20):
            found[number].append(both_passes(layer, x[number], None))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(x))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for times, once in zip(found, expected, strict=True):
        assert len(times) == 20
        for one in times:
            torch.testing.assert_close(one, once, rtol=0, atol=0)


def test_what_was_made_in_inference_mode_serves_in_training(short_only):
    layer = layer_of(cells.lstm, num_layers=2, bidirectional=True)
    x = torch.randn(7, 2, 3, dtype=DOUBLE, requires_grad=True)
    with torch.inference_mode():
        expected = layer(x)[0]
    found = both_passes(layer, x, None)
    assert torch.equal(found[0], expected)
    assert not found[0].is_inference()


def test_copies_and_pickles(short_only):
    layer = layer_of(cells.gru, num_layers=2)
    x = torch.randn(6, 2, 3, dtype=DOUBLE, requires_grad=True)
    expected = both_passes(layer, x, None)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(both_passes(other, x, None), expected, rtol=0, atol=0)
        assert other._way(DOUBLE) is layer._way(DOUBLE)


def test_memory_is_kept_for_some_shapes_only(short_only):
    layer = nn.GRU(3, 5)
    for length in range(1, 40):
        layer(torch.randn(length, 2, 3))
    assert 0 < len(layer._way(torch.float32).desks.free) <= lending.KINDS


def test_gradcheck_and_second_derivatives(monkeypatch):
    monkeypatch.setattr(choice, "_said", set())
    layer = layer_of(cells.gru, 4, num_layers=2, bidirectional=True)
    x = torch.randn(3, 2, 3, dtype=DOUBLE, requires_grad=True)
    state = torch.randn(4, 2, 4, dtype=DOUBLE, requires_grad=True)
    arguments = (x, state, *layer.parameters())
    assert torch.autograd.gradcheck(lambda x, s, *_: layer(x, s), arguments, fast_mode=True)
    with pytest.warns(UserWarning, match="second derivative was asked for"):
        torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.autograd.gradgradcheck(lambda x, s, *_: layer(x, s), arguments, fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda x, *_: layer(x), arguments[:1], fast_mode=True)


def test_a_long_sequence_goes_the_ordinary_way(request):
    layer = layer_of(cells.lstm)
    x = torch.randn(6, 2, 3, dtype=DOUBLE, requires_grad=True)
    expected = both_passes(layer, x, None)
    assert "_Short" in type(layer(x)[0].grad_fn).__name__
    request.getfixturevalue("long_way")
    layer._way(DOUBLE)._most.clear()  # what has been found short
    assert "_Short" not in type(layer(x)[0].grad_fn).__name__
    torch.testing.assert_close(both_passes(layer, x, None), expected, rtol=1e-11, atol=1e-11)


DROPPED = {"dropout": 0.4, "weight_dropout": 0.3}
LENGTHS = torch.tensor([3, 6, 0, 6])
RESETS = torch.zeros(6, 4, dtype=torch.bool)
RESETS[[0, 2, 5, 4], [1, 1, 1, 3]] = True
# Options of the layer, and what a call is given beside its input.
FEATURES = {
    "lengths": ({}, {"lengths": LENGTHS}),
    "sorted lengths": ({}, {"lengths": torch.tensor([6, 6, 5, 5])}),
    "resets": ({"initial_state": "learned"}, {"resets": RESETS}),
    "both": ({"initial_state": "learned"}, {"lengths": LENGTHS, "resets": RESETS}),
    "all states": ({}, {"return_all": True}),
    "all states of ragged rows": ({}, {"return_all": True, "lengths": LENGTHS, "resets": RESETS}),
    "dropout": (DROPPED, {}),
    "locked dropout": (DROPPED | {"dropout_every": "sequence"}, {}),
    "all of them": (
        DROPPED | {"dropout_every": "sequence", "initial_state": "learned", "recompute": True},
        {"return_all": True, "lengths": LENGTHS, "resets": RESETS},
    ),
}
NOISY = unrolled.zoneout(unrolled.recurrent_dropout(cells.lstm, 0.3), 0.2)


def with_features(name, bidirectional, random):
    """A layer, and how it is called with or without a state."""
    torch.manual_seed(1)
    options, given = FEATURES[name]
    cell = NOISY if random else cells.lstm
    layer = layer_of(cell, num_layers=2, bidirectional=bidirectional, **options)
    return layer, given


def everything(layer, x, state, given, masks=None):
    """All outputs, and the gradient of everything that has one."""
    torch.manual_seed(2)
    y, last, *every = layer(x, state, masks=masks, **given)
    outputs = [y, *last, *(part for parts in every for part in parts)]
    leaves = [x, *(state or ()), *layer.parameters()]
    weights = [torch.linspace(-1, 1, o.numel(), dtype=DOUBLE).view(o.shape) for o in outputs]
    loss = sum((o * w).sum() for o, w in zip(outputs, weights, strict=True))
    return [*outputs, *torch.autograd.grad(loss, leaves, materialize_grads=True, allow_unused=True)]


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", FEATURES)
def test_features_go_it_too(name, bidirectional, random, ordinary, monkeypatch):
    layer, given = with_features(name, bidirectional, random)
    x = torch.randn(6, 4, 3, dtype=DOUBLE, requires_grad=True)
    shape = 2 * (1 + bidirectional), 4, 5
    state = tuple(torch.randn(shape, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    masks = layer.draw_masks(6, 4)
    for some in (None, masks):
        for begin in (None, state):
            expected = everything(ordinary(layer), x, begin, given, some)
            with monkeypatch.context() as patch:
                patch.setattr(layer, "_layer_by_layer", None)
                found = everything(layer, x, begin, given, some)
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        torch.manual_seed(2)
        y, _, *_ = layer(x, state, masks=masks, **given)
    torch.testing.assert_close(y, expected[0], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["both", "dropout", "all of them"])
def test_second_derivatives_with_features(name, bidirectional, monkeypatch):
    monkeypatch.setattr(choice, "_said", {"second"})
    layer, given = with_features(name, bidirectional, random=True)
    x = torch.randn(6, 4, 3, dtype=DOUBLE, requires_grad=True)
    masks = layer.draw_masks(6, 4)

    def outputs(x, *_):
        y, last, *every = layer(x, masks=masks, **given)
        return y, *last, *(part for parts in every for part in parts)

    arguments = (x, *layer.parameters())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unrolled runs a recurrent layer step by step")
        assert torch.autograd.gradcheck(outputs, arguments, fast_mode=True)
        assert torch.autograd.gradgradcheck(outputs, arguments, fast_mode=True)


@pytest.mark.parametrize("name", ["all states", "all of them"])
def test_one_step_with_features(name, ordinary, monkeypatch):
    layer, given = with_features(name, bidirectional=True, random=True)
    given = {"return_all": True, "lengths": [1, 1, 0, 1]} if "lengths" in given else given
    x, masks = torch.randn(1, 4, 3, dtype=DOUBLE), layer.draw_masks(1, 4)
    with torch.no_grad():
        expected = ordinary(layer)(x, masks=masks, **given)
        monkeypatch.setattr(layer, "_layer_by_layer", None)
        found = layer(x, masks=masks, **given)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_a_mask_between_layers_has_a_gradient():
    layer = layer_of(cells.gru, num_layers=2, dropout=0.5)
    x, masks = torch.randn(6, 4, 3, dtype=DOUBLE), layer.draw_masks(6, 4)
    masks[1]["x"].requires_grad_()
    y, _ = layer(x, masks=masks)
    (gradient,) = torch.autograd.grad(y.sum(), masks[1]["x"])
    assert gradient.abs().sum() > 0


def test_one_step_of_rows_some_of_which_have_none():
    layer = layer_of(cells.lstm)
    x = torch.randn(1, 4, 3, dtype=DOUBLE)
    with torch.no_grad():
        y, (h, c) = layer(x, lengths=[1, 0, 1, 0])
        alone, _ = layer(x[:, [0, 2]])
    torch.testing.assert_close(y[:, [0, 2]], alone)
    for ended in (y, h, c):
        assert not ended[:, [1, 3]].any()


def test_what_is_random_is_drawn_anew_in_training_only():
    layer = Recurrent(unrolled.recurrent_dropout(cells.lstm, 0.5), 3, 5).train()
    x = torch.randn(6, 2, 3)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_mixed_dtypes_get_a_sentence():
    layer = nn.LSTM(3, 5)
    with pytest.raises(unrolled.errors.InputError, match="float64"):
        layer(torch.randn(6, 2, 3, dtype=DOUBLE))
    layer.weight_hh_l0.data = layer.weight_hh_l0.data.double()
    with pytest.raises(unrolled.errors.InputError, match="float64"):
        layer(torch.randn(6, 2, 3))


def test_large_tensors_take_memory_that_earlier_ones_have_left(monkeypatch, short_only):
    taken, empty = [], memory.empty

    def watched(shape, dtype):
        taken.append(shape)
        return empty(shape, dtype)

    layer, x = nn.GRU(8, 64), torch.randn(1100, 4, 8, requires_grad=True)
    expected = torch.autograd.grad(layer(x)[0].sum(), x)
    monkeypatch.setattr(memory, "empty", watched)
    y, h = layer(x)
    assert y.nbytes > memory.LARGE > h.nbytes
    assert y.shape in taken
    assert h.shape not in taken
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x), expected)


def rooms_of(passes):
    return [one.table._memory[1] for one in passes]


def the_desk(layer):
    (way,) = layer._shortcuts.values()
    ((desk,),) = way.desks.free.values()
    return desk


def test_a_desk_holds_the_memory_of_its_tables():
    layer = nn.Recurrent(cells.lstm, 3, 17, num_layers=2)
    with torch.no_grad():
        layer(torch.randn(4, 2, 3))
    desk = the_desk(layer)
    before = desk.nbytes
    tables = sum(one.table.nbytes for one in desk.inference)
    (room,) = {id(room): room for room in rooms_of(desk.inference)}.values()
    own = desk.inner, *desk.halves, *desk.gradients
    assert before == sum(part.nbytes for part in own) + tables + room.nbytes
    assert min(tables, room.nbytes, desk.inner.nbytes) > 0
    layer(torch.randn(4, 2, 3))[0].sum().backward()
    (room,) = desk._passes.rooms_of_training
    assert desk.nbytes == before + room.nbytes
    assert [one.table.nbytes for one in (*desk.training, *desk.adjoint)] == [0] * 4


def test_layers_in_training_work_in_the_same_memory():
    held = []
    for num_layers in (1, 4):
        layer = nn.Recurrent(cells.lstm, 17, 17, num_layers=num_layers)
        layer(torch.randn(9, 2, 17))[0].sum().backward()
        held.append([room.nbytes for room in the_desk(layer)._passes.rooms_of_training])
    assert held[0] == held[1]
    wide = nn.Recurrent(cells.lstm, 900, 17, num_layers=2)  # of which the first layer needs more
    wide(torch.randn(9, 2, 900))[0].sum().backward()
    assert the_desk(wide)._passes.rooms_of_training[0].nbytes > held[0][0]


@pytest.mark.parametrize("cell", EVERY_CELL)
def test_what_a_pass_leaves_in_memory_that_others_use_is_needed_by_none(cell, short_only):
    layer = layer_of(cell, 11, bidirectional=True)
    x = torch.randn(6, 2, layer.input_size, dtype=DOUBLE, requires_grad=True)
    expected = both_passes(layer, x, None)
    with torch.no_grad():
        alone = flat(layer(x))
    desk = the_desk(layer)

    def spoil(passes):
        rooms = rooms_of(passes)
        assert len({room.ctypes.data for room in rooms}) == 2  # one for each direction
        for room in rooms:
            room.view(float).fill(float("nan"))

    spoil(desk.training)
    outputs = flat(layer(x))
    spoil(desk.adjoint)
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(y.shape, generator=generator, dtype=DOUBLE) for y in outputs]
    found = torch.autograd.grad(outputs, [x, *layer.parameters()], gradients)
    torch.testing.assert_close([*outputs, *found], expected, rtol=0, atol=0)
    spoil(desk.inference)
    with torch.no_grad():
        torch.testing.assert_close(flat(layer(x)), alone, rtol=0, atol=0)
