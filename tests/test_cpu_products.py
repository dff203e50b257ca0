"""The product of the time loop against NumPy, for every shape of tile and edge."""

import itertools

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from unrolled import cells
from unrolled.backends.cpu import memory, products, shared, tiles, vectors
from unrolled.backends.cpu.layout import Layout
from unrolled.backends.cpu.packing import packed_shape, wide_group
from unrolled.backends.cpu.products import (
    GROUP_ROWS,
    height,
    highest,
    multiply,
    multiply_group,
    tile_rows,
)
from unrolled.backends.cpu.team import groups_of
from unrolled.backends.cpu.tiles import TILE_ROWS
from unrolled.schedule import schedule

compile_ = njit(nogil=True, error_model="numpy", fastmath={"contract"})
DTYPES = (np.float32, np.float64)
SIZES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65, 130]


@compile_
def product(operand, row, rows, packed, blocks, out, at, shares=1, step=0):
    size, width = out.shape[1] // blocks, packed.shape[1] // operand.shape[1]
    for share in range(shares):
        groups = groups_of(size, share, shares, width)
        multiply(operand, row, rows, packed, groups, width, blocks, out, at, step)


def pack(weights, blocks, vectors_each):
    """A matrix (K, N) of some blocks side by side, packed."""
    (K, N), dtype = weights.shape, weights.dtype
    packed = memory.empty(packed_shape(K, blocks, N // blocks, vectors_each, dtype), dtype)
    addresses = (array.__array_interface__["data"][0] for array in (weights, packed))
    steps = (stride // weights.itemsize for stride in weights.strides)
    groups = 2 * len(packed) // (blocks * vectors_each)
    shared.Shared.all["fill"](
        dtype, *addresses, *steps, K, N, blocks, vectors_each, vectors.lanes(dtype), 0, groups
    )
    return packed


@compile_
def group_by_group(operand, rows, packed, panels, out, tile, step):
    """Some rows after others into the columns that `out` has for a group."""
    width, groups, each = tile.shape[1], packed.shape[0] // panels, tile.shape[1] // panels
    high = height(rows, GROUP_ROWS)
    for group in range(groups):
        for start in range(0, rows, high):
            count = min(high, rows - start)
            multiply_group(operand, start, count, packed, group, panels, each, tile, 1, step)
            for row in range(count):
                for column in range(width):
                    out[start + row, group * width + column] = tile[1 + row, column]


def tolerance(dtype, K):
    return (1e-6 if dtype == np.float32 else 1e-14) * np.sqrt(K) * 3


def check(K, N, rows, dtype, blocks=1, compiled=product):
    """Some rows in the midst of others, which must stay as they are."""
    rng = np.random.default_rng([K, N, rows])
    weights = rng.standard_normal((K, blocks * N)).astype(dtype)
    operand = rng.standard_normal((rows + 4, K)).astype(dtype)
    before = rng.standard_normal((rows + 4, blocks * N)).astype(dtype)
    expected = before.astype(np.float64)
    exact = operand.astype(np.float64) @ weights.astype(np.float64)
    expected[3 : 3 + rows] = exact[2 : 2 + rows]
    out = before.copy()
    compiled(operand, 2, rows, pack(weights, blocks, 2), blocks, out, 3)
    np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance(dtype, K))
    np.testing.assert_array_equal(out[:3], before[:3])
    np.testing.assert_array_equal(out[3 + rows :], before[3 + rows :])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", range(14))
def test_every_number_of_rows(rows, dtype):
    # With 60 or 100 columns the last of four panels is not full.
    for K, N in [(1, 1), (33, 132), (7, 16), (4, 65), (65, 31), (16, 128), (5, 60), (5, 100)]:
        for blocks in (1, 2, 3, 5):
            check(K, N, rows, dtype, blocks)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [5, *range(7, 15), 22, 33])
def test_large_matrices_have_the_largest_tiles(rows, dtype):
    K, N = (65, 4100) if rows <= TILE_ROWS else (129, 8200)
    assert highest.py_func(rows, K * N) == TILE_ROWS
    check(K, N, rows, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", SIZES)
def test_every_size(K, dtype):
    for N in SIZES:
        for rows in (1, 2, 3, 6, 8):
            check(K, N, rows, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("blocks", "two"), [(1, 2), (2, 1), (2, 2), (3, 2), (4, 1), (5, 2)])
def test_groups_hold_the_same_units_of_all_blocks(dtype, blocks, two):
    lanes = vectors.lanes(dtype)
    panels = blocks * two // 2
    for rows in (1, 2, 4, 6, 13, GROUP_ROWS - 1, GROUP_ROWS, GROUP_ROWS + 1):
        for size in (1, lanes, 2 * lanes, 4 * lanes + 1):
            rng = np.random.default_rng([rows, size])
            weights = rng.standard_normal((9, blocks * size)).astype(dtype)
            operand = rng.standard_normal((rows, 9)).astype(dtype)
            packed = pack(weights, blocks, two)
            groups = packed.shape[0] // panels
            out = np.empty((rows, groups * panels * 2 * lanes), dtype)
            tile = np.full((GROUP_ROWS + 1, panels * 2 * lanes), -1, dtype)
            group_by_group(operand, rows, packed, panels, out, tile, 0)
            back = np.empty_like(out)
            group_by_group(operand, rows, packed, panels, back, tile, 1)
            np.testing.assert_array_equal(back, out)
            assert (tile[0] == -1).all()
            units = out.reshape(rows, groups, blocks, two * lanes).swapaxes(1, 2)
            units = units.reshape(rows, blocks, -1)
            exact = operand.astype(np.float64) @ weights.astype(np.float64)
            np.testing.assert_allclose(
                units[:, :, :size],
                exact.reshape(rows, blocks, size),
                rtol=0,
                atol=tolerance(dtype, 9),
            )
            assert (units[:, :, size:] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_panels(dtype):
    width = 2 * vectors.lanes(dtype)
    K, N = 3, width + 1
    weights = np.arange(1, 1 + K * N).reshape(K, N).astype(dtype)
    packed = pack(weights, 1, 2)
    assert packed.shape == packed_shape(K, 1, N, 2, dtype) == (2, K * width)
    panels = packed.reshape(2, K, width)
    np.testing.assert_array_equal(panels[0], weights[:, :width])
    np.testing.assert_array_equal(panels[1, :, :1], weights[:, width:])
    assert (panels[1, :, 1:] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [1, 15, 16, 33])
def test_packing_follows_any_order_in_memory(K, dtype):
    rng = np.random.default_rng(K)
    for blocks, two, size in [(1, 2, 33), (4, 1, 17), (3, 2, 16)]:
        weights = rng.standard_normal((K, blocks * size)).astype(dtype)
        packed = pack(weights, blocks, two)
        np.testing.assert_array_equal(pack(np.asfortranarray(weights), blocks, two), packed)
        apart = np.repeat(weights, 2, axis=1)[:, ::2]
        np.testing.assert_array_equal(pack(apart, blocks, two), packed)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("blocks", [1, 3])
def test_shares_of_the_groups_give_the_same_bits(rows, blocks):
    rng = np.random.default_rng(0)
    operand = rng.standard_normal((rows, 65))
    packed = pack(rng.standard_normal((65, 300)), blocks, 2)
    first = np.empty((rows, 300))
    product(operand, 0, rows, packed, blocks, first, 0)
    for shares in (1, 2, 3, 50):
        out = np.full_like(first, np.nan)
        product(operand, 0, rows, packed, blocks, out, 0, shares)
        np.testing.assert_array_equal(out, first)


@pytest.mark.parametrize("rows", range(1, 40))
@pytest.mark.parametrize("most", [TILE_ROWS, GROUP_ROWS, 5])
def test_tiles_are_about_equally_high(rows, most):
    high = height.py_func(rows, most)
    assert high <= most
    assert -(-rows // high) == -(-rows // most)
    assert high == -(-rows // -(-rows // high))  # none could be lower


def heights(rows, most):
    """Of tiles, one after the other."""
    high, found = height.py_func(rows, most), []
    while sum(found) < rows:
        found.append(tile_rows.py_func(rows - sum(found), high))
    return found


@pytest.mark.parametrize("rows", range(1, 40))
def test_with_16_registers_no_tile_has_too_few_sums(rows, monkeypatch):
    monkeypatch.setattr(products, "_THREE_LAST", True)
    monkeypatch.setattr(products, "TILE_ROWS", 6)
    found = heights(rows, 6)
    assert sum(found) == rows
    assert max(found) <= 6
    if rows > 7:
        assert min(found[:-1]) >= 5  # two sums for each row
        assert found[-1] in (3, 5, 6)  # four for each of three


@pytest.mark.parametrize("most", [TILE_ROWS, GROUP_ROWS])
def test_with_32_registers_tiles_are_about_equally_high(most, monkeypatch):
    monkeypatch.setattr(products, "_THREE_LAST", False)
    for rows in range(1, 40):
        *others, last = heights(rows, most)
        assert set(others) <= {height.py_func(rows, most)}
        assert 0 < last <= height.py_func(rows, most)


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("registers", [16, 32])
def test_other_widths_of_vector(monkeypatch, tmp_path, width, registers):
    # What the kernels share is compiled anew, from files that no other test has loaded.
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path))
    monkeypatch.setattr(shared, "foundations", lambda: (str(width), str(registers)))
    for function in shared.Shared.all.values():
        monkeypatch.setattr(function, "_addresses", {})
    fill = shared.Shared.all["fill"]
    monkeypatch.setattr(fill, "body", njit(error_model="numpy")(fill.body.py_func))
    monkeypatch.setattr(vectors, "_vector_bytes", lambda: width)
    monkeypatch.setattr(tiles, "REGISTERS", registers)
    product_of_panels = njit(error_model="numpy")(multiply.py_func)

    @njit
    def compiled(operand, row, rows, packed, blocks, out, at):
        groups, panel = (0, packed.shape[0] // blocks), packed.shape[1] // operand.shape[1]
        product_of_panels(operand, row, rows, packed, groups, panel, blocks, out, at, 1)

    for rows in (1, 2, 3, 5, 7):
        check(33, 70, rows, np.float64, compiled=compiled)


def test_arrays_that_do_not_fit_are_refused():
    operand, weights, out = np.ones((2, 4)), np.ones((4, 3)), np.ones((2, 3))
    packed = pack(weights, 1, 2)
    for wrong in (operand.astype(np.float32), np.ones((2, 8))[:, ::2]):
        with pytest.raises(TypingError, match="C-contiguous matrices of one dtype; found"):
            product(wrong, 0, 2, packed, 1, out, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("least", [1, 2])
def test_groups_are_wide_and_no_share_multiplies_by_many_zeros(least, dtype):
    """Of a group all vectors are multiplied, also those behind the last unit."""
    lanes = vectors.lanes(dtype)

    def most_of_a_share(count, shares, each):
        groups = -(-count // each)
        shared = [groups * (share + 1) // shares - groups * share // shares for share in shares_of]
        return max(shared), max(shared) * each

    for count, shares in itertools.product(range(1, 41), (1, 2, 3)):
        shares_of = range(shares)
        each = wide_group(count * lanes - lanes // 2, least, shares, dtype)  # the last is half full
        assert each % least == 0
        groups, multiplied = most_of_a_share(count, shares, each)
        for other in range(least, 9, least):
            groups_then, multiplied_then = most_of_a_share(count, shares, other)
            # A vector more is multiplied only where that saves sixteen groups.
            assert 16 * (multiplied - multiplied_then) <= groups_then - groups


@pytest.mark.parametrize(("units", "each"), [(1, 1), (16, 8), (9, 3), (13, 1), (41, 7), (128, 8)])
def test_groups_of_one_thread(units, each):
    assert wide_group(units * vectors.lanes(np.float32), 1, 1, np.float32) == each


def test_groups_grow_where_products_have_their_own_work():
    layout, dtype = Layout(schedule(cells.lstm.forward)), np.dtype(np.float32)
    assert layout.vectors_of_group("H", 8 * vectors.lanes(dtype), dtype) == 8
    layout = Layout(schedule(cells.lstm.backward))
    assert layout.vectors_of_group("H", 8 * vectors.lanes(dtype), dtype) == 2
