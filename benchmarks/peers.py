"""The peers: other ways to run a layer of torch.nn, with its parameters, on the same input.

Those of torch are functions from the input (T, B, I) to the outputs (T, B, H · directions), which
autograd follows; those that only infer are called without arguments.
"""

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

Layer = nn.LSTM | nn.GRU | nn.RNN

# torch.compile unrolls a loop, which takes a minute a pass at this length and ever more beyond it;
# there the step alone is compiled, and the loop over it stays open.
UNROLLED = 25


# The steps, for torch and for JAX alike: z is W x + b, and U and b belong to the state.


def _lstm(ops: Any, z: Any, state: Any, U: Any, b: Any) -> Any:
    h, c = state
    i, f, g, o = ops.split(z + ops.affine(b, h, U), 4)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def _gru(ops: Any, z: Any, state: Any, U: Any, b: Any) -> Any:
    (h,) = state
    given, recurrent = ops.split(z, 3), ops.split(ops.affine(b, h, U), 3)
    reset, update = (ops.sigmoid(given[k] + recurrent[k]) for k in (0, 1))
    candidate = ops.tanh(given[2] + reset * recurrent[2])
    return (candidate + update * (h - candidate),)


def _rnn(ops: Any, z: Any, state: Any, U: Any, b: Any) -> Any:
    return (ops.tanh(z + ops.affine(b, state[0], U)),)


STEPS = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}


def parameters(layer: Layer, number: int, ending: str) -> list[Tensor]:
    """W, U and their biases of one direction of one layer."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [getattr(layer, f"{name}_l{number}{ending}") for name in names]


def endings(layer: Layer) -> Sequence[str]:
    """How the names of a layer's directions end."""
    return ("", "_reverse")[: 1 + layer.bidirectional]


# torch


_TORCH = SimpleNamespace(
    sigmoid=torch.sigmoid,
    tanh=torch.tanh,
    split=lambda z, count: z.chunk(count, 1),
    affine=lambda b, h, U: torch.addmm(b, h, U.t()),
)


def loop(layer: Layer, x: Tensor) -> Tensor:
    """A loop of torch's operations over the steps, behind one product for all of W x."""
    return _loop(STEPS[type(layer).__name__], STATES[type(layer).__name__], _weights(layer), x)


def compiled_loop(layer: Layer, x: Tensor) -> Tensor:
    """The same compiled: all of it where it is short, else its step."""
    step, states = STEPS[type(layer).__name__], STATES[type(layer).__name__]
    if len(x) <= UNROLLED:
        found: Tensor = _compiled(_loop)(step, states, _weights(layer), x)
        return found
    return _loop(_compiled(step), states, _weights(layer), x)


# The compiler refuses the layers of torch.nn, so it is given their parameters.
Weights = list[list[list[Tensor]]]  # layer → direction → W, U and their biases


def _weights(layer: Layer) -> Weights:
    return [
        [parameters(layer, number, ending) for ending in endings(layer)]
        for number in range(layer.num_layers)
    ]


def _loop(step: Callable[..., Any], states: int, weights: Weights, x: Tensor) -> Tensor:
    for layer in weights:
        outputs = []
        for reverse, (W, U, b_W, b_U) in enumerate(layer):
            given = nn.functional.linear(x.flip(0) if reverse else x, W, b_W)
            state = (x.new_zeros(x.shape[1], U.shape[1]),) * states
            found = []
            for z in given.unbind(0):
                state = step(_TORCH, z, state, U, b_U)
                found.append(state[0])
            y = torch.stack(found)
            outputs.append(y.flip(0) if reverse else y)
        x = torch.cat(outputs, -1)
    return x


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # A full graph, or an error: it must not give up compiling in silence.
    return torch.compile(function, dynamic=False, fullgraph=True)


# ONNX Runtime

_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}  # torch's blocks in ONNX's order


def onnx_runtime(layer: Layer, x: Tensor | PackedSequence) -> Callable[[], np.ndarray] | None:
    """Inference by ONNX Runtime, on as many threads as torch has; None if it is not installed."""
    if not (importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime")):
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        _onnx_model(layer).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    padded, lengths = (
        pad_packed_sequence(x)
        if isinstance(x, PackedSequence)
        else (x, torch.full((x.shape[1],), x.shape[0]))
    )
    fed = {"x": padded.numpy(force=True), "lengths": lengths.int().numpy()}
    return lambda: session.run(None, fed)[0]


def _onnx_model(layer: Layer) -> Any:
    """The layer as an ONNX model from x (T, B, I) and lengths (B,) to y (T, B, H · directions)."""
    from onnx import TensorProto, helper, numpy_helper

    kind, constants, nodes = type(layer).__name__, [], []

    def constant(name: str, array: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(array, name))
        return name

    def blocks(stacked: Tensor) -> np.ndarray:
        parts = stacked.detach().chunk(len(_GATES[kind]))
        return torch.cat([parts[place] for place in _GATES[kind]]).numpy()

    shape = constant("shape", np.array([0, 0, -1]))
    given = "x"
    for number in range(layer.num_layers):
        found = [
            [blocks(stacked) for stacked in parameters(layer, number, ending)]
            for ending in endings(layer)
        ]
        W, U = (
            constant(f"{name}{number}", np.stack([direction[place] for direction in found]))
            for place, name in enumerate("WU")
        )
        biases = np.stack([np.concatenate(direction[2:]) for direction in found])
        attributes: dict[str, Any] = {"linear_before_reset": 1} if kind == "GRU" else {}
        nodes += [
            helper.make_node(
                kind, [given, W, U, constant(f"b{number}", biases), "lengths"], [f"h{number}"],
                hidden_size=layer.hidden_size,
                direction="bidirectional" if layer.bidirectional else "forward", **attributes,
            ),
            helper.make_node("Transpose", [f"h{number}"], [f"t{number}"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", [f"t{number}", shape], [f"y{number}"]),
        ]  # fmt: skip
        given = f"y{number}"
    graph = helper.make_graph(
        nodes, kind,
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", layer.input_size]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
        ],
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, None)],
        constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# JAX


def jax_scan(layer: Layer, x: Tensor, dy: Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Inference and training by `lax.scan` under `jit`, of one direction of one layer."""
    import jax
    from jax import lax, numpy as jnp

    ops = SimpleNamespace(
        sigmoid=jax.nn.sigmoid,
        tanh=jnp.tanh,
        split=lambda z, count: jnp.split(z, count, 1),
        affine=lambda b, h, U: h @ U.T + b,
    )
    kind = type(layer).__name__
    given = [jnp.asarray(part.numpy(force=True)) for part in (x, *parameters(layer, 0, ""))]
    gradient = jnp.asarray(dy.numpy(force=True))

    def infer(x: Any, W: Any, U: Any, b_W: Any, b_U: Any) -> Any:
        def step(state: Any, z: Any) -> Any:
            state = STEPS[kind](ops, z, state, U, b_U)
            return state, state[0]

        zeros = (jnp.zeros((x.shape[1], layer.hidden_size), x.dtype),) * STATES[kind]
        return lax.scan(step, zeros, x @ W.T + b_W)[1]

    def train(*given: Any) -> Any:
        return jax.vjp(infer, *given)[1](gradient)

    infer_quickly, train_quickly = jax.jit(infer), jax.jit(train)
    return (
        lambda: jax.block_until_ready(infer_quickly(*given)),
        lambda: jax.block_until_ready(train_quickly(*given)),
    )
