"""All that torch does with modules, for a layer with every feature switched on."""

import copy
import io
import pickle
import warnings

import pytest
import torch

import unrolled
from unrolled import cells
from unrolled.nn import LSTM, Recurrent, choice

DOUBLE = torch.float64
T, B, X, H = 5, 3, 3, 4
CELL = unrolled.clipped(
    unrolled.zoneout(unrolled.recurrent_dropout(unrolled.layer_norm(cells.gru, 0.1), 0.3), 0.2), 0.9
)

pytestmark = pytest.mark.filterwarnings("ignore:Unrolled runs a recurrent layer step by step")


def layer_of(**options):
    torch.manual_seed(0)
    usual = {
        "num_layers": 2,
        "bidirectional": True,
        "initial_state": "learned",
        "dropout": 0.2,
        "dropout_every": "sequence",
        "weight_dropout": 0.2,
        "dtype": DOUBLE,
    }
    layer = Recurrent(CELL, X, H, **{**usual, **options})
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return layer


def call(layer):
    """What a call is given beside its input."""
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2, 0] = resets[3, 1] = True
    return {
        "lengths": torch.tensor([3, 5, 0]),
        "resets": resets,
        "masks": layer.draw_masks(T, B),
        "return_all": True,
    }


def data(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, T, B, X, generator=generator, dtype=DOUBLE)


def gradients(outputs, leaves):
    loss = sum(output.sin().sum() for output in outputs)
    return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


def test_second_derivatives():
    layer, x = layer_of(num_layers=1), data().requires_grad_()
    given, names = call(layer), [name for name, _ in layer.named_parameters()]

    def run(x, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, named, (x,), given)

    leaves = (x, *layer.parameters())
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True, atol=1e-6)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True, atol=1e-6)


def test_vmap():
    layer, x = layer_of(), data(4)
    given = call(layer)
    found = torch.vmap(lambda x: layer(x, **given))(x)
    for ours, alone in zip(found, zip(*(layer(one, **given) for one in x), strict=True),
                           strict=True):  # fmt: skip
        torch.testing.assert_close(ours, torch.stack(alone))


def test_vmap_draws_as_torch_is_told():
    layer, x = layer_of(), data()
    each = torch.vmap(lambda x: layer(x)[0], randomness="different")(torch.stack([x, x]))
    same = torch.vmap(lambda x: layer(x)[0], randomness="same")(torch.stack([x, x]))
    assert not torch.equal(each[0], each[1])
    torch.testing.assert_close(same[0], same[1])


def test_vmap_over_layers():
    layers = [layer_of().eval() for _ in range(3)]
    for number, layer in enumerate(layers):
        for parameter in layer.parameters():
            parameter.data += 0.1 * number
    stacked, base = torch.func.stack_module_state(layers), copy.deepcopy(layers[0]).to("meta")
    x, lengths = data(), torch.tensor([3, 5, 0])

    def run(parameters, buffers):
        return torch.func.functional_call(base, (parameters, buffers), (x, None, lengths))[0]

    expected = torch.stack([layer(x, lengths=lengths)[0] for layer in layers])
    torch.testing.assert_close(torch.vmap(run)(*stacked), expected)


def test_gradients_of_each_sample():
    layer, x = layer_of(), data()
    given, parameters = call(layer), dict(layer.named_parameters())
    families, draws = CELL.program.families, CELL.draws
    masks = given["masks"]
    axes = [
        {name: None if name in families else mask.dim() - 2 for name, mask in one.items()}
        for one in masks
    ]
    assert draws.keys() < axes[-1].keys()

    def loss(parameters, x, length, resets, masks):
        masks = [
            {name: mask if axis[name] is None else mask.unsqueeze(axis[name])
             for name, mask in one.items()}
            for axis, one in zip(axes, masks, strict=True)
        ]  # fmt: skip
        found = torch.func.functional_call(
            layer, parameters, (x[:, None], None, length[None], resets[:, None]), {"masks": masks}
        )
        return sum(output.sin().sum() for output in found)

    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 1, 0, 1, axes))(
        parameters, x, given["lengths"], given["resets"], masks
    )
    y = layer(x, **{**given, "return_all": False})
    for name, expected in zip(parameters, gradients(y, parameters.values()), strict=True):
        torch.testing.assert_close(found[name].sum(0), expected)


def test_forward_mode():
    layer, x, direction, step = layer_of(), data(), data().cos(), 1e-6
    given = call(layer)
    _, found = torch.func.jvp(lambda x: tuple(layer(x, **given)), (x,), (direction,))
    above, below = layer(x + step * direction, **given), layer(x - step * direction, **given)
    for ours, a, b in zip(found, above, below, strict=True):
        torch.testing.assert_close(ours, (a - b) / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("recompute", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compile(recompute):
    layer, x = layer_of(recompute=recompute), data().requires_grad_()
    given, leaves = call(layer), [x, *layer.parameters()]
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found, expected = compiled(x, **given), layer(x, **given)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, leaves), gradients(expected, leaves))
    compiled(x)[0].sum().backward()  # draws by itself
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_compile_where_new_tensors_are_large():
    """Those of plain calls lie in memory that a compiler knows nothing of."""
    layer, x = LSTM(8, 64), torch.randn(200, 8, 8, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for lengths in (None, torch.tensor([200, 0, 7, 9, 100, 3, 200, 1])):
        leaves = [x, *layer.parameters()]
        _, found = compiled(x, lengths=lengths)  # of the outputs no gradient comes
        _, expected = layer(x, lengths=lengths)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            gradients(found, leaves), gradients(expected, leaves), rtol=1e-4, atol=1e-5
        )


def test_export():
    layer, x = layer_of().eval(), data()
    given = call(layer)
    program = torch.export.export(layer, (x,), given, strict=False)
    written = io.BytesIO()
    torch.export.save(program, written)
    written.seek(0)
    other = {**given, "lengths": torch.tensor([5, 0, 4]), "masks": layer.draw_masks(T, B)}
    loaded = torch.export.load(written).module()
    torch.testing.assert_close(loaded(-x, **other), layer(-x, **other))


def test_autocast():
    layer, below, x = layer_of(dtype=torch.float32), torch.nn.Linear(X, X), data().float()
    given, leaves = call(layer), [*below.parameters(), *layer.parameters()]
    expected = layer(below(x), **given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert below(x).dtype == torch.bfloat16
        found = layer(below(x), **given)
        layer(below(x))  # draws by itself
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.float(), wanted, rtol=0.1, atol=0.1)
    for gradient in gradients(found, leaves):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["deepcopy", "pickle"],
)
def test_copies(copied):
    layer, x = layer_of(), data()
    twin, given = copied(layer), call(layer)
    torch.testing.assert_close(twin(x, **given), layer(x, **given))
    torch.manual_seed(3)
    drawn = twin(x)
    torch.manual_seed(3)
    torch.testing.assert_close(layer(x), drawn)
    twin.b_l0.data += 1
    assert not torch.allclose(twin(x, **given)[0], layer(x, **given)[0])


def test_parametrize():
    class Doubled(torch.nn.Module):
        def forward(self, half):
            return 2 * half

    layer, plain, x = layer_of(), layer_of(), data()
    given = call(plain)
    for name in ("U_l1_reverse", "gain_l0", "h_0_l0"):
        torch.nn.utils.parametrize.register_parametrization(layer, name, Doubled())
        layer.parametrizations[name].original.data /= 2
    found, expected = layer(x, **given), plain(x, **given)
    torch.testing.assert_close(found, expected)
    sum(output.sin().sum() for output in found).backward()
    wanted = dict(zip(dict(plain.named_parameters()), gradients(expected, plain.parameters()),
                      strict=True))  # fmt: skip
    for name in ("U_l1_reverse", "gain_l0", "h_0_l0"):
        torch.testing.assert_close(layer.parametrizations[name].original.grad, 2 * wanted[name])


def test_each_reason_for_the_eager_backend_is_said_once(monkeypatch):
    monkeypatch.setattr(choice, "_said", set())
    layer, x = layer_of(), data().requires_grad_()
    given = call(layer)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            torch.vmap(lambda x: layer(x, **given))(x[None])
            torch.func.jvp(lambda x: layer(x, **given)[0], (x,), (x,))
            torch.autograd.grad(layer(x, **given)[0].sum(), x, create_graph=True)
    texts = [text for one in said if "Unrolled" in (text := str(one.message))]
    assert len(texts) == 3
    for text, reason in zip(
        texts, ("a transform of torch.func", "forward-mode", "a second derivative"), strict=True
    ):
        assert reason in text
