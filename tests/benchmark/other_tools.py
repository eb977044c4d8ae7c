# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup programs that a user of Papermerge may have instead.

They run on this machine only: over ssh each would have to be installed on the host, and to log in to the controller.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from tests.benchmark.community_general import CommunityGeneral
from tests.benchmark.contenders import EXTRACT, FULL, PLUS_ONE, RESTORE, UNCHANGED, VERIFY, Contender
from tests.benchmark.measure import Command, run
from tests.benchmark.sites import Site
from tests.support.papermerge.install import Installation
from tests.support.papermerge.instance import PapermergeInstance
from tests.support.playbooks import Playbooks


class Restic(Contender):
    """Encrypts, and finds equal content."""

    name = "restic"
    key = "restic"
    parts = frozenset({FULL, RESTORE, VERIFY, EXTRACT, UNCHANGED, PLUS_ONE})
    slow = True

    def prepare(self) -> None:
        password = self.place / "password"
        password.write_text("not a secret\n", encoding="ascii")
        # A cache would be a second copy of what lies beside it.
        self._base = ["restic", "-q", "--no-cache", "-r", str(self.place / "restic"), "-p", str(password)]
        run(Command([*self._base, "init"]))

    def create(self) -> Command:
        return Command([*self._base, "backup", self.site.source])

    def restore(self) -> Command:
        return Command([*self._base, "restore", "latest", "--target", self.site.target])

    def verify(self) -> Command:
        return Command([*self._base, "check", "--read-data"])

    def extract(self, path: str) -> Command:
        wanted = f"{self.site.source}/media/{path}"
        return Command([*self._base, "restore", "latest", "--target", str(self.extracted), "--include", wanted])


class Borg(Contender):
    """Finds equal content and compresses; without encryption, which would be slower."""

    name = "borg"
    key = "borg"
    parts = frozenset({FULL, RESTORE, VERIFY, EXTRACT, UNCHANGED, PLUS_ONE})
    slow = True

    def prepare(self) -> None:
        self._number = 0
        self._environment = {"PATH": "/usr/bin:/bin", "BORG_BASE_DIR": str(self.place / "base"), "LC_ALL": "C.UTF-8"}
        self._environment["BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK"] = "yes"
        self._repository = str(self.place / "borg")
        run(self._borg("init", "--encryption=none", self._repository))

    def _borg(self, *words: str, directory: Path | None = None) -> Command:
        return Command(["borg", *words], self._environment, directory)

    @property
    def _archive(self) -> str:
        return f"{self._repository}::{self._number}"

    def create(self) -> Command:
        self._number += 1
        return self._borg("create", self._archive, self.site.source)

    def restore(self) -> Command:
        target = Path(self.site.target)
        target.mkdir()
        return self._borg("extract", self._archive, directory=target)

    def verify(self) -> Command:
        return self._borg("check", "--verify-data", self._repository)

    def extract(self, path: str) -> Command:
        wanted = f"{self.site.source}/media/{path}".lstrip("/")
        return self._borg("extract", self._archive, wanted, directory=self.extracted)


class ManageBackup(Contender):
    """Papermerge's own `manage.py backup` (2.0.2), in a real Papermerge whose database names the tree's documents.

    It takes the newest version of each original and nothing else: no OCR text, no previews, not the database.
    """

    name = "manage.py backup"
    key = "papermerge"
    parts = frozenset({FULL})
    slow = True

    def __init__(self, site: Site, place: Path, installation: Installation) -> None:
        super().__init__(site, place)
        self._installation = installation

    def prepare(self) -> None:
        project = self.place.with_name("project")
        if project.exists():
            shutil.rmtree(project)
        self._instance = PapermergeInstance.create(
            project, self._installation, media_dir=Path(self.site.source) / "media"
        )
        with closing(sqlite3.connect(self._instance.database)) as connection:
            connection.execute("attach database ? as tree", (f"{self.site.source}/db/db.sqlite3",))
            for statement in _ROWS:
                connection.execute(statement)
            connection.commit()

    def create(self) -> Command:
        words, environment = self._instance.managing("backup", str(self.place / "backup.tar"))
        return Command(words, environment, self._instance.directory)


#: Users, titles and file names of the tree, as Papermerge's own tables have them. Each document is a root of its own.
_ROWS = (
    """insert into core_user (id, password, is_superuser, username, first_name, last_name, email, is_staff, is_active,
                              date_joined, created_at, updated_at)
       select id, '', 0, username, '', '', '', 0, 1, '2021-02-16', '2021-02-16', '2021-02-16' from tree.core_user""",
    """insert into core_basetreenode (id, title, lang, created_at, updated_at, lft, rght, tree_id, level,
                                      polymorphic_ctype_id, user_id)
       select n.id, n.title, 'deu', '2021-02-16', '2021-02-16', 1, 2, n.id, 0,
              (select id from django_content_type where app_label = 'core' and model = 'document'), n.user_id
       from tree.core_basetreenode n join tree.core_document d on d.basetreenode_ptr_id = n.id""",
    """insert into core_document (basetreenode_ptr_id, file_name, size, page_count, text, version)
       select basetreenode_ptr_id, file_name, size, page_count, '', 0 from tree.core_document""",
)


class ArchiveModule(Contender):
    """community.general.archive, whose result stays where the files are."""

    name = "community.general.archive, gz"
    key = "archive"
    parts = frozenset({FULL})
    slow = True

    def __init__(self, site: Site, place: Path, collection: CommunityGeneral) -> None:
        super().__init__(site, place)
        self._collection = collection

    def prepare(self) -> None:
        self._playbooks = Playbooks(self.place / "home")

    def create(self) -> Command:
        archive = {"path": self.site.source, "dest": str(self.place / "archive.tar.gz"), "format": "gz"}
        program = str(Path(sys.executable).with_name("ansible"))
        words = [program, "bench", "-i", "bench,", "-c", "local", "-m", "community.general.archive"]
        # Ansible's own search may find a name without a Python behind it.
        words += ["-e", f"ansible_python_interpreter={sys.executable}", "-a", json.dumps(archive)]
        path = {"ANSIBLE_COLLECTIONS_PATH": str(self._collection.path)}
        return Command(words, self._playbooks.environment(path), self._playbooks.home)
