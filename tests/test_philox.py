"""The generator of masks: its numbers are those of Random123, and masks are made of them."""

import math

import numpy as np
import pytest
from numba import njit

from unrolled.backends.cpu import philox

LOW = 2**32 - 1


def in_python(counter, key):
    """Philox4x32-10 as its paper writes it down."""
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = (
            second >> 32 ^ counter[1] ^ key[0],
            second & LOW,
            first >> 32 ^ counter[3] ^ key[1],
            first & LOW,
        )
        key = ((key[0] + 0x9E3779B9) & LOW, (key[1] + 0xBB67AE85) & LOW)
    return counter


# counter, key, words: "kat_vectors" of Random123.
KNOWN = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((LOW,) * 4, (LOW,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_known_answers(counter, key, words):
    found = njit(philox.philox.py_func)(tuple(map(np.uint64, counter)), tuple(map(np.uint64, key)))
    assert tuple(map(int, found)) == words
    assert in_python(counter, key) == words


def mask(shape, p=0.5, key=11, stream=0, scale=1.0, dtype="float32", around=(0, 0)):
    """A mask with some columns before and behind it, which must stay as they are."""
    rows, size = shape
    out = np.full((rows, around[0] + size + around[1]), -7, dtype)
    philox.write_mask(
        out.ctypes.data + around[0] * out.itemsize, out.dtype, key, stream, rows, size,
        out.shape[1], p, scale,
    )  # fmt: skip
    assert (out[:, : around[0]] == -7).all()
    assert (out[:, around[0] + size :] == -7).all()
    return out[:, around[0] : around[0] + size]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 5), (70, 1), (7, 63), (4, 65), (2, 200)])
def test_a_mask_is_made_of_the_words(shape, dtype):
    key, stream, p, count = 2**62 + 12345, 2**31 + 3, 0.3, math.prod(shape)
    groups = [
        in_python((g, 0, stream, 0), (key & LOW, key >> 32)) for g in range(-(-count // 64) * 16)
    ]
    words = np.array(groups).reshape(-1, 16, 4).swapaxes(1, 2).reshape(-1)[:count]
    expected = np.where(words < p * 2**32, 1.25, 0).reshape(shape)
    for around in ((0, 0), (2, 0), (0, 3), (1, 1)):
        found = mask(shape, p, key, stream, 1.25, dtype, around)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_never_and_always_are_exact(dtype):
    assert (mask((100, 100), 0.0, dtype=dtype) == 0).all()
    assert (mask((100, 100), 1.0, scale=0.1, dtype=dtype) == np.dtype(dtype).type(0.1)).all()


def test_nothing_is_a_mask_too():
    assert mask((0, 5)).shape == (0, 5)
    assert mask((5, 0), around=(1, 1)).shape == (5, 0)


def deviation(found, expected, variance):
    """By how many standard deviations a mean is beside what is expected."""
    return abs(found.mean() - expected) / math.sqrt(variance / found.size)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_means(p):
    found = mask((2000, 500), p)
    assert deviation(found.astype(float), p, p * (1 - p)) < 4
    assert deviation(found.mean(0), p, p * (1 - p) / 2000) < 4
    assert np.abs(found.mean(0) - p).max() < 5 * math.sqrt(p * (1 - p) / 2000)
    if p * 500 > 10:  # elsewhere a row's mean is no normal number
        assert np.abs(found.mean(1) - p).max() < 5 * math.sqrt(p * (1 - p) / 500)


def test_every_bit_of_a_probability_counts():
    words = np.array([in_python((group, 0, 0, 0), (11, 0)) for group in range(16)])
    for group, word in enumerate(words[:, 0]):
        assert mask((1, 64), word / 2**32)[0, group] == 0
        assert mask((1, 64), (word + 1) / 2**32)[0, group] == 1


def test_neighbours_streams_and_keys_are_independent():
    a = mask((1000, 640)) - 0.5
    others = [mask((1000, 640), stream=1) - 0.5, mask((1000, 640), key=12) - 0.5]
    others += [mask((1000, 640), key=11 + 2**32) - 0.5]
    for away in (1, 2, 3, 4, 16, 32, 64, 640):
        flat = a.reshape(-1)
        assert deviation(flat[away:] * flat[:-away], 0, 1 / 16) < 4
    for other in others:
        assert deviation(a * other, 0, 1 / 16) < 4
    whole = mask((1000, 640)).reshape(-1, 8).astype(int) @ (1 << np.arange(8))  # bytes
    counts = np.bincount(whole, minlength=256)
    chi = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert 255 - 5 * math.sqrt(2 * 255) < chi < 255 + 5 * math.sqrt(2 * 255)


def test_numbers_beyond_a_few_are_no_repetition():
    flat = mask((1, 1 << 20)).reshape(-1, 64)
    assert len(np.unique(flat, axis=0)) == len(flat)
