"""What all tests share."""

import os
import sys

import pytest

# Several test processes share the cores: threads that wait by spinning would starve each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(params=["our own", "OpenMP's"])
def threads_for_any_work(request, monkeypatch):
    """Kernels spread the least work over threads, of our own pool and of OpenMP's."""
    from unrolled.backends.cpu import sharing, threads

    monkeypatch.setattr(sharing, "THREAD_WORK", 1)
    monkeypatch.setattr(sharing, "SHARED_WORK", 0)
    if request.param == "our own":
        monkeypatch.setattr(threads, "find_team", lambda: None)
    else:
        pytest.importorskip("torch")  # brings a runtime on every system that is tested
        if threads.find_team() is None:
            pytest.skip("this process has no OpenMP runtime")


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.slow)])
def either_way(request):
    """A pass is one call of a team, or a sequence of regions and a BLAS's products."""
    if request.param == "long":
        request.getfixturevalue("long_way")


@pytest.fixture(params=["at once", "layer by layer"])
def both_ways(request, monkeypatch):
    """A call goes through the whole stack at once, as short ones do, or layer by layer."""
    if request.param == "layer by layer":
        from unrolled.nn import ways

        monkeypatch.setattr(ways.Ways, "_all_at_once", lambda *_: None)


@pytest.fixture
def long_way(monkeypatch):
    """No sequence is short: products outside the loop are a BLAS's, and weights packed are kept."""
    from unrolled.backends.cpu import short

    monkeypatch.setattr(short, "SHORT_WORK", 0)
    monkeypatch.setattr(short, "BLAS_IS_WIDE", True)
    _forget_what_is_short()
    yield
    _forget_what_is_short()


def _forget_what_is_short():
    if ways := sys.modules.get("unrolled.nn.short"):
        ways.shortcut_of.cache_clear()
