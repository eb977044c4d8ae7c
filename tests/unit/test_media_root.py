# SPDX-License-Identifier: GPL-3.0-or-later
"""What may stand in a media directory, what must not, and what is said about it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import LossError, MediaError
from ansible_collections.papermerge.backup.plugins.module_utils.media.root import MediaRoot
from ansible_collections.papermerge.backup.plugins.module_utils.media.scan import Scanner
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call
from tests.support.instances import MadeInstance, files_below
from tests.support.snapshots import WatchedSession, local_agent, put_back, take, unprivileged_agent, verify


def scan(root: Path, *allowed: Path, excluded: tuple[bytes, ...] = ()) -> tuple[set[bytes], int]:
    media = MediaRoot(str(root), [str(path) for path in allowed])
    try:
        scanner = Scanner(media, excluded)
        return {file.path for file in scanner.files()}, scanner.skipped
    finally:
        media.close()


@pytest.mark.parametrize("what", ["missing", "a file", "a dangling link"])
def test_a_media_directory_that_is_none_is_named_with_its_setting(
    instance: MadeInstance, place: InstanceDirectory, what: str
) -> None:
    instance.media.rmdir()
    if what == "a file":
        instance.media.write_bytes(b"")
    elif what == "a dangling link":
        instance.media.symlink_to("nowhere")
    with pytest.raises(MediaError) as caught:
        take(instance, place)
    problem = "is not a directory" if what == "a file" else "does not exist"
    assert f"media directory {instance.media} (papermerge_backup_media_root) {problem}" in caught.value.message
    assert "set papermerge_backup_media_root" in caught.value.message
    assert not place.path.exists() or place.snapshot_names() == []


def test_the_media_directory_itself_may_be_a_link(instance: MadeInstance, place: InstanceDirectory, disk: Path) -> None:
    instance.add_document()
    instance.media.rename(disk / "elsewhere")
    instance.media.symlink_to(disk / "elsewhere")
    assert take(instance, place)["originals"] == 1


@pytest.mark.parametrize("target", ["file", "folder"])
def test_a_link_out_of_the_media_directory_is_refused_and_named(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, target: str
) -> None:
    instance.add_document()
    outside = disk / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder" / "inner").write_bytes(b"inner")
    (outside / "file").write_bytes(b"secret")
    (instance.media / "docs" / "link").symlink_to(outside / target)
    with pytest.raises(MediaError) as caught:
        take(instance, place)
    assert f"docs/link in media directory {instance.media} is a link to {outside / target}" in caught.value.message
    assert "papermerge_backup_media_allowed_roots" in caught.value.message
    assert caught.value.details["path"] == "docs/link"
    assert place.snapshot_names() == []

    take(instance, place, media_allowed_roots=[str(outside)])
    verify(place, "deep")
    put_back(place, disk / "media", disk / "db.sqlite3")
    restored = files_below(disk / "media")
    path, content = (b"docs/link", b"secret") if target == "file" else (b"docs/link/inner", b"inner")
    assert restored[path][0] == content
    assert not (disk / "media" / "docs" / "link").is_symlink()


def test_a_neighbour_with_a_longer_name_is_outside(instance: MadeInstance, disk: Path) -> None:
    neighbour = Path(f"{instance.media}-old")
    neighbour.mkdir()
    (neighbour / "file").write_bytes(b"x")
    (instance.media / "link").symlink_to(neighbour / "file")
    with pytest.raises(MediaError, match="outside of it"):
        scan(instance.media)
    with pytest.raises(MediaError, match="outside of it"):
        scan(instance.media, Path(str(neighbour)[:-1]))
    assert scan(instance.media, neighbour)[0] == {b"link"}


def test_a_link_that_leaves_through_another_link_is_outside(instance: MadeInstance, disk: Path) -> None:
    (disk / "secret").write_bytes(b"x")
    (disk / "allowed").mkdir()
    (disk / "allowed" / "way").symlink_to(disk / "secret")
    (instance.media / "link").symlink_to(disk / "allowed" / "way")
    with pytest.raises(MediaError, match="outside of it"):
        scan(instance.media, disk / "allowed")


def test_a_link_within_the_media_directory_is_followed(instance: MadeInstance) -> None:
    instance.write(b"docs/a", b"x")
    (instance.media / "file").symlink_to("docs/a")
    (instance.media / "folder").symlink_to(instance.media / "docs")
    assert scan(instance.media)[0] == {b"docs/a", b"file", b"folder/a"}


@pytest.mark.parametrize("target", [".", "..", "loop", "../docs"])
def test_links_in_a_circle_end(instance: MadeInstance, target: str) -> None:
    instance.write(b"docs/a", b"x")
    (instance.media / "docs" / "loop").symlink_to(target)
    with pytest.raises(MediaError):
        scan(instance.media)


def test_a_link_that_leads_nowhere_within_is_passed_over(instance: MadeInstance) -> None:
    (instance.media / "gone").symlink_to("nothing")
    assert scan(instance.media)[0] == set()


def test_special_files_are_counted_and_left_out(instance: MadeInstance, place: InstanceDirectory) -> None:
    instance.add_document()
    os.mkfifo(instance.media / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(instance.media / "socket"))
        take(instance, place)
    manifest = place.select("latest").require_manifest()
    assert manifest.totals["skipped_special_files"] == 2
    assert manifest.totals["files"] == 1


def test_a_fifo_where_an_original_belongs_is_a_missing_original(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    path = instance.add_document()
    os.unlink(instance.path(path))
    os.mkfifo(instance.path(path))
    with pytest.raises(LossError):
        take(instance, place)


def test_own_leftovers_are_never_part_of_a_snapshot(instance: MadeInstance) -> None:
    instance.write(b".papermerge-backup.restore-x/media/a", b"x")
    instance.write(b"results/a", b"x")
    instance.write(b"docs/results/a", b"x")
    assert scan(instance.media)[0] == {b"results/a", b"docs/results/a"}
    assert scan(instance.media, excluded=(b"results",))[0] == {b"docs/results/a"}


@pytest.fixture
def mounted(instance: MadeInstance) -> Path:
    """A mount of another file system in the media directory."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    point = instance.media / "docs" / "mounted"
    point.mkdir(parents=True)
    return point


def in_a_mount_namespace(*command: str, mount: Path) -> subprocess.CompletedProcess[str]:
    script = f"mount -t tmpfs none '{mount}' && echo x > '{mount}/file' && exec \"$@\""
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", script, "sh", *command], capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    return done


def test_a_mount_is_refused_unless_it_is_allowed(mounted: Path, instance: MadeInstance) -> None:
    import sys

    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        f"from {MediaRoot.__module__} import MediaRoot\nfrom {Scanner.__module__} import Scanner\n"
        f"print([file.path for file in Scanner(MediaRoot({str(instance.media)!r}, sys.argv[1:])).files()])"
    )
    refused = in_a_mount_namespace(sys.executable, "-c", program, mount=mounted)
    assert "MediaError: docs/mounted in media directory" in refused.stderr
    assert "is a mount of another file system; add" in refused.stderr
    allowed = in_a_mount_namespace(sys.executable, "-c", program, str(mounted), mount=mounted)
    assert allowed.stdout.strip() == "[b'docs/mounted/file']"


def spoil_file(instance: MadeInstance, path: bytes) -> None:
    os.chmod(instance.path(path), 0)


def test_a_file_that_the_agent_may_not_read_makes_the_snapshot_incomplete(
    open_disk: Path, place: InstanceDirectory
) -> None:
    instance = MadeInstance(open_disk / "instance")
    for folder in (instance.database.parent, instance.database):
        folder.chmod(0o777)
    paths = [instance.add_document() for _number in range(300)]
    with unprivileged_agent() as session:
        assert take(instance, place, session)["state"] == "complete"
    spoil_file(instance, paths[0])
    with (
        unprivileged_agent() as session,
        pytest.raises(LossError, match="1 originals that the last complete") as caught,
    ):
        take(instance, place, session)
    proof = place.select("2").require_manifest().proof
    assert (proof["classes"]["unreadable"], proof["unreadable_files"], proof["lost"]) == (1, 1, 1)
    assert paths[0].decode() in caught.value.message
    verify(place, "deep", "2")


def test_a_directory_that_the_agent_may_not_read_is_refused(open_disk: Path, place: InstanceDirectory) -> None:
    instance = MadeInstance(open_disk / "instance")
    for folder in (instance.database.parent, instance.database):
        folder.chmod(0o777)
    path = instance.add_document()
    os.chmod(os.path.dirname(instance.path(path)), 0)
    with unprivileged_agent() as session, pytest.raises(MediaError, match=r"cannot be read: .*Permission denied"):
        take(instance, place, session)
    assert place.snapshot_names() == []


Change = Callable[[MadeInstance, bytes], object]
RACES: dict[str, Change] = {
    "removed": lambda instance, path: os.unlink(instance.path(path)),
    "made a directory": lambda instance, path: (os.unlink(instance.path(path)), os.mkdir(instance.path(path))),
    "made a link": lambda instance, path: (
        os.unlink(instance.path(path)),
        os.symlink("/etc/passwd", instance.path(path)),
    ),
    "its directory made a file": lambda instance, path: (
        os.unlink(instance.path(path)),
        os.rmdir(os.path.dirname(instance.path(path))),
        instance.write(os.path.dirname(path), b"x"),
    ),
}


@pytest.mark.parametrize("race", RACES)
def test_what_changes_between_the_scan_and_the_archive_is_never_stored_as_something_else(
    instance: MadeInstance, place: InstanceDirectory, race: str
) -> None:
    paths = [instance.add_document() for _number in range(3)]
    done = []

    def change(call: Call) -> None:
        if call.operation == "archive_media" and not done:
            done.append(RACES[race](instance, paths[1]))

    with WatchedSession(local_agent(), change) as session, pytest.raises(LossError):
        take(instance, place, session)
    stored = set(index_paths(place))
    assert paths[1] not in stored
    assert {paths[0], paths[2]} <= stored
    verify(place, "deep", "1")


def index_paths(place: InstanceDirectory) -> list[bytes]:
    from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import media_of

    return [entry.path for entry in media_of(place, place.select("1")).entries()]


def test_a_file_larger_than_a_frame_and_one_that_grows_are_whole(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    instance.add_document(os.urandom(33 << 20))
    instance.add_document(os.urandom((1 << 20) + 1))
    instance.add_document(os.urandom(1 << 20))
    take(instance, place)
    verify(place, "deep")
    put_back(place, disk / "media", disk / "db.sqlite3")
    assert files_below(disk / "media") == files_below(instance.media)


def test_a_modification_time_after_2262_makes_the_round_trip(
    instance: MadeInstance, place: InstanceDirectory, disk: Path
) -> None:
    path = instance.add_document()
    os.utime(instance.path(path), (10**10, 10**10))
    if os.stat(instance.path(path)).st_mtime_ns != 10**19:
        pytest.skip("this file system has no such times")
    take(instance, place)
    put_back(place, disk / "media", disk / "db.sqlite3")
    assert files_below(disk / "media") == files_below(instance.media)
