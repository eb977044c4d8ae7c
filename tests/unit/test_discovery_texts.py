# SPDX-License-Identifier: GPL-3.0-or-later
"""The readers of discovery: database URLs as Papermerge's users write them, and TOML."""

from __future__ import annotations

import string
import tomllib
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.papermerge.backup.plugins.module_utils.database.place import (
    DatabasePlace,
    parse_database_url,
)
from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.toml import TomlError, Unreadable, read_toml

# --- database URLs --------------------------------------------------------------------------------------------------


def pg(**parts: Any) -> DatabasePlace:
    return DatabasePlace("postgresql", **{"name": "db", "host": "h", **parts})


def my(**parts: Any) -> DatabasePlace:
    return DatabasePlace("mysql", **{"name": "db", "host": "h", **parts})


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:p@h:5432/db", pg(port=5432, user="u", password="p")),
        ("postgresql+psycopg2://u@h/db", pg(user="u")),
        ("postgresql+asyncpg://h/db", pg()),
        ("postgres:///db", pg(host="")),
        ("mysql+pymysql://u:@h/db", my(user="u")),
        ("mariadb://h:3307/db?ssl=true", my(port=3307, options=(("ssl", "true"),))),
        (
            "postgresql://a%40b:p%40s%2Fs%3A%23%25@h/d%20b",
            pg(name="d b", user="a@b", password="p@s/s:#%"),
        ),
        ("postgresql://u:12/34?5#6@h/db", pg(user="u", password="12/34?5#6")),
        ("postgresql://u:p@s@h/db", pg(user="u", password="p@s")),
        ("postgresql://u:12/34@h/db", pg(user="u", password="12/34")),
        ("postgresql://u:a%2Fb/c@h/db", pg(user="u", password="a/b/c")),
        ("postgresql://h:5432/db?user=me@x", pg(port=5432, user="me@x")),
        ("postgresql://u:p@[fe80::1]:5433/db", pg(host="fe80::1", port=5433, user="u", password="p")),
        ("postgresql://%2Frun%2FPg/db", pg(host="/run/Pg")),
        ("postgresql:///db?host=/run/pg&port=5433", pg(host="/run/pg", port=5433)),
        ("mysql://u@/db?unix_socket=/run/my.sock", my(host="/run/my.sock", user="u")),
        ("postgresql://h/db?ssl=disable", pg(options=(("sslmode", "disable"),))),
        ("postgresql://h/db?ssl=True", pg(options=(("sslmode", "require"),))),
        (
            "postgresql://h/db?sslmode=verify-ca&prepared_statement_cache_size=0&sslrootcert=%2Fca",
            pg(options=(("sslmode", "verify-ca"), ("sslrootcert", "/ca"))),
        ),
        ("postgresql://DB.Example.com/x", pg(name="x", host="DB.Example.com")),
        ("sqlite:////db/a%20b", DatabasePlace("sqlite", "/db/a b")),
    ],
)  # fmt: skip
def test_a_url_of_a_server_names_its_place(url: str, place: DatabasePlace) -> None:
    assert parse_database_url(url, "here") == place


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@h:hunter2/db",
        "postgresql://u:hunter2@h",
        "postgresql://u:hunter2@[h/db",
        "postgresql://h/db?port=hunter2&password=hunter2",
        "oracle://u:hunter2@h/db",
        "sqlite://u:hunter2@h/db",
        "u:hunter2@h/db",
        "postgresql://u:#hunter2@",
        "postgresql://u:a@hunter2/b@h/db",
        "postgresql://u:a@hunter2:5/b@h/db",
        "postgresql://u:a@b#hunter2@h/db",
        "postgresql://u:a@hunter2?b@h/db",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(SettingError, match="in PM_DB_URL of unit x") as caught:
        parse_database_url(url, "PM_DB_URL of unit x")
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite://", "sqlite:///", "sqlite+pysqlite://"])
def test_a_database_in_memory_is_no_place(url: str) -> None:
    with pytest.raises(SettingError):
        parse_database_url(url, "here", "/core_app")


def test_a_relative_path_needs_a_directory() -> None:
    assert parse_database_url("sqlite:///data/db", "here", "/core_app").path == "/core_app/data/db"
    assert parse_database_url("sqlite:////data/db", "here", "/core_app").path == "/data/db"
    with pytest.raises(SettingError, match="absolute path"):
        parse_database_url("sqlite:///data/db", "here")


WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
HOST = st.one_of(
    st.just(""),
    st.text(string.ascii_letters + string.digits + "-_", min_size=1).map(lambda text: "h" + text),
    st.just("fe80::1:2"),
    WORD.map(lambda text: "/" + text),
)


@given(
    st.sampled_from(["postgresql", "mysql"]),
    WORD.filter(lambda name: not name.startswith("/")),
    HOST,
    st.integers(0, 65535),
    WORD,
    WORD,
    st.sampled_from(["", "+driver"]),
)
def test_any_place_survives_its_url(
    engine: str, name: str, host: str, port: int, user: str, password: str, driver: str
) -> None:
    options = (("sslmode", "verify-full"), ("sslrootcert", "/ca & ü=1"))
    place = DatabasePlace(engine, name=name, host=host, port=port, user=user, password=password, options=options)
    without = DatabasePlace(engine, name=name, host=host, port=port, user=user, options=options)
    assert parse_database_url(place.url, "here") == without
    scheme, _colon, rest = place.url.partition("://")
    mine, _at, server = rest.partition("@")
    written = f"{scheme}{driver}://{mine}:{quote(password, safe='')}@{server}"
    assert parse_database_url(written, "here") == place
    assert all(
        secret not in repr(place) for secret in [password] if len(password) > 8 and password not in repr(without)
    )


@given(WORD.map(lambda text: "/" + text))
def test_any_sqlite_path_survives_its_url(path: str) -> None:
    place = DatabasePlace("sqlite", parse_database_url("sqlite:////" + quote(path[1:]), "here").path)
    assert parse_database_url(place.url, "here") == place


# --- TOML -----------------------------------------------------------------------------------------------------------

KEY = st.one_of(st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=8), WORD)
SCALAR = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), WORD, st.just(""))
TABLES = st.dictionaries(
    KEY, st.one_of(SCALAR, st.lists(SCALAR, max_size=3), st.dictionaries(KEY, SCALAR, max_size=4)), max_size=5
)


def basic(text: str) -> str:
    escaped = "".join(
        f"\\U{ord(character):08X}" if ord(character) < 32 or character in '"\\\x7f' else character for character in text
    )
    return f'"{escaped}"'


def written(value: object, draw: st.DataObject) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return draw.draw(st.sampled_from([str(value), f"{value:#x}" if value >= 0 else str(value), f"{value:_}"]))
    if isinstance(value, list):
        return "[ # comment ]\n" + "".join(f"  {written(one, draw)},\n" for one in value) + "]"
    assert isinstance(value, str)
    ways = [basic(value), '"""\n' + basic(value)[1:-1] + '"""']
    if not any(ord(character) < 32 or character in "'\x7f" for character in value):
        ways += [f"'{value}'", f"'''{value}'''"]
    return draw.draw(st.sampled_from(ways))


def key(name: str) -> str:
    plain = all(character in string.ascii_letters + string.digits + "_-" for character in name)
    return name if plain else basic(name)


@given(TABLES, st.data())
def test_any_settings_are_read_as_python_reads_them(tables: dict[str, object], data: st.DataObject) -> None:
    lines = ["# settings"]
    inner = {name: table for name, table in tables.items() if isinstance(table, dict)}
    for name, value in tables.items():
        if not isinstance(value, dict):
            lines.append(f"{key(name)} = {written(value, data)}  # 'x")
    for name, table in inner.items():
        pairs = [f"{key(one)} = {written(value, data)}" for one, value in table.items()]
        if data.draw(st.booleans()):
            lines += [f"[ {key(name)} ]\t# comment", *pairs]
        else:
            lines += [f"[{key(name)}.deeper]", *pairs]
            tables = {**tables, name: {"deeper": table}}
    text = data.draw(st.sampled_from(["\n", "\r\n"])).join(lines)
    assert read_toml(text) == tomllib.loads(text) == tables


@given(st.text(st.sampled_from("ab=.[]{}\"'\\#\n\r ,1-_tru"), max_size=30))
def test_no_text_is_read_as_something_else_than_python_reads(text: str) -> None:
    try:
        theirs = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        try:
            read_toml(text)
        except TomlError:
            pass
        return
    mine = read_toml(text)
    assert without_unreadable(mine, theirs) == theirs


def without_unreadable(mine: object, theirs: object) -> object:
    if isinstance(mine, Unreadable):
        assert not isinstance(theirs, (str, bool, dict)) and (not isinstance(theirs, int))
        return theirs
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return {name: without_unreadable(value, theirs.get(name)) for name, value in mine.items()}
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        return [without_unreadable(one, other) for one, other in zip(mine, theirs)]
    return mine


def test_what_is_not_needed_is_passed_over_with_its_line() -> None:
    found = read_toml(
        "a = 1979-05-27 07:32:00Z\nb = 1.5e3\nc = inf\n[[list]]\nx = 1\n[list.inner]\ny = 2\n"
        "[after]\nz = {p.q = 'r', s = [1.0,]}\n"
    )
    assert found == {
        "a": Unreadable(1),
        "b": Unreadable(2),
        "c": Unreadable(3),
        "list": Unreadable(4),
        "after": {"z": {"p": {"q": "r"}, "s": [Unreadable(9)]}},
    }


@pytest.mark.parametrize(
    "text",
    [
        "a = 1 b = 2", "a = 1\na = 2", "a", "a =", "= 1", "a = 'x", 'a = "x\ny"', 'a = "\\q"', 'a = "\\uD800"',
        "a = '''x",
        "a = word", "[a", "[[a]", "a = [1", "a = {b = 1", "a = 1\n[a]", "[" * 5000, "a = " + "[" * 50000, 'a = "\\u12"',
    ],
)  # fmt: skip
def test_what_is_no_toml_is_refused(text: str) -> None:
    with pytest.raises(TomlError):
        read_toml(text)
