"""From a model's predictions to sequences."""

from .sampling import next_token_probabilities, sample

__all__ = ["next_token_probabilities", "sample"]
