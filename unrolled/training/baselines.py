"""What a model of text has to beat: a character model that counts, and a strong compressor.

Both see the training part and are scored on the held-out part, in bits per held-out character.
"""

import lzma

import numpy as np

from ..data.vocabulary import CharacterVocabulary


def witten_bell_bits(training: str, held_out: str, order: int = 5) -> float:
    """Bits per held-out character of an order-n character model.

    The probability of a character after the last n characters, interpolated with those after
    shorter contexts (Witten & Bell 1991; Chen & Goodman 1999): where context v was seen N times,
    with D different characters after it, of which N_c times c,

        p(c | v) = (N_c + D · p(c | v without its first character)) / (N + D),

    and below the empty context all characters of the text are equally likely.

    Args:
        training: The text that is counted.
        held_out: The text that follows and is predicted, at least one character.
        order: Length of the longest context, n.
    """
    vocabulary = CharacterVocabulary("".join(sorted(set(training + held_out))))
    tokens = vocabulary.encode(training + held_out)
    counted = len(training)
    probability = np.full(len(held_out), 1 / vocabulary.size)
    context = np.zeros(len(tokens), np.int64)  # the number of the context before each character
    for length in range(min(order, counted - 1) + 1):
        if length:
            # The context one longer is the context before the previous character, and that.
            previous = np.concatenate([[0], context[:-1] * vocabulary.size + tokens[:-1]])
            previous[:length] = -1
            _, context = np.unique(previous, return_inverse=True)
        pair = context * vocabulary.size + tokens
        followers, counts = np.unique(pair[length:counted], return_counts=True)
        contexts = followers // vocabulary.size
        total = np.bincount(contexts, counts, minlength=context.max() + 1)
        different = np.bincount(contexts, minlength=context.max() + 1)
        scored, scored_context = pair[counted:], context[counted:]
        place = np.minimum(np.searchsorted(followers, scored), len(followers) - 1)
        count = np.where(followers[place] == scored, counts[place], 0)
        N, D = total[scored_context], different[scored_context]
        seen = N > 0
        better = (count + D * probability) / np.where(seen, N + D, 1)
        probability = np.where(seen, better, probability)
    return float(-np.log2(probability).mean())


def xz_bits(training: str, held_out: str) -> float:
    """Bits per held-out character that it adds to the text compressed with `xz -9e`."""
    whole = _compressed_size(training + held_out)
    return 8 * (whole - _compressed_size(training)) / len(held_out)


def _compressed_size(text: str) -> int:
    return len(lzma.compress(text.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))
