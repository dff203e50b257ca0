"""What all tests share."""

import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

# Several test processes share the cores: threads that wait by spinning would starve each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@settings(max_examples=5, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.floats(-1, 1), min_size=50, max_size=50))
def draw_numbers(_):
    """So many that some are constants of the code, for which Hypothesis reads its modules."""


def pytest_runtest_setup(item):
    """Before a test of Hypothesis, it has read all modules that are new.

    It does so when it next draws a number, and kernels are modules, too. To read all that earlier
    tests have made took seconds, and some test or other failed since it was slow to draw.
    """
    if item.get_closest_marker("hypothesis"):
        draw_numbers()


@pytest.fixture(autouse=True)
def kernels(request):
    """Kernels are compiled, or run as plain Python where a test is marked `plain`."""
    if request.node.get_closest_marker("plain") is None:
        yield
    else:
        from plain_kernels import everywhere

        with everywhere():
            yield


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


@pytest.fixture(params=["one chunk", pytest.param("many chunks", marks=pytest.mark.slow)])
def any_chunks(request):
    """A pass goes through its tasks once, or for a few rows of all steps after the others."""
    if request.param == "many chunks":
        request.getfixturevalue("small_chunks")


@pytest.fixture
def small_chunks(monkeypatch):
    """A pass goes through its tasks for a few rows of all steps at a time."""
    from unrolled.backends.cpu import whole

    monkeypatch.setattr(whole, "FEW", 6)
    monkeypatch.setattr(whole, "MANY", 6)
    forget_tables()
    yield
    forget_tables()


@pytest.fixture(params=["at once", "layer by layer"])
def both_ways(request, monkeypatch):
    """A call goes through the whole stack at once, as short ones do, or layer by layer."""
    if request.param == "layer by layer":
        from unrolled.nn import ways

        monkeypatch.setattr(ways.Ways, "_all_at_once", lambda *_: None)


@pytest.fixture
def long_way(monkeypatch):
    """No sequence is short: layers run one by one."""
    from unrolled.nn import short

    monkeypatch.setattr(short, "LIMIT", -1)
    forget_tables()
    yield
    forget_tables()


def forget_tables():
    """No table is kept: passes are planned anew."""
    from unrolled.backends import cpu

    cpu.Kernel.plan.cache_clear()
    if ways := sys.modules.get("unrolled.nn.short"):
        ways.shortcut_of.cache_clear()
