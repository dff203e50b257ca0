"""Streaming: `layer.step` gives what the layer gives for whole sequences, one step at a time."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from own_cells import OWN_CELLS

import unrolled
from unrolled import cells, nn
from unrolled.backends.cpu import lending, live
from unrolled.errors import BackendError, InputError
from unrolled.nn import passes, short

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5}
CELLS = {
    name: cell
    for name, cell in {**cells.catalogue(), **OWN_CELLS}.items()
    if name != "clock"  # reads the number of the step
}
COMPILED = ("lstm", torch.float64), ("lstm", torch.float32), ("stages", torch.float64)


def how(name, dtype):
    """Whether a cell is compiled or run as plain Python, and whether in long proofs only."""
    if (name, dtype) in COMPILED:
        return ()
    return [pytest.mark.plain] + [pytest.mark.slow] * (dtype == torch.float32)


@pytest.fixture
def by_kernels(monkeypatch):
    """Every step is made by the kernel for few steps, or the test fails."""

    def refused(*_):
        raise AssertionError("the kernel for few steps did not make this step")

    monkeypatch.setattr(nn.layers, "check_streams", refused)


def streamed(layer, x, state=None):
    """The outputs of all steps (T, …), and the last state."""
    outputs = []
    for at_step in x:
        y, state = layer.step(at_step, state)
        outputs.append(y)
    return torch.stack(outputs), state


def several(state):
    return [state] if isinstance(state, torch.Tensor) else list(state)


def assert_same(found, expected, dtype=torch.float64):
    for one, other in zip(
        [found[0], *several(found[1])], [expected[0], *several(expected[1])], strict=True
    ):
        assert type(one) is torch.Tensor
        torch.testing.assert_close(one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def layer_of(cell, hidden_size=5, dtype=torch.float64, **options):
    input_size = hidden_size if cell.name == "output" else 3
    return nn.Recurrent(cell, input_size, hidden_size, dtype=dtype, **options).eval()


def randomised(layer):
    """The layer with weights so large that its gates move."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return layer


@pytest.mark.parametrize(
    ("cell", "dtype"),
    [
        pytest.param(
            cell,
            dtype,
            id=f"{name}-{str(dtype)[6:]}",
            marks=how(name, dtype),
        )
        for name, cell in CELLS.items()
        for dtype in (torch.float64, torch.float32)
    ],
)
@torch.no_grad()
def test_every_cell_streams_at_any_depth(cell, dtype, by_kernels):
    for hidden_size, depth, batch in ((5, 1, 1), (17, 2, 3), (8, 3, 1), (33, 1, 9), (1, 2, 2)):
        layer = randomised(layer_of(cell, hidden_size, dtype, num_layers=depth))
        x = torch.randn(6, batch, layer.input_size, dtype=dtype)
        assert_same(streamed(layer, x), layer(x), dtype)


@pytest.mark.parametrize("name", ["lstm", "gru", "simple"])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_the_drop_ins_stream_as_torch_computes(name, bias, by_kernels):
    kind = {"lstm": "LSTM", "gru": "GRU", "simple": "RNN"}[name]
    peer = getattr(torch.nn, kind)(3, 10, num_layers=2, bias=bias)
    layer = getattr(nn, kind)(3, 10, num_layers=2, bias=bias)
    layer.load_state_dict(peer.state_dict())
    x = torch.randn(7, 2, 3)
    assert_same(streamed(layer, x), peer(x), torch.float32)


@torch.no_grad()
def test_a_projected_lstm_and_a_relu_stream(by_kernels):
    for peer, layer in (
        (torch.nn.LSTM(3, 10, 2, proj_size=4), nn.LSTM(3, 10, 2, proj_size=4)),
        (torch.nn.RNN(3, 10, 2, "relu"), nn.RNN(3, 10, 2, "relu")),
    ):
        layer.load_state_dict(peer.state_dict())
        x = torch.randn(7, 2, 3)
        assert_same(streamed(layer, x), peer(x), torch.float32)


@torch.no_grad()
def test_one_sequence_needs_no_batch(by_kernels):
    for layer in (nn.LSTM(3, 5, 2).double(), nn.GRU(3, 5, 2).double()):
        x = torch.randn(6, 3, dtype=torch.float64)
        assert_same(streamed(layer, x), layer(x))
        state = layer(x)[1]
        assert_same(streamed(layer, x, state), layer(x, state))


@torch.no_grad()
def test_states_pass_between_steps_and_sequences(by_kernels):
    layer = nn.LSTM(3, 5, 2).double()
    x = torch.randn(9, 2, 3, dtype=torch.float64)
    whole = layer(x)
    _, state = layer(x[:4])
    first, state = streamed(layer, x[4:6], state)
    second, state = layer(x[6:], state)
    assert_same((torch.cat([first, second]), state), (whole[0][4:], whole[1]))


@torch.no_grad()
def test_the_state_given_stays_as_it_is_and_nothing_is_shared(by_kernels):
    layer = nn.LSTM(3, 5, 2).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    _, state = layer.step(x)
    before = [part.clone() for part in state]
    y, after = layer.step(x, state)
    assert all(torch.equal(part, kept) for part, kept in zip(state, before, strict=True))
    expected = layer(x[None], state)
    y_kept = y.clone()
    y.zero_()
    other, _ = layer.step(x, state)
    assert_same((y_kept, after), (expected[0][0], expected[1]))
    assert torch.equal(other, y_kept)


@torch.no_grad()
def test_whatever_its_memory_looks_like(by_kernels):
    layer = nn.LSTM(3, 5, 2).double()
    x = torch.randn(3, 4, dtype=torch.float64).t()
    state = tuple(torch.randn(4, 5, 2, dtype=torch.float64).permute(2, 0, 1) for _ in "hc")
    y, last = layer.step(x, state)
    expected = layer(x.contiguous()[None], tuple(part.contiguous() for part in state))
    assert_same((y, last), (expected[0][0], expected[1]))


@torch.no_grad()
def test_many_rows_stream_too():
    layer = nn.GRU(3, 5, 2).double()
    x = torch.randn(3, passes.ROWS + 1, 3, dtype=torch.float64)
    assert_same(streamed(layer, x), layer(x))


@pytest.mark.parametrize("threads", [1, 2])
@torch.no_grad()
def test_one_step_of_many_rows_is_a_whole_pass(threads, monkeypatch):
    """By packed weights, and on several threads of fewer rows."""
    monkeypatch.setattr(short, "worth", lambda *_: threads)
    monkeypatch.setenv("UNROLLED_THREADS", str(threads))
    layer, streams, most = nn.GRU(7, 9).double(), [], passes.ROWS // threads
    of = passes.live_kernel_for
    monkeypatch.setattr(passes, "live_kernel_for", lambda *a: (streams.append(a), of(*a))[1])
    layer.step(torch.randn(most + 1, 7, dtype=torch.float64))
    assert not streams
    layer.step(torch.randn(most, 7, dtype=torch.float64))
    assert len(streams) == 1


@pytest.mark.parametrize("batch_first", [False, True])
@torch.no_grad()
def test_a_sequence_of_one_step_goes_the_same_way(batch_first, monkeypatch):
    layer = nn.LSTM(3, 5, 2, batch_first=batch_first).double()
    monkeypatch.setattr(layer, "_run", None)  # which the ordinary way would call
    for shape in ((1, 3), (2, 1, 3) if batch_first else (1, 2, 3)):
        x = torch.randn(shape, dtype=torch.float64)
        for state in (None, layer(x)[1]):
            y, last = layer(x, state)
            other, expected = layer.step(x.reshape(-1, 3) if len(shape) == 3 else x[0], state)
            assert y.shape == (*shape[:-1], 5)
            assert_same((y.flatten(), last), (other.flatten(), expected))


@torch.no_grad()
def test_a_lazily_negated_view_is_read_as_what_it_says():
    layer = nn.GRU(1, 1).double()
    x = torch.complex(*torch.randn(2, 1, 1, dtype=torch.float64)).conj().imag
    assert x.is_neg()
    assert_same(layer.step(x), layer.step(x.resolve_neg()))


def test_tables_made_in_inference_mode_serve_elsewhere(by_kernels):
    layer = nn.GRU(3, 7).double().requires_grad_(False)
    x = torch.randn(5, 3, dtype=torch.float64)
    with torch.inference_mode():
        expected, _ = layer.step(x)
    y, last = layer.step(x)
    assert not y.is_inference()
    assert not last.is_inference()
    assert torch.equal(y, expected)


@torch.no_grad()
def test_learned_initial_states_are_where_a_stream_begins(by_kernels):
    layer = randomised(layer_of(cells.lstm, num_layers=2, initial_state="learned"))
    for x in (
        torch.randn(4, 2, 3, dtype=torch.float64),
        torch.randn(4, 3, dtype=torch.float64),
    ):
        assert_same(streamed(layer, x), layer(x))


def halved(layer):
    for parameter in layer.parameters():
        parameter.mul_(0.5)


def other_data(layer):
    for parameter in layer.parameters():
        parameter.data = parameter.data * 0.5


def written_data(layer):
    for parameter in layer.parameters():
        parameter.data[0] = 0.25


def loaded(layer):
    layer.load_state_dict({name: value * 0.5 for name, value in layer.state_dict().items()})


def assigned(layer):
    state = {name: value * 0.5 for name, value in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)


def replaced(layer):
    layer.weight_hh_l0 = torch.nn.Parameter(torch.ones_like(layer.weight_hh_l0))


def strided(layer):
    layer.weight_hh_l0.data = torch.randn(5, 20, dtype=torch.float64).t()


def through_numpy(layer):
    layer.weight_hh_l0.detach().numpy()[:] = 0.125


@pytest.mark.parametrize(
    "change",
    [halved, other_data, written_data, loaded, assigned, replaced, strided, through_numpy],
)
@torch.no_grad()
def test_a_changed_weight_counts_at_the_next_step(change):
    layer = nn.LSTM(3, 5, 2).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    _, state = layer.step(x)
    before, _ = layer.step(x, state)
    change(layer)
    y, last = layer.step(x, state)
    assert not torch.equal(y, before)
    expected = layer(x[None], state)
    assert_same((y, last), (expected[0][0], expected[1]))


@torch.no_grad()
def test_weights_of_a_parametrization_are_used():
    layer = nn.RNN(3, 5).double()
    torch.nn.utils.parametrizations.orthogonal(layer, "weight_hh_l0")
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    assert_same(streamed(layer, x), layer(x))


@torch.no_grad()
def test_a_layer_that_changes_its_dtype_goes_on(by_kernels):
    layer = nn.GRU(3, 5, 2)
    for dtype in (torch.float32, torch.float64, torch.float32):
        layer.to(dtype)
        x = torch.randn(4, 2, 3, dtype=dtype)
        assert_same(streamed(layer, x), layer(x), dtype)


@torch.no_grad()
def test_copies_and_pickles_stream(by_kernels):
    layer = nn.LSTM(3, 5, 2).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    expected = streamed(layer, x)
    copied, pickled = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    halved(layer)
    for other in (copied, pickled):
        assert_same(streamed(other, x), expected)
        assert other._way(torch.float64) is layer._way(torch.float64)


@torch.no_grad()
def test_two_python_threads_step_one_layer_at_once():
    layer = nn.LSTM(16, 48, 2)
    x = torch.randn(4, 300, 2, 16)
    expected = [layer(sequence) for sequence in x]
    found = [None] * 4
    begin = threading.Barrier(4)

    def work(number):
        with torch.no_grad():
            begin.wait()
            found[number] = streamed(layer, x[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other, torch.float32)


@torch.no_grad()
def test_memory_stays_the_same_however_many_steps_and_shapes():
    layer = nn.GRU(3, 5)
    for batch in (*range(40), None):
        layer.step(torch.randn(3) if batch is None else torch.randn(batch, 3))
    free = layer._way(torch.float32).desks.free
    assert 0 < len(free) <= lending.KINDS
    state = None
    for _ in range(50):
        _, state = layer.step(torch.randn(2, 3), state)
    assert [len(desks) for (shape, *_), desks in free.items() if shape[0] == 2] == [1]


# Gradients, other backends, other dtypes.


def test_gradients_go_through_a_stream():
    layer = randomised(layer_of(cells.lstm, num_layers=2))
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 2, 5, dtype=torch.float64)
    found = []
    for run in (streamed, lambda layer, x: layer(x)):
        y, state = run(layer, x)
        loss = (weights * y).sum() + state[1].square().sum()
        found.append(torch.autograd.grad(loss, [x, *layer.parameters()]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("wanted", ["x", "state", "parameters"])
def test_a_gradient_is_wanted_by_whatever_requires_one(wanted):
    layer = nn.GRU(3, 5).double().requires_grad_(wanted == "parameters")
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=wanted == "x")
    state = torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=wanted == "state")
    y, last = layer.step(x, state)
    assert y.requires_grad
    assert last.requires_grad
    with torch.no_grad():
        assert not layer.step(x, state)[0].requires_grad


def test_a_differentiable_step_compiles_no_kernel_that_it_does_not_need():
    cell = unrolled.Cell.parse(
        "def unheard(x, h_prev, *, W):\n    h = W.h @ x + h_prev / 7\n    return h"
    )
    layer = layer_of(cell)
    layer.step(torch.randn(2, 3, dtype=torch.float64))
    kernel = live.live_kernel_for(cell.forward, np.dtype("float64"))
    assert "call" not in vars(kernel)
    with torch.no_grad():
        layer.step(torch.randn(2, 3, dtype=torch.float64))
    assert "call" in vars(kernel)


def test_frozen_layers_and_inference_mode_take_the_kernel(by_kernels):
    layer = nn.LSTM(3, 5, 2).requires_grad_(False)
    x = torch.randn(4, 2, 3)
    expected = layer(x)
    assert_same(streamed(layer, x), expected, torch.float32)
    with torch.inference_mode():
        assert_same(streamed(layer, x), expected, torch.float32)
    with torch.no_grad():
        assert_same(streamed(layer, x), expected, torch.float32)


@pytest.mark.parametrize("backend", ["cpu", "reference", "eager"])
@torch.no_grad()
def test_a_backend_named_is_the_one_that_runs(backend, monkeypatch):
    layer = randomised(layer_of(cells.lstm, num_layers=2))
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    expected = layer(x)
    layer.backend = backend
    assert layer._served == (backend == "cpu")
    assert_same(streamed(layer, x), expected)


@torch.no_grad()
def test_other_dtypes_run_on_torchs_operations():
    layer = nn.LSTM(3, 5, backend="eager").bfloat16()
    x = torch.randn(4, 2, 3, dtype=torch.bfloat16)
    torch.testing.assert_close(streamed(layer, x)[0], layer(x)[0])
    layer.backend = "cpu"
    with pytest.raises(BackendError, match="bfloat16"):
        layer.step(x[0])


@torch.no_grad()
def test_a_compiled_step_is_the_same():
    layer = nn.GRU(3, 5).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    _, state = layer.step(x[0])
    found = torch.compile(layer.step, fullgraph=True, backend="eager")(x[1], state)
    assert_same(found, layer.step(x[1], state))


# What has random values, and what is refused.


@torch.no_grad()
def test_random_values_have_their_means_in_evaluation_and_are_refused_in_training(by_kernels):
    cell = unrolled.zoneout(unrolled.recurrent_dropout(cells.lstm, 0.3), {"c": 0.4})
    layer = randomised(layer_of(cell, num_layers=2, dropout=0.5, weight_dropout=0.2))
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    assert_same(streamed(layer, x), layer(x))
    with pytest.raises(InputError, match=r"random values.*layer\.eval\(\)"):
        layer.train().step(x[0])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"dropout": 0.5, "num_layers": 2}, "dropout between its layers"),
        ({"weight_dropout": 0.5}, "weight dropout"),
    ],
)
def test_dropout_is_refused_in_training(options, what):
    layer = layer_of(cells.lstm, **options)
    x = torch.randn(2, 3, dtype=torch.float64)
    layer.step(x)
    with pytest.raises(InputError, match=rf"{what}.*layer\.eval\(\)"):
        layer.train().step(x)


def test_dropout_that_has_nothing_to_drop_is_no_reason_to_refuse():
    layer = layer_of(cells.lstm, dropout=0.5).train()
    layer.step(torch.randn(2, 3, dtype=torch.float64))


def test_a_backward_direction_is_refused():
    with pytest.raises(InputError, match=r"bidirectional.*whole\s+sequences"):
        nn.LSTM(3, 5, bidirectional=True).step(torch.randn(2, 3))


def test_a_cell_that_reads_the_number_of_the_step_is_refused():
    with pytest.raises(InputError, match=r"number of the step, t"):
        layer_of(OWN_CELLS["clock"]).step(torch.randn(2, 3, dtype=torch.float64))


@torch.no_grad()
def test_a_state_that_counts_streams(by_kernels):
    cell = unrolled.Cell.parse(
        """def counting(x, h_prev, n_prev, *, W, U):
            n = n_prev + 1
            h = exp(-0.3 * n) * tanh(W.h @ x + U.h @ h_prev)
            return h, n"""
    )
    layer = randomised(layer_of(cell, num_layers=2))
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    assert_same(streamed(layer, x), layer(x))


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize(
    ("x", "state", "message"),
    [
        (torch.randn(4, 2, 3), None, r"a step takes a tensor \(B, I\).*\(4, 2, 3\)"),
        (torch.randn(2, 4), None, "input_size 3"),
        (torch.randn(4), None, "input_size 3"),
        (np.zeros((2, 3)), None, "found ndarray"),
        (torch.randn(2, 3), torch.randn(1, 2, 5), "2 states"),
        (torch.randn(2, 3), (torch.randn(1, 2, 5), 3), "found int"),
        (torch.randn(2, 3), (torch.randn(1, 2, 5), torch.randn(2, 5)), "initial state c"),
        (torch.randn(3), (torch.randn(1, 1, 5), torch.randn(1, 1, 5)), "initial state h"),
        (torch.randn(2, 3), (torch.randn(1, 2, 5), torch.randn(1, 2, 5).double()), "float64"),
        (torch.randn(2, 3).double(), None, "float64"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(x, state, message, graph):
    layer = nn.LSTM(3, 5)
    with torch.set_grad_enabled(graph), pytest.raises(InputError, match=message):
        layer.step(x, state)


# The kernel itself.


def test_the_kernel_reads_live_weights_and_is_readable():
    kernel = live.live_kernel_for(cells.lstm.forward, np.dtype("float32"))
    assert "i = sigmoid(W.i @ x + U.i @ h_prev + b.i)" in kernel.text
    assert "packed" not in kernel.text
    assert kernel.function.table[: len(kernel.function.pointers)] == kernel.function.pointers


@torch.no_grad()
def test_blocks_of_one_product_need_not_lie_together(by_kernels):
    cell = unrolled.Cell.parse(
        """def scattered(x, h_prev, *, U, V, W):
            a = tanh(U.a @ x + V.a @ h_prev)
            k = sigmoid(W.k @ x + U.k @ (a * h_prev))
            h = k * a + (1 - k) * tanh(W.h @ h_prev + V.h @ x + U.h @ x)
            return h"""
    )
    layer = randomised(layer_of(cell, 3, num_layers=2))
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    assert_same(streamed(layer, x), layer(x))
