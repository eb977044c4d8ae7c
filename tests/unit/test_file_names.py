# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a Linux directory can hold makes the round trip byte for byte, through a real agent."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import MediaError
from ansible_collections.papermerge.backup.plugins.module_utils.media.scan import ScannedFile
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import (
    MAX_RECORD_BYTES,
    PartMember,
    PartRecord,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from tests.support.instances import MadeInstance, files_below
from tests.support.snapshots import put_back, take, verify

FILES = 10_000
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY
SPECIAL_NAMES = (
    b"-",
    b"--",
    b"-rf",
    b"--checkpoint-action=exec=sh",
    b"\n",
    b"two\nlines",
    b"ends with a newline\n",
    b"\r\n",
    b" ",
    b" leading space",
    b"trailing space ",
    b"...",
    b".hidden",
    b"~",
    b"*?[x]",
    b"$(reboot)",
    b"`reboot`",
    b"'\"\\",
    b"\x01\x1b[31m\x7f",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    "ä".encode(),
    "a\u0308".encode(),
    "ä".encode("latin-1"),
    "\u2028".encode(),
    "😀".encode() * 63,
    b"x" * 255,
    b"\xe9" * 255,
    b"\n" * 255,
    b"-" * 255,
    b"manifest.json",
    b"PaxHeader",
    b"con.",
)


def generated_name(rng: random.Random) -> bytes:
    kind = rng.randrange(8)
    length = rng.choice((1, 2, 8, 20, 99, 100, 101, 155, 156, 254, 255))
    if kind == 0:
        return rng.choice(SPECIAL_NAMES)
    if kind == 1:
        alphabet = [byte for byte in range(1, 256) if byte != 0x2F]
        return bytes(rng.choices(alphabet, k=length))
    if kind == 2:
        return "".join(rng.choices("aäß€漢😀\u200b", k=length)).encode()[:255]
    if kind == 3:
        return b"-" + b"r" * min(length, 254)
    if kind == 4:
        return bytes(rng.choices(b"a\n\r\t ", k=length))
    return b"document %d.pdf" % rng.randrange(10**6)


def names_in(rng: random.Random, count: int) -> Iterator[bytes]:
    """Yield different names of files and directories that are allowed in one directory."""
    seen = {b".", b"..", b""}
    for name in SPECIAL_NAMES:
        seen.add(name)
        yield name
    while len(seen) < count:
        name = generated_name(rng)
        if name not in seen:
            seen.add(name)
            yield name


def make_tree(top: int, rng: random.Random, files: int) -> None:
    """Fill a directory, by descriptors: a file directly in it, wide and deep directories, a path beyond PATH_MAX."""

    def write(parent: int, name: bytes) -> None:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=parent)
        content = b"" if rng.random() < 0.2 else rng.randbytes(rng.choice((1, 10, 511, 512, 513)))
        os.write(descriptor, content)
        os.fchmod(descriptor, rng.choice((0o600, 0o644, 0o444, 0o755)))
        os.utime(descriptor, ns=(0, rng.randrange(-(10**18), 4 * 10**18)))
        os.close(descriptor)

    def enter(parent: int, name: bytes) -> int:
        os.mkdir(name, dir_fd=parent)
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent)

    made = 0
    for number in range(files // 500):
        folder = enter(top, b"folder %d" % number)
        for name in names_in(rng, 480):
            write(folder, name)
            made += 1
        os.close(folder)
    descriptor = os.dup(top)
    depth = 0
    while made < files:
        # 40 levels of up to 255 bytes: far beyond the 4,096 bytes that a path in a system call can have.
        name = SPECIAL_NAMES[depth] if depth < len(SPECIAL_NAMES) else b"d" * 250 + b"%d" % depth
        following = enter(descriptor, name)
        os.close(descriptor)
        descriptor = following
        depth += 1
        for number in range(max(1, (files - made) // 10)):
            write(descriptor, b"file %d" % number)
            made += 1
    while depth < 45:
        following = enter(descriptor, b"d" * 250 + b"%d" % depth)
        os.close(descriptor)
        descriptor = following
        depth += 1
    write(descriptor, b"\xff at the bottom")
    os.close(descriptor)


def test_ten_thousand_generated_file_names_make_the_round_trip(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, rng: random.Random
) -> None:
    instance.add_document(name=b"-\xff\n.pdf")
    top = os.open(instance.media, DIRECTORY_FLAGS)
    make_tree(top, rng, FILES)
    os.close(top)
    expected = files_below(instance.media)
    assert len(expected) >= FILES
    assert max(map(len, expected)) > 4096
    assert any(max(map(len, path.split(b"/"))) == 255 for path in expected)

    snapshot = take(instance, place)
    assert (snapshot["files"], snapshot["originals"]) == (len(expected), 1)
    assert verify(place, "deep")["unpacked_files"] == len(expected)
    put_back(place, disk / "media", disk / "db.sqlite3")
    found = files_below(disk / "media")
    assert found.keys() == expected.keys()
    assert found == expected


def deep_file(top: Path, name: bytes, depth: int) -> None:
    descriptor = os.open(top, DIRECTORY_FLAGS)
    for _level in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        following = os.open(name, DIRECTORY_FLAGS, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = following
    os.close(os.open(b"file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)


@pytest.mark.parametrize(
    "name", [b"\x01" * 250, b"\xff" * 250, "\u00e9".encode() * 125], ids=["control", "raw", "UTF-8"]
)
def test_a_path_is_stored_however_long_its_text_becomes(
    instance: MadeInstance, place: InstanceDirectory, disk: Path, name: bytes
) -> None:
    """One byte of a name can take six in JSON."""
    deep_file(instance.media, name, 200)
    take(instance, place)
    verify(place, "deep")
    put_back(place, disk / "media", disk / "db.sqlite3")
    assert files_below(disk / "media").keys() == {b"/".join([name] * 200) + b"/file"}


def test_a_path_beyond_every_limit_is_refused_before_anything_is_stored(
    instance: MadeInstance, place: InstanceDirectory
) -> None:
    deep_file(instance.media, b"d" * 250, 300)
    with pytest.raises(MediaError, match="longer than"):
        take(instance, place)
    assert place.snapshot_names() == []


def test_many_long_paths_do_not_make_a_record_that_nobody_reads(tmp_path: Path) -> None:
    with Catalog(tmp_path / "catalog.sqlite3") as catalog:
        folder = b"\x01" * 30_000
        catalog.add_scanned(ScannedFile(folder + b"%05d" % number, 0, 0, 0, 0, 0) for number in range(2000))
        chosen = catalog.next_part()
    members = [PartMember(path, 0, "0" * 64, 0) for path, _size in chosen]
    assert len(PartRecord("0" * 32, 0, "0" * 64, 0, members).encode()) < MAX_RECORD_BYTES
