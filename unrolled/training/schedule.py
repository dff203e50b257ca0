"""How long to train, and with what learning rate at each moment.

The rate follows the share of the budget that is used up, so it comes down to its end exactly
when training does, whether the budget is a time or a number of epochs.
"""

from dataclasses import dataclass
from math import cos, inf, pi

from ..errors import InputError


@dataclass(frozen=True)
class Budget:
    """When training ends: after some minutes or after some epochs, exactly one of the two.

    Args:
        minutes: Wall-clock time of training, summed over its interruptions.
        epochs: Passes over the training part.

    Raises:
        InputError: None or both are given, or what is given is not positive.
    """

    minutes: float | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.epochs is None):
            raise InputError("Give a budget either in minutes or in epochs.")
        if self.minutes is not None and not 0 < self.minutes < inf:
            raise InputError(f"The minutes must be more than 0, not {self.minutes}.")
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"The epochs must be at least 1, not {self.epochs}.")

    def used(self, seconds: float, epochs: float) -> float:
        """The share that is used up, at least 0; training ends at 1.

        Args:
            seconds: Time trained so far.
            epochs: Passes over the training part so far, with the part of the current one.
        """
        if self.minutes is not None:
            return seconds / (60 * self.minutes)
        assert self.epochs is not None
        return epochs / self.epochs


@dataclass(frozen=True)
class LearningRate:
    """A linear rise to the peak, then half a cosine down to nothing (Loshchilov & Hutter 2017).

    Args:
        peak: The highest rate.
        warmup: The share of the budget in which the rate rises.
    """

    peak: float
    warmup: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.peak < inf:
            raise InputError(f"The learning rate must be more than 0, not {self.peak}.")

    def at(self, used: float) -> float:
        """The rate when the given share of the budget is used up."""
        if used < self.warmup:
            return self.peak * max(used / self.warmup, 0.01)
        progress = min((used - self.warmup) / (1 - self.warmup), 1.0)
        return self.peak * (1 + cos(pi * progress)) / 2
