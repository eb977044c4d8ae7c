# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database is besides its tables: encoding, locale, settings, grants, roles and extensions that it needs."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Tuple

from .session import Session, quote_name, quote_text

#: Everything about the database itself that pg_dump leaves out, and what a restore has to know beforehand.
_FACTS = """
select json_build_object(
  'server_version', current_setting('server_version'),
  'version_number', current_setting('server_version_num')::int,
  'encoding', pg_encoding_to_char(d.encoding),
  'locale', json_build_object('collate', d.datcollate, 'ctype', d.datctype{provider}),
  'owner_role', pg_get_userbyid(d.datdba),
  'settings', (select coalesce(json_agg(s.entry), '[]') from (
     select unnest(setconfig) as entry from pg_db_role_setting where setdatabase = d.oid and setrole = 0) s),
  'owner_settings', (select coalesce(json_agg(s.entry), '[]') from (
     select unnest(setconfig) as entry from pg_db_role_setting where setdatabase = d.oid and setrole = d.datdba) s),
  'search_path', (select setting from pg_settings where name = 'search_path' and source in ('user', 'database user')),
  'schemas', to_json(current_schemas(false)),
  'grants', (select json_agg(json_build_array(
       case when a.grantee = 0 then null else pg_get_userbyid(a.grantee) end, a.privilege_type, a.is_grantable))
     from aclexplode(d.datacl) a),
  'roles', (select coalesce(json_agg(r.rolname), '[]') from pg_roles r where r.oid in (
     select s.refobjid from pg_shdepend s
       where s.dbid = d.oid and s.refclassid = 'pg_authid'::regclass and s.deptype in ('a', 'r')
     union select defaclrole from pg_default_acl)),
  'extensions', (select coalesce(json_agg(json_build_array(e.extname, e.extversion)), '[]') from pg_extension e
     where e.extname <> 'plpgsql'))
from pg_database d where d.datname = current_database()
"""
#: Which library compares text: named since 15, its rules since 16, its locale renamed in 17.
_PROVIDERS = (
    (170000, ", 'provider', d.datlocprovider, 'icu', d.datlocale, 'rules', d.daticurules"),
    (160000, ", 'provider', d.datlocprovider, 'icu', d.daticulocale, 'rules', d.daticurules"),
    (150000, ", 'provider', d.datlocprovider, 'icu', d.daticulocale"),
    (0, ""),
)
#: Where the choice of a library begins.
PROVIDER_VERSION = 150000
#: Settings that are lists of names, each of which is quoted by itself, as in pg_dumpall.
_LIST_SETTINGS = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
)
_LIST_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",]*?))\s*(?:,|$)')


def read_facts(session: Session) -> Dict[str, Any]:
    """Return what a restore has to know of a database besides its dump.

    ``roles`` are those that its objects' grants, default privileges and policies name, and those of its own grants.
    """
    provider = next(columns for since, columns in _PROVIDERS if session.version >= since)
    facts: Dict[str, Any] = json.loads(session.value(_FACTS.format(provider=provider)))
    # The owner's own rights come with the database.
    grantees = {grant[0] for grant in facts["grants"] or []} - {None, facts["owner_role"]}
    facts["roles"] = sorted(set(facts["roles"]) | grantees)
    return facts


def locale_options(locale: Dict[str, Any], server: int) -> List[str]:
    """Return the options of CREATE DATABASE that give it the source's order and classes of characters.

    ``server``: the target's version as a number.
    """
    options = []
    provider = locale.get("provider")
    if provider == "i":
        options += ["locale_provider icu", "icu_locale {0}".format(quote_text(locale["icu"]))]
        if locale.get("rules"):
            options.append("icu_rules {0}".format(quote_text(locale["rules"])))
    elif provider == "b":
        options += ["locale_provider builtin", "builtin_locale {0}".format(quote_text(locale["icu"]))]
    elif server >= PROVIDER_VERSION:
        # The cluster's own choice may be another one.
        options.append("locale_provider libc")
    for option, name in (("lc_collate", "collate"), ("lc_ctype", "ctype")):
        if locale.get(name):
            options.append("{0} {1}".format(option, quote_text(locale[name])))
    return options


def settings_of(facts: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return the settings that a restored database gets, by name and value.

    Those of the source's owner in this database become the database's own, and so does a search path that was its
    role's: the role may be new, and Papermerge has to find its tables.
    """
    found: Dict[str, str] = {}
    for entry in list(facts.get("settings") or []) + list(facts.get("owner_settings") or []):
        name, _equals, value = entry.partition("=")
        found[name] = value
    if facts.get("search_path") is not None:
        found.setdefault("search_path", facts["search_path"])
    return list(found.items())


def setting_statements(database: str, settings: List[Tuple[str, str]]) -> List[str]:
    """Return what gives a database its settings."""
    return [
        "alter database {0} set {1} to {2}".format(quote_name(database), quote_name(name), _setting_value(name, value))
        for name, value in settings
    ]


def grant_statements(database: str, facts: Dict[str, Any]) -> List[str]:
    """Return what gives a database, on which only its owner has rights, the source's grants."""
    name = quote_name(database)
    grants = facts.get("grants")
    if grants is None:
        # What every new database has.
        return ["grant connect, temporary on database {0} to public".format(name)]
    return [
        "grant {0} on database {1} to {2}{3}".format(
            privilege.lower(),
            name,
            "public" if grantee is None else quote_name(grantee),
            " with grant option" if grantable else "",
        )
        for grantee, privilege, grantable in grants
        # The owner has all rights.
        if grantee != facts.get("owner_role")
    ]


def _setting_value(name: str, value: str) -> str:
    if name.lower() not in _LIST_SETTINGS:
        return quote_text(value)
    items, position = [], 0
    while True:
        item = _LIST_ITEM.match(value, position)
        if item is None:
            return quote_text(value)
        items.append(item.group(2) if item.group(1) is None else item.group(1).replace('""', '"'))
        position = item.end()
        if position >= len(value) and not item.group().endswith(","):
            return ", ".join(quote_text(text) for text in items)
