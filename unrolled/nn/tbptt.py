"""Truncated backpropagation through time: a long stream in windows, for any of our layers.

Every k1 steps, BPTT runs back over k2 steps (Williams & Peng 1990, "An efficient gradient-based
algorithm for on-line training of recurrent network trajectories"; Sutskever 2013, "Training
recurrent neural networks", section 2.8.6):

    k1 == k2   cut the stream in pieces; the state is carried on, and the gradient is not
    k1 <  k2   windows overlap: every new step has k2 − k1 steps or more to reach back over
    k1 >  k2   the first k1 − k2 steps of a window run without gradient
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError
from ..program import STEP_NUMBER
from .checks import State, counts_of, reads_step_number
from .layers import Layers
from .masks import Masks

Chunk = Tensor | tuple[Tensor, ...]
Stream = Chunk | Iterable[Chunk]


def tbptt(
    stream: Stream,
    k1: int,
    k2: int | None = None,
    *,
    batch_first: bool = False,
    states: Mapping[Layers, State] | None = None,
) -> Iterator["Window"]:
    """Cut a stream into windows, over which layers run from the state carried so far.

        for window in tbptt((inputs, targets), k1=20, k2=50):
            x, target = window.data
            y = window.run(layer, x)
            loss = criterion(window.new(y), window.new(target))
            loss.backward()
            ...

    Args:
        stream: a tensor (T, B, …), or (T, …) for one sequence; or a tuple of such tensors, which
            are cut alike; or anything else that yields the one or the other in chunks of any
            lengths, such as a list or a generator, which may be endless: what lies before a window
            is not held.
        k1: the new steps of each window. The last window may have fewer.
        k2: the steps that a gradient reaches back from the window's end; `k1` if None.
        batch_first: whether the tensors are (B, T, …).
        states: layer → its state before the first step, where that is not the layer's own. No
            gradient is cut off from it.

    Yields:
        The windows, in order; each must be run before the next is asked for.

    Raises:
        InputError: if an argument does not fit, or chunks are no tensors of one length.
    """
    k2 = k1 if k2 is None else k2
    for name, steps in (("k1", k1), ("k2", k2)):
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"{name} is a number of steps, 1 or more; found {steps!r}.")
    if states is not None and not isinstance(states, Mapping):
        raise InputError(
            f"states are given by layer, {{layer: state}}; found {type(states).__name__}."
        )
    return _windows(_Steps(_chunks(stream), int(batch_first)), k1, k2, _States(states or {}))


def _chunks(stream: Stream) -> Iterator[Chunk]:
    if isinstance(stream, Tensor):
        return iter([stream])
    if isinstance(stream, tuple) and all(isinstance(part, Tensor) for part in stream):
        return iter([stream])
    if isinstance(stream, PackedSequence) or not isinstance(stream, Iterable):
        raise InputError(
            f"a stream is a tensor, a tuple of tensors, or yields such chunks; found "
            f"{type(stream).__name__}."
        )
    return iter(stream)


def _windows(steps: "_Steps", k1: int, k2: int, states: "_States") -> Iterator["Window"]:
    new, overlap = 0, max(k2 - k1, 0)
    while (stop := min(steps.pulled(new + k1), new + k1)) > new:
        start, following = max(0, new - overlap), max(0, new + k1 - overlap)
        cut = max(0, stop - new - k2)
        yield Window(steps, states, (start, new, stop, following), cut)
        new += k1
        steps.drop(following)


class Window:
    """Some steps of a stream, the last of which are new; see `tbptt`.

    Attributes:
        data: the steps `start` to `stop` of the stream: a tensor, or a tuple of tensors.
        start: the place of the window's first step in the stream, from 0.
        stop: the place behind its last step.
    """

    data: Chunk
    start: int
    stop: int

    def __init__(
        self, steps: "_Steps", states: "_States", places: tuple[int, int, int, int], cut: int
    ) -> None:
        self.start, self._new, self.stop, self._following = places
        self._steps, self._states, self._cut = steps, states, cut
        self.data = steps.between(self.start, self.stop)

    @property
    def last(self) -> bool:
        """Whether the stream ends here; where it comes in chunks, asking draws the next one."""
        return self._steps.pulled(self.stop + 1) == self.stop

    def new(self, tensor: Tensor) -> Tensor:
        """What of a tensor with the window's steps, such as an output, belongs to its new ones.

        Raises:
            InputError: if it has another number of steps.
        """
        axis = self._axis(tensor)
        if self._new == self.start:  # all of it, and autograd is spared a node
            return tensor
        return tensor.narrow(axis, self._new - self.start, self.stop - self._new)

    def run(
        self,
        layer: Layers,
        x: Tensor | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | None = None,
        masks: Sequence[Masks] | None = None,
    ) -> Tensor:
        """Run a layer over the window, from the state that it had where the window starts.

        That state is detached, save before the first step of the stream. What a layer draws in
        training it draws anew at each call: a window with steps that run without gradient makes
        two. Run again over the same window, a layer starts from the same state again, and its
        last run counts.

        Args:
            layer: any layer that reads onwards. Each has a state of its own.
            x: its input over the window's steps; if None `data`, or the first tensor of it.
            lengths: (B,) how many steps of each row of the whole stream count, as in the layer's
                `forward`; all if None.
            resets: the rows of this window that start anew before each step, as in the layer's
                `forward`. Resets of a stream are best among its tensors, to be cut with them.
            masks: all that is random in this window, as the layer's `draw_masks` gives it.

        Returns:
            The outputs at all steps of the window, shaped as the layer gives them; `new` has those
            that a loss is for.

        Raises:
            InputError: if the layer reads from the end, counts the steps or did not run over the
                window before, or if a shape does not fit.
        """
        x = self._input(x)
        self._check(layer, x)
        if resets is not None:
            self._axis(resets)
        counts = _left(lengths, x, self._steps.axis, self.start)
        given = _Given(layer, x, counts, resets, masks)
        state, steps = self._states.entering(layer, self.start), self.stop - self.start
        if self._cut:
            with torch.no_grad():
                y, state, _ = given.run(0, self._cut, state)
            tail, last, _ = given.run(self._cut, steps, state)
            y = torch.cat([y, tail], given.axis)
        else:
            place = self._following - self.start
            y, last, following = given.run(0, steps, state, place if 0 < place < steps else None)
            if following is not None:
                self._states.keep(layer, self._following, following)
        self._states.keep(layer, self.stop, last)
        return y

    def state(self, layer: Layers) -> State:
        """The state of a layer after the window's last step, detached.

        Raises:
            InputError: if the layer did not run over this window, or a later one ran since.
        """
        return self._states.at(layer, self.stop)

    def _input(self, x: Tensor | None) -> Tensor:
        if x is None:
            return self.data if isinstance(self.data, Tensor) else self.data[0]
        self._axis(x)
        return x

    def _axis(self, tensor: Tensor) -> int:
        """The axis of the steps."""
        steps, axis = self.stop - self.start, self._steps.axis
        found = tensor.shape if isinstance(tensor, Tensor) else None
        if found is None or len(found) <= axis or found[axis] != steps:
            raise InputError(
                f"this window has {steps} steps, along axis {axis}; found "
                f"{type(tensor).__name__ if found is None else f'a tensor {tuple(found)}'}."
            )
        return axis

    def _check(self, layer: Layers, x: Tensor) -> None:
        if not isinstance(layer, Layers):
            raise InputError(
                f"a window runs the layers of unrolled.nn; found {type(layer).__name__}."
            )
        if layer.bidirectional:
            raise InputError(
                "a bidirectional layer reads a stream from its end too, which no window but the "
                "last one has seen; run it over each window by itself, layer(window.data), or take "
                "a layer that reads onwards."
            )
        if reads_step_number(layer.cell):
            raise InputError(
                f"cell '{layer.cell.name}' reads the number of the step, {STEP_NUMBER}, which "
                "starts from 1 in every window; make it an input of the cell."
            )
        axis = _axis_of_steps(layer, x)
        if axis != self._steps.axis:
            raise InputError(
                f"the layer reads the steps of an input {tuple(x.shape)} along axis {axis}, and "
                f"windows are cut along axis {self._steps.axis}; give both the same batch_first."
            )


class _Given:
    """What a layer reads in one window, to be run in one part or two."""

    def __init__(
        self,
        layer: Layers,
        x: Tensor,
        counts: Tensor | None,
        resets: Tensor | None,
        masks: Sequence[Masks] | None,
    ) -> None:
        self.layer, self.x, self.counts, self.resets, self.masks = layer, x, counts, resets, masks
        self.axis = _axis_of_steps(layer, x)

    def run(
        self, start: int, stop: int, state: State | None, place: int | None = None
    ) -> tuple[Tensor, State, State | None]:
        """Outputs, the last state and, if `place` is one, the state after so many steps."""
        counts = self.counts
        if counts is not None:
            counts = (counts - start).clamp(max=stop - start)
            counts = counts.clamp(min=0) if start else counts
        y, last, *every = self.layer(
            _cut(self.x, self.axis, start, stop),
            state,
            counts,
            None if self.resets is None else _cut(self.resets, self.axis, start, stop),
            masks=self._masks(start, stop),
            return_all=place is not None,
        )
        if place is None:
            return y, last, None
        parts = zip(_several(last), _several(every[0]), strict=True)
        found = tuple(self._after(place, *part, counts) for part in parts)
        return y, last, found if isinstance(last, tuple) else found[0]

    def _masks(self, start: int, stop: int) -> Sequence[Masks] | None:
        """The masks of some steps; what is drawn once for a sequence has no axis of steps."""
        steps = self.x.shape[self.axis]
        if self.masks is None or stop - start == steps:
            return self.masks
        self.layer.check_masks(self.masks)

        def cut(mask: Tensor) -> Tensor:
            # What does not fit the window goes on as it is, to be refused by the layer.
            at_every_step = mask.dim() == 3 and len(mask) == steps
            return _cut(mask, 0, start, stop) if at_every_step else mask

        return [{name: cut(mask) for name, mask in one.items()} for one in self.masks]

    def _after(self, place: int, last: Tensor, every: Tensor, counts: Tensor | None) -> Tensor:
        """The state after `place` steps: of rows that have ended before, their last."""
        there = every.select(1 + self.axis, place - 1)
        if counts is None:
            return there
        return torch.where((counts >= place).to(there.device)[:, None], there, last)


def _cut(tensor: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """Some steps of a tensor; the tensor itself if that is all."""
    steps = stop - start
    return tensor if steps == tensor.shape[axis] else tensor.narrow(axis, start, steps)


def _axis_of_steps(layer: Layers, x: Tensor) -> int:
    return int(layer.batch_first and x.dim() == 3)


def _left(
    lengths: Tensor | Sequence[int] | None, x: Tensor, axis: int, start: int
) -> Tensor | None:
    """How many steps of each row come from a place on."""
    if lengths is None:
        return None
    counts = counts_of(lengths, x.shape[1 - axis] if x.dim() == 3 else 1)
    return (counts - start).clamp(min=0) if start else counts  # a layer refuses what is below 0


class _States:
    """The states of each layer at the places where a window starts or has ended."""

    def __init__(self, given: Mapping[Layers, State]) -> None:
        self._kept: dict[Layers, dict[int, State]] = {
            layer: {0: state} for layer, state in given.items()
        }

    def entering(self, layer: Layers, place: int) -> State | None:
        """The state before a step; None is the layer's own first state."""
        kept = self._kept.setdefault(layer, {})
        state = self.at(layer, place) if place else kept.get(0)
        for earlier in [at for at in kept if at < place]:  # no window begins there any more
            del kept[earlier]
        return state

    def at(self, layer: Layers, place: int) -> State:
        kept = self._kept.get(layer, {})
        if place in kept:
            return kept[place]
        raise InputError(
            f"the state of the layer before step {place} (the first is 0) is not known; run each "
            "layer over every window, in order, and ask for the state of the last one only."
        )

    def keep(self, layer: Layers, place: int, state: State) -> None:
        self._kept[layer][place] = (
            tuple([part.detach() for part in state]) if isinstance(state, tuple) else state.detach()
        )


class _Steps:
    """The steps of a stream that are at hand."""

    def __init__(self, chunks: Iterator[Chunk], axis: int) -> None:
        self.axis = axis
        self._chunks = chunks
        self._tensors: tuple[Tensor, ...] = ()
        self._count: int | None = None  # tensors in the tuples that come; 0: tensors, no tuples
        self._first = 0
        self._needed = 0
        self._end = 0

    def pulled(self, wanted: int) -> int:
        """Draw chunks until so many steps have come, if there are so many; how many have."""
        if self._end >= wanted:
            return self._end
        drawn, left = [], self._end - self._needed
        while self._end < wanted and (chunk := next(self._chunks, None)) is not None:
            parts = self._parts(chunk)
            self._end += parts[0].shape[self.axis]
            drawn.append(parts)
        if drawn:
            several = drawn if left <= 0 else [self._left(left), *drawn]
            self._first = self._end - sum(parts[0].shape[self.axis] for parts in several)
            self._tensors = (
                several[0]
                if len(several) == 1
                else tuple(torch.cat(parts, self.axis) for parts in zip(*several, strict=True))
            )
        return self._end

    def _left(self, steps: int) -> tuple[Tensor, ...]:
        """The last steps at hand."""
        return tuple(
            _cut(tensor, self.axis, tensor.shape[self.axis] - steps, tensor.shape[self.axis])
            for tensor in self._tensors
        )

    def between(self, start: int, stop: int) -> Chunk:
        first, axis = self._first, self.axis
        if not self._count:
            return _cut(self._tensors[0], axis, start - first, stop - first)
        return tuple(_cut(tensor, axis, start - first, stop - first) for tensor in self._tensors)

    def drop(self, before: int) -> None:
        """Say that the steps before a place are not needed any more; new chunks displace them."""
        self._needed = before

    def _parts(self, chunk: Chunk) -> tuple[Tensor, ...]:
        parts = (chunk,) if isinstance(chunk, Tensor) else chunk
        count = 0 if isinstance(chunk, Tensor) else len(chunk) if isinstance(chunk, tuple) else -1
        if (
            not isinstance(parts, tuple)
            or not parts
            or count != (count if self._count is None else self._count)
            or not all(isinstance(one, Tensor) and one.dim() > self.axis for one in parts)
            or len({one.shape[self.axis] for one in parts}) > 1
        ):
            raise InputError(
                "a stream is a tensor, a tuple of tensors with the same number of steps, or yields "
                f"such chunks, one like the other; found {_described(chunk)}."
            )
        self._count = count
        return parts


def _described(chunk: object) -> str:
    if isinstance(chunk, tuple):
        return f"({', '.join(map(_described, chunk))})"
    return f"{tuple(chunk.shape)}" if isinstance(chunk, Tensor) else type(chunk).__name__


def _several(state: State) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)
