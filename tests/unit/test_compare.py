# SPDX-License-Identifier: GPL-3.0-or-later
"""Two snapshots side by side: what came, what went, what has another content, whose it is, and all of it counted."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import RepositoryError, SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import IndexEntry
from ansible_collections.papermerge.backup.plugins.plugin_utils.compare import (
    CompareRequest,
    Difference,
    compare,
    differences,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from tests.support.generated.content import USERS
from tests.support.generated.instance import COMBINATIONS, GeneratedInstance, generate
from tests.support.instances import MadeInstance
from tests.support.servers.mariadb import MariaServer
from tests.support.servers.postgres import PostgresServer
from tests.support.snapshots import place_in, quiet, take

Result = dict[str, Any]


def compared(place: InstanceDirectory, base_place: InstanceDirectory | None = None, **wanted: Any) -> Result:
    return compare(place, base_place or place, CompareRequest(**wanted), quiet(), write=True)


def counted(result: Result, kind: str = "originals") -> dict[str, tuple[int, int]]:
    """Return files and bytes by change, of what there is any."""
    return {change: (count["files"], count["bytes"]) for change, count in result[kind].items() if count["files"]}


def entry(path: bytes, content: int = 0, **more: Any) -> bytes:
    values: dict[str, Any] = {"mtime_ns": 1, "part": "0" * 32, **more}
    values = {"path": path, "size": content, "mode": 0o600, "ctime_ns": 1, "device": 1, "inode": 1, **values}
    line = IndexEntry(**values, uid=0, gid=0, owner="", group="", sha256=f"{content:064x}").encode()
    return line.rstrip(b"\n")


def test_the_merge_is_that_of_two_dictionaries(rng: random.Random) -> None:
    for _round in range(200):
        names = [b"d/" + bytes(rng.choices(b'a-\\"\xc3\xbc\xff\n\x01z', k=rng.randrange(1, 6))) for _name in range(12)]
        sides: list[dict[bytes, int]] = [
            {name: rng.randrange(2) for name in names if rng.random() < 0.6} for _side in range(2)
        ]
        before, now = ([entry(path, side[path]) for path in sorted(side)] for side in sides)
        old, new = sides
        expected = {
            **{path: Difference(path, "removed", None, old[path]) for path in old.keys() - new.keys()},
            **{path: Difference(path, "added", new[path], None) for path in new.keys() - old.keys()},
            **{
                path: Difference(path, "changed", new[path], old[path])
                for path in new.keys() & old.keys()
                if old[path] != new[path]
            },
        }
        found = list(differences(before, now))
        assert [one for one in found if one is not None] == [expected[path] for path in sorted(expected)]
        assert found.count(None) == len(new.keys() & old.keys()) - sum(
            one.change == "changed" for one in expected.values()
        )


def test_another_time_or_part_is_no_change() -> None:
    assert list(differences([entry(b"a", 1)], [entry(b"a", 1, mtime_ns=2, part="1" * 32)])) == [None]


class TestOneInstance:
    @pytest.fixture
    def changed(self, instance: MadeInstance, place: InstanceDirectory) -> list[bytes]:
        """The first snapshot has documents 2 to 5 of both users, the second has other ones."""
        instance.execute("insert into core_user (username) values ('margaret')")
        paths = [instance.add_document(b"x" * (number + 1), user=number % 2 + 1) for number in range(4)]
        instance.write(b"results/user_1/document_2/pages/page_1.txt", b"text")
        instance.write(b"lost", b"neither")
        take(instance, place)
        instance.write(paths[0], b"other content")
        instance.execute("delete from core_document where basetreenode_ptr_id = 3")
        os.unlink(instance.path(paths[1]))
        paths.append(instance.add_document(b"y" * 100, user=2))
        instance.write(b"results/user_1/document_2/pages/page_2.txt", b"more text")
        os.unlink(instance.path(b"lost"))
        take(instance, place)
        return paths

    def test_everything_is_counted_for_its_user(self, changed: list[bytes], place: InstanceDirectory) -> None:
        result = compared(place)
        assert (result["base"], result["snapshot"]) == tuple(place.snapshot_names())
        assert counted(result) == {"added": (1, 100), "removed": (1, 2), "changed": (1, 13)}
        assert counted(result, "derived") == {"added": (1, 9)}
        assert counted(result, "other") == {"removed": (1, 7)}
        # Of originals two are as they were, and of what is derived one page.
        assert result["unchanged"] == 3
        users = {user.pop("user"): user for user in result["users"]}
        assert users["admin"]["changed"] == {"files": 1, "bytes": 13}
        assert users["margaret"]["added"] == {"files": 1, "bytes": 100}
        assert users["margaret"]["removed"] == {"files": 1, "bytes": 2}
        assert users["admin"]["added"] == users["margaret"]["changed"] == {"files": 0, "bytes": 0}
        assert result["row_counts"]["core_document"] == {"before": 4, "now": 4}
        assert result["row_counts"]["core_basetreenode"] == {"before": 5, "now": 6}
        first = result["differences"][0]
        assert first == {
            "path": changed[0].decode(),
            "change": "changed",
            "kind": "original",
            "user": "admin",
            "size_before": 1,
            "size": 13,
        }

    def test_the_other_way_round_what_came_has_gone(self, changed: list[bytes], place: InstanceDirectory) -> None:
        del changed
        result = compared(place, snapshot="1", base="2")
        assert counted(result) == {"removed": (1, 100), "added": (1, 2), "changed": (1, 1)}

    def test_a_snapshot_is_like_itself(self, changed: list[bytes], place: InstanceDirectory) -> None:
        del changed
        result = compared(place, base="2")
        assert result["difference_count"] == 0
        assert (result["users"], result["differences"]) == ([], [])
        assert result["unchanged"] == 6

    def test_all_differences_go_to_a_private_file(
        self, changed: list[bytes], place: InstanceDirectory, tmp_path: Path
    ) -> None:
        result = compared(place, dest=str(tmp_path / "list"))
        rows = [json.loads(line) for line in (tmp_path / "list").read_bytes().splitlines()]
        assert rows == result["differences"]
        assert {row["path"].encode() for row in rows if row["kind"] == "original"} == {
            changed[number] for number in (0, 1, 4)
        }
        assert stat.S_IMODE((tmp_path / "list").stat().st_mode) == 0o600
        with pytest.raises(SettingError, match="nothing is overwritten"):
            compared(place, dest=str(tmp_path / "list"))

    def test_without_a_snapshot_before_there_is_nothing_to_compare_with(
        self, instance: MadeInstance, place: InstanceDirectory
    ) -> None:
        take(instance, place)
        with pytest.raises(RepositoryError, match=r"no complete snapshot before .*papermerge_backup_base"):
            compared(place)

    def test_two_instances_can_be_compared(
        self, changed: list[bytes], instance: MadeInstance, place: InstanceDirectory
    ) -> None:
        other = place_in(place.path.parent, "two")
        os.unlink(instance.path(changed[4]))
        take(instance, other, accept_missing=True)
        result = compared(place, other)
        assert (result["instance"], result["base_instance"]) == ("one", "two")
        assert counted(result) == {"added": (1, 100)}


@pytest.fixture(params=COMBINATIONS, ids=["-".join(combination) for combination in COMBINATIONS])
def made(
    request: pytest.FixtureRequest, disk: Path, postgres_server: PostgresServer, maria_server: MariaServer
) -> Iterator[GeneratedInstance]:
    line, engine = request.param
    servers: dict[str, Any] = {"postgresql": postgres_server, "mysql": maria_server}
    server = servers.get(engine)
    name = "compare_{}".format(line.replace(".", "_").replace("-", "_"))
    seed = int(os.environ["PAPERMERGE_BACKUP_SEED"])
    yield generate(line, engine, disk / "source", seed, server=server, name=name, large_text=1 << 14)
    if server is not None:
        server.drop_database(name)


def test_owners_are_known_on_every_release_and_engine(made: GeneratedInstance, place: InstanceDirectory) -> None:
    take(made, place, app_version=made.version)
    named = {path.rpartition(b"/")[2]: path for path in made.expected}
    # One of each user: of the first document, of the page operation, of the form.
    gone = [named[name] for name in (b"scan.pdf", b"filled.pdf")]
    for path in gone:
        os.unlink(os.path.join(os.fsencode(made.media), path))
    changed = named[b"contract.pdf"]
    Path(os.fsdecode(os.path.join(os.fsencode(made.media), changed))).write_bytes(b"changed")
    for top in ("results", "sidecars", "ocr"):
        shutil.rmtree(made.media / top, ignore_errors=True)
    take(made, place, app_version=made.version, accept_missing=True)
    result = compared(place)
    users = {user["user"]: user for user in result["users"]}
    assert users.keys() == {USERS[0], USERS[1]}
    assert users[USERS[0]]["removed"]["files"] == 1
    assert users[USERS[1]]["removed"]["files"] == 1
    assert users[USERS[1]]["changed"] == {"files": 1, "bytes": 7}
    assert counted(result)["removed"][0] == 2
    assert counted(result, "derived").keys() == {"removed"}
