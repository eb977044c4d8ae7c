# SPDX-License-Identifier: GPL-3.0-or-later
"""The Papermerge that other tests back up and restore is a real one, and its own check can fail."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.papermerge.install import installed_papermerge
from tests.support.papermerge.instance import DocumentsNotOpened, PapermergeInstance


@pytest.fixture(scope="module")
def populated(tmp_path_factory: pytest.TempPathFactory) -> PapermergeInstance:
    instance = PapermergeInstance.create(tmp_path_factory.mktemp("papermerge") / "source", installed_papermerge())
    instance.populate()
    return instance


@pytest.fixture
def copy(populated: PapermergeInstance, tmp_path: Path) -> Iterator[PapermergeInstance]:
    """The populated project, moved elsewhere as a whole."""
    shutil.copytree(populated.directory, tmp_path / "elsewhere", symlinks=True)
    instance = PapermergeInstance(tmp_path / "elsewhere")
    yield instance
    instance.delete()


def latest_file(instance: PapermergeInstance, file_name: str) -> Path:
    (path,) = instance.media_root.glob(f"docs/*/*/{file_name}")
    return path


def change_row(instance: PapermergeInstance, statement: str) -> None:
    with closing(sqlite3.connect(instance.database)) as opened, opened as connection:
        assert connection.execute(statement).rowcount > 0


def failures(instance: PapermergeInstance) -> str:
    with pytest.raises(DocumentsNotOpened) as caught:
        instance.open_every_document()
    return str(caught.value)


def test_papermerge_opens_every_document_of_a_populated_instance(populated: PapermergeInstance) -> None:
    report = populated.open_every_document()

    assert report.documents == populated.counts()["core_document"] == 31
    assert report.opened == 30
    assert report.never_uploaded == 1
    assert report.versions > report.opened
    assert report.users == 3
    assert report.tags > 0
    assert report.metadata > 0


def test_a_copy_elsewhere_has_the_same_contents(populated: PapermergeInstance, copy: PapermergeInstance) -> None:
    assert copy.contents() == populated.contents()
    assert copy.open_every_document() == populated.open_every_document()


def test_a_missing_file_is_named(copy: PapermergeInstance) -> None:
    latest_file(copy, "invoice 20.pdf").unlink()

    assert "'invoice 20.pdf'" in failures(copy)


def test_a_truncated_file_is_named(copy: PapermergeInstance) -> None:
    file = latest_file(copy, "invoice 20.pdf")
    os.truncate(file, file.stat().st_size - 100)

    assert "'invoice 20.pdf'" in failures(copy)


def test_one_changed_byte_of_a_file_is_named(copy: PapermergeInstance) -> None:
    file = latest_file(copy, "invoice 20.pdf")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    assert "'invoice 20.pdf'" in failures(copy)


def test_a_missing_file_of_an_older_version_is_named(copy: PapermergeInstance) -> None:
    (latest,) = copy.media_root.glob("docs/*/*/v2/*.pdf")
    (oldest,) = (path for path in latest.parents[1].iterdir() if path.is_file())
    oldest.unlink()

    assert f"({latest.name!r}): version 0 has no file" in failures(copy)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("delete from core_page where id = (select max(p.id) from core_page p)", "page rows"),
        ("delete from core_coloredtag where id = (select max(id) from core_coloredtag)", "tags should be"),
        (
            "delete from core_kvstorenode where kvstore_ptr_id = (select max(kvstore_ptr_id) from core_kvstorenode)",
            "metadata should",
        ),
        ("delete from core_document where file_name = 'invoice 20.pdf'", "neither a document row nor a folder row"),
        ("update core_user set password = 'x' where username = 'anna'", "user 'anna': cannot log in"),
    ],
)
def test_a_missing_row_is_named(copy: PapermergeInstance, statement: str, named: str) -> None:
    change_row(copy, statement)

    assert named in failures(copy)


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_a_writer_leaves_documents_that_open(tmp_path: Path, journal_mode: str) -> None:
    instance = PapermergeInstance.create(
        tmp_path / "project",
        installed_papermerge(),
        "wal" if journal_mode == "wal" else "delete",
        media_dir=tmp_path / "media of its own",
        database_dir=tmp_path / "database",
    )
    instance.populate(documents=10)
    before = instance.open_every_document()

    with instance.writer(rate=50) as writer:
        deadline = time.monotonic() + 60
        while len(writer.operations()) < 25 and time.monotonic() < deadline:
            time.sleep(0.1)
        result = writer.stop()

    assert sum(result["operations"].values()) >= 25
    assert instance.open_every_document().documents > before.documents
    with closing(sqlite3.connect(instance.database)) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == (journal_mode,)
