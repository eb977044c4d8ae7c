# SPDX-License-Identifier: GPL-3.0-or-later
"""One document out of a real Papermerge's snapshot, and what differs between two: playbooks, as a user runs them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.papermerge_on_hosts import PROJECT, Source, agents
from tests.support.hosts.bench import HostBench
from tests.support.hosts.host import Host
from tests.support.playbooks import Inventory, Playbooks


@dataclasses.dataclass(frozen=True)
class Known:
    """A document of the source: of whom, where, which number, and the hashes of all its files."""

    owner: str
    path: str
    number: str
    sha256: list[str]


@dataclasses.dataclass(frozen=True)
class Backup:
    """Two snapshots of a host: between them a file was changed, one went and one came."""

    playbooks: Playbooks
    host: Host
    inventory: Inventory
    changed: str


def known_documents(source: Source) -> list[Known]:
    found = []
    for name, described in source.contents["documents"].items():
        matched = re.fullmatch(r"([^:]+):(/.*) #(\d+)", name, re.DOTALL)
        assert matched, name
        found.append(Known(matched[1], matched[2], matched[3], sorted(described["files"].values())))
    return found


def with_versions(source: Source) -> Known:
    """The document with the most files, whose path nobody else has."""
    documents = known_documents(source)
    paths = [document.path for document in documents]
    return max((one for one in documents if paths.count(one.path) == 1), key=lambda one: len(one.sha256))


@pytest.fixture(scope="module")
def backup(host_bench: HostBench, source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backup]:
    playbooks = Playbooks(tmp_path_factory.mktemp("extract") / "home")
    host = host_bench.start("extract")
    source.install(host)
    inventory = {"paper": host.inventory("admin", ansible_become=True)}
    first = playbooks.run("create", inventory)
    assert first.status == 0, str(first)
    original = min(path for path in source.files if path.startswith("docs/"))
    host.put(f"{PROJECT}/media/{original}", b"changed", owner="papermerge")
    host.run(f"cd {PROJECT}/media && rm -r results/* && echo new > docs/new")
    second = playbooks.run("create", inventory)
    assert second.status == 0, str(second)
    yield Backup(playbooks, host, inventory, original)
    host_bench.remove(host)


def sums(directory: Path) -> list[str]:
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.rglob("*") if path.is_file())


def test_a_document_comes_to_the_controller_by_its_path_and_by_its_id(
    backup: Backup, source: Source, tmp_path: Path
) -> None:
    document = with_versions(source)
    assert len(document.sha256) > 1
    for number, wanted in enumerate((document.path, document.number)):
        extra = {
            "papermerge_backup_snapshot": "1",
            "papermerge_backup_document": json.dumps(wanted),
            "papermerge_backup_dest": tmp_path / str(number),
        }
        planned = backup.playbooks.run("extract", backup.inventory, extra=extra, options=["--check"])
        assert planned.row("paper")["result"] == "checked", str(planned)
        assert not (tmp_path / str(number)).exists()
        run = backup.playbooks.run("extract", backup.inventory, extra=extra)
        assert run.status == 0, str(run)
        row = run.row("paper")
        assert (row["document"], row["user"]) == (document.path, document.owner)
        assert row["files"] == str(len(document.sha256))
        assert sums(tmp_path / str(number)) == document.sha256


def test_a_pattern_brings_files_to_the_host(backup: Backup, source: Source) -> None:
    """Also where there is no other way than staging."""
    expected = sorted(file["sha256"] for path, file in source.files.items() if path.startswith("docs/user_1/"))
    for transfer in ("streamed", "staged"):
        extra = {
            "papermerge_backup_snapshot": "1",
            "papermerge_backup_pattern": "docs/user_1/**",
            "papermerge_backup_dest": f"/srv/{transfer}",
            "papermerge_backup_location": "host",
            "papermerge_backup_transfer": transfer,
        }
        run = backup.playbooks.run("extract", backup.inventory, extra=extra)
        assert run.status == 0, str(run)
        assert sums(backup.host.root / "srv" / transfer) == expected
        modes = backup.host.run(f"find /srv/{transfer} -printf '%y %m %u\\n' | sort -u").stdout.split("\n")
        assert modes == ["d 700 root", "f 600 root", ""]
        again = backup.playbooks.run("extract", backup.inventory, extra=extra)
        assert again.status != 0
        assert "is not an empty directory" in again.message("paper")
        assert sums(backup.host.root / "srv" / transfer) == expected
    assert agents(backup.host) == []


def test_a_wrong_name_fails_and_says_what_there_is(backup: Backup, tmp_path: Path) -> None:
    extra = {"papermerge_backup_document": "no-such.pdf", "papermerge_backup_dest": tmp_path / "out"}
    run = backup.playbooks.run("extract", backup.inventory, extra=extra)
    assert run.status == 2
    assert "has no document no-such.pdf" in run.message("paper")
    assert not (tmp_path / "out").exists()


def test_the_comparison_says_what_changed_for_whom(backup: Backup, source: Source, tmp_path: Path) -> None:
    derived = [path for path in source.files if path.startswith("results/")]
    extra = {"papermerge_backup_dest": tmp_path / "differences"}
    run = backup.playbooks.run("compare", backup.inventory, extra=extra)
    assert run.status == 0, str(run)
    rows = {(row["files"], row["user"]): row for row in run.rows}
    names = ("added", "removed", "changed")
    assert {key: tuple(row[name] for name in names) for key, row in rows.items()} == {
        ("originals", "admin"): ("0", "0", "1"),
        ("originals", "(nobody knows)"): ("1", "0", "0"),
        ("originals", "(all)"): ("1", "0", "1"),
        ("derived", "(all)"): ("0", str(len(derived)), "0"),
        ("other", "(all)"): ("0", "0", "0"),
    }
    listed = [json.loads(line) for line in (tmp_path / "differences").read_text("utf-8").splitlines()]
    assert [(row["path"], row["change"]) for row in listed if row["kind"] == "original"] == sorted(
        [("docs/new", "added"), (backup.changed, "changed")]
    )
    assert sorted(row["path"] for row in listed if row["kind"] == "derived") == sorted(derived)
