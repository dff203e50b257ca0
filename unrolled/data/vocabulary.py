"""Vocabularies: text to token numbers and back, by character, byte or word.

A vocabulary is data: its level and its symbols, written into a checkpoint's configuration and
read back from it. All levels share one interface, `Vocabulary`.
"""

import codecs
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import log2
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .text import TextError

Tokens = NDArray[np.int64]

UNKNOWN = "<unk>"
RARE_BELOW = 2
MOST_WORDS = 10_000

# A word (with inner apostrophes), or one character that is not part of a word.
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w]")


class Vocabulary(ABC):
    """A numbering 0 … size−1 of the symbols that a text is made of."""

    level: ClassVar[str]

    @property
    @abstractmethod
    def symbols(self) -> str | tuple[str, ...]:
        """What the configuration must keep to rebuild this vocabulary, in order."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many tokens there are."""

    @abstractmethod
    def encode(self, text: str) -> Tokens:
        """The text's tokens, shape (N,).

        Raises:
            TextError: The text holds characters that this vocabulary lacks; they are named.
        """

    @abstractmethod
    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """The tokens' text, piece by piece as soon as each is certain."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The tokens' text."""
        return "".join(self.stream(int(token) for token in tokens))

    def unencoded_bits(self, text: str) -> float:
        """What it would cost, in bits, to spell out what `encode` leaves out of the text."""
        return 0.0

    @property
    def unknown(self) -> int | None:
        """The token that stands for whatever the vocabulary lacks, if it has one."""
        return None

    def to_config(self) -> dict[str, Any]:
        """A description that JSON can hold; `vocabulary_from_config` reads it."""
        return {"level": self.level, "symbols": self.symbols}


@dataclass(frozen=True)
class CharacterVocabulary(Vocabulary):
    """One token for each different character (Unicode code point).

    Args:
        characters: The characters, sorted by code point, none twice.
    """

    level: ClassVar[str] = "character"
    characters: str

    @property
    def symbols(self) -> str:
        """The characters."""
        return self.characters

    @property
    def size(self) -> int:
        """How many characters there are."""
        return len(self.characters)

    @cached_property
    def _code_points(self) -> NDArray[np.uint32]:
        return _code_points(self.characters)

    def encode(self, text: str) -> Tokens:
        """The text's tokens; a character that the vocabulary lacks is an error."""
        points = _code_points(text)
        tokens = np.searchsorted(self._code_points, points).astype(np.int64)
        found = self._code_points[np.minimum(tokens, self.size - 1)] == points
        if not found.all():
            raise TextError(
                f"The vocabulary has no {_listed(np.unique(points[~found]))}: the model was "
                f"trained on a text without. It knows these {self.size} characters: "
                f"{self._shown()}."
            )
        return tokens

    def _shown(self) -> str:
        most = 120
        shown = self.characters[:most]
        return repr(shown) + (" and more" if len(self.characters) > most else "")

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """The tokens' characters, one by one."""
        for token in tokens:
            yield self.characters[token]


@dataclass(frozen=True)
class ByteVocabulary(Vocabulary):
    """The 256 values of a byte; text is its UTF-8 bytes, so no text is foreign to it."""

    level: ClassVar[str] = "byte"

    @property
    def symbols(self) -> str:
        """Nothing: the bytes need no list."""
        return ""

    @property
    def size(self) -> int:
        """256."""
        return 256

    def encode(self, text: str) -> Tokens:
        """The text's UTF-8 bytes."""
        return np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64)

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of the bytes; a malformed sequence shows as U+FFFD."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            if piece := decoder.decode(bytes((token,))):
                yield piece
        if piece := decoder.decode(b"", final=True):
            yield piece


@dataclass(frozen=True)
class WordVocabulary(Vocabulary):
    """Words, and every other character as a token of its own.

    One space between two words is understood and has no token, all other spaces, line ends and
    punctuation marks have theirs, so a text of known words comes back exactly as it was. Whatever
    the vocabulary lacks is read as `<unk>`, which always is token 0.

    Args:
        words: The words and marks, `<unk>` first.
    """

    level: ClassVar[str] = "word"
    words: tuple[str, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The words and marks, `<unk>` first."""
        return self.words

    @property
    def size(self) -> int:
        """How many words and marks there are, with `<unk>`."""
        return len(self.words)

    @property
    def unknown(self) -> int:
        """The token of `<unk>`."""
        return 0

    @cached_property
    def _tokens(self) -> dict[str, int]:
        return {word: token for token, word in enumerate(self.words)}

    def encode(self, text: str) -> Tokens:
        """The tokens of the text's words and marks."""
        tokens = self._tokens
        return np.array([tokens.get(word, 0) for word in split_words(text)], np.int64)

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """The words and marks, with the spaces that are understood."""
        after_word = False
        for token in tokens:
            word = self.words[token]
            is_word = token == self.unknown or _is_word(word)
            yield f" {word}" if after_word and is_word else word
            after_word = is_word

    def unencoded_bits(self, text: str) -> float:
        """The unknown words' letters and their ends, each at log2(letters + 1) bits."""
        unknown = [word for word in split_words(text) if word not in self._tokens]
        alphabet = len(set(text)) + 1
        return sum(len(word) + 1 for word in unknown) * log2(alphabet)


def split_words(text: str) -> list[str]:
    """The text's words and marks in order, without the single spaces between two words."""
    pieces: list[str] = _WORD.findall(text)
    near = [False, *map(_is_word, pieces), False]
    return [
        piece
        for place, piece in enumerate(pieces)
        if piece != " " or not (near[place] and near[place + 2])
    ]


def _is_word(piece: str) -> bool:
    return piece[0].isalnum() or piece[0] == "_"


def build_vocabulary(level: str, training: str, held_out: str = "") -> Vocabulary:
    """The vocabulary of a text.

    Characters are those of the whole text: an alphabet is known beforehand. Words are those of
    the training part that occur there at least twice, at most the 10,000 most frequent of them
    (of equals, the first to appear); all others are `<unk>`.

    Args:
        level: `"character"`, `"byte"` or `"word"`.
        training: The part to train on.
        held_out: The held-out part.

    Raises:
        TextError: The level is none of these, or the vocabulary would have one symbol only.
    """
    if level == CharacterVocabulary.level:
        vocabulary: Vocabulary = CharacterVocabulary("".join(sorted(set(training + held_out))))
        distinct = vocabulary.size
    elif level == ByteVocabulary.level:
        vocabulary = ByteVocabulary()
        distinct = len(np.unique(vocabulary.encode(training + held_out)))
    elif level == WordVocabulary.level:
        counts = Counter(split_words(training)).most_common(MOST_WORDS)
        words = [word for word, count in counts if count >= RARE_BELOW]
        vocabulary = WordVocabulary((UNKNOWN, *words))
        distinct = len(np.unique(vocabulary.encode(training)))
    else:
        raise TextError(f"There is no level {level!r}; choose character, byte or word.")
    if distinct < 2:
        raise TextError(
            f"The text has a vocabulary of one {level}, so there is nothing to predict; "
            "give a text with more variety."
        )
    return vocabulary


def vocabulary_from_config(config: dict[str, Any]) -> Vocabulary:
    """The vocabulary that `Vocabulary.to_config` described.

    Raises:
        TextError: The description is not one that `to_config` gives.
    """
    level, symbols = config.get("level"), config.get("symbols")
    if level == ByteVocabulary.level:
        return ByteVocabulary()
    if level == CharacterVocabulary.level and isinstance(symbols, str):
        return CharacterVocabulary(symbols)
    if level == WordVocabulary.level and isinstance(symbols, list):
        return WordVocabulary(tuple(map(str, symbols)))
    raise TextError(f"A vocabulary of level {level!r} cannot be read from its description.")


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _listed(points: NDArray[np.uint32]) -> str:
    most = 10
    names = [f"{chr(point)!r} (U+{point:04X})" for point in points[:most].tolist()]
    more = len(points) - most
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
