"""Which backend runs a layer, and saying so where it is not a fast one."""

import os
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from ..backends import cpu, reference
from ..backends.steps import Result, Steps
from ..errors import BackendError, InputError
from ..program import Program
from ..threads import num_threads

EAGER = "eager"
BACKENDS = ("auto", "cpu", EAGER, "reference")
_DTYPES = (torch.float32, torch.float64)
_said: set[str] = set()  # reasons already given: one warning each, not one a call


def check_name(backend: str) -> None:
    """Refuse a name that no backend has.

    Raises:
        InputError: if there is no such backend.
    """
    if backend not in BACKENDS:
        raise InputError(
            f"there is no backend {backend!r}; the backends are {', '.join(BACKENDS)}."
        )


def choose(backend: str, x: Tensor, states: Sequence[Tensor], parameters: Sequence[Tensor]) -> str:
    """The backend that runs these tensors: `"cpu"`, `"reference"` or `"eager"`.

    Raises:
        BackendError: if the backend named cannot serve them.
        InputError: if they differ in dtype or device.
    """
    mixed = None
    for tensor in (*states, *parameters):
        if tensor.dtype != x.dtype or tensor.device != x.device:
            mixed = _mixed_by_autocast(x, tensor)
    if backend == EAGER:
        return EAGER
    reason = mixed or _reason_against_kernels(x)
    if reason is None:
        return "cpu" if backend == "auto" else backend
    if backend == "auto":
        _say(reason)
        return EAGER
    raise BackendError(
        f"backend {backend!r} serves float32 and float64 tensors on the CPU; {reason}. "
        "backend='eager' serves it, slowly; backend='auto' chooses what can."
    )


def refuse_second_derivative(backend: str) -> None:
    """Let the eager backend take over for a second derivative, or say why not.

    Raises:
        BackendError: if a backend without second derivatives was named.
    """
    reason = "a second derivative was asked for (create_graph=True), and kernels have first ones"
    if backend != "auto":
        raise BackendError(
            f"backend {backend!r} has no second derivatives, and one was asked for "
            "(create_graph=True). backend='eager' has them; backend='auto' changes over to it."
        )
    _say(reason)


def watched() -> bool:
    """Whether something must see torch's own operations."""
    return (
        is_compiling()
        or _len_torch_dispatch_stack() > 0
        or _get_tracing_state() is not None
        or peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def can_look(packed: bool) -> bool:
    """Whether lengths and resets are numbers here, as they are not for compilers and transforms.

    Args:
        packed: whether the lengths are those of a packed sequence, which has no other form.

    Raises:
        BackendError: for a packed sequence inside torch.compile or torch.export.
    """
    if packed and is_compiling():
        raise BackendError(
            "torch.compile(fullgraph=True) and torch.export take packed sequences of layers that a "
            "kernel serves (float32 and float64 on the CPU), and not of those on the eager "
            "backend, where the graph would depend on the lengths. Give a padded tensor with "
            "lengths=… there."
        )
    return packed or not (is_compiling() or _inside_transform())


def can_checkpoint() -> bool:
    """Whether `torch.utils.checkpoint` serves here: not for compilers and transforms."""
    return torch.is_grad_enabled() and not (is_compiling() or _inside_transform())


def run_kernels(
    backend: str,
    program: Program,
    sizes: Mapping[str, int],
    passes: Sequence[cpu.Pass],
    steps: Steps,
    wanted: frozenset[str] | None,
) -> list[Result]:
    """Run passes of a program on the CPU, by the reference, if that is named, or by the kernels."""
    if backend == "reference":
        return [
            reference.run(
                program, sizes, one.inputs, one.states, one.parameters, steps, one.reverse
            )
            for one in passes
        ]
    kernel = cpu.kernel_for(program, passes[0].inputs[0].dtype)
    return kernel.run_together(sizes, passes, steps, threads=threads_at_hand(), wanted=wanted)


def threads_at_hand() -> int:
    """How many threads kernels may run on."""
    return num_threads() or torch.get_num_threads()


def under_autocast(x: Tensor) -> bool:
    """Whether autocast chooses the dtypes of operations on this tensor's device."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _mixed_by_autocast(x: Tensor, other: Tensor) -> str:
    """Where autocast mixes dtypes that is a reason for the eager backend, elsewhere an error."""
    if other.device == x.device and under_autocast(x):
        return f"autocast brings {_kind(x)} together with {_kind(other)}"
    raise InputError(
        f"the input is {_kind(x)}, and a state or parameter of the layer is {_kind(other)}. "
        "Bring them together: layer.to(x), or x.to(…) and state.to(…)."
    )


def _reason_against_kernels(x: Tensor) -> str | None:
    """Why the CPU kernels cannot run; None if they can."""
    if x.dtype not in _DTYPES or x.device.type != "cpu":
        return f"this is {_kind(x)}"
    if forward_ad._current_level >= 0:
        return "this is forward-mode differentiation, and kernels differentiate in reverse"
    if _inside_transform():
        return "this is inside a transform of torch.func, which kernels do not know"
    return None


# A compiler asks once, as it reads the layer, and again where the transforms have changed.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _inside_transform() -> bool:
    return peek_interpreter_stack() is not None


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _say(reason: str) -> None:
    if reason in _said:
        return
    _said.add(reason)
    warnings.warn(
        "Unrolled runs a recurrent layer step by step on torch's own operations (the eager "
        f"backend), which is slow: {reason}. Its kernels serve float32 and float64 on the CPU.",
        stacklevel=2,
    )


def _leave_the_team() -> None:
    """A forked process waits for ever for its parent's OpenMP threads, in torch's operations too.

    So torch computes on one thread there, as it does in the workers of its own `DataLoader`.
    """
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_the_team)
