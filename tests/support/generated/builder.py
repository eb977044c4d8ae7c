# SPDX-License-Identifier: GPL-3.0-or-later
"""What the builders of all release lines share: the rows and files made so far, and what is true of them."""

from __future__ import annotations

import random
import uuid

from tests.support.generated.content import BINARY, DocumentPlan, long_text
from tests.support.generated.tables import Database, parse_tables

# Administrators keep tables of their own beside Papermerge's.
_SITE_TABLES = """
site_attachment
  id serial key
  name str200
  content blob
  note text null
"""


class Builder:
    """An instance in the making. A release line's `build` sets `database` and fills the rest.

    `files` by path relative to the media root. `expected` has an entry a row, so perhaps one path twice. `types` and
    `program` are PostgreSQL's own SQL, run before and after the tables are made.
    """

    def __init__(
        self,
        line: str,
        engine: str,
        version: str,
        marker: str,
        rng: random.Random,
        plans: list[DocumentPlan],
        large_text: int,
    ) -> None:
        self.line = line
        self.engine = engine
        self.version = version
        self.marker = marker
        self.rng = rng
        self.plans = plans
        self.types = ""
        self.program = ""
        self.files: dict[bytes, bytes] = {}
        self.expected: list[bytes] = []
        self.unnamed: set[bytes] = set()
        self.derived: set[bytes] = set()
        self.unprocessed: set[bytes] = set()
        self.never_uploaded = 0
        self.not_computable = 0
        self.orphan_rows = 0
        self._database: Database | None = None
        self._large_text = large_text
        self._texts = 0

    @property
    def database(self) -> Database:
        assert self._database is not None
        return self._database

    def use_schema(self, schema: str) -> Database:
        self._database = Database((*parse_tables(schema), *parse_tables(_SITE_TABLES)))
        return self._database

    def add_site_tables(self) -> None:
        self.database.add("site_attachment", name="every byte but NUL", content=BINARY, note='it\'s "NULL"\\')
        self.database.add("site_attachment", name="", content=b"", note=None)

    def new_id(self) -> uuid.UUID:
        return uuid.UUID(int=self.rng.getrandbits(128), version=4)

    def page_text(self) -> str:
        """The text of one more page: mostly short, twice as long as was asked for."""
        self._texts += 1
        return long_text(self._large_text if self._texts in (2, 7) else 30 * self._texts)

    def add_original(self, path: str, content: bytes) -> bytes:
        """Put a file of Papermerge's documents in place and return its path."""
        encoded = path.encode()
        self.files[encoded] = content
        return encoded

    def add_derived(self, *paths: str) -> None:
        """Put files in place that Papermerge can make again."""
        for path in paths:
            self.files[path.encode()] = b"derived " + self.rng.randbytes(40)
            self.derived.add(path.encode())

    def add_migrations(self) -> None:
        """Fill django_migrations, with the marker as the newest of core, and other applications before and after it."""
        names = [("contenttypes", "0001_initial"), ("auth", "0012_alter_user_first_name_max_length")]
        if self.marker != "0001_initial":
            names.append(("core", "0001_initial"))
        for application, name in [*names, ("core", self.marker), ("sites", "0099_newer_than_any")]:
            self.database.add("django_migrations", app=application, name=name)
