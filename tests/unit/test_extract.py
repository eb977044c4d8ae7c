# SPDX-License-Identifier: GPL-3.0-or-later
"""One document, or some files, out of a snapshot: found by what people call it, read frame by frame, written safely."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    DamageError,
    SettingError,
)
from ansible_collections.papermerge.backup.plugins.module_utils.media.delivery import Delivery
from ansible_collections.papermerge.backup.plugins.module_utils.paths import shown
from ansible_collections.papermerge.backup.plugins.plugin_utils.extract import (
    ExtractRequest,
    extract,
    to_controller,
    to_host,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import read_stored, store, unpack
from tests.support.generated.content import FILE_NAMES, USERS
from tests.support.generated.instance import COMBINATIONS, GeneratedInstance, generate
from tests.support.instances import MadeInstance
from tests.support.servers.mariadb import MariaServer
from tests.support.servers.postgres import PostgresServer
from tests.support.snapshots import local_agent, place_in, quiet, staged_agent, take

Result = dict[str, Any]


def taken(place: InstanceDirectory, dest: Path, **wanted: Any) -> Result:
    """Take something out of the newest snapshot to a directory on this machine."""
    return extract(place, ExtractRequest(dest=str(dest), **wanted), quiet(), to_controller(dest))


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def sums(directory: Path) -> list[str]:
    return sorted(hashlib.sha256(content).hexdigest() for content in contents(directory).values())


def rename(instance: MadeInstance, number: int, title: str, parent: int | None = None) -> None:
    instance.execute("update core_basetreenode set title = ?, parent_id = ? where id = ?", (title, parent, number))


def commit_again(place: InstanceDirectory, change: Any) -> None:
    """Change the manifest of the only snapshot as whoever can write to the repository could."""
    directory = place.snapshots_path / place.snapshot_names()[0]
    fields = json.loads((directory / "manifest.json").read_bytes())
    change(directory, fields)
    text = (json.dumps(fields, indent=1) + "\n").encode("ascii")
    (directory / "manifest.json").write_bytes(text)
    sha256 = hashlib.sha256(text).hexdigest()
    (directory / "manifest.json.sha256").write_text(f"{sha256}  manifest.json\n", "ascii")
    place.history.path.unlink()


def store_again(path: Path, edit: Any) -> dict[str, Any]:
    """Rewrite a stored file and return what the manifest has to say of it."""
    plain = edit(b"".join(unpack(read_stored(path), 1 << 30, str(path))))
    path.unlink()
    return dataclasses.asdict(store(path, [plain]))


@pytest.fixture(params=COMBINATIONS, ids=["-".join(combination) for combination in COMBINATIONS])
def made(
    request: pytest.FixtureRequest, disk: Path, postgres_server: PostgresServer, maria_server: MariaServer
) -> Iterator[tuple[GeneratedInstance, InstanceDirectory]]:
    line, engine = request.param
    servers: dict[str, Any] = {"postgresql": postgres_server, "mysql": maria_server}
    server = servers.get(engine)
    name = "extract_{}".format(line.replace(".", "_").replace("-", "_"))
    seed = int(os.environ["PAPERMERGE_BACKUP_SEED"])
    instance = generate(line, engine, disk / "source", seed, server=server, name=name, large_text=1 << 14)
    place = place_in(disk / "repository")
    take(instance, place, app_version=instance.version)
    yield instance, place
    if server is not None:
        server.drop_database(name)


class TestOnEveryReleaseAndEngine:
    def test_a_document_comes_with_all_its_versions(
        self, made: tuple[GeneratedInstance, InstanceDirectory], tmp_path: Path
    ) -> None:
        instance, place = made
        # The one whose versions have names of their own.
        found = taken(place, tmp_path / "out", document="Rechnung, endgültig.pdf")
        document = found["document"]
        assert document["path"].endswith("/Rechnungen 2026/" + document["title"])
        assert document["owner"] == USERS[0]
        paths = [path for path in instance.sha256 if b"invoice-2021" in path or b"Rechnung, " in path]
        assert len(paths) == 3
        assert sums(tmp_path / "out") == sorted(instance.sha256[path] for path in paths)
        first = 0 if instance.line in ("1.x", "2.0") else 1
        stem = document["title"].removesuffix(".pdf")
        assert sorted(contents(tmp_path / "out")) == sorted(
            # Of 1.x and 2.0 only the newest version has a name in the database.
            f"{stem} v{first + number}.pdf" if first or number == 2 else f"{stem} v{number} - {old}.pdf"
            for number, old in enumerate(("invoice-2021", "invoice-2021-v2", "Rechnung, endgültig"))
        )
        assert [file["version"] for file in found["files"]] == [first, first + 1, first + 2]
        assert [file["sha256"] for file in found["files"]] == [
            hashlib.sha256(Path(file["dest"]).read_bytes()).hexdigest() for file in found["files"]
        ]
        states = {file["state"] for file in found["files"]}
        assert states == ({"present"} if first else {"present", "not_computable"})
        assert found["absent"] == []

        again = taken(place, tmp_path / "by id", document=document["id"])
        by_path = taken(place, tmp_path / "by path", document=document["path"], user=USERS[0])
        for other in (again, by_path):
            assert [file["sha256"] for file in other["files"]] == [file["sha256"] for file in found["files"]]

    def test_a_version_that_was_never_uploaded_is_named(
        self, made: tuple[GeneratedInstance, InstanceDirectory], tmp_path: Path
    ) -> None:
        _instance, place = made
        found = taken(place, tmp_path / "out", document="never uploaded.pdf")
        assert (found["file_count"], found["files"]) == (0, [])
        (absent,) = found["absent"]
        assert (absent["state"], absent["dest"]) == ("not_expected", None)
        assert not (tmp_path / "out").exists()

    def test_what_an_upload_has_replaced_comes_too(
        self, made: tuple[GeneratedInstance, InstanceDirectory], tmp_path: Path
    ) -> None:
        instance, place = made
        found = taken(place, tmp_path / "out", document="filled.pdf")
        overwritten = instance.line not in ("1.x", "2.0")
        assert [file["state"] for file in found["files"]].count("unlisted") == int(overwritten)
        assert found["file_count"] == 2 + int(overwritten)


def test_names_with_everything_that_copy_escapes_are_found(
    disk: Path, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Rows of a large dump are looked for as texts, before anything is parsed."""
    instance = generate("3.5", "postgresql", disk / "source", server=postgres_server, name="escapes", large_text=1000)
    place = place_in(disk / "repository")
    try:
        take(instance, place, app_version=instance.version)
    finally:
        postgres_server.drop_database("escapes")
    for number, name in enumerate(FILE_NAMES):
        found = taken(place, tmp_path / str(number), document=name)
        assert [os.path.basename(path) for path in paths_of(found)] == [shown(name.encode())]
        found = taken(place, tmp_path / f"{number} by path", document=found["document"]["path"])
        assert found["file_count"] == 1


def paths_of(found: Result) -> list[str]:
    return [file["path"] for file in found["files"]]


class TestFindingADocument:
    @pytest.fixture
    def tree(self, instance: MadeInstance) -> MadeInstance:
        """Node 1 is the folder; documents 2 to 4 and the folders 10 and 11."""
        for content, owner in ((b"two", 1), (b"three", 2), (b"four", 1)):
            instance.add_document(content, user=owner)
        instance.execute("insert into core_user (username) values ('margaret')")
        for number, title, parent, user in ((10, ".inbox", None, 1), (11, "a/b", 10, 1), (12, ".inbox", None, 2)):
            instance.execute("insert into core_basetreenode values (?, ?, ?, ?)", (number, title, user, parent))
        rename(instance, 2, "2026.pdf", 11)
        rename(instance, 3, "2026.pdf", 12)
        rename(instance, 4, "it's 100 %; drop table", None)
        return instance

    def test_by_its_path_whose_titles_may_have_slashes(
        self, tree: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        take(tree, place)
        for number, path in enumerate(("/inbox/a/b/2026.pdf", "/.inbox/a/b/2026.pdf")):
            found = taken(place, tmp_path / str(number), document=path)
            assert found["document"] == {
                "id": "2",
                "title": "2026.pdf",
                "path": "/.inbox/a/b/2026.pdf",
                "owner": "admin",
            }
            assert contents(tmp_path / str(number)) == {"2026 v0.pdf": b"two"}
        assert taken(place, tmp_path / "quoted", document="it's 100 %; drop table")["document"]["id"] == "4"

    def test_an_ambiguous_name_is_an_error_with_the_candidates(
        self, tree: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        take(tree, place)
        with pytest.raises(SettingError, match=r"2 documents of snapshot .* are called 2026\.pdf") as caught:
            taken(place, tmp_path / "out", document="2026.pdf")
        assert "/.inbox/a/b/2026.pdf of admin (id 2); /.inbox/2026.pdf of margaret (id 3)" in caught.value.message
        assert [one["id"] for one in caught.value.details["candidates"]] == ["2", "3"]
        assert not (tmp_path / "out").exists()
        assert taken(place, tmp_path / "out", document="2026.pdf", user="margaret")["document"]["id"] == "3"

    def test_two_users_with_the_same_path_are_ambiguous(
        self, tree: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        rename(tree, 2, "2026.pdf", 10)
        take(tree, place)
        with pytest.raises(SettingError, match="2 documents"):
            taken(place, tmp_path / "out", document="/inbox/2026.pdf")
        taken(place, tmp_path / "out", document="/inbox/2026.pdf", user="admin")

    def test_what_is_not_there_is_an_error_that_names_what_is_like_it(
        self, tree: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        take(tree, place)
        with pytest.raises(SettingError, match=r"no document /home/2026.pdf; there are .*\(id 2\).*\(id 3\)"):
            taken(place, tmp_path / "out", document="/home/2026.pdf")
        with pytest.raises(SettingError, match=r"no document nothing.pdf$"):
            taken(place, tmp_path / "out", document="nothing.pdf")
        for wrong in ({}, {"document": "a", "pattern": "b"}, {"pattern": "b", "user": "admin"}, {"pattern": "/docs/*"}):
            with pytest.raises(SettingError):
                taken(place, tmp_path / "out", **wrong)

    def test_a_document_in_a_circle_of_folders_is_found_all_the_same(
        self, tree: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        rename(tree, 10, ".inbox", 11)
        take(tree, place)
        taken(place, tmp_path / "out", document="2")

    def test_a_missing_original_has_its_class(
        self, tree: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        (tree.media / "docs/user_1/document_2/scan.pdf").unlink()
        take(tree, place, accept_missing=True)
        found = taken(place, tmp_path / "out", document="2")
        assert [(one["version"], one["state"], one["path"]) for one in found["absent"]] == [
            (0, "missing", "docs/user_1/document_2/scan.pdf")
        ]


class TestPatterns:
    @pytest.fixture
    def paths(self, instance: MadeInstance, place: InstanceDirectory) -> list[bytes]:
        paths = [
            b"docs/user_1/document_1/a.pdf",
            b"docs/user_1/document_1/v1/a.pdf",
            b"docs/user_1/document_10/[x].pdf",
            'docs/user_2/document_3/größe "q".pdf'.encode(),
            b"docs/user_2/document_4/\xff.pdf",
            b"results/user_1/document_1/pages/page_1.txt",
        ]
        for path in paths:
            instance.write(path, b"content of " + path)
        take(instance, place)
        # Without a database, patterns work all the same.
        for stored in place.snapshots_path.glob("*/database.*"):
            stored.unlink()
        return paths

    @pytest.mark.parametrize(
        ("pattern", "numbers"),
        [
            ("docs/user_1/document_1/a.pdf", [0]),
            ("docs/user_1/document_1/*", [0]),
            ("docs/user_1/document_1/**", [0, 1]),
            ("docs/user_1/**/a.pdf", [0, 1]),
            ("**/a.pdf", [0, 1]),
            ("**", [0, 1, 2, 3, 4, 5]),
            ("docs/user_?/document_[34]/*", [3, 4]),
            ("docs/user_[!1]/**", [3, 4]),
            ("docs/*/*/[[]x].pdf", [2]),
            ("docs/user_2/document_3/gr????*.pdf", [3]),
            ("*/user_1/*/pages/*.txt", [5]),
        ],
    )
    def test_files_come_below_their_paths(
        self, paths: list[bytes], place: InstanceDirectory, tmp_path: Path, pattern: str, numbers: list[int]
    ) -> None:
        found = taken(place, tmp_path / "out", pattern=pattern)
        chosen = [paths[number] for number in numbers]
        assert {os.fsencode(name): content for name, content in contents(tmp_path / "out").items()} == {
            path: b"content of " + path for path in chosen
        }
        assert found["file_count"] == len(chosen)
        assert found["document"] is None

    def test_a_pattern_that_matches_nothing_is_an_error(
        self, paths: list[bytes], place: InstanceDirectory, tmp_path: Path
    ) -> None:
        del paths
        with pytest.raises(SettingError, match=r"no media file of snapshot .* matches 'docs/x\*'"):
            taken(place, tmp_path / "out", pattern="docs/x*")


class TestReading:
    def test_only_the_frames_that_hold_it_are_read(
        self, instance: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        # A frame holds 32 MiB at most, three of these. By its path document_4 is the first one of the second frame.
        for _number in range(9):
            instance.add_document(os.urandom(9 << 20))
        take(instance, place)
        path = "docs/user_1/document_4/scan.pdf"
        found = taken(place, tmp_path / "out", pattern=path)
        assert 9 << 20 <= found["read_bytes"] <= (9 << 20) + 300_000
        assert found["parts_bytes"] >= 81 << 20
        assert contents(tmp_path / "out") == {path: (instance.media / path).read_bytes()}

    def test_a_changed_byte_in_the_frame_leaves_nothing_behind(
        self, instance: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        path = instance.add_document(os.urandom(100_000))
        take(instance, place)
        (part,) = place.parts_path.glob("*.tar.zst")
        stored = bytearray(part.read_bytes())
        stored[50_000] ^= 1
        part.write_bytes(stored)
        (tmp_path / "empty").mkdir()
        for dest in (tmp_path / "out", tmp_path / "empty"):
            with pytest.raises(DamageError):
                taken(place, dest, pattern=path.decode())
        assert not (tmp_path / "out").exists()
        assert contents(tmp_path / "empty") == {}

    def test_the_hash_of_each_file_is_checked(
        self, instance: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        """Index and record agree and the part unpacks, but to something else."""
        path = instance.add_document(b"an original")
        take(instance, place)
        was, now = hashlib.sha256(b"an original").hexdigest().encode(), b"0" * 64

        def change(directory: Path, fields: dict[str, Any]) -> None:
            index = directory / fields["files"]["index"]["name"]
            fields["files"]["index"] = store_again(index, lambda text: text.replace(was, now))
            (part,) = fields["parts"]
            record = store_again(place.record_path(part["id"]), lambda text: text.replace(was, now))
            part.update(record_size=record["size"], record_sha256=record["sha256"])

        commit_again(place, change)
        with pytest.raises(DamageError, match="is not what the index says"):
            taken(place, tmp_path / "out", pattern=path.decode())
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("offset", [1, 512, 10**9])
    def test_a_wrong_offset_of_a_frame_is_damage(
        self, instance: MadeInstance, place: InstanceDirectory, tmp_path: Path, offset: int
    ) -> None:
        path = instance.add_document(os.urandom(10_000))
        take(instance, place)

        def change(_directory: Path, fields: dict[str, Any]) -> None:
            (part,) = fields["parts"]
            moved = b'"offset":%d}' % offset
            record = store_again(place.record_path(part["id"]), lambda text: text.replace(b'"offset":0}', moved))
            part.update(record_size=record["size"], record_sha256=record["sha256"])

        commit_again(place, change)
        with pytest.raises(DamageError):
            taken(place, tmp_path / "out", pattern=path.decode())
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("hostile", [b"../../escaped.pdf", b"/etc/escaped.pdf", b"docs/../../escaped.pdf"])
    def test_a_hostile_index_writes_nothing_outside(
        self, instance: MadeInstance, place: InstanceDirectory, tmp_path: Path, hostile: bytes
    ) -> None:
        path = instance.add_document(b"an original")
        take(instance, place)

        def change(directory: Path, fields: dict[str, Any]) -> None:
            index = directory / fields["files"]["index"]["name"]
            fields["files"]["index"] = store_again(index, lambda text: text.replace(path, hostile))

        commit_again(place, change)
        with pytest.raises(DamageError, match="outside the media directory"):
            taken(place, tmp_path / "in" / "out", pattern="**")
        assert list(tmp_path.rglob("escaped.pdf")) == []
        assert not Path("/etc/escaped.pdf").exists()

    def test_an_index_that_is_not_sorted_is_damage(
        self, instance: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        for _number in range(3):
            instance.add_document()
        take(instance, place)

        def change(directory: Path, fields: dict[str, Any]) -> None:
            index = directory / fields["files"]["index"]["name"]
            fields["files"]["index"] = store_again(index, lambda text: b"".join(reversed(text.splitlines(True))))

        commit_again(place, change)
        with pytest.raises(DamageError, match="not sorted"):
            taken(place, tmp_path / "out", pattern="docs/user_1/document_3/*")


class TestWriting:
    def test_files_are_private_and_keep_their_times(
        self, instance: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        path = instance.add_document()
        os.utime(instance.path(path), ns=(1, 1_234_567_890_123_456_789))
        take(instance, place)
        old = os.umask(0)
        try:
            taken(place, tmp_path / "out", pattern=path.decode())
        finally:
            os.umask(old)
        modes = {stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "out").rglob("*") if one.is_dir()}
        assert modes | {stat.S_IMODE((tmp_path / "out").stat().st_mode)} == {0o700}
        status = (tmp_path / "out" / path.decode()).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o600, 1_234_567_890_123_456_789)

    def test_nothing_is_overwritten_and_no_link_followed(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out" / "there").write_bytes(b"mine")
        (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
        empty = hashlib.sha256().hexdigest()
        with closing(Delivery(str(tmp_path / "out"))) as delivery:
            with pytest.raises(SettingError, match="is there already"):
                delivery.write(b"there", 0, empty, 0, [])
            with pytest.raises(SettingError, match="cannot write"):
                delivery.write(b"link/file", 0, empty, 0, [])
            with pytest.raises(DamageError, match="outside"):
                delivery.write(b"../file", 0, empty, 0, [])
        assert (tmp_path / "out" / "there").read_bytes() == b"mine"
        assert list((tmp_path / "elsewhere").iterdir()) == []

    @pytest.mark.parametrize("staged", [False, True])
    def test_files_go_to_the_host_as_well(
        self, instance: MadeInstance, place: InstanceDirectory, tmp_path: Path, staged: bool
    ) -> None:
        paths = [instance.add_document(os.urandom(size)) for size in (0, 10, 3_000_000)]
        take(instance, place, accept_missing=True)
        with staged_agent(tmp_path) if staged else local_agent() as session:
            write = to_host(session, str(tmp_path / "out"), quiet())
            found = extract(place, ExtractRequest(dest=str(tmp_path / "out"), pattern="docs/**"), quiet(), write)
        assert found["file_count"] == 3
        assert contents(tmp_path / "out") == {
            path.decode(): (instance.media / path.decode()).read_bytes() for path in paths
        }
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700

    def test_a_failure_leaves_nothing_on_the_host(
        self, instance: MadeInstance, place: InstanceDirectory, tmp_path: Path
    ) -> None:
        instance.add_document(b"first")
        instance.add_document(os.urandom(200_000))
        take(instance, place)
        (part,) = place.parts_path.glob("*.tar.zst")
        stored = bytearray(part.read_bytes())
        stored[150_000] ^= 1
        part.write_bytes(stored)
        request = ExtractRequest(dest=str(tmp_path / "out"), pattern="docs/**")
        with local_agent() as session, pytest.raises(BackupError):
            extract(place, request, quiet(), to_host(session, str(tmp_path / "out"), quiet()))
        assert not (tmp_path / "out").exists()


def test_titles_that_no_file_can_have_become_names(
    instance: MadeInstance, place: InstanceDirectory, tmp_path: Path
) -> None:
    titles = ["../../up.pdf", ".hidden", "a\nb\0c", "", "ü" * 190 + ".pdf", "CON.pdf"]
    for number, title in enumerate(titles):
        instance.add_document(b"%d" % number)
        with closing(sqlite3.connect(instance.database)) as connection:
            connection.execute("update core_basetreenode set title = ? where id = ?", (title, number + 2))
            connection.commit()
    take(instance, place)
    for number in range(len(titles)):
        taken(place, tmp_path / str(number), document=str(number + 2))
        ((name, content),) = contents(tmp_path / str(number)).items()
        assert content == b"%d" % number
        assert "/" not in name
        assert not name.startswith(".")
        assert name.endswith(" v0.pdf")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == list("012345")
