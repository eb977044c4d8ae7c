# SPDX-License-Identifier: GPL-3.0-or-later
"""A create that was interrupted: what it had finished is not moved again, whoever takes the next snapshot."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, ConnectionLost, SpaceError
from ansible_collections.papermerge.backup.plugins.plugin_utils import archiving, base
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import StoredWriter
from tests.support.instances import MadeInstance, files_below
from tests.support.snapshots import CountedSession, place_in, put_back, take, verify

PART = 200_000
#: Content of the instance in bytes, of which little more must be moved in all.
CONTENT = 3_000_000
AGENTS = 2


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "PART_CONTENT_BYTES", PART)
    monkeypatch.setattr(base, "YOUNG_NS", 0)


@pytest.fixture
def full(instance: MadeInstance, rng: random.Random) -> MadeInstance:
    """An instance whose files hardly shrink, in some fifteen parts."""
    for number in range(10):
        instance.add_document(rng.randbytes(3000), name=b"scan %d.pdf" % number)
    for number in range(CONTENT // 10_000):
        instance.write(b"results/%d/%d.jpg" % (number // 30, number), rng.randbytes(10_000))
    return instance


def finished_parts(place: InstanceDirectory) -> dict[str, int]:
    """Return the parts that are in their place with a record, and their stored sizes in bytes."""
    if not place.parts_path.is_dir():
        return {}
    return {part: place.part_path(part).stat().st_size for part in place.kept_parts()}


def require_resumed(full: MadeInstance, place: InstanceDirectory, disk: Path) -> None:
    """Take the next snapshot: it moves what is missing and no more, uses every finished part, and is whole."""
    finished = finished_parts(place)
    missing = CONTENT + 30_000 - sum(finished.values())
    with CountedSession() as session:
        take(full, place, session)
    moved = session.moved.get("archive_media", 0)
    assert moved <= 1.05 * missing + PART, (moved, missing)
    named = {part.id for part in place.select("latest").require_manifest().parts}
    assert set(finished) <= named
    assert os.listdir(place.incoming_path) == []
    verify(place, "deep")
    put_back(place, disk / "restored" / "media", disk / "restored" / "db.sqlite3")
    assert files_below(disk / "restored" / "media") == files_below(full.media)
    shutil.rmtree(disk / "restored")


@pytest.mark.parametrize("earlier", [False, True], ids=["first snapshot", "later snapshot"])
def test_a_connection_cut_anywhere_costs_no_finished_part(
    full: MadeInstance, place: InstanceDirectory, disk: Path, rng: random.Random, soak: bool, earlier: bool
) -> None:
    if earlier:
        shutil.move(full.media / "results", disk / "aside")
        take(full, place)
        shutil.move(disk / "aside", full.media / "results")
    kept = disk / "kept"
    shutil.copytree(place.path, kept) if earlier else kept.mkdir()
    places = [n / 50 for n in range(50)] if soak else [rng.random() * 0.5, 0.5 + rng.random() * 0.5]
    for share in places:
        shutil.rmtree(place.path, ignore_errors=True)
        shutil.copytree(kept, place.path)
        before = set(finished_parts(place))
        with CountedSession() as session:
            session.cut_after(int(CONTENT * share) + 20_000)
            with pytest.raises(ConnectionLost):
                take(full, place, session)
        finished = set(finished_parts(place)) - before
        # Each agent loses no more than the part that it was at.
        assert len(finished) >= int(CONTENT * share / PART) - AGENTS - 1, share
        require_resumed(full, place, disk)


def test_several_cuts_one_after_another_end_in_a_whole_snapshot(
    full: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    seen: set[str] = set()
    for _attempt in range(3):
        with CountedSession() as session:
            session.cut_after(CONTENT // 3)
            with pytest.raises(ConnectionLost):
                take(full, place, session)
        finished = set(finished_parts(place))
        assert finished > seen
        seen = finished
    require_resumed(full, place, disk)


@pytest.mark.parametrize("victim", ["controller", "agent"])
def test_what_a_killed_run_had_finished_is_used(
    full: MadeInstance, place: InstanceDirectory, disk: Path, rng: random.Random, victim: str
) -> None:
    wanted = rng.randrange(1, 10)
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        f"from {archiving.__name__.rpartition('.')[0]} import archiving\n"
        f"archiving.PART_CONTENT_BYTES = {PART}\n"
        "from pathlib import Path\n"
        "from tests.support.snapshots import place_in, take, local_agent\n"
        "class Instance:\n"
        f"    media = Path({str(full.media)!r}); database_url = {full.database_url!r}\n"
        "with local_agent() as session:\n"
        "    print(session.pid, flush=True)\n"
        f"    take(Instance, place_in(Path({str(place.path.parent)!r}), 'one'), session)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert run.stdout is not None
    agent = int(run.stdout.readline())
    while len(finished_parts(place)) < wanted:
        assert run.poll() is None
        time.sleep(0.002)
    os.kill(run.pid if victim == "controller" else agent, signal.SIGKILL)
    status = run.wait(30)
    run.stdout.close()
    assert status != 0
    assert place.snapshot_names() == []
    assert len(finished_parts(place)) >= wanted
    require_resumed(full, place, disk)


def test_a_full_disk_leaves_what_was_finished_before(
    full: MadeInstance, place: InstanceDirectory, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StoredWriter._store
    written = 0

    def fill(writer: StoredWriter, data: bytes) -> None:
        nonlocal written
        written += len(data)
        if written > CONTENT // 2:
            raise SpaceError("no room")
        store(writer, data)

    with monkeypatch.context() as patch:
        patch.setattr(StoredWriter, "_store", fill)
        with pytest.raises(SpaceError):
            take(full, place)
    assert len(finished_parts(place)) >= CONTENT // 2 // PART - AGENTS - 1
    require_resumed(full, place, disk)


def test_a_part_that_was_cut_off_while_it_was_kept_is_no_part(
    full: MadeInstance, place: InstanceDirectory, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the renames of a part and of its record: nobody knows what the part holds."""
    rename = os.rename

    def rename_once(source: Path, target: Path) -> None:
        if str(target).endswith(".json.zst"):
            raise OSError(5, "as if killed")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename_once)
        with pytest.raises(BackupError):
            take(full, place)
    assert len(os.listdir(place.parts_path)) in range(1, AGENTS + 1)
    assert finished_parts(place) == {}
    require_resumed(full, place, disk)


@pytest.mark.parametrize("what", ["record", "part"])
def test_a_finished_part_that_was_damaged_meanwhile_is_not_used(
    full: MadeInstance, place: InstanceDirectory, disk: Path, what: str
) -> None:
    with CountedSession() as session:
        session.cut_after(CONTENT // 2)
        with pytest.raises(ConnectionLost):
            take(full, place, session)
    part = place.kept_parts()[0]
    path = place.record_path(part) if what == "record" else place.part_path(part)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    take(full, place)
    assert part not in {named.id for named in place.select("latest").require_manifest().parts}
    verify(place, "deep")


def test_another_controller_process_and_another_machine_use_the_parts(
    full: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    with CountedSession() as session:
        session.cut_after(CONTENT // 2)
        with pytest.raises(ConnectionLost):
            take(full, place, session)
    # The unfinished work of another machine is left alone; what it finished is anybody's.
    other = place.incoming_path / "000009"
    other.mkdir()
    (place.incoming_path / "000009.owner").write_text("elsewhere")
    moved = shutil.copytree(place.path.parent, disk / "elsewhere")
    finished = set(finished_parts(place))
    took = take(full, place_in(moved, place.name))
    assert took["sequence"] == 10
    assert finished <= {part.id for part in place_in(moved, place.name).select("latest").require_manifest().parts}


def test_the_age_of_an_adopted_part_begins_anew(full: MadeInstance, place: InstanceDirectory) -> None:
    """So that nobody who removes old unnamed parts takes one from under a create that goes on."""
    with CountedSession() as session:
        session.cut_after(CONTENT // 2)
        with pytest.raises(ConnectionLost):
            take(full, place, session)
    for path in place.parts_path.iterdir():
        os.utime(path, (0, 0))
    take(full, place)
    assert min(path.stat().st_mtime for path in place.parts_path.iterdir()) > time.time() - 60


def test_the_manifest_counts_as_new_only_what_this_create_has_written(
    full: MadeInstance, place: InstanceDirectory
) -> None:
    with CountedSession() as session:
        session.cut_after(CONTENT // 2)
        with pytest.raises(ConnectionLost):
            take(full, place, session)
    finished = finished_parts(place)
    take(full, place)
    manifest = place.select("latest").require_manifest()
    records = sum(part.record_size for part in manifest.parts if part.id in finished)
    totals = manifest.totals
    assert totals["stored_bytes"] - totals["new_bytes"] == sum(finished.values()) + records
