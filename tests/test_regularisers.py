"""Regularisers: transforms of a cell whose random values `Recurrent` draws; dropout of weights."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import unrolled
from unrolled import Cell, EquationError, InputError, cells
from unrolled.lab import gradient_check
from unrolled.nn import Recurrent
from unrolled.nn.direction import direction_of

pytestmark = pytest.mark.usefixtures("both_ways")
T, B, X, H = 7, 3, 4, 5
MANY = {
    "recurrent dropout": lambda cell: unrolled.recurrent_dropout(cell, 0.4),
    "zoneout": lambda cell: unrolled.zoneout(cell, 0.3),
    "candidate dropout": lambda cell: unrolled.candidate_dropout(cell, 0.4),
    "layer norm": lambda cell: unrolled.layer_norm(cell, 0.1),
    "all": lambda cell: unrolled.clipped(
        unrolled.zoneout(
            unrolled.candidate_dropout(
                unrolled.recurrent_dropout(unrolled.layer_norm(cell, 0.1), 0.3), 0.2
            ),
            0.2,
        ),
        0.5,
    ),
}

CELLS = [cells.lstm, cells.gru, cells.gru_original]

# Each makes kernels of its own: in a quick run what is compiled has them all in one,
FEW = [name if name == "all" else pytest.param(name, marks=pytest.mark.slow) for name in MANY]
# and the others run as plain Python where that is quick.
SOME = [name if name == "all" else pytest.param(name, marks=pytest.mark.plain) for name in MANY]


def layer_of(cell, **options):
    torch.manual_seed(0)
    return Recurrent(cell, X, H, dtype=torch.float64, **options)


def data(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# the equations


def body(cell):
    return cell.text.split('"""\n')[-1]


def test_recurrent_dropout_masks_what_the_recurrent_products_read():
    dropped = unrolled.recurrent_dropout(cells.lstm, 0.3)
    assert body(dropped) == body(cells.lstm).replace("@ h_prev", "@ (m_h * h_prev)")
    assert str(dropped.draws["m_h"]) == "dropout(0.3)"
    reset_before = body(unrolled.recurrent_dropout(cells.gru_original, 0.3))
    assert "n = tanh(W.n @ x + U.n @ (m_h * (r * h_prev)) + b.n)" in reset_before
    assert "h = (1 - z) * n + z * h_prev" in reset_before  # what is carried on is never masked
    projected = body(unrolled.recurrent_dropout(cells.projected_lstm, 0.3))
    assert "h = V.h @ (o * tanh(c))" in projected


def test_zoneout_keeps_states_as_in_the_paper():
    kept = unrolled.zoneout(cells.lstm, {"c": 0.5, "h": 0.05})
    assert body(kept).endswith(
        "    c_new = f * c_prev + i * g\n"
        "    c = keep_c * c_prev + (1 - keep_c) * c_new\n"
        "    h_new = o * tanh(c_new)\n"
        "    h = keep_h * h_prev + (1 - keep_h) * h_new\n"
        "    return h, c\n"
    )
    assert str(kept.draws["keep_c"]) == 'bernoulli(0.5, every="step")'


def test_candidate_dropout_and_clipping():
    dropped = body(unrolled.candidate_dropout(cells.gru_simplified, 0.2))
    assert "n_whole = tanh(" in dropped
    assert "n = m_n * n_whole\n    h = (1 - z) * n + z * h_prev" in dropped
    clipped = body(unrolled.clipped(cells.lstm, 3))
    assert "c = minimum(maximum(c_free, -3), 3)\n    h = o * tanh(c)" in clipped
    assert body(unrolled.clipped(cells.simple, 0.5)).count("minimum") == 1


@pytest.mark.parametrize("transform", MANY.values(), ids=MANY)
def test_what_comes_out_is_a_cell_that_reads_back(transform):
    cell = transform(cells.lstm)
    assert Cell.parse(cell.text) == cell
    assert Cell.parse(cell.text).text == cell.text
    assert not cell.expected.draws
    gradient_check(cell).check()


def test_nothing_is_nothing():
    assert unrolled.recurrent_dropout(cells.lstm, 0) is cells.lstm
    assert unrolled.zoneout(cells.lstm, {"c": 0}) is cells.lstm
    assert unrolled.candidate_dropout(cells.gru, 0.0) is cells.gru


def test_a_name_that_is_taken_is_left_alone():
    cell = Cell.parse(
        "def taken(x, h_prev, *, U, m_h=2):\n    h = tanh(U.h @ h_prev + x * m_h)\n    return h\n"
    )
    dropped = unrolled.recurrent_dropout(cell, 0.5)
    assert [*dropped.draws] == ["m_h_2"]
    assert "U.h @ (m_h_2 * h_prev) + x * m_h" in dropped.text


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: unrolled.recurrent_dropout(cells.lstm, 1.0), "from 0 to below 1; found 1.0"),
        (lambda: unrolled.zoneout(cells.lstm, True), "from 0 to below 1; found True"),
        (lambda: unrolled.zoneout(cells.lstm, {"z": 0.1}), "names z, which is no state of cell"),
        (lambda: unrolled.candidate_dropout(cells.simple, 0.1), "needs the name of the candidate"),
        (lambda: unrolled.clipped(cells.lstm, 0), "a limit above 0; found 0"),
        (lambda: unrolled.clipped(cells.lstm, 1, "q"), "names q, which is no state"),
        (
            lambda: unrolled.recurrent_dropout(
                Cell.parse("def f(x, h_prev):\n    h = x + h_prev\n    return h\n"), 0.1
            ),
            "has no product that reads what comes from the step before",
        ),
    ],
)
def test_wrong_arguments_get_a_sentence(wrong, says):
    with pytest.raises(InputError, match=says):
        wrong()


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        ("dropot(0.2)", "dropot is no distribution. Known here: bernoulli, dropout"),
        ("dropout(1.0)", "1 is no probability from 0 to below 1"),
        ("dropout()", r"a draw has a probability: dropout\(0.1\)"),
        ('bernoulli(0.1, every="day")', 'a draw is made every="sequence"'),
    ],
)
def test_a_draw_that_cannot_be_read_points_at_its_place(draw, says):
    text = f"def f(x, h_prev, *, m={draw}):\n    h = x + m * h_prev\n    return h\n"
    with pytest.raises(EquationError, match=says) as error:
        Cell.parse(text)
    assert "^" in str(error.value)


def test_a_draw_is_used_and_given_once():
    with pytest.raises(EquationError, match="no equation uses the random value m"):
        Cell.parse("def f(x, h_prev, *, m=dropout(0.1)):\n    h = x + h_prev\n    return h\n")
    with pytest.raises(EquationError, match="given twice: it is a random value already"):
        Cell.parse("def f(x, h_prev, *, m=dropout(0.1)):\n    m = x\n    h = x + m\n    return h\n")


# what runs


def lstm_by_hand(layer, x, masks):
    """One layer of the LSTM with recurrent dropout, zoneout and candidate dropout, in NumPy."""
    W, U, b = (getattr(layer, f"{family}_l0").detach().numpy() for family in "WUb")
    m = {name: mask.numpy() for name, mask in masks.items()}
    h, c = np.zeros((B, H)), np.zeros((B, H))
    outputs = []
    for t, x_t in enumerate(x.detach().numpy()):
        z = x_t @ W.T + (m["m_h"] * h) @ U.T + b
        i, f, g, o = np.split(z, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c_new = f * c + i * (m["m_g"][t] * np.tanh(g))
        h_new = o * np.tanh(c_new)
        c = m["keep_c"][t] * c + (1 - m["keep_c"][t]) * c_new
        h = m["keep_h"][t] * h + (1 - m["keep_h"][t]) * h_new
        outputs.append(h)
    return np.stack(outputs), h, c


@pytest.mark.parametrize("backend", ["auto", "eager", "reference"])
def test_the_numbers_are_those_of_the_equations(backend):
    cell = unrolled.recurrent_dropout(unrolled.candidate_dropout(cells.lstm, 0.3), 0.4)
    layer = layer_of(unrolled.zoneout(cell, 0.2), backend=backend)
    x, (masks,) = data(T, B, X), layer.draw_masks(T, B)
    y, (h, c) = layer(x, masks=[masks])
    for found, expected in zip((y, h[0], c[0]), lstm_by_hand(layer, x, masks), strict=True):
        np.testing.assert_allclose(found.detach(), expected, atol=1e-12)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(
    "cell",
    [cells.lstm, *(pytest.param(cell, marks=pytest.mark.slow) for cell in CELLS[1:])],
    ids=lambda cell: cell.name,
)
def test_gradients_with_masks(cell, name):
    layer = layer_of(MANY[name](cell), num_layers=2, bidirectional=True)
    masks = layer.draw_masks(4, 2)
    x = data(4, 2, X).requires_grad_()
    parameters = [*layer.parameters()]
    for parameter in parameters:
        parameter.data = parameter.data[...].clone()

    def run(x, *given):
        named = dict(zip((name for name, _ in layer.named_parameters()), given, strict=True))
        y, last = torch.func.functional_call(layer, named, (x,), {"masks": masks})
        return (y, *(last if isinstance(last, tuple) else (last,)))

    assert torch.autograd.gradcheck(run, (x, *parameters), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        pytest.param(
            cell, name, id=f"{cell.name}-{name}",
            marks=() if (cell, name) == (cells.lstm, "all") else pytest.mark.plain,
        )
        for cell in CELLS
        for name in MANY
    ],
)  # fmt: skip
def test_backends_agree(cell, name):
    found = []
    for backend in ("cpu", "eager", "reference"):
        layer = layer_of(MANY[name](cell), num_layers=2, bidirectional=True, backend=backend)
        torch.manual_seed(3)
        masks = layer.draw_masks(T, B)
        x = data(T, B, X).requires_grad_()
        y, last = layer(x, masks=masks, lengths=[T, 2, 5])
        states = last if isinstance(last, tuple) else (last,)
        sum((part**2).sum() for part in (y, *states)).backward()
        gradients = (parameter.grad for parameter in layer.parameters())
        found.append([y, *states, x.grad, *gradients])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)


def test_in_evaluation_recurrent_dropout_is_nothing():
    layer, plain = layer_of(MANY["recurrent dropout"](cells.lstm)).eval(), layer_of(cells.lstm)
    x = data(T, B, X)
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=0)
    assert layer.draw_masks(T, B)  # masks can be given all the same
    assert not torch.equal(layer(x, masks=layer.draw_masks(T, B))[0], plain(x)[0])


def test_in_evaluation_zoneout_is_its_mean():
    layer = layer_of(unrolled.zoneout(cells.simple, 0.25)).eval()
    x, h = data(T, B, X), torch.zeros(B, H, dtype=torch.float64)
    y, _ = layer(x)
    for x_t, y_t in zip(x, y, strict=True):
        new = torch.tanh(x_t @ layer.W_l0.T + h @ layer.U_l0.T + layer.b_l0)
        h = 0.25 * h + 0.75 * new
        torch.testing.assert_close(y_t, h)


def test_in_evaluation_candidates_have_their_mean():
    layer = layer_of(unrolled.candidate_dropout(cells.gru_simplified, 0.25)).eval()
    x, h = data(T, B, X), data(1, B, H)
    y, _ = layer(x, h)
    z, n = (x[0] @ layer.W_l0.T + h[0] @ layer.U_l0.T + layer.b_l0).chunk(2, 1)
    z = torch.sigmoid(z)
    torch.testing.assert_close(y[0], (1 - z) * 0.75 * torch.tanh(n) + z * h[0])


def test_masks_are_drawn_anew_at_each_call_and_held_over_a_sequence():
    layer = layer_of(unrolled.recurrent_dropout(unrolled.zoneout(cells.gru, 0.3), 0.5))
    x = data(T, B, X)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    torch.manual_seed(5)
    once = layer(x)
    torch.manual_seed(5)
    torch.testing.assert_close(layer(x), once, rtol=0, atol=0)
    (masks,) = layer.draw_masks(2000, B)
    assert masks["m_h"].shape == (B, H)
    assert set(masks["m_h"].unique().tolist()) <= {0.0, 2.0}
    assert masks["keep_h"].shape == (2000, B, H)
    assert set(masks["keep_h"].unique().tolist()) == {0.0, 1.0}
    assert abs(masks["keep_h"].mean() - 0.3) < 0.01


@pytest.mark.parametrize("name", SOME)
def test_padded_rows_are_as_alone_and_packed_ones_too(name):
    layer, lengths = layer_of(MANY[name](cells.lstm), bidirectional=True), [3, 7, 0]
    masks, x = layer.draw_masks(T, B), data(T, B, X)
    y, last = layer(x, lengths=lengths, masks=masks)
    for row, length in enumerate(lengths):
        mine = [
            {
                name: mask[row : row + 1] if mask.dim() == 2 else mask[:length, row : row + 1]
                for name, mask in one.items()
            }
            for one in masks
        ]
        alone, state = layer(x[:length, row : row + 1], masks=mine)
        torch.testing.assert_close(y[:length, row : row + 1], alone)
        for whole, part in zip(last, state, strict=True):
            torch.testing.assert_close(whole[:, row : row + 1], part)


@pytest.mark.parametrize("name", SOME)
def test_packed_sequences_in_training(name):
    layer = layer_of(MANY[name](cells.gru), num_layers=2, dropout=0.2, dropout_every="sequence")
    x = data(T, B, X).requires_grad_()
    packed = pack_padded_sequence(x, [7, 2, 5], enforce_sorted=False)
    y, lengths = pad_packed_sequence(layer(packed)[0])
    y.sum().backward()
    assert lengths.tolist() == [7, 2, 5]
    assert (x.grad[2:, 1] == 0).all()
    assert x.grad[:2, 1].abs().sum() > 0


@pytest.mark.parametrize("name", SOME)
def test_resets_and_every_state(name):
    layer = layer_of(MANY[name](cells.lstm))
    masks, x = layer.draw_masks(T, B), data(T, B, X)
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[4] = True
    y, last, every = layer(x, resets=resets, masks=masks, return_all=True)
    later = [{n: mask if mask.dim() == 2 else mask[4:] for n, mask in m.items()} for m in masks]
    torch.testing.assert_close((y[4:], last), layer(x[4:], masks=later))
    torch.testing.assert_close(every[0][0], y)
    torch.testing.assert_close(every[1][0, -1], last[1][0])


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(
    "cell", [cells.lstm, cells.gru, cells.gru_simplified], ids=lambda c: c.name
)
def test_what_is_bounded_stays_bounded(cell, name):
    layer = layer_of(MANY[name](cell))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter *= 8
        y, _ = layer(3 * data(3000, 2, X))
    assert y.abs().max() <= 1


def test_clipping_holds():
    layer = layer_of(unrolled.clipped(cells.lstm, 0.1))
    _, _, (_, c) = layer(5 * data(50, B, X), return_all=True)
    assert c.detach().abs().max() == pytest.approx(0.1)


def test_compiled_exported_and_copied():
    layer = layer_of(MANY["all"](cells.gru))
    x = data(T, B, X)
    masks = layer.draw_masks(T, B)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, masks=masks), layer(x, masks=masks))
    compiled(x)[0].sum().backward()
    twin = copy.deepcopy(layer)
    torch.testing.assert_close(twin(x, masks=masks), layer(x, masks=masks))
    layer.eval()
    exported = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(exported(x), layer(x))


def test_the_operator_is_a_good_operator_with_noise():
    cell = unrolled.zoneout(cells.simple, 0.3)
    x, h = data(T, B, X).requires_grad_(), data(B, H).requires_grad_()
    parameters = [data(*shape).requires_grad_() for shape in ((H, X), (H, H), (H,))]
    noise = data(T, B, H).gt(0).double()
    about = (cell.text, [X, H], False, "auto", False, False)
    direction = direction_of(about[0], (X, H), *about[2:])
    torch.library.opcheck(
        torch.ops.unrolled.forward,
        (x, [h], parameters, None, None, noise, [], direction.widths[-1], *about),
    )


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        (lambda masks: masks[:1], "one dictionary for each of the 2 layers and directions"),
        (lambda masks: masks[0], "as draw_masks gives them; found dict of 1"),
        (lambda masks: True, "as draw_masks gives them; found bool of 1"),
        (lambda masks: [{}, *masks[1:]], "of cell 'simple' are m_h; found none"),
        (lambda masks: [None, None], "of cell 'simple' are m_h; found NoneType"),
        (lambda masks: [{"m_h": torch.ones(2, 2)}] * 2, r"the mask m_h is a tensor \(3, 5\)"),
        (lambda masks: [{"m_h": [1.0]}] * 2, r"the mask m_h is a tensor .* found list"),
        (lambda masks: [{"m_h": masks[0]["m_h"] > 0}] * 2, r"found \(3, 5\), torch.bool on cpu"),
    ],
)
def test_masks_that_do_not_fit(masks, says):
    layer = layer_of(unrolled.recurrent_dropout(cells.simple, 0.5), num_layers=2)
    with pytest.raises(InputError, match=says):
        layer(data(T, B, X), masks=masks(layer.draw_masks(T, B)))


def test_the_network_of_a_layer_is_that_of_evaluation():
    layer = layer_of(MANY["all"](cells.lstm))
    x = data(T, B, X)
    np.testing.assert_allclose(layer.network().trace(x.numpy()).y, layer.eval()(x)[0].detach())
    np.testing.assert_allclose(layer.trace(x).y.detach(), layer(x)[0].detach())


# weights, and between layers


def test_weight_dropout_drops_recurrent_weights_once_a_call():
    layer = layer_of(cells.lstm, weight_dropout=0.5)
    x = data(T, B, X)
    torch.manual_seed(2)
    y, _ = layer(x)
    y.sum().backward()
    dropped = layer.U_l0.grad == 0
    assert 0.3 < dropped.double().mean() < 0.7
    assert not (layer.W_l0.grad == 0).any()
    plain = layer_of(cells.lstm)
    with torch.no_grad():
        plain.U_l0.copy_(torch.where(dropped, 0, 2 * layer.U_l0))
    torch.testing.assert_close(plain(x)[0], y)
    torch.testing.assert_close(layer.eval()(x), layer_of(cells.lstm)(x), rtol=0, atol=0)
    assert "weight_dropout=0.5" in repr(layer)


def test_weight_dropout_leaves_diagonals_alone():
    layer = layer_of(cells.peephole_lstm, weight_dropout=0.9)
    layer(data(T, B, X))[0].sum().backward()
    assert (layer.U_l0.grad == 0).any()
    assert not (layer.P_l0.grad == 0).any()


def test_locked_dropout_drops_the_same_units_at_all_steps(long_way):
    layer = layer_of(cells.simple, num_layers=2, dropout=0.5, dropout_every="sequence")
    seen = []
    hook = unrolled.nn.ways.recurrence

    def spy(direction, x, *rest):
        seen.append(x)
        return hook(direction, x, *rest)

    unrolled.nn.ways.recurrence = spy
    try:
        layer(data(T, B, X))
    finally:
        unrolled.nn.ways.recurrence = hook
    dropped = seen[1] == 0
    assert torch.equal(dropped.any(0), dropped.all(0))
    assert 0 < dropped.double().mean() < 1
    assert "dropout_every='sequence'" in repr(layer)
    with pytest.raises(InputError, match="dropout_every is 'step' or 'sequence'; found 'day'"):
        layer_of(cells.simple, dropout_every="day")
    with pytest.raises(InputError, match="weight_dropout is 2; it is a probability"):
        layer_of(cells.simple, weight_dropout=2)


DROPPED = {"dropout": 0.4, "weight_dropout": 0.4, "num_layers": 2, "bidirectional": True}


@pytest.mark.parametrize("every", ["step", "sequence"])
def test_masks_of_weights_and_between_layers_can_be_given(every):
    layer = layer_of(cells.gru, dropout_every=every, **DROPPED)
    x, masks = data(T, B, X), layer.draw_masks(T, B)
    assert [sorted(one) for one in masks] == [["U"], ["U"], ["U", "x"], ["U", "x"]]
    assert masks[2]["x"] is masks[3]["x"]
    assert masks[2]["x"].shape == ((T, B, 2 * H) if every == "step" else (B, 2 * H))
    assert set(masks[2]["x"].unique().tolist()) == {0.0, 1 / 0.6}
    by_hand = (
        layer_of(cells.gru, bidirectional=True),
        Recurrent(cells.gru, 2 * H, H, bidirectional=True, dtype=torch.float64),
    )
    for number, one in enumerate(by_hand):
        for ending in ("", "_reverse"):
            mask = masks[2 * number + bool(ending)]["U"]
            for family in ("W", "U", "b", "b_U"):
                weight = layer.get_parameter(f"{family}_l{number}{ending}").detach()
                one.get_parameter(f"{family}_l0{ending}").data = (
                    weight * mask if family == "U" else weight
                )
    expected, _ = by_hand[1](by_hand[0](x)[0] * masks[2]["x"])
    torch.testing.assert_close(layer(x, masks=masks)[0], expected)
    torch.testing.assert_close(layer.eval()(x, masks=masks)[0], expected)


def test_masks_given_are_the_same_with_recompute():
    cell = MANY["all"](cells.gru)
    found = []
    for recompute in (False, True):
        layer = layer_of(cell, recompute=recompute, **DROPPED)
        torch.manual_seed(4)
        masks, x = layer.draw_masks(T, B), data(T, B, X).requires_grad_()
        y, _ = layer(x, masks=masks)
        found.append([y, *torch.autograd.grad(y.sin().sum(), [x, *layer.parameters()])])
    torch.testing.assert_close(*found)


def test_everything_can_be_dropped():
    x = data(T, B, X)
    memoryless, _ = layer_of(cells.simple, weight_dropout=1.0)(x)
    alone = [layer_of(cells.simple)(step[None])[0] for step in x]
    torch.testing.assert_close(memoryless, torch.cat(alone))
    deep = {"num_layers": 2, "dropout_every": "sequence"}
    dropped, _ = layer_of(cells.simple, dropout=1.0, **deep)(x)
    other, _ = layer_of(cells.simple, dropout=1.0, **deep)(-x)
    torch.testing.assert_close(dropped, other, rtol=0, atol=0)
    assert not dropped.isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_masks_are_drawn_with_their_probability_in_every_dtype(dtype):
    layer = Recurrent(unrolled.zoneout(cells.gru, 0.003), X, 200, dtype=dtype)
    torch.manual_seed(0)
    (masks,) = layer.draw_masks(500, 10)
    assert masks["keep_h"].dtype == dtype
    assert abs(masks["keep_h"].double().mean() - 0.003) < 3e-4
