# SPDX-License-Identifier: GPL-3.0-or-later
"""Good manners on a busy host: niceness and I/O class of all that runs there, and how fast bytes may pass."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.agent import protocol
from ansible_collections.papermerge.backup.plugins.module_utils.agent.manners import Manners
from ansible_collections.papermerge.backup.plugins.module_utils.errors import ConnectionLost, SettingError
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport import rate
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.rate import RateLimit
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Handlers
from tests.support.instances import MadeInstance
from tests.support.snapshots import (
    changed_agent,
    interpreter_without,
    local_agent,
    put_back,
    staged_agent,
    take,
    verify,
)

#: What any agent can be asked.
NOTHING = Call("read_file", {"path": "/dev/null"})


class Clock:
    """A clock on which nothing happens but sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def behaviour(pid: int) -> tuple[int, str]:
    """Return a process's niceness and I/O class, as `ionice` prints it."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    printed = subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    return int(fields[16]), printed.strip()


def programs_of(pid: int) -> dict[str, int]:
    """Return the names and ids of the programs that a process has started and that still run."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text("ascii").split()):
            found[Path(f"/proc/{child}/comm").read_text("ascii").strip()] = child
    return found


def threads_of(pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


@pytest.mark.parametrize(
    ("manners", "printed"),
    [
        (Manners(nice=7), "none: prio 4"),
        (Manners(nice=19, io_class="idle"), "idle"),
        (Manners(io_class="best-effort", io_level=6), "best-effort: prio 6"),
    ],
)
def test_the_agent_with_all_its_threads_and_programs_behaves_as_it_was_told(
    tmp_path: Path, manners: Manners, printed: str
) -> None:
    # Shrinks a little, so that it goes through zstd; large enough that zstd still waits when the first data are here.
    (tmp_path / "large.txt").write_bytes(base64.b64encode(os.urandom(24 << 20)))
    seen: dict[str, tuple[int, str]] = {}

    def look(_piece: bytes) -> None:
        if not seen:
            for number, thread in enumerate(threads_of(session.pid)):
                seen[f"thread {number}"] = behaviour(thread)
            for name, pid in programs_of(session.pid).items():
                seen[name] = behaviour(pid)

    with local_agent(manners=manners) as session:
        archive = {"root": str(tmp_path), "media_allowed_roots": [], "compress": True, "host_path": "", "size": 0}
        frames = {"frame_bytes": 32 << 20, "frame_members": 4096}
        call = Call("archive_media", {**archive, **frames}, [{"path": "large.txt"}])
        session.call(call, Handlers(data=look))
    expected = max(manners.nice, os.getpriority(os.PRIO_PROCESS, 0))
    assert "zstd" in seen
    assert len(seen) > 4, "the agent has several threads"
    if manners.io_class == "none":
        printed = next(iter(seen.values()))[1]  # whatever a process has by itself
    assert set(seen.values()) == {(expected, printed)}


def test_a_niceness_that_the_login_has_already_is_not_taken_back() -> None:
    with local_agent(before="renice -n 12 -p $$ >/dev/null; ", manners=Manners(nice=3)) as session:
        session.call(NOTHING)
        assert behaviour(session.pid)[0] == 12


@pytest.fixture
def fake_ionice(tmp_path: Path) -> str:
    """What a login shell does first so that `ionice` is one that the kernel refuses."""
    program = tmp_path / "bin" / "ionice"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'ionice: ioprio_set failed: Operation not permitted' >&2\nexit 1\n")
    program.chmod(0o755)
    return f"PATH={program.parent}:$PATH; "


def test_a_refused_class_is_told_before_anything_is_done(
    instance: MadeInstance, place: InstanceDirectory, fake_ionice: str
) -> None:
    instance.add_document()
    with (
        local_agent(before=fake_ionice, manners=Manners(io_class="idle")) as session,
        pytest.raises(
            SettingError,
            match=r"refuses I/O class idle \(papermerge_backup_io_class\): ionice: .* not permitted; set none",
        ),
    ):
        take(instance, place, session)
    assert not place.path.exists()


def test_a_host_without_ionice_is_told_so_and_needs_none_for_niceness(tmp_path: Path) -> None:
    python = interpreter_without("ionice", tmp_path)
    with (
        local_agent(python, manners=Manners(io_class="idle")) as session,
        pytest.raises(SettingError, match="needs the ionice program on the host, and there is none"),
    ):
        session.call(NOTHING)
    with local_agent(python, manners=Manners(nice=5)) as session:
        assert session.call(NOTHING) == {}


def test_staged_agents_behave_each_time(tmp_path: Path, fake_ionice: str) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n{fake_ionice}\nexec python3 "$@"\n')
    python.chmod(0o755)
    with (
        staged_agent(tmp_path, str(python), Manners(io_class="idle")) as session,
        pytest.raises(SettingError, match="refuses I/O class idle"),
    ):
        session.call(NOTHING)


class TestRateLimit:
    """The bucket, on a clock of its own."""

    def test_bytes_take_their_time_and_rests_are_made_up_for_a_second_at_most(self) -> None:
        clock = Clock()
        limit = RateLimit(1000, clock, clock.sleep)
        for _piece in range(50):
            limit.passed(100)
        assert clock.now == pytest.approx(1005.0)
        clock.now += 60
        for _piece in range(50):
            limit.passed(100)
        assert clock.now == pytest.approx(1005.0 + 60 + 4)

    def test_several_share_one_limit(self) -> None:
        waits: list[float] = []
        limit = RateLimit(1000, lambda: 0.0, waits.append)
        threads = [threading.Thread(target=limit.passed, args=(500,)) for _number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(waits) == pytest.approx([0.5, 1.0, 1.5, 2.0])

    @pytest.mark.parametrize("speed", [1024, 100_000, 20 << 20, 1 << 40])
    def test_pieces_are_small_enough_that_nobody_waits_long(self, speed: int) -> None:
        piece = RateLimit(speed).piece
        assert 1 <= piece <= rate.LARGEST_PIECE
        assert piece / speed <= rate.PIECE_SECONDS


class Traffic(RateLimit):
    """Counts what passes."""

    def __init__(self, speed: float) -> None:
        super().__init__(speed)
        self.bytes = 0

    def passed(self, count: int) -> None:
        self.bytes += count
        assert count <= self.piece
        super().passed(count)


def test_a_rate_limit_holds_for_creates_and_restores_and_over_all_agents(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    size, speed = 3_000_000, 1 << 20
    instance.add_document(os.urandom(size))
    for job in ("create", "restore"):
        traffic = Traffic(speed)
        begun = time.monotonic()
        with local_agent(limit=traffic) as session:
            if job == "create":
                take(instance, place, session)
            else:
                put_back(place, disk / "media", disk / "db.sqlite3", session)
        assert traffic.bytes > size
        # A second's worth may be made up for.
        assert time.monotonic() - begun > traffic.bytes / speed - 1.5
        assert traffic.bytes / speed > 2
    verify(place, "full")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both sides give up after a second of silence, and beat every fifth of one."""
    monkeypatch.setattr(protocol, "HEARTBEAT_INTERVAL", 0.2)
    monkeypatch.setattr(protocol, "SILENCE_LIMIT", 1.0)
    with (
        changed_agent(monkeypatch, "agent.protocol", "HEARTBEAT_INTERVAL = 10.0", "HEARTBEAT_INTERVAL = 0.2"),
        changed_agent(monkeypatch, "agent.protocol", "SILENCE_LIMIT = 45.0", "SILENCE_LIMIT = 1.0"),
    ):
        yield


@pytest.mark.usefixtures("impatient")
def test_a_low_rate_is_no_silence(tmp_path: Path) -> None:
    """A megabyte takes five silence limits either way, in frames that each take several heartbeats."""
    (tmp_path / "file").write_bytes(os.urandom(1 << 20))
    with local_agent(limit=RateLimit(200_000)) as session:
        received = bytearray()
        begun = time.monotonic()
        session.call(Call("read_file", {"path": str(tmp_path / "file")}), Handlers(data=received.extend))
        assert time.monotonic() - begun > 3
        assert bytes(received) == (tmp_path / "file").read_bytes()
        stored = session.call(Call("write_file", {"host_path": str(tmp_path / "copy")}, data=[bytes(received)]))
        assert stored["size"] == 1 << 20


@pytest.mark.usefixtures("impatient")
def test_silence_is_still_noticed_with_a_limit() -> None:
    with local_agent(limit=RateLimit(200_000)) as session:
        session.call(NOTHING)
        os.kill(session.pid, signal.SIGSTOP)
        try:
            with pytest.raises(ConnectionLost, match="nothing heard"):
                session.call(NOTHING)
        finally:
            os.kill(session.pid, signal.SIGCONT)
