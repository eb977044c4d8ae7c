# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence of drills: a directory for each, which is there as a whole or not at all.

``EVIDENCE/INSTANCE/20261122T134215Z-000042/`` holds drill.json, junit.xml and report.html. The name is the start of the
drill and the sequence number of its snapshot.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from ansible_collections.papermerge.backup.plugins.module_utils.durable import (
    make_private_directory,
    sync_directory,
    write_private,
)
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    DamageError,
    SettingError,
    SpaceError,
    describe_os_error,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import DrillReport, PastDrill, read_report
from ansible_collections.papermerge.backup.plugins.plugin_utils.junit import junit_xml
from ansible_collections.papermerge.backup.plugins.plugin_utils.report_page import report_page
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import INSTANCE_NAME
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import parse_iso

DRILL, JUNIT, PAGE = "drill.json", "junit.xml", "report.html"
#: How many earlier drills are read and shown.
MAX_HISTORY = 400
#: No drill of ours writes more; what is larger is not read into memory.
MAX_DRILL_BYTES = 8 << 20
#: Unfinished directories are hidden, so that nothing that looks for evidence finds them.
UNFINISHED = ".unfinished-"
#: Seconds after which an unfinished directory is of a drill that was killed: writing one takes a moment.
ABANDONED_SECONDS = 3600.0

EVIDENCE_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9]{6,}(-[0-9]+)?\Z")


@dataclass
class PastDrills:
    """Earlier drills of an instance, oldest first, and what could not be read of them."""

    drills: list[PastDrill]
    damaged: list[str]
    """Of each directory that was passed over: its name and why."""


class Evidence:
    """The directory that ``papermerge_backup_evidence`` names. Nothing is made before something is written."""

    def __init__(self, path: str) -> None:
        self.path = Path(os.path.abspath(os.path.expanduser(path)))

    def instance_path(self, instance: str) -> Path:
        """Return where the drills of an instance are kept. Raises SettingError for a name that no instance can have."""
        if not INSTANCE_NAME.match(instance):
            raise SettingError(f"{instance!r} cannot name an instance; set papermerge_backup_instance")
        return self.path / instance

    def past_drills(self, instance: str) -> PastDrills:
        """Read the newest MAX_HISTORY drills of an instance. What is damaged is passed over and told."""
        found = PastDrills([], [])
        place = self.instance_path(instance)
        with _evidence_errors(place):
            try:
                names = sorted(name for name in os.listdir(place) if EVIDENCE_NAME.match(name))
            except FileNotFoundError:
                return found
        for name in names[-MAX_HISTORY:]:
            try:
                report = read_drill(place / name, history=False)
                if report.instance != instance:
                    raise DamageError(f"it is of the instance {report.instance}")
                found.drills.append(report.as_past())
            except BackupError as error:
                found.damaged.append(f"{name}: {error.message}")
        return found

    def write(self, report: DrillReport) -> Path:
        """Write a drill's evidence, with the history of its instance, and return its directory.

        The directory appears as a whole, on disk; a drill that is killed leaves a hidden one that a later drill
        removes. Raises SettingError, or SpaceError, after which nothing is left.
        """
        place = self.instance_path(report.instance)
        past = self.past_drills(report.instance)
        report = replace(report, history=past.drills)
        files = {
            DRILL: encode_drill(report),
            JUNIT: junit_xml(report),
            PAGE: report_page(report, past.damaged).encode("utf-8"),
        }
        sequence = 0 if report.snapshot is None else report.snapshot.sequence
        name = f"{parse_iso(report.started):%Y%m%dT%H%M%SZ}-{sequence:06}"
        with _evidence_errors(place):
            _make_private(place)
            _remove_abandoned(place)
            unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place))
            try:
                for file, content in files.items():
                    write_private(unfinished / file, content)
                sync_directory(unfinished)
                final = _publish(unfinished, place / name)
                sync_directory(place)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        return final


def encode_drill(report: DrillReport) -> bytes:
    """Return the text of drill.json: ASCII, so that names that are not Unicode survive."""
    return (json.dumps(report.as_dict(), indent=2, allow_nan=False) + "\n").encode("ascii")


def read_drill(directory: Path, history: bool = True) -> DrillReport:
    """Read the drill.json of a directory of evidence, without the history in it if asked so. Raises DamageError.

    Four hundred drills that each remember four hundred others take long to read in full.
    """
    path = directory / DRILL
    try:
        with open(path, "rb") as stream:
            text = stream.read(MAX_DRILL_BYTES + 1)
    except OSError as error:
        raise DamageError(describe_os_error(error)) from None
    if len(text) > MAX_DRILL_BYTES:
        raise DamageError(f"{path} is larger than any drill's")
    try:
        fields = json.loads(text, parse_constant=_not_a_number)
        if isinstance(fields, dict) and not history:
            fields.pop("history", None)
        return read_report(fields)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{path} is not JSON: {error}") from None


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _publish(unfinished: Path, final: Path) -> Path:
    """Give a directory its name, or the name with a number if a drill of the same second has it."""
    for number in itertools.count(1):
        path = final if number == 1 else final.with_name(f"{final.name}-{number}")
        try:
            # Renaming onto a directory succeeds if that is empty, which evidence never is.
            os.rename(unfinished, path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return path
    raise AssertionError("unreachable")


def _make_private(place: Path) -> None:
    missing = []
    while not place.exists():
        missing.append(place)
        place = place.parent
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            make_private_directory(path)
            sync_directory(path.parent)


def _remove_abandoned(place: Path) -> None:
    for name in os.listdir(place):
        path = place / name
        if name.startswith(UNFINISHED):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.lstat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _evidence_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"evidence of drills in {place}: {describe_os_error(error)}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpaceError(f"{text}; free some room, or set papermerge_backup_evidence") from None
        raise SettingError(f"{text}; set papermerge_backup_evidence to a directory that can be written") from None
