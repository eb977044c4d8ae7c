# SPDX-License-Identifier: GPL-3.0-or-later
"""A Papermerge 2.0 project in a directory: made, filled, used while it is backed up, checked, compared."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import runpy
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from tests.support.papermerge.install import Installation, exclusive
from tests.support.servers.postgres import PostgresServer
from tests.support.writers import Writer, running_writer

_HERE = Path(__file__).resolve().parent
_PROJECT = _HERE / "project"
_INSIDE = _HERE / "inside"

# Papermerge prefers this file to the one in the project, so two instances cannot be kept apart where it exists.
_MACHINE_WIDE_CONFIGURATION = Path("/etc/papermerge.conf.py")


class PapermergeError(Exception):
    """Something that was asked of an instance failed; the message holds what Papermerge's Python said."""


class DocumentsNotOpened(PapermergeError):
    """Papermerge cannot open what its database names; ``report.failures`` names each document or row."""

    def __init__(self, report: OpenReport) -> None:
        self.report = report
        lines = [f"{failure.what}: {failure.problem}" for failure in report.failures]
        super().__init__(f"{len(lines)} failure(s):\n" + "\n".join(lines))


@dataclasses.dataclass(frozen=True)
class Failure:
    """One finding: ``what`` names the document (number, title, file name), row or user."""

    what: str
    problem: str


@dataclasses.dataclass(frozen=True)
class OpenReport:
    """Counts of what was looked at; ``opened`` + ``never_uploaded`` = ``documents`` unless something failed."""

    documents: int
    opened: int
    never_uploaded: int
    versions: int
    users: int
    tags: int
    metadata: int
    failures: tuple[Failure, ...]


@dataclasses.dataclass(frozen=True)
class Population:
    """``documents``: number of document rows; ``passwords``: the password of each user, by user name."""

    documents: int
    passwords: dict[str, str]


class PapermergeInstance:
    """A Papermerge project in ``directory``, which may also be a copy or one that was restored."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def create(
        cls,
        directory: Path,
        installation: Installation,
        journal_mode: Literal["delete", "wal"] = "delete",
        *,
        media_dir: Path | None = None,
        database_dir: Path | None = None,
    ) -> PapermergeInstance:
        """Make an empty Papermerge with all its tables in ``directory``, which must not exist or be empty.

        ``media_dir`` and ``database_dir`` are written into ``papermerge.conf.py`` when given; otherwise Papermerge's
        defaults hold: ``media`` and ``db.sqlite3`` in the project. Raises PapermergeError.
        """
        empty_database = _empty_database(installation)
        instance = cls._configured(directory, installation, {"MEDIA_DIR": media_dir, "DBDIR": database_dir})
        instance.database.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(empty_database, instance.database)
        with contextlib.closing(sqlite3.connect(instance.database)) as connection:
            connection.execute(f"PRAGMA journal_mode={journal_mode}")
        return instance

    @classmethod
    def create_on_server(
        cls,
        directory: Path,
        installation: Installation,
        server: PostgresServer,
        database: str,
        password: str,
        *,
        role: str = "",
        media_dir: Path | None = None,
        restored: bool = False,
    ) -> PapermergeInstance:
        """Make a Papermerge whose database is on a server, owned by a role, of the same name if none is given.

        The database has all tables and the role can create databases; both must not exist. With ``restored`` both
        are there, and nothing is done to them. Raises PapermergeError, ServerError.
        """
        role = role or database
        instance = cls._configured(
            directory,
            installation,
            {
                "MEDIA_DIR": media_dir,
                "DBTYPE": "postgres",
                "DBNAME": database,
                "DBUSER": role,
                "DBPASS": password,
                "DBHOST": "127.0.0.1",
                "DBPORT": server.port,
            },
        )
        if not restored:
            server.create_role(role, password, "createdb")
            server.create_database(database, role)
            server.load(_empty_server_database(installation, server), database, role)
        return instance

    @classmethod
    def _configured(cls, directory: Path, installation: Installation, settings: dict[str, Any]) -> PapermergeInstance:
        if _MACHINE_WIDE_CONFIGURATION.exists():
            raise PapermergeError(
                f"{_MACHINE_WIDE_CONFIGURATION} exists and would override every instance's own settings"
            )
        if directory.exists() and any(directory.iterdir()):
            raise PapermergeError(f"{directory} is not empty")
        _copy_project(directory, installation)
        lines = [f"{name} = {str(value)!r}" for name, value in settings.items() if value is not None]
        configuration = "\n".join(["# settings of this Papermerge", 'OCR_DEFAULT_LANGUAGE = "deu"', *lines, ""])
        (directory / "papermerge.conf.py").write_text(configuration, encoding="utf-8")
        instance = cls(directory)
        instance.media_root.mkdir(parents=True, exist_ok=True)
        return instance

    @property
    def python(self) -> Path:
        """The interpreter that runs this instance."""
        return self.directory / ".venv" / "bin" / "python"

    @property
    def media_root(self) -> Path:
        """Where this instance keeps its files."""
        return Path(self._configuration().get("MEDIA_DIR", self.directory / "media"))

    @property
    def database(self) -> Path:
        """The SQLite file of this instance."""
        return Path(self._configuration().get("DBDIR", self.directory)) / "db.sqlite3"

    def populate(self, documents: int = 30, seed: int = 1) -> Population:
        """Upload ``documents`` (at least 10) into an empty instance, with users, folders, tags, metadata and history.

        Raises PapermergeError.
        """
        result = self._ask("populate", {"documents": documents, "seed": seed})
        return Population(result["documents"], result["passwords"])

    def open_every_document(self, check: bool = True) -> OpenReport:
        """Let Papermerge open all documents, read them, log each user in and look for rows that lack others.

        Raises DocumentsNotOpened when anything fails, unless ``check`` is false; PapermergeError when it cannot
        even start.
        """
        result = self._ask("open_every_document", {}, acceptable=(0, 1))
        failures = tuple(Failure(**failure) for failure in result.pop("failures"))
        report = OpenReport(failures=failures, **result)
        if check and report.failures:
            raise DocumentsNotOpened(report)
        return report

    def counts(self) -> dict[str, int]:
        """The number of rows of each table. Raises PapermergeError."""
        counts: dict[str, int] = self._ask("contents", {"counts_only": True})["counts"]
        return counts

    def contents(self) -> dict[str, Any]:
        """Everything in this instance, equal for equal instances wherever they are. Raises PapermergeError.

        Shape: {"counts": {table: rows}, "users": {name: {…, "password": hash}}, "folders" and "documents": {owner, path
        and number: {…, "tags", "metadata"}}, "tables": {table: [row]}, "files": {path: {"size", "sha256"}}}.
        """
        return self._ask("contents", {"counts_only": False})

    @contextlib.contextmanager
    def writer(self, rate: float = 5.0, seed: int = 1, documents: int = 1000) -> Iterator[Writer]:
        """Change this instance ``rate`` times a second, if it can, from a process of its own until the block ends.

        It keeps about ``documents`` of its own. What it logs has "file" and "sha256" besides. Writers that run at once
        need different seeds, and a server as database. Raises WriterError.
        """

        def command(log: Path) -> list[str]:
            return self._command("writer", {"rate": rate, "seed": seed, "log": str(log), "documents": documents})

        with running_writer(command, self.directory, self._environment()) as writer:
            yield writer

    def manage(self, *arguments: str) -> str:
        """Run ``manage.py`` with these arguments and return what it prints. Raises PapermergeError."""
        return self._run(self.managing(*arguments)[0]).stdout

    def managing(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """The command line of ``manage.py`` with these arguments, to be run in ``directory``, and its environment."""
        return [str(self.python), "-W", "ignore", "manage.py", *arguments], self._environment()

    def delete(self) -> None:
        """Remove the project, and outside it only what Papermerge wrote: its files and its database."""
        for name in ("docs", "results"):
            if (self.media_root / name).exists():
                shutil.rmtree(self.media_root / name)
        for suffix in ("", "-journal", "-wal", "-shm"):
            self.database.with_name(self.database.name + suffix).unlink(missing_ok=True)
        shutil.rmtree(self.directory)

    def _configuration(self) -> dict[str, Any]:
        path = self.directory / "papermerge.conf.py"
        return runpy.run_path(str(path)) if path.exists() else {}

    def _ask(self, script: str, request: dict[str, Any], acceptable: tuple[int, ...] = (0,)) -> dict[str, Any]:
        finished = self._run(self._command(script, request), acceptable)
        try:
            result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            raise PapermergeError(f"{script} in {self.directory} gave no result\n{finished.stderr}") from None
        return result

    def _command(self, script: str, request: dict[str, Any]) -> list[str]:
        return [str(self.python), "-W", "ignore", str(_INSIDE / f"{script}.py"), json.dumps(request)]

    def _run(self, command: list[str], acceptable: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        finished = subprocess.run(
            command, check=False, cwd=self.directory, env=self._environment(), capture_output=True, text=True
        )
        if finished.returncode not in acceptable:
            raise PapermergeError(f"exit code {finished.returncode} from: {' '.join(command)}\n{finished.stderr}")
        return finished

    def _environment(self) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        return {
            **inherited,
            "LC_ALL": "C.UTF-8",
            "DJANGO_SETTINGS_MODULE": "config.settings.dev",
            "PYTHONPATH": str(self.directory),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def _copy_project(directory: Path, installation: Installation) -> None:
    shutil.copytree(_PROJECT, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / ".venv").symlink_to(installation.environment)


def _empty_database(installation: Installation) -> Path:
    """A database with all of Papermerge's tables and no rows of a user, made once and kept beside the environment."""
    database = installation.cache / f"empty-{_project_hash()}.sqlite3"
    if database.exists():
        return database
    with exclusive(installation.cache / "lock"), tempfile.TemporaryDirectory(dir=installation.cache) as scratch:
        if not database.exists():
            project = Path(scratch) / "project"
            _copy_project(project, installation)
            PapermergeInstance(project).manage("migrate", "--verbosity=0", "--skip-checks")
            (project / "db.sqlite3").rename(database)
    return database


def _empty_server_database(installation: Installation, server: PostgresServer) -> Path:
    """A dump of the same on PostgreSQL. It takes a quarter of a minute to make."""
    dump = installation.cache / f"empty-{_project_hash()}.pgdump-{server.major}"
    if dump.exists():
        return dump
    with exclusive(installation.cache / "lock"), tempfile.TemporaryDirectory(dir=installation.cache) as scratch:
        if not dump.exists():
            name = "papermerge_empty"
            server.create_role(name, name)
            server.create_database(name, name)
            project = PapermergeInstance.create_on_server(
                Path(scratch) / "project", installation, server, name, name, restored=True
            )
            project.manage("migrate", "--verbosity=0", "--skip-checks")
            server.dump(name, Path(scratch) / "dump")
            server.drop_database(name)
            server.execute(f"drop role {name}")
            (Path(scratch) / "dump").rename(dump)
    return dump


def _project_hash() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_PROJECT.rglob("*.py")))).hexdigest()[:16]
