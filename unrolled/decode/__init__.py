"""From a model's predictions to sequences."""

from unrolled.decode.sampling import next_token_probabilities, sample

__all__ = ["next_token_probabilities", "sample"]
