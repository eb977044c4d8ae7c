# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames of raw blocks: sent as they lie in the part, with the content that any reader of zstd finds in them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.media.raw import raw_extents, read_extents
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PartMember, PartRecord
from ansible_collections.papermerge.backup.plugins.plugin_utils import raw_frames
from ansible_collections.papermerge.backup.plugins.plugin_utils.raw_frames import RawFrames
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import unpack
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    Call,
    Extent,
    FileFrame,
    FilePiece,
)
from tests.support.instances import MadeInstance, files_below
from tests.support.snapshots import WatchedSession, local_agent, put_back, staged_agent, take
from tests.support.zstd_frames import COMPRESSED, RAW, frames_of

HEADER = bytes.fromhex("28b52ffd0038")


def block(content: bytes, last: bool) -> bytes:
    return (len(content) << 3 | last).to_bytes(3, "little") + content


def raw(content: bytes, size: int = 128 << 10) -> bytes:
    """Return a frame of raw blocks that ends with an empty one."""
    blocks = [block(content[start : start + size], False) for start in range(0, len(content), size)]
    return HEADER + b"".join(blocks) + block(b"", True)


def stored_part(path: Path, frames: list[bytes]) -> PartRecord:
    path.write_bytes(b"".join(frames))
    plain = sum(len(piece) for piece in unpack([path.read_bytes()], 1 << 40, "part"))
    offsets = [sum(map(len, frames[:number])) for number in range(len(frames))]
    members = [PartMember(b"%06d" % number, 0, "0" * 64, offset) for number, offset in enumerate(offsets)]
    return PartRecord("0" * 32, path.stat().st_size, "0" * 64, plain, members)


def content_of(path: Path, record: PartRecord) -> bytes:
    ticks: list[int] = []
    content = b""
    with RawFrames(path, record) as frames:
        for piece in frames.content(ticks.append):
            content += FileFrame(b"", piece).encoded() if isinstance(piece, FilePiece) else piece
    assert sum(ticks) == path.stat().st_size
    return content


def test_whatever_frames_a_part_has_its_content_is_the_one_that_a_zstd_reader_finds(
    tmp_path: Path, rng: random.Random
) -> None:
    path = tmp_path / "part"
    for _number in range(40):
        contents = [rng.randbytes(rng.choice([0, 1, 512, 70_000, 131_072, 131_073, 1_500_000])) for _frame in range(4)]
        frames = [
            rng.choice([raw, zstandard.compress, lambda content: raw(content, 1000)])(content) for content in contents
        ]
        record = stored_part(path, frames)
        assert content_of(path, record) == b"".join(contents)
        assert zstandard.ZstdDecompressor().stream_reader(
            path.read_bytes(), read_across_frames=True
        ).read() == b"".join(contents)


def test_a_part_is_sent_unpacked_only_where_nearly_all_of_it_is_raw(tmp_path: Path, rng: random.Random) -> None:
    noise, text = rng.randbytes(1 << 20), b"some text " * 100_000
    path = tmp_path / "part"
    for frames, prevail in (
        ([raw(noise), zstandard.compress(text)], True),
        ([zstandard.compress(noise)], False),
        ([raw(noise), zstandard.compress(noise)], False),
    ):
        with RawFrames(path, stored_part(path, frames)) as found:
            assert found.prevail is prevail


def test_damaged_frames_are_left_to_a_reader_of_zstd_which_refuses_them(tmp_path: Path, rng: random.Random) -> None:
    path = tmp_path / "part"
    sound = raw(rng.randbytes(300_000))
    record = stored_part(path, [sound])
    for damaged in (sound[:-1], sound[:-3], sound[:200_000], HEADER, b"", sound + b"x"):
        path.write_bytes(damaged)
        if damaged:
            with pytest.raises(DamageError):
                content_of(path, record)
    with pytest.raises(DamageError, match="missing"):
        RawFrames(tmp_path / "nothing", record)
    for _number in range(200):
        changed = bytearray(sound)
        changed[rng.choice([*range(9), 131_081, 131_082, 131_083, len(sound) - 3])] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            found = content_of(path, record)
        except BackupError:
            continue
        # Where a reader of zstd takes it, it is the same for us.
        assert found == b"".join(unpack([bytes(changed)], record.tar_size, "part"))


def test_a_part_of_tiny_blocks_takes_no_memory_to_speak_of(tmp_path: Path, rng: random.Random) -> None:
    path = tmp_path / "part"
    content = rng.randbytes(70_000)
    record = stored_part(path, [raw(content, 1), raw(content)])
    with RawFrames(path, record) as frames:
        assert not frames.prevail
    assert content_of(path, record) == 2 * content


def test_endless_empty_blocks_end(tmp_path: Path) -> None:
    path = tmp_path / "part"
    record = stored_part(path, [raw(b"x")])
    path.write_bytes(HEADER + bytes(3) * 100_000)
    with pytest.raises(DamageError):
        content_of(path, record)


def test_a_file_that_becomes_shorter_while_it_is_sent_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(bytes(1000))
    descriptor = os.open(path, os.O_RDONLY)
    _request, frame, _end = Call("x", {}, data=[FilePiece(descriptor, [Extent(0, 1001)])]).frames()
    assert isinstance(frame, FileFrame)
    with pytest.raises(DamageError, match="shorter"):
        frame.encoded()
    os.close(descriptor)


def test_pieces_are_about_as_large_as_one_frame_to_an_agent(tmp_path: Path, rng: random.Random) -> None:
    path = tmp_path / "part"
    with RawFrames(path, stored_part(path, [raw(rng.randbytes(5 << 20))])) as frames:
        sizes = [
            sum(extent.size for extent in piece.extents)
            for piece in frames.content(lambda _size: None)
            if isinstance(piece, FilePiece)
        ]
    assert sum(sizes) == 5 << 20
    assert max(sizes) <= raw_frames.PIECE + (128 << 10)


@pytest.mark.parametrize("by_files", [False, True], ids=["streamed", "staged"])
def test_what_lies_in_a_file_arrives_as_if_it_had_been_read(tmp_path: Path, rng: random.Random, by_files: bool) -> None:
    path, target = tmp_path / "source", tmp_path / "target"
    content = rng.randbytes(3_000_001)
    path.write_bytes(content)
    extents = [Extent(1, 1_000_000), Extent(2_000_000, 1_000_001), Extent(0, 1)]
    scratch = tmp_path / "staging"
    scratch.mkdir()
    with path.open("rb") as stream, staged_agent(scratch) if by_files else local_agent() as session:
        pieces: list[bytes | FilePiece] = [b"before", FilePiece(stream.fileno(), extents), b"behind"]
        session.call(Call("write_file", {"host_path": str(target)}, data=pieces))
    found = target.read_bytes()
    assert found == b"before" + content[1:1_000_001] + content[2_000_000:] + content[:1] + b"behind"


def test_a_file_that_the_kernel_cannot_pass_on_is_read(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with open("/proc/self/auxv", "rb") as stream, local_agent() as session:
        piece = FilePiece(stream.fileno(), [Extent(0, 20), Extent(20, 30)])
        session.call(Call("write_file", {"host_path": str(target)}, data=[piece]))
        assert target.read_bytes() == os.pread(stream.fileno(), 50, 0)


def read_here(path: Path) -> bytes | None:
    with open(path, "rb") as stream:
        extents = raw_extents(stream.fileno(), 0, path.stat().st_size)
        return None if extents is None else b"".join(map(bytes, read_extents(stream.fileno(), extents)))


@pytest.mark.parametrize("size", [7, 4096, (128 << 10) - 1, 128 << 10])
def test_blocks_of_any_size_are_read_from_where_they_lie(tmp_path: Path, rng: random.Random, size: int) -> None:
    content = rng.randbytes(3 * size * 200 if size < 4096 else 2_000_000)
    path = tmp_path / "part"
    path.write_bytes(raw(content[:5000], size) + raw(content[5000:], size))
    assert read_here(path) == content


def test_what_is_not_raw_or_too_large_is_left_to_a_reader_of_zstd(tmp_path: Path, rng: random.Random) -> None:
    content = rng.randbytes(300_000)
    for number, frame in enumerate(
        (raw(content, (128 << 10) + 1), raw(content)[:-1], zstandard.ZstdCompressor().compress(content), b"garbage")
    ):
        path = tmp_path / str(number)
        path.write_bytes(raw(content) + frame)
        assert read_here(path) is None


def test_a_part_that_becomes_shorter_while_it_is_read_is_damage(tmp_path: Path, rng: random.Random) -> None:
    path = tmp_path / "part"
    path.write_bytes(raw(rng.randbytes(2_000_000)))
    with open(path, "rb") as stream:
        extents = raw_extents(stream.fileno(), 0, path.stat().st_size)
        assert extents is not None
        pieces = read_extents(stream.fileno(), extents)
        next(pieces)
        os.truncate(path, 1_000_000)
        with pytest.raises(DamageError, match="became shorter"):
            list(pieces)


@pytest.fixture
def stored(instance: MadeInstance, place: InstanceDirectory, rng: random.Random) -> InstanceDirectory:
    """A snapshot whose part has raw frames and others."""
    for number in range(4):
        instance.add_document(rng.randbytes(700_000))
        instance.write(b"results/%d.txt" % number, b"a page of text " * 1000)
    take(instance, place)
    part = next(place.parts_path.glob("*.tar.zst")).read_bytes()
    kinds = [kinds for _sum, kinds in frames_of(part)]
    assert {RAW} in kinds
    assert any(COMPRESSED in found for found in kinds)
    return place


def restored_here(place: InstanceDirectory, root: Path, before: Callable[[Call], object]) -> WatchedSession:
    with local_agent() as agent:
        agent.is_here = True
        session = WatchedSession(agent, before)
        put_back(place, root / "media", root / "db.sqlite3", session)
        return session


def test_an_agent_of_this_machine_reads_the_parts_itself(
    instance: MadeInstance, stored: InstanceDirectory, disk: Path
) -> None:
    session = restored_here(stored, disk, lambda _call: None)
    calls = [call for call in session.calls if call.operation == "extract"]
    assert calls
    for call in calls:
        assert call.data is None
        assert Path(call.arguments["host_path"]).parent == stored.parts_path
    assert files_below(disk / "media") == files_below(instance.media)


def turn_a_bit(path: Path, at: int) -> None:
    stored = bytearray(path.read_bytes())
    stored[at] ^= 1
    path.write_bytes(stored)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: turn_a_bit(path, 400_000),
        lambda path: turn_a_bit(path, path.stat().st_size - 100),
        lambda path: os.truncate(path, 1_500_000),
        lambda path: path.unlink(),
    ],
    ids=["a raw byte", "a packed byte", "shorter", "gone"],
)
def test_a_part_that_changes_after_it_was_verified_leaves_the_target_as_it_was(
    stored: InstanceDirectory, disk: Path, harm: Callable[[Path], object]
) -> None:
    path = next(stored.parts_path.glob("*.tar.zst"))
    with pytest.raises(BackupError):
        restored_here(stored, disk, lambda call: call.operation == "extract" and harm(path))
    assert not (disk / "media").exists()
    assert not (disk / "db.sqlite3").exists()
