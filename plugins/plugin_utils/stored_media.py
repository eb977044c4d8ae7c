# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Media as they are stored: an index, parts, commit records. Read, checked, and sent to a target."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.papermerge.backup.plugins.module_utils.durable import ExactReader
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.media.extract import (
    PartMemberPlan,
    plan_records,
)
from ansible_collections.papermerge.backup.plugins.module_utils.media.tar import TarReader
from ansible_collections.papermerge.backup.plugins.module_utils.paths import shown
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.index import IndexEntry, lines, read_index
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import StoredFile, StoredPart
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PartRecord
from ansible_collections.papermerge.backup.plugins.plugin_utils.catalog import Catalog
from ansible_collections.papermerge.backup.plugins.plugin_utils.part_checks import PartChecks
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.raw_frames import RawFrames
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import PART_SUFFIX, RECORD_SUFFIX
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import (
    checked,
    counted,
    load_record,
    read_stored,
    unpack,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pool import AgentPool
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import Call, Session

#: Agents that unpack at the same time.
AGENTS = 2


@dataclass(frozen=True)
class StoredMedia:
    """Where the media of one snapshot or archive lie. ``files``: how many files the index must have.

    ``host_parts``: the directory on the target that holds the parts, when they are there; ``parts_path`` then holds
    copies of the records only.
    """

    name: str
    index_path: Path
    index: StoredFile
    parts_path: Path
    parts: list[StoredPart]
    files: int
    host_parts: str = ""

    def part_path(self, part: StoredPart) -> Path:
        return self.parts_path / (part.id + PART_SUFFIX)

    def record_path(self, part: StoredPart) -> Path:
        return self.parts_path / (part.id + RECORD_SUFFIX)

    @property
    def stored_bytes(self) -> int:
        """Size of index, parts and records in bytes."""
        return self.index.size + sum(part.size + part.record_size for part in self.parts)

    def index_text(self) -> Iterator[bytes]:
        """Yield the plain index in pieces. Raises DamageError, for a changed byte at the end only."""
        stored = checked(read_stored(self.index_path), self.index.size, self.index.sha256, str(self.index_path))
        return unpack(stored, self.index.plain_size, str(self.index_path))

    def entries(self) -> Iterator[IndexEntry]:
        """Yield the index. Raises DamageError, for a changed byte at the end only."""
        yield from read_index(self.index_text())

    def index_lines(self) -> Iterator[bytes]:
        """Yield the lines of the index without their newlines, unread. Raises DamageError as :meth:`entries`."""
        return lines(self.index_text())

    def record(self, part: StoredPart) -> PartRecord:
        """Read a part's commit record. Raises DamageError."""
        return load_record(self.record_path(part), part)

    def check(self, catalog: Catalog, progress: Progress) -> None:
        """Check every stored byte and that index and records agree; fills the catalog. Raises DamageError."""
        files = [] if self.host_parts else [(self.part_path(part), part.size, part.sha256) for part in self.parts]
        with PartChecks(files, progress.advance) as checks:
            catalog.add_entries(self.entries())
            catalog.index_by_part()
            count, _size = catalog.totals()
            if count != self.files:
                raise DamageError(f"the index of {self.name} has {count:,} files, it should have {self.files:,}")
            held = sum(_compare(catalog, self.record(part)) for part in self.parts)
            if held != count:
                raise DamageError(f"the index of {self.name} names {count - held:,} files that none of its parts holds")
            checks.wait()

    def unpack_all(self, progress: Progress) -> int:
        """Unpack every part in bounded streams and compare each member with its record. Returns how many."""
        progress.begin("unpack", sum(part.size for part in self.parts))
        return sum(
            check_part(
                counted(read_stored(self.part_path(part)), progress.advance),
                self.record(part),
                str(self.part_path(part)),
            )
            for part in self.parts
        )

    def send(
        self,
        session: Session,
        catalog: Catalog,
        progress: Progress,
        state: dict[str, Any],
        owner: dict[str, Any],
        packed: bool,
    ) -> tuple[int, int]:
        """Unpack the files of the index on the target, by several agents. Returns their number and bytes.

        ``catalog``: filled by :meth:`check`. ``state``: the answer of the agent's begin_restore. ``owner``: its
        ``directory_mode`` and ``directory_owner``. ``packed``: the target unpacks zstd. Raises DamageError unless every
        file of the index has arrived.
        """
        progress.begin("media", sum(part.size for part in self.parts))
        stage = {**owner, **{name: state[name] for name in ("media_stage", "media_identity")}}
        results: list[dict[str, Any]] = []
        lock = threading.Lock()

        def advance(size: int) -> None:
            with lock:
                progress.advance(size)

        def send_part(agent: Session, part: StoredPart) -> None:
            record = self.record(part)
            with lock:
                plans = list(plan_records(_plans(catalog, record)))
            arguments = {**stage, "tar_size": record.tar_size, "compressed": True, "host_path": ""}
            directory = self.host_parts or (str(self.parts_path.resolve()) if session.is_here and packed else "")
            if directory:
                # What the agent reads itself passes through no pipe.
                there = {"host_path": f"{directory}/{part.id}{PART_SUFFIX}", "frames": record.frame_offsets}
                results.append(agent.call(Call("extract", {**arguments, **there}, plans)))
                if not self.host_parts:
                    advance(part.size)
                return
            path = self.part_path(part)
            with RawFrames(path, record) as frames:
                stored = packed and not frames.prevail
                data = counted(read_stored(path), advance) if stored else frames.content(advance)
                results.append(agent.call(Call("extract", {**arguments, "compressed": stored}, plans, data)))

        with AgentPool(session, AGENTS) as pool:
            # The largest first: none of them begins when the others are done.
            pool.each(iter(sorted(self.parts, key=lambda part: -part.size)), send_part)
        files, size = (sum(result[name] for result in results) for name in ("files", "size"))
        expected = catalog.totals()
        if (files, size) != expected:
            raise DamageError(
                "{:,} files with {:,} bytes were restored, the index names {:,} with {:,}".format(
                    files, size, *expected
                )
            )
        return files, size


def _compare(catalog: Catalog, record: PartRecord) -> int:
    """Check that a part's record has every file that the index says it has; returns how many."""
    members = {member[:3] for member in record.members}
    count = 0
    for content in catalog.contents(record.part):
        if content not in members:
            raise DamageError(f"the index and the record of part {record.part} disagree about {shown(content[0])}")
        count += 1
    return count


def _plans(catalog: Catalog, record: PartRecord) -> Iterator[PartMemberPlan]:
    wanted = {row[0]: row for row in catalog.metadata(record.part)}
    for path, size, sha256, _offset in record.members:
        row = wanted.get(path)
        if row is None:
            yield PartMemberPlan(path, size, sha256, False)
        else:
            yield PartMemberPlan._make((*row[:3], True, *row[3:]))


def check_part(stored: Iterable[bytes], record: PartRecord, name: str) -> int:
    """Unpack a part's stored bytes in bounded streams and compare every member with its record. Returns how many."""
    plain = unpack(stored, record.tar_size, name)
    source = ExactReader(plain)
    reader = TarReader(source.read, record.tar_size, source.some)
    for expected in record.members:
        member = reader.next_member()
        if member is None or (member.path, member.size) != (expected.path, expected.size):
            raise DamageError(f"{name} does not hold {shown(expected.path)} where its record says so")
        digest = hashlib.sha256()
        reader.content(member.size, digest.update)
        if digest.hexdigest() != expected.sha256:
            raise DamageError(f"{name}: the content of {shown(expected.path)} is not what its record says")
    if reader.next_member() is not None:
        raise DamageError(f"{name} holds more than its record says")
    reader.finish()
    return len(record.members)
