# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way over ssh: from an inventory that names a host, to a proven copy on another one."""

from __future__ import annotations

import dataclasses
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.papermerge_on_hosts import PLACES, PROJECT, Source, agents, belongings
from tests.support.hosts.base import OPERATOR_PASSWORD
from tests.support.hosts.bench import HostBench
from tests.support.hosts.host import Host
from tests.support.playbooks import PlaybookRun, Playbooks, ProcessWatch, files_with, tree

HostState = tuple[set[str], dict[str, Any]]
"""The names of all files of a host, and what the files of Papermerge are."""


def state(host: Host) -> HostState:
    return belongings(host), tree(host.root / PROJECT.lstrip("/"))


def assert_unchanged(before: HostState, after: HostState) -> None:
    assert after[0] - before[0] == before[0] - after[0] == set()
    assert {name for name in before[1] if before[1][name] != after[1].get(name)} == set()
    assert before[1].keys() == after[1].keys()


@dataclasses.dataclass(frozen=True)
class Journey:
    """A host that is backed up twice and brought to another one, with nothing but the two in the inventory."""

    playbooks: Playbooks
    old: Host
    new: Host
    planned: PlaybookRun
    repository_after_plan: bool
    first: PlaybookRun
    first_snapshot: dict[str, Any]
    first_snapshot_later: dict[str, Any]
    second: PlaybookRun
    restore_planned: PlaybookRun
    target_after_plan: set[str]
    restored: PlaybookRun
    host_before: HostState
    host_after: HostState
    target_before: set[str]


@pytest.fixture(scope="module")
def journey(
    papermerge_hosts: dict[str, Host], host_bench: HostBench, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Journey]:
    playbooks = Playbooks(tmp_path_factory.mktemp("journey") / "home")
    old, new = papermerge_hosts["one"], host_bench.start("new")
    inventory = {"old": old.inventory("admin", ansible_become=True)}
    before, target_before = state(old), belongings(new)
    planned = playbooks.run("create", inventory, options=["--check"])
    planned_repository = playbooks.repository.exists()
    first = playbooks.run("create", inventory)
    kept = tree(playbooks.repository, "history.jsonl", "lock")
    second = playbooks.run("create", inventory)
    kept_later = tree(playbooks.repository, "history.jsonl", "lock")
    target = {"new": new.inventory("admin", ansible_become=True)}
    extra = {"papermerge_backup_source": "old"}
    restore_planned = playbooks.run("restore", target, options=["--check"], extra=extra)
    target_after_plan = belongings(new)
    restored = playbooks.run("restore", target, extra=extra)
    after = state(old)
    yield Journey(
        playbooks=playbooks,
        old=old,
        new=new,
        planned=planned,
        repository_after_plan=planned_repository,
        first=first,
        first_snapshot=kept,
        first_snapshot_later=kept_later,
        second=second,
        restore_planned=restore_planned,
        target_after_plan=target_after_plan,
        restored=restored,
        host_before=before,
        host_after=after,
        target_before=target_before,
    )
    host_bench.remove(new)


def test_papermerge_opens_every_document_on_the_new_host(journey: Journey, source: Source, tmp_path: Path) -> None:
    assert journey.restored.status == 0, str(journey.restored)
    instance = source.bring_back_from(journey.new, tmp_path / "back")
    assert instance.open_every_document() == source.report
    assert instance.contents() == source.contents


def test_the_closing_tables_say_what_was_backed_up_and_restored(journey: Journey, source: Source) -> None:
    documents = str(source.contents["counts"]["core_document"])
    for run in (journey.first, journey.second):
        assert run.status == 0, str(run)
        row = run.row("old")
        assert (row["result"], row["version"], row["documents"]) == ("ok", source.version, documents)
        assert row["originals"] == f"{source.report.opened}/{source.report.opened}"
    names = [path.name for path in journey.playbooks.snapshots("old")]
    assert [journey.first.row("old")["snapshot"], journey.second.row("old")["snapshot"]] == names
    restored = journey.restored.row("new")
    assert (restored["source"], restored["snapshot"]) == ("old", names[-1])
    assert (restored["documents"], restored["files"]) == (documents, str(len(source.files)))


def test_files_on_the_new_host_have_owner_mode_and_time_of_the_old(journey: Journey) -> None:
    command = f"cd {PROJECT} && find media db.sqlite3 -type f -printf '%p %u:%g %m %s %T@\\n' | sort"
    old, new = (host.run(command).stdout.splitlines() for host in (journey.old, journey.new))
    assert "media/docs" in old[-1] + old[1]
    # A restored database is written anew; everything else keeps its time.
    assert [line.split()[:4] for line in new if line.startswith("db")] == [
        line.split()[:4] for line in old if line.startswith("db")
    ]
    assert [line for line in new if not line.startswith("db")] == [line for line in old if not line.startswith("db")]
    directories = f"cd {PROJECT} && stat -c '%n %U:%G %a' media media/docs media/docs/user_*"
    assert journey.new.run(directories).stdout == journey.old.run(directories).stdout


def test_nothing_is_left_on_the_hosts(journey: Journey, source: Source) -> None:
    assert_unchanged(journey.host_before, journey.host_after)
    added = belongings(journey.new) - journey.target_before
    below = [name.removeprefix(f"{PROJECT}/media/") for name in added if name.startswith(f"{PROJECT}/media/")]
    files = {name for name in below if (journey.new.root / f"{PROJECT[1:]}/media/{name}").is_file()}
    assert len(files) == len(source.files)
    others = {name for name in added if not name.startswith(f"{PROJECT}/media/")}
    assert others == {PROJECT, f"{PROJECT}/media", f"{PROJECT}/db.sqlite3"}
    assert agents(journey.old) == agents(journey.new) == []


def test_check_mode_changes_nothing(journey: Journey) -> None:
    for run, host in ((journey.planned, "old"), (journey.restore_planned, "new")):
        assert run.status == 0, str(run)
        assert run.row(host)["result"] == "checked"
    assert not journey.repository_after_plan
    assert journey.target_after_plan == journey.target_before


def test_a_second_snapshot_leaves_the_first_as_it_is(journey: Journey) -> None:
    later = {name: entry for name, entry in journey.first_snapshot_later.items() if name in journey.first_snapshot}
    directories = {name for name, (mode, _time, _content) in later.items() if stat.S_ISDIR(mode)}
    assert journey.first_snapshot.keys() == later.keys()
    for name in later.keys() - directories:
        assert later[name] == journey.first_snapshot[name], name
    assert len(journey.playbooks.snapshots("old")) == 2


def test_only_the_owner_can_read_the_repository(journey: Journey) -> None:
    repository = journey.playbooks.repository
    entries = {name: stat.S_IMODE(mode) for name, (mode, _time, _content) in tree(repository).items()}
    assert stat.S_IMODE(repository.stat().st_mode) == 0o700
    assert len(entries) > 10
    for name, mode in entries.items():
        assert mode == (0o700 if (repository / name).is_dir() else 0o600), name
    assert list((repository / "old" / "incoming").iterdir()) == []


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "sudo": ("admin", {"ansible_become": True}),
    "sudo-password": ("operator", {"ansible_become": True, "ansible_become_password": OPERATOR_PASSWORD}),
    "ssh-password": (
        "operator",
        {"ansible_become": True, "ansible_become_password": OPERATOR_PASSWORD, "ansible_password": OPERATOR_PASSWORD},
    ),
    "doas": ("doer", {"ansible_become": True, "ansible_become_method": "doas"}),
    "root": ("root", {}),
    "as-papermerge": ("admin", {"ansible_become": True, "ansible_become_user": "papermerge"}),
    "staged": ("admin", {"ansible_become": True, "papermerge_backup_transfer": "staged"}),
    "staged-password": (
        "operator",
        {
            "ansible_become": True,
            "ansible_become_password": OPERATOR_PASSWORD,
            "papermerge_backup_transfer": "staged",
        },
    ),
    "staged-as-papermerge": (
        "admin",
        {"ansible_become": True, "ansible_become_user": "papermerge", "papermerge_backup_transfer": "staged"},
    ),
    "underived": ("admin", {"ansible_become": True, "papermerge_backup_derived": False}),
}
"""How a host is reached: by whom, with which variables."""

DOAS = '''
from ansible.plugins.become import BecomeBase

DOCUMENTATION = """
name: doas
short_description: Become another user with doas, which asks for no password
description: For tests.
author: the tests
options:
  become_user:
    description: Whom to become.
    default: root
    vars: [{name: ansible_become_user}]
  become_pass:
    description: None.
    required: false
"""


class BecomeModule(BecomeBase):
    name = "doas"

    def build_become_command(self, cmd, shell):
        super().build_become_command(cmd, shell)
        user = self.get_option("become_user")
        return f"doas -n -u {user} {self._build_success_command(cmd, shell)}"
'''


@dataclasses.dataclass(frozen=True)
class EveryWay:
    """One run of each playbook over hosts that are reached in every way, told to print everything."""

    playbooks: Playbooks
    old: Host
    new: Host
    created: PlaybookRun
    restored: PlaybookRun
    watch: ProcessWatch
    host_before: HostState
    host_after: HostState


@pytest.fixture(scope="module")
def every_way(
    papermerge_hosts: dict[str, Host], host_bench: HostBench, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EveryWay]:
    place = tmp_path_factory.mktemp("ways")
    playbooks = Playbooks(place / "home")
    (place / "become").mkdir()
    (place / "become/doas.py").write_text(DOAS, encoding="utf-8")
    environment = {"ANSIBLE_BECOME_PLUGINS": str(place / "become"), "ANSIBLE_FORKS": "4"}
    old, new = papermerge_hosts["two"], host_bench.start("everyway")
    before = state(old)

    def inventory(host: Host) -> dict[str, dict[str, Any]]:
        found = {way: host.inventory(user, **more) for way, (user, more) in WAYS.items()}
        del found["ssh-password"]["ansible_ssh_private_key_file"]
        return found

    targets = inventory(new)
    for way, variables in targets.items():
        variables["papermerge_backup_media_root"] = f"/srv/{way}/media"
        variables["papermerge_backup_database_url"] = f"sqlite:////srv/{way}/db.sqlite3"
        new.run(f"mkdir -p /srv/{way}; chown papermerge: /srv/{way}")
    watch = ProcessWatch()
    with watch.watching():
        created = playbooks.run("create", inventory(old), options=["-vvv"], environment=environment)
        restored = playbooks.run("restore", targets, options=["-vvv"], environment=environment)
    after = state(old)
    yield EveryWay(playbooks, old, new, created, restored, watch, before, after)
    host_bench.remove(new)


def test_every_way_to_reach_a_host_works(every_way: EveryWay) -> None:
    for run in (every_way.created, every_way.restored):
        assert run.results() == dict.fromkeys(WAYS, "ok"), str(run)
        assert run.status == 0


@pytest.mark.parametrize("way", [way for way in WAYS if way != "underived"])
def test_what_is_restored_is_what_was_backed_up(every_way: EveryWay, source: Source, tmp_path: Path, way: str) -> None:
    instance = source.bring_back_from(every_way.new, tmp_path / "back", f"/srv/{way}")
    assert instance.contents() == source.contents
    owners = every_way.new.run(f"find /srv/{way}/media /srv/{way}/db.sqlite3 -printf '%u:%g\\n' | sort -u").stdout
    assert owners == "papermerge:papermerge\n"


def test_staged_bytes_make_documents_that_open(every_way: EveryWay, source: Source, tmp_path: Path) -> None:
    instance = source.bring_back_from(every_way.new, tmp_path / "back", "/srv/staged-as-papermerge")
    assert instance.open_every_document() == source.report


def test_what_can_be_made_again_is_left_out_on_request(every_way: EveryWay, source: Source, tmp_path: Path) -> None:
    instance = source.bring_back_from(every_way.new, tmp_path / "back", "/srv/underived")
    files = instance.contents()["files"]
    assert files == {name: entry for name, entry in source.files.items() if name.startswith("docs/")}
    assert 0 < len(files) < len(source.files)


def test_a_password_shows_nowhere(every_way: EveryWay) -> None:
    # What is looked at would show it: commands of both sides are there, and the output is the longest there is.
    assert every_way.watch.with_word("ansible-playbook")
    assert every_way.watch.with_word("sudo -H -S -p")
    assert "TASK [papermerge.backup.create : Take a snapshot of the instance]" in every_way.created.output
    assert every_way.watch.with_word(OPERATOR_PASSWORD) == []
    for run in (every_way.created, every_way.restored):
        assert not run.says(OPERATOR_PASSWORD)
    inventories = {str(path) for path in every_way.playbooks.home.glob("inventory-*")}
    assert set(files_with(OPERATOR_PASSWORD, every_way.playbooks.home)) == inventories
    for host in (every_way.old, every_way.new):
        assert (
            host.run(
                ["grep", "-rlF", "-D", "skip", "-e", OPERATOR_PASSWORD, *PLACES, "/run", "/var"], check=False
            ).stdout
            == ""
        )


def test_no_way_leaves_anything_on_the_host(every_way: EveryWay) -> None:
    assert_unchanged(every_way.host_before, every_way.host_after)
    assert agents(every_way.old) == agents(every_way.new) == []
    left = [name for name in belongings(every_way.new) if "papermerge-backup" in name or "/.ansible" in name]
    assert left == []
    for way in WAYS:
        assert every_way.new.run(["ls", "-A", f"/srv/{way}"]).stdout.split() == ["db.sqlite3", "media"]


def test_the_manifest_names_host_and_way_of_finding(every_way: EveryWay, source: Source) -> None:
    (snapshot,) = every_way.playbooks.snapshots("as-papermerge")
    manifest = json.loads((snapshot / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["host"]["inventory_name"] == "as-papermerge"
    assert manifest["host"]["user"] == "papermerge"
    assert manifest["papermerge"]["project_dir"] == PROJECT
    assert manifest["papermerge"]["version"] == source.version
    assert manifest["media"]["root"] == f"{PROJECT}/media"
    assert manifest["database"]["path"] == f"{PROJECT}/db.sqlite3"
