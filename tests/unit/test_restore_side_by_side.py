# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores with two agents: they fill one directory, which neither a kill nor somebody else's directory breaks."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.agent.interrupted import identity_of
from ansible_collections.papermerge.backup.plugins.module_utils.agent.workspace import OwnDirectory, abandoned
from ansible_collections.papermerge.backup.plugins.module_utils.errors import ConnectionLost, DamageError, TargetError
from ansible_collections.papermerge.backup.plugins.module_utils.media.extract import PartMemberPlan, plan_records
from ansible_collections.papermerge.backup.plugins.plugin_utils import catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Session
from tests.support.instances import MadeInstance, files_below
from tests.support.snapshots import WatchedSession, local_agent, put_back, staged_agent, take

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user, which only root can")
PARTS = 6


@pytest.fixture
def stored(instance: MadeInstance, place: InstanceDirectory, monkeypatch: pytest.MonkeyPatch) -> InstanceDirectory:
    """A snapshot of several parts, with directories that lie in more than one of them."""
    for number in range(PARTS):
        instance.add_document(b"original %d\n" % number * 1000, name=b"scan %d.pdf" % number)
        instance.write(b"results/shared/page_%d.txt" % number, b"text %d" % number)
    monkeypatch.setattr(catalog, "PART_MEMBERS", 2)
    take(instance, place)
    assert len(place.select("latest").require_manifest().parts) >= PARTS
    return place


class Target:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.media = root / "media"
        self.database = root / "db.sqlite3"
        root.mkdir()

    @property
    def names(self) -> set[str]:
        return set(os.listdir(self.root))

    @property
    def leftovers(self) -> list[Path]:
        return list(self.root.rglob(".papermerge-backup.*"))


@pytest.fixture
def target(disk: Path) -> Target:
    return Target(disk / "target")


class Agents:
    """The agents of one restore, both of which unpack; ``at_extract`` is called before each part."""

    def __init__(self, at_extract: Callable[[int], None]) -> None:
        self.pids: list[int] = []
        self._both = threading.Barrier(2, timeout=20)
        self._count = 0
        self._lock = threading.Lock()
        self._at_extract = at_extract

    def session(self) -> Session:
        first = local_agent()
        start = first.another
        assert start is not None
        self.pids.append(first.pid)

        def another() -> Session:
            beside = start()
            self.pids.append(beside.pid)  # type: ignore[attr-defined]
            return beside

        first.another = another
        return WatchedSession(first, self._before)

    def _before(self, call: Call) -> None:
        if call.operation != "extract":
            return
        with self._lock:
            self._count += 1
            number = self._count
        if number <= 2:
            self._both.wait()
        self._at_extract(number)


def test_both_agents_unpack_and_the_result_is_what_was_there(
    instance: MadeInstance, stored: InstanceDirectory, target: Target
) -> None:
    agents = Agents(lambda _number: None)
    with agents.session() as session:
        put_back(stored, target.media, target.database, session)
    assert len(agents.pids) == 2
    assert files_below(target.media) == files_below(instance.media)
    assert target.names == {"media", "db.sqlite3"}


def test_agents_that_are_reached_by_files_unpack_one_part_after_another(
    instance: MadeInstance, stored: InstanceDirectory, target: Target, tmp_path: Path
) -> None:
    with staged_agent(tmp_path) as session:
        put_back(stored, target.media, target.database, session)
    assert files_below(target.media) == files_below(instance.media)
    assert target.names == {"media", "db.sqlite3"}


@pytest.mark.parametrize("victim", [0, 1], ids=["the agent that holds the stage", "the agent beside it"])
def test_an_agent_that_is_killed_leaves_the_target_as_it_was_and_the_next_restore_works(
    instance: MadeInstance, stored: InstanceDirectory, target: Target, victim: int
) -> None:
    agents = Agents(lambda number: os.kill(agents.pids[victim], signal.SIGKILL) if number == 3 else None)
    with agents.session() as session, pytest.raises(ConnectionLost):
        put_back(stored, target.media, target.database, session)
    # Whoever is left has undone what both had made; one that was killed could not.
    assert bool(target.leftovers) is (victim == 0)
    assert target.names <= {path.name for path in target.leftovers}
    put_back(stored, target.media, target.database)
    assert files_below(target.media) == files_below(instance.media)
    assert target.names == {"media", "db.sqlite3"}


def test_a_controller_that_is_killed_leaves_the_target_as_it_was(
    instance: MadeInstance, stored: InstanceDirectory, target: Target
) -> None:
    def controller() -> None:
        agents = Agents(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == 4 else None)
        put_back(stored, target.media, target.database, agents.session())

    process = multiprocessing.get_context("fork").Process(target=controller)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while target.names and time.monotonic() < deadline:
        time.sleep(0.05)
    assert target.names == set()
    put_back(stored, target.media, target.database)
    assert files_below(target.media) == files_below(instance.media)


def test_a_shared_directory_is_not_abandoned_before_the_last_agent_is_gone(tmp_path: Path) -> None:
    first = OwnDirectory(str(tmp_path), "restore", shared=True)
    beside = OwnDirectory.join(first.path, first.identity)
    first.close()
    assert abandoned(str(tmp_path), "restore") == []
    beside.close()
    (found,) = abandoned(str(tmp_path), "restore")
    # Who clears it up has it alone.
    with pytest.raises(TargetError, match="in use"):
        OwnDirectory.join(found.path, found.identity)
    found.remove()


def extract_into(stage: Path, identity: Any) -> dict[str, Any]:
    empty = PartMemberPlan(b"a", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", True)
    arguments = {
        "media_stage": str(stage),
        "media_identity": identity,
        "tar_size": 1536,
        "compressed": False,
        "directory_mode": 0o755,
        "directory_owner": [os.geteuid(), os.getegid(), "", ""],
        "host_path": "",
    }
    with local_agent() as session:
        return session.call(Call("extract", arguments, plan_records([empty]), iter([b""])))


def private(path: Path) -> Path:
    path.mkdir(mode=0o700)
    (path / "media").mkdir()
    return path


def another_in_its_place(stage: Path) -> None:
    # The old one stays, so that its inode is not given to the new one.
    stage.rename(stage.with_name("aside"))
    private(stage)


def a_link_in_its_place(stage: Path) -> None:
    stage.rename(stage.with_name("aside"))
    stage.symlink_to("aside")


NOT_OURS = {
    "another directory in its place": another_in_its_place,
    "a link to it in its place": a_link_in_its_place,
    "open to others": lambda stage: stage.chmod(0o755),
    "gone": shutil.rmtree,
    "of another user": pytest.param(lambda stage: os.chown(stage, 12345, 12345), marks=ROOT_ONLY),
}


@pytest.mark.parametrize("change", NOT_OURS.values(), ids=NOT_OURS.keys())
def test_an_agent_refuses_a_stage_that_is_not_that_of_its_restore(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    stage = private(tmp_path / "stage")
    identity = identity_of(str(stage))
    change(stage)
    with pytest.raises(TargetError):
        extract_into(stage, identity)
    assert list(tmp_path.rglob("a")) == []


def test_an_agent_refuses_a_stage_that_another_run_holds(tmp_path: Path) -> None:
    stage = private(tmp_path / "stage")
    held = OwnDirectory.reopen(str(stage))
    with pytest.raises(TargetError, match="in use"):
        extract_into(stage, identity_of(str(stage)))
    held.close()
    # And it does take the one that is ours, to find that there is no archive.
    with pytest.raises(DamageError):
        extract_into(stage, identity_of(str(stage)))
