"""Memory of kernels: where arrays begin, what is used again, and when packed weights are."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

import unrolled.nn
from unrolled.backends import files
from unrolled.backends.cpu import kernel_for, lending, memory
from unrolled.backends.cpu.tables import FIRST, axis_of
from unrolled.nn import fresh

F4 = np.dtype("float32")
LARGE = (512, 1024)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 5), LARGE])
def test_arrays_begin_with_a_line_of_the_cache(shape):
    for dtype in (F4, np.dtype("float64")):
        array = memory.empty(shape, dtype)
        assert (array.shape, array.dtype) == (shape, dtype)
        assert not array.size or array.__array_interface__["data"][0] % 64 == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_memory_is_used_again_when_the_last_array_on_it_is_gone(monkeypatch):
    monkeypatch.setattr(memory, "_left", {})
    array = memory.empty(LARGE, F4)
    place = array.__array_interface__["data"][0]
    view = array[10:]
    view[:] = 7
    del array
    gc.collect()
    other = memory.empty(LARGE, F4)
    assert other.__array_interface__["data"][0] != place
    assert (view == 7).all()
    del view
    gc.collect()
    assert memory.empty(LARGE, F4).__array_interface__["data"][0] == place


def test_only_so_much_memory_is_kept(monkeypatch):
    monkeypatch.setattr(memory, "_left", {})
    monkeypatch.setattr(memory, "LIMIT", 5 << 20)
    arrays = [memory.empty(LARGE, F4) for _ in range(4)]  # 2 MB each
    del arrays
    gc.collect()
    assert sum(memory._sizes()) <= 5 << 20


def test_what_was_used_longest_ago_makes_room(monkeypatch):
    monkeypatch.setattr(memory, "_left", {})
    monkeypatch.setattr(memory, "LIMIT", 5 << 20)
    memory.empty((512, 2048), F4)  # 4 MB, left at once
    places = [array.__array_interface__["data"][0] for array in (memory.empty(LARGE, F4),)]
    gc.collect()
    assert memory.empty(LARGE, F4).__array_interface__["data"][0] in places
    gc.collect()
    assert [size >> 20 for size in memory._left] == [2]
    memory.empty((2048, 2048), F4)  # 16 MB: more than is kept
    gc.collect()
    assert [size >> 20 for size in memory._left] == [2]


def test_python_ends_in_silence():
    """Though arrays that a compiled function's globals hold are left when names are gone."""
    code = """if True:
        import numba, numpy
        from unrolled.backends.cpu import memory
        function = numba.njit(lambda array: array[0])
        array = memory.empty((1 << 18,), numpy.dtype("float32"))
        function(array)
        """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(unrolled.__file__).parents[1])},
    )  # fmt: skip
    assert done.stderr == ""


def test_tensors_without_numbers_take_no_memory(monkeypatch):
    def refuse(shape, dtype):
        raise AssertionError("memory was taken")

    monkeypatch.setattr(memory, "empty", refuse)
    with FakeTensorMode():
        like = torch.empty(1 << 18)
        assert fresh.zeros((1 << 19,), like).shape == fresh.empty((1 << 19,), like).shape
    with pytest.raises(AssertionError, match="memory was taken"):
        fresh.empty((1 << 19,), torch.empty(1))


@pytest.mark.parametrize("new", [fresh.small_tensor, fresh.tensor])
@pytest.mark.parametrize("shape", [(5,), (3, 1, 4), (2, 3, 4, 5), (0, 3), (2, 0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_of_a_form_are_as_torch_makes_them(new, shape, dtype):
    like = torch.empty(shape, dtype=dtype)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            found, expected = new(*fresh.form_of(shape, dtype)), torch.empty_like(like)
        for seen in (type, Tensor.size, Tensor.stride, Tensor.is_inference):
            assert seen(found) == seen(expected)
        assert found.dtype == dtype
        assert not found.requires_grad
        assert fresh.nbytes_of(fresh.form_of(shape, dtype)) == expected.nbytes
    made = new(*fresh.form_of((3,), dtype)).fill_(2)
    weight = torch.ones(3, dtype=dtype, requires_grad=True)
    (made * weight).sum().backward()
    assert weight.grad.tolist() == [2, 2, 2]


def test_large_tensors_of_a_form_lie_in_memory_that_others_have_left():
    form = fresh.form_of((memory.LARGE // 4,), torch.float32)
    place = fresh.tensor(*form).data_ptr()  # which is gone at once
    assert fresh.tensor(*form).data_ptr() == place


def test_a_kernel_that_two_threads_load_is_complete_for_both(tmp_path):
    path = tmp_path / "slowly_0.py"
    path.write_text("import time\ntime.sleep(0.3)\nfunction = 1\n")
    found = []

    def use():
        found.append(files.load(path).function)  # at once

    users = [threading.Thread(target=use) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert found == [1, 1, 1]


def test_what_is_lent_is_kept_for_some_kinds_and_some_memory(monkeypatch):
    monkeypatch.setattr(lending, "LIMIT", 1000)
    lent = lending.Lending()
    first, second = np.empty(300, np.uint8), np.empty(300, np.uint8)
    assert lent.taken("a") is None
    lent.put_back("a", first)
    lent.put_back("a", second)
    assert lent.taken("a") is second
    assert lent.taken("a") is first
    assert lent.taken("a") is None
    lent.put_back("a", first)
    lent.put_back("b", np.empty(600, np.uint8))
    lent.put_back("c", np.empty(400, np.uint8))
    assert list(lent.free) == ["b", "c"]  # the first had to go
    lent.put_back("d", np.empty(1001, np.uint8))
    assert list(lent.free) == ["b", "c"]  # too large to be kept
    for number in range(40):
        lent.put_back(number, np.empty(1, np.uint8))
    assert len(lent.free) == lending.KINDS


def spoil_packed_weights(layer):
    """Write NaN where the packed weights of an inference lie."""
    way = layer._way(torch.float32)
    ((desk,),) = way.desks.free.values()
    text = kernel_for(way.stack.directions[0].inference, F4).whole
    numbers = desk.inference[0].table.numbers
    known = dict(zip(text.table, numbers[FIRST:], strict=True))
    size = known[axis_of("packed_0", 0)] * known[axis_of("packed_0", 1)]
    np.ctypeslib.as_array((ctypes.c_float * size).from_address(known["packed_0"]))[:] = np.nan


@torch.no_grad()
def change_in_place(layer):
    layer.weight_hh_l0[3, 1] += 1


def change_data(layer):
    layer.weight_hh_l0.data[0, 0] += 1


def change_sign_of_zero(layer):
    layer.weight_hh_l0.data[5, 5] = -0.0


def load_others(layer):
    other = unrolled.nn.LSTM(11, 70)
    layer.load_state_dict(other.state_dict())


def change_through_numpy(layer):
    layer.weight_hh_l0.detach().numpy()[-1, -1] = 2


def take_a_step(layer):
    layer(torch.randn(50, 2, 11))[0].sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


@torch.no_grad()
def test_packed_weights_are_used_again():
    layer, x = unrolled.nn.LSTM(11, 71), torch.randn(40, 2, 11)
    layer(x)
    spoil_packed_weights(layer)
    assert layer(x)[0].isnan().any()
    layer.weight_hh_l0 *= 2
    expected = torch.nn.LSTM(11, 71)
    expected.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x)[0], expected(x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("threads_for_any_work")
@pytest.mark.parametrize(
    "change",
    [change_in_place, change_data, change_sign_of_zero, load_others, change_through_numpy,
     take_a_step],
)  # fmt: skip
def test_packed_weights_are_not_used_when_they_have_changed(change, monkeypatch):
    monkeypatch.setenv("UNROLLED_THREADS", "3")
    layer = unrolled.nn.LSTM(11, 70)
    layer.weight_hh_l0.data[5, 5] = 0.0
    x = torch.randn(40, 2, 11)

    def run():
        with torch.no_grad():
            return layer(x)[0]

    first = run()
    torch.testing.assert_close(run(), first, rtol=0, atol=0)
    change(layer)
    found = run()
    expected = layer.double()(x.double())[0].float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_layers_of_one_shape_keep_their_weights_apart():
    layers = [unrolled.nn.GRU(5, 40) for _ in range(3)]
    x = torch.randn(60, 2, 5)
    first = [layer(x)[0] for layer in layers]
    again = [layer(x)[0] for layer in layers]
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not torch.equal(first[0], first[1])
