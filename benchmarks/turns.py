"""Timing by turns: each competitor runs in blocks of about 0.1 s, with a pause in between.

Idle thread pools spin for a while after their work; call-by-call turns would charge that to
whoever runs next.
"""

import statistics
import time
from collections.abc import Callable, Mapping

BLOCK = 0.1  # seconds
PAUSE = 0.05


def median_times(
    competitors: Mapping[str, Callable[[], object]], blocks: int = 5
) -> dict[str, float]:
    """Name → median seconds of a call, over `blocks` blocks of calls each."""
    calls = {}
    for name, run in competitors.items():
        run()  # compiles, allocates
        start = time.perf_counter()
        run()
        calls[name] = max(1, round(BLOCK / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(blocks):
        for name, run in competitors.items():
            time.sleep(PAUSE)
            run()
            for _ in range(calls[name]):
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
