# SPDX-License-Identifier: GPL-3.0-or-later
"""How a database is written for each engine: a SQLite file, or a script for psql or for MariaDB's client."""

from __future__ import annotations

import datetime
import decimal
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from tests.support.generated.tables import Column, Database, Row, Table, Value
from tests.support.servers import mariadb, postgres

_KINDS = {
    "sqlite": {
        "serial": "integer",
        "int": "integer",
        "bigint": "bigint",
        "bool": "bool",
        "uuid": "char(32)",
        "text": "text",
        "str": "varchar",
        "time": "datetime",
        "float": "real",
        "numeric": "numeric",
        "blob": "blob",
    },
    "postgresql": {
        "serial": "serial",
        "int": "integer",
        "bigint": "bigint",
        "bool": "boolean",
        "uuid": "uuid",
        "text": "text",
        "str": "character varying",
        "time": "timestamp with time zone",
        "float": "double precision",
        "numeric": "numeric",
        "blob": "bytea",
        "vector": "tsvector",
    },
    "mysql": {
        "serial": "int auto_increment",
        "int": "int",
        "bigint": "bigint",
        "bool": "tinyint(1)",
        "uuid": "char(32)",
        "text": "longtext",
        "time": "datetime(6)",
        "float": "double",
        "numeric": "decimal(12, 2)",
        "blob": "longblob",
    },
}
_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_MYSQL_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z", "\0": "\\0"})
_INSERT_BYTES = 256 << 10


def write_sqlite(database: Database, path: Path) -> None:
    """Make a SQLite file, which must not exist."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma synchronous = off")
        connection.execute("begin")
        for table in database.tables.values():
            keys = [f", foreign key ({ours}) references {theirs}" for ours, theirs in _references(table, '"')]
            columns = ", ".join(_definition(column, "sqlite", '"') for column in table.columns)
            connection.execute(f'create table "{table.name}" ({columns}{"".join(keys)})')
            places = ", ".join("?" * len(table.columns))
            rows = [tuple(map(sqlite_value, row)) for row in database.rows[table.name]]
            connection.executemany(f'insert into "{table.name}" values ({places})', rows)
        connection.execute("commit")


def postgres_script(database: Database, types: str = "", program: str = "") -> bytes:
    """Return what psql runs to make the tables: types first, then tables, rows, foreign keys and last the program."""
    pieces = [types]
    for table in database.tables.values():
        columns = ",\n  ".join(_definition(column, "postgresql", '"') for column in table.columns)
        pieces.append(f'create table "{table.name}" (\n  {columns}\n);\n')
    for table in database.tables.values():
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        lines = ["\t".join(map(_copy_value, row)) + "\n" for row in database.rows[table.name]]
        pieces += [f'copy "{table.name}" ({names}) from stdin;\n', *lines, "\\.\n"]
        for column in table.columns:
            if column.kind == "serial":
                sequence = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
                pieces.append(f"do $$ begin perform setval({sequence}, {len(lines) + 1}, false); end $$;\n")
    for table in database.tables.values():
        pieces += [
            f'alter table "{table.name}" add foreign key ({ours}) references {theirs} deferrable initially deferred;\n'
            for ours, theirs in _references(table, '"')
        ]
    return "".join([*pieces, program]).encode()


def mysql_script(database: Database) -> bytes:
    """Return what MariaDB's client runs to make the tables."""
    pieces = ["set names utf8mb4;\nset foreign_key_checks = 0;\nset autocommit = 0;\n"]
    for table in database.tables.values():
        keys = [f",\n  foreign key ({ours}) references {theirs}" for ours, theirs in _references(table, "`")]
        columns = ",\n  ".join(_definition(column, "mysql", "`") for column in table.columns)
        pieces.append(f"create table `{table.name}` (\n  {columns}{''.join(keys)}\n) engine=InnoDB;\n")
        pieces += _inserts(table, database.rows[table.name])
    return "".join([*pieces, "commit;\n"]).encode()


def sqlite_value(value: Value) -> str | int | float | bytes | None:
    """Return a value as Django and SQLAlchemy store it in SQLite, which has no types of its own for most."""
    if isinstance(value, uuid.UUID):
        return value.hex
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    if isinstance(value, decimal.Decimal):
        return str(value)
    return int(value) if isinstance(value, bool) else value


def stored_text(value: Value, engine: str) -> str:
    """Return a key's value as a query prints it."""
    return value.hex if isinstance(value, uuid.UUID) and engine != "postgresql" else str(value)


def _definition(column: Column, engine: str, quote: str) -> str:
    kind = column.kind
    if kind.startswith("enum:"):
        written = kind.removeprefix("enum:") if engine == "postgresql" else "varchar(16)"
    elif kind.startswith("str") and kind != "str":
        written = f"varchar({kind.removeprefix('str')})"
    else:
        written = _KINDS[engine][kind]
    words = [f"{quote}{column.name}{quote}", written]
    if not column.is_nullable:
        words.append("not null")
    if column.is_key:
        words.append("primary key autoincrement" if (engine, kind) == ("sqlite", "serial") else "primary key")
    if column.is_unique:
        words.append("unique")
    return " ".join(words)


def _references(table: Table, quote: str) -> list[tuple[str, str]]:
    found = []
    for column in table.columns:
        if column.reference is not None:
            there, their_column = column.reference
            action = " on delete cascade" if column.cascade else ""
            target = f"{quote}{there}{quote} ({quote}{their_column}{quote}){action}"
            found.append((f"{quote}{column.name}{quote}", target))
    return found


def _copy_value(value: Value) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    return str(value).translate(_COPY_ESCAPES)


def _inserts(table: Table, rows: list[Row]) -> list[str]:
    """As mysqldump writes them: many rows a statement, but not many megabytes."""
    statements: list[str] = []
    waiting: list[str] = []
    size = 0
    for row in rows:
        written = "(" + ",".join(map(_mysql_value, row)) + ")"
        waiting.append(written)
        size += len(written)
        if size > _INSERT_BYTES:
            statements.append(f"insert into `{table.name}` values {','.join(waiting)};\n")
            waiting, size = [], 0
    if waiting:
        statements.append(f"insert into `{table.name}` values {','.join(waiting)};\n")
    return statements


def _mysql_value(value: Value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, str):
        return f"'{value.translate(_MYSQL_ESCAPES)}'"
    plain = sqlite_value(value)
    return f"'{plain}'" if isinstance(plain, str) else str(plain)


def load(server: postgres.PostgresServer | mariadb.MariaServer, name: str, password: str, script: bytes) -> str:
    """Make a role and a database of that name and run the script as the role. Returns the database's URL.

    A role of that name gets the password. Raises ServerError.
    """
    if isinstance(server, postgres.PostgresServer):
        if not server.rows(f"select 1 from pg_roles where rolname = {postgres.literal(name)}"):
            server.create_role(name)
        server.execute(f"alter role {postgres.identifier(name)} password {postgres.literal(password)}")
        server.create_database(name, name)
        server.execute(script, name, role=name)
    else:
        server.execute(f"create user if not exists {mariadb.literal(name)}@'%'")
        server.execute(f"alter user {mariadb.literal(name)}@'%' identified by {mariadb.literal(password)}")
        server.create_database(name, name, "character set utf8mb4")
        server.execute(script, name)
    return server.url(name, name, password)
