"""What all tests share."""

import os

import pytest

# Several test processes share the cores: threads that wait by spinning would starve each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(params=["our own", "OpenMP's"])
def threads_for_any_work(request, monkeypatch):
    """Kernels spread the least work over threads, of our own pool and of OpenMP's."""
    from unrolled.backends.cpu import plan, threads

    monkeypatch.setattr(plan, "THREAD_WORK", 1)
    monkeypatch.setattr(plan, "SHARED_WORK", 0)
    if request.param == "our own":
        monkeypatch.setattr(threads, "find_team", lambda: None)
    else:
        pytest.importorskip("torch")  # brings a runtime on every system that is tested
        if threads.find_team() is None:
            pytest.skip("this process has no OpenMP runtime")
