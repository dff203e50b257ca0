"""Sampling from a language model, one token at a time.

Temperature T divides the logits: below 1 the likely becomes likelier, and 0 always takes the
likeliest (greedy). Top-k keeps the k likeliest tokens; top-p the smallest set of likeliest
tokens that together have probability p or more (nucleus sampling, Holtzman et al. 2020).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from ..errors import InputError
from ..models.language_model import LanguageModel


def next_token_probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """The distribution that sampling draws from.

    The temperature acts first, then top-k, then top-p on what top-k has left.

    Args:
        logits: Shape (V,).
        temperature: At least 0; 0 puts all probability on the likeliest token.
        top_k: Keep this many of the likeliest tokens, at least 1; None keeps all.
        top_p: Keep the likeliest tokens up to this probability, 0 < p ≤ 1; None keeps all.

    Returns:
        Probabilities of shape (V,), float64; they sum to 1.

    Raises:
        InputError: A setting is outside its range.
    """
    check_settings(temperature, top_k, top_p)
    logits = logits.double()
    if temperature == 0:
        return torch.zeros_like(logits).index_fill_(0, logits.argmax(), 1.0)
    ordered, order = torch.sort(logits, descending=True, stable=True)
    probabilities = torch.softmax((ordered - ordered[0]) / temperature, dim=0)
    if top_k is not None:
        probabilities[top_k:] = 0
        probabilities /= probabilities.sum()
    if top_p is not None:
        before = torch.cumsum(probabilities, 0) - probabilities
        probabilities[before >= top_p] = 0
        probabilities /= probabilities.sum()
    return torch.zeros_like(probabilities).index_copy_(0, order, probabilities)


def check_settings(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Whether the settings of a sampling make sense.

    Raises:
        InputError: One is outside its range.
    """
    if not 0 <= temperature < float("inf"):
        raise InputError(f"The temperature must be 0 (greedy) or more, not {temperature}.")
    if top_k is not None and top_k < 1:
        raise InputError(f"top-k must be at least 1, not {top_k}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top-p must be above 0 and at most 1, not {top_p}.")


def sample(
    model: LanguageModel,
    prompt: Sequence[int],
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: Generator | None = None,
    exclude: Sequence[int] = (),
) -> Iterator[int]:
    """Tokens that go on from a prompt, each as soon as it is drawn.

    The state is carried from token to token, so each costs one step of the model. The model is
    put into evaluation mode for each step and back into its own mode after it.

    Args:
        model: The language model, on any device.
        prompt: The tokens to go on from, at least one.
        length: How many tokens to draw.
        temperature: See `next_token_probabilities`, as for `top_k` and `top_p`.
        top_k: Keep only this many of the likeliest tokens.
        top_p: Keep only the likeliest tokens up to this probability.
        generator: Source of chance, a generator of the CPU; torch's own by default.
        exclude: Tokens never to draw, such as the one for unknown words.

    Raises:
        InputError: The prompt is empty or a setting is outside its range.
    """
    if len(prompt) == 0:
        raise InputError("The prompt must hold at least one token.")
    check_settings(temperature, top_k, top_p)
    return _draw(model, list(prompt), length, temperature, top_k, top_p, generator, list(exclude))


def _draw(
    model: LanguageModel,
    tokens: list[int],
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: Generator | None,
    exclude: list[int],
) -> Iterator[int]:
    device = model.embedding.weight.device
    state = None
    for _ in range(length):
        logits, state = _step(model, torch.tensor(tokens, device=device), state)
        logits[exclude] = float("-inf")
        probabilities = next_token_probabilities(logits, temperature, top_k, top_p)
        token = int(torch.multinomial(probabilities, 1, generator=generator))
        tokens = [token]
        yield token


@torch.no_grad()
def _step(model: LanguageModel, tokens: Tensor, state: object) -> tuple[Tensor, object]:
    training = model.training
    model.eval()
    logits, state = model(tokens[:, None], state)
    model.train(training)
    return logits[-1, 0].cpu(), state
