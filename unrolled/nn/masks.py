"""Masks: the random values of a cell and of what lies between layers, as tensors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..language.equations import Draw
from . import fresh
from .choice import under_autocast
from .direction import Direction
from .source import Source

Masks = Mapping[str, Tensor]  # name of a random value → (B, size), or (T, B, size) of every step


def draw_masks(direction: Direction, like: Tensor, steps: tuple[int, ...], batch: int) -> Masks:
    """Draw the random values of a cell.

    Args:
        direction: of a cell with random values.
        like: a tensor of the dtype and on the device that they get.
        steps: the first axes of what is given at every step: (T, B), or the rows of a packed
            sequence.
        batch: B.
    """
    source, found = Source(like), {}
    for name, draw in direction.cell.draws.items():
        first = steps if draw.every == "step" else (batch,)
        found[name] = source.mask(*_odds(draw), (*first, _size(direction, name)))
    return found


def draw_noise(direction: Direction, x: Tensor, counts: Tensor | None) -> Tensor:
    """Draw the random values of a cell, as `noise_of` gives those that `draw_masks` draws.

    Args:
        direction: of a cell with random values.
        x: (T, B, I), or (rows of all steps, I) of a packed sequence.
        counts: of a packed sequence (T,), how many rows take part at each step.
    """
    source, steps = Source(x), tuple(x.shape[:-1])
    if not source.quick:
        masks = draw_masks(direction, x, steps, _batch(x, counts))
        return noise_of(direction, masks, x, counts)
    sizes = [_size(direction, name) for name in direction.cell.draws]
    noise, column = fresh.empty((*steps, sum(sizes)), x), 0
    for draw, size in zip(direction.cell.draws.values(), sizes, strict=True):
        if draw.every == "step":
            source.write(noise, column, size, *_odds(draw))
        else:
            once = source.mask(*_odds(draw), (_batch(x, counts), size))
            noise[..., column : column + size] = over_steps(once, x, counts)
        column += size
    return noise


def noise_of(direction: Direction, masks: Masks, x: Tensor, counts: Tensor | None) -> Tensor:
    """Masks as a cell is given them: at every step, side by side.

    Args:
        direction: of a cell with random values.
        masks: as `draw_masks` gives them; others may stand among them.
        x: (T, B, I), or (rows of all steps, I) of a packed sequence.
        counts: of a packed sequence (T,), how many rows take part at each step.

    Raises:
        InputError: if one does not fit.
    """
    columns = []
    for name, draw in direction.cell.draws.items():
        every, size = draw.every == "step", _size(direction, name)
        first = tuple(x.shape[:-1]) if every else (_batch(x, counts),)
        mask = fitting(name, masks[name], (*first, size), x)
        columns.append(mask if every else over_steps(mask, x, counts))
    return columns[0].contiguous() if len(columns) == 1 else torch.cat(columns, -1)


def mask_between(x: Tensor, width: int, name: str, mask: Tensor) -> Tensor:
    """A given mask (B, size) or (T, B, size) of what a layer of a batch `x` reads, (T, B, width).

    It is given back at every step.

    Raises:
        InputError: if it does not fit.
    """
    steps = mask.dim() == x.dim()
    found = fitting(name, mask, (*(x.shape[:-1] if steps else x.shape[1:-1]), width), x)
    return found if steps else over_steps(found, x, None)


def fitting(name: str, mask: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A mask of the dtype and on the device of a tensor.

    Raises:
        InputError: if it has another shape, device or (but in autocast) dtype.
    """
    if tuple(mask.shape) == shape and mask.device == like.device:
        if mask.dtype == like.dtype:
            return mask
        if mask.is_floating_point() and under_autocast(like):
            return mask.to(like.dtype)
    raise InputError(
        f"the mask {name} is a tensor {shape}, as the input {like.dtype} on {like.device}; "
        f"found {tuple(mask.shape)}, {mask.dtype} on {mask.device}."
    )


def over_steps(mask: Tensor, x: Tensor, counts: Tensor | None) -> Tensor:
    """A mask (B, size) at every step: shaped as `x`, the first axes of which it takes."""
    if x.dim() == 3:
        return mask.expand(x.shape[0], *mask.shape)
    assert counts is not None  # a packed sequence has them
    return mask.index_select(0, torch.cat([torch.arange(int(n)) for n in counts]).to(mask.device))


def mask_drawn_between(
    x: Tensor, width: int, p: float, every: str, counts: Tensor | None
) -> Tensor:
    """What a layer of a batch `x` reads is multiplied by: drawn at every step, or once for a row.

    Its shape is that of `x`, or (T, B, …) of it, with `width`.
    """
    if every == "step":
        return dropout_mask(p, x, (*x.shape[:-1], width))
    return over_steps(dropout_mask(p, x, (_batch(x, counts), width)), x, counts)


def dropout_mask(p: float, like: Tensor, shape: Sequence[int]) -> Tensor:
    """Zero with probability p and 1/(1 − p) otherwise, of `like`'s dtype and on its device."""
    return Source(like).mask(*_dropping(p), shape)


def _batch(x: Tensor, counts: Tensor | None) -> int:
    if x.dim() == 3:
        return x.shape[1]
    return int(counts[0]) if counts is not None and len(counts) else 0


def _size(direction: Direction, name: str) -> int:
    return direction.sizes[direction.cell.sizes.values[name]]


def _odds(draw: Draw) -> tuple[float, float]:
    """With which probability a random value is not zero, and what it is then."""
    return (draw.p, 1.0) if draw.distribution == "bernoulli" else _dropping(draw.p)


def _dropping(p: float) -> tuple[float, float]:
    return 1 - p, 1 / (1 - p) if p < 1 else 1.0
