# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's memory does not grow with the number of files or their size. A loose bound; `./dev bench` measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


#: Takes two snapshots in a process of its own, and tells its own peak and that of its agent, in KiB.
CONTROLLER = """
import json, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport import pack
from tests.support.snapshots import local_agent, place_in, take
sources = pack._sources()
name = pack.PACKAGE + ".agent.scanning"
assert "WINDOW = 16" in sources[name]
sources[name] = sources[name].replace("WINDOW = 16", "WINDOW = " + sys.argv[5])
pack._sources = lambda: sources
class Instance:
    media = Path(sys.argv[2]); database_url = sys.argv[3]
def peak(process):
    with open(f"/proc/{process}/status") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("VmHWM"))
for _time in range(2):
    with local_agent() as agent:
        take(Instance, place_in(Path(sys.argv[4])), agent)
        agent_peak = peak(agent.pid)
print(json.dumps([peak("self"), agent_peak]))
"""


def test_a_later_snapshot_takes_no_more_memory_for_ten_times_as_many_files(
    instance: MadeInstance, disk: Path, soak: bool
) -> None:
    """Half of them in one directory, the others in directories of three. In the soak there are a million."""
    peaks = []
    made = 0
    for count in (100_000, 1_000_000) if soak else (3_000, 30_000):
        for number in range(made, count, 6):
            folder = instance.media / "docs" / "user_1" / f"document_{number}"
            folder.mkdir(parents=True)
            for page in range(3):
                (folder / f"{page}.txt").touch()
            (instance.media / "docs" / "one").mkdir(exist_ok=True)
            for page in range(3):
                (instance.media / "docs" / "one" / f"{number + page}.txt").touch()
        made = count
        window = "16" if soak else "1"
        arguments = [str(instance.media), instance.database_url, str(disk / str(count)), window]
        run = subprocess.run(
            [sys.executable, "-c", CONTROLLER, json.dumps(sys.path), *arguments], capture_output=True, check=False
        )
        assert run.returncode == 0, run.stderr.decode()
        peaks.append(json.loads(run.stdout))
    for few, many in zip(*peaks, strict=True):
        assert many < LIMIT_KIB, peaks
        # Before SQLite's caches and the records of two parts are full, those grow.
        assert many < (1.1 * few if soak else few + (48 << 10)), peaks
