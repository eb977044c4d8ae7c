# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage of what is stored: every changed byte, every file that is cut short, missing or swapped, is noticed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    DamageError,
    RepositoryError,
    UnsupportedError,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import checksum_line
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.restore import RestoreRequest, restore_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import store
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import Verification, media_of
from tests.support.instances import MadeInstance
from tests.support.snapshots import NoAgent, place_in, put_back, quiet, take, verify


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two small snapshots of instance `one` and one of instance `two`."""
    directory = tmp_path_factory.mktemp("pristine")
    instance = MadeInstance(directory / "one", page_size=512)
    instance.add_document(b"first\n" * 30, name=b"caf\xe9.pdf")
    instance.add_document(b"second")
    take(instance, place_in(directory / "repository", "one"))
    instance.add_document(b"third")
    take(instance, place_in(directory / "repository", "one"))
    other = MadeInstance(directory / "two", page_size=512)
    other.add_document(b"first\n" * 30)
    other.add_document(b"second")
    other.add_document(b"other")
    take(other, place_in(directory / "repository", "two"))
    return directory / "repository"


@pytest.fixture
def place(pristine: Path, tmp_path: Path) -> InstanceDirectory:
    """Instance `one` of a copy of that repository, for a test to damage."""
    shutil.copytree(pristine, tmp_path / "repository")
    return place_in(tmp_path / "repository", "one")


def stored_files(place: InstanceDirectory, wanted: str = "latest") -> dict[str, Path]:
    """Return everything that a snapshot consists of, by role."""
    snapshot = place.select(wanted)
    manifest = snapshot.require_manifest()
    files = {
        "manifest": snapshot.directory / "manifest.json",
        "checksum": snapshot.directory / "manifest.json.sha256",
        "database": snapshot.directory / manifest.database_file.name,
        "index": snapshot.directory / manifest.index_file.name,
    }
    for part in manifest.parts:
        files["part"] = place.part_path(part.id)
        files["record"] = place.record_path(part.id)
    return files


ROLES = ["manifest", "checksum", "database", "index", "part", "record"]


def verify_in(place: InstanceDirectory, scratch: Path) -> None:
    """A full verification in a scratch directory that is at hand, which is quicker than one of its own."""
    catalog = scratch / "verify.sqlite3"
    catalog.unlink(missing_ok=True)
    Verification(place, place.select("latest"), quiet(), scratch).verify("full")


def preflight(place: InstanceDirectory) -> None:
    """What a restore does before it asks the target anything."""
    restore_snapshot(NoAgent(), place, RestoreRequest(), quiet(), check_only=True)


def test_a_sound_snapshot_passes_what_the_other_tests_rely_on(place: InstanceDirectory, tmp_path: Path) -> None:
    verify_in(place, tmp_path)
    with pytest.raises(AssertionError, match="check_target"):
        preflight(place)
    files = stored_files(place)
    assert sorted(files) == sorted(ROLES)
    assert sum(path.stat().st_size for path in files.values()) <= 20_000


def changes(rng: random.Random, soak: bool) -> Iterator[int]:
    yield from (1, 2, 4, 8, 16, 32, 64, 128, 255) if soak else (rng.randrange(1, 256),)


@pytest.mark.parametrize("role", ROLES)
def test_every_single_changed_byte_is_noticed(
    place: InstanceDirectory, tmp_path: Path, role: str, rng: random.Random, soak: bool
) -> None:
    path = stored_files(place)[role]
    good = path.read_bytes()
    missed = []
    for position in range(len(good)):
        for mask in changes(rng, soak):
            changed = bytearray(good)
            changed[position] ^= mask
            path.write_bytes(changed)
            for check in (lambda: verify_in(place, tmp_path), lambda: preflight(place)):
                try:
                    check()
                    missed.append((position, mask))
                except (DamageError, UnsupportedError):
                    continue
                except AssertionError:
                    missed.append((position, mask))
    path.write_bytes(good)
    verify_in(place, tmp_path)
    assert not missed


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "damage", ["empty", "one byte short", "half", "one byte more", "missing", "a directory", "a link"]
)
def test_a_file_that_is_cut_short_missing_or_something_else_is_noticed(
    place: InstanceDirectory, tmp_path: Path, role: str, damage: str
) -> None:
    path = stored_files(place)[role]
    good = path.read_bytes()
    path.unlink()
    if damage == "a directory":
        path.mkdir()
    elif damage == "a link":
        path.symlink_to(tmp_path / "nowhere")
    elif damage != "missing":
        size = {"empty": 0, "one byte short": len(good) - 1, "half": len(good) // 2, "one byte more": len(good)}[damage]
        path.write_bytes(good[:size] + (b"\0" if damage == "one byte more" else b""))
    with pytest.raises((DamageError, RepositoryError)):
        verify_in(place, tmp_path)
    with pytest.raises((DamageError, RepositoryError)):
        preflight(place)
    if role not in ("manifest", "checksum"):
        with pytest.raises((DamageError, RepositoryError)):
            Verification(place, place.select("latest"), quiet(), tmp_path).verify("quick")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("source", ["the snapshot before", "another instance"])
def test_a_file_of_another_snapshot_in_its_place_is_noticed(
    place: InstanceDirectory, tmp_path: Path, role: str, source: str
) -> None:
    if source == "another instance":
        stranger = stored_files(place_in(place.path.parent, "two"))[role]
    else:
        stranger = stored_files(place, "1")[role]
    shutil.copyfile(stranger, stored_files(place)[role])
    with pytest.raises(DamageError):
        verify_in(place, tmp_path)
    with pytest.raises(DamageError):
        preflight(place)


@pytest.mark.parametrize("wanted", ["1", "two"])
def test_a_whole_manifest_of_another_snapshot_in_its_place_is_noticed(place: InstanceDirectory, wanted: str) -> None:
    """Manifest and checksum agree with each other, but not with the directory's name and the history."""
    source = stored_files(place_in(place.path.parent, "two")) if wanted == "two" else stored_files(place, wanted)
    target = stored_files(place)
    for role in ("manifest", "checksum"):
        shutil.copyfile(source[role], target[role])
    with pytest.raises(DamageError, match="not the manifest that was committed"):
        preflight(place)
    place.history.append("committed", target["manifest"].parent.name, "")
    (place.path / "history.jsonl").unlink()
    with pytest.raises(DamageError, match="is the manifest of"):
        preflight(place)


def test_the_directory_of_another_instance_under_this_name_is_noticed(place: InstanceDirectory) -> None:
    stranger = place_in(place.path.parent, "three")
    (place.path.parent / "two").rename(stranger.path)
    with pytest.raises(DamageError, match="is the manifest of a snapshot of instance two"):
        preflight(stranger)


def test_a_manifest_that_was_rewritten_with_its_checksum_contradicts_the_history(place: InstanceDirectory) -> None:
    files = stored_files(place)
    fields = json.loads(files["manifest"].read_bytes())
    fields["totals"]["documents"] = 1
    text = json.dumps(fields).encode()
    files["manifest"].write_bytes(text)
    files["checksum"].write_bytes(checksum_line(text))
    with pytest.raises(DamageError, match="not the manifest that was committed: the instance's history"):
        preflight(place)


def rewrite(place: InstanceDirectory, **changes: object) -> None:
    """Replace keys of the newest manifest as a writer of another version might, history included."""
    files = stored_files(place)
    text = json.dumps({**json.loads(files["manifest"].read_bytes()), **changes}).encode()
    files["manifest"].write_bytes(text)
    files["checksum"].write_bytes(checksum_line(text))
    (place.path / "history.jsonl").unlink(missing_ok=True)


@pytest.mark.parametrize("change", [{"format": 2}, {"features": ["encryption"]}], ids=str)
def test_a_newer_format_or_an_unknown_feature_is_refused(place: InstanceDirectory, change: dict[str, object]) -> None:
    rewrite(place, **change)
    for check in (lambda: verify(place, "full"), lambda: preflight(place)):
        with pytest.raises(UnsupportedError, match="upgrade the collection"):
            check()


def test_a_manifest_that_leaves_a_part_out_or_counts_files_wrongly_is_noticed(place: InstanceDirectory) -> None:
    fields = json.loads(stored_files(place)["manifest"].read_bytes())
    rewrite(place, totals={**fields["totals"], "files": 2})
    with pytest.raises(DamageError, match="has 3 files"):
        preflight(place)
    rewrite(place, totals=fields["totals"], parts=[])
    with pytest.raises(DamageError, match="none of its parts"):
        preflight(place)


@pytest.mark.parametrize(
    "change", [{"sha256": "f" * 64}, {"size": 1}, {"path": b"docs/zzz"}, {"part": "f" * 32}], ids=str
)
def test_an_index_that_contradicts_the_record_of_its_part_is_noticed(
    place: InstanceDirectory, change: dict[str, Any]
) -> None:
    """Index and manifest agree; only the part's own record says something else."""
    snapshot = place.select("latest")
    entries = list(media_of(place, snapshot).entries())
    entries[-1] = entries[-1]._replace(**change)
    path = snapshot.directory / snapshot.require_manifest().index_file.name
    path.unlink()
    index = store(path, (entry.encode() for entry in entries))
    fields = snapshot.require_manifest().fields
    rewrite(place, files={**fields["files"], "index": asdict(index)})
    with pytest.raises(DamageError, match=r"disagree about|none of its parts"):
        preflight(place)


def test_row_counts_schema_and_proof_are_compared_with_the_database_itself(place: InstanceDirectory) -> None:
    fields = json.loads(stored_files(place)["manifest"].read_bytes())
    for change, words in (
        ({"row_counts": {**fields["row_counts"], "core_page": 7}}, "core_page has 3 rows"),
        ({"row_counts": {**fields["row_counts"], "core_tag": 7}}, "core_tag has 0 rows"),
        ({"database": {**fields["database"], "schema_marker": "0040"}}, "has schema 0039_auto_20210216_1014"),
        ({"proof": {**fields["proof"], "proved": 2}}, "3 of the files that the database expects"),
    ):
        rewrite(place, **{**fields, **change})
        verify(place, "full")
        with pytest.raises(DamageError, match=words):
            verify(place, "deep")


def test_a_file_that_the_manifest_does_not_name_is_noticed(place: InstanceDirectory) -> None:
    (place.select("latest").directory / "stranger").write_bytes(b"x")
    with pytest.raises(DamageError, match="stranger"):
        verify(place, "quick")


def test_damage_of_one_snapshot_leaves_the_others_sound(place: InstanceDirectory, tmp_path: Path) -> None:
    stored_files(place)["part"].unlink()
    with pytest.raises(DamageError):
        verify(place, "quick")
    assert verify(place, "deep", "1")["files"] == 2
    assert put_back(place, tmp_path / "media", tmp_path / "db.sqlite3", snapshot="1")["files"] == 2


def test_a_restore_of_a_damaged_snapshot_writes_nothing(place: InstanceDirectory, tmp_path: Path) -> None:
    path = stored_files(place)["part"]
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    target = tmp_path / "target"
    with pytest.raises(BackupError):
        put_back(place, target / "media", target / "db.sqlite3")
    assert not target.exists()
