# SPDX-License-Identifier: GPL-3.0-or-later
"""Three hosts of which one, all or none fail or cannot be reached: each is in the table, the exit status is right."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.papermerge_on_hosts import Source
from tests.support.hosts.host import Host
from tests.support.playbooks import PlaybookRun, Playbooks, tree

GOOD, BROKEN, CUT = "one", "two", "three"
"""The host that works, the one that fails, and the one that cannot be reached."""
NOWHERE = {"papermerge_backup_media_root": "/nowhere"}
MIXED = {GOOD: "ok", BROKEN: "failed", CUT: "unreachable"}
#: Seconds to wait for a host that does not answer; Ansible waits for 10.
PATIENCE = {"ANSIBLE_TIMEOUT": "2"}

OWN_ROLE = """
- name: A play of the user's own
  hosts: papermerge
  gather_facts: false
  {settings}
  roles:
    - role: papermerge.backup.create
"""
OWN_REPORT = """
- name: A play of the user's own
  hosts: papermerge
  gather_facts: false
  {settings}
  roles:
    - role: papermerge.backup.create
      vars:
        create_report_later: true

- name: A report of the user's own
  hosts: papermerge
  gather_facts: false
  roles:
    - role: papermerge.backup.report
      vars:
        report_title: Snapshots
        report_columns: [host, result, snapshot]
"""
OWN_PLAYBOOK = """
- name: The collection's playbook within one of the user's own
  ansible.builtin.import_playbook: papermerge.backup.create

- name: Something else
  hosts: papermerge
  gather_facts: false
  tasks:
    - name: Something else
      ansible.builtin.debug:
        msg: goes on
"""


@dataclasses.dataclass(frozen=True)
class Three:
    """Three hosts as an inventory names them, two of them unwell."""

    hosts: Mapping[str, Host]

    def inventory(self, broken: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
        return {
            name: host.inventory("admin", ansible_become=True, **(NOWHERE if name in broken else {}))
            for name, host in self.hosts.items()
        }


@pytest.fixture(scope="module")
def three(papermerge_hosts: dict[str, Host]) -> Three:
    return Three(papermerge_hosts)


@pytest.fixture(scope="module")
def one_is_cut(papermerge_hosts: dict[str, Host]) -> Iterator[None]:
    papermerge_hosts[CUT].cut()
    yield
    papermerge_hosts[CUT].mend()


def assert_one_of_three(run: PlaybookRun, playbooks: Playbooks) -> None:
    """The good host has its snapshot, the others have none, all are in the table, and the run has failed."""
    assert run.results() == MIXED, str(run)
    assert run.status != 0
    assert "media directory /nowhere (papermerge_backup_media_root) does not exist" in run.message(BROKEN)
    assert "ssh: connect to host 1" in run.message(CUT)
    assert run.message(GOOD) == ""
    assert [len(playbooks.snapshots(name)) for name in (GOOD, BROKEN, CUT)] == [1, 0, 0]
    assert not run.says("Traceback")
    assert {host: counts["failed"] > 0 for host, counts in run.recap.items() if host in MIXED} == {
        GOOD: False,
        BROKEN: True,
        CUT: True,
    }


SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "one host after the other": {"extra": {"papermerge_backup_serial": 1}},
    "any errors fatal": {"environment": {"ANSIBLE_ANY_ERRORS_FATAL": "1"}},
    "the free strategy": {"environment": {"ANSIBLE_STRATEGY": "free"}},
    "free, fatal, one after the other": {
        "environment": {"ANSIBLE_STRATEGY": "free", "ANSIBLE_ANY_ERRORS_FATAL": "1"},
        "extra": {"papermerge_backup_serial": 1},
    },
    "staged": {"extra": {"papermerge_backup_transfer": "staged"}},
}


@pytest.mark.usefixtures("one_is_cut")
@pytest.mark.parametrize("setting", SETTINGS)
def test_one_host_of_three_succeeds(three: Three, playbooks: Playbooks, setting: str) -> None:
    options = SETTINGS[setting]
    environment = {**PATIENCE, **options.get("environment", {})}
    run = playbooks.run("create", three.inventory((BROKEN,)), extra=options.get("extra"), environment=environment)
    assert_one_of_three(run, playbooks)


@pytest.mark.usefixtures("one_is_cut")
def test_the_playbook_within_another_fails_only_for_hosts_that_failed(
    three: Three, playbooks: Playbooks, tmp_path: Path
) -> None:
    own = tmp_path / "own.yml"
    own.write_text(OWN_PLAYBOOK, encoding="utf-8")
    run = playbooks.run(own, three.inventory((BROKEN,)), environment=PATIENCE)
    assert_one_of_three(run, playbooks)
    assert run.output.count("goes on") == 1


@pytest.mark.usefixtures("one_is_cut")
@pytest.mark.parametrize("settings", ["any_errors_fatal: true", "serial: 1", "strategy: free"])
def test_the_roles_in_plays_of_ones_own_make_the_same_table(
    three: Three, playbooks: Playbooks, tmp_path: Path, settings: str
) -> None:
    own = tmp_path / "own.yml"
    own.write_text(OWN_REPORT.format(settings=settings), encoding="utf-8")
    run = playbooks.run(own, three.inventory((BROKEN,)), environment=PATIENCE)
    assert_one_of_three(run, playbooks)


@pytest.mark.usefixtures("one_is_cut")
@pytest.mark.parametrize("settings", ["any_errors_fatal: true", "serial: 2"])
def test_a_role_alone_fails_where_its_host_failed(
    three: Three, playbooks: Playbooks, tmp_path: Path, settings: str
) -> None:
    own = tmp_path / "own.yml"
    own.write_text(OWN_ROLE.format(settings=settings), encoding="utf-8")
    inventory = three.inventory((BROKEN,))
    run = playbooks.run(own, {name: inventory[name] for name in (BROKEN, GOOD, CUT)}, environment=PATIENCE)
    assert run.status != 0
    assert [len(playbooks.snapshots(name)) for name in (GOOD, BROKEN, CUT)] == [1, 0, 0], str(run)
    assert run.recap[BROKEN]["failed"] == run.recap[CUT]["failed"] == 1
    assert run.says("media directory /nowhere (papermerge_backup_media_root) does not exist")


def test_all_of_three_hosts_fail_or_cannot_be_reached(
    three: Three, healed_hosts: dict[str, Host], playbooks: Playbooks
) -> None:
    for name in (GOOD, CUT):
        healed_hosts[name].cut()
    run = playbooks.run("create", three.inventory((BROKEN,)), environment=PATIENCE)
    assert run.results() == {GOOD: "unreachable", BROKEN: "failed", CUT: "unreachable"}
    assert run.status != 0
    assert [playbooks.snapshots(name) for name in three.hosts] == [[], [], []]


@pytest.fixture(scope="module")
def backed_up(three: Three, tmp_path_factory: pytest.TempPathFactory) -> tuple[Playbooks, PlaybookRun]:
    """All three hosts backed up, and the run that did it."""
    playbooks = Playbooks(tmp_path_factory.mktemp("three") / "home")
    return playbooks, playbooks.run("create", three.inventory(), environment={"ANSIBLE_ANY_ERRORS_FATAL": "1"})


def test_none_of_three_hosts_fails(backed_up: tuple[Playbooks, PlaybookRun]) -> None:
    playbooks, run = backed_up
    assert run.results() == {GOOD: "ok", BROKEN: "ok", CUT: "ok"}
    assert run.status == 0
    assert [len(playbooks.snapshots(name)) for name in (GOOD, BROKEN, CUT)] == [1, 1, 1]


def test_a_limit_limits_what_is_done_reported_and_judged(three: Three, playbooks: Playbooks) -> None:
    inventory = three.inventory((BROKEN, CUT))
    good = playbooks.run("create", inventory, options=["--limit", GOOD])
    assert (good.results(), good.status) == ({GOOD: "ok"}, 0)
    broken = playbooks.run("create", inventory, options=["--limit", f"{BROKEN},{CUT}"])
    assert broken.results() == {BROKEN: "failed", CUT: "failed"}
    assert broken.status != 0
    assert len(playbooks.snapshots(GOOD)) == 1


@pytest.mark.parametrize(
    ("playbook", "options", "wanted"),
    [("create", [], "papermerg"), ("restore", [], "papermerg"), ("create", ["--limit", GOOD], BROKEN)],
    ids=["a mistyped group to back up", "a mistyped group to restore", "a limit without any of the hosts"],
)
def test_a_play_without_hosts_fails(
    three: Three, playbooks: Playbooks, playbook: str, options: list[str], wanted: str
) -> None:
    run = playbooks.run(playbook, three.inventory(), options=options, extra={"papermerge_backup_hosts": wanted})
    assert run.status != 0, str(run)
    text = f"no host of this inventory (after --limit) matches {wanted}; put the hosts into the group papermerge"
    assert run.says(text), str(run)
    assert not playbooks.repository.exists()


def test_a_restore_of_three_hosts_says_of_each_what_became_of_it(
    three: Three, backed_up: tuple[Playbooks, PlaybookRun], source: Source, healed_hosts: dict[str, Host]
) -> None:
    playbooks, _created = backed_up
    healed_hosts[CUT].cut()
    healed_hosts[GOOD].run("mkdir -p /srv/again")
    inventory = three.inventory()
    inventory[GOOD].update(
        papermerge_backup_media_root="/srv/again/media",
        papermerge_backup_database_url="sqlite:////srv/again/db.sqlite3",
    )
    before = healed_hosts[BROKEN].files_under("/opt")
    run = playbooks.run("restore", inventory, environment=PATIENCE)
    healed_hosts[GOOD].run("rm -rf /srv/again")
    assert run.results() == MIXED, str(run)
    assert run.status != 0
    assert run.row(GOOD)["files"] == str(len(source.files))
    assert "media directory /opt/papermerge/media is not empty" in run.message(BROKEN)
    assert healed_hosts[BROKEN].files_under("/opt") == before


GONE = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_user": "nobody"}
"""A host that would not answer."""


def test_lists_and_verifications_need_no_host(backed_up: tuple[Playbooks, PlaybookRun]) -> None:
    playbooks, _created = backed_up
    before = tree(playbooks.repository, "history.jsonl")
    # Two of the three have left the inventory, and one that has no snapshots yet has come.
    for inventory in ({GOOD: GONE}, {}):
        listed = playbooks.run("list", inventory)
        assert listed.results("instance") == {GOOD: "complete", BROKEN: "complete", CUT: "complete"}, str(listed)
        assert listed.status == 0
    verified = playbooks.run("verify", {GOOD: GONE}, extra={"papermerge_backup_verify_level": "deep"})
    assert verified.results("instance") == {GOOD: "sound", BROKEN: "sound", CUT: "sound"}, str(verified)
    assert {row["level"] for row in verified.rows} == {"deep"}
    assert verified.status == 0
    assert tree(playbooks.repository, "history.jsonl") == before
    again = playbooks.run("list", {})
    assert all("deep sound" in row["verified"] for row in again.rows)


def test_one_damaged_instance_is_named_beside_the_sound_ones(
    backed_up: tuple[Playbooks, PlaybookRun], tmp_path: Path
) -> None:
    playbooks = Playbooks(tmp_path / "home")
    shutil.copytree(backed_up[0].repository, playbooks.repository)
    (part,) = (playbooks.repository / CUT / "parts").glob("*.tar.zst")
    part.write_bytes(part.read_bytes()[:-1])
    (playbooks.repository / BROKEN / "snapshots" / playbooks.snapshots(BROKEN)[0].name / "manifest.json").unlink()
    for inventory in ({GOOD: GONE, BROKEN: GONE, CUT: GONE}, {GOOD: GONE}):
        verified = playbooks.run("verify", inventory)
        assert verified.results("instance") == {GOOD: "sound", BROKEN: "damaged", CUT: "damaged"}, str(verified)
        assert verified.status != 0
        assert verified.says(f"{part} has ")
        assert verified.says("manifest.json is missing")
    limited = playbooks.run("verify", {GOOD: GONE, CUT: GONE}, options=["--limit", GOOD])
    assert (limited.results("instance"), limited.status) == ({GOOD: "sound"}, 0), str(limited)
    listed = playbooks.run("list", {GOOD: GONE})
    assert listed.results("instance") == {GOOD: "complete", BROKEN: "damaged", CUT: "complete"}
    assert listed.status == 0


def test_a_host_without_snapshots_is_no_success_of_a_verification(
    backed_up: tuple[Playbooks, PlaybookRun],
) -> None:
    playbooks, _created = backed_up
    run = playbooks.run("verify", {"four": GONE, GOOD: GONE})
    assert run.results("instance")["four"] == "failed", str(run)
    assert run.results("instance")[GOOD] == "sound"
    assert run.status != 0
    assert run.says("instance four has no snapshots in")
