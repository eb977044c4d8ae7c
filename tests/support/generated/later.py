# SPDX-License-Identifier: GPL-3.0-or-later
"""Papermerge 3.3 to 3.6: SQLAlchemy, tables without prefix, groups that own, and in 3.6 functions and triggers."""

from __future__ import annotations

import datetime
import decimal
import uuid

from tests.support.generated.builder import Builder
from tests.support.generated.content import FOLDERS, TAGS, USERS
from tests.support.generated.middle import add_versions
from tests.support.generated.tables import BEGIN, Database, Value

_COMMON = """
alembic_version
  version_num str32 key
permissions
  id uuid key
  name str unique
  codename str unique
groups
  id uuid key
  name str unique
{group_folders}
users
  id uuid key
  username str150 unique
  email str254 unique
  password str255
  is_superuser bool
  is_active bool
{user_folders}
  created_at time
  updated_at time
users_groups
  user_id uuid null -> users.id
  group_id uuid null -> groups.id
nodes
  id uuid key
  title str200
  ctype str8
  lang str8
{owner_cascading}
  parent_id uuid null -> nodes.id
  created_at time
  updated_at time
folders
  node_id uuid key -> nodes.id cascade
document_types
  id uuid key
  name str
  path_template str null
{owner}
  created_at time
documents
  node_id uuid key -> nodes.id cascade
  ocr bool
  ocr_status str
  document_type_id uuid null -> document_types.id
{preview}
document_versions
  id uuid key
  number int
  file_name str null
  document_id uuid -> documents.node_id cascade
  lang str
  text str null
  size int
  page_count int
  short_description str null
{checksum}
pages
  id uuid key
  number int
  page_count int
  lang str
  text str null
  document_version_id uuid -> document_versions.id cascade
tags
  id uuid key
  name str
  fg_color str null
  bg_color str null
  pinned bool
  description str null
{owner}
nodes_tags
  id serial key
  node_id uuid -> nodes.id cascade
  tag_id uuid -> tags.id cascade
custom_fields
  id uuid key
  name str unique
  type str
  extra_data str null
  created_at time
{owner}
document_types_custom_fields
  id serial key
  document_type_id uuid -> document_types.id
  custom_field_id uuid -> custom_fields.id
custom_field_values
  id uuid key
  document_id uuid -> documents.node_id cascade
  field_id uuid -> custom_fields.id
  value_text str null
  value_boolean bool null
  value_date time null
  value_int int null
  value_float float null
  value_monetary numeric null
  created_at time
"""
_DIRECT_PERMISSIONS = """
groups_permissions
  group_id uuid null -> groups.id
  permission_id uuid null -> permissions.id
users_permissions
  user_id uuid null -> users.id
  permission_id uuid null -> permissions.id
"""
_ROLES = """
roles
  id uuid key
  name str unique
roles_permissions
  role_id uuid null -> roles.id
  permission_id uuid null -> permissions.id
users_roles
  role_id uuid null -> roles.id
  user_id uuid null -> users.id
shared_nodes
  id uuid key
  node_id uuid -> nodes.id
  user_id uuid null -> users.id
  group_id uuid null -> groups.id
  role_id uuid -> roles.id
  owner_id uuid -> users.id
  created_at time
"""
_NEWEST = """
ownerships
  id serial key
  owner_type str20
  owner_id uuid
  resource_type str50
  resource_id uuid
  created_at time
special_folders
  id uuid key
  owner_type str20
  owner_id uuid
  folder_type str20
  folder_id uuid -> folders.node_id cascade
  created_at time
api_tokens
  id uuid key
  user_id uuid -> users.id cascade
  name str
  token_hash str unique
  created_at time
  expires_at time null
system_preferences
  id serial key
  preferences text
user_preferences
  user_id uuid key -> users.id cascade
  preferences text
audit_log
  id uuid key
  table_name str63
  record_id uuid
  operation str10
  timestamp time
  username str150
  old_values text null
  audit_message text null
document_search_index
  document_id uuid key -> documents.node_id cascade
  owner_type str20
  owner_id uuid
  lang str10
  title str null
  search_vector vector
  last_updated time
"""
_PREVIEW_STATUS = "create type preview_status as enum ('ready', 'pending', 'failed');\n"
# Ours, not Papermerge's: what matters is that there are functions that find tables and functions of the same schema by
# unqualified names, triggers that write rows of their own, and a comment and a text that look like the end of one.
_PROGRAM = """
create index idx_document_search_vector on document_search_index using gin (search_vector);
create unique index uq_resource_owner on ownerships (resource_type, resource_id);
create function searchable(title text) returns tsvector language sql immutable as
  $$ select to_tsvector('simple', coalesce(title, '')) $$;
create function refresh_search_index() returns trigger language plpgsql as $body$
begin
  -- $$ ; "it's"
  update document_search_index set title = new.title, search_vector = searchable(new.title), last_updated = now()
    where document_id = new.id;
  return new;
end
$body$;
create trigger refresh_search_index after update of title on nodes
  for each row execute function refresh_search_index();
create function write_audit_log() returns trigger language plpgsql as $body$
begin
  insert into audit_log (id, table_name, record_id, operation, timestamp, username, audit_message)
    values (md5(random()::text || clock_timestamp()::text)::uuid, tg_table_name, old.id, tg_op, now(),
            coalesce(current_setting('app.username', true), current_user), 'it''s; $$ \\ done');
  return old;
end
$body$;
create trigger audit_document_versions after update or delete on document_versions
  for each row execute function write_audit_log();
"""


def build(builder: Builder) -> None:
    database = builder.use_schema(_schema(builder))
    if builder.engine == "postgresql" and builder.line == "3.5":
        builder.types = _PREVIEW_STATUS
    if builder.line == "3.6":
        builder.types = _PREVIEW_STATUS
        builder.program = _PROGRAM
    has_groups_that_own = builder.line >= "3.5"
    database.add("alembic_version", version_num=builder.marker)
    permissions = [
        database.add("permissions", id=builder.new_id(), name=name, codename=name) for name in ("node.view", "tag.view")
    ]
    group = database.add("groups", id=builder.new_id(), name="family")
    users = [builder.new_id() for _name in USERS]
    for number, (user, name) in enumerate(zip(users, USERS)):
        _add_user(builder, user, name, is_superuser=number == 0)
        database.add("users_groups", user_id=user, group_id=group)
    _add_permissions(builder, permissions, group, users)
    folders = [_add_folder(builder, title, users[0]) for title in FOLDERS]
    tags = [_owned(builder, "tags", users[0], "tag", name=name, pinned=True, fg_color="#fff") for name in TAGS]
    kind = _owned(builder, "document_types", users[0], "document_type", name="Invoice", path_template="/home/{{ x }}")
    fields = [
        _owned(builder, "custom_fields", users[0], "custom_field", name=name, type=type)
        for name, type in (("Shop", "text"), ("Total", "monetary"), ("Date", "date"), ("Weight", "float"))
    ]
    for field in fields:
        database.add("document_types_custom_fields", document_type_id=kind, custom_field_id=field)
    database.add("nodes_tags", node_id=folders[1], tag_id=tags[2])
    if builder.line >= "3.5":
        role = database.rows["roles"][0][0]
        database.add(
            "shared_nodes", id=builder.new_id(), node_id=folders[1], user_id=users[1], role_id=role, owner_id=users[0]
        )

    # SQLite's foreign keys are off: what belongs to a deleted node stays.
    leaves_orphans = builder.engine == "sqlite"
    for number, plan in enumerate(builder.plans):
        node = builder.new_id()
        owner = users[plan.owner]
        title = f"{number} {plan.versions[-1].file_name}"
        if not plan.is_deleted:
            owner_group = group if has_groups_that_own and plan.note == "image" else None
            _add_node(builder, node, title, "document", owner, folders[plan.folder], owner_group)
        if plan.is_deleted and not leaves_orphans:
            _leave_files(builder, plan.versions[0].content or b"")
            continue
        database.add(
            "documents",
            node_id=node,
            ocr=False,
            ocr_status="UNKNOWN",
            document_type_id=kind if plan.has_fields else None,
            **({"preview_status": "ready"} if builder.line >= "3.5" and plan.tags else {}),
        )
        for tag in plan.tags:
            database.add("nodes_tags", node_id=node, tag_id=tags[tag])
        if plan.has_fields:
            _add_field_values(builder, node, fields)
        add_versions(builder, plan, node, "document_versions", "pages", is_named=not plan.is_deleted)
        if builder.line == "3.6":
            database.add(
                "document_search_index",
                document_id=node,
                owner_type="user",
                owner_id=owner,
                lang="de",
                title=title,
                search_vector="'scan':1A 'it''s':2 'größe':3",
            )
            database.add(
                "audit_log",
                id=builder.new_id(),
                table_name="documents",
                record_id=node,
                operation="INSERT",
                username=USERS[plan.owner],
                old_values='{"a": "\\"\\u00e9\\""}',
            )


def _schema(builder: Builder) -> str:
    """Return the tables of the line. 3.6 keeps owners and special folders in tables of their own."""
    own_tables = builder.line == "3.6"
    owner = "" if own_tables else "  user_id uuid null -> users.id"
    if builder.line == "3.5":
        owner += "\n  group_id uuid null -> groups.id"
    user_folders = [f"  {name}_folder_id uuid null -> folders.node_id cascade" for name in ("home", "inbox")]
    kind = "enum:preview_status" if builder.engine == "postgresql" else "str16"
    common = _COMMON.format(
        group_folders="\n".join(user_folders) if builder.line == "3.5" else "",
        user_folders="" if own_tables else "\n".join(user_folders),
        owner_cascading=owner,
        owner=owner,
        preview=f"  preview_status {kind} null" if builder.line >= "3.5" else "",
        checksum="  checksum str64 null\n  checksum_algorithm str16 null" if own_tables else "",
    )
    rights = _ROLES if builder.line >= "3.5" else _DIRECT_PERMISSIONS
    return common + rights + (_NEWEST if own_tables else "")


def _add_user(builder: Builder, user: uuid.UUID, name: str, *, is_superuser: bool) -> None:
    database = builder.database
    special = {kind: _add_folder(builder, kind, user) for kind in ("home", "inbox")}
    database.add(
        "users",
        id=user,
        username=name,
        email=f"{len(database.rows['users'])}@example.com",
        password=f"$pbkdf2-sha256$29000${name}$x",
        is_superuser=is_superuser,
        is_active=True,
        **({} if builder.line == "3.6" else {f"{kind}_folder_id": folder for kind, folder in special.items()}),
    )
    if builder.line != "3.6":
        return
    for kind, folder in special.items():
        database.add(
            "special_folders",
            id=builder.new_id(),
            owner_type="user",
            owner_id=user,
            folder_type=kind,
            folder_id=folder,
        )
    database.add(
        "api_tokens", id=builder.new_id(), user_id=user, name="it's", token_hash=builder.rng.randbytes(9).hex()
    )
    database.add("user_preferences", user_id=user, preferences='{"lang": "de\\\\"}')
    if is_superuser:
        database.add("system_preferences", preferences="{}")


def _add_permissions(builder: Builder, permissions: list[uuid.UUID], group: uuid.UUID, users: list[uuid.UUID]) -> None:
    database = builder.database
    if builder.line < "3.5":
        database.add("groups_permissions", group_id=group, permission_id=permissions[0])
        database.add("users_permissions", user_id=users[1], permission_id=permissions[1])
        return
    role = database.add("roles", id=builder.new_id(), name="Reader")
    for permission in permissions:
        database.add("roles_permissions", role_id=role, permission_id=permission)
    database.add("users_roles", role_id=role, user_id=users[1])


def _add_folder(builder: Builder, title: str, owner: uuid.UUID) -> uuid.UUID:
    node = builder.new_id()
    _add_node(builder, node, title, "folder", owner, None, None)
    builder.database.add("folders", node_id=node)
    return node


def _add_node(
    builder: Builder,
    node: uuid.UUID,
    title: str,
    ctype: str,
    owner: uuid.UUID,
    parent: uuid.UUID | None,
    group: uuid.UUID | None,
) -> None:
    """A group owns it where there is one, else the user."""
    if builder.line == "3.6":
        _record_owner(builder.database, "node", node, group or owner, "group" if group else "user")
        holder: dict[str, uuid.UUID] = {}
    else:
        holder = {"group_id": group} if group else {"user_id": owner}
    builder.database.add("nodes", id=node, title=title, ctype=ctype, lang="deu", parent_id=parent, **holder)


def _owned(builder: Builder, table: str, owner: uuid.UUID, resource: str, **values: str | bool) -> uuid.UUID:
    identity = builder.new_id()
    if builder.line == "3.6":
        _record_owner(builder.database, resource, identity, owner, "user")
        builder.database.add(table, id=identity, **values)
    else:
        builder.database.add(table, id=identity, user_id=owner, **values)
    return identity


def _record_owner(database: Database, resource: str, identity: uuid.UUID, owner: uuid.UUID, kind: str) -> None:
    database.add("ownerships", owner_type=kind, owner_id=owner, resource_type=resource, resource_id=identity)


def _leave_files(builder: Builder, content: bytes) -> None:
    """The file of a deleted document stays, on PostgreSQL without any row."""
    version = str(builder.new_id())
    place = f"docvers/{version[:2]}/{version[2:4]}/{version}"
    builder.unnamed.add(builder.add_original(f"{place}/gone.pdf", content))


def _add_field_values(builder: Builder, document: uuid.UUID, fields: list[uuid.UUID]) -> None:
    date = BEGIN + datetime.timedelta(days=1)
    values: tuple[dict[str, Value], ...] = (
        {"value_text": "lidl; \\ 'x'"},
        {"value_monetary": decimal.Decimal("12.50")},
        {"value_date": date},
        {"value_float": 0.1},
    )
    for field, value in zip(fields, values):
        builder.database.add("custom_field_values", id=builder.new_id(), document_id=document, field_id=field, **value)
