"""The torch operator: what compiles, exports, differentiates, and who runs what."""

import subprocess
import sys
import warnings

import pytest
import torch

from unrolled import BackendError, Cell, InputError, cells, recurrent_dropout
from unrolled.nn import GRU, LSTM, Recurrent, choice, direction as direction_module

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    torch._dynamo.reset()  # its limit of recompilations is one for all tests
    monkeypatch.setattr(choice, "_said", set())


class Model(torch.nn.Module):
    """A layer among others, as in use."""

    def __init__(self, layer: torch.nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = torch.nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.layer(torch.tanh(x))
        return self.head(y)


def models():
    yield "lstm", Model(LSTM(3, 5, num_layers=2, bidirectional=True), 10)
    yield "gru", Model(GRU(3, 5, batch_first=True), 5)
    yield "peephole", Model(Recurrent(cells.peephole_lstm, 3, 5, backend="reference"), 5)


def gradients(model, x):
    y = model(x)
    return [y, *torch.autograd.grad(y.sin().sum(), [x, *model.parameters()])]


# compile and export


@pytest.mark.slow
@pytest.mark.parametrize("model", [m for _, m in models()], ids=[n for n, _ in models()])
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile_with_a_full_graph(model, compiler: str) -> None:
    compiled = torch.compile(model, fullgraph=True, backend=compiler, dynamic=True)
    for length, batch in ((4, 3), (6, 2)):
        x = torch.randn(length, batch, 3, requires_grad=True)
        for found, expected in zip(gradients(compiled, x), gradients(model, x), strict=True):
            torch.testing.assert_close(found, expected)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x))


def test_compile_keeps_the_operator_in_its_graph() -> None:
    graphs = []

    def look(graph, _):
        graphs.append(graph)
        return graph

    layer = LSTM(3, 5)
    x, state = torch.randn(4, 2, 3), (torch.randn(1, 2, 5), torch.randn(1, 2, 5))
    compiled = torch.compile(layer, fullgraph=True, backend=look)
    torch.testing.assert_close(compiled(x, state), layer(x, state))
    (graph,) = graphs
    called = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert torch.ops.unrolled.forward in called or torch.ops.unrolled.forward.default in called


def test_compiled_eager_backend() -> None:
    layer = Recurrent(cells.gru_original, 3, 5, backend="eager")
    x = torch.randn(4, 2, 3, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x)[0], layer(x)[0])
    compiled(x)[0].sum().backward()
    assert x.grad is not None


def test_compiled_layers_say_so_when_they_run_eagerly() -> None:
    layer, x = LSTM(3, 4, dtype=torch.bfloat16), torch.randn(5, 2, 3, dtype=torch.bfloat16)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with pytest.warns(UserWarning, match="this is bfloat16 on cpu"):
        y, _ = compiled(x)
    torch.testing.assert_close(y, layer(x)[0])


def test_compiled_transforms_run_eagerly() -> None:
    layer, x = LSTM(3, 4), torch.randn(6, 5, 2, 3)
    compiled = torch.compile(torch.vmap(lambda x: layer(x)[0]), fullgraph=True, backend="aot_eager")
    with pytest.warns(UserWarning, match="inside a transform of torch.func"):
        found = compiled(x)
    torch.testing.assert_close(found, torch.stack([layer(part)[0] for part in x]))


def test_compile_takes_packed_sequences() -> None:
    layer = GRU(3, 4, bidirectional=True)
    sequences = [torch.randn(n, 3) for n in (4, 2, 3)]
    packed = torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(packed), layer(packed), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("model", [m for _, m in models()], ids=[n for n, _ in models()])
def test_export_with_any_length_and_batch(model, strict: bool, tmp_path) -> None:
    T, B = torch.export.Dim("T", min=1, max=999), torch.export.Dim("B", min=1, max=99)
    x = torch.randn(4, 3, 3)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: T, 1: B},), strict=strict)
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for length, batch in ((4, 3), (9, 1), (1, 7)):
        x = torch.randn(length, batch, 3)
        torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.slow
def test_an_exported_program_runs_in_another_process(tmp_path) -> None:
    cell = Cell.parse(
        "def mine(x, h_prev, *, W, U):\n  h = tanh(W.h @ x) - U.h @ h_prev\n  return h"
    )
    layer = Recurrent(cell, 3, 5)
    x = torch.randn(4, 2, 3)
    program = torch.export.export(Model(layer, 5), (x,))
    torch.export.save(program, tmp_path / "model.pt2")
    torch.save((x, program.module()(x)), tmp_path / "numbers.pt")
    script = (
        "import torch, unrolled.nn\n"
        f"x, y = torch.load({str(tmp_path / 'numbers.pt')!r})\n"
        f"model = torch.export.load({str(tmp_path / 'model.pt2')!r}).module()\n"
        "torch.testing.assert_close(model(x), y)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_program_exported_for_inference_can_be_trained() -> None:
    model = Model(LSTM(3, 5), 5)
    x = torch.randn(4, 2, 3)
    with torch.no_grad():
        program = torch.export.export(model, (x,)).module()
    program(x).sum().backward()
    expected = torch.autograd.grad(model(x).sum(), model.parameters())
    found = dict(program.named_parameters())
    for (name, _), gradient in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found[name].grad, gradient)


@pytest.mark.parametrize("rows", ["dense", "packed", "ragged"])
@pytest.mark.parametrize("keep", [False, True])
def test_opcheck(rows: str, keep: bool) -> None:
    cell = cells.peephole_lstm if rows != "ragged" else recurrent_dropout(cells.peephole_lstm, 0.5)
    layer = Recurrent(cell, 3, 5)
    direction = (layer._random or layer._directions)[0]
    x, counts, resets, anew = torch.randn(4, 2, 3, requires_grad=keep), None, None, []
    noise = None
    if rows == "packed":
        x, counts = torch.randn(6, 3, requires_grad=keep), torch.tensor([2, 2, 1, 1])
    if rows == "ragged":
        counts, resets = torch.tensor([4, 2]), torch.rand(4, 2) < 0.5
        anew = [torch.randn(5, requires_grad=keep) for _ in range(2)]
        noise = 2.0 * (torch.rand(4, 2, 5) < 0.5)
    states = [torch.randn(2, 5), torch.randn(2, 5, requires_grad=keep)]
    families = [p if keep else p.detach() for p in layer._families(0)]
    width = layer._directions[0].widths[-1] if keep else -1
    arguments = (x, states, families, counts, resets, noise, anew, width)
    about = (direction.text, list(direction.numbers), True, "auto", False, False)
    torch.library.opcheck(torch.ops.unrolled.forward, (*arguments, *about))
    given = direction_module.Given(states, families, noise, anew)
    ((y, *last, kept),) = direction_module.forward(
        [direction], x, [given], counts, resets, keep=True
    )
    families = [family.detach() for family in families]
    for wanted in ((True, True), (False, False), (False, True)):
        torch.library.opcheck(
            torch.ops.unrolled.backward,
            (x.detach(), kept, [y], last, families, counts, resets, noise, *wanted, *about),
        )


def test_a_program_that_keeps_other_numbers_says_so() -> None:
    direction = Recurrent(cells.lstm, 3, 5)._directions[0]
    states, families = [torch.zeros(2, 5)] * 2, Recurrent(cells.lstm, 3, 5)._families(0)
    about = (direction.text, list(direction.numbers), False, "auto", False, False)
    arguments = (torch.zeros(4, 2, 3), states, list(families), None, None, None, [])
    with pytest.raises(InputError, match=r"keeps 7 numbers .* Compile or export it again"):
        torch.ops.unrolled.forward(*arguments, 7, *about)


# derivatives


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_gradcheck(backend: str) -> None:
    layer = Recurrent(
        cells.peephole_lstm, 3, 4, num_layers=2, bidirectional=True, dtype=DOUBLE, backend=backend
    )
    x = torch.randn(3, 2, 3, dtype=DOUBLE, requires_grad=True)
    state = [torch.randn(4, 2, 4, dtype=DOUBLE, requires_grad=True) for _ in range(2)]

    def run(x, h, c, *_):
        y, last = layer(x, (h, c))
        return y, *last

    assert torch.autograd.gradcheck(run, (x, *state, *layer.parameters()), fast_mode=True)


def test_gradients_are_computed_only_where_asked_for(monkeypatch) -> None:
    seen = []

    def watch(backend, program, *rest, run=direction_module.run_kernels):
        if program.adjoint:
            seen.append(rest[-1])
        elif len(program.outputs) > 1:
            seen.append("kept")
        return run(backend, program, *rest)

    monkeypatch.setattr(direction_module, "run_kernels", watch)
    layer = LSTM(3, 4)
    monkeypatch.setattr(layer, "_served", False)  # by the short way, which has tests of its own
    x = torch.randn(5, 2, 3)
    layer(x)[0].sum().backward()
    assert seen == ["kept", {"W", "U", "b"}]
    seen.clear()
    layer.requires_grad_(False)
    x.requires_grad_()
    layer(x)[0].sum().backward()
    assert seen == ["kept", {"dx"}]
    seen.clear()
    layer(x.detach())
    with torch.no_grad():
        layer(x)
    with torch.inference_mode():
        layer(x)
    assert seen == []
    state = torch.randn(1, 2, 4, requires_grad=True), torch.randn(1, 2, 4)
    layer(x.detach(), state)[1][1].sum().backward()
    assert seen == ["kept", set()]
    assert state[0].grad is not None
    assert state[1].grad is None


def test_frozen_parameters_get_no_gradient() -> None:
    layer = Recurrent(cells.gru, 3, 4)
    layer.U_l0.requires_grad_(False)
    layer(torch.randn(5, 2, 3))[0].sum().backward()
    assert layer.U_l0.grad is None
    assert layer.W_l0.grad is not None


def test_a_parameter_changed_in_place_before_backward_is_noticed() -> None:
    layer = LSTM(3, 4)
    y, _ = layer(torch.randn(5, 2, 3))
    with torch.no_grad():
        layer.weight_hh_l0.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_second_derivatives_run_eagerly_and_say_so() -> None:
    layer = Recurrent(cells.gru_original, 3, 4, dtype=DOUBLE, bidirectional=True)
    x = torch.randn(3, 2, 3, dtype=DOUBLE, requires_grad=True)
    state = torch.randn(2, 2, 4, dtype=DOUBLE, requires_grad=True)
    with pytest.warns(UserWarning, match=r"second derivative was asked for \(create_graph=True\)"):
        torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.autograd.gradgradcheck(
            lambda x, state, *_: layer(x, state), (x, state, *layer.parameters()), fast_mode=True
        )


def test_second_derivatives_of_the_watched_operator() -> None:
    layer = Recurrent(cells.simple, 3, 4, dtype=DOUBLE)
    direction = layer._directions[0]
    x = torch.randn(3, 2, 3, dtype=DOUBLE, requires_grad=True)
    families = layer._families(0)
    states = [torch.zeros(2, 4, dtype=DOUBLE)]

    def run(x, *families):
        return torch.ops.unrolled.forward(
            x,
            states,
            families,
            None,
            None,
            None,
            [],
            direction.widths[-1],
            direction.text,
            direction.numbers,
            False,
            "auto",
            False,
            False,
        )[0]

    with pytest.warns(UserWarning, match="second derivative"):
        assert torch.autograd.gradgradcheck(run, (x, *families), fast_mode=True)


def test_a_named_backend_without_second_derivatives() -> None:
    layer = LSTM(3, 4, backend="cpu")
    x = torch.randn(3, 2, 3, requires_grad=True)
    with pytest.raises(BackendError, match="backend 'cpu' has no second derivatives"):
        torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)


# who runs what


def test_transforms_of_torch_func_run_eagerly() -> None:
    layer = Recurrent(cells.lstm, 3, 4, dtype=DOUBLE)
    x = torch.randn(5, 2, 3, dtype=DOUBLE)
    parameters = dict(layer.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,))[0].sin().sum()

    with pytest.warns(UserWarning, match="inside a transform of torch.func"):
        found = torch.func.grad(loss)(parameters, x)
    expected = torch.autograd.grad(loss(parameters, x), parameters.values())
    for gradient, name in zip(expected, parameters, strict=True):
        torch.testing.assert_close(found[name], gradient)
    of_samples = torch.vmap(torch.func.grad(loss), in_dims=(None, 1))(parameters, x[:, :, None])
    for gradient, name in zip(expected, parameters, strict=True):
        torch.testing.assert_close(of_samples[name].sum(0), gradient)


def test_forward_mode_runs_eagerly() -> None:
    layer = Recurrent(cells.gru, 3, 4, dtype=DOUBLE)
    x, direction = torch.randn(2, 5, 2, 3, dtype=DOUBLE)
    step = 1e-6
    expected = (layer(x + step * direction)[0] - layer(x - step * direction)[0]) / (2 * step)
    with torch.autograd.forward_ad.dual_level():
        with pytest.warns(UserWarning, match="forward-mode"):
            y, _ = layer(torch.autograd.forward_ad.make_dual(x, direction))
        found = torch.autograd.forward_ad.unpack_dual(y).tangent
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_other_dtypes_run_eagerly_and_say_so_once() -> None:
    layer = LSTM(3, 4, dtype=torch.bfloat16)
    x = torch.randn(5, 2, 3, dtype=torch.bfloat16)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        y, _ = layer(x)
        layer(x)
    assert y.dtype == torch.bfloat16
    (warning,) = said
    assert str(warning.message) == (
        "Unrolled runs a recurrent layer step by step on torch's own operations (the eager "
        "backend), which is slow: this is bfloat16 on cpu. Its kernels serve float32 and float64 "
        "on the CPU."
    )
    torch.testing.assert_close(y, layer.float()(x.float())[0].bfloat16(), rtol=0.05, atol=0.05)


def test_a_named_backend_that_cannot_serve() -> None:
    x = torch.randn(5, 2, 3, dtype=torch.bfloat16)
    for backend in ("cpu", "reference"):
        layer = LSTM(3, 4, dtype=torch.bfloat16, backend=backend)
        expected = (
            f"backend '{backend}' serves float32 and float64 tensors on the CPU; this is bfloat16 "
            "on cpu. backend='eager' serves it, slowly; backend='auto' chooses what can."
        )
        with pytest.raises(BackendError) as error:
            layer(x)
        assert str(error.value) == expected


def test_an_unknown_backend() -> None:
    with pytest.raises(InputError) as error:
        LSTM(3, 4, backend="cuda")
    assert str(error.value) == (
        "there is no backend 'cuda'; the backends are auto, cpu, eager, reference."
    )


def test_the_backend_may_be_changed() -> None:
    layer = LSTM(3, 4, dtype=torch.bfloat16)
    layer.backend = "cpu"
    with pytest.raises(BackendError):
        layer(torch.randn(5, 2, 3, dtype=torch.bfloat16))
    with pytest.raises(InputError, match="there is no backend 'gpu'"):
        layer.backend = "gpu"
    assert layer.backend == "cpu"


def test_mixed_dtypes() -> None:
    with pytest.raises(InputError) as error:
        LSTM(3, 4)(torch.randn(5, 2, 3, dtype=DOUBLE))
    assert (
        "the input is float64 on cpu, and a state or parameter of the layer is float32 on cpu"
        in (str(error.value))
    )


def test_shapes_on_the_meta_device() -> None:
    layer = Recurrent(cells.projected_lstm, 3, {"h": 4, "c": 6}, device="meta")
    with pytest.warns(UserWarning, match="this is float32 on meta"):
        y, (h, c) = layer(torch.empty(5, 2, 3, device="meta"))
    assert (y.shape, h.shape, c.shape) == ((5, 2, 4), (1, 2, 4), (1, 2, 6))


def test_an_operator_under_a_mode_is_seen_by_it() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    seen: list[object] = []
    layer = LSTM(3, 4)
    x = torch.randn(5, 2, 3)
    with Watch():
        y, _ = layer(x)
        y.sum().backward()
    assert torch.ops.unrolled.forward.default in seen
    assert torch.ops.unrolled.backward.default in seen
    gradient = layer.weight_hh_l0.grad.clone()
    layer.zero_grad()
    layer(x)[0].sum().backward()
    torch.testing.assert_close(layer.weight_hh_l0.grad, gradient)


def test_autocast() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), LSTM(3, 4))
    x = torch.randn(5, 2, 3)
    expected, _ = model(x)
    text = "autocast brings bfloat16 on cpu together with float32 on cpu"
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.warns(UserWarning, match=text):
        y, _ = model(x)
    y.sum().backward()
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)


def test_the_kernels_run_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (torch.float32, DOUBLE):
            layer = LSTM(3, 4, dtype=dtype)
            y, _ = layer(torch.randn(5, 2, 3, dtype=dtype))
            y.sum().backward()


def test_a_cell_of_which_nothing_is_kept_compiles() -> None:
    """Its backward pass needs no value of the forward pass, and runs all the same."""
    cell = Cell.parse("def fading(x, h_prev):\n    h = 0.5 * h_prev + x\n    return h\n")
    layer = Recurrent(cell, 3, 3)
    assert layer._directions[0].widths[-1] == 0
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 2, 3, requires_grad=True)
    ours, plain = (torch.autograd.grad(run(x)[0].sin().sum(), x) for run in (compiled, layer))
    torch.testing.assert_close(ours, plain)
