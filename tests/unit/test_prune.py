# SPDX-License-Identifier: GPL-3.0-or-later
"""The prune: what it removes, what keeps it from removing anything, and what is left when it is interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, DamageError, LossError
from ansible_collections.papermerge.backup.plugins.plugin_utils import repository as repository_module
from ansible_collections.papermerge.backup.plugins.plugin_utils.create import CreateRequest, create_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.listing import list_snapshots, verify_snapshots
from ansible_collections.papermerge.backup.plugins.plugin_utils.pins import set_pin
from ansible_collections.papermerge.backup.plugins.plugin_utils.prune import prune_snapshots
from ansible_collections.papermerge.backup.plugins.plugin_utils.prune_plan import PruneRequest
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import Repository
from ansible_collections.papermerge.backup.plugins.plugin_utils.retention import Duration, Policy
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored_media import StoredMedia
from tests.support.histories import MEMORY, Crashing, clock
from tests.support.in_process import InProcessAgent
from tests.support.playbooks import tree
from tests.support.snapshots import place_in, quiet, verify


class Site:
    """An instance with an agent in this process, snapshots of any day, and a clock."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.place = place_in(directory / "repository")
        self.repository = Repository(str(directory / "repository"))
        self.agent = InProcessAgent(directory / "media")
        self.agent.media.mkdir()
        self.agent.documents = 10
        self.now = datetime(2026, 11, 1, 3, tzinfo=UTC)

    def take(self, days: float = 1, content: str = "") -> str:
        """Take a snapshot that shares no content with any other, of one file more; return its id. Then days pass."""
        files = sorted(self.agent.media.iterdir())
        (self.agent.media / f"file-{len(files)}").write_text(content or "content")
        for path in self.agent.media.iterdir():
            path.write_bytes(os.urandom(path.stat().st_size))
        request = CreateRequest(host="here", instance="one")
        before = self.stored_parts() if self.place.parts_path.is_dir() else set()
        try:
            name = create_snapshot(self.agent, self.place, request, quiet())["id"]
        except LossError as error:
            name = error.details["snapshot"]["id"]
        for path in self.stored_parts():
            # New, or used again: of this machine's time so far.
            if path not in before or path.stat().st_mtime > self.now.timestamp():
                os.utime(path, (self.now.timestamp(),) * 2)
        self.now += timedelta(days=days)
        return str(name)

    def prune(self, policy: Policy | None = None, check: bool = False, **changes: Any) -> dict[str, Any]:
        """Prune with grace for no part; the policy keeps the last two unless there is another."""
        settings: dict[str, Any] = {
            "verified_within": Duration(days=30),
            "part_grace": Duration(),
            "shrink_threshold": 20,
            "accept_shrink": [],
            **changes,
        }
        request = PruneRequest(policy=policy or Policy(last=2), **settings)
        (row,) = prune_snapshots([self.place], request, quiet(), check)
        return row

    @property
    def names(self) -> list[str]:
        return self.place.snapshot_names()

    def events(self, word: str) -> list[dict[str, Any]]:
        return [row for row in self.place.history.rows() if row["event"] == word]

    def parts_of(self, name: str) -> list[Path]:
        parts = self.place.select(name).require_manifest().parts
        return [path(part.id) for part in parts for path in (self.place.part_path, self.place.record_path)]

    def stored_parts(self) -> set[Path]:
        return set(self.place.parts_path.iterdir())


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory: no test here waits for a disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def site(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    # What is begun and has no note of who began it is nobody's.
    monkeypatch.setattr(repository_module, "CLAIM_SECONDS", -1.0)
    made = Site(memory / "site")
    with clock(lambda: made.now):
        yield made


def actions(row: dict[str, Any]) -> dict[str, str]:
    return {found["id"]: found["action"] for found in row["snapshots"]}


def reasons(row: dict[str, Any], name: str) -> str:
    (found,) = (found for found in row["snapshots"] if found["id"] == name)
    return ", ".join(found["reasons"])


def require_refusal(site: Site, row: dict[str, Any], *words: str) -> None:
    assert row["result"] == "failed"
    assert (row["removed"], row["freed_bytes"], row["changed"]) == (0, 0, False)
    for word in ("nothing is removed", *words):
        assert word in row["msg"]
    assert site.events("pruned") == []


# -- what goes ---------------------------------------------------------------------------------------------------------


def test_what_no_rule_keeps_goes_with_the_parts_that_nobody_else_needs(site: Site) -> None:
    taken = [site.take() for _number in range(4)]
    parts = {name: set(site.parts_of(name)) for name in taken}
    before = sum(path.stat().st_size for path in site.place.path.rglob("*") if path.is_file())
    row = site.prune()
    assert (row["result"], row["kept"], row["removed"], row["changed"]) == ("ok", 2, 2, True)
    assert reasons(row, taken[0]) == "no rule keeps it"
    assert reasons(row, taken[2]) == "last snapshot"
    assert reasons(row, taken[3]) == "newest that verifies, last snapshot"
    assert site.names == taken[2:]
    assert site.stored_parts() == parts[taken[2]] | parts[taken[3]]
    for name in taken[2:]:
        verify(site.place, "full", name)
    history = site.place.history.path.stat().st_size + (site.place.path / "lock").stat().st_size
    after = sum(path.stat().st_size for path in site.place.path.rglob("*") if path.is_file())
    assert before - row["freed_bytes"] <= after <= before - row["freed_bytes"] + history


def test_a_second_prune_finds_nothing_to_do(site: Site) -> None:
    for _number in range(3):
        site.take()
    site.prune()
    before = tree(site.place.path, "lock")
    row = site.prune()
    assert (row["removed"], row["removed_parts"], row["freed_bytes"], row["changed"]) == (0, 0, 0, False)
    assert tree(site.place.path, "lock") == before


def test_check_mode_says_what_would_go_and_writes_nothing(site: Site) -> None:
    for _number in range(4):
        site.take()
    before = tree(site.place.path)
    planned = site.prune(check=True)
    assert tree(site.place.path) == before
    done = site.prune()
    assert planned["snapshots"] == done["snapshots"]
    assert {key: planned[key] for key in planned} == {key: done[key] for key in planned}
    assert done["removed"] == 2


def test_a_pruned_snapshot_is_neither_damage_nor_is_its_number_used_again(site: Site) -> None:
    taken = [site.take() for _number in range(3)]
    site.prune(Policy(last=1))
    assert [row["state"] for row in list_snapshots([site.repository], None, [])] == ["complete"]
    assert [row["snapshot"] for row in site.events("pruned")] == taken[:2]
    assert {row["manifest_sha256"] for row in site.events("pruned")} < {
        row["manifest_sha256"] for row in site.events("committed")
    }
    with pytest.raises(BackupError, match="has no snapshot 1"):
        site.place.select("1")
    assert site.take().startswith("000004-")


def test_an_instance_without_snapshots_is_left_alone(site: Site) -> None:
    assert (site.prune()["state"], site.place.path.exists()) == ("no snapshots", False)
    site.place.make()
    assert site.prune()["state"] == "no snapshots"


def test_an_instance_that_is_busy_does_not_keep_the_others_waiting_for_ever(
    site: Site, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_module, "LOCK_PATIENCE", 0.0)
    other = Site(memory / "other")
    for made in (site, other):
        for _number in range(3):
            made.take()
    request = PruneRequest(Policy(last=1), Duration(), Duration(), 20, [])
    with site.place.locked():
        rows = prune_snapshots([site.place, other.place], request, quiet(), check=False)
    assert [(row["result"], row["error"]) for row in rows] == [("failed", "busy"), ("ok", "")]
    assert (len(site.names), len(other.names)) == (3, 1)


# -- what counts -------------------------------------------------------------------------------------------------------


def test_what_was_verified_lately_is_not_read_again_and_what_no_rule_wants_is_not_read_at_all(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = [site.take() for _number in range(5)]
    verify_snapshots([site.repository], None, [], taken[3], "full", quiet(), record=True)
    read: list[str] = []
    real = StoredMedia.check

    def check(media: StoredMedia, *arguments: Any) -> None:
        read.append(media.name)
        real(media, *arguments)

    monkeypatch.setattr(StoredMedia, "check", check)
    site.prune(check=True)
    assert read == [taken[4]]
    site.prune()
    site.prune()
    assert read == [taken[4], taken[4]]
    site.now += timedelta(days=31)
    site.prune()
    assert read[2:] == [taken[4], taken[3]]
    site.prune(verified_within=Duration())
    assert len(read) == 6


@pytest.mark.parametrize("level", ["quick", None])
def test_a_quick_verification_is_not_enough(site: Site, level: str | None) -> None:
    taken = [site.take() for _number in range(3)]
    if level is not None:
        verify_snapshots([site.repository], None, [], "all", level, quiet(), record=True)
    part = site.parts_of(taken[1])[0]
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    row = site.prune()
    assert actions(row) == dict.fromkeys(taken, "keep")
    assert "no sound one in its place yet (last snapshot), does not count: damaged" in reasons(row, taken[1])
    assert reasons(row, taken[0]) == "last snapshot"


def test_a_part_that_was_found_damaged_since_makes_its_snapshots_be_read_again(site: Site) -> None:
    taken = [site.take() for _number in range(3)]
    verify_snapshots([site.repository], None, [], "all", "full", quiet(), record=True)
    part = site.parts_of(taken[1])[0]
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    with open(site.place.history.path, "a", encoding="ascii") as stream:
        stream.write(json.dumps({"event": "damaged", "part": part.name[:32], "time": "2026-11-30T00:00:00Z"}) + "\n")
    assert "does not count: damaged" in reasons(site.prune(check=True), taken[1])


def test_what_does_not_count_goes_when_the_rules_are_satisfied_without_it(site: Site) -> None:
    taken = [site.take() for _number in range(3)]
    site.parts_of(taken[1])[0].unlink()
    row = site.prune()
    assert set(actions(row).values()) == {"keep"}
    taken += [site.take()]
    row = site.prune()
    assert actions(row) == {taken[0]: "remove", taken[1]: "remove", taken[2]: "keep", taken[3]: "keep"}
    assert site.names == taken[2:]


def test_an_incomplete_snapshot_never_counts_and_goes_with_its_reason(site: Site) -> None:
    taken = [site.take()]
    site.agent.expected = ["file-0"]
    lost = site.agent.media / "file-0"
    lost.rename(lost.with_name("elsewhere"))
    taken.append(site.take())
    assert site.place.select(taken[1]).require_manifest().state == "incomplete"
    lost.with_name("elsewhere").rename(lost)
    taken.append(site.take())
    row = site.prune()
    assert reasons(row, taken[1]) == "no sound one in its place yet (last snapshot), does not count: incomplete"
    assert site.names == taken
    taken.append(site.take())
    assert reasons(site.prune(), taken[1]) == "no rule keeps it, does not count: incomplete"
    assert site.names == taken[2:]


def test_a_snapshot_of_another_version_of_the_format_is_never_removed(site: Site) -> None:
    taken = [site.take() for _number in range(3)]
    manifest = site.place.snapshots_path / taken[0] / "manifest.json"
    fields = json.loads(manifest.read_text("utf-8"))
    text = json.dumps({**fields, "format": 99}).encode()
    manifest.write_bytes(text)
    manifest.with_name("manifest.json.sha256").write_bytes(repository_module.checksum_line(text))
    rows = site.place.history.path.read_text("ascii").splitlines()
    site.place.history.path.write_text("\n".join(rows[1:]) + "\n", encoding="ascii")
    parts = site.stored_parts()
    row = site.prune(Policy(last=1))
    assert "nobody can tell what it holds" in reasons(row, taken[0])
    assert site.names == [taken[0], taken[2]]
    assert "unreferenced parts stay" in row["msg"]
    assert site.stored_parts() == parts


def test_a_snapshot_whose_directory_has_vanished_is_told_and_then_forgotten(site: Site) -> None:
    taken = [site.take() for _number in range(3)]
    shutil.rmtree(site.place.snapshots_path / taken[1])
    row = site.prune()
    assert "is gone" in reasons(row, taken[1])
    assert "unreferenced parts stay" in row["msg"]
    row = site.prune(Policy(last=1))
    assert actions(row)[taken[1]] == "remove"
    assert [found["state"] for found in list_snapshots([site.repository], None, [])] == ["complete"]
    assert len(site.stored_parts()) == 2


# -- what keeps everything ---------------------------------------------------------------------------------------------


def test_nothing_goes_while_the_newest_snapshot_is_incomplete(site: Site) -> None:
    site.agent.expected = ["file-0"]
    taken = [site.take() for _number in range(3)]
    (site.agent.media / "file-0").unlink()
    taken.append(site.take())
    require_refusal(site, site.prune(Policy(last=1)), taken[3], "is incomplete")
    assert site.names == taken


def test_nothing_goes_while_the_newest_snapshot_is_dated_in_the_future(site: Site) -> None:
    taken = [site.take() for _number in range(3)]
    site.now -= timedelta(days=1, minutes=6)
    require_refusal(site, site.prune(), taken[2], "dated in the future", "2026-11-03T02:54:00Z")
    site.now += timedelta(minutes=1)
    assert site.prune()["removed"] == 1


@pytest.mark.parametrize("kind", ["part", "manifest", "directory"])
def test_nothing_goes_while_the_newest_snapshot_does_not_verify(site: Site, kind: str) -> None:
    taken = [site.take() for _number in range(3)]
    verify_snapshots([site.repository], None, [], "all", "full", quiet(), record=True)
    if kind == "part":
        site.parts_of(taken[2])[0].unlink()
    elif kind == "manifest":
        (site.place.snapshots_path / taken[2] / "manifest.json").write_bytes(b"{}")
    else:
        shutil.rmtree(site.place.snapshots_path / taken[2])
    row = site.prune()
    require_refusal(site, row, taken[2])
    assert row["error"] == "damage"


@pytest.mark.parametrize("what", ["documents", "bytes of media"])
def test_nothing_goes_while_the_newest_snapshot_has_shrunk_until_it_is_accepted(site: Site, what: str) -> None:
    big = "x" * 10_000
    taken = [site.take(content=big), site.take()]
    if what == "documents":
        site.agent.documents = 7
    else:
        (site.agent.media / "file-0").write_text("y" * 5_000)
    taken.append(site.take())
    require_refusal(site, site.prune(Policy(last=1)), taken[2], what, "papermerge_backup_accept_shrink", taken[1])
    # A second small one does not make the first one right.
    taken.append(site.take())
    require_refusal(site, site.prune(Policy(last=1)), taken[3], taken[1])
    require_refusal(site, site.prune(Policy(last=1), accept_shrink=["1"]), taken[3])
    assert site.prune(Policy(last=1), shrink_threshold=60, check=True)["removed"] == 3
    assert site.prune(Policy(last=1), accept_shrink=[taken[2]])["removed"] == 3
    # Accepted is accepted: the setting need not stay.
    site.take()
    assert site.prune(Policy(last=1))["removed"] == 1


def test_a_small_snapshot_between_large_ones_keeps_nobody(site: Site) -> None:
    for documents in (10, 3, 10):
        site.agent.documents = documents
        site.take()
    assert site.prune(Policy(last=1))["removed"] == 2


def test_what_was_in_order_is_remembered_when_it_is_gone(site: Site) -> None:
    site.take()
    site.take()
    site.prune(Policy(last=1))
    site.agent.documents = 5
    site.take()
    shutil.rmtree(site.place.snapshots_path / site.names[0])
    assert "has 5 documents" in site.prune(Policy(last=1))["msg"]


# -- pins --------------------------------------------------------------------------------------------------------------


def test_a_pinned_snapshot_stays_until_it_is_unpinned(site: Site) -> None:
    taken = [site.take() for _number in range(3)]
    assert set_pin(site.place, "1", "the audit", check=False) == (taken[0], True)
    assert set_pin(site.place, "1", "the audit", check=False) == (taken[0], False)
    row = site.prune(Policy(last=1))
    assert site.names == [taken[0], taken[2]]
    assert reasons(row, taken[0]) == "pinned: the audit"
    verify(site.place, "full", taken[0])
    pins = [found["pinned"] for found in list_snapshots([site.repository], None, [])]
    assert pins[0]["note"] == "the audit"
    assert pins[1] is None
    assert set_pin(site.place, "1", None, check=True) == (taken[0], True)
    assert set_pin(site.place, "1", None, check=False) == (taken[0], True)
    assert set_pin(site.place, "1", None, check=False) == (taken[0], False)
    site.prune(Policy(last=1))
    assert site.names == taken[2:]
    with pytest.raises(BackupError, match="has no snapshot 1"):
        set_pin(site.place, "1", "too late", check=False)


def test_a_snapshot_that_vanished_cannot_be_pinned(site: Site) -> None:
    name = site.take()
    shutil.rmtree(site.place.snapshots_path / name)
    with pytest.raises(BackupError, match="is gone"):
        set_pin(site.place, "latest", "", check=False)


# -- parts -------------------------------------------------------------------------------------------------------------


def test_parts_that_nobody_names_go_when_they_are_old_enough_also_halves(site: Site) -> None:
    site.take()
    names = [letter * 32 for letter in "abcd"]
    left = [site.place.part_path(name) for name in names[:3]] + [site.place.record_path(name) for name in names[1:]]
    strange = [site.place.parts_path / "notes.txt", site.place.parts_path / ("a" * 32 + ".tar.zst.partial")]
    for path in [*left, *strange]:
        path.write_bytes(b"x")
        os.utime(path, (site.now.timestamp() - 23 * 3600,) * 2)
    kept = site.stored_parts()
    assert site.prune(part_grace=Duration(hours=24))["removed_parts"] == 0
    assert site.stored_parts() == kept
    # One half was written later.
    for path in left[:-1]:
        os.utime(path, (site.now.timestamp() - 25 * 3600,) * 2)
    assert site.prune(part_grace=Duration(hours=24))["removed_parts"] == 3
    assert site.stored_parts() == kept - set(left[:-1])


def test_parts_stay_while_another_machine_is_at_work(site: Site) -> None:
    for _number in range(3):
        site.take()
    parts = site.stored_parts()
    incoming = site.place.incoming_path / "000099"
    incoming.mkdir()
    incoming.with_name("000099.owner").write_text("elsewhere.example.org\n")
    row = site.prune(Policy(last=1))
    assert (row["removed"], row["removed_parts"], row["result"]) == (2, 0, "ok")
    assert "somebody is still at work in" in row["msg"]
    assert site.stored_parts() == parts
    shutil.rmtree(incoming)
    assert site.prune(Policy(last=1))["removed_parts"] == 2


# -- interruptions -----------------------------------------------------------------------------------------------------


def test_interrupted_before_any_of_its_steps_a_prune_loses_nothing_and_the_next_one_finishes_it(
    site: Site, memory: Path
) -> None:
    taken = [site.take() for _number in range(5)]
    site.place.part_path("a" * 32).write_bytes(b"left by a create")
    os.utime(site.place.part_path("a" * 32), (site.now.timestamp(),) * 2)
    kept, original = site.place.path, memory / "original"
    shutil.copytree(kept, original)
    whole = Crashing(None)
    with whole.watching():
        site.prune()
    assert whole.calls > 30
    wanted = {path.relative_to(kept) for path in kept.rglob("*")}
    events = [row["event"] for row in site.place.history.rows()]
    for number in range(1, whole.calls + 1):
        shutil.rmtree(kept)
        shutil.copytree(original, kept)
        with Crashing(number).watching():
            site.prune()
        pruned = site.place.history.pruned()
        for name in taken:
            if name in site.names:
                verify(site.place, "full", name)
            else:
                assert name in pruned, number
        assert set(taken[3:]) <= set(site.names)
        assert [row for row in list_snapshots([site.repository], None, []) if row["state"] == "damaged"] == []
        site.prune()
        assert {path.relative_to(kept) for path in kept.rglob("*")} == wanted, number
        assert sorted(set(events)) == sorted({row["event"] for row in site.place.history.rows()})
        assert len(site.events("pruned")) == 3


def test_what_an_interrupted_prune_had_given_up_can_be_kept_by_the_next_one(site: Site) -> None:
    taken = [site.take() for _number in range(3)]
    place = site.place
    place.history.append("pruned", taken[0], place.select("1").manifest_sha256, reasons=["no rule keeps it"])
    row = site.prune(Policy(last=3))
    assert (row["removed"], site.names) == (0, taken)
    assert place.history.pruned() == []
    # So that it is missed when it vanishes.
    shutil.rmtree(place.snapshots_path / taken[0])
    with pytest.raises(DamageError, match="is gone"):
        place.select("1").require_manifest()


def test_a_create_that_was_killed_after_its_commit_is_recorded_before_anything_is_decided(site: Site) -> None:
    taken = [site.take() for _number in range(2)]
    rows = site.place.history.path.read_bytes().splitlines(keepends=True)
    site.place.history.path.write_bytes(rows[0])
    with contextlib.suppress(FileNotFoundError):
        (site.place.path / "lock").unlink()
    site.prune(Policy(last=1))
    assert [row["snapshot"] for row in site.events("committed")] == taken
