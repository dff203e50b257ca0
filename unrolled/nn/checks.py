"""What the arguments of a layer must be; each function says in a sentence what is not."""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from ..cell import Cell
from ..errors import InputError
from ..language.equations import Every

State = Tensor | tuple[Tensor, ...]


def check_arguments(cell: Cell, num_layers: int, dropout: float, every: str) -> None:
    """Refuse what no stack of layers can be made of.

    Raises:
        InputError: if an argument does not fit.
    """
    if not isinstance(cell, Cell):
        raise InputError(
            f"the first argument is a cell, such as unrolled.cells.lstm; found {cell!r}."
        )
    if isinstance(num_layers, bool) or not isinstance(num_layers, int) or num_layers < 1:
        raise InputError(f"num_layers is {num_layers!r}; a network has one layer or more.")
    check_probability("dropout", dropout)
    if every not in get_args(Every):
        raise InputError(f"dropout_every is 'step' or 'sequence'; found {every!r}.")


def check_probability(name: str, p: float) -> None:
    """Refuse what is no probability.

    Raises:
        InputError: if it is none.
    """
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise InputError(f"{name} is {p!r}; it is a probability, from 0 to 1.")


def counts_of(lengths: Tensor | Sequence[int], batch: int) -> Tensor:
    """Lengths as int64 on the CPU; that they fit is seen where their values are.

    Raises:
        InputError: if they are not one whole number for each row.
    """
    try:
        counts = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"lengths are whole numbers, one for each of the {batch} rows; found {lengths!r}."
        ) from None
    whole = not counts.is_floating_point() and not counts.is_complex()
    if tuple(counts.shape) != (batch,) or not (whole or batch == 0) or counts.dtype == torch.bool:
        raise InputError(
            f"lengths are whole numbers, one for each of the {batch} rows; found "
            f"{counts.dtype} of shape {tuple(counts.shape)}."
        )
    return counts.to("cpu", torch.int64)


def check_input(x: object, input_size: int, batch_first: bool) -> None:
    """Refuse what is no sequence.

    Raises:
        InputError: if it is no tensor (T, B, I) or (T, I).
    """
    if not isinstance(x, Tensor) or x.dim() not in (2, 3):
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        shape = "(B, T, I)" if batch_first else "(T, B, I)"
        raise InputError(
            f"the input is a tensor {shape}, or (T, I) for one sequence, or a "
            f"PackedSequence; found {found}."
        )
    if x.shape[-1] != input_size:
        raise InputError(
            f"this layer has input_size {input_size}; the input of shape "
            f"{tuple(x.shape)} has {x.shape[-1]} values at each step."
        )
    if x.layout is not torch.strided:
        raise InputError(f"the input is a dense tensor; found {x.layout}: x.to_dense().")


def begins_of(resets: Tensor, x: Tensor, alone: bool, batch_first: bool) -> Tensor:
    """Resets as (T, B).

    Args:
        resets: as `Layers.forward` takes them.
        x: (T, B, I).
        alone: whether they are given for one sequence.
        batch_first: whether they are given as (B, T).

    Raises:
        InputError: if they do not fit.
    """
    length, batch = x.shape[:2]
    expected = (length,) if alone else (batch, length) if batch_first else (length, batch)
    if (
        not isinstance(resets, Tensor)
        or resets.dtype != torch.bool
        or tuple(resets.shape) != expected
    ):
        found = getattr(resets, "dtype", type(resets).__name__)
        raise InputError(
            f"resets are a tensor of bool of shape {expected}; found {found} of shape "
            f"{tuple(getattr(resets, 'shape', ()))}."
        )
    return resets.t() if batch_first and not alone else resets.reshape(length, batch)


def states_of(
    cell: Cell, sizes: Sequence[int], count: int, state: State, batch: int, alone: bool
) -> list[Tensor]:
    """An initial state as one tensor (layers · directions, B, size) for each of the cell's.

    Args:
        cell: the equations.
        sizes: of its states.
        count: layers · directions.
        state: as `Layers.forward` takes it.
        batch: B.
        alone: whether it is given for one sequence, without B.

    Raises:
        InputError: if it does not fit.
    """
    names = cell.states
    if not isinstance(state, Tensor | tuple | list):
        raise InputError(
            f"a state is {'a tensor' if len(names) == 1 else 'a tuple of tensors'} "
            f"({', '.join(names)}) for cell '{cell.name}'; found {type(state).__name__}."
        )
    parts = [state] if isinstance(state, Tensor) else list(state)
    if len(parts) != len(names):
        raise InputError(
            f"cell '{cell.name}' has {len(names)} "
            f"state{'s' * (len(names) != 1)} ({', '.join(names)}); {len(parts)} "
            f"{'was' if len(parts) == 1 else 'were'} given."
        )
    for name, part, size in zip(names, parts, sizes, strict=True):
        if not isinstance(part, Tensor):
            raise InputError(f"the initial state {name} is a tensor; found {type(part).__name__}.")
        expected = (count, size) if alone else (count, batch, size)
        if tuple(part.shape) != expected:
            raise InputError(
                f"the initial state {name} has shape {tuple(part.shape)}; expected "
                f"{expected}: (layers · directions, {'' if alone else 'batch, '}size)."
            )
    return [part.unsqueeze(1) for part in parts] if alone else parts


def check_one_step(x: object, input_size: int) -> None:
    """Refuse what is not the input of one step.

    Raises:
        InputError: if it is no tensor (B, I) or (I,).
    """
    if not isinstance(x, Tensor) or x.dim() not in (1, 2):
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(
            f"a step takes a tensor (B, I), or (I,) for one sequence; found {found}. "
            "layer(x) takes whole sequences."
        )
    if x.shape[-1] != input_size:
        raise InputError(
            f"this layer has input_size {input_size}; the input of shape {tuple(x.shape)} has "
            f"{x.shape[-1]} values."
        )


def check_streams(cell: Cell, bidirectional: bool) -> None:
    """Refuse to go step by step where a step does not follow from the one before.

    Args:
        cell: the equations.
        bidirectional: whether a direction reads the sequence from its end.

    Raises:
        InputError: if it does, or the equations read the number of the step.
    """
    if bidirectional:
        raise InputError(
            "a bidirectional layer cannot go step by step: its second direction begins at the last "
            "step of a sequence, which a stream has not reached yet. Call layer(x) on whole "
            "sequences, or make the layer with bidirectional=False."
        )
    if reads_step_number(cell):
        raise InputError(
            f"the equations of cell '{cell.name}' read the number of the step, t, which no state "
            "carries, so each step would take itself for the first. Call layer(x) on whole "
            "sequences, or give the cell a state that counts: n = n_prev + 1."
        )


def reads_step_number(cell: Cell) -> bool:
    """Whether the equations read `t`."""
    return cell.program.reads_step_number


def check_nothing_random(cell: Cell, drawn: bool, dropout: bool, weight_dropout: bool) -> None:
    """Refuse to go step by step in training what is drawn for a whole sequence.

    Args:
        cell: the equations.
        drawn: whether they have random values.
        dropout: whether something is dropped between layers.
        weight_dropout: whether something is dropped of the weights.

    Raises:
        InputError: if there is such a thing.
    """
    what = (
        f"cell '{cell.name}' has random values, which are"
        if drawn
        else "this layer has dropout between its layers, which is"
        if dropout
        else "this layer has weight dropout, which is"
        if weight_dropout
        else None
    )
    if what:
        raise InputError(
            f"{what} drawn for a whole sequence in training mode; single steps would draw it anew. "
            "Call layer.eval() before streaming, or layer(x) on whole sequences to train."
        )
