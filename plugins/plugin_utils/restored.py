# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was restored, looked at again: row counts, every file with its hash, a sample that is opened."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.module_utils.database.engines import database_at
from ansible_collections.papermerge.backup.plugins.module_utils.database.place import parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError, describe_os_error
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import release_line_named
from ansible_collections.papermerge.backup.plugins.module_utils.paths import shown
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import IndexEntry
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import Manifest
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import (
    FAILED,
    PASSED,
    SKIPPED,
    Check,
    SampledFile,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored_media import StoredMedia
from ansible_collections.papermerge.backup.plugins.plugin_utils.structure import OTHER, examine
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import require_same_counts, require_same_proof

PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Tree:
    """Opens files below a directory, one name after the other: paths may be longer than a system call takes."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _DIRECTORY)
        self._held: tuple[bytes, int] | None = None

    def open(self, path: bytes) -> int:
        """Return a descriptor of a file. Raises OSError."""
        directory, _slash, name = path.rpartition(b"/")
        if self._held is None or self._held[0] != directory:
            self._release()
            self._held = directory, self._open_directory(directory)
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._held[1])

    def _open_directory(self, path: bytes) -> int:
        here = os.dup(self._root)
        for name in filter(None, path.split(b"/")):
            try:
                inner = os.open(name, _DIRECTORY, dir_fd=here)
            finally:
                os.close(here)
            here = inner
        return here

    def _release(self) -> None:
        if self._held is not None:
            os.close(self._held[1])
            self._held = None

    def close(self) -> None:
        self._release()
        os.close(self._root)


class Restored:
    """A restored snapshot: its media below ``media_root``, its database at ``url``. The caller closes it."""

    def __init__(self, manifest: Manifest, media: StoredMedia, media_root: str, url: str, scratch: Path) -> None:
        self._manifest = manifest
        self._media = media
        self._line = release_line_named(manifest.release_line)
        self._database = database_at(parse_database_url(url, "the scratch target"), "the scratch target")
        self._tree = _Tree(media_root)
        self.catalog = Catalog(scratch / "proved.sqlite3")

    def close(self) -> None:
        self._tree.close()
        self.catalog.close()

    def add_expected(self, catalog: Catalog) -> None:
        """Fill a catalog with the version rows of the restored database."""
        with self._database.view() as view:
            catalog.add_expected(
                (row.path, row.row, row.key) for row in view.expected_rows(self._line) if row.path is not None
            )

    def check_counts(self) -> Check:
        """Count the rows of every table again."""
        wanted = self._manifest.row_counts
        with self._database.view() as view:
            counts, marker = view.row_counts(self._line), view.schema_marker(self._line)
        check = Check(
            name="row_counts", title="Row counts", verdict=PASSED, expected=sum(wanted.values()),
            found=sum(counts.values()), unit=f"rows in {len(wanted)} tables",
        )  # fmt: skip
        try:
            require_same_counts(self._manifest, counts, marker)
        except DamageError as error:
            check.verdict, check.detail = FAILED, error.message
        return check

    def check_files(self, progress: Progress) -> list[Check]:
        """Read every restored file again and compare it with the index; then look for what the rows expect."""
        progress.begin("prove", int(self._manifest.totals["media_bytes"]))
        wrong: list[str] = []
        total = 0

        def right() -> Iterator[IndexEntry]:
            nonlocal total
            for entry in self._media.entries():
                total += 1
                problem = self._difference(entry, progress)
                if problem:
                    wrong.append(f"{shown(entry.path)}: {problem}")
                    del wrong[3:]
                else:
                    yield entry

        self.add_expected(self.catalog)
        self.catalog.add_entries(right())
        found, _size = self.catalog.totals()
        files = Check(
            name="files", title="Every file, with its hash", verdict=FAILED if wrong or found != total else PASSED,
            expected=total, found=found, unit="files", detail="; ".join(wrong),
        )  # fmt: skip
        return [files, self._check_expected()]

    def _check_expected(self) -> Check:
        wanted = int(self._manifest.proof["proved"])
        check = Check(
            name="expected_files", title="Every expected file", verdict=PASSED, expected=wanted, unit="originals"
        )
        if not self._line.rows_query:
            check.verdict = SKIPPED
            check.detail = "nobody knows which files this release of Papermerge expects"
            return check
        try:
            check.found = require_same_proof(self._manifest, self.catalog)
        except DamageError as error:
            check.verdict, check.detail = FAILED, error.message
        return check

    def _difference(self, entry: IndexEntry, progress: Progress) -> str:
        """Return what is wrong with a restored file; nothing where it is as the index says."""
        digest, size = hashlib.sha256(), 0
        try:
            with open(self._tree.open(entry.path), "rb", buffering=0) as stream:
                while piece := stream.read(PIECE):
                    digest.update(piece)
                    size += len(piece)
                    progress.advance(len(piece))
        except OSError as error:
            return describe_os_error(error)
        if (size, digest.hexdigest()) != (entry.size, entry.sha256):
            return "its content is not what the index says"
        return ""

    def proved_originals(self) -> Iterator[bytes]:
        """Yield the paths of the originals that are there, sorted."""
        last = b""
        for path, _row, state, _held in self.catalog.expected_states():
            if state is not None and state.indexed and state.size > 0 and path != last:
                last = path
                yield path

    def sample(self, count: int, names: bool) -> list[SampledFile]:
        """Open so many originals, chosen at random."""
        chosen: list[bytes] = []
        for number, path in enumerate(self.proved_originals()):
            if number < count:
                chosen.append(path)
            elif (place := random.randrange(number + 1)) < count:
                chosen[place] = path
        return [self._open(path, names) for path in sorted(chosen)]

    def _open(self, path: bytes, names: bool) -> SampledFile:
        with (
            open(self._tree.open(path), "rb", buffering=0) as stream,
            contextlib.closing(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)) as content,
        ):
            kind, problem = examine(path, content)
            digest = hashlib.sha256(content).hexdigest()
            size = len(content)
        if kind == OTHER:
            problem_or_note = "of a kind whose structure is not known: only its hash was compared"
        else:
            problem_or_note = problem
        return SampledFile.of(
            path, names, sha256=digest, size=size, kind=kind, verdict=FAILED if problem else PASSED,
            detail=problem_or_note,
        )  # fmt: skip
