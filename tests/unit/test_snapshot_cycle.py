# SPDX-License-Identifier: GPL-3.0-or-later
"""Create, verify and restore over a real agent: with and without zstd, on the oldest Python and on this one."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from tests.support.instances import MadeInstance, files_below
from tests.support.snapshots import WatchedSession, interpreter_without, local_agent, put_back, take, verify
from tests.support.zstd_frames import RAW, frames_of


def python_3_8() -> str:
    """Return a Python 3.8 that runs; its absence is a failure where CI has promised one."""
    pyenv = shutil.which("pyenv")
    homes = [os.path.expanduser("~/.pyenv"), os.environ.get("PYENV_ROOT", "")]
    homes.append(os.path.dirname(os.path.dirname(os.path.realpath(pyenv))) if pyenv else "")
    found = shutil.which("python3.8")
    homes.append(os.path.dirname(os.path.dirname(found)) if found else "")
    candidates = [path for home in homes if home for path in glob.glob(f"{home}/versions/3.8*/bin/python3.8")]
    for path in [found, *candidates]:
        # A version manager's shim exists without a Python behind it.
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    reason = "NO PYTHON 3.8 HERE: that the agent runs on it was not tested (python3.8 on PATH, or pyenv install 3.8)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def fill(instance: MadeInstance) -> None:
    for number in range(20):
        instance.add_document((b"original %d\n" % number) * (number * 37 + 1), name=b"scan %d.pdf" % number)
    instance.add_document(os.urandom(3 << 20), name=b"large.pdf", version=2)
    instance.add_document(page_count=0, content=None)
    instance.write(b"results/user_1/document_2/pages/page_1.txt", b"text")
    instance.write(b"docs/user_1/document_2/v0-old.pdf", b"")
    os.utime(instance.path(b"results/user_1/document_2/pages/page_1.txt"), ns=(0, 1_234_567_890_123_456_789))
    os.chmod(instance.path(b"results/user_1/document_2/pages/page_1.txt"), 0o640)


@pytest.fixture(params=["this Python", "Python 3.8"])
def python(request: pytest.FixtureRequest) -> str:
    return sys.executable if request.param == "this Python" else python_3_8()


def frames_with_a_checksum(place: InstanceDirectory) -> set[bool]:
    """Tell of each frame that was compressed whether it has a checksum of its content, whoever wrote it."""
    frames = [frame for path in place.parts_path.glob("*.tar.zst") for frame in frames_of(path.read_bytes())]
    assert frames
    return {has_checksum for has_checksum, kinds in frames if kinds != {RAW}}


@pytest.mark.parametrize("zstd_here", [True, False], ids=["zstd", "no zstd"])
def test_what_is_restored_is_what_was_there(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, python: str, zstd_here: bool
) -> None:
    if zstd_here and not shutil.which("zstd"):
        pytest.fail("the zstd program is not installed")
    fill(instance)
    interpreter = python if zstd_here else interpreter_without("zstd", disk, python)
    with WatchedSession(local_agent(interpreter)) as session:
        snapshot = take(instance, place, session)
    assert {arguments["compress"] for arguments in session.arguments("archive_media")} == {zstd_here}
    manifest = next(place.complete()).require_manifest()
    assert manifest.fields["host"]["zstd"] is zstd_here
    assert frames_with_a_checksum(place) == {True}
    assert (snapshot["state"], snapshot["originals"], snapshot["expected"]) == ("complete", 21, 21)
    for level in ("quick", "full", "deep"):
        verify(place, level)
    assert verify(place, "deep")["unpacked_files"] == snapshot["files"] == 23

    target = disk / "target"
    with WatchedSession(local_agent(interpreter)) as session:
        result = put_back(place, target / "media", target / "db" / "db.sqlite3", session)
    # What was not worth compressing is sent plain either way.
    assert {arguments["compressed"] for arguments in session.arguments("extract")} <= {zstd_here, False}
    assert [arguments["compressed"] for arguments in session.arguments("receive_database")] == [zstd_here]
    assert files_below(target / "media") == files_below(instance.media)
    assert result["proved"] == 21
    assert result["files"] == 23
    restored = MadeInstance.__new__(MadeInstance)
    restored.database = target / "db" / "db.sqlite3"
    for table in ("core_document", "core_page", "core_user"):
        assert restored.count(table) == instance.count(table)
    assert not [path for path in target.rglob("*") if path.name.startswith(".papermerge-backup.")]


def test_a_snapshot_made_without_zstd_restores_where_it_is_and_the_other_way_round(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    fill(instance)
    without = interpreter_without("zstd", disk)
    for number, (source, target) in enumerate([(without, sys.executable), (sys.executable, without)]):
        with local_agent(source) as session:
            take(instance, place, session)
        with local_agent(target) as session:
            put_back(place, disk / f"media{number}", disk / f"db{number}", session)
        assert files_below(disk / f"media{number}") == files_below(instance.media)


def test_nobody_else_can_read_a_repository(instance: MadeInstance, place: InstanceDirectory) -> None:
    instance.add_document()
    take(instance, place)
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in place.path.rglob("*") if path.is_file()}
    folders = [place.path.parent, place.path, *(path for path in place.path.rglob("*") if path.is_dir())]
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert list(place.incoming_path.iterdir()) == []


def test_a_create_leaves_nothing_on_the_host_and_changes_nothing(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    instance.add_document()
    media, folder = files_below(instance.media), sorted(os.listdir(instance.database.parent))
    database = instance.database.read_bytes()
    take(instance, place)
    assert files_below(instance.media) == media
    assert sorted(os.listdir(instance.database.parent)) == folder
    assert instance.database.read_bytes() == database


def test_derived_files_can_be_left_out(instance: MadeInstance, place: InstanceDirectory) -> None:
    fill(instance)
    assert take(instance, place, derived=False)["files"] == 22
    verify(place, "deep")


def test_an_instance_without_documents_makes_the_round_trip(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    assert take(instance, place)["files"] == 0
    verify(place, "deep")
    assert put_back(place, disk / "media", disk / "db.sqlite3")["files"] == 0
    assert files_below(disk / "media") == {}
