# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill has found: the content of drill.json, and what makes a verdict.

Times are ISO 8601 in UTC, durations seconds, sizes bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import types
import typing
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.paths import shown

FORMAT = 1
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
#: Characters of a SHA-256 that stand for a file whose name is left out.
LABEL_DIGITS = 12

Value = int | float | str | None


@dataclass(kw_only=True)
class Target:
    """Where the snapshot was restored to."""

    kind: str
    """``controller`` or ``host``."""
    name: str


@dataclass(kw_only=True)
class DrilledSnapshot:
    """The snapshot that was restored."""

    id: str
    sequence: int
    manifest_sha256: str
    started: str
    ended: str
    state: str
    version: str
    release_line: str
    engine: str
    documents: int
    originals: int
    files: int
    media_bytes: int
    stored_bytes: int


@dataclass(kw_only=True)
class Versions:
    """What did the work; empty where it was not used or is not known."""

    collection: str
    ansible_core: str
    python: str
    database_server: str = ""
    papermerge: str = ""


@dataclass(kw_only=True)
class Phase:
    """A step of the drill. ``started_seconds`` counts from the start of the drill."""

    name: str
    title: str
    started_seconds: float
    seconds: float


@dataclass(kw_only=True)
class RecoveryTime:
    """How long it took until the restored state was proved, and how long it may take."""

    limit_seconds: float | None = None
    measured_seconds: float | None = None
    met: bool | None = None

    @classmethod
    def against(cls, limit: float | None, measured: float | None) -> RecoveryTime:
        """Compare. An objective that could not be measured was not met."""
        return cls(limit_seconds=limit, measured_seconds=measured, met=_met(limit, measured))


@dataclass(kw_only=True)
class RecoveryPoint:
    """How old the restored state was when the drill began, and how old it may be.

    The age of the snapshot decides: where nobody has uploaded anything for a month, nothing of that month is lost.
    """

    limit_seconds: float | None = None
    snapshot_age_seconds: float | None = None
    newest_document_age_seconds: float | None = None
    met: bool | None = None

    @classmethod
    def against(cls, limit: float | None, age: float | None, newest_document: float | None) -> RecoveryPoint:
        """Compare. An objective that could not be measured was not met."""
        return cls(
            limit_seconds=limit,
            snapshot_age_seconds=age,
            newest_document_age_seconds=newest_document,
            met=_met(limit, age),
        )


def _met(limit: float | None, measured: float | None) -> bool | None:
    return None if limit is None else measured is not None and measured <= limit


@dataclass(kw_only=True)
class Objectives:
    rto: RecoveryTime = field(default_factory=RecoveryTime)
    rpo: RecoveryPoint = field(default_factory=RecoveryPoint)


@dataclass(kw_only=True)
class Check:
    """One thing that was looked at. ``detail`` says why a check was skipped, or what is wrong."""

    name: str
    title: str
    verdict: str
    expected: Value = None
    found: Value = None
    unit: str = ""
    detail: str = ""
    seconds: float = 0.0


@dataclass(kw_only=True)
class SampledFile:
    """An original that was opened. Without its ``path`` it is found again in the snapshot's index by ``sha256``."""

    path: str | None
    path_sha256: str
    sha256: str
    size: int
    kind: str
    verdict: str
    detail: str = ""

    @classmethod
    def of(
        cls, path: bytes, names: bool, *, sha256: str, size: int, kind: str, verdict: str, detail: str = ""
    ) -> SampledFile:
        """Describe a file. Its path is kept with ``names`` only: many releases make it of the document's title."""
        return cls(
            path=shown(path) if names else None,
            path_sha256=hashlib.sha256(path).hexdigest(),
            sha256=sha256,
            size=size,
            kind=kind,
            verdict=verdict,
            detail=detail,
        )

    @property
    def label(self) -> str:
        """What a person calls the file."""
        return self.path if self.path is not None else f"file {self.path_sha256[:LABEL_DIGITS]}"


@dataclass(kw_only=True)
class TwinDamage:
    """A damage that was done to a copy of the snapshot, and by what it was caught."""

    damage: str
    title: str
    caught: bool
    caught_by: str = ""
    message: str = ""


@dataclass(kw_only=True)
class PastDrill:
    """What the history keeps of an earlier drill."""

    ended: str
    verdict: str
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    media_bytes: int | None = None
    stored_bytes: int | None = None


@dataclass(kw_only=True)
class DrillReport:
    """A drill. ``verdict``, ``reasons`` and ``msg`` are what :meth:`judge` says of the rest."""

    instance: str
    source_host: str
    controller: str
    target: Target
    versions: Versions
    started: str
    ended: str
    seconds: float
    format: int = FORMAT
    verdict: str = FAILED
    msg: str = ""
    reasons: list[str] = field(default_factory=list)
    """Everything for which the drill is not passed."""
    snapshot: DrilledSnapshot | None = None
    phases: list[Phase] = field(default_factory=list)
    objectives: Objectives = field(default_factory=Objectives)
    checks: list[Check] = field(default_factory=list)
    sample: list[SampledFile] = field(default_factory=list)
    twin: list[TwinDamage] = field(default_factory=list)
    history: list[PastDrill] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of drill.json."""
        return dataclasses.asdict(self)

    def judge(self, error: str = "") -> None:
        """Set verdict, reasons and message. ``error``: what ended the drill before it was through."""
        self.reasons = [*([error] if error else []), *self.shortcomings()]
        self.verdict = FAILED if self.reasons else PASSED
        self.msg = "; ".join(self.reasons) or self._praise()

    def shortcomings(self) -> list[str]:
        """Return everything for which this drill is not passed, each as a person reads it."""
        found = []
        if self.snapshot is None:
            found.append("no snapshot was restored")
        if not any(check.verdict == PASSED for check in self.checks):
            found.append("no check has passed")
        for check in self.checks:
            if check.verdict == SKIPPED and not check.detail:
                found.append(f"{check.title}: skipped without a reason")
            elif check.verdict not in (PASSED, SKIPPED):
                found.append(f"{check.title}: {_wrong(check)}")
        opened = [f"{file.label}: {file.detail or 'does not open'}" for file in self.sample if file.verdict != PASSED]
        found += [f"sample: {text}" for text in opened]
        if not self.twin and not any(check.name == "twin" and check.verdict == SKIPPED for check in self.checks):
            found.append("no damaged twin was tried: nothing shows that damage would have been seen")
        found += [f"the damaged twin was not caught: {damage.title}" for damage in self.twin if not damage.caught]
        if self.objectives.rto.met is False:
            found.append("the recovery time objective was missed")
        if self.objectives.rpo.met is False:
            found.append("the recovery point objective was missed: the snapshot is too old")
        return found

    def _praise(self) -> str:
        skipped = sum(check.verdict == SKIPPED for check in self.checks)
        text = f"Restored and proved: {sum(check.verdict == PASSED for check in self.checks)} checks passed"
        return text + (f", {skipped} skipped" if skipped else "")

    def as_past(self) -> PastDrill:
        """Return what later drills' histories keep of this one."""
        return PastDrill(
            ended=self.ended,
            verdict=self.verdict,
            rto_seconds=self.objectives.rto.measured_seconds,
            rpo_seconds=self.objectives.rpo.snapshot_age_seconds,
            media_bytes=None if self.snapshot is None else self.snapshot.media_bytes,
            stored_bytes=None if self.snapshot is None else self.snapshot.stored_bytes,
        )


def _wrong(check: Check) -> str:
    if check.detail:
        return check.detail
    if check.expected is None and check.found is None:
        return "failed"
    return f"expected {check.expected}, found {check.found} {check.unit}".rstrip()


def read_report(fields: Any) -> DrillReport:
    """Read the content of a drill.json; unknown keys are ignored. Raises DamageError for anything else unexpected."""
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        found = fields.get("format") if isinstance(fields, dict) else type(fields).__name__
        raise DamageError(f"not the report of a drill in format {FORMAT}: {found!r}")
    report = _read(DrillReport, fields, "report")
    if report.verdict not in (PASSED, FAILED):
        raise DamageError(f"the report of a drill has the verdict {report.verdict!r}")
    return report


T = TypeVar("T")


@cache
def _types(shape: Any) -> dict[str, Any]:
    return typing.get_type_hints(shape)


def _read(shape: type[T], fields: Any, where: str) -> T:
    if not isinstance(fields, dict):
        raise DamageError(f"{where} is not an object")
    values: dict[str, Any] = {}
    types_of = _types(typing.cast(Any, shape))
    for item in dataclasses.fields(typing.cast(Any, shape)):
        if item.name in fields:
            values[item.name] = _value(types_of[item.name], fields[item.name], f"{where}.{item.name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise DamageError(f"{where}.{item.name} is missing")
    return shape(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    """Return a value of JSON as one of a type: a dataclass, a list, a plain type or a union of such."""
    if dataclasses.is_dataclass(kind):
        return _read(typing.cast(Any, kind), value, where)
    if typing.get_origin(kind) is list:
        if not isinstance(value, list):
            raise DamageError(f"{where} is not a list")
        (inner,) = typing.get_args(kind)
        return [_value(inner, item, f"{where}[{number}]") for number, item in enumerate(value)]
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for choice in choices:
        if dataclasses.is_dataclass(choice) and isinstance(value, dict):
            return _read(typing.cast(Any, choice), value, where)
        # JSON's numbers without a fraction are whole numbers in Python, and its truth values are no numbers.
        plain = (int, float) if choice is float else (choice,)
        if type(value) in plain and (not isinstance(value, float) or math.isfinite(value)):
            return value
    raise DamageError(f"{where} cannot be {value!r:.80}")
