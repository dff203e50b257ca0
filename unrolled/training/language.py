"""The training loop of a language model: truncated BPTT from window to window of a text.

The loop knows no display: `LanguageTrainer.run` yields events, and whoever takes them shows
them. Everything it stands on at a window's border is in the checkpoint `last`, so that a run
which goes on from there does what one that was never interrupted does, bit for bit.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.batches import parallel_streams
from ..data.vocabulary import Tokens
from ..errors import UnrolledError
from ..models.language_model import LanguageModel, State, detach
from .checkpoint import (
    RunFolder,
    below_prefix,
    load_model_tensors,
    load_optimizer_tensors,
    model_tensors,
    optimizer_tensors,
    with_prefix,
)
from .optimisation import WeightAverage, make_optimizer, set_rate
from .schedule import Budget, LearningRate

_EVALUATIONS = 12  # in a budget of minutes
_CONTEXT = 256  # tokens read before each stretch that is scored
_CHUNK = 256  # steps at a time in evaluation


class TrainingError(UnrolledError):
    """Training cannot go on."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Args:
        budget: When training ends.
        batch_size: Parallel streams, B.
        window: Steps of truncated BPTT, T.
        optimizer: `"adam"` or `"sgd"`.
        learning_rate: Peak and warm-up.
        weight_decay: See `make_optimizer`.
        clip: The gradient of all weights together is scaled down to this norm (Pascanu et al.
            2013).
        average: Decay of the averaged weights, which are the ones that are evaluated and kept.
        checkpoint_seconds: Longest time between two checkpoints `last`.
    """

    budget: Budget
    batch_size: int
    window: int
    optimizer: str
    learning_rate: LearningRate
    weight_decay: float
    clip: float
    average: float
    checkpoint_seconds: float = 30.0


@dataclass(frozen=True)
class StepDone:
    """One window was trained on.

    Args:
        step: Windows so far.
        epoch: Passes over the training part so far, with the part of the current one.
        used: Share of the budget used up.
        seconds: Time trained so far, over all sessions of the run.
        seconds_left: An estimate.
        loss: Training loss, nats per token, averaged over the last windows.
        tokens_per_second: In this session, evaluation included.
    """

    step: int
    epoch: float
    used: float
    seconds: float
    seconds_left: float
    loss: float
    tokens_per_second: float


@dataclass(frozen=True)
class Evaluated:
    """The averaged weights were scored on the held-out part.

    Args:
        step: Windows so far.
        epoch: Passes over the training part so far.
        seconds: Time trained so far, over all sessions of the run.
        training: Training loss, nats per token, averaged over the last windows.
        held_out: Held-out loss, nats per token.
        best: Whether it is the lowest so far, and was saved as the checkpoint `best`.
    """

    step: int
    epoch: float
    seconds: float
    training: float
    held_out: float
    best: bool


Event = StepDone | Evaluated


@dataclass
class _Progress:
    """The numbers that a checkpoint carries beside the tensors."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


class LanguageTrainer:
    """Trains a language model in a run folder.

    Args:
        model: The model; on resuming, its weights are replaced.
        training: Tokens of the training part, shape (N,).
        held_out: Tokens of the held-out part, which follows the training part.
        settings: How to train.
        folder: Where the checkpoints go; if it has a checkpoint `last`, training goes on there.
        seconds: Time that was spent before and counts into a budget of minutes.

    Raises:
        TextError: The training part is too short for the batch.
        CheckpointError: The checkpoint `last` is damaged or does not fit.
    """

    def __init__(
        self,
        model: LanguageModel,
        training: Tokens,
        held_out: Tokens,
        settings: TrainingSettings,
        folder: RunFolder,
        seconds: float = 0.0,
    ) -> None:
        self.model = model
        self.settings = settings
        self.folder = folder
        self.streams = parallel_streams(training, settings.batch_size)
        self.optimizer = make_optimizer(settings.optimizer, model, settings.weight_decay)
        self.average = WeightAverage(model, settings.average)
        self.progress = _Progress(seconds=seconds)
        self.state: State | None = None
        self._text = torch.cat([torch.from_numpy(training), torch.from_numpy(held_out)])
        self._held_out_from = len(training)
        self._stopped = False
        self._trained = 0  # tokens of this session
        self._evaluation_seconds = 0.0
        if folder.has("last"):
            self._restore()

    @property
    def history(self) -> list[dict[str, Any]]:
        """The evaluations so far, oldest first, as the fields of `Evaluated`."""
        return self.progress.history

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        return self._used() >= 1

    def stop(self) -> None:
        """Asks the loop to save a checkpoint and end after the current window."""
        self._stopped = True

    def run(self) -> Iterator[Event]:
        """Trains until the budget is used up or `stop` is called; saves as it goes.

        Raises:
            TrainingError: The loss is no longer a finite number.
            CheckpointError: The run folder cannot be written.
        """
        self._began = time.perf_counter() - self.progress.seconds
        self._began_at = self.progress.seconds
        saved = self._now()
        if self.progress.step == 0:
            self._save()
        while not self._stopped and self._used() < 1 - self._reserve():
            epoch = self.progress.epoch
            yield self._step()
            if self._evaluation_due(self.progress.epoch > epoch):
                evaluated = self._evaluate()
                self._save()
                saved = self._now()
                yield evaluated
            elif self._now() - saved >= self.settings.checkpoint_seconds:
                self._save()
                saved = self._now()
        if not self._stopped and not self._evaluated_now():
            yield self._evaluate()
        self._save()

    def _step(self) -> StepDone:
        progress, settings = self.progress, self.settings
        set_rate(self.optimizer, settings.learning_rate.at(self._used()))
        inputs, targets = self.streams.window(progress.position, settings.window)
        loss = self._learn(inputs, targets)
        smoothing = min(0.98, progress.step / (progress.step + 1))
        progress.loss = smoothing * progress.loss + (1 - smoothing) * loss
        self.average.update(progress.step)
        progress.step += 1
        progress.position += settings.window
        if progress.position >= self.streams.length:
            progress.epoch, progress.position, self.state = progress.epoch + 1, 0, None
        progress.seconds = self._now()
        self._trained += inputs.numel()
        return self._step_done()

    def _learn(self, inputs: Tensor, targets: Tensor) -> float:
        self.model.train()
        logits, state = self.model(inputs, self.state)
        self.state = detach(state)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        value = loss.item()
        if not isfinite(value):
            raise TrainingError(
                f"The loss is {value} at step {self.progress.step}, so training cannot go on; "
                "begin a new run with a lower --learning-rate."
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        return value

    def _evaluate(self) -> Evaluated:
        progress = self.progress
        began = time.perf_counter()
        with self.average.in_use():
            held_out = mean_loss(self.model, self._text, self._held_out_from)
        best = progress.best is None or held_out < progress.best
        progress.seconds = self._now()
        event = Evaluated(
            progress.step, self._epochs(), progress.seconds, progress.loss, held_out, best
        )
        progress.history.append(asdict(event))
        if best:
            progress.best = held_out
            weights = model_tensors(self.model) | self.average.weights
            self.folder.write("best", with_prefix("model", weights), {"held_out": held_out})
        self.folder.write_json("history.json", progress.history)
        self._evaluation_seconds = time.perf_counter() - began
        return event

    def _evaluation_due(self, epoch_ended: bool) -> bool:
        minutes = self.settings.budget.minutes
        if minutes is None:
            return epoch_ended
        last = self.history[-1]["seconds"] if self.history else self._began_at
        rest = max(60 * minutes / _EVALUATIONS, 10 * self._evaluation_seconds)
        return self.progress.seconds - last >= rest

    def _evaluated_now(self) -> bool:
        return bool(self.history) and self.history[-1]["step"] == self.progress.step

    def _reserve(self) -> float:
        """The share of a budget of minutes that the evaluation at the end will take."""
        minutes = self.settings.budget.minutes
        return 0.0 if minutes is None else 1.2 * self._evaluation_seconds / (60 * minutes)

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _epochs(self) -> float:
        return self.progress.epoch + self.progress.position / self.streams.length

    def _used(self) -> float:
        return self.settings.budget.used(self.progress.seconds, self._epochs())

    def _step_done(self) -> StepDone:
        progress, used = self.progress, self._used()
        session = progress.seconds - self._began_at
        return StepDone(
            step=progress.step,
            epoch=self._epochs(),
            used=min(used, 1.0),
            seconds=progress.seconds,
            seconds_left=max(progress.seconds * (1 - used) / max(used, 1e-9), 0.0),
            loss=progress.loss,
            tokens_per_second=self._trained / max(session, 1e-9),
        )

    def _save(self) -> None:
        state = () if self.state is None else self.state
        parts = (state,) if isinstance(state, Tensor) else state
        tensors = {
            **with_prefix("model", model_tensors(self.model)),
            **with_prefix("average", self.average.weights),
            **with_prefix("optimizer", optimizer_tensors(self.optimizer)),
            **with_prefix("state", {str(number): part for number, part in enumerate(parts)}),
            "rng": torch.get_rng_state(),
        }
        self.folder.write("last", tensors, asdict(self.progress))

    def _restore(self) -> None:
        tensors, facts = self.folder.read("last")
        load_model_tensors(self.model, below_prefix("model", tensors))
        for name, weight in below_prefix("average", tensors).items():
            self.average.weights[name].copy_(weight)
        load_optimizer_tensors(self.optimizer, below_prefix("optimizer", tensors))
        state = below_prefix("state", tensors)
        parts = tuple(state[str(number)] for number in range(len(state)))
        self.state = None if not parts else parts[0] if len(parts) == 1 else parts
        torch.set_rng_state(tensors["rng"])
        earlier = self.progress.seconds
        self.progress = _Progress(**facts)
        self.progress.seconds += earlier


@torch.no_grad()
def mean_loss(model: LanguageModel, tokens: Tensor, start: int) -> float:
    """Mean loss, in nats per token, of predicting each token from `start` on.

    For speed the tokens are scored in parallel stretches; each is read from 256 tokens before
    its start, so that the state has settled where scoring begins.

    Args:
        model: The model.
        tokens: The text so far and what is scored, shape (N,).
        start: Place of the first token that is scored, at least 1.
    """
    count = len(tokens) - start
    stretches = max(1, min(64, count // 1000))
    length = -(-count // stretches)
    context = min(_CONTEXT, start - 1)
    steps = torch.arange(-context - 1, length - 1)[:, None]
    places = start + length * torch.arange(stretches) + steps
    scored = (steps >= -1) & (places + 1 < len(tokens))
    targets = tokens[(places + 1).clamp(max=len(tokens) - 1)]
    inputs = tokens[places.clamp(max=len(tokens) - 1)]
    training = model.training
    model.eval()
    total, state = 0.0, None
    for first in range(0, len(steps), _CHUNK):
        part = slice(first, first + _CHUNK)
        logits, state = model(inputs[part], state)
        losses = F.cross_entropy(logits.flatten(0, 1), targets[part].flatten(), reduction="none")
        total += losses.double()[scored[part].flatten()].sum().item()
    model.train(training)
    return total / count
