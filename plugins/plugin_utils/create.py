# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The create: claim, discover, dump, archive, settle, prove, commit. One call does all of it, or publishes nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import (
    write_private,
)
from ansible_collections.papermerge.backup.plugins.module_utils.errors import LossError, MediaError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import (
    ReleaseLine,
    release_line_named,
)
from ansible_collections.papermerge.backup.plugins.module_utils.paths import path_of
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import (
    Manifest,
    StoredFile,
    StoredPart,
    checksum_line,
)
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.proof import Proof, losses
from ansible_collections.papermerge.backup.plugins.plugin_utils.archiving import MediaArchive
from ansible_collections.papermerge.backup.plugins.plugin_utils.arguments import Discovery
from ansible_collections.papermerge.backup.plugins.plugin_utils.base import Base
from ansible_collections.papermerge.backup.plugins.plugin_utils.descriptions import describe_snapshot
from ansible_collections.papermerge.backup.plugins.plugin_utils.inheritance import InheritingCatalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.kept_part import KeptPart
from ansible_collections.papermerge.backup.plugins.plugin_utils.manifests import Gathered, build_manifest, warn_of
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.proving import prove
from ansible_collections.papermerge.backup.plugins.plugin_utils.recognition import recognise
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import (
    CHECKSUM,
    MANIFEST,
    InstanceDirectory,
    StoredSnapshot,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.rewriting import Rewriting, half_used
from ansible_collections.papermerge.backup.plugins.plugin_utils.scanning import excluded_directories, scan, scan_against
from ansible_collections.papermerge.backup.plugins.plugin_utils.settling import Settling
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import (
    StoredWriter,
    require_zstandard,
    storage_errors,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import utc_now
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    Call,
    Handlers,
    Session,
    told_to,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import check_sizes

SCRATCH = "scratch.sqlite3"
DATABASE_NAMES = {
    "sqlite": "database.sqlite3.zst",
    "postgresql": "database.pgdump.zst",
    "mysql": "database.sql.zst",
}
INDEX_NAME = "index.jsonl.zst"
CONFIG_NAME = "config.tar.zst"


@dataclass(kw_only=True)
class CreateRequest(Discovery):
    """What a create is to do."""

    host: str
    instance: str
    copy_dir: str | None = None
    media_allowed_roots: list[str] = field(default_factory=list)
    derived: bool = True
    accept_missing: bool = False
    media_protected_elsewhere: bool = False
    config: bool = False
    collection_version: str = ""

    def description(self, sizes: bool) -> dict[str, Any]:
        """Return the arguments of the agent's describe."""
        return {
            "instance": self.as_request(),
            "media_allowed_roots": self.media_allowed_roots,
            "accept_missing": self.accept_missing,
            "sizes": sizes,
            "derived": self.derived,
        }


def create_snapshot(
    session: Session,
    place: InstanceDirectory,
    request: CreateRequest,
    progress: Progress,
    warn: Callable[[str], object] = lambda _text: None,
) -> dict[str, Any]:
    """Make and commit a snapshot; returns its description. Nothing is published unless it is whole and synced.

    ``warn`` is told what a person should look at, though nothing failed.
    Raises LossError, with the description in its details, after committing a snapshot that is marked incomplete;
    any other BackupError when nothing was committed. Parts that were finished by then stay for the next create.
    """
    require_zstandard()
    begun = time.monotonic()
    # Before anything is made: most of what can be wrong is wrong here.
    found = session.call(Call("describe", request.description(False)), told_to(progress))
    _require_protection(found, request)
    place.make()
    with place.locked():
        place.remove_abandoned()
        place.repair_history()
        sequence, incoming = place.claim()
        try:
            with InheritingCatalog(incoming / SCRATCH) as catalog:
                work = _Create(session, place, request, progress, sequence, incoming, catalog, warn)
                manifest, reasons = work.run(found)
            (incoming / SCRATCH).unlink()
            description = _commit(place, incoming, manifest)
        except BaseException:
            place.discard(incoming)
            raise
    warn_of(manifest, work.previous, warn)
    description["seconds"] = round(time.monotonic() - begun, 3)
    if reasons and not request.accept_missing:
        raise LossError(
            "snapshot {} is kept but incomplete: {}. {}Restore what is lost, or set "
            "papermerge_backup_accept_missing".format(manifest.id, "; ".join(reasons), _first_damaged(manifest)),
            snapshot=description,
        )
    return description


def plan_snapshot(
    session: Session, place: InstanceDirectory, request: CreateRequest, progress: Progress
) -> dict[str, Any]:
    """Return what a create would do, for check mode: the instance as found, with counts and sizes."""
    require_zstandard()
    progress.begin("scan", unit="files")
    found = session.call(Call("describe", request.description(True)), told_to(progress))
    return {
        "instance": request.instance,
        "repository": str(place.path.parent),
        "previous": place.snapshot_names()[-1:],
        "documents": found["row_counts"].get(release_line_named(found["release_line"]).documents_table, 0),
        **found,
    }


def _is_elsewhere(found: dict[str, Any]) -> bool:
    """Tell whether an instance keeps its originals in object storage only."""
    return found["storage"] is not None and bool(found["storage"]["only"])


def _require_protection(found: dict[str, Any], request: CreateRequest) -> None:
    """Raise MediaError for originals that no snapshot would hold, unless somebody says that they are protected."""
    if _is_elsewhere(found) and not request.media_protected_elsewhere:
        raise MediaError(
            "Papermerge keeps its originals in bucket {bucket} only ({backend}, {found_in}), which a snapshot does not "
            "hold; protect the bucket by other means and set papermerge_backup_media_protected_elsewhere".format(
                **found["storage"]
            )
        )


def _first_damaged(manifest: Manifest) -> str:
    damaged = manifest.proof["damaged"]
    return "The first is {} ({}). ".format(damaged[0]["path"], damaged[0]["class"]) if damaged else ""


class _Create:
    """One run: what its steps share."""

    def __init__(
        self,
        session: Session,
        place: InstanceDirectory,
        request: CreateRequest,
        progress: Progress,
        sequence: int,
        incoming: Path,
        catalog: InheritingCatalog,
        warn: Callable[[str], object],
    ) -> None:
        self._session = session
        self._place = place
        self._request = request
        self._progress = progress
        self._sequence = sequence
        self._incoming = incoming
        self._catalog = catalog
        self._warn = warn
        self._rewritten: list[StoredPart] = []
        self._started = utc_now()
        self._timings: dict[str, float] = {}
        self._dumped_at_ns = 0
        self._base = Base(place, catalog)
        self.previous: StoredSnapshot | None = None

    def run(self, found: dict[str, Any]) -> tuple[Manifest, list[str]]:
        """Do everything but the commit. Returns the manifest, written, and the reasons why it counts as loss.

        ``found`` is the agent's description of the instance.
        """
        line = release_line_named(found["release_line"])
        self._host_compresses = bool(found["host"]["zstd"])
        self._media = {"root": found["media_root"], "media_allowed_roots": self._request.media_allowed_roots}
        archive = MediaArchive(
            self._session,
            self._catalog,
            self._progress,
            self._media,
            self._host_compresses,
            lambda: KeptPart(self._place, self._incoming, self._host_compresses),
        )
        database, dump, scan = self._read(found, line, archive)
        config = self._timed("config", self._archive_config) if self._request.config else None
        proof = self._timed("prove", lambda: self._prove(found, line, dump))
        index = self._timed("index", lambda: self._base.store_index(self._incoming / INDEX_NAME))
        parts, new = self._parts([*self._rewritten, *archive.parts])
        reasons = losses(proof, first=self.previous is None)
        manifest = build_manifest(
            Gathered(
                host=self._request.host,
                instance=self._request.instance,
                derived=self._request.derived,
                accepted=self._request.accept_missing,
                collection_version=self._request.collection_version,
                sequence=self._sequence,
                started=self._started,
                ended=utc_now(),
                line=line,
                found=found,
                dump=dump,
                scan=scan,
                database=database,
                index=index,
                config=config,
                parts=parts,
                new_parts=new,
                totals=self._catalog.totals(),
                proof=proof,
                reasons=reasons,
                timings=self._timings,
                previous=self.previous,
            )
        )
        text = manifest.encode()
        with storage_errors(self._incoming):
            write_private(self._incoming / MANIFEST, text)
            write_private(self._incoming / CHECKSUM, checksum_line(text))
        return manifest, reasons

    def _read(
        self, found: dict[str, Any], line: ReleaseLine, archive: MediaArchive
    ) -> tuple[StoredFile, dict[str, Any], dict[str, Any]]:
        """Read the database, then the media: in no other order are the files of all rows there.

        Returns the stored dump, and what the agent tells of dump and scan.
        """
        database, dump = self._read_database(found)
        return database, dump, self._read_media(line, archive)

    def _read_database(self, found: dict[str, Any]) -> tuple[StoredFile, dict[str, Any]]:
        database, dump = self._timed("dump", lambda: self._dump(found))
        self._dumped_at_ns = dump["moment_ns"]
        return database, dump

    def _read_media(self, line: ReleaseLine, archive: MediaArchive) -> dict[str, Any]:
        excluded = excluded_directories(line, self._request.derived)
        counts: dict[str, Any] = self._timed("scan", lambda: self._scan(excluded))
        self._timed("recognise", self._recognise)
        self._timed("rewrite", self._rewrite)
        self._timed("archive", archive.fetch)
        settling = Settling(self._catalog, archive, self._progress, self._look_again)
        self._timed("settle", lambda: settling.settle(self._dumped_at_ns))
        return counts

    def _scan(self, excluded: list[str]) -> dict[str, Any]:
        what = self._session, self._catalog, self._progress, self._media, excluded
        # Before the first snapshot there is nothing to compare with.
        return scan_against(*what, self._base.load) if self._place.snapshot_names() else scan(*what)

    def _recognise(self) -> None:
        self._base.find_content()
        recognise(self._session, self._catalog, self._progress, self._media)

    def _rewrite(self) -> None:
        old = list(half_used(self._place, self._catalog, self._base.parts))
        rewriting = Rewriting(
            self._place, self._catalog, self._progress, lambda: KeptPart(self._place, self._incoming, packed=False)
        )
        for part, lost in rewriting.rewrite([self._base.parts[part] for part in old]).items():
            self._base.report_damaged(part)
            self._warn(
                f"instance {self._place.name}: part {self._place.part_path(part)} is damaged; {lost:,} files are taken "
                "from the host again. Older snapshots need it: verify them, and look after the storage"
            )
        self._rewritten = rewriting.parts

    def _parts(self, made: list[StoredPart]) -> tuple[list[StoredPart], list[StoredPart]]:
        """Return the parts that the snapshot needs, and those of them that this create has made."""
        used = self._catalog.used_parts()
        inherited = [part for part in self._base.parts.values() if part.id in used]
        new = [part for part in made if part.id in used]
        return inherited + new, new

    def _timed(self, name: str, step: Any) -> Any:
        begun = time.monotonic()
        result = step()
        self._timings[name] = round(time.monotonic() - begun, 3)
        return result

    def _call(
        self, operation: str, arguments: dict[str, Any], handlers: Handlers | None = None, records: Any = None
    ) -> dict[str, Any]:
        handlers = handlers or Handlers()
        handlers.progress = self._progress.update
        handlers.heartbeat = self._progress.still
        return self._session.call(Call(operation, arguments, records), handlers)

    def _dump(self, found: dict[str, Any]) -> tuple[StoredFile, dict[str, Any]]:
        """Bring the dump and its version rows here. The rows are of the same moment as the dump."""
        self._progress.begin("database", found["database_size"])
        writer = StoredWriter(self._incoming / DATABASE_NAMES[found["database_engine"]], self._host_compresses)
        self._not_expected = self._older = 0
        rows_begun: list[float] = []

        def take(rows: Iterator[dict[str, Any]]) -> None:
            rows_begun.append(time.monotonic())
            del rows_begun[1:]
            expected, directories = [], []
            for row in rows:
                self._older += row["older"]
                directories.append(os.fsencode(row["directory"]))
                if "path" in row or "path_base64" in row:
                    expected.append((path_of(row), row["row"], row["key"]))
                else:
                    self._not_expected += 1
            self._catalog.add_expected(expected)
            self._catalog.add_directories(directories)

        try:
            dump = self._call(
                "dump_database",
                {
                    "instance": self._request.as_request(),
                    "copy_dir": self._request.copy_dir or "",
                    "compress": self._host_compresses,
                    "host_path": "",
                },
                Handlers(records=take, data=writer.write),
            )
            self._catalog.index_rows()
            self._timings["rows"] = round(time.monotonic() - rows_begun[0], 3) if rows_begun else 0.0
            sha256 = writer.finish()
        finally:
            writer.close()
        return StoredFile(writer.path.name, writer.size, sha256, dump["plain_size"]), dump

    def _archive_config(self) -> tuple[StoredFile, dict[str, Any]]:
        """Bring settings files and secret key here: the stored file, and what the manifest says of its members."""
        self._progress.begin("config")
        writer = StoredWriter(self._incoming / CONFIG_NAME, self._host_compresses)
        try:
            arguments = {"instance": self._request.as_request(), "compress": self._host_compresses}
            config = self._call("archive_config", arguments, Handlers(data=writer.write))
            sha256 = writer.finish()
        finally:
            writer.close()
        stored = StoredFile(writer.path.name, writer.size, sha256, config["plain_size"])
        return stored, {name: config[name] for name in ("plain_sha256", "entries")}

    def _look_again(
        self, files: Iterable[dict[str, Any]], rest_ns: int, take: Callable[[Iterator[dict[str, Any]]], None]
    ) -> None:
        arguments = {**self._media, "instance": self._request.as_request(), "rest_ns": rest_ns}
        self._call("settle", arguments, Handlers(records=take), files)

    def _prove(self, found: dict[str, Any], line: ReleaseLine, dump: dict[str, Any]) -> Proof:
        self.previous = self._base.compared()
        moment_ns, elsewhere = dump["moment_ns"], _is_elsewhere(found)
        return prove(self._catalog, line, moment_ns, self._not_expected, self._older, elsewhere)


def _commit(place: InstanceDirectory, incoming: Path, manifest: Manifest) -> dict[str, Any]:
    """Check what the manifest names once more, and publish the snapshot."""
    check_sizes(place, incoming, manifest)
    place.publish(incoming, manifest.id)
    place.history.append("committed", manifest.id, place.manifest_sha256(manifest), state=manifest.state)
    return describe_snapshot(manifest, place)
