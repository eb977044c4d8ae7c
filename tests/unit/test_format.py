# SPDX-License-Identifier: GPL-3.0-or-later
"""The texts of the format: what is written is read back, and what nobody would write is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    KINDS,
    DamageError,
    UnsupportedError,
    error_from_dict,
)
from ansible_collections.papermerge.backup.plugins.module_utils.paths import (
    is_safe_member,
    path_fields,
    path_of,
    shown,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import (
    IndexEntry,
    decode_entry,
    lines,
    read_index,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import (
    Manifest,
    checksum_line,
    decode_manifest,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import (
    PartMember,
    PartRecord,
    decode_record,
)
from tests.support.snapshots import least_manifest

name = st.binary(min_size=1, max_size=40).filter(lambda text: b"/" not in text and b"\0" not in text)
path = st.lists(name, min_size=1, max_size=5).map(b"/".join).filter(is_safe_member)
sha256 = st.text("0123456789abcdef", min_size=64, max_size=64)
part = st.text("0123456789abcdef", min_size=32, max_size=32)
count = st.integers(0, 2**62)
entry = st.builds(
    IndexEntry,
    path=path,
    size=count,
    mode=st.integers(0, 0o7777),
    mtime_ns=st.integers(-(2**62), 2**70),
    ctime_ns=st.integers(-(2**62), 2**70),
    device=st.integers(0, 2**64 - 1),
    inode=st.integers(0, 2**64 - 1),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    owner=st.text(max_size=20),
    group=st.text(max_size=20),
    sha256=sha256,
    part=part,
)
quick = settings(max_examples=150, deadline=None, database=None)


@quick
@given(path)
def test_a_path_makes_the_round_trip_as_a_record(value: bytes) -> None:
    assert path_of(json.loads(json.dumps(path_fields(value)))) == value
    assert "\n" not in shown(value)


@quick
@given(st.lists(entry, unique_by=lambda row: row.path), st.integers(1, 500))
def test_an_index_makes_the_round_trip_however_its_bytes_are_cut(rows: list[IndexEntry], size: int) -> None:
    rows.sort(key=lambda row: row.path)
    text = b"".join(row.encode() for row in rows)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(read_index(pieces)) == rows


@quick
@given(part, count, sha256, count, st.lists(st.builds(PartMember, path, count, sha256, count), max_size=5))
def test_a_record_makes_the_round_trip(
    number: str, size: int, digest: str, tar_size: int, members: list[PartMember]
) -> None:
    record = PartRecord(number, size, digest, tar_size, members)
    assert decode_record(record.encode()) == record


def entry_fields(**changes: Any) -> dict[str, Any]:
    fields = {
        "path": "docs/a.pdf",
        "size": 1,
        "mode": 0o600,
        "mtime_ns": 1,
        "ctime_ns": 1,
        "device": 1,
        "inode": 1,
        "uid": 0,
        "gid": 0,
        "owner": "root",
        "group": "root",
        "sha256": "0" * 64,
        "part": "0" * 32,
    }
    fields.update(changes)
    return {key: value for key, value in fields.items() if value is not ...}


def record_fields(member: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    first = {"path": "docs/a.pdf", "size": 1, "sha256": "0" * 64, "offset": 0, **(member or {})}
    fields = {
        "format": 1,
        "part": "0" * 32,
        "size": 1,
        "sha256": "0" * 64,
        "tar_size": 1536,
        "members": [{key: value for key, value in first.items() if value is not ...}],
    }
    fields.update(changes)
    return {key: value for key, value in fields.items() if value is not ...}


def base64_of(text: bytes) -> str:
    return base64.b64encode(text).decode("ascii")


UNSAFE_PATHS: list[dict[str, Any]] = [
    {"path": "/etc/passwd"},
    {"path": "../outside"},
    {"path": "docs/../../outside"},
    {"path": "docs/.."},
    {"path": "docs//a"},
    {"path": "docs/./a"},
    {"path": "docs/"},
    {"path": "."},
    {"path": ""},
    {"path": "a\0b"},
    {"path": "\ud800"},
    {"path": 7},
    {"path": None},
    {"path": ...},
    {"path": ..., "path_base64": base64_of(b"../outside")},
    {"path": ..., "path_base64": base64_of(b"/etc/passwd")},
    {"path": ..., "path_base64": "not base64!"},
    {"path": ..., "path_base64": "YQ=="[:3]},
    {"path": ..., "path_base64": "é"},
]
WRONG_TYPES: list[dict[str, Any]] = [
    {"size": "1"},
    {"size": 1.0},
    {"size": True},
    {"size": -1},
    {"size": None},
    {"size": ...},
    {"sha256": "0" * 63},
    {"sha256": "0" * 65},
    {"sha256": "A" * 64},
    {"sha256": "0" * 64 + "\n"},
    {"sha256": 7},
]


def test_the_fields_that_these_tests_spoil_are_sound() -> None:
    assert decode_entry(json.dumps(entry_fields()).encode()).path == b"docs/a.pdf"
    assert decode_entry(json.dumps(entry_fields(path=..., path_base64=base64_of(b"\xff"))).encode()).path == b"\xff"
    assert decode_record(json.dumps(record_fields()).encode()).members[0].path == b"docs/a.pdf"


@pytest.mark.parametrize(
    "changes",
    [
        *UNSAFE_PATHS,
        *WRONG_TYPES,
        {"size": 1 << 63},
        {"mode": -1},
        {"mode": 1 << 32},
        {"uid": 1 << 32},
        {"owner": "\ud800"},
        {"uid": -1},
        {"mtime_ns": "1"},
        {"mtime_ns": 1.5},
        {"owner": None},
        {"part": "0" * 31},
        {"part": "../../../../../../../etc/passwd0"},
        {"part": ...},
    ],
    ids=str,
)
def test_an_index_line_that_nobody_would_write_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DamageError):
        decode_entry(json.dumps(entry_fields(**changes)).encode())


@pytest.mark.parametrize("line", [b"", b"null", b"[]", b'"text"', b"{", b"\xff", b"{}", b"[" * 100_000, b"9" * 5000])
def test_an_index_line_that_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(DamageError):
        decode_entry(line)


@pytest.mark.parametrize("changes", [*UNSAFE_PATHS, *WRONG_TYPES, {"offset": -1}, {"offset": ...}], ids=str)
def test_a_record_with_a_member_that_nobody_would_write_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DamageError):
        decode_record(json.dumps(record_fields(changes)).encode())


@pytest.mark.parametrize(
    "changes",
    [*WRONG_TYPES, {"format": 2}, {"format": ...}, {"members": {}}, {"members": [1]}, {"members": ...}, {"part": "x"}],
    ids=str,
)
def test_a_record_that_nobody_would_write_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DamageError):
        decode_record(json.dumps(record_fields(**changes)).encode())


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_record_or_manifest_that_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(DamageError):
        decode_record(text)
    with pytest.raises(DamageError):
        decode_manifest(text)


def test_an_index_that_is_not_sorted_or_names_a_path_twice_is_refused() -> None:
    def line(path: str) -> bytes:
        return json.dumps(entry_fields(path=path)).encode() + b"\n"

    assert [row.path for row in read_index([line("a"), line("a-"), line("a/b")])] == [b"a", b"a-", b"a/b"]
    for order in (["b", "a"], ["a", "a"], ["a/b", "a-"]):
        with pytest.raises(DamageError, match="not sorted"):
            list(read_index(line(path) for path in order))
    # Sorted by bytes: these two stand the other way round as text.
    assert len(list(read_index([line("\uffff"), line("\U00010000")]))) == 2


def test_a_line_that_is_cut_short_or_too_long_is_refused() -> None:
    good = json.dumps(entry_fields()).encode()
    with pytest.raises(DamageError, match="cut short"):
        list(read_index([good]))
    with pytest.raises(DamageError, match="longer"):
        list(lines([b"x" * 100] * 10, limit=500))
    with pytest.raises(DamageError, match="longer"):
        list(lines([b"x" * 600 + b"\n"], limit=500))
    assert list(lines([b"a\nb", b"", b"c\n\n"])) == [b"a", b"bc", b""]


def test_unknown_keys_of_an_index_or_a_record_are_ignored() -> None:
    assert decode_entry(json.dumps(entry_fields(colour="blue")).encode()) == decode_entry(
        json.dumps(entry_fields()).encode()
    )
    assert decode_record(json.dumps(record_fields({"colour": 1}, colour=2)).encode()).size == 1


def manifest_fields(**changes: Any) -> dict[str, Any]:
    part = {"id": "0" * 32, "size": 1, "sha256": "0" * 64, "record_size": 1, "record_sha256": "0" * 64}
    return least_manifest(
        **{
            "id": "000042-20261122T134215Z",
            "sequence": 42,
            "parts": [part],
            "row_counts": {"core_document": 3},
            **changes,
        }
    )


def test_a_manifest_makes_the_round_trip_with_keys_that_this_version_does_not_know() -> None:
    fields = manifest_fields(weather="fair", host={"colour": "blue"})
    manifest = decode_manifest(Manifest(fields).encode())
    assert manifest.fields == fields
    assert (manifest.sequence, manifest.row_counts, len(manifest.parts)) == (42, {"core_document": 3}, 1)
    assert list(manifest.fields) == list(fields)


def test_a_newer_format_or_an_unknown_feature_is_refused_with_advice() -> None:
    with pytest.raises(UnsupportedError, match=r"format 2.*upgrade the collection"):
        decode_manifest(json.dumps(manifest_fields(format=2)).encode())
    with pytest.raises(UnsupportedError, match=r"uses deduplication, which.*upgrade the collection"):
        decode_manifest(json.dumps(manifest_fields(features=["deduplication"])).encode())
    # Whatever else a newer format has, it is refused for being newer.
    with pytest.raises(UnsupportedError):
        decode_manifest(json.dumps({"format": 2}).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "1"},
        {"format": 0},
        {"format": ...},
        {"features": ...},
        {"features": "none"},
        {"features": [1]},
        {"id": "42"},
        {"id": "000043-20261122T134215Z"},
        {"id": "../../../000042-20261122T134215Z"},
        {"sequence": "42"},
        {"state": "done"},
        {"instance": None},
        {"papermerge": {}},
        {"papermerge": {"version": 2, "release_line": "2.0"}},
        {"database": []},
        {"row_counts": {"core_document": "3"}},
        {"row_counts": {"core_document": -3}},
        {"files": {}},
        {"files": {"database": {"name": "../x", "size": 1, "sha256": "0" * 64, "plain_size": 2}}},
        {"files": {"database": {"name": ".hidden", "size": 1, "sha256": "0" * 64, "plain_size": 2}}},
        {"parts": {}},
        {"parts": ["0" * 32]},
        {"parts": [{"id": "../x", "size": 1, "sha256": "0" * 64, "record_size": 1, "record_sha256": "0" * 64}]},
        {"parts": [{"id": "0" * 32, "size": 1, "sha256": "0" * 64}]},
        {"proof": None},
        {"totals": ...},
    ],
    ids=str,
)
def test_a_manifest_that_lacks_what_every_reader_needs_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DamageError):
        decode_manifest(json.dumps(manifest_fields(**changes)).encode())


def test_the_checksum_line_is_that_of_sha256sum() -> None:
    assert checksum_line(b"") == (b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  manifest.json\n")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_the_connection_as_what_it_was(kind: str) -> None:
    error = KINDS[kind]("message", path="a", snapshot={"id": "x"})
    again = error_from_dict(json.loads(json.dumps(error.as_result())))
    assert (type(again), again.message, again.details) == (
        type(error),
        "message",
        {"path": "a", "snapshot": {"id": "x"}},
    )
    assert again.as_result()["error"] == kind


def test_an_error_of_an_unknown_kind_still_has_its_message() -> None:
    assert error_from_dict({"error": "weather", "msg": "rain"}).message == "rain"
