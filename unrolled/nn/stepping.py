"""One step of recurrent layers, for streams: kernels that read weights where they lie.

Over one step there is nothing to prepare and nothing to gain from it, so what counts is the way to
the kernel: a table for each layer, of which a call writes only the addresses that have changed.
"""

from functools import cache
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor, empty_like, is_grad_enabled, nn
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from ..backends.cpu.live import Table, live_kernel_for, shape_of
from ..cell import Cell
from .checks import State

DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("float32"),
    torch.float64: np.dtype("float64"),
}
_PLAIN = (nn.Parameter, Tensor)
ROWS = 64  # at most; more are quicker on several threads, with packed weights
_KEPT = 16  # shapes of input for which tables are kept


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
        self._free: dict[torch.Size, list[_Desk]] = {}  # of x → desks that no thread is working at

    def __reduce__(self) -> Any:
        # Copies and pickles lead to the one that is there already, with its tables.
        return stepper_of, self._about

    def __call__(self, module: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State] | None:
        """One step of all layers, if these tensors need nothing but numbers.

        Args:
            module: whose parameters they are.
            x: (B, I), or (I,), of the stepper's dtype.
            state: a tensor (layers, B, size) or a tuple of several, without B for (I,).

        Returns:
            The output and the new state; None if the kernel cannot do it, or something does not
            fit.
        """
        shape = x.shape
        free = self._free.get(shape)
        if free is None and (free := self._prepared(shape)) is None:
            return None
        try:
            desk = free.pop()
        except IndexError:
            desk = _Desk(self, shape[:-1])
        try:
            return desk.step(module, x, state)
        finally:
            free.append(desk)

    def _prepared(self, shape: torch.Size) -> "list[_Desk] | None":
        if len(shape) not in (1, 2) or shape[-1] != self.sizes[0]["I"] or shape[:-1] > (ROWS,):
            return None
        if len(self._free) >= _KEPT:
            self._free.clear()
        return self._free.setdefault(shape, [])


@cache
def stepper_of(*about: Any) -> Stepper:
    """The one `Stepper` of this process with these arguments."""
    return Stepper(*about)


class _Desk:
    """What one call at a time works with: tables, and how tensors look for so many rows."""

    def __init__(self, stepper: Stepper, rows: tuple[int, ...]) -> None:
        count, sizes = len(stepper.sizes), stepper.state_sizes
        dtype: np.dtype[Any] = DTYPES[stepper.dtype]
        self.dtype = stepper.dtype
        self.kernel = stepper.kernel  # compiled by the first call that it serves
        batch = rows[0] if rows else 1
        self.output = torch.from_numpy(np.empty((*rows, sizes[0]), dtype))
        likes = [torch.from_numpy(np.empty((count, *rows, size), dtype)) for size in sizes]
        self.states = [(like.shape, like) for like in likes]
        self.single, self.deep = len(sizes) == 1, count > 1
        self.spans = [batch * size * dtype.itemsize for size in sizes]
        self.tables = [Table(stepper.kernel, numbers, 1, batch) for numbers in stepper.sizes]
        self.layers = [
            (table.numbers, table.address, families)
            for table, families in zip(self.tables, stepper.families, strict=True)
        ]

    def step(self, module: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State] | None:
        """As `Stepper.__call__`. Each line is paid for at each step, hence their plainness."""
        dtype, graph = self.dtype, is_grad_enabled()
        x = x.contiguous()
        if not x.is_cpu or x.is_neg() or (graph and x.requires_grad):
            return None
        states = (state,) if type(state) is Tensor else state
        if not isinstance(states, tuple | list) or len(states) != len(self.states):
            return None
        y = empty_like(self.output)
        given_at, last_at, last, kept = [], [], [], []
        for given, (shape, like) in zip(states, self.states):  # noqa: B905 - equal, see above
            if (
                type(given) is not Tensor
                or given.shape != shape
                or given.dtype is not dtype
                or not given.is_cpu
                or given.is_neg()
                or (graph and given.requires_grad)
            ):
                return None
            given = given.contiguous()
            kept.append(given)
            given_at.append(given.data_ptr())
            made = empty_like(like)
            last.append(made)
            last_at.append(made.data_ptr())
        below, output = x.data_ptr(), y.data_ptr()
        parameters = module._parameters
        for numbers, address, families in self.layers:
            addresses = [below, output, *given_at, *last_at]
            for name, shape in families:
                family = parameters.get(name)
                if family is None:
                    family = getattr(module, name)
                    kept.append(family)  # it may have been computed just now
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
            numbers[: len(addresses)] = addresses  # type: ignore[assignment]
            self.kernel.call(address)
            if self.deep:  # the layer above reads what is now the output of this one
                below = last_at[0]
                given_at = list(map(add, given_at, self.spans))
                last_at = list(map(add, last_at, self.spans))
        return y, last[0] if self.single else tuple(last)


def watched() -> bool:
    """Whether something must see torch's own operations."""
    return (
        is_compiling()
        or _len_torch_dispatch_stack() > 0
        or _get_tracing_state() is not None
        or peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )
