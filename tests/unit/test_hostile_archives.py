# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts made by hand: whatever an archive names or holds, nothing but what the index says is written, and only below
the target."""

from __future__ import annotations

import hashlib
import os
import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ansible_collections.papermerge.backup.plugins.module_utils.agent.interrupted import identity_of
from ansible_collections.papermerge.backup.plugins.module_utils.durable import ExactReader
from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.media.extract import (
    Extractor,
    Ownership,
    PartMemberPlan,
    member_plans,
    plan_records,
)
from ansible_collections.papermerge.backup.plugins.module_utils.media.tar import (
    END_OF_ARCHIVE,
    member_header,
    padding,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import StoredPart
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PartMember, PartRecord
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import load_record, store, unpack
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored_media import check_part
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call
from tests.support.instances import MadeInstance
from tests.support.snapshots import interpreter_without, local_agent

CONTENT = b"content of a file\n" * 40


def member(path: bytes, content: bytes = CONTENT) -> bytes:
    return member_header(path, len(content)) + content + bytes(padding(len(content)))


def header(kind: bytes, path: bytes, link: bytes = b"") -> bytes:
    """Return a header that member_header would not write."""
    block = bytearray(member_header(path, 0))
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def plan(path: bytes, content: bytes = CONTENT, wanted: bool = True) -> PartMemberPlan:
    return PartMemberPlan(path, len(content), hashlib.sha256(content).hexdigest(), wanted)


class Target:
    """A target host's side of one extract: an agent, a stage, and something beside it that must stay as it is."""

    def __init__(self, root: Path, interpreter: str | None) -> None:
        self.root = root
        self.stage = root / "stage"
        (self.stage / "media").mkdir(parents=True)
        self.stage.chmod(0o700)
        (root / "outside").write_bytes(b"untouched")
        self.interpreter = interpreter

    def extract(
        self,
        plans: list[PartMemberPlan],
        tar: bytes,
        tar_size: int | None = None,
        stored: bytes | None = None,
    ) -> dict[str, Any]:
        """Send a part. ``stored``: what is sent instead of the compressed tar."""
        packed = self.interpreter is None
        data = (zstandard.compress(tar) if stored is None else stored) if packed else tar
        arguments = {
            "media_stage": str(self.stage),
            "media_identity": identity_of(str(self.stage)),
            "tar_size": len(tar) if tar_size is None else tar_size,
            "compressed": packed,
            "directory_mode": 0o750,
            "directory_owner": [os.geteuid(), os.getegid(), "", ""],
            "host_path": "",
        }
        pieces = [data[start : start + (1 << 20)] for start in range(0, len(data), 1 << 20)]
        with local_agent(self.interpreter) as session:
            return session.call(Call("extract", arguments, plan_records(plans), iter(pieces)))

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and not path.is_symlink()
        }


@pytest.fixture(params=["zstd", "no zstd"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    interpreter = interpreter_without("zstd", tmp_path) if request.param == "no zstd" else None
    made = Target(tmp_path / "target", interpreter)
    yield made
    outside = {name: content for name, content in made.files().items() if not name.startswith("stage/media/")}
    assert outside == {"outside": b"untouched"}
    assert not [path for path in made.root.rglob("*") if path.is_symlink()]


def test_a_sound_part_is_extracted_and_what_is_not_wanted_is_read_past(target: Target) -> None:
    tar = member(b"a") + member(b"b/c", b"") + member(b"d", b"x") + END_OF_ARCHIVE
    result = target.extract([plan(b"a"), plan(b"b/c", b""), plan(b"d", b"x", wanted=False)], tar)
    assert result == {"files": 2, "size": len(CONTENT)}
    assert target.files() == {"outside": b"untouched", "stage/media/a": CONTENT, "stage/media/b/c": b""}


HOSTILE_MEMBERS = {
    "a path upwards": member(b"../outside"),
    "a path upwards further down": member(b"a/../../../outside"),
    "an absolute path": member(b"/outside"),
    "another name": member(b"b"),
    "a name with a slash more": member(b"a/"),
    "more content": member(b"a", CONTENT + b"x"),
    "less content": member(b"a", CONTENT[:-1]),
    "other content": member(b"a", CONTENT[::-1]),
    "a symbolic link": header(b"2", b"a", b"/etc/passwd") + member(b"a"),
    "a symbolic link of this name": header(b"2", b"a", b"../../outside"),
    "a hard link": header(b"1", b"a", b"../outside"),
    "a character device": header(b"3", b"a"),
    "a block device": header(b"4", b"a"),
    "a directory": header(b"5", b"a"),
    "a FIFO": header(b"6", b"a"),
    "a global header": header(b"g", b"a") + member(b"a"),
    "a long name of GNU tar": header(b"L", b"././@LongLink") + member(b"a"),
    "nothing": b"",
}


@pytest.mark.parametrize("hostile", HOSTILE_MEMBERS.values(), ids=HOSTILE_MEMBERS)
def test_an_archive_with_another_member_than_the_record_says_is_refused(tmp_path: Path, hostile: bytes) -> None:
    tar = hostile + member(b"z") + END_OF_ARCHIVE
    plans = [plan(b"a"), plan(b"z")]
    target = Target(tmp_path / "target", None)
    extractor = Extractor(str(target.stage / "media"), 0o700, (-1, -1), Ownership())
    with pytest.raises(DamageError):
        extractor.extract(ExactReader(iter([tar])), len(tar), plans)
    extractor.close()
    assert {name for name in target.files() if not name.startswith("stage/media/")} == {"outside"}
    assert not [path for path in target.root.rglob("*") if path.is_symlink()]
    record = PartRecord(
        "0" * 32, 1, "0" * 64, len(tar), [PartMember(row.path, row.size, row.sha256, 0) for row in plans]
    )
    with pytest.raises(DamageError):
        check_part(iter([zstandard.compress(tar)]), record, "part")


def test_an_agent_refuses_archives_with_another_member_than_the_record_says(
    target: Target, rng: random.Random, soak: bool
) -> None:
    names = list(HOSTILE_MEMBERS)
    for name in names if soak else rng.sample(names, 4):
        with pytest.raises(DamageError):
            target.extract([plan(b"a"), plan(b"z")], HOSTILE_MEMBERS[name] + member(b"z") + END_OF_ARCHIVE)
        (target.stage / "media" / "a").unlink(missing_ok=True)


def test_a_member_more_or_less_than_the_record_says_is_refused(target: Target) -> None:
    tar = member(b"a") + member(b"b") + END_OF_ARCHIVE
    with pytest.raises(DamageError, match="more members"):
        target.extract([plan(b"a")], tar)
    with pytest.raises(DamageError, match="its end"):
        Target(target.root / "stage" / "media" / "second", target.interpreter).extract(
            [plan(b"a"), plan(b"b"), plan(b"c")], tar
        )
    (target.root / "stage" / "media" / "second" / "outside").unlink()


def test_an_unsafe_path_is_refused_even_when_the_record_and_the_archive_agree(target: Target) -> None:
    paths = [b"../outside", b"/etc/passwd", b"a/../../b", b"", b".", b"a//b", b"a\0b"]
    for path in paths:
        with pytest.raises(DamageError):
            list(member_plans(plan_records([plan(path)])))
    for path in paths[:3]:
        with pytest.raises(DamageError):
            target.extract([plan(path)], member(path) + END_OF_ARCHIVE)


def test_a_link_that_stands_where_a_file_or_directory_goes_is_not_followed(target: Target) -> None:
    (target.stage / "media" / "link").symlink_to(target.root)
    (target.stage / "media" / "file").symlink_to(target.root / "outside")
    for path in (b"link/outside", b"file"):
        with pytest.raises(BackupError):
            target.extract([plan(path)], member(path) + END_OF_ARCHIVE)
    for name in ("link", "file"):
        (target.stage / "media" / name).unlink()


def test_the_same_path_twice_or_a_file_that_is_also_a_directory_is_refused(target: Target) -> None:
    with pytest.raises(BackupError):
        target.extract([plan(b"a"), plan(b"a")], member(b"a") + member(b"a") + END_OF_ARCHIVE)
    with pytest.raises(BackupError):
        target.extract([plan(b"f"), plan(b"f/b")], member(b"f") + member(b"f/b") + END_OF_ARCHIVE)


def test_set_user_id_bits_are_not_restored(target: Target) -> None:
    row = plan(b"a")._replace(mode=0o6755, uid=os.geteuid(), gid=os.getegid())
    target.extract([row], member(b"a") + END_OF_ARCHIVE)
    assert (target.stage / "media" / "a").stat().st_mode & 0o7777 == 0o755


def test_what_follows_the_archive_is_refused(target: Target) -> None:
    tar = member(b"a") + END_OF_ARCHIVE
    with pytest.raises(DamageError):
        target.extract([plan(b"a")], tar + b"\0" * 512, tar_size=len(tar))
    with pytest.raises(DamageError):
        second = Target(target.root / "stage" / "media" / "second", target.interpreter)
        second.extract([plan(b"a")], tar + b"\0" * (5 << 20))
    (target.root / "stage" / "media" / "second" / "outside").unlink()


def test_a_part_that_is_cut_short_is_refused(target: Target, rng: random.Random) -> None:
    tar = member(b"a", rng.randbytes(5000)) + END_OF_ARCHIVE
    row = replace_content(plan(b"a"), tar[512:5512])
    with pytest.raises(DamageError):
        if target.interpreter is None:
            target.extract([row], tar, stored=zstandard.compress(tar)[:-20])
        else:
            target.extract([row], tar[:-600], tar_size=len(tar))


def replace_content(row: PartMemberPlan, content: bytes) -> PartMemberPlan:
    return row._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())


BOMB_BYTES = 3 << 30


def bomb() -> bytes:
    """Return a zstd frame of some 100 kB that unpacks to 3 GiB of zeros: blocks that repeat one byte."""
    blocks = BOMB_BYTES // (128 << 10)
    frame = [b"\x28\xb5\x2f\xfd", b"\x00", b"\x38"]  # no content size, a window of 128 KiB
    for number in range(blocks):
        last = number == blocks - 1
        frame.append(struct.pack("<I", (128 << 10) << 3 | 1 << 1 | last)[:3] + b"\0")
    return b"".join(frame)


def test_a_zstd_bomb_is_refused_by_the_controller_before_it_takes_memory() -> None:
    packed = bomb()
    assert len(packed) < 200_000
    total = 0
    with pytest.raises(DamageError, match="holds more than its record says"):
        for piece in unpack([packed], 1 << 20, "part"):
            total += len(piece)
    assert total <= 1 << 20


def test_a_zstd_bomb_is_refused_by_the_agent(tmp_path: Path) -> None:
    target = Target(tmp_path / "target", None)
    start = zstandard.compress(member_header(b"a", len(CONTENT)))
    for stored in (bomb(), start + bomb(), zstandard.compress(member(b"a") + END_OF_ARCHIVE) + bomb()):
        with pytest.raises(DamageError):
            target.extract([plan(b"a")], member(b"a") + END_OF_ARCHIVE, stored=stored)
        for path in (target.stage / "media").iterdir():
            assert path.stat().st_size <= len(CONTENT)
            path.unlink()


def test_a_database_larger_than_the_manifest_says_is_refused_by_the_agent(tmp_path: Path) -> None:
    arguments = {
        "database_stage": str(tmp_path),
        "release_line": "2.0",
        "compressed": True,
        "plain_size": 1 << 20,
        "plain_sha256": "0" * 64,
        "host_path": "",
    }
    with local_agent() as session, pytest.raises(DamageError, match="larger than the manifest says"):
        session.call(Call("receive_database", arguments, data=iter([bomb()])))
    assert (tmp_path / "database.sqlite3").stat().st_size <= 4 << 20


@pytest.mark.parametrize("change", [{"plain_sha256": "0" * 64}, {"plain_size": 1 << 20}], ids=str)
@pytest.mark.parametrize("compressed", [True, False])
def test_another_database_than_the_manifest_says_is_refused_by_the_agent(
    instance: MadeInstance, tmp_path: Path, compressed: bool, change: dict[str, Any]
) -> None:
    content = instance.database.read_bytes()
    stage = tmp_path / "stage"
    stage.mkdir(mode=0o700)
    arguments = {
        "database_stage": str(stage),
        "release_line": "2.0",
        "compressed": compressed,
        "plain_size": len(content),
        "plain_sha256": hashlib.sha256(content).hexdigest(),
        "host_path": "",
    }
    data = zstandard.compress(content) if compressed else content
    with local_agent() as session:
        assert session.call(Call("receive_database", arguments, data=iter([data])))["plain_size"] == len(content)
    (stage / "database.sqlite3").unlink()
    with local_agent() as session, pytest.raises(DamageError, match="not the one whose size and SHA-256"):
        session.call(Call("receive_database", {**arguments, **change}, data=iter([data])))


@pytest.mark.parametrize("window_log", [28, 31])
def test_a_frame_that_asks_for_too_much_memory_is_refused(window_log: int, tmp_path: Path) -> None:
    packed = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(window_log - 10) << 3]) + struct.pack("<I", 1)[:3]
    with pytest.raises(DamageError):
        list(unpack([packed], 1 << 20, "part"))
    target = Target(tmp_path / "target", None)
    with pytest.raises(DamageError):
        target.extract([plan(b"a")], END_OF_ARCHIVE, stored=packed)


def test_frames_that_stand_one_after_another_are_all_unpacked() -> None:
    frames = [zstandard.compress(b"%d" % number * 5000) for number in range(5)] + [zstandard.compress(b"")]
    plain = b"".join(b"%d" % number * 5000 for number in range(5))
    joined = b"".join(frames)
    for size in (1, 7, 4096, len(joined)):
        pieces = [joined[start : start + size] for start in range(0, len(joined), size)]
        assert b"".join(unpack(pieces, len(plain), "part")) == plain
    for cut in range(1, len(frames[0])):
        with pytest.raises(DamageError):
            list(unpack([joined[:cut]], len(plain), "part"))
    with pytest.raises(DamageError):
        list(unpack([joined + b"x"], len(plain), "part"))


def test_a_record_that_is_sound_but_of_another_part_is_refused(tmp_path: Path) -> None:
    row = plan(b"a")
    record = PartRecord("0" * 32, 7, "a" * 64, 2048, [PartMember(b"a", row.size, row.sha256, 0)])
    stored = store(tmp_path / "record", [record.encode()])
    part = StoredPart("0" * 32, 7, "a" * 64, stored.size, stored.sha256)
    assert load_record(tmp_path / "record", part) == record
    for other in (replace(part, id="1" * 32), replace(part, size=8), replace(part, sha256="b" * 64)):
        with pytest.raises(DamageError, match="the record of another part"):
            load_record(tmp_path / "record", other)


def test_a_replaced_record_field_is_no_way_around() -> None:
    tar = member(b"a") + END_OF_ARCHIVE
    row = plan(b"a")
    record = PartRecord("0" * 32, 1, "0" * 64, len(tar), [PartMember(b"a", row.size, row.sha256, 0)])
    assert check_part(iter([zstandard.compress(tar)]), record, "part") == 1
    for spoiled in (
        replace(record, tar_size=len(tar) - 1),
        replace(record, members=[PartMember(b"b", row.size, row.sha256, 0)]),
        replace(record, members=[PartMember(b"a", row.size + 1, row.sha256, 0)]),
        replace(record, members=[PartMember(b"a", row.size, "1" * 64, 0)]),
        replace(record, members=[]),
    ):
        with pytest.raises(DamageError):
            check_part(iter([zstandard.compress(tar)]), spoiled, "part")
