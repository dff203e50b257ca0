"""A look inside torch layers: every named value of a run and, after `backward`, its gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends.blocks import split_blocks, stack_blocks
from ..backends.steps import Array
from ..cell import Cell
from ..network import Gradients, Network, Trace
from .direction import Direction
from .masks import Masks

Key = str | tuple[str, int] | tuple[str, int, int]


class LayerTrace:
    """One run of torch layers with all its named values.

    `trace["c"]` is a value of the last layer, `trace["c", 0]` of the first, `trace["c", 0, 1]` of
    the direction of the first that reads from the end: (T, B, size), time-major always, zero where
    a row has ended. Once `backward` went through `y` or `state`, `trace.gradient("c", 0)` is the
    gradient of the loss with respect to it.

    Attributes:
        y: the outputs, as the layers give them; gradients flow from here.
        state: the last state, as the layers give it.
        values: the run in NumPy, for `unrolled.lab`.
        gradients: what the last backward pass found, in NumPy; None before it.
    """

    y: Tensor
    state: Tensor | tuple[Tensor, ...]
    values: Trace
    gradients: Gradients | None = None

    def __getitem__(self, key: Key) -> Tensor:
        return torch.from_numpy(self.values[key])

    def gradient(self, name: str, layer: int = -1, direction: int = 0) -> Tensor:
        """The gradient of a named value, (T, B, size).

        Raises:
            RuntimeError: if no backward pass went through this trace.
        """
        return torch.from_numpy(self._found()[name, layer, direction])

    def gradient_norm(self, name: str, layer: int = -1, direction: int = 0) -> Tensor:
        """The Euclidean norm of that gradient at each step of each row, (T, B)."""
        return self.gradient(name, layer, direction).square().sum(-1).sqrt()

    def _found(self) -> Gradients:
        if self.gradients is None:
            raise RuntimeError(
                "no gradient went through this trace yet; call backward() on a loss made from "
                "trace.y or trace.state first."
            )
        return self.gradients


def trace_of(
    network: Network,
    x: Tensor,
    initial: list[Sequence[Tensor]],
    anew: list[Sequence[Tensor]],
    families: list[Sequence[Tensor]],
    lengths: Tensor | None,
    resets: Tensor | None,
    masks: Sequence[Masks] | None,
) -> tuple[LayerTrace, Tensor, list[Tensor]]:
    """Run a network by the reference, which needs no compilation, and keep everything.

    Args:
        network: the layers in NumPy.
        x: (T, B, I).
        initial: for each state one tensor (B, size) for each direction of each layer.
        anew: for each state one tensor (size,) for each direction of each layer, that rows start
            anew with; empty if those are zeros.
        families: the stacked families of each direction of each layer.
        lengths: (B,) int64 on the CPU, or None.
        resets: (T, B) bool, or None.
        masks: of each direction of each layer, or None.

    Returns:
        The trace without its `y` and `state`, and those two: (T, B, …), and one for each state.
    """
    trace = LayerTrace()
    states = [torch.stack(list(parts)) for parts in (*initial, *anew)]
    flat = [family for parts in families for family in parts]
    given: dict[str, Any] = {
        name: None if which is None else which.numpy(force=True)
        for name, which in (("lengths", lengths), ("resets", resets))
    }
    if masks is not None:
        given["masks"] = [{name: _array(mask) for name, mask in one.items()} for one in masks]
    y, *last = _Traced.apply(trace, network, given, x, *states, *flat)  # type: ignore[no-untyped-call]
    return trace, y, last


class _Traced(torch.autograd.Function):
    """The network's own two passes, which leave what they find in the trace."""

    @staticmethod
    def forward(
        ctx: Any,
        trace: LayerTrace,
        network: Network,
        given: dict[str, Any],
        x: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        states = tuple(_array(state) for state in rest[: len(network.cell.states)])
        trace.values = network.trace(_array(x), states, **given)
        ctx.trace, ctx.like = trace, [x, *rest]
        last = trace.values.state
        return tuple(_like(x, a) for a in (trace.values.y, *_several(last)))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *dlast: Tensor) -> Any:
        trace: LayerTrace = ctx.trace
        network = trace.values.network
        found = trace.values.backward(_array(dy), tuple(_array(gradient) for gradient in dlast))
        trace.gradients = found
        families = [
            gradient
            for layer in found.params
            for blocks in layer
            for gradient in stack_blocks(network.cell.program, blocks).values()
        ]
        learned = _several(found.anew) if network.initial is not None else ()
        arrays = [found.x, *_several(found.state), *learned, *families]
        gradients = [_like(to, array) for to, array in zip(ctx.like, arrays, strict=True)]
        return None, None, None, *gradients


def _array(tensor: Tensor) -> Array:
    kept = tensor.dtype in (torch.float32, torch.float64)
    array: Array = (tensor if kept else tensor.double()).numpy(force=True)
    return array


def _like(tensor: Tensor, array: Array) -> Tensor:
    return torch.from_numpy(array).to(tensor.device, tensor.dtype)


def _several(state: Array | tuple[Array, ...]) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)


def network_of(
    cell: Cell,
    directions: Sequence[Direction],
    families: Sequence[Sequence[Tensor]],
    learned: Sequence[Sequence[Tensor]] | None,
    together: int,
) -> Network:
    """The network of torch layers in NumPy, float64, with copies of the parameters.

    Args:
        cell: of every layer.
        directions: of all layers, one after the other.
        families: of each direction, its stacked families.
        learned: of each direction, the states (size,) that it begins with; zeros if None.
        together: how many directions a layer has.
    """

    def blocks_of(direction: Direction, stacked: Sequence[Tensor]) -> dict[str, Array]:
        arrays = {
            family: tensor.detach().cpu().double().numpy()
            for family, tensor in zip(direction.families, stacked, strict=True)
        }
        blocks = split_blocks(cell.program, direction.sizes, arrays)
        return {block: array.copy() for block, array in blocks.items()}

    found = [blocks_of(*one) for one in zip(directions, families, strict=True)]
    layers = [tuple(found[first : first + together]) for first in range(0, len(found), together)]
    initial = None
    if learned is not None:
        arrays = [torch.stack(state).cpu().double().numpy() for state in zip(*learned, strict=True)]
        initial = arrays[0] if len(arrays) == 1 else tuple(arrays)
    return Network(cell, tuple(layers), initial)
