"""Ragged rows whose lengths cannot be looked at: in transforms of torch.func and compilers' graphs.

Where a row ends is no number there, so nothing is packed: each step runs for all rows, and what a
row has no use for is not selected.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# (what a step is given, group by group; states; (B,) the number of the step) → outputs, states
Step = Callable[[list[Tensor], Sequence[Tensor], Tensor], tuple[Sequence[Tensor], Sequence[Tensor]]]


def unroll_unpacked(
    step: Step,
    given: Sequence[Tensor],
    states: Sequence[Tensor],
    counts: Tensor | None,
    resets: Tensor | None,
    anew: Sequence[Tensor],
    reverse: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Run all steps, each for all rows.

    Args:
        step: runs one step.
        given: what the steps are given, each (T, B, size), the input first.
        states: the initial states, each (B, size).
        counts: (B,) how many steps of each row count, taken as 0 below 0 and as T above T; all if
            None.
        resets: (T, B) the rows that start anew before each step, bool; none if None.
        anew: the states (size,) that they then start with; none: zeros.
        reverse: whether the rows are read from their end.

    Returns:
        The outputs, each (T, B, size), zero where a row has ended, and the last states; no outputs
        where there is no step.
    """
    x = given[0]
    length, batch = x.shape[:2]
    there = torch.ones(length, batch, dtype=torch.bool, device=x.device)
    if counts is not None:
        there = torch.arange(length, device=x.device)[:, None] < counts.to(x.device)
    begins = torch.zeros_like(there) if resets is None else resets & there
    if reverse:  # what lies before step t + 1 lies, in this order of reading, before step t
        begins = torch.cat([begins[1:], torch.zeros_like(begins[:1])])
    # Padding may be NaN, which even a gradient of zero would not outlive.
    given = [torch.where(there[..., None], group, 0.0) for group in given]
    fresh = anew or [state.new_zeros(()) for state in states]
    carried, number = list(states), x.new_zeros(batch)
    series: list[Sequence[Tensor]] = []
    for t in reversed(range(length)) if reverse else range(length):
        new, here = begins[t][:, None], there[t][:, None]
        entering = [
            torch.where(new, start, state) for start, state in zip(fresh, carried, strict=True)
        ]
        number = torch.where(begins[t], 0.0, number) + there[t]
        outputs, leaving = step([group[t] for group in given], entering, number)
        carried = [
            torch.where(here, after, before)
            for after, before in zip(leaving, carried, strict=True)
        ]  # fmt: skip
        series.append([torch.where(here, output, 0.0) for output in outputs])
    if reverse:
        series.reverse()
    return [torch.stack(parts) for parts in zip(*series, strict=True)], carried
