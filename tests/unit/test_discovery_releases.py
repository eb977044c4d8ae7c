# SPDX-License-Identifier: GPL-3.0-or-later
"""Discovery of each release line: that it is found, which version it is, and which of its version texts lie."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge import instance as instance_module
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.instance import (
    InstanceRequest,
    require_instance,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.projects import (
    Project,
    find_project,
    is_project,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import release_line_of
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.version import find_version
from tests.support.installations import RELEASES, STALE_INIT, make_installation, pyproject
from tests.support.projects import make_environment, make_project, make_unit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def only(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Discovery sees this root instead of the machine's own, and every version has a release line."""
    monkeypatch.setattr(instance_module, "find_project", lambda explicit: find_project(explicit, str(root)))
    line = replace(release_line_of("2.0.2"), name="any")
    monkeypatch.setattr(instance_module, "release_line_of", lambda version: line)
    return root


@pytest.mark.parametrize("line", RELEASES)
def test_each_release_is_found_with_its_version_and_where_that_stands(root: Path, line: str) -> None:
    directory = make_installation(root / ("core_app" if line.startswith("3") else "opt/papermerge"), line)
    found = find_project(None, str(root))
    assert found is not None
    assert (found.directory, found.is_django) == (str(directory), RELEASES[line].is_django)
    version = find_version(found)
    assert version is not None
    assert version[0] == RELEASES[line].version
    assert version[1].startswith(str(directory)) and version[1].endswith(RELEASES[line].found_in)


def test_each_source_of_a_version_comes_after_the_more_reliable_ones(tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "app", "2.1")
    project = Project(str(directory), "test")
    (directory / "papermerge" / "__init__.py").write_text("VERSION = (1, 5, 5, 'final', 0)\n")
    (directory / "pyproject.toml").write_text(pyproject("papermerge-core", "2.1.8"))
    (directory / "setup.py").write_text("setup(version='1.5.1')\n")
    make_environment(directory / ".venv", "papermerge_core-2.1.7")
    seen = []
    for path in (".venv", "pyproject.toml", "papermerge/core/version.py", "papermerge/core/__init__.py"):
        found = find_version(project)
        assert found is not None
        seen.append(found[0])
        shutil.rmtree(directory / path) if path == ".venv" else (directory / path).unlink()
    found = find_version(project)
    assert found is not None
    assert [*seen, found[0]] == ["2.1.7", "2.1.8", "2.1.9", "2.1.0", "1.5.5"]


def test_a_stale_version_beside_a_version_file_is_never_believed(tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core_app", "3.2")
    (directory / "pyproject.toml").unlink()
    assert (directory / "papermerge" / "core" / "__init__.py").read_text() == STALE_INIT
    assert find_version(Project(str(directory), "test")) is None


@pytest.mark.parametrize("name", ["my-dms", "paperless", "papermerge-cli"])
def test_a_project_of_another_name_is_no_papermerge(tmp_path: Path, name: str) -> None:
    (tmp_path / "pyproject.toml").write_text(pyproject(name, "3.4.1"))
    assert not is_project(str(tmp_path))
    assert find_version(Project(str(tmp_path), "test")) is None


@pytest.mark.parametrize("text", ["name = papermerge", "[project\n", "\0", "[project]\nname = ['papermerge']\n", ""])
def test_a_pyproject_that_cannot_be_read_makes_no_project(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert not is_project(str(tmp_path))


def test_a_tree_with_alembic_and_papermerges_core_is_a_project(tmp_path: Path) -> None:
    (tmp_path / "alembic.ini").write_text("[alembic]\n")
    assert not is_project(str(tmp_path))
    (tmp_path / "papermerge" / "core").mkdir(parents=True)
    assert is_project(str(tmp_path))


@pytest.mark.parametrize("name", [".venv", "venv", "env", "."])
def test_a_virtual_environment_with_papermerge_makes_a_project(tmp_path: Path, name: str) -> None:
    home = tmp_path / "pm" / name
    home.mkdir(parents=True)
    make_environment(home, "other-3.4.1")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert not is_project(str(tmp_path / "pm"))
    (home / "lib" / "python3.8" / "site-packages" / "papermerge-3.4.1.dist-info").mkdir()
    assert is_project(str(tmp_path / "pm"))
    found = find_version(Project(str(tmp_path / "pm"), "test"))
    assert found is not None
    assert found[0] == "3.4.1"


def test_sources_beside_their_virtual_environment_are_one_project(root: Path) -> None:
    directory = make_project(root / "opt" / "papermerge" / "app")
    make_environment(root / "opt" / "papermerge" / ".venv")
    (root / "opt" / "papermerge" / "venv").symlink_to(".venv")
    found = find_project(None, str(root))
    assert found is not None
    assert found.directory == str(directory)
    assert found.python() == str(root / "opt" / "papermerge" / ".venv" / "bin" / "python")
    version = find_version(found)
    assert version is not None
    assert version[0] == "2.0.2"


def test_an_older_release_that_was_left_beside_the_new_one_is_ambiguous(root: Path) -> None:
    old = make_installation(root / "opt" / "papermerge" / "old", "2.0")
    new = make_installation(root / "opt" / "papermerge" / "new", "3.4")
    make_environment(root / "opt" / "papermerge" / ".venv", "papermerge-3.4.1")
    with pytest.raises(SettingError, match="found 3 Papermerge projects") as caught:
        find_project(None, str(root))
    for directory in (old, new, root / "opt" / "papermerge"):
        assert f"{directory} (directory {directory})" in caught.value.message


def test_the_old_and_the_new_distribution_in_one_environment_are_ambiguous(tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core_app", "3.4")
    (directory / ".venv" / "lib" / "python3.8" / "site-packages" / "papermerge_core-3.3.1.dist-info").mkdir()
    with pytest.raises(SettingError, match="several versions") as caught:
        find_version(Project(str(directory), "test"))
    for word in ("3.3.1", "3.4.1", "papermerge_backup_app_version"):
        assert word in caught.value.message


def test_a_directory_by_hand_that_is_no_papermerge_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(SettingError, match="is no project of Papermerge") as caught:
        find_project(str(tmp_path), str(root))
    assert f"{tmp_path} (papermerge_backup_project_dir)" in caught.value.message


ENVIRONMENT = {
    "3.3": "PAPERMERGE__DATABASE__URL=sqlite:////var/lib/pm/db.sqlite3\nPAPERMERGE__MAIN__MEDIA_ROOT=/var/media/pmg\n",
    "3.4": "PAPERMERGE__DATABASE__URL=postgresql+psycopg2://pm:p%40ss%2F%25@db.example.com/papermerge?sslmode=verify-full\n",
    "3.5": "PAPERMERGE__DATABASE__URL=postgresql://pm:p%40ss%2F%25@[::1]:5433/papermerge?ssl=require\n"
    "PAPERMERGE__MAIN__FILE_SERVER=s3\nPAPERMERGE__S3__BUCKET_NAME=archive\nAWS_SECRET_ACCESS_KEY=aws-secret\n",
    "3.6": "PM_DB_URL='postgresql://pm:p%40ss%2F%25@/papermerge?host=/run/postgresql'\nPM_DB_SSL=true\n"
    "PM_STORAGE_BACKEND=r2\nPM_BUCKET_NAME=originals\nPM_SECRET_KEY=signing-secret\nPM_MEDIA_ROOT=files\n",
}
URLS = {
    "3.3": "sqlite:////var/lib/pm/db.sqlite3",
    "3.4": "postgresql://pm@db.example.com/papermerge?sslmode=verify-full",
    "3.5": "postgresql://pm@[::1]:5433/papermerge?sslmode=require",
    "3.6": "postgresql://pm@%2Frun%2Fpostgresql/papermerge?sslmode=require",
}


@pytest.mark.parametrize("line", ENVIRONMENT)
def test_an_instance_that_only_a_unit_describes_is_found_whole(only: Path, tmp_path: Path, line: str) -> None:
    directory = make_installation(tmp_path / "somewhere" / "core", line)
    secrets = tmp_path / "papermerge.env"
    secrets.write_text(ENVIRONMENT[line])
    unit = make_unit(
        only,
        "papermerge.service",
        f"[Service]\nWorkingDirectory={directory}\nEnvironmentFile={secrets}\nExecStart=/usr/bin/env uvicorn\n",
    )
    found = require_instance(InstanceRequest())
    assert (found.project_dir, found.version) == (str(directory), RELEASES[line].version)
    media = {"3.3": "/var/media/pmg", "3.6": f"{directory}/files"}.get(line, f"{directory}/media")
    assert found.media_root == media
    assert found.database.url == URLS[line]
    assert found.database.password == ("" if line == "3.3" else "p@ss/%")
    name = "PM_DB_URL" if line == "3.6" else "PAPERMERGE__DATABASE__URL"
    assert found.database_found_in == f"{name} in unit {unit}"
    if line == "3.4":
        assert found.media_found_in == (
            f"default of Papermerge 3.4.1; PAPERMERGE__MAIN__MEDIA_ROOT is not set in unit {unit}"
        )
    storage = found.as_dict()["storage"]
    if line == "3.5":
        assert storage == {
            "backend": "s3",
            "bucket": "archive",
            "only": False,
            "found_in": f"PAPERMERGE__MAIN__FILE_SERVER in unit {unit}",
        }
    elif line == "3.6":
        assert (storage["backend"], storage["bucket"], storage["only"]) == ("r2", "originals", True)
    else:
        assert storage is None
    assert found.configuration_files == (str(unit), str(secrets))
    assert found.as_dict()["configuration_files"] == [str(unit), str(secrets)]
    assert set(found.service_environment) == {text.partition("=")[0] for text in ENVIRONMENT[line].split()}
    for shown in (str(found.as_dict()), repr(found)):
        for secret in ("p@ss", "p%40ss", "aws-secret", "signing-secret"):
            assert secret not in shown


def test_each_setting_by_hand_wins_alone_and_what_it_replaces_is_not_read(only: Path, tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core_app", "3.6")
    make_unit(
        only,
        "papermerge.service",
        f"[Service]\nWorkingDirectory={directory}\nExecStart=/x\n"
        "Environment=PM_DB_URL=oracle://x PM_MEDIA_ROOT=/found\n",
    )
    with pytest.raises(SettingError, match="starts with 'oracle'"):
        require_instance(InstanceRequest())
    found = require_instance(InstanceRequest(database_url="postgresql://pm:s3cret@h/pm"))
    assert (found.database.password, found.database_found_in) == ("s3cret", "papermerge_backup_database_url")
    assert (found.media_root, found.version) == ("/found", "3.6.0")
    assert "s3cret" not in str(found.as_dict()) + repr(found) + repr(
        InstanceRequest(database_url="mysql://a:s3cret@b/c")
    )
    with pytest.raises(SettingError, match="starts with 'oracle'"):
        require_instance(InstanceRequest(media_root="/given", app_version="3.6.0a9"))


def test_the_media_root_by_hand_spares_reading_settings_that_cannot_be_understood(only: Path) -> None:
    make_installation(only / "app", "2.1")
    (only / "app" / "papermerge.toml").write_text("[main]\nmedia_root = 1979-05-27\n[database]\ndir = '/srv/db'\n")
    with pytest.raises(SettingError, match=r"media_root of \[main\] .*set papermerge_backup_media_root"):
        require_instance(InstanceRequest())
    found = require_instance(InstanceRequest(media_root="/given"))
    assert (found.media_root, found.database.path) == ("/given", "/srv/db/db.sqlite3")
