"""Small real tasks made of what Babel knows of languages (the Unicode CLDR)."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache

import numpy as np
from babel import Locale
from babel.dates import format_date

from ...errors import InputError
from . import examples
from .examples import Examples
from .task import END, Effort, Pair, Task, letters_of, numbers_of, split, translation

_DAYS = 36500
_LANGUAGES = ("en", "de", "fi", "it", "pl", "tr")


def languages_of_words(words: Sequence[tuple[str, str]] | None = None) -> Task:
    """Many to one: a word → its language.

    Args:
        words: (word, language); the names of countries in six languages if None.
    """
    known = [(word.lower(), language) for word, language in words or countries()]
    letters = letters_of(word for word, _ in known)
    symbols = tuple(sorted({language for _, language in known}))

    def encode(pairs: Sequence[Pair]) -> Examples:
        return examples.many_to_one(
            [numbers_of(word, letters) for word, _ in pairs],
            [symbols.index(str(language)) for _, language in pairs],
            len(letters),
        )

    training, held_out = split(known)
    title = "a word → its language"
    return Task(title, "many to one", training, held_out, symbols, encode, Effort(64, 250))


def names_of_countries() -> Task:
    """One to many: a language → the name of a country in it, letter by letter."""
    known = [(language, (*word.lower(), END)) for word, language in countries()]
    languages = sorted({language for language, _ in known})
    letters = letters_of(word for _, word in known)

    def encode(pairs: Sequence[Pair]) -> Examples:
        return examples.one_to_many(
            [languages.index(language) for language, _ in pairs],
            [numbers_of(word, letters) for _, word in pairs],
            len(languages),
            len(letters),
        )

    training, held_out = split(known)
    title, symbols = "a language → a country's name", tuple(letters)
    effort = Effort(96, 500, rate=0.02)
    return Task(title, "one to many", training, held_out, symbols, encode, effort)


def dates_in_words(count: int = 4000, languages: Sequence[str] = ("en",)) -> Task:
    """Sequence to sequence: a date in words → as ISO 8601 writes it.

    Args:
        count: how many dates are drawn, of the hundred years from 1950.
        languages: codes of Babel's locales.

    Raises:
        InputError: if that period has not so many days.
    """
    if not 0 <= count <= _DAYS:
        raise InputError(f"count is a number of days, at most {_DAYS}; found {count}.")
    rng = np.random.default_rng(0)
    pairs = []
    for day in rng.choice(_DAYS, size=count, replace=False):
        drawn = date(1950, 1, 1) + timedelta(days=int(day))
        words = format_date(drawn, "long", locale=languages[int(rng.integers(len(languages)))])
        pairs.append((words.lower(), drawn.isoformat()))
    return translation("a date in words → its number", pairs, Effort(48, 1200, rate=0.02))


@cache
def countries() -> tuple[tuple[str, str], ...]:
    """(name, language) of every country, in six languages that write in Latin letters."""
    found = []
    for code in _LANGUAGES:
        language = Locale(code)
        names = [name for key, name in language.territories.items() if len(key) == 2]
        found += [(name, str(language.english_name)) for name in names]
    several = Counter(name for name, _ in found)
    return tuple((name, where) for name, where in found if several[name] == 1)
