"""Deep and bidirectional networks in NumPy, and what they let one see."""

import numpy as np
import pytest
from own_cells import OWN_CELLS

from unrolled import Cell, InputError, cells
from unrolled.backends import cpu
from unrolled.network import Network

LENGTHS = [3, 7, 0, 5]
CELLS = cells.catalogue()


def sizes_for(cell):
    return {"h": 4, "c": 6} if cell.name == "projected_lstm" else 5


def drawn(cell, layers=2, bidirectional=True, seed=0):
    rng = np.random.default_rng(seed)
    network = Network.init(cell, 3, sizes_for(cell), layers, bidirectional, rng)
    return network, rng.standard_normal((7, 4, 3)), rng


def several(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_gradients_are_those_of_differences(cell):
    network, x, rng = drawn(cell)
    initial = tuple(rng.standard_normal(s.shape) for s in several(network.run(x)[1]))
    trace = network.trace(x, initial, LENGTHS)
    dy = rng.standard_normal(trace.y.shape)
    dstate = tuple(rng.standard_normal(s.shape) for s in initial)
    gradients = trace.backward(dy, dstate)

    def loss():
        y, last = network.run(x, initial, LENGTHS)
        pairs = zip(several(last), dstate, strict=True)
        return np.sum(y * dy) + sum(np.sum(state * d) for state, d in pairs)

    def slope(array, place):
        value, found = array[place], []
        for shift in (1e-6, -1e-6):
            array[place] = value + shift
            found.append(loss())
        array[place] = value
        return (found[0] - found[1]) / 2e-6

    pairs = [(x, gradients.x), *zip(initial, several(gradients.state), strict=True)]
    for layer, found in zip(network.params, gradients.params, strict=True):
        for direction, blocks in zip(layer, found, strict=True):
            pairs += [(direction[name], blocks[name]) for name in direction]
    for array, gradient in pairs:
        assert gradient.shape == array.shape
        for _ in range(2):
            place = tuple(rng.integers(size) for size in array.shape)
            assert gradient[place] == pytest.approx(slope(array, place), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_row_of_a_ragged_batch_is_the_row_alone(cell):
    network, x, _ = drawn(cell)
    x[LENGTHS[0] :, 0] = np.nan  # padding is never read
    whole = network.trace(x, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone = network.trace(x[:length, [row]])
        np.testing.assert_array_equal(whole.y[length:, row], 0)
        np.testing.assert_allclose(whole.y[:length, [row]], alone.y, rtol=1e-12)
        for together, single in zip(several(whole.state), several(alone.state), strict=True):
            np.testing.assert_allclose(together[:, [row]], single, rtol=1e-12)
    np.testing.assert_array_equal(whole.lengths, LENGTHS)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_what_is_looked_at_changes_nothing_and_kernels_agree(cell):
    network, x, rng = drawn(cell)
    dy = rng.standard_normal((7, 4, network.trace(x).y.shape[2]))
    looked = network.trace(x, lengths=LENGTHS).backward(dy)
    for run in (None, cpu.run):
        options = {"run": run} if run else {}
        trace = network.trace(x, lengths=LENGTHS, names=(), **options)
        plain = trace.backward(dy, **options)
        np.testing.assert_allclose(trace.y, looked.trace.y, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(plain.x, looked.x, rtol=1e-10, atol=1e-13)


def test_one_layer_shows_what_the_cell_shows():
    params = cells.lstm.init(3, 5, rng=0)
    x = np.random.default_rng(1).standard_normal((7, 4, 3))
    trace = Network(cells.lstm, ((params,),)).trace(x)
    for name, values in cells.lstm.trace(x, params).items():
        np.testing.assert_array_equal(trace[name], values)


@pytest.mark.parametrize(
    ("cell", "name"),
    [(cell, equation.name) for cell in CELLS.values() for equation in cell.equations.equations],
)
def test_the_gradient_of_a_named_value_is_what_a_push_on_it_does(cell, name):
    line = next(e for e in cell.text.splitlines() if e.strip().startswith(f"{name} ="))
    left, right = line.split(" = ")
    families = [*cell.blocks]
    pushed = Cell.parse(
        cell.text.replace(line, f"{left} = {right} + Push.{name} @ x").replace(
            f"{families[0]},", f"Push, {families[0]},"
        )
    )
    params = cell.init(3, sizes_for(cell), rng=0)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((7, 2, 3))
    trace = Network(cell, ((params,),)).trace(x)
    dy = rng.standard_normal(trace.y.shape)
    gradient = trace.backward(dy)[name]
    step, row, unit = 3, 1, 2
    matrix = np.zeros((gradient.shape[2], 4))
    matrix[unit, 3] = 1  # reads a fourth number of the input, which is 0 but for one step
    wide = {block: np.pad(a, ((0, 0), (0, 1))) for block, a in params.items() if block[0] == "W"}
    network = Network(pushed, (({**params, **wide, f"Push.{name}": matrix},),))

    def loss(push):
        pushes = np.zeros((7, 2, 1))
        pushes[step, row] = push
        return np.sum(network.run(np.concatenate([x, pushes], axis=2))[0] * dy)

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert gradient[step, row, unit] == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_gradient_of_the_initial_state_is_that_of_the_first_step(cell):
    network, x, _ = drawn(cell, layers=1)
    gradients = network.trace(x).backward(np.ones_like(network.run(x)[0]))
    for state, gradient in zip(cell.states, several(gradients.state), strict=True):
        np.testing.assert_array_equal(gradient[0], gradients[f"{state}_prev", 0, 0][0])
        np.testing.assert_array_equal(gradient[1], gradients[f"{state}_prev", 0, 1][-1])


def test_own_cells_can_be_traced():
    for cell in OWN_CELLS.values():
        network = Network.init(cell, 4, 4, rng=0)
        trace = network.trace(np.ones((3, 2, 4)))
        for name in cell.names:
            assert trace[name].shape[:2] == (3, 2)
            assert trace.backward(np.ones_like(trace.y))[name].shape == trace[name].shape


def test_wrong_arguments_get_a_sentence():
    network, x, _ = drawn(cells.lstm)
    with pytest.raises(InputError, match=r"reads an array \(T, B, 3\)"):
        network.trace(x[:, :, :2])
    with pytest.raises(InputError, match="4 whole numbers from 0 to 7"):
        network.trace(x, lengths=[8, 1, 1, 1])
    with pytest.raises(InputError, match="4 whole numbers"):
        network.trace(x, lengths=[1.5, 1, 1, 1])
    with pytest.raises(InputError, match="has no value q; it has x, h_prev"):
        network.trace(x, names=["q"])
    with pytest.raises(InputError, match="one array for each of h, c; found 1"):
        network.trace(x, np.zeros((4, 4, 5)))
    with pytest.raises(InputError, match=r"the state c of this network has shape \(4, 4, 5\)"):
        network.trace(x, (np.zeros((4, 4, 5)), np.zeros((4, 4, 6))))
    with pytest.raises(InputError, match="dy has the shape of y"):
        network.trace(x).backward(np.ones((7, 4, 5)))
    with pytest.raises(InputError, match="one direction in every layer or two in every layer"):
        Network(cells.lstm, ((network.params[0][0],), network.params[1]))
    with pytest.raises(InputError, match=r"needs the parameters W\.i"):
        Network(cells.lstm, (({},),))
    with pytest.raises(KeyError, match="f was not kept; this trace has i"):
        network.trace(x, names=["i"])["f"]


@pytest.mark.parametrize(
    "options", [{}, {"proj_size": 3}, {"bias": False}, {"bidirectional": True}]
)
def test_layers_for_torch_give_their_network(options):
    torch = pytest.importorskip("torch")
    from unrolled.nn import GRU, LSTM

    torch.manual_seed(0)
    for kind in (LSTM, GRU):
        if kind is GRU and "proj_size" in options:
            continue
        layer = kind(4, 6, num_layers=2, **options, dtype=torch.float64)
        network = layer.network()
        x = torch.randn(7, 3, 4, dtype=torch.float64)
        y, state = layer(x)
        ours, last = network.run(x.numpy())
        np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-10, atol=1e-12)
        for a, b in zip(several(last), several(state), strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-10, atol=1e-12)
        for parameter in layer.parameters():
            parameter.detach().zero_()
        assert np.any(network.params[0][0]["W.i" if kind is LSTM else "W.r"]), "these are copies"


def test_a_language_model_shows_its_stack():
    torch = pytest.importorskip("torch")
    from unrolled.models import LanguageModel

    torch.manual_seed(0)
    model = LanguageModel(10, 4, 6, num_layers=2).eval()
    tokens = np.array([1, 5, 2, 9])
    trace = model.trace(tokens)
    logits, _ = model(torch.tensor(tokens)[:, None])
    again = model.output(model.projection(torch.tensor(trace.y, dtype=torch.float32)))
    torch.testing.assert_close(again, logits)
    assert trace["i", 0].shape == (4, 1, 6)
