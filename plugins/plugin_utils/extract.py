# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One document, or some files, out of a snapshot: to a directory on the controller or on the host."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import make_private_directory
from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.media.delivery import Delivery
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import (
    ReleaseLine,
    release_line_named,
)
from ansible_collections.papermerge.backup.plugins.module_utils.paths import path_fields, shown
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import IndexEntry
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest, StoredPart
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PartRecord
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.proof import (
    IN_OBJECT_STORAGE,
    MISSING,
    NOT_COMPUTABLE,
    NOT_EXPECTED,
    FileState,
    classify,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.documents import (
    DocumentFiles,
    Documents,
    needles,
    seeds,
    tree_of,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.index_search import PathPattern, below, search_index
from ansible_collections.papermerge.backup.plugins.plugin_utils.members import in_tar_order, read_members
from ansible_collections.papermerge.backup.plugins.plugin_utils.pgdump import Wanted
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.readable_names import ReadableNames
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, StoredSnapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import (
    require_zstandard,
    storage_errors,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Session, told_to
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import media_of, open_dump, scratch_directory

#: As many files are named in a result.
NAMED_FILES = 1000
#: A file beside those that the database names, such as what an upload has replaced.
UNLISTED = "unlisted"


@dataclass(kw_only=True)
class ExtractRequest:
    """What to take: a ``document``, of a ``user`` where that is told, or the files that a ``pattern`` matches."""

    snapshot: str = "latest"
    document: str | None = None
    user: str | None = None
    pattern: str | None = None
    dest: str = ""

    def require_sense(self) -> None:
        """Raise SettingError unless it says one thing."""
        if (self.document is None) == (self.pattern is None):
            raise SettingError("set either papermerge_backup_document or papermerge_backup_pattern")
        if self.user is not None and self.document is None:
            raise SettingError("papermerge_backup_user belongs to papermerge_backup_document, not to a pattern")


@dataclass(frozen=True)
class FoundFile:
    """A file of the snapshot as the result shows it; what has no file has neither hash nor destination."""

    title: str | None
    version: int | None
    path: str | None
    state: str | None
    size: int | None = None
    sha256: str | None = None
    dest: str | None = None


@dataclass
class Plan:
    """What is taken, and under which name. ``files`` are named in the result; ``names`` has those of a document."""

    document: DocumentFiles | None = None
    files: list[FoundFile] = field(default_factory=list)
    absent: list[FoundFile] = field(default_factory=list)
    names: dict[bytes, bytes] = field(default_factory=dict)

    def name(self, path: bytes) -> bytes:
        """Return where a file goes, relative to the directory."""
        return self.names.get(path, path)


Write = Callable[["Extraction", Catalog, Plan], None]


class Extraction:
    """One snapshot that files are taken from. ``read_bytes`` counts what was read of its parts."""

    def __init__(self, place: InstanceDirectory, snapshot: StoredSnapshot, progress: Progress, scratch: Path) -> None:
        require_zstandard()
        self.snapshot = snapshot
        self.manifest: Manifest = snapshot.require_manifest()
        self.media = media_of(place, snapshot)
        self.read_bytes = 0
        self._progress = progress
        self._scratch = scratch

    # -- what is wanted -----------------------------------------------------------------------------------------------

    def plan(self, request: ExtractRequest, catalog: Catalog) -> Plan:
        """Find what is wanted and put it into the catalog. Raises SettingError when there is no such thing."""
        self._progress.begin("index", self.media.index.size)
        if request.pattern is not None:
            return self._plan_pattern(PathPattern(request.pattern), request, catalog)
        return self._plan_document(request, catalog)

    def _plan_pattern(self, pattern: PathPattern, request: ExtractRequest, catalog: Catalog) -> Plan:
        plan = Plan()

        def entries() -> Iterator[IndexEntry]:
            for entry in search_index(self.media.index_text(), [pattern.range], pattern.matches):
                if len(plan.files) < NAMED_FILES:
                    plan.files.append(self._found(entry, None, None, None, request.dest, entry.path))
                yield entry

        catalog.add_entries(entries())
        if not plan.files:
            raise SettingError(
                f"no media file of snapshot {self.snapshot.id} matches {request.pattern!r}; paths are relative to the "
                "media directory, * and ? stay within a name, and **/ is any number of directories"
            )
        return plan

    def _plan_document(self, request: ExtractRequest, catalog: Catalog) -> Plan:
        line = release_line_named(self.manifest.release_line)
        with open_dump(self.snapshot, line, self._progress, self._scratch, self._wanted(line, request)) as view:
            documents = Documents(view, line, self.snapshot.id)
            found = documents.files(documents.find(str(request.document), request.user))
        self._progress.begin("index", self.media.index.size)
        entries = list(search_index(self.media.index_text(), map(below, found.directories)))
        plan = Plan(found)
        names = ReadableNames(found.document.title)
        # The files that the database names are the first to choose their names.
        for entry in sorted(entries, key=lambda one: (found.row_at(one.path) is None, found.version_of(one.path))):
            version, named = found.version_of(entry.path), found.row_at(entry.path) is not None
            name = os.fsencode(names.name(version, entry.path, named))
            plan.names[entry.path] = name
            state = self._state(entry) if named else UNLISTED
            if not named and any(row.older > version for row in found.rows):
                state = NOT_COMPUTABLE
            plan.files.append(self._found(entry, found.document.title, version, state, request.dest, name))
        plan.files.sort(key=lambda file: (file.version or 0, file.state == UNLISTED, file.path or ""))
        plan.absent = self._absent(found, {entry.path for entry in entries})
        catalog.add_entries(entries)
        return plan

    def _wanted(self, line: ReleaseLine, request: ExtractRequest) -> Wanted:
        """Return what to look for in the dump: of PostgreSQL's, found in a first pass, the rows of few documents."""
        tree = tree_of(line)
        if self.manifest.engine != "postgresql" or not tree.growing:
            return Wanted(tree)
        wanted = Wanted(tree, seeds(str(request.document)))
        with open_dump(self.snapshot, line, self._progress, self._scratch, wanted) as view:
            return Wanted(tree, needles(view, line))

    def _state(self, entry: IndexEntry) -> str:
        return classify(
            FileState(entry.size, entry.ctime_ns, indexed=True), int(self.manifest.database.get("dumped_at_ns") or 0)
        )

    @staticmethod
    def _found(
        entry: IndexEntry, title: str | None, version: int | None, state: str | None, dest: str, name: bytes
    ) -> FoundFile:
        return FoundFile(
            title, version, shown(entry.path), state, entry.size, entry.sha256, os.path.join(dest, shown(name))
        )

    def _absent(self, found: DocumentFiles, paths: set[bytes]) -> list[FoundFile]:
        """Return the versions that have no file in the snapshot, each with its class in the proof."""
        title = found.document.title
        damaged = {row["path"]: row["class"] for row in self.manifest.proof.get("damaged") or []}
        elsewhere = bool((self.manifest.proof.get("classes") or {}).get(IN_OBJECT_STORAGE))
        present = {found.version_of(path) for path in paths}
        absent = []
        for row in found.rows:
            for older in range(row.older):
                if older not in present:
                    absent.append(FoundFile(title, older, None, NOT_COMPUTABLE))
            if row.path is not None and row.path not in paths:
                path = shown(row.path)
                state = damaged.get(path, IN_OBJECT_STORAGE if elsewhere else MISSING)
                absent.append(FoundFile(title, row.number, path, state))
            elif row.path is None and row.number not in present:
                absent.append(FoundFile(title, row.number, None, NOT_EXPECTED))
        return absent

    # -- reading it ---------------------------------------------------------------------------------------------------

    def parts(self, catalog: Catalog) -> Iterator[tuple[StoredPart, PartRecord, dict[bytes, IndexEntry]]]:
        """Yield the parts that hold something that is wanted, each with that."""
        catalog.index_by_part()
        self._progress.begin("parts", catalog.totals()[1])
        for part in self.media.parts:
            wanted = {entry.path: entry for entry in catalog.entries(part.id)}
            if wanted:
                yield part, self.media.record(part), wanted

    def contents(
        self, part: StoredPart, record: PartRecord, wanted: dict[bytes, IndexEntry]
    ) -> Iterator[tuple[IndexEntry, Iterator[bytes]]]:
        """Yield wanted files of a part with their contents, in the order of the part."""
        for entry, content in read_members(self.media, part, record, wanted, self._count):
            yield entry, content
            self._progress.advance(entry.size)

    def _count(self, size: int) -> None:
        self.read_bytes += size


def to_controller(dest: Path) -> Write:
    """Return what writes to a directory on the controller, which is absent or empty; nothing is left of a failure."""

    def write(extraction: Extraction, catalog: Catalog, plan: Plan) -> None:
        made = not dest.exists()
        with storage_errors(dest):
            if made:
                make_private_directory(dest)
        try:
            with contextlib.closing(Delivery(str(dest))) as delivery:
                for part, record, wanted in extraction.parts(catalog):
                    # That all of them are there is said before the first is written.
                    in_tar_order(record, wanted)
                    for entry, content in extraction.contents(part, record, wanted):
                        delivery.write(plan.name(entry.path), entry.size, entry.sha256, entry.mtime_ns, content)
        except BaseException:
            for path in dest.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            if made:
                dest.rmdir()
            raise

    return write


def to_host(session: Session, dest: str, progress: Progress) -> Write:
    """Return what writes to a directory on the host, which is absent or empty."""

    def write(extraction: Extraction, catalog: Catalog, plan: Plan) -> None:
        session.call(Call("make_directory", {"path": dest}))
        for part, record, wanted in extraction.parts(catalog):
            records = (
                {
                    **path_fields(plan.name(entry.path)),
                    "size": entry.size,
                    "sha256": entry.sha256,
                    "mtime_ns": entry.mtime_ns,
                }
                for entry in in_tar_order(record, wanted)
            )
            data = (piece for _entry, content in extraction.contents(part, record, wanted) for piece in content)
            session.call(Call("write_files", {"path": dest}, records=records, data=data), told_to(progress))
        session.call(Call("keep_directory", {"path": dest}))

    return write


def extract(
    place: InstanceDirectory, request: ExtractRequest, progress: Progress, write: Write | None
) -> dict[str, Any]:
    """Take a document or some files out of a snapshot; returns what was taken. ``write`` None: only say what would be.

    Raises SettingError for what is not there or ambiguous, DamageError.
    """
    begun = time.monotonic()
    request.require_sense()
    snapshot = place.select(request.snapshot)
    with scratch_directory() as scratch, Catalog(scratch / "extract.sqlite3") as catalog:
        extraction = Extraction(place, snapshot, progress, scratch)
        plan = extraction.plan(request, catalog)
        count, size = catalog.totals()
        if count and write is not None:
            write(extraction, catalog, plan)
    return {
        "instance": place.name,
        "snapshot": snapshot.id,
        "version": extraction.manifest.version,
        "document": plan.document.document.as_result() if plan.document is not None else None,
        "dest": request.dest,
        "files": [asdict(file) for file in plan.files],
        "absent": [asdict(file) for file in plan.absent],
        "file_count": count,
        "bytes": size,
        "read_bytes": extraction.read_bytes,
        "parts_bytes": sum(part.size for part in extraction.media.parts),
        "seconds": round(time.monotonic() - begun, 3),
    }
