# SPDX-License-Identifier: GPL-3.0-or-later
"""Papermerge 1.x and 2.0: integer ids, one row a document with the number of its newest version."""

from __future__ import annotations

from tests.support.generated.builder import Builder
from tests.support.generated.content import FOLDERS, TAGS, USERS, DocumentPlan

_SCHEMA = """
django_migrations
  id serial key
  app str255
  name str255
  applied time
django_content_type
  id serial key
  app_label str100
  model str100
auth_group
  id serial key
  name str150 unique
{role}
core_user
  id serial key
  password str128
  last_login time null
  is_superuser bool
  username str150 unique
  email str254
  is_active bool
  date_joined time
  {user_role}
core_basetreenode
  id serial key
  title str200
  lang str8
  created_at time
  updated_at time
  lft int
  rght int
  tree_id int
  level int
  polymorphic_ctype_id int null -> django_content_type.id
  user_id int -> core_user.id
  parent_id int null -> core_basetreenode.id
core_folder
  basetreenode_ptr_id int key -> core_basetreenode.id
core_document
  basetreenode_ptr_id int key -> core_basetreenode.id
  file_name str1024
  notes text null
  size bigint
  page_count int
  text text
  version int null
core_page
  id serial key
  number int
  page_count int
  text text
  lang str8
  image str1024
  user_id int -> core_user.id
  document_id int -> core_document.basetreenode_ptr_id
core_tag
  id serial key
  slug str100 unique
  bg_color str7
  fg_color str7
  user_id int -> core_user.id
  description text null
  pinned bool
  name str100
core_coloredtag
  id serial key
  object_id int
  content_type_id int -> django_content_type.id
  tag_id int -> core_tag.id
core_kvstore
  id serial key
  key str200 null
  value text null
  kv_inherited bool
  kv_type str16
core_kvstorenode
  kvstore_ptr_id int key -> core_kvstore.id
  node_id int null -> core_basetreenode.id
core_kvstorepage
  kvstore_ptr_id int key -> core_kvstore.id
  page_id int null -> core_page.id
core_automate
  id serial key
  name str128 unique
  match str256
  user_id int null -> core_user.id
  dst_folder_id int null -> core_folder.basetreenode_ptr_id
core_access
  id serial key
  access_type str16
  access_inherited bool
  group_id int null -> auth_group.id
  node_id int -> core_basetreenode.id
  user_id int null -> core_user.id
"""
_ROLE = "core_role\n  id serial key\n  name str64\n  created_at time\n"


def build(builder: Builder) -> None:
    has_roles = builder.line == "2.0"
    schema = _SCHEMA.format(
        role=_ROLE if has_roles else "", user_role="role_id int null -> core_role.id" if has_roles else ""
    )
    database = builder.use_schema(schema)
    builder.add_migrations()
    types = [database.add("django_content_type", app_label="core", model=model) for model in ("folder", "document")]
    database.add("auth_group", name="family")
    if has_roles:
        database.add("core_role", name="Employee")
    users = [
        database.add(
            "core_user", username=name, password=f"pbkdf2_sha256$260000${name}$x", is_superuser=name == "admin"
        )
        for name in USERS
    ]
    folders: list[int] = []
    for title in FOLDERS:
        node = database.add(
            "core_basetreenode",
            title=title,
            user_id=users[0],
            parent_id=next(iter(folders), None),
            lang="deu",
            polymorphic_ctype_id=types[0],
        )
        folders.append(database.add("core_folder", basetreenode_ptr_id=node))
    tags = [database.add("core_tag", slug=f"tag-{name}", name=name, user_id=users[0], pinned=True) for name in TAGS]
    database.add("core_automate", name="move", match="it's \\ 100 %", user_id=users[0], dst_folder_id=folders[1])
    for plan in builder.plans:
        if plan.is_deleted or plan.versions[0].file_name is None:
            continue  # deleting removes rows and files; an upload makes the row, with a name
        node = database.add(
            "core_basetreenode",
            title=f"{len(database.rows['core_basetreenode'])} {plan.versions[-1].file_name}",
            user_id=users[plan.owner],
            parent_id=folders[plan.folder],
            lang="deu",
            polymorphic_ctype_id=types[1],
        )
        _add_document(builder, plan, node, users[plan.owner])
        for tag in plan.tags:
            database.add("core_coloredtag", object_id=node, content_type_id=types[1], tag_id=tags[tag])
        if plan.has_fields:
            stored = database.add("core_kvstore", key="total", value="12,50 € \\ 'x'", kv_type="money")
            database.add("core_kvstorenode", kvstore_ptr_id=stored, node_id=node)
            stored = database.add("core_kvstore", key="shop", value="lidl", kv_type="text", kv_inherited=True)
            database.add("core_kvstorepage", kvstore_ptr_id=stored, page_id=len(database.rows["core_page"]))
        database.add("core_access", access_type="allow", node_id=node, user_id=users[plan.owner])


def _add_document(builder: Builder, plan: DocumentPlan, node: int, user: int) -> None:
    newest = plan.versions[-1]
    number = len(plan.versions) - 1
    builder.database.add(
        "core_document",
        basetreenode_ptr_id=node,
        file_name=newest.file_name,
        notes="it's a note" if plan.tags else None,
        # 2.0 leaves the size of the first upload.
        size=plan.versions[0].recorded_size,
        page_count=newest.page_count,
        text=builder.page_text(),
        version=number if number or node % 2 else None,
    )
    for page in range(1, newest.page_count + 1):
        builder.database.add(
            "core_page",
            number=page,
            page_count=newest.page_count,
            text=builder.page_text(),
            lang="deu",
            user_id=user,
            document_id=node,
        )
    if not plan.is_uploaded:
        builder.never_uploaded += 1
        return
    for older, version in enumerate(plan.versions):
        assert version.content is not None
        place = f"user_{user}/document_{node}/" + (f"v{older}/" if older else "")
        path = builder.add_original(f"docs/{place}{version.file_name}", version.content)
        pages = f"results/{place}pages/page_1"
        builder.add_derived(f"{pages}.txt", f"{pages}/100/page-1.jpg", f"{pages}/100/page-1.hocr")
        if older == number:
            builder.expected.append(path)
        else:
            builder.unnamed.add(path)
    builder.not_computable += number
