import lzma
from collections import Counter
from math import log2

import pytest

from unrolled.data.text import builtin_text, split_held_out
from unrolled.training.baselines import witten_bell_bits, xz_bits


def _witten_bell_by_the_book(training: str, held_out: str, order: int) -> float:
    """Counts every context anew, straight from the formula."""
    alphabet = sorted(set(training + held_out))

    def probability(history: str, character: str) -> float:
        following = Counter(
            training[end]
            for end in range(len(history), len(training))
            if training[end - len(history) : end] == history
        )
        lower = probability(history[1:], character) if history else 1 / len(alphabet)
        if not following:
            return lower
        N, D = following.total(), len(following)
        return (following[character] + D * lower) / (N + D)

    whole, bits = training + held_out, 0.0
    for place in range(len(training), len(whole)):
        history = whole[max(0, place - order) : place]
        assert sum(probability(history, c) for c in alphabet) == pytest.approx(1)
        bits -= log2(probability(history, whole[place]))
    return bits / len(held_out)


@pytest.mark.parametrize("order", [0, 1, 3, 5])
@pytest.mark.parametrize(
    ("training", "held_out"),
    [("abracadabra" * 3, "abrakad"), ("ab", "ba"), ("aaaa", "aab"), ("the cat sat", " on a mat")],
)
def test_witten_bell_is_the_formula(training: str, held_out: str, order: int) -> None:
    expected = _witten_bell_by_the_book(training, held_out, order)
    assert witten_bell_bits(training, held_out, order) == pytest.approx(expected, rel=1e-12)


def test_what_was_seen_often_costs_little_and_what_never_was_costs_much() -> None:
    assert witten_bell_bits("ab" * 500, "ab" * 50) < 0.1
    assert witten_bell_bits("ab" * 500, "zz") > 5


def test_xz_counts_what_the_held_out_part_adds() -> None:
    training, held_out = "The same again. " * 50, "Something else, 123.\n" * 3

    def size(text: str) -> int:
        return len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))

    expected = 8 * (size(training + held_out) - size(training)) / len(held_out)
    assert xz_bits(training, held_out) == expected > 0


def test_the_figures_of_the_builtin_text() -> None:
    # 2.08 and 1.79 under Python 3.11; other versions carry a slightly different text.
    training, held_out = split_held_out(builtin_text())
    assert witten_bell_bits(training, held_out) == pytest.approx(2.08, abs=0.15)
    assert xz_bits(training, held_out) == pytest.approx(1.79, abs=0.15)
