# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that do not shrink are stored as raw blocks, in frames that every reader of zstd takes for what they are."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.agent.zstd import Pipe, compressor, decompressor
from ansible_collections.papermerge.backup.plugins.module_utils.durable import Piece
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError, ToolError
from ansible_collections.papermerge.backup.plugins.module_utils.media import archive
from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import ArchivedFile, Archiver
from ansible_collections.papermerge.backup.plugins.module_utils.media.frame_watch import FrameWatch
from ansible_collections.papermerge.backup.plugins.module_utils.media.frames import (
    BLOCK_BYTES,
    RAW_END,
    RAW_FROM,
    RAW_HEADER,
    raw_blocks,
)
from ansible_collections.papermerge.backup.plugins.module_utils.media.root import MediaRoot
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import unpack
from tests.support.instances import MadeInstance, files_below
from tests.support.snapshots import WatchedSession, local_agent, put_back, take, verify
from tests.support.zstd_frames import COMPRESSED, RAW, frames_of

ZSTD = shutil.which("zstd") or "zstd"
JPEG = b"\xff\xd8\xff\xe0"


class Packed:
    """Takes a part as the agent stores it. ``ends``: where each frame ends."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ends = [0]

    def send(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self.data += piece

    def end_frame(self) -> None:
        self.ends.append(len(self.data))

    def compressor(self, sink: Callable[[bytes], object]) -> Pipe:
        return compressor(ZSTD, sink)


def archived(
    root: Path, paths: list[bytes], frame_bytes: int = 32 << 20, frame_members: int = 4096
) -> tuple[list[ArchivedFile], Packed]:
    media, output = MediaRoot(str(root)), Packed()
    try:
        archiver = Archiver(media, output, True, frame_bytes, frame_members)
        files = list(archiver.archive(paths))
    finally:
        media.close()
    assert output.ends[-1] == len(output.data)
    assert archiver.tar_size == len(unpacked(bytes(output.data)))
    return files, output


def unpacked(stored: bytes) -> bytes:
    """Unpack with the zstd program and with the library, which must agree."""
    by_library = b"".join(unpack([stored], 1 << 30, "it"))
    done = subprocess.run([ZSTD, "-dc"], input=stored, capture_output=True, check=True)
    assert done.stdout == by_library
    return by_library


def text(chance: random.Random, size: int) -> bytes:
    return b" ".join(b"%d" % chance.randrange(10**6) for _word in range(size // 6 + 1))[:size]


#: Around the limits of blocks, of what is read whole, of what is sampled; larger than a frame, and smaller.
SIZES = (0, 1, RAW_FROM - 1, RAW_FROM, BLOCK_BYTES - 512, BLOCK_BYTES, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 9 << 20)


@pytest.fixture
def mixed(tmp_path: Path, rng: random.Random) -> dict[bytes, bytes]:
    contents = {}
    for number, size in enumerate(SIZES):
        contents[b"%02d-noise" % number] = rng.randbytes(size)
        contents[b"%02d-text" % number] = text(rng, size)
        contents[b"%02d.jpg" % number] = (JPEG + text(rng, size))[:size]
    for path, content in contents.items():
        (tmp_path / os.fsdecode(path)).write_bytes(content)
    return contents


def test_every_reader_gets_every_file_out_of_raw_and_packed_frames(tmp_path: Path, mixed: dict[bytes, bytes]) -> None:
    files, output = archived(tmp_path, sorted(mixed), frame_bytes=4 << 20)
    assert {(file.path, file.state, file.sha256) for file in files} == {
        (path, "ok", hashlib.sha256(content).hexdigest()) for path, content in mixed.items()
    }
    (tmp_path / "part.tar.zst").write_bytes(output.data)
    script = f"{ZSTD} -dc part.tar.zst | tar t"
    listed = subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [os.fsencode(name) for name in listed.stdout.splitlines()] == [file.path for file in files]

    for number, (begin, end) in enumerate(zip(output.ends, output.ends[1:], strict=False)):
        plain = unpacked(bytes(output.data[begin:end]))
        inside = [file.path for file in files if file.frame == number]
        assert len(plain) <= (4 << 20) + 1024 or len(inside) == 1
        with tarfile.open(fileobj=io.BytesIO(plain + bytes(1024))) as tar:
            found = {os.fsencode(member.name): tar.extractfile(member) for member in tar}
        assert list(found) == inside
        assert {path: stream and stream.read() for path, stream in found.items()} == {p: mixed[p] for p in inside}
        ((has_checksum, kinds),) = frames_of(bytes(output.data[begin:end]))
        if any(len(mixed[path]) >= RAW_FROM for path in inside):
            is_text = any(path.endswith(b"-text") and len(mixed[path]) >= RAW_FROM for path in inside)
            assert (has_checksum, kinds & {RAW, COMPRESSED}) == ((True, {COMPRESSED}) if is_text else (False, {RAW}))


def test_a_frame_ends_after_so_many_members(tmp_path: Path, rng: random.Random) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for number in range(30):
        (media / f"{number:02d}-noise").write_bytes(rng.randbytes(RAW_FROM))
        (media / f"{number:02d}-text").write_bytes(b"text")
    # Their pieces are many, and they are one member each.
    (media / "30-large-noise").write_bytes(rng.randbytes(3 << 20))
    (media / "30-large-text").write_bytes(text(rng, 3 << 20))
    paths = sorted(os.fsencode(name) for name in os.listdir(media))
    files, output = archived(media, paths, frame_members=7)
    assert {file.path for file in files} == set(paths)
    inside = [[file.path for file in files if file.frame == number] for number in range(len(output.ends) - 1)]
    # A frame that is sent as it grows ends early where a collected one is sent.
    assert (sum(map(len, inside)), max(map(len, inside))) == (62, 7)
    assert sum(len(paths_inside) == 7 for paths_inside in inside) >= 4
    for paths_inside, begin, end in zip(inside, output.ends, output.ends[1:], strict=False):
        with tarfile.open(fileobj=io.BytesIO(unpacked(bytes(output.data[begin:end])) + bytes(1024))) as tar:
            assert [os.fsencode(name) for name in tar.getnames()] == paths_inside


def test_a_part_of_nothing_but_raw_frames_costs_three_bytes_a_block(tmp_path: Path, rng: random.Random) -> None:
    (tmp_path / "a").write_bytes(rng.randbytes(20 << 20))
    _files, output = archived(tmp_path, [b"a"])
    blocks = len(output.data) // BLOCK_BYTES + 1
    # Each time that the buffer is passed on a block may end early.
    assert len(output.data) < (20 << 20) + 2048 + 3 * 2 * blocks


@pytest.mark.parametrize("content", [b"noise", b"text"])
@pytest.mark.parametrize("new_size", [0, (3 << 20) - 1, 40 << 20])
def test_a_large_file_that_changes_its_size_leaves_the_part_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: random.Random, new_size: int, content: bytes
) -> None:
    before = rng.randbytes(3 << 20) if content == b"noise" else text(rng, 3 << 20)
    (tmp_path / "a").write_bytes(before)
    (tmp_path / "b").write_bytes(rng.randbytes(100_000))
    real = os.readv

    def readv(descriptor: int, buffers: list[memoryview]) -> int:
        count = real(descriptor, buffers)
        os.truncate(tmp_path / "a", new_size)
        return count

    monkeypatch.setattr(archive.os, "readv", readv)
    files, output = archived(tmp_path, [b"a", b"b"])
    assert {file.path: file.state for file in files} == {b"a": "changing", b"b": "ok"}
    with tarfile.open(fileobj=io.BytesIO(unpacked(bytes(output.data)))) as tar:
        for file in files:
            stream = tar.extractfile(file.path.decode())
            assert stream is not None
            assert hashlib.sha256(stream.read()).hexdigest() == file.sha256


@pytest.mark.parametrize("is_here", [True, False], ids=["written by the agent", "sent"])
def test_what_was_stored_raw_is_verified_and_restored(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, rng: random.Random, is_here: bool
) -> None:
    for size in (0, 50_000, 3 << 20, 40 << 20):
        instance.add_document(rng.randbytes(size) or None)
        instance.add_document(text(rng, size) or None)
    for number in range(200):
        instance.write(b"results/%d.txt" % number, text(rng, number * 10))
    with local_agent() as agent:
        agent.is_here = is_here
        session = WatchedSession(agent)
        take(instance, place, session, accept_missing=True)
        paths = [arguments["host_path"] for arguments in session.arguments("archive_media")]
    assert all(path.startswith(str(place.path)) == is_here for path in paths)
    assert len(paths) > 1
    kinds = [kinds for path in place.parts_path.glob("*.tar.zst") for _sum, kinds in frames_of(path.read_bytes())]
    assert {RAW} in kinds
    assert any(COMPRESSED in frame for frame in kinds)
    verify(place, "deep")
    put_back(place, disk / "media", disk / "db.sqlite3")
    assert files_below(disk / "media") == files_below(instance.media)


def block(kind: int, size: int, content: bytes, last: bool = False) -> bytes:
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + content


HOSTILE = {
    "a block that is too large": block(0, BLOCK_BYTES + 1, bytes(BLOCK_BYTES + 1)) + RAW_END,
    "a block of no kind": block(3, 5, b"xxxxx") + RAW_END,
    "no last block": block(0, 5, b"xxxxx"),
    "a block cut short": block(0, 500, b"xxxxx"),
    "a header cut short": b"\0",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_broken_raw_frames_are_damage(what: str) -> None:
    stored = RAW_HEADER + HOSTILE[what]
    with pytest.raises(DamageError):
        list(unpack([stored], 1 << 30, "it"))
    with pytest.raises(DamageError), decompressor(ZSTD, lambda _piece: None) as pipe:
        pipe.write(stored)
        pipe.close()


def test_a_raw_frame_that_was_cut_short_on_its_way_is_noticed(rng: random.Random) -> None:
    pieces: list[Piece] = [rng.randbytes(size) for size in (512, 300_000, 5, 131_072, 131_073)]
    stored = RAW_HEADER + b"".join(raw_blocks(pieces)) + RAW_END
    assert unpacked(stored) == b"".join(pieces)
    watch = FrameWatch("it")
    watch.feed(stored)
    watch.end()
    for cut in (len(stored) - 1, len(stored) - 3, len(stored) - 4, len(stored) // 2, 5):
        watch = FrameWatch("it")
        watch.feed(stored[:cut])
        with pytest.raises(ToolError):
            watch.end()


def test_a_compressor_that_stops_early_is_noticed_where_the_agent_writes_the_part(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, rng: random.Random
) -> None:
    """Its exit status says that all went well."""
    instance.add_document(text(rng, 300_000))
    programs = disk / "programs"
    programs.mkdir()
    (programs / "zstd").write_text(f'#!/bin/sh\n{ZSTD} "$@" | head -c 1000\n', encoding="ascii")
    (programs / "zstd").chmod(0o755)
    with local_agent(before=f"PATH='{programs}':$PATH; export PATH; ") as session:
        session.is_here = True
        with pytest.raises(ToolError, match="did not send a whole zstd frame"):
            take(instance, place, session)
    assert place.snapshot_names() == []
    assert not [path for path in place.path.rglob("*") if ".tar.zst" in path.name]
