# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever order creates, prunes, crashes, clock jumps, damage and pins come in: nothing that counts is ever lost."""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.support.histories import Statistics, run_histories, statistics_of

HISTORIES, SOAK_HISTORIES = 500, 100_000
#: Histories of one process in the soak: crashes leave descriptors behind.
SHARE = 250
#: What the histories of a run must have come across, so that they show anything.
MUST_HAPPEN = {
    "create complete",
    "create incomplete",
    "create crashed",
    "create crashed after its commit",
    "prune done",
    "prune crashed",
    "prune refused",
    "prune removed",
    "clock jump",
    "damage flip",
    "damage truncate",
    "damage remove",
    "damage manifest",
    "damage directory",
    "pin",
    "finished clean",
    "snapshot read",
}


def test_no_history_loses_a_file_or_the_last_snapshot_that_verifies(rng: random.Random) -> None:
    statistics = Statistics()
    begin = rng.randrange(2**40)
    run_histories(range(begin, begin + HISTORIES), statistics)
    print(statistics.counts)
    assert set(statistics.counts) >= MUST_HAPPEN


@pytest.mark.soak
def test_a_hundred_thousand_histories(rng: random.Random) -> None:
    statistics = Statistics()
    begin = rng.randrange(2**40)
    shares = [range(start, start + SHARE) for start in range(begin, begin + SOAK_HISTORIES, SHARE)]
    with ProcessPoolExecutor(max_workers=2, max_tasks_per_child=1) as pool:
        for number, share in enumerate(pool.map(statistics_of, shares), 1):
            statistics.merge(share)
            if number % 40 == 0:
                print(f"{number * SHARE:,} histories", flush=True)
    print(statistics.counts)
    assert set(statistics.counts) >= MUST_HAPPEN
