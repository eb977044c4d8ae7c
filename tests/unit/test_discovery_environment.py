# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that the environment alone tells: Papermerge 3.3 and later, and containers of any release."""

from __future__ import annotations

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.place import DatabasePlace
from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.sources import (
    settings_from_environment,
    source_of_environment,
)


@pytest.mark.parametrize("version", ["3.3", "3.4.1", "3.5.3"])
def test_defaults_of_3_3_to_3_5(version: str) -> None:
    found = settings_from_environment({}, version, "/core_app", "container web")
    assert (found.media_root, found.database.path, found.storage) == ("/core_app/media", "/db/db.sqlite3", None)
    assert found.database_found_in == (
        f"default of Papermerge {version}; PAPERMERGE__DATABASE__URL is not set in container web"
    )


def test_a_relative_database_lies_below_the_working_directory() -> None:
    environment = {"PAPERMERGE__DATABASE__URL": "sqlite:///data/100%25#1.db?timeout=5"}
    found = settings_from_environment(environment, "3.4", "/core_app", "here")
    assert found.database.path == "/core_app/data/100%25#1.db", "SQLAlchemy decodes nothing in it"


def test_names_are_found_in_any_case_and_an_empty_one_counts_as_not_set() -> None:
    environment = {
        "papermerge__main__media_root": "/lower",
        "PAPERMERGE__DATABASE__URL": "",
        "PM_MEDIA_ROOT": "/other",
        "pm_media_root": "/never",
    }
    found = settings_from_environment(environment, "3.5.3", "/core_app", "here")
    assert (found.media_root, found.media_found_in) == ("/lower", "papermerge__main__media_root in here")
    assert found.database.path == "/db/db.sqlite3"
    environment["PM_DB_URL"] = "postgresql://h/pm"
    assert settings_from_environment(environment, "3.6.0", "/core_app", "here").media_root == "/other"


@pytest.mark.parametrize("value", ["true", "1", "YES", "on", "t"])
def test_3_6_connects_with_ssl_when_it_is_told_to(value: str) -> None:
    environment = {"PM_DB_URL": "postgresql+asyncpg://me@h/pm?ssl=prefer&connect_timeout=3", "PM_DB_SSL": value}
    place = settings_from_environment(environment, "3.6.0", "/core_app", "here").database
    assert place.options == (("connect_timeout", "3"), ("sslmode", "require"))
    environment["PM_DB_SSL"] = "false"
    place = settings_from_environment(environment, "3.6.0", "/core_app", "here").database
    assert place.options == (("sslmode", "prefer"), ("connect_timeout", "3"))


def test_3_6_without_a_database_is_an_error_that_says_what_to_set() -> None:
    environment = {"PAPERMERGE__DATABASE__URL": "postgresql://old/pm", "PM_MEDIA_ROOT": "/m"}
    with pytest.raises(SettingError, match="PM_DB_URL, which is not set in container web") as caught:
        settings_from_environment(environment, "3.6.0", "/core_app", "container web")
    assert "set papermerge_backup_database_url" in caught.value.message
    source = source_of_environment(environment, "3.6.0", "/core_app", "container web")
    assert source.media() == ("/m", "PM_MEDIA_ROOT in container web")


@pytest.mark.parametrize("version", ["3.7.0", "4.1", "latest"])
def test_a_release_that_is_not_known_yet_may_have_either_names(version: str) -> None:
    found = settings_from_environment({"PM_DB_URL": "postgresql://h/new"}, version, "/core_app", "here")
    assert found.database.name == "new"
    found = settings_from_environment({"PAPERMERGE__DATABASE__URL": "postgresql://h/old"}, version, "/core_app", "here")
    assert found.database.name == "old"


@pytest.mark.parametrize(
    ("version", "environment", "expected"),
    [
        ("3.6.0", {"PM_STORAGE_BACKEND": "s3", "PM_BUCKET_NAME": "b"}, ("s3", "b", True)),
        ("3.6.0", {"PM_STORAGE_BACKEND": "R2"}, ("r2", "", True)),
        ("3.6.0", {"PM_STORAGE_BACKEND": "gcs", "PM_BUCKET_NAME": "b"}, ("gcs", "b", True)),
        ("3.6.0", {"PM_STORAGE_BACKEND": "local", "PM_BUCKET_NAME": "b"}, None),
        ("3.6.0", {"PAPERMERGE__MAIN__FILE_SERVER": "s3"}, None),
        ("3.5.3", {"PAPERMERGE__MAIN__FILE_SERVER": "s3", "PAPERMERGE__S3__BUCKET_NAME": "b"}, ("s3", "b", False)),
        ("3.4", {"PAPERMERGE__MAIN__FILE_SERVER": "s3"}, ("s3", "", False)),
        ("3.4", {"PAPERMERGE__S3__BUCKET_NAME": "b"}, ("s3", "b", False)),
        ("3.4", {"PAPERMERGE__MAIN__FILE_SERVER": "local", "PM_STORAGE_BACKEND": "r2"}, None),
        ("2.1.9", {"PAPERMERGE__S3__BUCKET_NAME": "b"}, None),
    ],
)
def test_originals_in_a_bucket_are_told_from_a_mirror(
    version: str, environment: dict[str, str], expected: tuple[str, str, bool] | None
) -> None:
    found = settings_from_environment({"PM_DB_URL": "postgresql://h/pm", **environment}, version, "/core_app", "here")
    storage = found.storage
    assert (storage and (storage.backend, storage.bucket, storage.only)) == expected


def test_images_of_1_x_and_2_0_keep_media_where_their_settings_files_say() -> None:
    environment = {"POSTGRES_DB": "pm", "POSTGRES_PASSWORD": "p", "POSTGRES_HOST": "pg"}
    found = settings_from_environment(environment, "2.0.1", "/opt/app", "container app")
    assert found.database == DatabasePlace("postgresql", name="pm", user="dbuser", password="p", host="pg", port=5432)
    assert (found.media_root, found.database_found_in) == ("/opt/media", "POSTGRES_DB in container app")
    found = settings_from_environment({}, "2.0.1", "/app/papermerge", "container app")
    assert (found.media_root, found.database.path) == ("/data/media", "/data/papermerge.db")
