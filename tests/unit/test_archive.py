# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive: one state of each file, or none, and frames that end where they should."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.durable import Piece
from ansible_collections.papermerge.backup.plugins.module_utils.media import archive
from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import ArchivedFile, Archiver, in_tar
from ansible_collections.papermerge.backup.plugins.module_utils.media.frames import Compressor
from ansible_collections.papermerge.backup.plugins.module_utils.media.root import MediaRoot

Interfere = Callable[[int], object]


class Plain:
    """Takes a tar frame by frame."""

    def __init__(self) -> None:
        self.frames = [bytearray()]

    def send(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self.frames[-1].extend(piece)

    def end_frame(self) -> None:
        self.frames.append(bytearray())

    def compressor(self, sink: Callable[[bytes], object]) -> Compressor:
        raise AssertionError("a plain tar needs no compressor")


def archived(root: Path, paths: list[bytes], frame_bytes: int = 32 << 20) -> tuple[list[ArchivedFile], list[bytes]]:
    """Return what became of the files, and the tar frame by frame."""
    media = MediaRoot(str(root))
    output = Plain()
    try:
        archiver = Archiver(media, output, False, frame_bytes, 4096)
        files = list(archiver.archive(paths))
    finally:
        media.close()
    assert output.frames.pop() == b""
    assert archiver.tar_size == sum(map(len, output.frames))
    return files, [bytes(frame) for frame in output.frames]


def members(frames: list[bytes]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(frames))) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            assert stream is not None
            found[member.name] = stream.read()
    return found


@pytest.fixture
def interfere(monkeypatch: pytest.MonkeyPatch) -> Callable[[Interfere], None]:
    """Let something happen to a file between the look at it and the end of reading it."""
    real = os.preadv

    def install(action: Interfere) -> None:
        calls = iter(range(1000))

        def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
            count = real(descriptor, buffers, offset)
            action(next(calls))
            return count

        monkeypatch.setattr(archive.os, "preadv", preadv)

    return install


def test_a_small_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, interfere: Callable[[Interfere], None]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")
    interfere(lambda call: path.write_bytes(b"after!") if call == 0 else None)
    (file,), frames = archived(tmp_path, [b"a"])
    assert (file.state, file.sha256) == ("ok", hashlib.sha256(b"after!").hexdigest())
    assert members(frames) == {"a": b"after!"}


def test_a_small_file_that_keeps_changing_is_left_out(tmp_path: Path, interfere: Callable[[Interfere], None]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    interfere(lambda call: path.write_bytes(b"%010d" % call))
    (file,), frames = archived(tmp_path, [b"a"])
    assert file.state == "changing"
    assert not in_tar(file)
    assert members(frames) == {}


@pytest.mark.parametrize("size", [0, 3, 11, 2 << 20])
def test_a_small_file_that_grows_or_shrinks_is_stored_as_it_is_in_the_end(
    tmp_path: Path, interfere: Callable[[Interfere], None], size: int
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    content = os.urandom(size)
    interfere(lambda call: path.write_bytes(content) if call == 0 else None)
    (file,), frames = archived(tmp_path, [b"a"])
    assert (file.state, file.size, file.sha256) == ("ok", size, hashlib.sha256(content).hexdigest())
    assert members(frames) == {"a": content}


@pytest.mark.parametrize("new_size", [0, 1 << 20, (3 << 20) - 1, (3 << 20) + 1, 9 << 20])
def test_a_large_file_that_changes_its_size_is_padded_and_never_taken_for_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_size: int
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * (3 << 20))
    (tmp_path / "b").write_bytes(b"behind it")
    real = os.readv

    def readv(descriptor: int, buffers: list[memoryview]) -> int:
        count = real(descriptor, buffers)
        os.truncate(path, new_size)
        return count

    monkeypatch.setattr(archive.os, "readv", readv)
    files, frames = archived(tmp_path, [b"a", b"b"])
    assert [file.state for file in files] == ["changing", "ok"]
    assert in_tar(files[0])
    found = members(frames)
    assert hashlib.sha256(found["a"]).hexdigest() == files[0].sha256
    assert (len(found["a"]), found["b"]) == (3 << 20, b"behind it")


def test_each_frame_begins_at_a_member_and_holds_its_share_or_one_member(tmp_path: Path) -> None:
    sizes = [0, 100, 3000, 9000, 20_000, 100, 7000, 512, 0]
    paths = [b"%d" % number for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        (tmp_path / os.fsdecode(path)).write_bytes(os.urandom(size))
    files, frames = archived(tmp_path, paths, frame_bytes=10_240)
    assert [file.frame for file in files] == [0, 0, 0, 1, 2, 3, 3, 3, 3]
    for number, frame in enumerate(frames):
        inside = [file for file in files if file.frame == number]
        assert set(members([frame, bytes(1024)])) == {os.fsdecode(file.path) for file in inside}
        assert len(frame) <= 10_240 + 1024 or len(inside) == 1


def test_files_that_are_gone_are_said_to_be_gone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").write_bytes(b"x")
    files, frames = archived(tmp_path, [b"gone", b"gone/too", b"folder", b"a"])
    assert [file.state for file in files] == ["vanished", "vanished", "vanished", "ok"]
    assert members(frames) == {"a": b"x"}
