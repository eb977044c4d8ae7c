# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository: numbers claimed once, one run at a time, what is committed found again, and nothing else."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    BusyError,
    DamageError,
    RepositoryError,
    SpaceError,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import checksum_line
from ansible_collections.papermerge.backup.plugins.plugin_utils import repository as repository_module
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, Repository
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call
from tests.support.instances import MadeInstance
from tests.support.snapshots import (
    NoAgent,
    WatchedSession,
    least_manifest,
    local_agent,
    place_in,
    put_back,
    take,
    verify,
)

HEAD = f"import sys; sys.path[:0] = {sys.path!r}\n"


def python(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def commit_by_hand(place: InstanceDirectory, number: int, started: str, **changes: Any) -> str:
    """Put a snapshot without content into a repository, as a run that was killed before its history line leaves it."""
    place.make()
    moment = started.replace("-", "").replace(":", "")
    name = f"{number:06}-{moment}"
    fields = least_manifest(
        **{"id": name, "sequence": number, "instance": place.name, "started": started, "ended": started, **changes}
    )
    text = json.dumps(fields).encode()
    directory = place.snapshots_path / name
    directory.mkdir()
    (directory / "manifest.json").write_bytes(text)
    (directory / "manifest.json.sha256").write_bytes(checksum_line(text))
    return name


@pytest.fixture
def series(place: InstanceDirectory) -> InstanceDirectory:
    """Snapshots of three days; the third is incomplete, and the clock went back before the fourth."""
    commit_by_hand(place, 1, "2026-11-20T10:00:00Z")
    commit_by_hand(place, 2, "2026-11-21T10:00:00Z")
    commit_by_hand(place, 3, "2026-11-22T10:00:00Z", state="incomplete")
    commit_by_hand(place, 10, "2026-11-19T10:00:00Z")
    return place


@pytest.mark.parametrize(
    ("wanted", "sequence"),
    [
        ("latest", 10),
        ("1", 1),
        ("3", 3),
        ("000002", 2),
        ("10", 10),
        ("000002-20261121T100000Z", 2),
        ("2026-11-21T10:00:00", 10),
        ("2026-11-19T10:00:00Z", 10),
        ("2026-11-23", 10),
    ],
)
def test_a_snapshot_is_selected_as_a_user_names_it(series: InstanceDirectory, wanted: str, sequence: int) -> None:
    assert series.select(wanted).sequence == sequence


@pytest.mark.parametrize(
    ("wanted", "sequence"),
    [
        ("2026-11-20T10:00:00", 1),
        ("2026-11-20T10:00:00Z", 1),
        ("2026-11-20T11:00:00+01:00", 1),
        ("2026-11-20T12:00:00+01:00", 1),
        ("2026-11-21 09:59:59", 1),
        ("2026-11-21T11:00:00+01:00", 2),
        ("2026-11-21T05:00:00-05:00", 2),
        ("2026-11-30", 2),
    ],
)
def test_a_time_selects_the_newest_complete_snapshot_not_after_it(
    place: InstanceDirectory, wanted: str, sequence: int
) -> None:
    commit_by_hand(place, 1, "2026-11-20T10:00:00Z")
    commit_by_hand(place, 2, "2026-11-21T10:00:00Z")
    commit_by_hand(place, 3, "2026-11-22T10:00:00Z", state="incomplete")
    assert place.select(wanted).sequence == sequence


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("4", "has no snapshot 4; there are 000001-20261120T100000Z"),
        ("000002-20261121T100001Z", "has no snapshot 000002-20261121T100001Z"),
        ("2026-11-01", "has no complete snapshot started by 2026-11-01T00:00:00"),
        ("2026-11-21T10:59:59+01:00", None),
        ("yesterday", "'yesterday' names no snapshot: use latest"),
        ("", "names no snapshot"),
        ("²", "names no snapshot"),
        ("../../etc", "names no snapshot"),
    ],
)
def test_what_names_no_snapshot_is_said(series: InstanceDirectory, wanted: str, words: str | None) -> None:
    if words is None:
        assert series.select(wanted).sequence == 10
        return
    with pytest.raises(RepositoryError, match=words):
        series.select(wanted)


def test_an_incomplete_snapshot_is_never_the_latest(place: InstanceDirectory) -> None:
    commit_by_hand(place, 1, "2026-11-20T10:00:00Z", state="incomplete")
    with pytest.raises(RepositoryError, match="has no complete snapshot"):
        place.select("latest")
    assert [snapshot.sequence for snapshot in place.complete()] == []


def test_a_damaged_snapshot_is_not_passed_over_in_silence(series: InstanceDirectory) -> None:
    (series.snapshots_path / "000010-20261119T100000Z" / "manifest.json").unlink()
    with pytest.raises(DamageError, match=r"snapshot 000010-20261119T100000Z: .*manifest\.json is missing"):
        series.select("latest").require_manifest()
    with pytest.raises(DamageError):
        series.select("2026-11-19T12:00").require_manifest()
    assert [snapshot.sequence for snapshot in series.complete()] == [2, 1]


def test_the_number_orders_and_not_the_name(place: InstanceDirectory) -> None:
    for number in (999_999, 1_000_000, 2):
        commit_by_hand(place, number, "2026-11-20T10:00:00Z")
    assert [name.split("-")[0] for name in place.snapshot_names()] == ["000002", "999999", "1000000"]
    assert place.claim()[0] == 1_000_001


def test_strangers_in_the_snapshots_directory_are_no_snapshots(series: InstanceDirectory) -> None:
    for name in ("lost+found", "42", "000042", "000042-20261122T134215Z.old", ".000042-20261122T134215Z"):
        (series.snapshots_path / name).mkdir()
    assert len(series.snapshot_names()) == 4


def test_two_processes_never_claim_the_same_number(place: InstanceDirectory) -> None:
    place.make()
    program = (
        f"from {repository_module.__name__} import Repository\n"
        f"place = Repository({str(place.path.parent)!r}).instance('one')\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(*[place.claim()[0] for _ in range(40)])"
    )
    running = [python(program) for _number in range(3)]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    claimed = [int(word) for process in running for word in process.communicate()[0].split()]
    assert len(claimed) == len(set(claimed)) == 120


def test_a_number_that_another_run_commits_in_the_same_moment_is_not_claimed(
    place: InstanceDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.make()
    make = repository_module.make_private_directory
    others = iter([lambda: commit_by_hand(place, 1, "2026-11-20T10:00:00Z")])

    def lose_the_race(path: Path) -> None:
        for commit in others:
            commit()
        make(path)

    monkeypatch.setattr(repository_module, "make_private_directory", lose_the_race)
    number, path = place.claim()
    assert (number, path.name) == (2, "000002")
    assert sorted(os.listdir(place.incoming_path)) == ["000002", "000002.owner"]


def test_a_number_is_not_claimed_again_whatever_has_become_of_its_snapshot(place: InstanceDirectory) -> None:
    place.make()
    place.history.append("committed", "000007-20261122T134215Z", "0" * 64)
    assert place.claim()[0] == 8
    (place.incoming_path / "000030").mkdir()
    assert place.claim()[0] == 31


def test_a_second_run_of_the_same_instance_is_told_who_works(
    place: InstanceDirectory, monkeypatch: pytest.MonkeyPatch, instance: MadeInstance
) -> None:
    monkeypatch.setattr(repository_module, "LOCK_PATIENCE", 0.3)
    place.make()
    program = (
        f"from {repository_module.__name__} import Repository\n"
        f"place = Repository({str(place.path.parent)!r}).instance('one')\n"
        "with place.locked():\n    print('locked', flush=True); sys.stdin.readline()"
    )
    process = python(program)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(BusyError, match=f"another run works on instance one in .*process {process.pid} since"):
        take(instance, place)
    assert take(instance, place_in(place.path.parent, "two"))["sequence"] == 1
    process.kill()
    process.communicate()
    assert take(instance, place)["sequence"] == 1


def test_a_run_that_was_killed_leaves_nothing_that_the_next_does_not_remove(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    instance.add_document()
    place.make()
    (place.incoming_path / "000001").mkdir()
    (place.incoming_path / "000001" / "0123.tar.zst").write_bytes(b"half")
    (place.incoming_path / "000001.owner").write_text(socket.gethostname())
    assert place.snapshot_names() == []
    take(instance, place)
    assert list(place.incoming_path.iterdir()) == []


@pytest.mark.parametrize("operation", ["dump_database", "scan_media", "archive_media", "settle", "describe"])
def test_a_failure_at_any_step_publishes_nothing_and_harms_nothing(
    instance: MadeInstance, place: InstanceDirectory, operation: str
) -> None:
    instance.add_document()
    take(instance, place)
    instance.add_document()
    instance.add_document(content=None)
    before = {path: path.read_bytes() for path in place.path.rglob("*") if path.is_file() and path.name != "lock"}

    def fail(call: Call) -> None:
        if call.operation == operation:
            raise SpaceError("no room")

    with WatchedSession(local_agent(), fail) as session, pytest.raises(SpaceError):
        take(instance, place, session, accept_missing=True)
    after = {path: path.read_bytes() for path in place.path.rglob("*") if path.is_file() and path.name != "lock"}
    # A part that was finished stays for the next run.
    added = {path for path in after if path not in before}
    assert {path: after[path] for path in before} == before
    assert {path.parent for path in added} == ({place.parts_path} if operation == "settle" else set())
    assert list(place.incoming_path.iterdir()) == []


@pytest.mark.parametrize("step", ["keep_part", "publish", "check_sizes", "append"])
def test_a_failing_commit_leaves_a_whole_snapshot_or_none(
    instance: MadeInstance, place: InstanceDirectory, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.papermerge.backup.plugins.plugin_utils import create

    instance.add_document()
    take(instance, place)
    instance.add_document(b"another")

    def fail(*_arguments: object, **_named: object) -> None:
        raise SpaceError("no room")

    if step == "check_sizes":
        monkeypatch.setattr(create, "check_sizes", fail)
    elif step == "append":
        monkeypatch.setattr(place.history, "append", fail)
    else:
        monkeypatch.setattr(place, step, fail)
    with pytest.raises(BackupError):
        take(instance, place)
    monkeypatch.undo()
    if step == "append":
        assert len(place.snapshot_names()) == 2
        verify(place, "deep", "2")
    else:
        assert len(place.snapshot_names()) == 1
    # A part that was finished before stays, for good.
    assert len(os.listdir(place.parts_path)) == (2 if step == "keep_part" else 4)
    assert list(place.incoming_path.iterdir()) == []


def test_a_missing_history_line_is_written_by_the_next_run(instance: MadeInstance, place: InstanceDirectory) -> None:
    for _number in range(2):
        take(instance, place)
    lines = (place.path / "history.jsonl").read_bytes().splitlines(keepends=True)
    (place.path / "history.jsonl").write_bytes(lines[0])
    take(instance, place)
    assert list(place.history.committed()) == place.snapshot_names()
    recorded = place.history.committed()
    assert {snapshot.id: snapshot.manifest_sha256 for snapshot in place.snapshots()} == recorded


def test_a_torn_last_line_of_the_history_is_passed_over_and_not_continued(
    place: InstanceDirectory, rng: random.Random
) -> None:
    place.make()
    place.history.append("committed", "000001-20261122T134215Z", "1" * 64)
    path = place.path / "history.jsonl"
    whole = path.read_bytes()
    for cut in sorted(rng.sample(range(1, len(whole)), 20)):
        path.write_bytes(whole + whole[:cut])
        place.history.append("verified", "000001-20261122T134215Z", "1" * 64, result="sound")
        assert place.history.committed() == {"000001-20261122T134215Z": "1" * 64}
        assert place.history.last_verified()["000001-20261122T134215Z"]["result"] == "sound"
    path.write_bytes(b"\xff\n[]\nnull\n{}\n" + whole)
    assert len(place.history.committed()) == 1


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", ".hidden", "a b", "a\n", "x" * 201, "ä"])
def test_what_cannot_name_an_instance_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="papermerge_backup_instance"):
        Repository(str(tmp_path)).instance(name)


def test_a_repository_that_is_not_there_or_no_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="does not exist on the controller; set papermerge_backup_repository"):
        Repository(str(tmp_path / "nowhere")).instances()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RepositoryError, match="is not a directory"):
        Repository(str(tmp_path / "file" / "below")).require_writable()
    with pytest.raises(RepositoryError):
        place_in(tmp_path / "file").make()
    Repository(str(tmp_path / "a" / "b")).require_writable()
    assert not (tmp_path / "a").exists()


def test_an_instance_without_snapshots_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="instance one has no snapshots in"):
        put_back(place_in(tmp_path), tmp_path / "m", tmp_path / "d", NoAgent())


def test_a_repository_that_may_not_be_written_is_named(open_disk: Path) -> None:
    """As another user: a new one cannot be made, and one that is there cannot be added to."""
    if os.geteuid() != 0:
        (open_disk / "closed").mkdir(mode=0o555)
        with pytest.raises(RepositoryError, match="cannot be written"):
            Repository(str(open_disk / "closed" / "new")).require_writable()
        return
    (open_disk / "closed").mkdir(mode=0o755)
    place_in(open_disk / "closed" / "made").make()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            for path in ("closed/new", "closed"):
                with pytest.raises(RepositoryError, match="cannot be written: no permission in"):
                    Repository(str(open_disk / path)).require_writable()
            with pytest.raises(RepositoryError, match="Permission denied"):
                place_in(open_disk / "closed").make()
            with (
                pytest.raises(RepositoryError, match="Permission denied"),
                place_in(open_disk / "closed/made").locked(),
            ):
                pass
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_is_made_is_private_even_under_a_careless_umask(place: InstanceDirectory, instance: MadeInstance) -> None:
    before = os.umask(0)
    try:
        take(instance, place)
    finally:
        os.umask(before)
    for path in [place.path.parent, *place.path.parent.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == expected, path


def test_a_weaker_verification_does_not_hide_what_a_stronger_one_has_found(place: InstanceDirectory) -> None:
    place.make()
    for level, result in (("full", "damaged"), ("quick", "sound")):
        place.history.append("verified", "000001-20261122T100000Z", "0" * 64, level=level, result=result)
    assert place.history.last_verified()["000001-20261122T100000Z"]["result"] == "damaged"
    place.history.append("verified", "000001-20261122T100000Z", "0" * 64, level="deep", result="sound")
    assert place.history.last_verified()["000001-20261122T100000Z"]["level"] == "deep"


def test_a_committed_snapshot_whose_directory_has_vanished_is_damage(series: InstanceDirectory) -> None:
    series.repair_history()
    shutil.rmtree(series.snapshots_path / "000010-20261119T100000Z")
    vanished = list(series.snapshots())[-1]
    assert vanished.id == "000010-20261119T100000Z"
    with pytest.raises(DamageError, match="is gone, though"):
        series.select("latest").require_manifest()
    series.history.append("pruned", vanished.id, "0" * 64)
    assert series.select("latest").sequence == 2
