# SPDX-License-Identifier: GPL-3.0-or-later
"""A Papermerge 3.5 on PostgreSQL with as many versions as wanted, made by the server itself."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.support.generated.instance import PASSWORD, GeneratedInstance, generate, write_files
from tests.support.servers.postgres import PostgresServer

_VERSIONS_A_DOCUMENT = 2

# {n} version rows, two a document, one page each. Ids are MD5 sums, so that they can be computed again elsewhere.
_FILL = """
set session_replication_role = replica;
create function pg_temp.id_of(text) returns uuid language sql immutable as $$ select md5($1)::uuid $$;
insert into nodes (id, title, ctype, lang, user_id, parent_id, created_at, updated_at)
  select pg_temp.id_of('document ' || d), 'bulk ' || d, 'document', 'deu', (select min(id::text)::uuid from users),
         null, now(), now()
  from generate_series(0, ({n} - 1) / 2) d;
insert into documents (node_id, ocr, ocr_status)
  select pg_temp.id_of('document ' || d), false, 'UNKNOWN' from generate_series(0, ({n} - 1) / 2) d;
insert into document_versions (id, number, file_name, document_id, lang, text, size, page_count)
  select pg_temp.id_of('version ' || v), v % 2 + 1, 'scan ' || v || '.pdf', pg_temp.id_of('document ' || v / 2),
         'deu', null, length('version ' || v), 1
  from generate_series(0, {n} - 1) v;
insert into pages (id, number, page_count, lang, text, document_version_id)
  select pg_temp.id_of('page ' || v), 1, 1, 'deu', 'text of page ' || v, pg_temp.id_of('version ' || v)
  from generate_series(0, {n} - 1) v;
analyze;
"""


@dataclasses.dataclass(frozen=True)
class BigInstance:
    """`small` is the generated instance that it grew from; `counts` and the files of both belong together.

    `versions`: rows added. Row N is `version_path(N)`, whose content, where it was written, is b"version N".
    """

    small: GeneratedInstance
    versions: int
    counts: dict[str, int]

    def version_paths(self) -> Iterator[bytes]:
        """Every path that was added, in the order of the numbers."""
        return map(version_path, range(self.versions))


def big_versions(
    server: PostgresServer, name: str, where: Path, versions: int, *, files: int = 0, password: str = PASSWORD
) -> BigInstance:
    """Make a 3.5 instance with that many versions more (an even number) in the database `name`.

    A million takes some 30 s. `files`: for so many of them, the first ones, the file is written too (some 10,000 a
    second). Raises ValueError, ServerError.
    """
    if versions % _VERSIONS_A_DOCUMENT or files > versions:
        raise ValueError("an even number of versions, and no more files than those")
    small = generate("3.5", "postgresql", where, server=server, name=name, password=password, large_text=1000)
    server.execute(_FILL.format(n=versions), name)
    added = {
        "nodes": versions // _VERSIONS_A_DOCUMENT,
        "documents": versions // _VERSIONS_A_DOCUMENT,
        "document_versions": versions,
        "pages": versions,
    }
    write_files(small.media, {version_path(number): b"version %d" % number for number in range(files)})
    counts = {table: count + added.get(table, 0) for table, count in small.counts.items()}
    return BigInstance(small, versions, counts)


def version_path(number: int) -> bytes:
    """Return the path of a version that `big_versions` added, relative to the media root."""
    identity = str(uuid.UUID(hashlib.md5(f"version {number}".encode()).hexdigest()))
    return f"docvers/{identity[:2]}/{identity[2:4]}/{identity}/scan {number}.pdf".encode()
