# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook prune, as a user runs it: it contacts no host, and one instance's trouble leaves the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.plugin_utils.create import CreateRequest, create_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import Repository
from tests.support.in_process import InProcessAgent
from tests.support.playbooks import Playbooks, tree
from tests.support.snapshots import quiet, verify

GONE = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_user": "nobody"}
"""A host that would not answer."""


@pytest.fixture
def stored(playbooks: Playbooks, tmp_path: Path) -> Playbooks:
    """Three instances with three snapshots each."""
    for name in ("one", "two", "left"):
        agent = InProcessAgent(tmp_path / name)
        agent.media.mkdir()
        place = Repository(str(playbooks.repository)).instance(name)
        for number in range(3):
            (agent.media / f"file-{number}").write_text(f"{name} {number}")
            create_snapshot(agent, place, CreateRequest(host=name, instance=name), quiet())
    return playbooks


def test_a_dry_run_names_every_snapshot_and_the_prune_does_what_it_said(stored: Playbooks) -> None:
    settings = {"papermerge_backup_keep_last": 2, "papermerge_backup_part_grace": "0h"}
    before = tree(stored.repository)
    inventory = {"one": GONE, "two": GONE}
    planned = stored.run("prune", inventory, extra=settings, options=["--check"])
    assert planned.status == 0, str(planned)
    assert tree(stored.repository) == before
    table = [(row["instance"], row["result"], row["reasons"]) for row in planned.rows]
    for name in ("one", "two", "left"):
        assert [row[1:] for row in table if row[0] == name] == [
            ("remove", "no rule keeps it"),
            ("keep", "last snapshot"),
            ("keep", "newest that verifies, last snapshot"),
            ("checked", "-"),
        ]
    run = stored.run("prune", inventory, extra=settings)
    assert run.status == 0, str(run)
    for name in ("one", "two", "left"):
        removed, total = [row for row in run.rows if row["instance"] == name]
        assert (removed["result"], removed["reasons"]) == ("removed", "no rule keeps it")
        assert (total["result"], total["kept"], total["removed"]) == ("ok", "2", "1")
        assert total["freed bytes"] not in ("-", "0 B")
        assert len(stored.snapshots(name)) == 2
        verify(Repository(str(stored.repository)).instance(name), "full")
    assert run.recap["one"]["changed"] == 1
    # An instance of a host that is not in the inventory is localhost's.
    assert run.recap["localhost"]["changed"] == 1
    again = stored.run("prune", inventory, extra=settings)
    assert {host: counts["changed"] for host, counts in again.recap.items()} == {"one": 0, "two": 0, "localhost": 0}


def test_what_is_wrong_with_one_instance_is_said_and_leaves_the_others(stored: Playbooks) -> None:
    newest = stored.snapshots("two")[-1]
    (newest / "index.jsonl.zst").write_bytes(b"no index")
    policy = {"papermerge_backup_keep_last": 1}
    run = stored.run("prune", {"one": {**GONE, **policy}, "two": {**GONE, **policy}})
    assert run.status != 0
    assert {row["result"] for row in run.rows if row["instance"] == "one"} == {"removed", "ok"}
    assert len(stored.snapshots("one")) == 1
    assert run.row("two", "instance")["result"] == "failed"
    assert run.says(f"nothing is removed, because the newest snapshot {newest.name} does not verify")
    assert len(stored.snapshots("two")) == 3
    # The policy of the group is none for those who are not in it.
    assert run.says("instances left: the policy is empty")
    assert run.says("belong into the group all")
    assert len(stored.snapshots("left")) == 3
    assert not run.says("Traceback")
