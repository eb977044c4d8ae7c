# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of which less than half is used: what is used is copied, and older snapshots keep theirs."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PartMember
from ansible_collections.papermerge.backup.plugins.plugin_utils import archiving, base, rewriting
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import load_record
from tests.support.instances import MadeInstance, files_below
from tests.support.snapshots import CountedSession, put_back, take, verify

FILES = 90
SIZE = 5000
LARGE = (2 << 20) + 77


@pytest.fixture(autouse=True)
def small_parts_and_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three parts of several frames, and files that are not young."""
    for module in (archiving, rewriting):
        monkeypatch.setattr(module, "PART_CONTENT_BYTES", FILES * SIZE // 3)
        monkeypatch.setattr(module, "FRAME_BYTES", 40_000)
    monkeypatch.setattr(base, "YOUNG_NS", 0)


@pytest.fixture
def full(instance: MadeInstance, rng: random.Random) -> MadeInstance:
    for number in range(FILES):
        instance.write(b"results/%03d-%b" % (number, b"\xff long name" * (number % 17)), rng.randbytes(SIZE))
    return instance


def names(full: MadeInstance) -> list[bytes]:
    return sorted(files_below(full.media))


def remove(full: MadeInstance, first: int, last: int) -> None:
    for path in names(full)[first:last]:
        os.unlink(full.path(path))


def parts_of(place: InstanceDirectory, wanted: str) -> list[str]:
    return [part.id for part in place.select(wanted).require_manifest().parts]


def require_restores(place: InstanceDirectory, wanted: str, expected: object, disk: Path) -> None:
    verify(place, "deep", wanted)
    put_back(place, disk / "restored" / "media", disk / "restored" / "db.sqlite3", snapshot=wanted)
    assert files_below(disk / "restored" / "media") == expected
    shutil.rmtree(disk / "restored")


def test_what_is_used_of_a_half_used_part_is_copied_without_the_host(
    full: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    take(full, place)
    whole = files_below(full.media)
    old = parts_of(place, "1")
    remove(full, 2, 19)
    fewer = files_below(full.media)
    with CountedSession() as session:
        take(full, place, session)
    assert {"archive_media", "hash_media"}.isdisjoint(session.calls)
    new = parts_of(place, "2")
    assert set(new) > set(old[1:])
    assert old[0] not in new
    assert len(new) == len(old)
    record = load_record(place.record_path(new[-1]), place.select("2").require_manifest().parts[-1])
    assert len(record.members) == FILES // 3 - 17
    assert len({member.offset for member in record.members}) > 1
    require_restores(place, "1", whole, disk)
    require_restores(place, "2", fewer, disk)
    # What was copied is known as it is, the next time.
    with CountedSession() as session:
        take(full, place, session)
    assert {"archive_media", "hash_media"}.isdisjoint(session.calls)
    assert sorted(parts_of(place, "3")) == sorted(new)
    require_restores(place, "3", fewer, disk)


def test_a_part_of_which_half_is_used_stays(full: MadeInstance, place: InstanceDirectory) -> None:
    take(full, place)
    remove(full, 0, FILES // 6)
    take(full, place)
    assert parts_of(place, "2") == parts_of(place, "1")
    remove(full, 0, 1)
    take(full, place)
    assert parts_of(place, "3")[:2] == parts_of(place, "1")[1:]
    assert len(parts_of(place, "3")) == 3


def test_what_is_used_of_several_parts_is_gathered_in_one(
    full: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    take(full, place)
    remaining = [path for number, path in enumerate(names(full)) if number % 10 == 0]
    for path in set(names(full)) - set(remaining):
        os.unlink(full.path(path))
    take(full, place)
    (part,) = parts_of(place, "2")
    assert part not in parts_of(place, "1")
    require_restores(place, "2", files_below(full.media), disk)


def test_new_parts_are_bounded_like_any_other(
    full: MadeInstance, place: InstanceDirectory, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(full, place)
    remove(full, 0, 20)
    monkeypatch.setattr(rewriting, "PART_CONTENT_BYTES", 3 * SIZE)
    take(full, place)
    assert len(parts_of(place, "2")) == 2 + 4
    require_restores(place, "2", files_below(full.media), disk)


def test_an_unused_part_is_dropped_and_stays_where_it_is(full: MadeInstance, place: InstanceDirectory) -> None:
    take(full, place)
    remove(full, 0, FILES // 3)
    take(full, place)
    assert parts_of(place, "2") == parts_of(place, "1")[1:]
    assert place.part_path(parts_of(place, "1")[0]).exists()


@pytest.mark.parametrize("damage", ["frame", "record", "gone"])
def test_what_cannot_be_copied_is_taken_from_the_host_and_said(
    full: MadeInstance, place: InstanceDirectory, disk: Path, damage: str
) -> None:
    full.write(b"results/zzz-large", random.Random(1).randbytes(LARGE))
    take(full, place)
    first = next(part for part in parts_of(place, "1") if b"results/zzz-large" not in _members(place, part))
    held = _members(place, first)
    path = place.part_path(first)
    if damage == "record":
        path = place.record_path(first)
    content = bytearray(path.read_bytes())
    content[len(content) * 9 // 10] ^= 1
    path.write_bytes(content)
    for name in held[: len(held) * 2 // 3]:
        os.unlink(full.path(name))
    if damage == "gone":
        path.unlink()
    warnings: list[str] = []
    with CountedSession() as session:
        take(full, place, session, warn=warnings.append)
    assert session.calls.count("archive_media") == 1
    require_restores(place, "2", files_below(full.media), disk)
    assert first not in parts_of(place, "2")
    if damage != "gone":
        assert len(warnings) == 1
        assert f"part {place.part_path(first)} is damaged" in warnings[0]
        assert place.history.damaged_parts() == {first}


def test_a_changed_byte_that_no_decompressor_sees_is_not_copied(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that do not shrink are stored as they are, without a checksum of the compressor's."""
    for module in (archiving, rewriting):
        monkeypatch.setattr(module, "PART_CONTENT_BYTES", 64 << 20)
    noise = random.Random(3)
    contents = [noise.randbytes(60_000) for _number in range(9)]
    for number, content in enumerate(contents):
        instance.write(b"results/%d" % number, content)
    take(instance, place)
    (old,) = parts_of(place, "1")
    stored = bytearray(place.part_path(old).read_bytes())
    stored[stored.index(contents[7][5000:5100])] ^= 1
    place.part_path(old).write_bytes(stored)
    for number in range(6):
        os.unlink(instance.path(b"results/%d" % number))
    warnings: list[str] = []
    take(instance, place, warn=warnings.append)
    assert "1 files are taken from the host again" in warnings[0]
    require_restores(place, "2", files_below(instance.media), disk)


def _members(place: InstanceDirectory, part: str) -> list[bytes]:
    return [member.path for member in _record(place, part)]


def test_large_files_are_copied_in_pieces_and_damaged_ones_are_named_by_no_index(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (archiving, rewriting):
        monkeypatch.setattr(module, "PART_CONTENT_BYTES", 64 << 20)
    noise = random.Random(2)
    for number in range(9):
        instance.write(b"results/%d" % number, noise.randbytes(LARGE))
    take(instance, place)
    (old,) = parts_of(place, "1")
    for number in range(6):
        instance.write(b"results/%d" % number, b"")
    whole = place.part_path(old).read_bytes()
    content = bytearray(whole)
    offset = next(member.offset for member in _record(place, old) if member.path == b"results/7")
    content[offset + LARGE // 2] ^= 1
    place.part_path(old).write_bytes(content)
    warnings: list[str] = []
    take(instance, place, warn=warnings.append)
    assert "1 files are taken from the host again" in warnings[0]
    require_restores(place, "2", files_below(instance.media), disk)
    with pytest.raises(DamageError):
        verify(place, "deep", "1")
    place.part_path(old).write_bytes(whole)
    verify(place, "deep", "1")


def _record(place: InstanceDirectory, part: str) -> list[PartMember]:
    stored = {found.id: found for found in place.select("1").require_manifest().parts}
    return load_record(place.record_path(part), stored[part]).members


def test_a_frame_of_what_is_left_ends_after_so_many_members(
    full: MadeInstance, place: InstanceDirectory, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (archiving, rewriting):
        monkeypatch.setattr(module, "FRAME_MEMBERS", 2)
    take(full, place)
    remove(full, 0, 20)
    take(full, place)
    for part in place.select("latest").require_manifest().parts:
        offsets = [member.offset for member in load_record(place.record_path(part.id), part).members]
        assert max(map(offsets.count, offsets)) == 2
    require_restores(place, "latest", files_below(full.media), disk)
