# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot after the first: what is known is not moved again, and what changed is, however well it hides."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError, LossError
from ansible_collections.papermerge.backup.plugins.plugin_utils import archiving, base
from ansible_collections.papermerge.backup.plugins.plugin_utils.listing import verify_snapshots
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, Repository
from tests.support.instances import MadeInstance, files_below
from tests.support.snapshots import CountedSession, place_in, put_back, quiet, staged_agent, take, verify

FILES = 1000


@pytest.fixture(autouse=True)
def small_parts_and_no_young_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts from little content; files that were made a moment ago count as old."""
    monkeypatch.setattr(archiving, "PART_CONTENT_BYTES", 130_000)
    monkeypatch.setattr(base, "YOUNG_NS", 0)


@pytest.fixture
def full(instance: MadeInstance, rng: random.Random) -> MadeInstance:
    """An instance with some thousand files that hardly shrink."""
    for number in range(10):
        instance.add_document(rng.randbytes(3000), name=b"scan %d.pdf" % number)
    for number in range(FILES - 10):
        instance.write(b"results/%d/%d.txt" % (number // 100, number), rng.randbytes(rng.randrange(600)))
    return instance


def counted_take(instance: MadeInstance, place: InstanceDirectory, **settings: object) -> CountedSession:
    with CountedSession() as session:
        take(instance, place, session, **settings)
    return session


def parts_of(place: InstanceDirectory, wanted: str = "latest") -> set[str]:
    return {part.id for part in place.select(wanted).require_manifest().parts}


def require_restores(
    place: InstanceDirectory, expected: dict[bytes, tuple[bytes, int, int]], disk: Path, wanted: str = "latest"
) -> None:
    target = disk / f"restored-{wanted}-{len(list(disk.iterdir()))}"
    put_back(place, target / "media", target / "db.sqlite3", snapshot=wanted)
    assert files_below(target / "media") == expected
    shutil.rmtree(target)


def test_nothing_is_moved_for_what_is_as_it_was(full: MadeInstance, place: InstanceDirectory, disk: Path) -> None:
    take(full, place)
    parts = sorted(os.listdir(place.parts_path))
    assert len(parts) > 4
    session = counted_take(full, place)
    assert session.media_bytes() <= 16 * FILES, session.moved
    assert {"archive_media", "hash_media"}.isdisjoint(session.calls)
    assert sorted(os.listdir(place.parts_path)) == parts
    first, second = (snapshot.require_manifest() for snapshot in place.snapshots())
    assert second.parts == first.parts
    assert second.index_file == first.index_file
    assert second.totals["new_bytes"] == second.database_file.size + second.index_file.size
    verify(place, "deep")
    require_restores(place, files_below(full.media), disk)


def test_of_new_files_little_more_than_themselves_is_moved(
    full: MadeInstance, place: InstanceDirectory, rng: random.Random
) -> None:
    take(full, place)
    for number in range(FILES // 100):
        full.write(b"results/new/%d" % number, rng.randbytes(20_000))
    session = counted_take(full, place)
    manifest = place.select("latest").require_manifest()
    new = [part for part in manifest.parts if part.id not in parts_of(place, "1")]
    stored = sum(part.size for part in new)
    assert FILES // 100 * 20_000 < stored < FILES // 100 * 22_000
    assert session.media_bytes() <= 1.10 * stored + 16 * (FILES + FILES // 100), session.moved
    assert "hash_media" not in session.calls
    verify(place, "deep")


@pytest.mark.parametrize("how", ["touched", "copied", "restored"])
def test_content_that_is_known_is_hashed_and_not_moved(
    full: MadeInstance, place: InstanceDirectory, disk: Path, how: str
) -> None:
    take(full, place)
    parts = sorted(os.listdir(place.parts_path))
    if how == "touched":
        for path in full.media.rglob("*"):
            os.utime(path, ns=(0, 1_600_000_000_000_000_001))
    else:
        full.media.rename(disk / "former")
        if how == "copied":
            shutil.copytree(disk / "former", full.media)
        else:
            full.database.unlink()
            put_back(place, full.media, full.database)
    session = counted_take(full, place)
    assert session.calls.count("hash_media") == 1
    assert "archive_media" not in session.calls
    assert sorted(os.listdir(place.parts_path)) == parts
    verify(place, "deep")
    require_restores(place, files_below(full.media), disk)
    assert {"archive_media", "hash_media"}.isdisjoint(counted_take(full, place).calls)


def test_a_file_overwritten_in_place_with_its_time_put_back_is_found(
    full: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    before = files_below(full.media)
    take(full, place)
    path = full.path(b"results/3/321.txt")
    full.write(b"results/3/321.txt", b"")
    os.utime(path, ns=(0, 5))
    take(full, place)
    content = b"the same size"
    for text in (content, content[::-1]):
        status = os.stat(path)
        full.write(b"results/3/321.txt", text)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert os.stat(path).st_mtime_ns == 5
        session = counted_take(full, place)
        assert session.calls.count("archive_media") == 1
        require_restores(place, files_below(full.media), disk)
    require_restores(place, before, disk, "1")


def test_a_file_as_young_as_the_dump_is_recognised_by_its_content_only(
    instance: MadeInstance, place: InstanceDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might have been written again after it was read, within the same tick of the file system's clock."""
    monkeypatch.setattr(base, "YOUNG_NS", 3600 * 10**9)
    instance.add_document()
    take(instance, place)
    session = counted_take(instance, place)
    assert session.calls.count("hash_media") == 1
    assert "archive_media" not in session.calls
    monkeypatch.setattr(base, "YOUNG_NS", 0)
    assert {"archive_media", "hash_media"}.isdisjoint(counted_take(instance, place).calls)


def test_both_snapshots_keep_their_own_content_of_a_path(
    full: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    before = files_below(full.media)
    take(full, place)
    full.write(b"results/0/7.txt", b"another content")
    os.rename(full.path(b"results/0/8.txt"), full.path(b"results/0/renamed"))
    os.unlink(full.path(b"results/0/9.txt"))
    after = files_below(full.media)
    assert len(after) == len(before) - 1
    take(full, place)
    assert parts_of(place, "2") > parts_of(place, "1")
    require_restores(place, before, disk, "1")
    require_restores(place, after, disk, "2")
    # What was is back: its part is there still, and the base does not name the content.
    full.write(b"results/0/9.txt", before[b"results/0/9.txt"][0])
    take(full, place)
    require_restores(place, files_below(full.media), disk, "3")
    for wanted in "123":
        verify(place, "deep", wanted)


def test_what_only_an_older_snapshot_holds_is_not_moved_again(
    full: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    take(full, place)
    whole = files_below(full.media)
    shutil.move(full.media / "results", disk / "results")
    take(full, place)
    shutil.move(disk / "results", full.media / "results")
    parts = sorted(os.listdir(place.parts_path))
    session = counted_take(full, place)
    assert "archive_media" not in session.calls
    assert len(parts_of(place, "2") | parts_of(place, "1")) > len(parts_of(place, "2"))
    assert parts_of(place, "1") <= parts_of(place, "3")
    assert sorted(os.listdir(place.parts_path)) == parts
    verify(place, "deep")
    require_restores(place, whole, disk)


@pytest.mark.parametrize("what", ["part gone", "part shorter", "record gone", "record shorter", "named in the history"])
def test_after_damage_to_a_part_the_next_snapshot_is_whole_again(
    full: MadeInstance, place: InstanceDirectory, disk: Path, what: str
) -> None:
    take(full, place)
    part = next(iter(parts_of(place)))
    path = place.record_path(part) if "record" in what else place.part_path(part)
    if "gone" in what:
        path.unlink()
    elif "shorter" in what:
        os.truncate(path, path.stat().st_size - 1)
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        place.history.append("damaged", place.snapshot_names()[0], "0" * 64, part=part)
    session = counted_take(full, place)
    assert session.calls.count("archive_media") == 1
    assert part not in parts_of(place)
    assert parts_of(place, "1") - {part} < parts_of(place)
    verify(place, "deep")
    require_restores(place, files_below(full.media), disk)
    with pytest.raises(DamageError):
        verify(place, "deep", "1")


@pytest.mark.parametrize("level", ["full", "deep"])
def test_a_verification_names_every_damaged_part_and_the_next_snapshot_does_without_them(
    full: MadeInstance, place: InstanceDirectory, disk: Path, level: str
) -> None:
    take(full, place)
    repositories = [Repository(str(place.path.parent))]
    parts = sorted(parts_of(place))
    damaged = {parts[0], parts[-1]}
    for path in (place.part_path(parts[0]), place.record_path(parts[-1])):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    for record in (False, True, True):
        (row,) = verify_snapshots(repositories, None, [], "latest", level, quiet(), record)
        assert row["result"] == "damaged"
        assert place.history.damaged_parts() == (damaged if record else set())
    assert [row["event"] for row in place.history.rows()].count("damaged") == len(damaged)
    take(full, place)
    assert parts_of(place).isdisjoint(damaged)
    assert len(parts_of(place) & set(parts)) == len(parts) - len(damaged)
    rows = verify_snapshots(repositories, None, [], "all", "deep", quiet(), True)
    assert [row["result"] for row in rows] == ["damaged", "sound"]
    require_restores(place, files_below(full.media), disk)


def test_a_quick_verification_names_parts_that_are_gone(full: MadeInstance, place: InstanceDirectory) -> None:
    take(full, place)
    gone, shorter, *_others = sorted(parts_of(place))
    place.part_path(gone).unlink()
    os.truncate(place.record_path(shorter), 10)
    verify_snapshots([Repository(str(place.path.parent))], None, [], "latest", "quick", quiet(), True)
    assert place.history.damaged_parts() == {gone, shorter}


@pytest.mark.parametrize("what", ["index", "manifest"])
def test_a_snapshot_that_cannot_be_read_is_passed_over_as_a_base(
    full: MadeInstance, place: InstanceDirectory, what: str
) -> None:
    take(full, place)
    full.write(b"results/0/7.txt", b"another content")
    take(full, place)
    damaged = place.select("2")
    path = damaged.directory / ("manifest.json" if what == "manifest" else damaged.require_manifest().index_file.name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    session = counted_take(full, place)
    assert session.calls.count("hash_media") == 1
    assert "archive_media" not in session.calls
    verify(place, "deep", "3")
    previous = place.select("3").require_manifest().fields["previous_manifest_sha256"]
    assert previous == place.select("1").manifest_sha256


def test_losses_are_counted_against_the_newest_complete_snapshot_whatever_the_base_is(
    full: MadeInstance, place: InstanceDirectory
) -> None:
    path = full.add_document(b"to be lost")
    take(full, place)
    kept = Path(os.fsdecode(full.path(path))).read_bytes()
    os.unlink(full.path(path))
    for _time in range(2):
        with pytest.raises(LossError) as lost:
            counted_take(full, place)
        assert lost.value.details["snapshot"]["state"] == "incomplete"
    full.write(path, kept)
    session = counted_take(full, place)
    assert session.calls.count("hash_media") <= 1
    assert place.select("latest").sequence == 4
    verify(place, "deep")


def test_a_staged_create_is_incremental_as_well(full: MadeInstance, place: InstanceDirectory, tmp_path: Path) -> None:
    take(full, place)
    parts = set(os.listdir(place.parts_path))
    os.utime(full.path(b"results/0/1.txt"))
    full.write(b"results/0/7.txt", b"another content")
    with staged_agent(tmp_path) as session:
        take(full, place, session)
    added = set(os.listdir(place.parts_path)) - parts
    assert len(added) == 2
    assert sum((place.parts_path / name).stat().st_size for name in added) < 2000
    verify(place, "deep")
    assert take(full, place)["files"] == FILES


def test_derived_files_come_and_go(full: MadeInstance, place: InstanceDirectory) -> None:
    assert [take(full, place, derived=derived)["files"] for derived in (True, False, True)] == [FILES, 10, FILES]
    for wanted in "123":
        verify(place, "deep", wanted)


def test_any_history_of_a_media_directory_restores_from_each_of_its_snapshots(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, rng: random.Random, soak: bool
) -> None:
    states = []
    past: list[tuple[bytes, bytes]] = []
    for _round in range(40 if soak else 8):
        for _change in range(rng.randrange(12)):
            names = list(files_below(instance.media))
            path = b"results/%d/%d" % (rng.randrange(3), rng.randrange(40))
            old = rng.choice(names) if names else path
            action = rng.choice(["write", "write", "again", "touch", "delete", "rename", "copy", "back"])
            if action == "write" or not os.path.exists(instance.path(old)):
                past.append((path, rng.randbytes(rng.choice([0, 10, 300, 300, 50_000]))))
                instance.write(*past[-1])
            elif action == "again":
                # As large as before, in the same file, and with its time put back.
                status = os.stat(instance.path(old))
                instance.write(old, rng.randbytes(status.st_size))
                os.utime(instance.path(old), ns=(0, status.st_mtime_ns))
            elif action == "touch":
                os.utime(instance.path(old), ns=(0, rng.randrange(10**18)))
            elif action == "delete":
                os.unlink(instance.path(old))
            elif action == "rename":
                os.makedirs(os.path.dirname(instance.path(path)), exist_ok=True)
                os.rename(instance.path(old), instance.path(path))
            elif action == "copy":
                content = Path(os.fsdecode(instance.path(old))).read_bytes()
                os.unlink(instance.path(old))
                instance.write(old, content)
            elif past:
                instance.write(*rng.choice(past))
        states.append(files_below(instance.media))
        counted_take(instance, place)
    for number, state in enumerate(states, 1):
        verify(place, "deep", str(number))
        require_restores(place, state, disk, str(number))


def test_instances_do_not_share_parts(full: MadeInstance, place: InstanceDirectory) -> None:
    take(full, place)
    other = place_in(place.path.parent, "two")
    session = counted_take(full, other)
    assert "archive_media" in session.calls
    assert parts_of(place).isdisjoint(parts_of(other))
