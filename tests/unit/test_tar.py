# SPDX-License-Identifier: GPL-3.0-or-later
"""The tar of a part: other programs read what is written, and the reader takes nothing else."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.media.tar import (
    BLOCK,
    END_OF_ARCHIVE,
    TarReader,
    member_header,
    padding,
)

NAMES = {
    "one byte": b"a",
    "100 bytes": b"n" * 100,
    "101 bytes": b"n" * 101,
    "255 bytes": b"n" * 255,
    "prefix split at its limit": b"p" * 155 + b"/" + b"n" * 100,
    "one more than the prefix holds": b"p" * 156 + b"/" + b"n" * 100,
    "one more than the name holds": b"p" * 155 + b"/" + b"n" * 101,
    "a slash first in the tail": b"p" * 20 + b"/" + b"n" * 99,
    "many directories": b"/".join([b"directory"] * 24) + b"/name",
    "deeper than PATH_MAX": b"/".join([b"d" * 200] * 30) + b"/name",
    "not UTF-8, short": b"caf\xe9.pdf",
    "not UTF-8, long": b"\xff\xfe" * 80,
    "not UTF-8, long path": b"d\xe9" * 60 + b"/" + b"n\xff" * 70,
    "UTF-8, long": "ä€😀".encode() * 25,
    "leading dash": b"-rf",
    "leading dash, long": b"-" * 150,
    "newline": b"two\nlines\n",
    "newline, long": b"line\n" * 40,
    "a space, a quote and a backslash": b" '\"\\ ",
    "an equals sign, long": b"path=x\n27 " * 20,
    "control characters": bytes(range(1, 32)),
    "dots": b"...",
}


def archive(*members: tuple[bytes, bytes]) -> bytes:
    return b"".join(
        member_header(path, len(content)) + content + bytes(padding(len(content))) for path, content in members
    )


def read_all(data: bytes, budget: int | None = None) -> list[tuple[bytes, bytes]]:
    """Read an archive to its end with the collection's reader."""
    reader = TarReader(io.BytesIO(data).read, budget or len(data))
    found = []
    while (member := reader.next_member()) is not None:
        content = bytearray()
        reader.content(member.size, content.extend)
        found.append((member.path, bytes(content)))
    reader.finish()
    return found


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_kind_of_name_is_read_back_by_the_reader_by_python_and_by_gnu_tar(name: bytes, tmp_path: Path) -> None:
    members = [(b"before", b"1"), (name, b"content\n" * 100), (b"z-after", b"")]
    data = archive(*members) + END_OF_ARCHIVE
    assert read_all(data) == members

    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as other:
        found = []
        for info in other:
            stream = other.extractfile(info)
            assert stream is not None
            found.append((info.name.encode("utf-8", "surrogateescape"), stream.read()))
    assert found == members

    gnu_tar = shutil.which("tar")
    if gnu_tar is None:
        pytest.fail("GNU tar is not installed")
    target = tmp_path / "target"
    target.mkdir()
    listed = subprocess.run(
        [gnu_tar, "--list", "--null", "--quoting-style=literal", "--show-transformed-names", "--file=-"],
        input=data,
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert listed.stdout == b"".join(path + b"\n" for path, _content in members)
    if len(name) < 4000:
        subprocess.run(
            [gnu_tar, "--extract", "--file=-", f"--directory={target}", "--no-same-owner"],
            input=data,
            check=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        with open(os.path.join(os.fsencode(target), name), "rb") as stream:
            assert stream.read() == b"content\n" * 100


@pytest.mark.parametrize(
    ("name", "charset"),
    [(b"\xff" * 150, "BINARY"), ("ä".encode() * 75, None), (b"\xff" * 100, None), (b"n" * 150, None)],
)
def test_a_long_name_that_is_not_utf_8_says_so_as_pax_demands(name: bytes, charset: str | None) -> None:
    data = archive((name, b"")) + END_OF_ARCHIVE
    with tarfile.open(fileobj=io.BytesIO(data)) as other:
        assert other.getmembers()[0].pax_headers.get("hdrcharset") == charset


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0o77777777777),
        ("size", 8 << 30),
        ("size", 20 << 40),
        ("uid", 2097151),
        ("uid", 2097152),
        ("uid", 4294967294),
        ("gid", 4294967294),
        ("mtime", -1),
        ("mtime", -2_000_000_000),
        ("mtime", 0o77777777777),
        ("mtime", 0o77777777777 + 1),
        ("mode", 0o7777),
    ],
)
def test_numbers_that_a_header_cannot_hold_reach_other_programs(field: str, value: int) -> None:
    header = member_header(b"name", **{"size": 0, field: value})  # type: ignore[arg-type]
    info = tarfile.TarFile(fileobj=io.BytesIO(header)).next()
    assert info is not None
    assert getattr(info, field) == value
    if field == "size":
        member = TarReader(io.BytesIO(header).read, len(header)).next_member()
        assert member is not None
        assert member == (b"name", value)


def test_gnu_tar_reads_numbers_that_a_header_cannot_hold() -> None:
    data = member_header(b"name", 0, mtime=-1, uid=4294967294, gid=2097152, owner="", group="") + END_OF_ARCHIVE
    listed = subprocess.run(
        ["tar", "--list", "--verbose", "--numeric-owner", "--utc", "--full-time", "--file=-"],
        input=data,
        capture_output=True,
        check=True,
    )
    assert b"4294967294/2097152" in listed.stdout
    assert b"1969-12-31 23:59:59" in listed.stdout


def made_by_hand(
    name: bytes = b"name",
    kind: bytes = b"0",
    size: bytes = b"00000000000\0",
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
) -> bytes:
    """Return a header block as another program could write it, with a right checksum."""
    block = bytearray(BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = size
    block[136:148] = b"00000000000\0"
    block[148:156] = b"        "
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "kind",
    [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"g", b"L", b"K", b"S", b"D", b"V", b"M", b"A", b"X"],
)
def test_a_member_that_is_no_regular_file_is_refused(kind: bytes) -> None:
    with pytest.raises(DamageError, match="something else than a regular file"):
        read_all(made_by_hand(kind=kind, link=b"/etc/passwd") + END_OF_ARCHIVE)


def test_what_gnu_tar_writes_for_links_directories_and_long_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "file").with_name("n" * 150).write_bytes(b"x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.link(tmp_path / "file", tmp_path / "hard")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for names in (["link"], ["file", "hard"], ["folder"], ["fifo"], ["n" * 150]):
        made = subprocess.run(
            ["tar", "--create", "--format=gnu", f"--directory={tmp_path}", "--file=-", "--blocking-factor=1", *names],
            capture_output=True,
            check=True,
        ).stdout
        with pytest.raises(DamageError, match="something else than a regular file"):
            read_all(made)


def pax(body: bytes) -> bytes:
    return made_by_hand(b"pax", b"x", b"%011o\0" % len(body)) + body + bytes(padding(len(body)))


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"5 a=b\n",
        b"7 a=b\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b" a=b\n",
        b"6 a b\n",
        b"6 a=bX",
        b"99999999 a=b\n",
        b"6 a=b\n6 ",
        b"17 size=12345\n",
        b"11 size=-1\n",
        b"11 size=1k\n",
        b"29 size=18446744073709551616\n",
    ],
)
def test_a_broken_extended_header_is_refused(body: bytes) -> None:
    with pytest.raises(DamageError):
        read_all(pax(body) + made_by_hand() + END_OF_ARCHIVE)


def test_two_extended_headers_of_one_member_or_too_large_a_one_are_refused() -> None:
    record = b"6 a=b\n"
    with pytest.raises(DamageError):
        read_all(pax(record) + pax(record) + made_by_hand() + END_OF_ARCHIVE)
    large = made_by_hand(b"pax", b"x", b"77777777777\0")
    with pytest.raises(DamageError):
        read_all(large + END_OF_ARCHIVE)


@pytest.mark.parametrize(
    "size", [b"-0000000001\0", b"-0000001000\0", b"+0000000001\0", b"0_000000001\0", b"0o000000001\0"]
)
@pytest.mark.parametrize("kind", [b"0", b"x"])
def test_a_size_that_is_no_octal_number_is_refused(kind: bytes, size: bytes) -> None:
    """A negative size would give a reader back what it has used of its budget."""
    with pytest.raises(DamageError, match="not a number"):
        read_all(made_by_hand(kind=kind, size=size) + b"6 a=b\n".ljust(BLOCK, b"\0") + made_by_hand() + END_OF_ARCHIVE)


def test_a_binary_size_of_gnu_tar_is_refused() -> None:
    with pytest.raises(DamageError, match="not a number"):
        read_all(made_by_hand(size=b"\x80" + (8 << 30).to_bytes(11, "big")) + END_OF_ARCHIVE)


def test_every_changed_byte_of_a_header_is_noticed() -> None:
    good = archive((b"folder/name", b"content")) + END_OF_ARCHIVE
    for position in range(BLOCK):
        changed = bytearray(good)
        changed[position] ^= 0x15
        try:
            found = read_all(bytes(changed))
        except DamageError:
            continue
        pytest.fail(f"byte {position}: read as {found!r}")


def test_an_archive_that_is_cut_short_is_refused_wherever_it_is_cut() -> None:
    good = archive((b"one", b"content"), (b"n" * 150, b"x" * 600)) + END_OF_ARCHIVE
    for length in range(len(good)):
        with pytest.raises(DamageError):
            read_all(good[:length], budget=len(good))


def test_anything_after_the_end_or_beyond_the_budget_is_refused() -> None:
    good = archive((b"one", b"content"), (b"two", b"x" * 5000)) + END_OF_ARCHIVE
    assert len(read_all(good)) == 2
    with pytest.raises(DamageError, match="goes on"):
        read_all(good + b"\0", budget=len(good))
    with pytest.raises(DamageError, match="longer than its record says"):
        read_all(good, budget=len(good) - 1)
    with pytest.raises(DamageError, match="lone zero block"):
        read_all(archive((b"one", b"x")) + bytes(BLOCK) + archive((b"two", b"x")) + END_OF_ARCHIVE)
    dirty = bytearray(good)
    dirty[BLOCK + 8] = 1
    with pytest.raises(DamageError, match="else than zeros"):
        read_all(bytes(dirty))
