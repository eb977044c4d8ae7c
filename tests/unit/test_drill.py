# SPDX-License-Identifier: GPL-3.0-or-later
"""The drill: what it proves, what makes it fail, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.agent.workspace import OwnDirectory
from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError, TargetError, ToolError
from ansible_collections.papermerge.backup.plugins.plugin_utils import scratch_server
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill import Outcome, drill_instance
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import Versions
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_request import (
    DrillRequest,
    choose_snapshot,
    parse_objective,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.evidence import Evidence, read_drill
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory
from ansible_collections.papermerge.backup.plugins.plugin_utils.scratch import PURPOSE, require_apart
from ansible_collections.papermerge.backup.plugins.plugin_utils.twin import Twin
from tests.support.documents import pdf
from tests.support.generated.instance import generate
from tests.support.instances import MadeInstance
from tests.support.playbooks import CHECKOUT, tree
from tests.support.servers.mariadb import MariaServer
from tests.support.servers.postgres import PostgresServer
from tests.support.snapshots import place_in, quiet, take


class Site:
    """An instance of three documents with a snapshot, a place for scratch and one for evidence."""

    def __init__(self, directory: Path) -> None:
        self.scratch = directory / "scratch"
        self.scratch.mkdir(mode=0o755)
        self.evidence = Evidence(str(directory / "drills"))
        self.instance = MadeInstance(directory / "instance")
        for _number in range(3):
            self.instance.add_document(pdf())
        self.place = place_in(directory / "repository")
        take(self.instance, self.place)

    def drill(self, place: InstanceDirectory | None = None, **settings: Any) -> Outcome:
        return drill_instance(place or self.place, self.request(**settings), self.evidence, quiet())

    def request(self, **settings: Any) -> DrillRequest:
        return DrillRequest(
            versions=Versions(collection="0", ansible_core="0", python="0"),
            **{"scratch_dir": str(self.scratch), **settings},
        )

    def part(self) -> Path:
        (part,) = self.place.parts_path.glob("*.tar.zst")
        return part

    def left(self) -> list[str]:
        return sorted(os.listdir(self.scratch))


@pytest.fixture
def site(open_disk: Path) -> Site:
    return Site(open_disk)


def verdicts(outcome: Outcome) -> dict[str, str]:
    return {check.name: check.verdict for check in outcome.report.checks}


def processes_with(text: str) -> list[str]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if text in line and int(name) != os.getpid():
            found.append(line)
    return found


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


GOOD = {
    "verify": "passed",
    "load": "passed",
    "row_counts": "passed",
    "files": "passed",
    "expected_files": "passed",
    "sample": "passed",
    "command": "skipped",
    "twin": "passed",
    "clean_up": "passed",
}


def test_a_good_snapshot_is_proved_and_nothing_is_left(site: Site) -> None:
    before = tree(site.place.path)
    outcome = site.drill(rto=600, rpo=600)
    assert (outcome.report.msg, outcome.report.verdict) == ("Restored and proved: 8 checks passed, 1 skipped", "passed")
    assert verdicts(outcome) == GOOD
    assert [(damage.damage, damage.caught, damage.caught_by) for damage in outcome.report.twin] == [
        ("byte", True, "verify"),
        ("part", True, "verify"),
        ("row", True, "proof"),
    ]
    assert [(file.kind, file.path) for file in outcome.report.sample] == [("pdf", None)] * 3
    assert outcome.report.objectives.rto.met
    assert outcome.report.objectives.rpo.met
    assert outcome.report.objectives.rpo.newest_document_age_seconds is not None
    phases = [phase.name for phase in outcome.report.phases]
    wanted = ["prepare", "verify", "restore_media", "load_database", "place", "prove", "sample", "command", "twin"]
    assert phases == [*wanted, "clean_up"]
    assert site.left() == []
    assert tree(site.place.path) == before
    assert read_drill(outcome.evidence).verdict == "passed"


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_a_server_is_made_for_the_drill_and_is_gone_with_it(
    engine: str, site: Site, open_disk: Path, postgres_server: PostgresServer, maria_server: MariaServer
) -> None:
    server = {"postgresql": postgres_server, "mysql": maria_server}[engine]
    made = generate("2.1", engine, open_disk / "made", server=server, name=f"drilled_{engine}")
    for path in made.expected:
        Path(os.fsdecode(os.fsencode(made.media) + b"/" + path)).write_bytes(pdf())
    place = place_in(open_disk / "repository", "served")
    try:
        take(made, place, app_version=made.version)
        outcome = site.drill(place, sample=1000)
    finally:
        server.execute(f"drop database drilled_{engine}")
    assert outcome.report.verdict == "passed", outcome.report.msg
    assert verdicts(outcome) == GOOD
    assert len(outcome.report.sample) == len(made.expected)
    assert outcome.report.versions.database_server
    assert site.left() == []
    assert processes_with(str(site.scratch)) == []


def test_a_missing_server_program_is_named_with_its_package(
    site: Site, open_disk: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generate("2.1", "postgresql", open_disk / "made", server=postgres_server, name="drilled_without")
    place = place_in(open_disk / "repository", "served")
    try:
        take(made, place, app_version=made.version)
    finally:
        postgres_server.execute("drop database drilled_without")
    monkeypatch.setattr(scratch_server, "find_programs", lambda _name, _directories: [])
    outcome = site.drill(place)
    assert outcome.error == ToolError.kind
    assert "install postgresql-" in outcome.report.msg
    assert site.left() == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda site: flip(site.part()),
        lambda site: site.part().unlink(),
        lambda site: flip(next(site.place.snapshots_path.glob("*/database.*"))),
        lambda site: next(site.place.snapshots_path.glob("*/index.*")).write_bytes(b""),
    ],
    ids=["byte", "part", "database", "index"],
)
def test_a_damaged_snapshot_fails_by_the_right_check(site: Site, damage: Callable[[Site], object]) -> None:
    damage(site)
    outcome = site.drill(rto=600)
    assert outcome.report.verdict == "failed"
    assert verdicts(outcome) == {"verify": "failed", "clean_up": "passed"}
    assert outcome.error == "damage"
    assert outcome.report.objectives.rto.met is False
    assert outcome.report.reasons[0].startswith("Every stored byte is sound: ")
    assert site.left() == []
    root = json.loads((outcome.evidence / "drill.json").read_text())
    assert root["verdict"] == "failed"


def test_a_damaged_manifest_fails_and_leaves_evidence(site: Site) -> None:
    flip(next(site.place.snapshots_path.glob("*/manifest.json")))
    outcome = site.drill()
    assert (outcome.error, outcome.report.snapshot, outcome.report.verdict) == ("damage", None, "failed")
    assert "no snapshot was restored" in outcome.report.reasons
    assert (outcome.evidence / "report.html").is_file()


@pytest.mark.parametrize("method", ["change_byte", "remove_part", "forget_file"])
def test_a_twin_whose_damage_was_not_done_is_not_called_caught(
    site: Site, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Twin, method, lambda *_arguments: "nothing")
    outcome = site.drill()
    assert outcome.report.verdict == "failed"
    assert [damage.damage for damage in outcome.report.twin if not damage.caught] == [
        {"change_byte": "byte", "remove_part": "part", "forget_file": "row"}[method]
    ]
    assert verdicts(outcome) == {**GOOD, "twin": "failed"}


def test_an_original_that_is_no_document_fails_the_sample(site: Site) -> None:
    site.instance.add_document(pdf()[:-20])
    take(site.instance, site.place)
    outcome = site.drill()
    assert verdicts(outcome) == {**GOOD, "sample": "failed"}
    assert "the end of a PDF is missing" in outcome.report.msg


def test_missed_objectives_fail_the_drill(site: Site) -> None:
    outcome = site.drill(rto=0.001, rpo=0.001)
    assert verdicts(outcome) == GOOD
    assert outcome.report.reasons == [
        "the recovery time objective was missed",
        "the recovery point objective was missed: the snapshot is too old",
    ]


def test_the_command_sees_the_restored_instance_and_its_status_counts(site: Site) -> None:
    look = (
        'test "$(find "$PAPERMERGE_BACKUP_DRILL_MEDIA_ROOT" -type f | wc -l)" = 3'
        ' && test -s "${PAPERMERGE_BACKUP_DRILL_DATABASE_URL#sqlite:///}"'
    )
    assert verdicts(site.drill(command=look)) == {**GOOD, "command": "passed"}
    outcome = site.drill(command="exit 3")
    assert verdicts(outcome) == {**GOOD, "command": "failed"}
    assert "status 3" in outcome.report.msg


def test_a_scratch_target_in_the_source_is_refused(site: Site) -> None:
    outcome = site.drill(scratch_dir=str(site.instance.media))
    assert outcome.error == TargetError.kind
    assert "papermerge_backup_drill_dir" in outcome.report.msg
    manifest = site.place.select("latest").require_manifest()
    with pytest.raises(TargetError, match="the instance's own"):
        require_apart(manifest, str(site.scratch / "media"), site.instance.database_url)


def test_a_server_database_of_the_source_is_refused(site: Site) -> None:
    manifest = site.place.select("latest").require_manifest()
    manifest.database["url"] = "postgresql://papermerge@/papermerge?host=/run/postgresql"
    with pytest.raises(TargetError, match="the instance's own"):
        require_apart(manifest, str(site.scratch), "postgresql://other@/papermerge?host=/run/postgresql")
    require_apart(manifest, str(site.scratch), "postgresql://papermerge@/papermerge?host=/run/another")


@pytest.fixture
def served(open_disk: Path, postgres_server: PostgresServer) -> Iterator[InstanceDirectory]:
    made = generate("2.1", "postgresql", open_disk / "made", server=postgres_server, name="drilled_killed")
    place = place_in(open_disk / "repository", "served")
    take(made, place, app_version=made.version)
    postgres_server.execute("drop database drilled_killed")
    yield place


def test_a_killed_drill_leaves_no_process_and_no_directory(site: Site, served: InstanceDirectory) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.unit.test_drill import *;"
        "from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import Repository;"
        f"place = Repository({str(served.path.parent)!r}).instance('served');"
        "request = DrillRequest(versions=Versions(collection='0', ansible_core='0', python='0'),"
        f" scratch_dir={str(site.scratch)!r}, command='sleep ' + '61.25');"
        f"drill_instance(place, request, Evidence({str(site.evidence.path)!r}), quiet())"
    )
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'build'}"}
    drill = subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=CHECKOUT)
    try:
        assert eventually(lambda: bool(processes_with("sleep 61.25"))), "the drill never came to its command"
        assert processes_with(shlex.quote(str(site.scratch)))
        assert len(site.left()) == 2
    finally:
        drill.send_signal(signal.SIGKILL)
        drill.wait()
    assert eventually(lambda: site.left() == []), site.left()
    assert eventually(lambda: processes_with(str(site.scratch)) == []), processes_with(str(site.scratch))
    assert eventually(lambda: processes_with("sleep 61.25") == [])


def test_what_a_power_cut_has_left_is_removed_by_the_next_drill(site: Site) -> None:
    left = OwnDirectory(str(site.scratch), PURPOSE)
    Path(left.path, "document.pdf").write_bytes(pdf())
    server = Path(left.path.replace("drill-", "drilldb-"))
    (server / "data").mkdir(parents=True)
    site.drill()
    assert len(site.left()) == 2, "the directory of a drill that goes on was removed"
    left.close()
    site.drill()
    assert site.left() == []


def test_days_choose_among_the_recent_ones(site: Site) -> None:
    take(site.instance, site.place)
    names = site.place.snapshot_names()
    chosen = {choose_snapshot(site.place, site.request(days=1)).id for _number in range(60)}
    assert chosen == set(names)
    with pytest.raises(SettingError, match="not both"):
        site.drill(days=1, snapshot="1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3600", 3600), ("90min", 5400), ("4h", 14400), ("1d12h", 129600), ("30s", 30), (" 2D ", 172800), ("1.5", 1.5)],
)
def test_objectives_are_seconds_or_have_units(text: str, seconds: float) -> None:
    assert parse_objective(text, "rto") == seconds


@pytest.mark.parametrize("text", ["4 hours", "h", "0", "-1", "5m", "1e99", "nan"])
def test_other_objectives_are_refused(text: str) -> None:
    with pytest.raises(SettingError, match="papermerge_backup_rto"):
        parse_objective(text, "rto")
