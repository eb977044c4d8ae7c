# SPDX-License-Identifier: GPL-3.0-or-later
"""Papermerge 2.1 and 3.0 to 3.2: Django, uuids, a row a version."""

from __future__ import annotations

import hashlib
import uuid

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
core_user
  password str128
  last_login time null
  is_superuser bool
  username str150 unique
  email str254
  is_active bool
  date_joined time
  id uuid key
  created_at time
  home_folder_id uuid null unique -> core_folder.basetreenode_ptr_id
  inbox_folder_id uuid null unique -> core_folder.basetreenode_ptr_id
core_user_groups
  id serial key
  user_id uuid -> core_user.id
  group_id int -> auth_group.id
core_basetreenode
  id uuid key
  ctype str16 null
  title str200
  lang str8
  created_at time
  updated_at time
  parent_id uuid null -> core_basetreenode.id
  user_id uuid -> core_user.id
core_folder
  basetreenode_ptr_id uuid key -> core_basetreenode.id
core_document
  basetreenode_ptr_id uuid key -> core_basetreenode.id
  ocr bool
  ocr_status str32
core_documentversion
  id uuid key
  lang str8
  number int
  file_name str1024 null
  size bigint
  page_count int
  short_description str128
  text text
  document_id uuid -> core_document.basetreenode_ptr_id
core_page
  id uuid key
  number int
  page_count int
  text text
  lang str8
  image str1024
  document_version_id uuid -> core_documentversion.id
core_tag
  slug str100 unique
  id uuid key
  bg_color str7
  fg_color str7
  description text null
  pinned bool
  name str100
  user_id uuid -> core_user.id
core_coloredtag
  id serial key
  object_id uuid
  content_type_id int -> django_content_type.id
  tag_id uuid -> core_tag.id
"""
_TOKENS = """
knox_authtoken
  digest str128 key
  created time
  user_id uuid -> core_user.id
  token_key str25
"""


def build(builder: Builder) -> None:
    has_tokens = builder.line == "2.1"
    database = builder.use_schema(_SCHEMA + (_TOKENS if has_tokens else ""))
    builder.add_migrations()
    types = [database.add("django_content_type", app_label="core", model=model) for model in ("folder", "document")]
    group = database.add("auth_group", name="family")
    users = [builder.new_id() for _name in USERS]
    for user, name in zip(users, USERS):
        special = [_add_folder(builder, title, user, None) for title in (".home", ".inbox")]
        database.add(
            "core_user",
            id=user,
            username=name,
            password=f"pbkdf2_sha256$320000${name}$x",
            is_superuser=name == "admin",
            home_folder_id=special[0],
            inbox_folder_id=special[1],
        )
        database.add("core_user_groups", user_id=user, group_id=group)
    if has_tokens:
        database.add("knox_authtoken", digest="abc' \\ 100%", user_id=users[0], token_key="abc")
    folders = [_add_folder(builder, title, users[0], None) for title in FOLDERS]
    tags = [
        database.add("core_tag", id=builder.new_id(), slug=f"tag-{name}", name=name, user_id=users[0]) for name in TAGS
    ]
    database.add("core_coloredtag", object_id=folders[1], content_type_id=types[0], tag_id=tags[0])
    for plan in builder.plans:
        if plan.is_deleted:
            continue  # a signal removes its files with its rows
        node = builder.new_id()
        database.add(
            "core_basetreenode",
            id=node,
            ctype="document",
            title=f"{len(database.rows['core_document'])} {plan.versions[-1].file_name}",
            lang="deu",
            parent_id=folders[plan.folder],
            user_id=users[plan.owner],
        )
        database.add("core_document", basetreenode_ptr_id=node, ocr=True, ocr_status="UNKNOWN")
        for tag in plan.tags:
            database.add("core_coloredtag", object_id=node, content_type_id=types[1], tag_id=tags[tag])
        if builder.line == "2.1":
            _add_numbered_versions(builder, plan, node, users[plan.owner])
        else:
            add_versions(builder, plan, node, "core_documentversion", "core_page")


def _add_folder(builder: Builder, title: str, user: uuid.UUID, parent: uuid.UUID | None) -> uuid.UUID:
    node = builder.new_id()
    builder.database.add(
        "core_basetreenode", id=node, ctype="folder", title=title, lang="deu", user_id=user, parent_id=parent
    )
    builder.database.add("core_folder", basetreenode_ptr_id=node)
    return node


def _add_numbered_versions(builder: Builder, plan: DocumentPlan, node: uuid.UUID, user: uuid.UUID) -> None:
    """2.1: docs/user_U/document_D/vN/NAME. A second upload gets number 1 again: of the same name, the same file."""
    for position, version in enumerate(plan.versions):
        number = 1 if plan.note == "uploaded again" else position + 1
        row = builder.new_id()
        builder.database.add(
            "core_documentversion",
            id=row,
            lang="deu",
            number=number,
            file_name=version.file_name,
            size=version.recorded_size,
            page_count=version.page_count,
            text=builder.page_text(),
            document_id=node,
        )
        _add_pages(builder, "core_page", row, version.page_count)
        if version.content is None:
            builder.never_uploaded += 1
            continue
        place = f"user_{user}/document_{node}/v{number}/"
        builder.expected.append(builder.add_original(f"docs/{place}{version.file_name}", version.content))
        if version.overwritten is not None:
            builder.unnamed.add(builder.add_original(f"docs/{place}{version.overwritten[0]}", version.overwritten[1]))
        pages = f"sidecars/{place}pages/"
        builder.add_derived(f"{pages}000001/000001_ocr.svg", f"{pages}000001/000001_ocr_hocr.txt", f"{pages}001-1.jpg")


def add_versions(
    builder: Builder, plan: DocumentPlan, node: uuid.UUID, versions: str, pages: str, *, is_named: bool = True
) -> None:
    """3.x: docvers/AA/BB/UUID/NAME, and what is derived by the ids of pages. Fills the tables versions and pages.

    `is_named` False: rows and files of a document whose node is gone.
    """
    for position, version in enumerate(plan.versions):
        row = builder.new_id()
        values = {}
        if version.content is not None and builder.line == "3.6":
            values = {"checksum": hashlib.sha256(version.content).hexdigest(), "checksum_algorithm": "sha256"}
        builder.database.add(
            versions,
            id=row,
            lang="deu",
            number=position + 1,
            file_name=version.file_name,
            size=version.recorded_size,
            page_count=version.page_count,
            text=builder.page_text(),
            document_id=node,
            **values,
        )
        first_page = _add_pages(builder, pages, row, version.page_count)
        if version.content is None:
            builder.never_uploaded += 1
            continue
        place = f"docvers/{sharded(row)}/"
        path = builder.add_original(f"{place}{version.file_name}", version.content)
        if first_page is None:
            builder.unprocessed.add(path)
            continue
        if is_named:
            builder.expected.append(path)
        else:
            builder.unnamed.add(path)
            builder.orphan_rows += 1
        if version.overwritten is not None:
            builder.unnamed.add(builder.add_original(f"{place}{version.overwritten[0]}", version.overwritten[1]))
        page = sharded(first_page)
        builder.add_derived(*(f"ocr/pages/{page}/page.{suffix}" for suffix in ("txt", "svg", "hocr", "jpg")))
        if builder.version >= "3.5.2":
            builder.add_derived(f"thumbnails/jpg/{page}/sm.jpg", f"previews/pages/{page}/md.jpg")
        else:
            builder.add_derived(f"thumbnails/jpg/{page}/100.jpg")


def sharded(identity: uuid.UUID) -> str:
    """Return AA/BB/UUID."""
    text = str(identity)
    return f"{text[:2]}/{text[2:4]}/{text}"


def _add_pages(builder: Builder, table: str, version: uuid.UUID, page_count: int) -> uuid.UUID | None:
    added = [
        builder.database.add(
            table,
            id=builder.new_id(),
            number=number,
            page_count=page_count,
            lang="deu",
            text=builder.page_text(),
            document_version_id=version,
        )
        for number in range(1, page_count + 1)
    ]
    return added[0] if added else None
