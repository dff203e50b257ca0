"""Timing by turns: each competitor runs in blocks of about 0.1 s, with a pause in between.

Idle thread pools spin for a while after their work; call-by-call turns would charge that to
whoever runs next.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Run = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """The seconds of a call.

    Attributes:
        median: of all calls.
        low, high: the quartiles.
        calls: how many were timed.
    """

    median: float
    low: float
    high: float
    calls: int


@dataclass(frozen=True)
class Turns:
    """How competitors take turns.

    Attributes:
        rounds: how often each has its turn.
        block: seconds of a turn.
        pause: seconds of rest before it.
        slow: a call that takes longer, in seconds, has two turns of one call each.
    """

    rounds: int = 5
    block: float = 0.1
    pause: float = 0.05
    slow: float = 0.5

    def time(self, competitors: Mapping[str, Run]) -> dict[str, Timing]:
        """Name → the seconds of a call."""
        times = {}
        for name, run in competitors.items():
            run()  # compiles, allocates
            times[name] = [_seconds(run)]
        first = {name: found[0] for name, found in times.items()}
        for number in range(self.rounds):
            for name, run in competitors.items():
                if first[name] > self.slow and number >= 2:
                    continue
                time.sleep(self.pause)
                if first[name] < self.block:
                    run()  # wakes its threads, brings its arrays back into the caches
                for _ in range(max(1, round(self.block / first[name]))):
                    times[name].append(_seconds(run))
        return {name: _timing(found) for name, found in times.items()}


# A try: one turn of one call.
ONCE = Turns(rounds=1, block=0.0, pause=0.0)


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _timing(times: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high, len(times))
