# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports of drills that nobody has run, for what writes and shows them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import (
    FAILED,
    PASSED,
    SKIPPED,
    Check,
    DrilledSnapshot,
    DrillReport,
    Objectives,
    PastDrill,
    Phase,
    RecoveryPoint,
    RecoveryTime,
    SampledFile,
    Target,
    TwinDamage,
    Versions,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import iso

START = datetime(2026, 11, 22, 2, 30, 4, tzinfo=UTC)
PHASES = (
    ("verify", "Verify every stored byte", 14.2),
    ("prepare", "Prepare the scratch target", 0.6),
    ("restore_media", "Restore the media", 31.9),
    ("load_database", "Load the database", 12.4),
    ("prove", "Prove rows and files", 4.1),
    ("sample", "Open a sample of originals", 0.8),
    ("twin", "Restore the damaged twin", 9.7),
    ("clean_up", "Clean up", 0.5),
)
HEX = "b1946ac92492d2347c6235b4d2611184e3b0c44298fc1c149afbf4c8996fb924"


def drill_report(**changes: Any) -> DrillReport:
    """Return the report of a drill that has passed, with changes; call `judge` after others."""
    phases, begun = [], 0.0
    for name, title, seconds in PHASES:
        phases.append(Phase(name=name, title=title, started_seconds=round(begun, 1), seconds=seconds))
        begun += seconds
    report = DrillReport(
        instance="paperhost",
        source_host="paperhost.example.org",
        controller="backup1",
        target=Target(kind="controller", name="backup1"),
        snapshot=DrilledSnapshot(
            id="000042-20261121T230004Z",
            sequence=42,
            manifest_sha256=HEX,
            started="2026-11-21T23:00:04.120934Z",
            ended="2026-11-21T23:02:41.000512Z",
            state="complete",
            version="3.5.3",
            release_line="3.5",
            engine="postgresql",
            documents=12043,
            originals=12031,
            files=63519,
            media_bytes=2_140_000_000,
            stored_bytes=1_932_735_283,
        ),
        versions=Versions(
            collection="0.1.0", ansible_core="2.19.3", python="3.11.2", database_server="PostgreSQL 15.8"
        ),
        started=iso(START),
        ended=iso(START + timedelta(seconds=begun)),
        seconds=round(begun, 1),
        phases=phases,
        objectives=Objectives(
            rto=RecoveryTime.against(4 * 3600, 64.0), rpo=RecoveryPoint.against(86400, 12600.0, 51000.0)
        ),
        checks=[
            Check(name="verify", title="Every stored byte is sound", verdict=PASSED, expected=1_932_735_283,
                  found=1_932_735_283, unit="bytes", seconds=14.2),
            Check(name="database", title="The database loads", verdict=PASSED, seconds=12.4),
            Check(name="rows", title="Row counts are those of the snapshot", verdict=PASSED, expected=184_220,
                  found=184_220, unit="rows", seconds=0.3),
            Check(name="files", title="Every expected file is there, with its hash", verdict=PASSED, expected=63519,
                  found=63519, unit="files", seconds=3.8),
            Check(name="sample", title="A sample of originals opens", verdict=PASSED, expected=4, found=4,
                  unit="files", seconds=0.8),
            Check(name="command", title="The instance\N{RIGHT SINGLE QUOTATION MARK}s own command", verdict=SKIPPED,
                  detail="papermerge_backup_drill_command is not set"),
        ],
        sample=[
            SampledFile.of(b"docvers/%d/" % number + name, False, sha256=HEX[number:] + HEX[:number],
                           size=number * 83_457, kind=kind, verdict=PASSED)
            for number, (name, kind) in enumerate(
                [(b"Tax return 2019.pdf", "pdf"), (b"scan.jpeg", "jpeg"), (b"a.png", "png"), (b"fax.tiff", "tiff")], 1
            )
        ],
        twin=[
            TwinDamage(damage="changed_byte", title="One byte of a part was changed", caught=True, caught_by="verify",
                       message="part 3f0c…: its SHA-256 is not that of its record"),
            TwinDamage(damage="missing_part", title="A part was removed", caught=True, caught_by="verify",
                       message="part 91ab… is missing"),
            TwinDamage(damage="row_without_file", title="A row was given without its file", caught=True,
                       caught_by="prove", message="1 of 12,032 expected files is missing"),
        ],
    )  # fmt: skip
    report.judge()
    return replace(report, **changes)


def failed_report(**changes: Any) -> DrillReport:
    """Return the report of a drill that found what is wrong with a snapshot, and missed an objective."""
    report = drill_report()
    report.checks[3] = replace(
        report.checks[3], verdict=FAILED, found=63516, detail="3 files are missing; the first is file 9f2c71d04a5b"
    )
    report.sample[1] = replace(report.sample[1], verdict=FAILED, detail="the JPEG ends before its last marker")
    report.twin[2] = replace(report.twin[2], caught=False, caught_by="", message="")
    report.objectives.rpo = RecoveryPoint.against(6 * 3600, 33 * 3600.0, 51 * 3600.0)
    report.judge()
    return replace(report, **changes)


def past_drills(count: int, every_failed: int = 11) -> list[PastDrill]:
    """Return so many earlier drills, nightly and growing, of which some failed; a few of these measured nothing."""
    found = []
    for number in range(count):
        failed = number % every_failed == every_failed // 2
        nothing = failed and number % 2 == 1
        wave = (number * 37 % 11) / 11
        found.append(
            PastDrill(
                ended=iso(START - timedelta(days=count - number)),
                verdict=FAILED if failed else PASSED,
                rto_seconds=None if nothing else round(42 + 18 * wave + 20 * number / max(count, 1), 1),
                rpo_seconds=12600.0 + 2400 * wave + (70000 if failed else 0),
                media_bytes=1_100_000_000 + number * 1_000_000_000 // max(count, 1),
                stored_bytes=1_000_000_000 + number * 900_000_000 // max(count, 1),
            )
        )
    return found
