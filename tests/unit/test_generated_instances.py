# SPDX-License-Identifier: GPL-3.0-or-later
"""The generated instances are what they say they are: on disk, in their databases, and for each release."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.generated.content import BINARY, FILE_NAMES
from tests.support.generated.instance import COMBINATIONS, LINES, PASSWORD, GeneratedInstance, generate
from tests.support.generated.project import SECRET_KEY, write_project
from tests.support.generated.volume import big_versions
from tests.support.instances import files_below
from tests.support.servers.mariadb import MariaServer
from tests.support.servers.postgres import PostgresServer

Server = PostgresServer | MariaServer
DASHED = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PLAIN = re.compile(r"[0-9a-f]{32}")
# What the facts say of each line, apart from the generator's own tables.
MARKERS = {
    "1.x": "select name from django_migrations where app = 'core' order by id desc limit 1",
    "3.3": "select version_num from alembic_version",
}
USERS_TABLES = {"1.x": "core_user", "3.3": "users"}
DJANGO = ("1.x", "2.0", "2.1", "3.0-3.2")


@pytest.fixture(scope="module", params=COMBINATIONS, ids=["-".join(combination) for combination in COMBINATIONS])
def made(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    maria_server: MariaServer,
) -> tuple[GeneratedInstance, Server | None]:
    line, engine = request.param
    servers: dict[str, Server] = {"postgresql": postgres_server, "mysql": maria_server}
    name = f"made {line} 'x'" if engine == "postgresql" else f"made_{line}"
    where = tmp_path_factory.mktemp("made") / "instance"
    return generate(line, engine, where, server=servers.get(engine), name=name), servers.get(engine)


def rows(instance: GeneratedInstance, server: Server | None, query: str) -> list[tuple[str, ...]]:
    """Ask the database, not the generator."""
    if server is not None:
        return server.rows(query, instance.database)
    with closing(sqlite3.connect(instance.database)) as connection:
        return [tuple(map(str, row)) for row in connection.execute(query)]


def test_it_is_what_it_says_it_is(made: tuple[GeneratedInstance, Server | None]) -> None:
    instance, server = made
    on_disk = files_below(instance.media)
    assert {path: hashlib.sha256(content).hexdigest() for path, (content, _time, _mode) in on_disk.items()} == (
        instance.sha256
    )
    assert instance.expected | instance.unnamed | instance.derived | instance.unprocessed == set(on_disk)
    kinds = (instance.expected, instance.unnamed, instance.derived, instance.unprocessed)
    assert sum(map(len, kinds)) == len(on_disk), "a file is of one kind only"

    counted = {table: int(rows(instance, server, f"select count(*) from {table}")[0][0]) for table in instance.counts}
    assert counted == instance.counts
    assert sum(counted.values()) > 100

    family = "1.x" if instance.line in DJANGO else "3.3"
    assert rows(instance, server, MARKERS[family]) == [(instance.marker,)]
    users = [identity for (identity,) in rows(instance, server, f"select id from {USERS_TABLES[family]}")]
    assert sorted(users) == sorted(instance.ids[USERS_TABLES[family]])
    form = re.compile(r"[0-9]+") if instance.line in ("1.x", "2.0") else PLAIN
    if server is not None and instance.engine == "postgresql" and instance.line not in ("1.x", "2.0"):
        form = DASHED
    assert all(form.fullmatch(identity) for identity in users), users

    attachment = "select {} from site_attachment where id = 1".format(
        {"sqlite": "hex(content)", "postgresql": "encode(content, 'hex')", "mysql": "hex(content)"}[instance.engine]
    )
    assert rows(instance, server, attachment)[0][0].lower() == BINARY.hex()


def test_the_statements_of_papermerges_releases_find_the_expected_files(
    made: tuple[GeneratedInstance, Server | None],
) -> None:
    instance, server = made
    found = sorted(expected_by_sql(instance, server))
    assert set(found) == instance.expected
    assert len(found) == instance.expected_rows
    assert {os.fsencode(name) for name in FILE_NAMES} <= {path.rsplit(b"/", 1)[1] for path in found}


def expected_by_sql(instance: GeneratedInstance, server: Server | None) -> list[bytes]:
    if instance.line in ("1.x", "2.0"):
        query = (
            "select n.user_id, d.basetreenode_ptr_id, coalesce(d.version, 0), d.file_name from core_document d"
            " join core_basetreenode n on n.id = d.basetreenode_ptr_id where d.page_count > 0"
        )
        paths = [
            f"docs/user_{user}/document_{document}/{f'v{version}/' if version != '0' else ''}{name}"
            for user, document, version, name in rows(instance, server, query)
        ]
    elif instance.line == "2.1":
        query = (
            "select n.user_id, n.id, v.number, v.file_name from core_documentversion v"
            " join core_basetreenode n on n.id = v.document_id where v.page_count > 0 and v.file_name is not null"
        )
        paths = [
            f"docs/user_{dashed(user)}/document_{dashed(document)}/v{number}/{name}"
            for user, document, number, name in rows(instance, server, query)
        ]
    else:
        tables = (
            ("core_documentversion", "core_basetreenode")
            if instance.line in DJANGO
            else (
                "document_versions",
                "nodes",
            )
        )
        query = (
            f"select v.id, v.file_name from {tables[0]} v join {tables[1]} n on n.id = v.document_id"
            " where v.page_count > 0 and v.file_name is not null"
        )
        found = [(dashed(version), name) for version, name in rows(instance, server, query)]
        paths = [f"docvers/{version[:2]}/{version[2:4]}/{version}/{name}" for version, name in found]
    return [path.encode() for path in paths]


def dashed(identity: str) -> str:
    plain = identity.replace("-", "")
    return "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))


def test_each_line_has_what_makes_it_hard(tmp_path: Path) -> None:
    for line, release in LINES.items():
        instance = generate(line, release.engines[0], tmp_path / line)
        assert instance.never_uploaded >= 1, line
        assert bool(instance.not_computable) == (line in ("1.x", "2.0")), line
        assert instance.unnamed, line
        assert bool(instance.orphan_rows) == (line in ("3.3", "3.4")), line
        assert bool(instance.unprocessed) == (line == "3.6"), line
        assert (instance.expected_rows > len(instance.expected)) == (line == "2.1"), line
        assert {path.split(b"/")[0] for path in instance.derived} <= {
            *(b"results", b"sidecars", b"ocr", b"thumbnails", b"previews")
        }


def test_the_same_seed_makes_the_same_and_another_makes_another(tmp_path: Path) -> None:
    first, again, other = (
        generate("3.5", "postgresql", tmp_path / str(number), seed) for number, seed in enumerate((7, 7, 8))
    )
    assert (first.sha256, first.script) == (again.sha256, again.script)
    assert not first.expected & other.expected


def test_what_a_release_does_not_support_is_not_made(tmp_path: Path) -> None:
    for line, engine, version in (("3.3", "mysql", None), ("3.6", "sqlite", None), ("3.5", "sqlite", "3.5.3")):
        with pytest.raises(ValueError, match="there is no Papermerge"):
            generate(line, engine, tmp_path / "x", version=version)


def test_a_big_instance_has_the_rows_and_files_that_it_says(tmp_path: Path, postgres_server: PostgresServer) -> None:
    big = big_versions(postgres_server, "big", tmp_path / "big", 2000, files=20)
    assert {table: postgres_server.count(table, "big") for table in big.counts} == big.counts
    paths = list(big.version_paths())
    assert sorted(expected_by_sql(big.small, postgres_server)) == sorted([*paths, *big.small.expected])
    written = files_below(big.small.media)
    assert [path in written for path in paths] == [number < 20 for number in range(2000)]


@pytest.mark.parametrize("version", [version for line in LINES.values() for version in line.versions])
def test_a_project_tells_its_version_and_its_settings(tmp_path: Path, version: str) -> None:
    url = "sqlite:////srv/pm/db.sqlite3" if version == "1.5.5" else "postgresql://us%20er:p%25%22%5C@db.example:5433/pm"
    directory = tmp_path / "opt" / "papermerge"
    written = write_project(
        tmp_path,
        version,
        database_url=url,
        media_root="/srv/me dia",
        directory=str(directory),
        settings_in="file" if version == "3.4.1" else "unit",
        python=sys.executable,
    )
    texts = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    distributions = [name for name in texts if ".dist-info/" in name]
    dotted = f"({', '.join(version.split('.'))}, FINAL"
    assert [name for name, text in texts.items() if f'"{version}"' in text or dotted in text] or distributions
    unit = texts["etc/systemd/system/papermerge.service"]
    assert f"WorkingDirectory={directory}" in unit
    given = [shlex.split(line)[0] for line in re.findall(r"^Environment=(.*)$", unit, re.MULTILINE)]
    assert not re.search(r"(?<!%)%(%%)*(?!%)", "".join(given)), "systemd takes a single one for a specifier"
    if version != "3.4.1":
        assert [line.replace("%%", "%") for line in given] == [f"{n}={v}" for n, v in written.environment.items()]
    else:
        assert (tmp_path / "etc/papermerge/environment").stat().st_mode & 0o777 == 0o600
        assert url not in unit
    if not (directory / "manage.py").exists():
        assert version >= "3.3"
        assert url in written.environment.values()
        assert SECRET_KEY in written.environment.values()
        return
    module = re.search(r'"DJANGO_SETTINGS_MODULE", "(.*?)"', texts["opt/papermerge/manage.py"])
    assert module
    said = subprocess.run(
        [
            directory / ".venv/bin/python",
            *("-c", "import json, django.conf as c; s = c.settings; print(json.dumps([s.MEDIA_ROOT, s.DATABASES]))"),
        ],
        cwd=directory,
        env={**written.environment, "DJANGO_SETTINGS_MODULE": module[1], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for part in ("/srv/me dia", unquote(urlsplit(url).path[1:])):
        assert part in said
    assert '"p%\\"\\\\"' in said or version == "1.5.5"


def test_the_role_of_an_instance_owns_it_and_its_password_opens_it(
    tmp_path: Path, postgres_server: PostgresServer, maria_server: MariaServer
) -> None:
    generate("3.5", "postgresql", tmp_path / "one", server=postgres_server, name="owned")
    owners = postgres_server.rows("select distinct tableowner from pg_tables where schemaname = 'public'", "owned")
    assert owners == [("owned",)]
    query = "select count(*) from {}"
    for socket in (False, True):
        for password, status in ((PASSWORD, 0), ("wrong", 2)):
            url = postgres_server.url("owned", "owned", password, socket=socket)
            words = [str(postgres_server.clients / "psql"), "-Atc", query.format("users"), url]
            assert subprocess.run(words, capture_output=True, check=False).returncode == status
    generate("3.0-3.2", "mysql", tmp_path / "two", server=maria_server, name="owned")
    for password, status in ((PASSWORD, 0), ("wrong", 1)):
        place = ["-h127.0.0.1", f"-P{maria_server.port}", "-uowned", "owned", "-e", query.format("core_user")]
        finished = subprocess.run(
            ["mariadb", "--no-defaults", *place], env={"MYSQL_PWD": password}, capture_output=True, check=False
        )
        assert finished.returncode == status, finished.stderr
