"""One step of recurrent layers, for streams: kernels that read weights where they lie.

Over one step there is nothing to prepare and nothing to gain from it, so what counts is the way to
the kernel: a table of addresses for each layer, of which a call writes only those that have changed.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ..backends.cpu.live import Table, live_kernel_for, shape_of
from ..cell import Cell

DTYPES = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}
_PLAIN = (nn.Parameter, Tensor)
_KEPT = 16  # batches for which tables are kept


class Stepper:
    """A step of a stack of layers in one direction, by the kernels for one dtype.

    Args:
        text: of the cell.
        numbers: of each layer its sizes, in the order of `Cell.sizes.letters`.
        names: of each layer the names of its families of parameters, in the cell's order.
        dtype: float32 or float64.
    """

    def __init__(
        self,
        text: str,
        numbers: tuple[tuple[int, ...], ...],
        names: tuple[tuple[str, ...], ...],
        dtype: torch.dtype,
    ) -> None:
        self._about = text, numbers, names, dtype
        cell = Cell.parse(text)
        letters = cell.sizes.letters
        self.dtype = dtype
        self.kernel = live_kernel_for(cell.forward, DTYPES[dtype])
        self.sizes = [dict(zip(letters, of_layer, strict=True)) for of_layer in numbers]
        self.state_sizes = [self.sizes[0][cell.sizes.values[state]] for state in cell.states]
        function = self.kernel.function
        self.families = [
            [
                (name, shape_of(function.axes[family], sizes, 1, 1))
                for name, family in zip(of_layer, function.families, strict=True)
            ]
            for of_layer, sizes in zip(names, self.sizes, strict=True)
        ]
        self._free: dict[int | None, list[_Desk]] = {}  # B → desks that no thread is working at

    def __reduce__(self) -> Any:
        # Copies and pickles lead to the one that is there already, with its tables.
        return stepper_of, self._about

    def __call__(
        self, module: nn.Module, x: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]] | None:
        """One step of all layers, if these tensors need nothing but numbers.

        Args:
            module: whose parameters they are.
            x: (B, I), or (I,).
            states: for each state a tensor (layers, B, size), without B for (I,).

        Returns:
            The output and the new states; None if the kernel cannot do it, or one does not fit.
        """
        batch = len(x) if x.dim() == 2 else None
        free = self._free.get(batch)
        if free is None:
            free = self._prepare(batch)
        try:
            desk = free.pop()
        except IndexError:
            desk = _Desk(self, batch)
        try:
            return desk.step(module, x, states)
        finally:
            free.append(desk)

    def _prepare(self, batch: int | None) -> list["_Desk"]:
        if len(self._free) >= _KEPT:
            self._free.clear()
        return self._free.setdefault(batch, [])


@cache
def stepper_of(*about: Any) -> Stepper:
    """The one `Stepper` of this process with these arguments."""
    return Stepper(*about)


class _Desk:
    """What one call at a time works with: tables, and how tensors look for so many rows."""

    def __init__(self, stepper: Stepper, batch: int | None) -> None:
        count, sizes = len(stepper.sizes), stepper.state_sizes
        dtype = DTYPES[stepper.dtype]
        self.dtype = stepper.dtype
        self.call = stepper.kernel.call
        rows, count_rows = ((), 1) if batch is None else ((batch,), batch)
        self.x_shape = *rows, stepper.sizes[0]["I"]
        self.output = torch.from_numpy(np.empty((*rows, sizes[0]), dtype))
        self.states = [torch.from_numpy(np.empty((count, *rows, size), dtype)) for size in sizes]
        self.spans = [count_rows * size * dtype.itemsize for size in sizes] * 2
        self.tables = [Table(stepper.kernel, numbers, 1, count_rows) for numbers in stepper.sizes]
        self.layers = [
            (table.numbers, table.address, families)
            for table, families in zip(self.tables, stepper.families, strict=True)
        ]

    def step(
        self, module: nn.Module, x: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]] | None:
        """As `Stepper.__call__`. Every line of this is paid for at every step."""
        dtype, graph = self.dtype, torch.is_grad_enabled()
        last = []
        if len(states) != len(self.states):
            return None
        for given, like in zip(states, self.states):
            if (
                type(given) is not Tensor
                or given.shape != like.shape
                or given.dtype is not dtype
                or not given.is_cpu
                or (graph and given.requires_grad)
            ):
                return None
            last.append(torch.empty_like(like))
        if (
            x.shape != self.x_shape
            or x.dtype is not dtype
            or not x.is_cpu
            or (graph and x.requires_grad)
        ):
            return None
        read = [x.contiguous(), *(state.contiguous() for state in states)]
        y = torch.empty_like(self.output)
        below, *given_at = [tensor.data_ptr() for tensor in read]
        fixed = [below, y.data_ptr(), *given_at, *[state.data_ptr() for state in last]]
        parameters = module._parameters
        for numbers, address, families in self.layers:
            addresses = list(fixed)
            for name, shape in families:
                family = parameters.get(name)
                if family is None:
                    family = getattr(module, name)
                if (
                    type(family) not in _PLAIN
                    or family.shape != shape
                    or family.dtype is not dtype
                    or not family.is_cpu
                    or not family.is_contiguous()
                    or (graph and family.requires_grad)
                ):
                    return None
                addresses.append(family.data_ptr())
            numbers[: len(addresses)] = addresses
            self.call(address)
            if len(self.layers) > 1:
                fixed = self._above(fixed)
        return y, last

    def _above(self, addresses: list[int]) -> list[int]:
        """The addresses for the layer above, which reads what is now the state of this one."""
        states = addresses[2:]
        output = states[len(states) // 2]
        moved = [state + span for state, span in zip(states, self.spans, strict=True)]
        return [output, addresses[1], *moved]


def watched() -> bool:
    """Whether something must see torch's own operations."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )
