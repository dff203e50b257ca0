"""Lengths and resets where they are no numbers: in transforms of torch.func, and in graphs."""

import pytest
import torch

from unrolled import Cell, cells
from unrolled.nn import Recurrent

DOUBLE = torch.float64
T, B, N = 6, 2, 3
COUNTING = Cell.parse(
    "def counting(x, h_prev, s_prev, *, W, U):\n"
    "    s = 0.5 * s_prev + tanh(W.s @ x + U.s @ h_prev)\n"
    "    h = tanh(s) + 0.1 * t\n"
    "    return h, s\n"
)
CELLS = {"counting": COUNTING, "gru": cells.gru, "peephole_lstm": cells.peephole_lstm}

pytestmark = pytest.mark.filterwarnings("ignore:Unrolled runs a recurrent layer step by step")


def layer_of(cell, **options):
    torch.manual_seed(0)
    options = {"bidirectional": True, "initial_state": "learned", "dtype": DOUBLE, **options}
    layer = Recurrent(cell, 3, 5, 2, **options)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def several(state):
    return state if isinstance(state, tuple) else (state,)


def flat(layer, x, lengths, resets):
    y, last, every = layer(x, lengths=lengths, resets=resets, return_all=True)
    return y, *several(last), *several(every)


def batches():
    """N batches, each with lengths and resets of its own; padding is NaN."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, T, B, 3, generator=generator, dtype=DOUBLE)
    lengths = torch.tensor([[0, 6], [3, 5], [6, 1]])
    resets = torch.rand(N, T, B, generator=generator) < 0.3
    ended = torch.arange(T)[:, None] >= lengths[:, None]
    return x.masked_fill(ended[..., None], float("nan")), lengths, resets


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_vmap_over_lengths_and_resets_is_each_batch_alone(cell):
    layer, given = layer_of(cell), batches()
    found = torch.vmap(lambda *one: flat(layer, *one))(*given)
    for ours, alone in zip(found, zip(*(flat(layer, *one) for one in zip(*given, strict=True)),
                                      strict=True), strict=True):  # fmt: skip
        torch.testing.assert_close(ours, torch.stack(alone))


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_gradients_of_each_sample_of_a_ragged_batch(cell):
    layer, (x, lengths, resets) = layer_of(cell), batches()
    parameters = dict(layer.named_parameters())
    weights = torch.randn(T, 10, dtype=DOUBLE)

    def loss(parameters, x, length, resets):
        y, _ = torch.func.functional_call(
            layer, parameters, (x[:, None], None, length[None], resets[:, None])
        )
        return (y[:, 0] * weights).sum()

    samples = x[:, :, 1], lengths[:, 1], resets[:, :, 1]
    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))(parameters, *samples)
    for number, sample in enumerate(zip(*samples, strict=True)):
        expected = torch.autograd.grad(
            loss(parameters, *sample),
            parameters.values(),
            allow_unused=True,
            materialize_grads=True,
        )
        for name, wanted in zip(parameters, expected, strict=True):
            torch.testing.assert_close(found[name][number], wanted)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_forward_mode_of_a_ragged_batch(cell):
    layer, (x, lengths, resets) = layer_of(cell), (part[1] for part in batches())
    x, direction, step = x.nan_to_num(), torch.randn(T, B, 3, dtype=DOUBLE), 1e-6
    _, found = torch.func.jvp(lambda x: flat(layer, x, lengths, resets), (x,), (direction,))
    above = flat(layer, x + step * direction, lengths, resets)
    below = flat(layer, x - step * direction, lengths, resets)
    for ours, a, b in zip(found, above, below, strict=True):
        torch.testing.assert_close(ours, (a - b) / (2 * step), rtol=1e-6, atol=1e-7)


def test_no_steps_at_all():
    layer = layer_of(cells.gru)
    y, last = torch.vmap(lambda x, lengths: layer(x, lengths=lengths))(
        torch.zeros(N, 0, B, 3, dtype=DOUBLE), torch.zeros(N, B, dtype=torch.int64)
    )
    assert y.shape == (N, 0, B, 10)
    learned = torch.stack([layer.get_parameter(f"h_0{suffix}") for suffix in layer._suffixes])
    torch.testing.assert_close(last, learned[None, :, None].expand(N, -1, B, -1))


def test_graphs_of_the_eager_backend_take_other_lengths_than_were_seen():
    layer = layer_of(COUNTING, backend="eager")
    (x, *_), (first, second, _), (one, other, _) = (part for part in batches())
    x = x.nan_to_num()
    exported = torch.export.export(layer, (x,), {"lengths": first, "resets": one}).module()
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    parameters = list(layer.parameters())
    for lengths, resets in ((first, one), (second, other)):
        y, last = layer(x, lengths=lengths, resets=resets)
        torch.testing.assert_close(exported(x, lengths=lengths, resets=resets), (y, last))
        found = compiled(x, lengths=lengths, resets=resets)
        torch.testing.assert_close(found, (y, last))
        torch.testing.assert_close(
            torch.autograd.grad(found[0].sin().sum(), parameters),
            torch.autograd.grad(y.sin().sum(), parameters),
        )


def test_packed_sequences_on_the_eager_backend_have_no_graph():
    layer = Recurrent(cells.gru, 3, 5, backend="eager")
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    with pytest.raises(torch._dynamo.exc.Unsupported, match="BackendError"):
        torch.compile(layer, fullgraph=True, backend="aot_eager")(packed)
    compiled = torch.compile(layer, backend="aot_eager")  # which may leave out what has no graph
    torch.testing.assert_close(compiled(packed), layer(packed))
