# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's memory does not grow with the number of files or their size. A loose bound; `./dev bench` measures."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call
from tests.support.instances import MadeInstance
from tests.support.snapshots import WatchedSession, local_agent, put_back, take

LIMIT_KIB = 120 << 10


def test_an_agent_stays_small_whatever_it_moves(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, soak: bool
) -> None:
    for number in range(30_000 if soak else 6_000):
        folder = instance.media / "docs" / str(number // 500)
        if not number % 500:
            folder.mkdir(parents=True)
        (folder / f"{number}.txt").write_bytes(b"x" * (number % 3000))
    instance.add_document(os.urandom(64 << 20))
    instance.execute("create table large (content blob)")
    instance.execute("insert into large values (zeroblob(60000000))")
    peaks: dict[str, int] = {}

    def watch(call: Call) -> None:
        with open(f"/proc/{agent.pid}/status", encoding="ascii") as stream:
            peaks[call.operation] = next(int(line.split()[1]) for line in stream if line.startswith("VmHWM"))

    with local_agent() as agent:
        session = WatchedSession(agent, watch)
        take(instance, place, session)
        put_back(place, disk / "media", disk / "db.sqlite3", session)
        watch(Call("end", {}))
    assert set(peaks) >= {"archive_media", "extract", "receive_database", "place"}
    assert max(peaks.values()) < LIMIT_KIB, peaks
