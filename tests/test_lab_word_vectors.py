"""The course's lab on sentences and emoji, with a cell for it: the mean of the words so far.

Word vectors are the matrix of that cell; what the course takes for a sentence is its last state.
"""

import numpy as np
import pytest

from unrolled import Cell, lab
from unrolled.lab.course.arrays import predictions

VECTORS = {
    "a": (3, 3), "synonym_of_a": (3, 3), "a_nw": (2, 4), "a_s": (3, 2), "a_n": (3, 4),
    "c": (-2, 1), "c_n": (-2, 2), "c_ne": (-1, 2), "c_e": (-1, 1), "c_se": (-1, 0),
    "c_s": (-2, 0), "c_sw": (-3, 0), "c_w": (-3, 1), "c_nw": (-3, 2),
}  # fmt: skip
KNOWN = [*VECTORS]
MEAN = Cell.parse(
    "def mean(x, h_prev, *, W):\n    h = h_prev + (W.h @ x - h_prev) / t\n    return h\n"
)
NETWORK = lab.Network(MEAN, (({"W.h": np.array([*VECTORS.values()], float).T},),))


def averages(*sentences):
    """The mean of each sentence's known words, (sentences, 2)."""
    words = [[KNOWN.index(word) for word in text.split() if word in KNOWN] for text in sentences]
    batch = lab.many_to_many(words, words, len(KNOWN))
    _, state = NETWORK.run(batch.x, lengths=batch.lengths)
    return state[0]


def test_the_mean_of_the_known_words():
    found = averages("a a_nw c_w a_s", "love", "c_se foo a a_nw c_w a_s deeplearning c_nw")
    np.testing.assert_allclose(found, [[1.25, 2.5], [0, 0], [1 / 6, 2]], rtol=1e-12, atol=1e-15)


def test_sentences_are_told_apart_after_110_epochs():
    x = averages(
        *("a a_s synonym_of_a a_n c_sw", "a a_s a_n c_sw", "a_s a a_n"),
        *("synonym_of_a a a_s a_n c_sw", "a_s a_n", "a a_s a_n c", "a_n a c c c_e"),
        *("c c_nw c_n c c_ne", "c_e c c_se c_s", "c_nw c a_s c_e c_e", "c_e a_nw c_sw"),
        "c_sw c c_ne c_ne",
    )
    right = [0] * 6 + [1] * 6
    output = {"Wy": np.random.RandomState(10).randn(2, 2) / np.sqrt(2), "by": np.zeros((2, 1))}
    for _ in range(110):
        for average, label in zip(x, right, strict=True):
            y = predictions(output, "Wy", average[:, None])
            loss = -np.log(y[label, 0])
            dz = y - np.eye(2)[:, [label]]
            output["Wy"] -= 0.0025 * dz @ average[None]
            output["by"] -= 0.0025 * dz
    expected = [[1.0647452921352925, 0.1359828209016848], [-1.215934471528373, 0.36386751519867766]]
    np.testing.assert_allclose(output["Wy"], expected, rtol=1e-10)
    np.testing.assert_allclose(
        output["by"][:, 0], [-0.22027237874315703, 0.22027237874315705], rtol=1e-10
    )
    assert loss == pytest.approx(0.008908065965647225, rel=1e-10)
    np.testing.assert_array_equal(predictions(output, "Wy", x.T).argmax(0), right)
