# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/restore-by-hand.md restores a snapshot: its own blocks are run, in their order.

Of the guide's blocks those marked `python` are saved under the name in their first line, those marked `sh` are run in
one bash, and those marked `text` are for reading.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import read_index
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import checksum_line
from ansible_collections.papermerge.backup.plugins.plugin_utils import archiving
from ansible_collections.papermerge.backup.plugins.plugin_utils.create import CreateRequest, create_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import Repository, StoredSnapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import read_stored, store, unpack
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import agent_command
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.streamed import StreamedSession

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "restore-by-hand.md"
INSTANCE = "papermerge1"

NASTY_NAMES: Sequence[bytes] = (
    b"-rf",
    b"--checkpoint=1",
    b"-C",
    b"@list",
    b"two\nlines",
    b"\n",
    b"back\\slash",
    b"\\n",
    b"a\\101b",
    b"*",
    b"?",
    b"[ab]",
    b"#comment",
    b" leading and trailing ",
    b"tab\t, return\r, bell\a, delete\x7f",
    b"\"quotes\" 'and' `more` $(true)",
    b"..almost",
    b"\xff\xfe\xe9",
    b"e\xcc\x81 and \xc3\xa9",
    "brief mit umlaut äöü.pdf".encode(),
    b"x" * 255,
    b"\xe9" * 255,
    "ẍ".encode() * 80,
)


@dataclass
class Source:
    """A media directory and a database, as a host would have them."""

    media: Path
    database: Path
    repository: Path

    def snapshot(self) -> StoredSnapshot:
        place = Repository(str(self.repository)).instance(INSTANCE)
        request = CreateRequest(
            host=INSTANCE,
            instance=INSTANCE,
            media_root=str(self.media),
            database_url=f"sqlite:///{self.database}",
            app_version="2.0.2",
            collection_version="0.1.0",
        )
        with StreamedSession(["/bin/sh", "-c", agent_command(sys.executable)], INSTANCE) as session:
            description = create_snapshot(session, place, request, Progress(INSTANCE, print))
        return place.select(description["id"])


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Two documents of Papermerge 2.0 and, beside them, everything that a directory can hold."""
    # Several parts of several frames, from little content.
    monkeypatch.setattr(archiving, "PART_CONTENT_BYTES", 40_000)
    monkeypatch.setattr(archiving, "FRAME_BYTES", 10_000)
    source = Source(tmp_path / "media", tmp_path / "db.sqlite3", tmp_path / "repository")
    write_database(source.database)
    write_media(source.media)
    return source


def write_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            create table django_migrations (id integer primary key, app text, name text);
            insert into django_migrations (app, name) values ('core', '0039_auto_20210216_1014');
            create table core_user (id integer primary key, username text);
            insert into core_user values (1, 'admin');
            create table core_basetreenode (id integer primary key, title text, user_id integer);
            insert into core_basetreenode values (6, 'Rechnung äöü', 1), (7, 'contract', 1);
            create table core_document (
                basetreenode_ptr_id integer primary key, file_name text, version integer, page_count integer
            );
            insert into core_document values (6, 'Rechnung äöü.pdf', 0, 2), (7, 'contract.pdf', 2, 1);
            """
        )


def write_media(media: Path) -> None:
    files = {
        "docs/user_1/document_6/Rechnung äöü.pdf".encode(): b"%PDF-1.4 six",
        b"docs/user_1/document_7/contract.pdf": b"%PDF-1.4 seven",
        b"docs/user_1/document_7/v2/contract.pdf": b"%PDF-1.4 seven, version 2",
        b"results/empty": b"",
        b"results/large": os.urandom(70_000),
        b"results/zeros": bytes(3_000_000),
    }
    directories = [b"results/nasty", b"results/-d\n\xe9", b"/".join([b"results"] + [b"long" * 50] * 5)]
    for directory in directories:
        for number, name in enumerate(NASTY_NAMES):
            files[directory + b"/" + name] = name * number
    for number, (name, content) in enumerate(files.items()):
        path = os.path.join(os.fsencode(media), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(content)
        os.chmod(path, (0o644, 0o600, 0o640)[number % 3])
        os.utime(path, ns=(0, 1_606_052_535_123_456_789 + number))


def blocks(language: str) -> Iterator[str]:
    """Yield the content of the guide's blocks that are marked with a language."""
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        if match[1] == language:
            yield match[2]


def follow_the_guide(source: Source, snapshot: StoredSnapshot, work: Path) -> tuple[Path, str]:
    """Do what the guide says in an empty directory. Returns the target and what was printed."""
    work.mkdir()
    for script in blocks("python"):
        (work / script.split()[1]).write_text(script, "utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "REPOSITORY": str(source.repository),
        "INSTANCE": INSTANCE,
        "SNAPSHOT": snapshot.id,
        "TARGET": "target",
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(blocks("sh"))],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = done.stdout.decode("utf-8", "backslashreplace")
    print(output)
    if done.returncode != 0:
        raise GuideFailed(output)
    return work / "target", output


class GuideFailed(Exception):
    """A command of the guide failed."""


def tree(root: Path) -> dict[bytes, tuple[bytes, int, int]]:
    """Return content, mode and time of every file below a directory."""
    found = {}
    top = os.fsencode(root)
    for directory, _directories, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            with open(path, "rb") as stream:
                found[os.path.relpath(path, top)] = (stream.read(), status.st_mode, status.st_mtime_ns)
    return found


def dump(database: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as connection:
        return list(connection.iterdump())


def test_the_guide_restores_a_snapshot_exactly(source: Source, tmp_path: Path) -> None:
    snapshot = source.snapshot()
    assert len(snapshot.require_manifest().parts) > 2
    shutil.copytree(source.media, tmp_path / "before", symlinks=True)
    shutil.rmtree(source.media)

    target, output = follow_the_guide(source, snapshot, tmp_path / "work")

    restored = tree(target / "media")
    assert len(restored) == 6 + 3 * len(NASTY_NAMES)
    assert restored == tree(tmp_path / "before")
    assert dump(target / "database.sqlite3") == dump(source.database)
    assert "manifest.json: OK" in output
    assert "the history does not know" not in output
    assert "tar:" not in output


def test_the_guide_restores_a_third_snapshot_exactly(source: Source, tmp_path: Path) -> None:
    """After an overwrite, a deletion, and content that came back: from parts of all three creates and a copied one."""
    first = source.snapshot()
    shutil.copytree(source.media, tmp_path / "first", symlinks=True)
    large = source.media / "results" / "large"
    status = large.stat()
    large.write_bytes(os.urandom(status.st_size))
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    (source.media / "results" / "zeros").unlink()
    original = source.media / "docs" / "user_1" / "document_7" / "contract.pdf"
    original.write_bytes(b"%PDF-1.4 overwritten")
    source.snapshot()
    original.write_bytes(b"%PDF-1.4 seven")
    os.utime(original, ns=(0, 1_606_052_535_123_456_789))
    original.chmod(0o604)
    for name in NASTY_NAMES[::2]:
        os.unlink(os.path.join(os.fsencode(source.media), b"results/nasty", name))
    (source.media / "results" / "new").write_bytes(b"new")
    third = source.snapshot()
    parts = [{part.id for part in snapshot.require_manifest().parts} for snapshot in (first, third)]
    assert parts[0] & parts[1]
    assert parts[1] - parts[0]

    target, _output = follow_the_guide(source, third, tmp_path / "third")

    assert tree(target / "media") == tree(source.media)
    target, _output = follow_the_guide(source, first, tmp_path / "work")
    assert tree(target / "media") == tree(tmp_path / "first")


def test_the_guide_unpacks_only_what_the_index_names(source: Source, tmp_path: Path) -> None:
    """A part may hold more: a file that changed while it was read, or what only another snapshot needs."""
    snapshot = source.snapshot()
    left_out = (b"results/nasty/-rf", b"results/large")
    leave_out(snapshot, left_out)

    target, _output = follow_the_guide(source, snapshot, tmp_path / "work")

    before = tree(source.media)
    assert tree(target / "media") == {path: file for path, file in before.items() if path not in left_out}


def leave_out(snapshot: StoredSnapshot, paths: Sequence[bytes]) -> None:
    """Take files out of a snapshot's index, as if its parts had been made for another snapshot."""
    manifest = snapshot.require_manifest()
    path = snapshot.directory / manifest.index_file.name
    content = unpack(read_stored(path), manifest.index_file.plain_size, path.name)
    entries = [entry for entry in read_index(content) if entry.path not in paths]
    path.unlink()
    index = store(path, (entry.encode() for entry in entries))
    manifest.fields["files"]["index"].update(size=index.size, sha256=index.sha256, plain_size=index.plain_size)
    (snapshot.directory / "manifest.json").write_bytes(manifest.encode())
    (snapshot.directory / "manifest.json.sha256").write_bytes(checksum_line(manifest.encode()))


@pytest.mark.parametrize("what", ["manifest.json", "index.jsonl.zst", "database.sqlite3.zst", "part", "record"])
def test_the_guide_stops_at_a_changed_byte(source: Source, tmp_path: Path, what: str) -> None:
    snapshot = source.snapshot()
    part = snapshot.require_manifest().parts[-1].id
    suffixes = {"part": ".tar.zst", "record": ".json.zst"}
    path = snapshot.directory / what
    if what in suffixes:
        path = source.repository / INSTANCE / "parts" / (part + suffixes[what])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(GuideFailed, match=rf"{path.name}: FAILED"):
        follow_the_guide(source, snapshot, tmp_path / "work")

    assert not (tmp_path / "work" / "target").exists()


def test_the_guide_compares_media_and_database_with_what_the_snapshot_says(source: Source, tmp_path: Path) -> None:
    """The checks after unpacking are the guide's own: they do not pass whatever they are given."""
    snapshot = source.snapshot()
    target, _output = follow_the_guide(source, snapshot, tmp_path / "work")
    manifest = json.loads((snapshot.directory / "manifest.json").read_text("utf-8"))
    manifest["row_counts"]["core_document"] += 1
    (tmp_path / "other.json").write_text(json.dumps(manifest), "utf-8")
    media, database = str(target / "media"), str(target / "database.sqlite3")

    assert "does not have 3 rows" in complaint(tmp_path / "work", "database.py", str(tmp_path / "other.json"), database)
    (target / "media" / "stray").write_bytes(b"")
    assert "files were unpacked" in complaint(tmp_path / "work", "media.py", media)
    (target / "media" / "results" / "large").write_bytes(b"other")
    assert "is not what the index says" in complaint(tmp_path / "work", "media.py", media)


def complaint(work: Path, script: str, *arguments: str) -> str:
    """Return what a script of the guide complains of; it must fail."""
    with open(work / "index.jsonl", "rb") as index:
        done = subprocess.run(
            ["python3", script, *arguments], cwd=work, stdin=index, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    return done.stderr
