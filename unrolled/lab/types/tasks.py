"""Small real tasks that need nothing but Python's own data."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from . import examples
from .examples import Examples
from .task import Effort, Pair, Task, letters_of, numbers_of, split, translation
from .verbs import PAST

_KINDS = {"Lu": "capital", "Ll": "small letter", "Nd": "digit", "Sm": "sign", "Po": "mark"}
_BITS = 11


def kinds_of_characters() -> Task:
    """One to one: the bits of a character's number → what kind of character it is."""
    characters = [chr(n) for n in range(0x20, 0x590) if unicodedata.category(chr(n)) in _KINDS]
    symbols = tuple(_KINDS.values())

    def encode(pairs: Sequence[Pair]) -> Examples:
        bits = [[ord(character) >> bit & 1 for bit in range(_BITS)] for character, _ in pairs]
        return examples.one_to_one(np.array(bits, float), [symbols.index(k) for _, k in pairs])

    training, held_out = split([(c, _KINDS[unicodedata.category(c)]) for c in characters])
    title = "a character → its kind"
    return Task(
        title, "one to one", training, held_out, symbols, encode, Effort(64, 1500, 64, 0.03)
    )


def next_characters(text: str | None = None, length: int = 40) -> Task:
    """Many to many: at every character of a text, the next one.

    Args:
        text: what is read; a page of Python's own documentation if None.
        length: how many characters an example has.

    Raises:
        InputError: if the text is too short.
    """
    if text is None:
        from pydoc_data.topics import topics

        text = " ".join(topics["assignment"].split())
    if len(text) < 20 * length:
        raise InputError(f"the text has {len(text)} characters; it needs {20 * length} or more.")
    letters = letters_of(text)
    starts = range(0, len(text) - length - 1, length // 2)
    pairs = [(text[s : s + length], tuple(text[s + 1 : s + length + 1])) for s in starts]

    def encode(pairs: Sequence[Pair]) -> Examples:
        read, right = ([numbers_of(pair[k], letters) for pair in pairs] for k in (0, 1))
        return examples.many_to_many(read, right, len(letters))

    cut = len(pairs) * 9 // 10  # the end of the text, so that nothing of it was seen
    training, held_out = tuple(pairs[:cut]), tuple(pairs[cut + 2 :])
    title, symbols = "text → the next character", tuple(letters)
    return Task(title, "many to many", training, held_out, symbols, encode, Effort(64, 400))


def past_tenses() -> Task:
    """Sequence to sequence: an English verb → its past, letter by letter."""
    return translation("a verb → its past", [*PAST.items()], Effort(64, 600))
