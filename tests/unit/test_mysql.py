# SPDX-License-Identifier: GPL-3.0-or-later
"""MariaDB: a dump and the rows of exactly that dump, while others write; an answer for everything that goes wrong."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils import programs
from ansible_collections.papermerge.backup.plugins.module_utils.database import client as shared_client
from ansible_collections.papermerge.backup.plugins.module_utils.database.engines import database_at
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.client import (
    MARIADB,
    MYSQL,
    ClientProgram,
    connection_options,
    explain,
    option_file,
    parse_client_version,
)
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.dump import MysqlDatabase, dump_options
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.literals import Row, Table
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.session import MysqlView, Session
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.statements import DumpReader
from ansible_collections.papermerge.backup.plugins.module_utils.database.place import DatabasePlace, parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    DatabaseError,
    SettingError,
    SpaceError,
    ToolError,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import (
    RELEASE_LINES,
    UNKNOWN_LINE,
    ReleaseLine,
)
from tests.support.generated.instance import COMBINATIONS, GeneratedInstance, generate
from tests.support.servers.mariadb import MariaServer, identifier, literal

LINES = [line for line, engine in COMBINATIONS if engine == "mysql"]
NASTY_PASSWORDS = [
    "p'a\"ss",
    " leading and trailing ",
    "a#b;c",
    "100%",
    "back\\slash\\",
    "\\n\\s",
    "ümläut€",
    "'",
    '"x"',
    "[client]",
]


def nothing(_done: int, _total: int) -> None:
    pass


def no_workspace(_parent: str, _size: int) -> Callable[[str], str]:
    raise AssertionError("a dump of a server needs no room")


def database(url: str) -> MysqlDatabase:
    found = database_at(parse_database_url(url, "the test"), "the test")
    assert isinstance(found, MysqlDatabase)
    return found


def dumped(source: MysqlDatabase, line: ReleaseLine = UNKNOWN_LINE) -> bytes:
    with source.dump(line, no_workspace, nothing) as dump:
        return b"".join(dump.content())


@pytest.fixture
def schema(maria_server: MariaServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty schema."""
    name = f"s{abs(hash(request.node.nodeid)) % 10**12}"
    maria_server.create_database(name, options="character set utf8mb4")
    yield name
    maria_server.drop_database(name)


@pytest.fixture
def url(maria_server: MariaServer, schema: str) -> str:
    """The URL of that schema for an account that has all rights on it."""
    maria_server.execute(f"create or replace user {schema}@'%' identified by 'secret-{schema}'")
    maria_server.execute(f"grant all privileges on {schema}.* to {schema}@'%'")
    return maria_server.url(schema, schema, f"secret-{schema}")


@pytest.fixture(scope="module", params=LINES)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, maria_server: MariaServer
) -> GeneratedInstance:
    line = request.param
    return generate(line, "mysql", tmp_path_factory.mktemp("made") / "i", server=maria_server, name=f"dump_{line}")


# -- what is in a dump -------------------------------------------------------------------------------------------------


def test_counts_and_expected_files_are_those_of_the_dump(made: GeneratedInstance, maria_server: MariaServer) -> None:
    line = RELEASE_LINES[made.line]
    source = database(made.database_url)
    source.check()
    assert source.size() > 0
    with source.dump(line, no_workspace, nothing) as dump:
        content = b"".join(dump.content())
        # What happens now is not in the dump.
        table = line.version_tables[0]
        maria_server.execute(f"set foreign_key_checks = 0; delete from {table}", made.database)
        with dump.view() as view:
            view.require_tables(line)
            assert view.tables() == tuple(sorted(made.counts))
            assert view.row_counts(UNKNOWN_LINE) == made.counts
            assert view.schema_marker(line) == view.schema_marker(UNKNOWN_LINE) == made.marker
            rows = list(view.expected_rows(line))
    assert {row.path for row in rows if row.path} == made.expected
    assert content.splitlines()[-1].startswith(b"-- Dump completed")
    assert dump.facts["flavour"] == MARIADB
    assert dump.facts["encoding"] == "utf8mb4"
    assert dump.facts["owner_role"] == f"{made.database}@%"
    assert dump.facts["objects"] == dump.facts["not_transactional"] == []
    assert made.password not in repr(dump.facts)

    # The dump brings them back, and the view of a database in use says the same of it.
    maria_server.execute(content, made.database)
    with source.view() as view:
        assert view.tables() == tuple(sorted(made.counts))
        assert view.row_counts(UNKNOWN_LINE) == made.counts
        assert view.schema_marker(line) == made.marker
        assert sorted(view.expected_rows(line)) == sorted(rows)
        keys = [row.key for row in rows]
        assert {row.key for row in view.rows_with_keys(line, [*keys, "0"])} == set(keys)


def test_every_value_of_a_real_dump_is_read_right(
    maria_server: MariaServer, schema: str, url: str, rng: random.Random
) -> None:
    texts = [
        "",
        "'",
        "\\",
        "\\'",
        "');\n",
        "NULL",
        "0x41",
        "\0\x1a\b\t\r\n",
        "ä€😀",
        "--",
        "/*",
        ";;",
        '"',
        "`",
        "%_\\%\\_",
    ]
    texts += ["".join(rng.choices("'\"\\\n;,()x ä\0%_", k=rng.randrange(40))) for _number in range(500)]
    texts += ["it's\\" * 30000]
    maria_server.execute(
        "create table v (id int primary key, a varchar(200), c char(9), l longtext, b varbinary(200), n decimal(9,3),"
        " f double, d datetime(6), t bit(3), j json, g int generated always as (id + 1) virtual)",
        schema,
    )
    values = []
    for number, text in enumerate(texts):
        short = text[:200].encode()
        whole = f"x'{text.encode().hex()}'"
        code = f"x'{short.hex()}'"
        values.append(
            f"({number}, convert({code} using utf8mb4), 'c', convert({whole} using utf8mb4), {code},"
            f" -{number}.125, 1e{number % 300}, '2026-11-22 13:42:15.000001', {number % 8}, '{{}}')"
        )
        values.append(f"(-{number + 1}, null, null, null, null, null, null, null, null, null)")
    for start in range(0, len(values), 100):
        maria_server.execute(
            f"insert into v (id,a,c,l,b,n,f,d,t,j) values {','.join(values[start : start + 100])}", schema
        )
    found: dict[bytes | None, Row] = {}
    columns: set[tuple[str, ...]] = set()

    def store(_table: Table, names: tuple[str, ...], rows: list[Row]) -> None:
        columns.add(names)
        found.update((row[0], row[1:]) for row in rows)

    reader = DumpReader({"v"}, store)
    content = dumped(database(url))
    for start in range(0, len(content), 1 << 16):
        reader.feed(content[start : start + (1 << 16)])
    reader.finish()
    assert columns == {("id", "a", "c", "b", "n", "f", "d", "t", "g")}, "none of the long ones"
    assert reader.counts == {"v": 2 * len(texts)}
    for number, text in enumerate(texts):
        _a, c, b, n, _f, d, t, g = row = found[str(number).encode()]
        assert (row[0], c, b) == (text[:200].encode(), b"c", text[:200].encode())
        assert (n, d, t, g) == (
            f"-{number}.125".encode(),
            b"2026-11-22 13:42:15.000001",
            bytes([number % 8]),
            str(number + 1).encode(),
        )
        assert found[str(-number - 1).encode()][:-1] == (None,) * 7


def test_a_database_in_use_tells_a_text_from_null(maria_server: MariaServer, schema: str, url: str) -> None:
    values = ["NULL", None, "", "<row>&amp;</row>", "</resultset>", 'tab\tnew\nline\r"quote"', "\\n", "ä€😀", " "]
    maria_server.execute("create table t (id int primary key, v text)", schema)
    for number, value in enumerate(values):
        text = "null" if value is None else f"convert(x'{value.encode().hex()}' using utf8mb4)"
        maria_server.execute(f"insert into t values ({number}, {text})", schema)
    with MysqlView(parse_database_url(url, "the test")) as view:
        assert list(view.rows("select v, id from t order by id")) == [(v, str(n)) for n, v in enumerate(values)]
        assert list(view.rows("select v from t where id > 100")) == []
        maria_server.execute("delete from t", schema)
        assert len(list(view.rows("select v from t"))) == len(values), "a view is one moment"


def test_a_dump_is_one_moment_while_others_write(maria_server: MariaServer, schema: str, url: str) -> None:
    tables = "create table a_first (id int auto_increment primary key, x longtext); create table z_last like a_first"
    maria_server.execute(tables, schema)
    maria_server.execute("insert into a_first (x) select repeat('x', 9000) from seq_1_to_2000", schema)
    maria_server.execute("insert into z_last select * from a_first", schema)
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        both = "begin; insert into a_first (x) values ('y'); insert into z_last (x) values ('y'); commit;"
        while not stop.is_set():
            maria_server.execute(both * 20, schema)
            written += 20

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _round in range(3):
            with database(url).dump(UNKNOWN_LINE, no_workspace, nothing) as dump:
                before = written
                while written < before + 20:
                    stop.wait(0.01)
                for _piece in dump.content():
                    pass
                counts = dump.view().row_counts(UNKNOWN_LINE)
            assert counts["a_first"] == counts["z_last"] > 2000
    finally:
        stop.set()
        writer.join()


def test_tables_that_no_transaction_covers_are_named(maria_server: MariaServer, schema: str, url: str) -> None:
    maria_server.execute(
        "create table core_document (id int) engine=Aria; create table other (id int) engine=MyISAM", schema
    )
    line = RELEASE_LINES["2.0"]
    with pytest.raises(DatabaseError, match=r"core_document is not InnoDB.*ALTER TABLE `core_document` ENGINE=InnoDB;"):
        dumped(database(url), line)
    maria_server.execute("alter table core_document engine=InnoDB", schema)
    with database(url).dump(line, no_workspace, nothing) as dump:
        assert dump.facts["not_transactional"] == ["other"]
    with pytest.raises(DatabaseError, match="other is not InnoDB"):
        dumped(database(url), UNKNOWN_LINE)


def test_routines_triggers_views_and_events_are_dumped_and_told_of(
    maria_server: MariaServer, schema: str, url: str
) -> None:
    maria_server.execute(
        "create table t (id int); create view v as select * from t;"
        "create trigger g before insert on t for each row set new.id = 1;"
        f"create definer = {schema}@'%' procedure p() insert into t values (2);"
        "create event e on schedule every 1 year do insert into t values (3); insert into t values (7)",
        schema,
    )
    with database(url).dump(UNKNOWN_LINE, no_workspace, nothing) as dump:
        content = b"".join(dump.content())
        assert dump.view().row_counts(UNKNOWN_LINE) == {"t": 1}
    assert dump.facts["objects"] == ["event", "routine", "trigger", "view"]
    for words in (b"trigger g ", b"PROCEDURE `p`", b"VIEW `v`", b"EVENT `e`"):
        assert words in content
    reader = DumpReader()
    reader.feed(content)
    reader.finish()
    assert sorted(reader.objects) == dump.facts["objects"], "the dump alone tells of them as well"


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("socket", [False, True], ids=["tcp", "socket"])
@pytest.mark.parametrize("password", NASTY_PASSWORDS)
def test_any_password_works(maria_server: MariaServer, schema: str, url: str, password: str, socket: bool) -> None:
    del url
    maria_server.execute(f"alter user {schema}@'%' identified by {literal(password)}")
    maria_server.execute("create table if not exists t (id int)", schema)
    with_password = database(maria_server.url(schema, schema, password, socket=socket))
    with_password.check()
    if not socket:
        assert b"CREATE TABLE `t`" in dumped(with_password)


def own_processes() -> dict[int, bytes]:
    """The arguments and environments of this process's children."""
    found = {}
    for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text(encoding="ascii").split():
        found[int(pid)] = b"".join(Path("/proc", pid, name).read_bytes() for name in ("cmdline", "environ"))
    return found


def test_no_process_shows_the_password(maria_server: MariaServer, schema: str, url: str) -> None:
    maria_server.execute("create table t (x longtext)", schema)
    maria_server.execute("insert into t select repeat('x', 100000) from seq_1_to_50", schema)
    before = set(own_processes())
    with database(url).dump(UNKNOWN_LINE, no_workspace, nothing) as dump:
        pieces = dump.content()
        next(pieces)
        shown = {pid: text for pid, text in own_processes().items() if pid not in before}
        assert any(b"mariadb-dump" in text for text in shown.values())
        assert not any(b"secret-" in text for text in shown.values())
        for pid in shown:
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                if "memfd" in os.readlink(descriptor):
                    assert stat.S_IMODE(descriptor.stat().st_mode) == 0o600
        for _piece in pieces:
            pass
    with MysqlView(parse_database_url(url, "the test")) as view:
        shown = {pid: text for pid, text in own_processes().items() if pid not in before}
        assert shown
        assert not any(b"secret-" in text for text in shown.values())
        assert view.tables() == ("t",)


def test_the_option_file_needs_no_memory_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with option_file([("password", 'a"b\\c')], secret=True) as descriptor:
        assert os.pread(descriptor, 100, 0) == b'[client]\npassword="a\\"b\\\\c"\n'
        status = os.fstat(descriptor)
        assert (status.st_nlink, stat.S_IMODE(status.st_mode)) == (0, 0o600)


#: Stands for an engine: it runs what it is told on this host, with nothing but the variables that it was named.
DOCKER = """#!/bin/sh
printf '%s\\n' "$*" >>"$(dirname "$0")/arguments"
[ "$1 $2" = "exec -i" ] || exit 1
shift 2
keep=
while [ "$1" = -e ]; do keep="$keep $2=\\"\\$$2\\""; shift 2; done
[ "$1" = "the-server" ] || { echo "Error: No such container: $1" >&2; exit 1; }
shift
[ "$1" != mariadb-dump ] || { echo "OCI runtime exec failed: executable file not found in \\$PATH" >&2; exit 127; }
eval "exec env -i PATH=/usr/bin:/bin $keep \\"\\$@\\""
"""


def test_in_a_container_the_password_travels_by_the_environment(
    maria_server: MariaServer, schema: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maria_server.execute("create table t (id int)", schema)
    (tmp_path / "docker").write_text(DOCKER, encoding="ascii")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    inside = dataclasses.replace(parse_database_url(url, "the test"), container="docker:the-server")
    source = MysqlDatabase(inside, "the test")
    source.check()
    with source.dump(UNKNOWN_LINE, no_workspace, nothing) as dump:
        assert b"CREATE TABLE `t`" in b"".join(dump.content())
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8")
    assert "-e MYSQL_PWD the-server mysqldump --host=127.0.0.1" in arguments
    assert "secret-" not in arguments
    gone = MysqlDatabase(dataclasses.replace(inside, container="docker:another"), "the test")
    with pytest.raises(DatabaseError, match="container of the server does not run"):
        gone.check()


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def error_of(source: MysqlDatabase) -> BackupError:
    with pytest.raises(BackupError) as caught:
        source.check()
        dumped(source)
    for secret in source.place.secrets:
        assert secret not in caught.value.message
    return caught.value


def test_each_trouble_has_its_own_message(maria_server: MariaServer, schema: str, url: str) -> None:
    good = parse_database_url(url, "the test")
    maria_server.execute("create table t (id int)", schema)

    def changed(**fields: str | int) -> str:
        return error_of(MysqlDatabase(dataclasses.replace(good, **fields), "the test")).message  # type: ignore[arg-type]

    assert "the server refuses the login; correct the URL's user and password" in changed(password="wrong-one")
    assert "the server refuses the login" in changed(user="nobody-here")
    assert "no such database, or the account has no rights on it" in changed(name="nowhere")
    maria_server.execute(f"grant select on *.* to {schema}@'%'")
    assert "the server has no such database; correct the URL's name" in changed(name="nowhere")
    maria_server.execute(f"revoke select on *.* from {schema}@'%'")
    assert "the server cannot be reached" in changed(port=1)
    assert "the server cannot be reached" in changed(host="/nowhere/server.sock")
    assert "the server cannot be reached" in changed(host="host.invalid")
    assert "(the test)" in changed(port=1)


def test_an_empty_schema_is_no_papermerge(url: str) -> None:
    assert "has no table that" in error_of(database(url)).message


def test_too_few_rights_are_an_error_and_not_a_smaller_dump(maria_server: MariaServer, schema: str, url: str) -> None:
    maria_server.execute("create table t (id int); create function f() returns int return 1", schema)
    maria_server.execute(
        f"revoke all privileges on {schema}.* from {schema}@'%'; grant insert, execute on {schema}.* to {schema}@'%'"
    )
    error = error_of(database(url))
    assert "the account has not enough rights" in error.message
    maria_server.execute(f"grant select on {schema}.* to {schema}@'%'")
    error = error_of(database(url))
    assert "may not read a routine of somebody else; GRANT SELECT ON mysql.proc" in error.message
    assert "insufficient privileges to SHOW CREATE FUNCTION `f`" in error.message
    maria_server.execute(f"grant select on mysql.proc to {schema}@'%'")
    assert b"FUNCTION `f`" in dumped(database(url))


def test_a_missing_client_is_named(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "PROGRAM_DIRECTORIES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="neither mariadb-dump nor mysqldump; install mariadb-client"):
        database(url).check()
    dump = shutil.which("mariadb-dump", path="/usr/bin")
    assert dump
    (tmp_path / "mysqldump").symlink_to(dump)
    with pytest.raises(ToolError, match="neither mariadb nor mysql; install mariadb-client"):
        database(url).check()


@contextmanager
def own_server() -> Iterator[tuple[MariaServer, MysqlDatabase]]:
    with MariaServer() as server:
        server.create_database("papermerge")
        server.create_user("owner", "its-password")
        server.execute("grant all on papermerge.* to owner@'%'; create table papermerge.t (x longtext)")
        server.execute("insert into t select repeat('x', 1000000) from seq_1_to_60", "papermerge")
        yield server, database(server.url("papermerge", "owner", "its-password"))


def test_a_server_that_stops_in_the_middle_is_told() -> None:
    with own_server() as (server, source):
        with source.dump(UNKNOWN_LINE, no_workspace, nothing) as dump:
            pieces = dump.content()
            next(pieces)
            server.kill()
            with pytest.raises(DatabaseError, match="the server ended the connection; see its log"):
                for _piece in pieces:
                    pass
        with pytest.raises(DatabaseError, match="the server cannot be reached"):
            source.check()


def test_a_view_whose_connection_is_cut_says_so(maria_server: MariaServer, url: str) -> None:
    with Session(parse_database_url(url, "the test")) as session:
        maria_server.execute(f"kill {session.value('select connection_id()')}")
        with pytest.raises(DatabaseError, match="the server ended the connection"):
            session.value("select 1")


@pytest.mark.parametrize(
    ("words", "kind", "advice"),
    [
        (
            "mysqldump: Error 2020: Got packet bigger than 'max_allowed_packet' bytes",
            DatabaseError,
            "max_allowed_packet",
        ),
        ("ERROR 1114 (HY000) at line 4: The table 't' is full", SpaceError, "no room"),
        ("ERROR 1273 (HY000) at line 1: Unknown collation: 'utf8mb4_0900_ai_ci'", DatabaseError, "newer server"),
        ("ERROR 1251 (08004): Client does not support authentication protocol", ToolError, "its own client"),
        ("ERROR 2026 (HY000): TLS/SSL error: self-signed certificate", DatabaseError, "ssl_mode"),
        (
            'mysqldump: Got error: 1040: "Too many connections" when trying to connect',
            DatabaseError,
            "no connection left",
        ),
        ("something else with hidden in it", DatabaseError, "something else with ********"),
    ],
)
def test_what_servers_say_is_explained(words: str, kind: type[BackupError], advice: str) -> None:
    error = explain(DatabasePlace("mysql", name="papermerge", password="hidden"), "read", words)
    assert error.__class__ is kind
    assert advice in error.message


# -- two vendors -------------------------------------------------------------------------------------------------------

VERSIONS = {
    "mysqldump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)": (MARIADB, (10, 11)),
    "mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux (x86_64)": (MARIADB, (11, 4)),
    "mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)": (MYSQL, (8, 0)),
    "mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)": (MYSQL, (5, 7)),
    "mysqldump  Ver 9.7.4-2 for Linux on x86_64 ((Debian))": (MYSQL, (9, 7)),
}


@pytest.mark.parametrize("words", VERSIONS)
def test_the_vendors_clients_are_told_apart(words: str) -> None:
    program = parse_client_version("/usr/bin/mysqldump", words)
    assert (program.flavour, program.version) == VERSIONS[words]
    options = dump_options(program, events=False)
    assert ("--set-gtid-purged=OFF" in options) == (program.flavour == MYSQL)
    assert ("--column-statistics=0" in options) == (program.flavour == MYSQL and program.version >= (8, 0))
    assert "--events" not in options


def test_tls_is_told_to_each_vendor_in_its_words() -> None:
    place = parse_database_url("mysql://u:p@db:3307/papermerge?ssl_mode=REQUIRED&ssl_ca=/etc/ca.pem&charset=utf8", "x")
    oracle = ClientProgram("/usr/bin/mysql", MYSQL, (8, 0), "")
    maria = ClientProgram("/usr/bin/mariadb-dump", MARIADB, (10, 11), "")
    common = [("host", "db"), ("port", "3307"), ("user", "u")]
    tls = [("ssl-mode", "REQUIRED"), ("ssl-ca", "/etc/ca.pem")]
    assert connection_options(place, oracle) == [("connect-timeout", "15"), *common, *tls]
    told = [("ssl", ""), ("disable-ssl-verify-server-cert", ""), ("ssl-ca", "/etc/ca.pem")]
    assert connection_options(place, maria) == [*common, *told]
    with pytest.raises(SettingError, match="ssl_mode 'perhaps'"):
        connection_options(parse_database_url("mysql://db/x?ssl_mode=perhaps", "x"), oracle)


def test_tls_that_the_server_has_not_is_an_error(maria_server: MariaServer, url: str) -> None:
    assert maria_server.rows("select @@have_ssl") == [("DISABLED",)]
    with pytest.raises(DatabaseError, match="TLS fails; set ssl_mode"):
        database(url + "?ssl_mode=required").check()


def test_an_account_without_password_comes_in_as_the_user_of_its_name(maria_server: MariaServer, schema: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    account = "nobody"
    maria_server.execute("install soname 'auth_socket'") if not maria_server.rows(
        "select 1 from information_schema.plugins where plugin_name = 'unix_socket'"
    ) else None
    maria_server.execute(f"create or replace user {account}@localhost identified via unix_socket")
    maria_server.execute(
        f"grant all on {identifier(schema)}.* to {account}@localhost; create table {schema}.t (id int)"
    )
    place = DatabasePlace("mysql", name=schema, host=str(maria_server.socket), user=account)
    source = MysqlDatabase(place, "the test")
    source.check()
    assert b"CREATE TABLE `t`" in dumped(source)
    assert shared_client.Client(place, {}).changes_user
    assert subprocess.run(["pgrep", "-u", account, "mariadb"], check=False).returncode == 1, "nothing is left running"
