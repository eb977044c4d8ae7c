# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof: the class of every version row, what counts as loss, what is only counted."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.engines import database_at
from ansible_collections.papermerge.backup.plugins.module_utils.database.place import parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.errors import LossError, MediaError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import RELEASE_LINES
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.proof import (
    DELETED_DURING_BACKUP,
    EMPTY,
    MISSING,
    NAMED_ROWS,
    PRESENT,
    UNREADABLE,
    WRITTEN_AFTER_DUMP,
    FileState,
    Proof,
    classify,
    losses,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils import settling
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call
from tests.support.generated.instance import COMBINATIONS, generate
from tests.support.instances import MadeInstance
from tests.support.snapshots import WatchedSession, local_agent, put_back, take, verify


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, MISSING),
        (FileState(), MISSING),
        (FileState(unreadable=True), UNREADABLE),
        (FileState(row_deleted=True), DELETED_DURING_BACKUP),
        (FileState(size=1, ctime_ns=100, indexed=True), PRESENT),
        (FileState(size=1, ctime_ns=101, indexed=True), WRITTEN_AFTER_DUMP),
        (FileState(size=0, ctime_ns=101, indexed=True), EMPTY),
        (FileState(size=1, ctime_ns=101, indexed=False, unreadable=True), UNREADABLE),
    ],
)
def test_each_row_falls_into_one_class(state: FileState | None, expected: str) -> None:
    assert classify(state, dumped_at_ns=100) == expected


def proof_of(*, held: bool = False, **counts: int) -> Proof:
    proof = Proof()
    for name, count in counts.items():
        for number in range(count):
            proof.add(name, f"document {number}", b"path", held)
    return proof


def test_a_first_snapshot_may_miss_one_in_a_hundred_and_no_more() -> None:
    assert losses(proof_of(present=99, missing=1), first=True) == []
    assert len(losses(proof_of(present=98, missing=1), first=True)) == 1
    assert len(losses(proof_of(present=99, missing=1, empty=1), first=True)) == 1
    assert len(losses(proof_of(present=97, written_after_dump=1, unreadable=1), first=True)) == 1
    assert losses(proof_of(present=98, written_after_dump=1, unreadable=1), first=True) == []
    assert losses(proof_of(), first=True) == []
    assert len(losses(proof_of(missing=1), first=True)) == 1


def test_a_later_snapshot_may_miss_what_was_never_held_and_nothing_that_was() -> None:
    assert losses(proof_of(present=1, missing=50), first=False) == []
    for name in (MISSING, UNREADABLE, EMPTY):
        assert len(losses(proof_of(held=True, present=1000, **{name: 1}), first=False)) == 1
    assert losses(proof_of(held=True, present=1000, deleted_during_backup=5), first=False) == []


def test_a_file_that_cannot_be_read_is_a_loss_even_when_no_row_expects_it() -> None:
    proof = proof_of(present=5)
    proof.unreadable_files = 1
    assert len(losses(proof, first=False)) == 1


def test_the_manifest_names_a_bounded_number_of_damaged_rows() -> None:
    proof = proof_of(missing=NAMED_ROWS + 5, empty=3)
    assert len(proof.damaged) == NAMED_ROWS + 3
    assert proof.as_dict()["classes"]["missing"] == NAMED_ROWS + 5


def rows_of_2_0(*columns: Any) -> Any:
    return RELEASE_LINES["2.0"].expected_row(columns)


def test_the_path_of_a_version_of_2_0_is_the_one_that_papermerge_computes() -> None:
    assert rows_of_2_0(7, 1, "a b.pdf", 0, 3).path == b"docs/user_1/document_7/a b.pdf"
    assert rows_of_2_0(7, 1, "a.pdf", 2, 3).path == b"docs/user_1/document_7/v2/a.pdf"
    assert rows_of_2_0(7, 1, "a.pdf", None, 3).path == b"docs/user_1/document_7/a.pdf"
    assert rows_of_2_0(7, 1, "caf\udce9.pdf", 0, 3).path == b"docs/user_1/document_7/caf\xe9.pdf"
    assert rows_of_2_0(7, 1, "a.pdf", 0, 0).path is None
    assert rows_of_2_0(7, 1, "", 0, 3).path is None
    assert rows_of_2_0(7, 1, None, 0, None).path is None
    assert [rows_of_2_0(7, 1, "a.pdf", version, 1).older for version in (None, 0, 1, 5)] == [0, 0, 1, 5]


@pytest.mark.parametrize("line", [line for line, engine in COMBINATIONS if engine == "sqlite"])
def test_every_row_is_found_again_by_its_key(line: str, disk: Path) -> None:
    made = generate(line, "sqlite", disk / "generated", large_text=100)
    database = database_at(parse_database_url(made.database_url, "the test"), "the test")
    with database.view() as view:
        rows = list(view.expected_rows(RELEASE_LINES[line]))
        found = list(view.rows_with_keys(RELEASE_LINES[line], [row.key for row in rows]))
        one = list(view.rows_with_keys(RELEASE_LINES[line], [rows[3].key, "no' key", "ffff"]))
    assert len(rows) > 10
    assert sorted(map(str, found)) == sorted(map(str, rows))
    assert one == [rows[3]]


def newest(place: InstanceDirectory) -> dict[str, Any]:
    name = place.snapshot_names()[-1]
    return place.select(name).require_manifest().fields


def classes(place: InstanceDirectory) -> dict[str, int]:
    return {name: count for name, count in newest(place)["proof"]["classes"].items() if count}


def test_a_whole_instance_is_classified(instance: MadeInstance, place: InstanceDirectory) -> None:
    for _number in range(5):
        instance.add_document()
    old = instance.add_document(version=3)
    instance.write(os.path.dirname(os.path.dirname(old)) + b"/older.pdf", b"an older version")
    instance.add_document(content=None, page_count=0)
    instance.add_document(content=b"")
    instance.add_document(content=None)
    instance.write(b"docs/user_1/document_9999/orphan.pdf", b"nobody's")
    instance.write(b"docs/stray", b"nobody's")
    instance.write(b"results/user_1/document_2/page_1.txt", b"derived")

    def touch_later(call: Call) -> None:
        if call.operation == "scan_media":
            time.sleep(0.02)
            os.utime(instance.path(old))

    with WatchedSession(local_agent(), touch_later) as session, pytest.raises(LossError) as caught:
        take(instance, place, session)
    proof = newest(place)["proof"]
    assert classes(place) == {
        "present": 5,
        "written_after_dump": 1,
        "not_expected": 1,
        "not_computable": 3,
        "missing": 1,
        "empty": 1,
    }
    assert (proof["expected"], proof["proved"], proof["lost"]) == (8, 6, 0)
    assert (proof["orphans"], proof["unlisted"]) == (2, 1)
    assert sorted((row["class"], row["row"]) for row in proof["damaged"]) == [
        ("empty", "document 9, version 0"),
        ("missing", "document 10, version 0"),
    ]
    assert "2 of 8 originals" in caught.value.message
    assert caught.value.details["snapshot"]["state"] == "incomplete"


def test_an_upload_during_the_backup_is_held_or_not_expected_but_never_missed(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    instance.add_document()
    uploads = {"dump_database": b"before the dump", "scan_media": b"after the dump", "archive_media": b"after the scan"}

    def upload(call: Call) -> None:
        if call.operation in uploads:
            instance.add_document(uploads.pop(call.operation))

    with WatchedSession(local_agent(), upload) as session:
        take(instance, place, session)
    assert uploads == {}
    assert classes(place) == {"present": 2}
    assert verify(place, "deep")["proved"] == 2
    assert put_back(place, disk / "media", disk / "db.sqlite3")["proved"] == 2


def test_a_row_that_was_committed_before_its_file_is_found_by_the_settle_pass(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    instance.add_document()
    late = instance.add_document(content=None)

    def write_late(call: Call) -> None:
        if call.operation == "settle":
            instance.write(late, b"the page operation has ended")

    with WatchedSession(local_agent(), write_late) as session:
        take(instance, place, session)
    assert classes(place) == {"present": 1, "written_after_dump": 1}


def test_a_file_that_was_read_while_it_was_written_is_read_again(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was just created, or is half written, rests for long enough to be read as if it were finished."""
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 0.3)
    late = [instance.add_document(content=None) for _number in range(2)]
    instance.add_document()
    begun: list[Call] = []

    def write(call: Call) -> None:
        if call.operation == "scan_media":
            for path in late:
                instance.write(path, b"")
        if call.operation == "settle":
            begun.append(call)
            if len(begun) == 1:
                instance.write(late[0], b"half")
            if len(begun) == 2:
                for path in late:
                    instance.write(path, b"half and half")

    with WatchedSession(local_agent(), write) as session:
        take(instance, place, session)
    assert classes(place) == {"present": 1, "written_after_dump": 2}
    put_back(place, disk / "media", disk / "db.sqlite3")
    for path in late:
        assert (disk / "media" / os.fsdecode(path)).read_bytes() == b"half and half"


def test_files_that_appear_one_by_one_are_waited_for_as_long_as_they_do(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    late = [instance.add_document(content=None) for _number in range(6)]
    instance.write(b"results/text", b"derived")

    def write(call: Call) -> None:
        if call.operation == "settle" and late:
            instance.write(late.pop(), b"at last")

    with WatchedSession(local_agent(), write) as session:
        take(instance, place, session)
    assert late == []
    assert classes(place) == {"written_after_dump": 6}


def test_a_row_that_names_another_file_by_now_does_not_miss_its_former_one(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    for _number in range(3):
        instance.add_document()
    take(instance, place)
    renamed, kept = (instance.add_document(content=None) for _number in range(2))
    number = int(renamed.split(b"/")[2].removeprefix(b"document_"))

    def rename(call: Call) -> None:
        if call.operation == "settle":
            instance.execute(
                "update core_document set file_name = 'other.pdf' where basetreenode_ptr_id = ?", (number,)
            )
            instance.write(renamed.replace(b"scan.pdf", b"other.pdf"), b"the next upload")

    with WatchedSession(local_agent(), rename) as session:
        take(instance, place, session)
    assert classes(place) == {"present": 3, "deleted_during_backup": 1, "missing": 1}
    assert [row["path"] for row in newest(place)["proof"]["damaged"]] == [kept.decode()]


def test_what_goes_after_it_was_read_is_held_all_the_same(instance: MadeInstance, place: InstanceDirectory) -> None:
    late, other = (instance.add_document(content=None) for _number in range(2))
    instance.write(b"results/text", b"derived")

    def write_and_delete(call: Call) -> None:
        if call.operation == "scan_media":
            instance.write(late, b"written after the dump")
        if call.operation == "settle" and os.path.exists(instance.path(late)):
            os.unlink(instance.path(late))
            instance.execute("delete from core_document")

    with WatchedSession(local_agent(), write_and_delete) as session:
        assert take(instance, place, session)["files"] == 2
    assert classes(place) == {"written_after_dump": 1, "deleted_during_backup": 1}
    assert other != late


def test_a_document_that_is_deleted_during_the_backup_is_no_loss(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    paths = [instance.add_document() for _number in range(3)]
    take(instance, place)

    def delete(call: Call) -> None:
        if call.operation == "scan_media" and os.path.exists(instance.path(paths[0])):
            os.unlink(instance.path(paths[0]))
            instance.execute("delete from core_document where basetreenode_ptr_id = 2")
        # Files as young as these are looked at again before they are taken over.
        if call.operation == "hash_media" and os.path.exists(instance.path(paths[1])):
            os.unlink(instance.path(paths[1]))
            instance.execute("delete from core_document where basetreenode_ptr_id = 3")

    with WatchedSession(local_agent(), delete) as session:
        assert take(instance, place, session)["state"] == "complete"
    assert classes(place) == {"present": 1, "deleted_during_backup": 2}
    verify(place, "deep")
    assert put_back(place, disk / "media", disk / "db.sqlite3")["proved"] == 1


def test_a_file_that_keeps_changing_is_left_out_and_said(instance: MadeInstance, place: InstanceDirectory) -> None:
    for _number in range(3):
        instance.add_document()
    changing = instance.add_document(os.urandom(16 << 20))

    # Several, because one alone may have to wait for a processor as long as the file is read.
    writer = "import os, sys\nwhile True:\n    os.pwrite(1, os.urandom(64), 0)"
    before = os.stat(instance.path(changing)).st_mtime_ns
    with open(instance.path(changing), "r+b") as stream:
        writers = [subprocess.Popen([sys.executable, "-c", writer], stdout=stream) for _number in range(3)]
    try:
        while os.stat(instance.path(changing)).st_mtime_ns == before:
            time.sleep(0.01)
        with pytest.raises(LossError, match="1 of 4 originals"):
            take(instance, place)
    finally:
        for process in writers:
            process.kill()
            process.wait()
    proof = newest(place)["proof"]
    assert proof["changing_files"] == 1
    assert classes(place) == {"present": 3, "unreadable": 1}
    verify(place, "deep", "1")


def test_what_the_snapshot_before_held_must_not_go_missing(instance: MadeInstance, place: InstanceDirectory) -> None:
    paths = [instance.add_document() for _number in range(300)]
    take(instance, place)
    os.unlink(instance.path(paths[7]))
    with pytest.raises(LossError) as caught:
        take(instance, place)
    assert "1 originals that the last complete snapshot holds" in caught.value.message
    assert paths[7].decode() in caught.value.message
    assert "papermerge_backup_accept_missing" in caught.value.message
    assert newest(place)["proof"]["lost"] == 1
    # The third run is compared with the first: the second is incomplete and changes nothing.
    with pytest.raises(LossError, match="1 originals that the last complete snapshot holds"):
        take(instance, place)
    states = [snapshot.require_manifest().state for snapshot in place.snapshots()]
    assert states == ["complete", "incomplete", "incomplete"]
    assert place.select("latest").sequence == 1
    # What is found again ends it.
    instance.write(paths[7], b"found again")
    assert take(instance, place)["state"] == "complete"
    assert place.select("latest").sequence == 4


def test_loss_can_be_accepted_once_and_for_all(instance: MadeInstance, place: InstanceDirectory) -> None:
    paths = [instance.add_document() for _number in range(3)]
    take(instance, place)
    os.unlink(instance.path(paths[0]))
    accepted = take(instance, place, accept_missing=True)
    assert accepted["state"] == "complete"
    assert newest(place)["reasons"]
    assert place.select("latest").sequence == 2
    verify(place, "deep")
    assert take(instance, place)["state"] == "complete"


def test_an_original_that_was_empty_before_is_not_lost_anew(instance: MadeInstance, place: InstanceDirectory) -> None:
    instance.add_document()
    instance.add_document(content=b"")
    assert take(instance, place, accept_missing=True)["state"] == "complete"
    assert take(instance, place)["state"] == "complete"
    assert classes(place) == {"present": 1, "empty": 1}


def test_an_original_that_has_become_empty_is_lost(instance: MadeInstance, place: InstanceDirectory) -> None:
    path = instance.add_document()
    take(instance, place)
    instance.write(path, b"")
    with pytest.raises(LossError, match="missing, unreadable or empty"):
        take(instance, place)
    assert newest(place)["proof"]["damaged"][0]["held_before"] == "yes"


def test_an_original_with_another_content_is_told_and_kept_in_both_snapshots(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    overwritten, same, older = (instance.add_document(b"first %d" % number) for number in range(3))
    stray = b"docs/user_1/document_99/orphan.pdf"
    derived = b"results/user_1/document_2/page_1.txt"
    instance.write(stray, b"first")
    instance.write(derived, b"first")
    warnings: list[str] = []
    assert take(instance, place, warn=warnings.append)["changed"] == 0
    assert warnings == []

    for path in (overwritten, stray, derived):
        instance.write(path, b"second")
    # Read again, because it was touched, and still what it was.
    instance.write(same, b"first 1")
    os.unlink(instance.path(older))
    instance.execute("delete from core_document where basetreenode_ptr_id = 4")
    snapshot = take(instance, place, warn=warnings.append)
    assert (snapshot["state"], snapshot["changed"]) == ("complete", 2)
    proof = newest(place)["proof"]
    second = hashlib.sha256(b"second").hexdigest()
    assert proof["changed"] == 2
    assert proof["changed_originals"] == [
        {"path": overwritten.decode(), "before": hashlib.sha256(b"first 0").hexdigest(), "now": second},
        {"path": stray.decode(), "before": hashlib.sha256(b"first").hexdigest(), "now": second},
    ]
    (warning,) = warnings
    for words in ("2 of the originals have another content", place.snapshot_names()[0], overwritten.decode(), second):
        assert words in warning
    for number, content in ((1, b"first 0"), (2, b"second")):
        put_back(place, disk / f"media{number}", disk / f"db{number}", snapshot=str(number))
        assert (disk / f"media{number}" / overwritten.decode()).read_bytes() == content
    # It is told once: the next snapshot is compared with this one.
    assert take(instance, place, warn=warnings.append)["changed"] == 0
    assert len(warnings) == 1


def test_all_changed_originals_are_counted_and_the_first_thousand_named(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    names = [b"docs/user_1/document_9/%06d.pdf" % number for number in range(NAMED_ROWS + 10)]
    for content in (b"first", b"second"):
        for name in names:
            instance.write(name, content)
        snapshot = take(instance, place)
    assert snapshot["changed"] == NAMED_ROWS + 10
    named = [entry["path"] for entry in newest(place)["proof"]["changed_originals"]]
    assert named == [name.decode() for name in names[:NAMED_ROWS]]


def test_an_incomplete_snapshot_can_be_restored_by_name_only(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    instance.add_document()
    instance.add_document(content=None)
    with pytest.raises(LossError):
        take(instance, place)
    assert put_back(place, disk / "media", disk / "db.sqlite3", snapshot="1")["proved"] == 1


def test_an_empty_media_directory_is_refused_while_documents_are_expected(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    instance.add_document(content=None)
    with pytest.raises(MediaError, match=r"is empty, but the database expects 1 files.*is it mounted\?"):
        take(instance, place)
    assert place.snapshot_names() == []
    assert take(instance, place, accept_missing=True)["state"] == "complete"
