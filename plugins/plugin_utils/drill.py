# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drill: a snapshot is restored onto a scratch target, proved and timed; afterwards nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import make_private_directory
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    DamageError,
    RepositoryError,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_command import run_command
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import (
    FAILED,
    PASSED,
    SKIPPED,
    Check,
    DrilledSnapshot,
    DrillReport,
    Objectives,
    Phase,
    RecoveryPoint,
    RecoveryTime,
    Target,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_request import DrillRequest, choose_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.evidence import Evidence
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, StoredSnapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.restore import RestoreRequest, restore_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.restored import Restored
from ansible_collections.papermerge.backup.plugins.plugin_utils.scratch import ScratchDirectory, require_apart
from ansible_collections.papermerge.backup.plugins.plugin_utils.scratch_server import scratch_server
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import iso, parse_iso, utc_now
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import agent_command
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Session
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.streamed import StreamedSession
from ansible_collections.papermerge.backup.plugins.plugin_utils.twin import Twin, try_damages
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import check_sizes, media_of

#: The steps of a restore, as its progress names them, and what the evidence calls them.
_RESTORE_PHASES = {
    "verify": ("verify", "Verify in full"),
    "media": ("restore_media", "Restore the media"),
    "database": ("load_database", "Load the database"),
    "putting in place": ("place", "Put in place"),
}


def local_session() -> Session:
    """Start an agent on the controller, as the user that we are."""

    def start() -> Session:
        return StreamedSession(["/bin/sh", "-c", agent_command(sys.executable)], "the controller")

    session = start()
    session.another = start
    session.is_here = True
    return session


class _StepsOfRestore(Progress):
    """The progress of a restore, which also notes when each step began."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self.steps: list[tuple[str, float]] = []

    def begin(self, step: str, total: int = 0, unit: str = "bytes") -> None:
        if not self.steps or self.steps[-1][0] != step:
            self.steps.append((step, time.monotonic()))
        self._inner.begin(step, total, unit)

    def update(self, done: int, total: int = 0) -> None:
        self._inner.update(done, total)

    def advance(self, amount: int) -> None:
        self._inner.advance(amount)

    def still(self) -> None:
        self._inner.still()


@dataclass
class Outcome:
    """A drill that has ended. ``error``: the kind of what ended it early, else empty."""

    report: DrillReport
    evidence: Path
    error: str = ""


@dataclass
class _Drill:
    place: InstanceDirectory
    request: DrillRequest
    progress: Progress
    warn: Callable[[str], object]
    begun: float = field(default_factory=time.monotonic)
    phases: list[Phase] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = utc_now()
        self.report = DrillReport(
            instance=self.place.name, source_host="", controller=socket.gethostname(),
            target=Target(kind="controller", name=socket.gethostname()), versions=self.request.versions,
            started=iso(self.started), ended="", seconds=0.0, phases=self.phases, checks=self.checks,
        )  # fmt: skip
        self._proved_after: float | None = None
        self._newest_ns: int | None = None
        self._places: list[Path] = []

    def run(self) -> str:
        """Drill. Returns the kind of the error that ended it early, which is in the report; empty for none."""
        error, kind = "", ""
        try:
            self._run()
        except BackupError as found:
            error, kind = found.message, found.kind
        except (OSError, sqlite3.Error) as found:
            error, kind = f"{type(found).__name__}: {found}", BackupError.kind
        if any(check.detail == error for check in self.checks):
            # The check that it made fail tells it.
            error = ""
        self._conclude(error)
        return kind

    def _conclude(self, error: str) -> None:
        report = self.report
        age = newest = None
        if report.snapshot is not None:
            age = (self.started - parse_iso(report.snapshot.started)).total_seconds()
            newest = None if self._newest_ns is None else self.started.timestamp() - self._newest_ns / 1e9
        report.objectives = Objectives(
            rto=RecoveryTime.against(self.request.rto, self._proved_after),
            rpo=RecoveryPoint.against(self.request.rpo, age, newest),
        )
        report.ended, report.seconds = iso(utc_now()), self._elapsed()
        report.judge(error)

    def _elapsed(self) -> float:
        return round(time.monotonic() - self.begun, 3)

    @contextlib.contextmanager
    def _phase(self, name: str, title: str) -> Iterator[None]:
        begun = self._elapsed()
        try:
            yield
        finally:
            self.phases.append(
                Phase(name=name, title=title, started_seconds=begun, seconds=round(self._elapsed() - begun, 3))
            )

    def _run(self) -> None:
        snapshot = choose_snapshot(self.place, self.request)
        manifest = snapshot.require_manifest()
        self.report.source_host = str((manifest.fields.get("host") or {}).get("inventory_name") or "")
        self.report.snapshot = _describe(snapshot)
        self.report.versions.papermerge = manifest.version
        with contextlib.ExitStack() as stack:
            stack.callback(self._look_at_what_is_left)
            cleaning = stack.enter_context(contextlib.ExitStack())
            try:
                self._on_scratch(snapshot, cleaning)
            finally:
                with self._phase("clean_up", "Clean up"):
                    cleaning.close()

    def _look_at_what_is_left(self) -> None:
        left = [str(path) for path in self._places if path.exists()]
        self.checks.append(
            Check(
                name="clean_up",
                title="Nothing is left behind",
                verdict=FAILED if left else PASSED,
                expected=0,
                found=len(left),
                unit="directories",
                detail=", ".join(left),
            )
        )

    def _on_scratch(self, snapshot: StoredSnapshot, cleaning: contextlib.ExitStack) -> None:
        manifest = snapshot.require_manifest()
        with self._phase("prepare", "Make a scratch target"):
            scratch = cleaning.enter_context(ScratchDirectory(self.request.scratch_dir))
            self._places = [scratch.path, scratch.server_path]
            media_root = str(scratch.path / "restored" / "media")
            for name in ("restored", "database"):
                make_private_directory(scratch.path / name)
            server = scratch_server(scratch.server_path, manifest)
            url = server.url if server is not None else f"sqlite:///{scratch.path / 'database' / 'db.sqlite3'}"
            require_apart(manifest, media_root, url)
            if server is not None:
                cleaning.enter_context(server)
                self.report.versions.database_server = server.version
        self._restore(snapshot, media_root, url)
        restored = Restored(manifest, media_of(self.place, snapshot), media_root, url, scratch.path)
        cleaning.callback(restored.close)
        with self._phase("prove", "Prove what was restored"):
            self._timed(lambda: [restored.check_counts()])
            self._timed(lambda: restored.check_files(self.progress))
            self._newest_ns = restored.catalog.newest_expected_ns()
        self._proved_after = self._elapsed()
        with self._phase("sample", "Open a sample of originals"):
            self._timed(lambda: [self._sample(restored)])
        with self._phase("command", "Run the instance's own command"):
            self._timed(lambda: [self._command(manifest, media_root, url, scratch)])
        with self._phase("twin", "Try the damaged twin"):
            self._timed(lambda: [self._twin(snapshot, restored, scratch.path)])

    def _timed(self, look: Callable[[], list[Check]]) -> None:
        begun = time.monotonic()
        found = look()
        for check in found:
            check.seconds = round((time.monotonic() - begun) / len(found), 3)
        self.checks += found

    # -- steps --------------------------------------------------------------------------------------------------------

    def _restore(self, snapshot: StoredSnapshot, media_root: str, url: str) -> None:
        """Restore as onto any host. Notes of each part of it whether it went well, and raises what went wrong."""
        manifest = snapshot.require_manifest()
        verify = Check(
            name="verify", title="Every stored byte is sound", verdict=PASSED, unit="bytes",
            expected=int(manifest.totals.get("stored_bytes", 0)),
        )  # fmt: skip
        load = Check(name="load", title="The database loads", verdict=PASSED, expected=1, found=1, unit="database")
        steps = _StepsOfRestore(self.progress)
        steps.begin("verify")
        request = RestoreRequest(
            snapshot=manifest.id, media_root=media_root, database_url=url, app_version=manifest.version
        )
        try:
            check_sizes(self.place, snapshot.directory, manifest)
            with local_session() as session:
                restore_snapshot(session, self.place, request, steps, warn=self.warn)
        except BackupError as error:
            step = steps.steps[-1][0]
            if step == "verify" and isinstance(error, (DamageError, RepositoryError)):
                self.checks.append(_failed(verify, error))
            else:
                verify.found = verify.expected
                other = Check(name="restore", title="The snapshot is restored", verdict=FAILED)
                self.checks += [verify, _failed(load if step == "database" else other, error)]
            raise
        finally:
            ends = [moment for _step, moment in steps.steps[1:]] + [time.monotonic()]
            for (step, moment), end in zip(steps.steps, ends, strict=True):
                name, title = _RESTORE_PHASES.get(step, (step, step.capitalize()))
                self.phases.append(
                    Phase(
                        name=name,
                        title=title,
                        started_seconds=round(moment - self.begun, 3),
                        seconds=round(end - moment, 3),
                    )
                )
        verify.found = verify.expected
        verify.seconds = self.phases[-len(steps.steps)].seconds
        load.seconds = sum(phase.seconds for phase in self.phases if phase.name == "load_database")
        self.checks += [verify, load]

    def _sample(self, restored: Restored) -> Check:
        check = Check(name="sample", title="A sample of originals opens", verdict=PASSED, unit="originals")
        self.report.sample = restored.sample(self.request.sample, self.request.names)
        bad = [file for file in self.report.sample if file.verdict != PASSED]
        check.expected, check.found = len(self.report.sample), len(self.report.sample) - len(bad)
        if bad:
            check.verdict, check.detail = FAILED, f"{len(bad)} of {check.expected} originals do not open"
        elif not self.report.sample:
            check.verdict = SKIPPED
            check.detail = "no sample was asked for" if not self.request.sample else "there are no originals to open"
        return check

    def _command(self, manifest: Manifest, media_root: str, url: str, scratch: ScratchDirectory) -> Check:
        check = Check(name="command", title="The instance's own command", verdict=PASSED, expected=0, unit="status")
        if not self.request.command:
            check.verdict, check.detail = SKIPPED, "papermerge_backup_drill_command is not set"
            return check
        variables = {
            "PAPERMERGE_BACKUP_DRILL_MEDIA_ROOT": media_root,
            "PAPERMERGE_BACKUP_DRILL_DATABASE_URL": url,
            "PAPERMERGE_BACKUP_DRILL_VERSION": manifest.version,
            "PAPERMERGE_BACKUP_DRILL_INSTANCE": manifest.instance,
            "PAPERMERGE_BACKUP_DRILL_SNAPSHOT": manifest.id,
        }
        check.found, words = run_command(self.request.command, {**os.environ, **variables}, scratch.watch_group)
        if check.found != 0:
            check.verdict = FAILED
            check.detail = f"papermerge_backup_drill_command ended with status {check.found}"
            # Not into the evidence: it may tell of what is in documents.
            self.warn(f"{check.detail}: {words}")
        return check

    def _twin(self, snapshot: StoredSnapshot, restored: Restored, scratch: Path) -> Check:
        check = Check(name="twin", title="The damaged twin is caught", verdict=PASSED, unit="damages")
        expected = next(restored.proved_originals(), None)

        def make(name: str) -> Twin:
            return Twin(self.place, snapshot, scratch / f"twin-{name}", self.progress)

        self.report.twin = try_damages(make, restored.add_expected, expected)
        check.expected = len(self.report.twin)
        check.found = sum(damage.caught for damage in self.report.twin)
        if check.found != check.expected:
            missed = [damage.title for damage in self.report.twin if not damage.caught]
            check.verdict, check.detail = FAILED, f"not caught: {', '.join(missed)}"
        elif expected is None:
            check.detail = "no row expects a file, so none could be left without its own"
        return check


def _failed(check: Check, error: BackupError) -> Check:
    check.verdict, check.detail, check.expected, check.found, check.unit = FAILED, error.message, None, None, ""
    return check


def _describe(snapshot: StoredSnapshot) -> DrilledSnapshot:
    manifest = snapshot.require_manifest()
    totals: dict[str, Any] = manifest.totals
    return DrilledSnapshot(
        id=manifest.id, sequence=manifest.sequence, manifest_sha256=snapshot.manifest_sha256,
        started=manifest.started, ended=manifest.ended, state=manifest.state, version=manifest.version,
        release_line=manifest.release_line, engine=manifest.engine, documents=int(totals.get("documents", 0)),
        originals=int(manifest.proof["proved"]), files=int(totals["files"]), media_bytes=int(totals["media_bytes"]),
        stored_bytes=int(totals.get("stored_bytes", 0)),
    )  # fmt: skip


def drill_instance(
    place: InstanceDirectory,
    request: DrillRequest,
    evidence: Evidence,
    progress: Progress,
    warn: Callable[[str], object] = lambda _text: None,
) -> Outcome:
    """Drill a snapshot of an instance on the controller and write the evidence, whatever came of it.

    Raises SettingError for wrong settings before anything is done, and for evidence that cannot be written.
    """
    request.require_sane()
    evidence.instance_path(place.name)
    drill = _Drill(place, request, progress, warn)
    error = drill.run()
    return Outcome(drill.report, evidence.write(drill.report), error)
