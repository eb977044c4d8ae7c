# SPDX-License-Identifier: GPL-3.0-or-later
"""Discovery: what is installed where, in which version, with which settings, and what is said when that is unclear."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge import instance as instance_module
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.configuration import configuration_file
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.instance import (
    InstanceRequest,
    find_instance,
    require_instance,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.projects import (
    Project,
    find_project,
    is_project,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import UNKNOWN_LINE, release_line_of
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.settings import Settings, Variables
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.sources import read_settings
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.version import find_version
from tests.support.projects import VERSION_TUPLE, make_environment, make_process, make_project, make_unit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


def test_nothing_is_found_on_a_host_without_papermerge(root: Path) -> None:
    assert find_project(None, str(root)) is None
    (root / "opt" / "papermerge").mkdir(parents=True)
    assert find_project(None, str(root)) is None


@pytest.mark.parametrize(
    "where", ["opt/papermerge", "opt/papermerge/papermerge-core", "opt/app", "srv/papermerge", "home/pm/papermerge"]
)
def test_a_project_in_a_usual_place_is_found(root: Path, where: str) -> None:
    directory = make_project(root / where)
    found = find_project(None, str(root))
    assert found is not None
    assert found.directory == str(directory)
    assert found.found_in == f"directory {directory}"


def test_what_is_no_project_is_not_taken_for_one(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "config").mkdir(parents=True)
    (other / "manage.py").write_text("")
    (other / "config" / "settings.py").write_text("INSTALLED_APPS = ['blog']")
    assert not is_project(str(other))
    (other / "config" / "settings.py").write_text("INSTALLED_APPS = ['papermerge.core']")
    assert is_project(str(other))
    assert not is_project(str(tmp_path))


def test_a_unit_tells_directory_environment_and_programs(root: Path, tmp_path: Path) -> None:
    directory = make_project(tmp_path / "somewhere" / "dms")
    (tmp_path / "environment").write_text("# comment\nDBTYPE=sqlite\nSECRET=1\nMEDIA_X='a b'\n")
    unit = make_unit(
        root,
        "dms.service",
        f"[Service]\n; comment\nUser=root\nWorkingDirectory=-{directory}\n"
        f'Environment=DJANGO_SETTINGS_MODULE=config.settings.prod "PAPERMERGE_CONFIG=/etc/x y" TOKEN=1\n'
        f"EnvironmentFile=-{tmp_path}/environment\nEnvironmentFile=/nowhere\n"
        f"ExecStart=!{directory}/.venv/bin/gunicorn \\\n  config.wsgi\n",
    )
    found = find_project(None, str(root))
    assert found is not None
    assert (found.directory, found.found_in) == (str(directory), f"unit {unit}")
    assert found.programs == [f"{directory}/.venv/bin/gunicorn"]
    assert found.user_id == 0
    assert found.environment["TOKEN"] == "1", "settings modules read what they like"
    assert found.service_environment == {
        "DJANGO_SETTINGS_MODULE": "config.settings.prod",
        "PAPERMERGE_CONFIG": "/etc/x y",
        "DBTYPE": "sqlite",
        "MEDIA_X": "a b",
    }


def test_a_process_tells_directory_and_environment_and_one_in_a_container_is_not_ours(
    root: Path, tmp_path: Path
) -> None:
    directory = make_project(tmp_path / "dms")
    contained = make_project(tmp_path / "contained")
    make_process(root, 7, directory, ["/venv/bin/python", "manage.py"], "DJANGO_SETTINGS_MODULE=config.x\nTOKEN=1")
    make_process(root, 8, contained, ["/venv/bin/python", "manage.py"], namespace="mnt:[2]")
    make_process(root, 9, make_project(tmp_path / "edited"), ["/usr/bin/vim", "manage.txt"])
    found = find_project(None, str(root))
    assert found is not None
    assert (found.directory, found.found_in) == (str(directory), "working directory of process 7")
    assert (found.programs, found.service_environment) == (["/venv/bin/python"], {"DJANGO_SETTINGS_MODULE": "config.x"})
    assert found.user_id == os.geteuid()


def test_the_same_project_seen_several_times_is_one(root: Path) -> None:
    directory = make_project(root / "opt" / "papermerge")
    make_unit(root, "a.service", f"[Service]\nWorkingDirectory={directory}\nExecStart=/venv/bin/gunicorn\n")
    make_process(root, 7, directory, ["/venv/bin/python", "x"], "DBTYPE=sqlite")
    (root / "srv").mkdir()
    (root / "srv" / "papermerge").symlink_to(directory)
    found = find_project(None, str(root))
    assert found is not None
    assert found.directory == str(directory)
    assert found.programs == ["/venv/bin/python", "/venv/bin/gunicorn"]


def test_two_projects_are_ambiguous_unless_one_is_named(root: Path) -> None:
    one, two = make_project(root / "opt" / "papermerge"), make_project(root / "srv" / "papermerge")
    with pytest.raises(SettingError, match="found 2 Papermerge projects") as caught:
        find_project(None, str(root))
    for directory in (one, two):
        assert f"{directory} (directory {directory})" in caught.value.message
    assert "set papermerge_backup_project_dir to one of them" in caught.value.message
    found = find_project(str(two), str(root))
    assert found is not None
    assert (found.directory, found.found_in) == (str(two), "papermerge_backup_project_dir")


def test_a_project_directory_that_does_not_exist_is_named(root: Path) -> None:
    with pytest.raises(SettingError, match=r"/nowhere/dms \(papermerge_backup_project_dir\) does not exist"):
        find_project("/nowhere/dms", str(root))


def project_at(directory: Path, **settings: object) -> Project:
    return Project(str(directory), "test", **settings)  # type: ignore[arg-type]


def test_the_version_comes_from_the_installed_distribution_first(tmp_path: Path) -> None:
    directory = make_project(tmp_path / "dms")
    (directory / "papermerge").mkdir()
    (directory / "papermerge" / "__init__.py").write_text("VERSION = (1, 2, 3, 'final', 0)\n")
    assert find_version(project_at(directory)) == ("1.2.3", str(directory / "papermerge" / "__init__.py"))
    (directory / "papermerge" / "core").mkdir()
    (directory / "papermerge" / "core" / "__init__.py").write_text(VERSION_TUPLE)
    assert find_version(project_at(directory)) == ("2.0.1", str(directory / "papermerge" / "core" / "__init__.py"))
    (directory / "papermerge" / "core" / "version.py").write_text('__version__ = "2.1.9"\n')
    assert find_version(project_at(directory)) == ("2.1.9", str(directory / "papermerge" / "core" / "version.py"))
    make_environment(directory / ".venv")
    found = find_version(project_at(directory))
    assert found is not None
    assert found[0] == "2.0.2"
    assert found[1].endswith("site-packages/papermerge_core-2.0.2.dist-info")


def test_a_version_in_a_package_of_the_services_environment_is_found(tmp_path: Path) -> None:
    directory = make_project(tmp_path / "dms")
    make_environment(tmp_path / "elsewhere", "papermerge-3.4.1")
    project = project_at(directory, programs=[str(tmp_path / "elsewhere" / "bin" / "gunicorn")])
    assert find_version(project) is not None
    assert find_version(project)[0] == "3.4.1"  # type: ignore[index]


def test_two_versions_are_ambiguous_and_both_are_named(tmp_path: Path) -> None:
    directory = make_project(tmp_path / "dms")
    make_environment(directory / ".venv")
    make_environment(directory / "venv", "papermerge_core-2.0.1")
    with pytest.raises(SettingError, match="several versions") as caught:
        find_version(project_at(directory))
    for word in ("2.0.2", "2.0.1", ".venv", "papermerge_backup_app_version"):
        assert word in caught.value.message


@pytest.mark.parametrize("text", ["VERSION = ", "VERSION = compute()", "VERSION = (2, x, 1)", "\0", "VERSION = 2"])
def test_a_version_that_cannot_be_read_is_no_version(tmp_path: Path, text: str) -> None:
    directory = make_project(tmp_path / "dms")
    make_environment(directory / ".venv", "other-1.0")
    (directory / "papermerge").mkdir()
    (directory / "papermerge" / "__init__.py").write_text(text)
    assert find_version(project_at(directory)) is None


@pytest.mark.parametrize(
    ("version", "line"),
    [("2.0.2", "2.0"), ("2.0", "2.0"), ("2.0.0rc1", "2.0"), ("1.5.5", "1.x"), ("1.0.0", "1.x")]
    + [("2.1.9", "2.1"), ("3.0", "3.0-3.2"), ("3.2", "3.0-3.2"), ("3.3.1", "3.3"), ("3.4.1", "3.4"), ("3.5", "3.5")]
    + [("3.5.3", "3.5"), ("3.6.0a16", "3.6")],
)
def test_a_version_belongs_to_a_release_line(version: str, line: str) -> None:
    assert release_line_of(version).name == line


@pytest.mark.parametrize("version", ["2.2", "3.7.0", "4.0", "0.9", "2", "", "unknown", "x.y", "20.0"])
def test_a_version_that_the_table_does_not_have_belongs_to_the_unknown_line(version: str) -> None:
    assert release_line_of(version) is UNKNOWN_LINE
    assert not UNKNOWN_LINE.is_known


def _from_configuration(project: Project, system_root: str) -> Settings:
    assert project.python() is None
    return read_settings(project, "2.0.2", system_root)


CONFIGURATION = """
# Papermerge
MEDIA_DIR = "/srv/dms/media"
DBDIR = '/srv/dms/db'
OCR_LANGUAGES = {"deu": "Deutsch"}
IMAP = open("/dev/null").read()
ODD = {[1]: 2}
"""


def test_papermerge_conf_py_tells_media_and_database_without_being_run(tmp_path: Path, root: Path) -> None:
    directory = make_project(tmp_path / "dms", CONFIGURATION)
    found = _from_configuration(project_at(directory), str(root))
    where = f"{directory}/papermerge.conf.py"
    assert (found.media_root, found.media_found_in) == ("/srv/dms/media", f"MEDIA_DIR in {where}")
    assert (found.database.path, found.database_found_in) == ("/srv/dms/db/db.sqlite3", f"DBDIR in {where}")


def test_what_papermerge_conf_py_leaves_out_is_the_projects_default(tmp_path: Path, root: Path) -> None:
    directory = make_project(tmp_path / "dms")
    found = _from_configuration(project_at(directory), str(root))
    assert found.media_root == f"{directory}/media"
    assert found.database.path == f"{directory}/db.sqlite3"
    assert found.media_found_in == f"default of project {directory}"


@pytest.mark.parametrize("kind", ["pg", "postgres", "postgresql", "my", "mysql", "mariadb", "PG"])
def test_another_database_of_papermerge_conf_py_is_recognised(tmp_path: Path, root: Path, kind: str) -> None:
    directory = make_project(tmp_path / "dms", f"DBTYPE = {kind!r}\nMEDIA_DIR = 'relative'\n")
    found = _from_configuration(project_at(directory), str(root))
    assert found.database.engine == ("postgresql" if kind.lower().startswith("p") else "mysql")
    assert found.media_root == f"{directory}/relative"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MEDIA_DIR = get()", "MEDIA_DIR in .*is not a plain text"),
        ("MEDIA_DIR = 7", "MEDIA_DIR in .*is not a plain text"),
        ("DBTYPE = 'oracle'", "unknown database engine 'oracle'"),
        ("MEDIA_DIR = ", "cannot be read"),
    ],
)
def test_a_papermerge_conf_py_that_cannot_be_understood_is_named(
    tmp_path: Path, root: Path, text: str, words: str
) -> None:
    directory = make_project(tmp_path / "dms", text)
    with pytest.raises(SettingError, match=words) as caught:
        _from_configuration(project_at(directory), str(root))
    assert "papermerge.conf.py" in caught.value.message


def test_the_configuration_files_are_searched_in_papermerges_order(tmp_path: Path, root: Path) -> None:
    directory = make_project(tmp_path / "dms")
    (tmp_path / "own.py").write_text("")
    variables = Variables({"PAPERMERGE_CONFIG": str(tmp_path / "own.py")}, "test")
    assert configuration_file(variables, str(directory), str(root)) == str(tmp_path / "own.py")
    (directory / "papermerge.conf.py").write_text("")
    assert configuration_file(variables, str(directory), str(root)) == str(directory / "papermerge.conf.py")
    (root / "etc").mkdir()
    (root / "etc" / "papermerge.conf.py").write_text("")
    assert configuration_file(variables, str(directory), str(root)) == str(root / "etc" / "papermerge.conf.py")


SETTINGS = """
import os
print("a settings module may print")
MEDIA_ROOT = os.environ.get("MEDIA_HERE", "media")
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "data/db.sqlite3"}}
"""


def test_django_itself_is_asked_where_the_projects_python_is_at_hand(tmp_path: Path) -> None:
    directory = make_project(tmp_path / "dms", CONFIGURATION)
    make_environment(directory / ".venv")
    (directory / "config" / "settings" / "dev.py").write_text(SETTINGS)
    found = read_settings(project_at(directory), "2.0.2")
    assert (found.media_root, found.database.path) == (f"{directory}/media", f"{directory}/data/db.sqlite3")
    assert found.media_found_in == f"Django settings config.settings.dev in {directory}"
    (directory / "config" / "settings" / "prod.py").write_text(SETTINGS)
    environment = {"DJANGO_SETTINGS_MODULE": "config.settings.prod", "MEDIA_HERE": "/srv/media"}
    found = read_settings(project_at(directory, environment=environment), "2.0.2")
    assert (found.media_root, found.media_found_in) == (
        "/srv/media",
        f"Django settings config.settings.prod in {directory}",
    )
    assert not list(directory.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("import no_such_module", "No module named 'no_such_module'"), ("import os; os._exit(0)", "no answer")],
)
def test_django_settings_that_do_not_load_are_named_with_the_reason(tmp_path: Path, text: str, words: str) -> None:
    directory = make_project(tmp_path / "dms")
    make_environment(directory / ".venv")
    (directory / "config" / "settings" / "dev.py").write_text(text)
    with pytest.raises(SettingError, match=words) as caught:
        read_settings(project_at(directory), "2.0.2")
    assert "config.settings.dev" in caught.value.message
    assert "set papermerge_backup_media_root and papermerge_backup_database_url" in caught.value.message


@pytest.fixture
def only(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Discovery sees this root instead of the machine's own."""
    monkeypatch.setattr(instance_module, "find_project", lambda explicit: find_project(explicit, str(root)))
    return root


def test_an_instance_is_found_whole(only: Path) -> None:
    directory = make_project(only / "opt" / "papermerge")
    make_environment(directory / ".venv")
    (directory / "config" / "settings" / "dev.py").write_text(SETTINGS)
    found = require_instance(InstanceRequest())
    assert (found.version, found.line.name) == ("2.0.2", "2.0")
    assert found.project_dir == str(directory)
    assert found.database.url == f"sqlite:///{directory}/data/db.sqlite3"


def test_explicit_settings_win_over_what_is_found(only: Path) -> None:
    directory = make_project(only / "opt" / "papermerge", "MEDIA_DIR = '/found'\n")
    request = InstanceRequest(media_root="/given/media", app_version="2.0.0")
    found = require_instance(request)
    assert (found.media_root, found.media_found_in) == ("/given/media", "papermerge_backup_media_root")
    assert (found.version, found.version_found_in) == ("2.0.0", "papermerge_backup_app_version")
    assert found.database.path == f"{directory}/db.sqlite3"
    found = require_instance(InstanceRequest(database_url="sqlite:////given/db", app_version="1.5.5"))
    assert (found.database.path, found.database_found_in) == ("/given/db", "papermerge_backup_database_url")
    assert (found.media_root, found.line.name) == ("/found", "1.x")


def test_nothing_is_searched_when_everything_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(_explicit: str | None) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr(instance_module, "find_project", search)
    found = require_instance(InstanceRequest(None, "/m", "sqlite:////d", "2.0.2"))
    assert (found.project_dir, found.media_root, found.database.path) == ("", "/m", "/d")


def test_what_cannot_be_found_is_said_with_what_to_set(only: Path) -> None:
    assert find_instance(InstanceRequest(media_root="/m")) is None
    with pytest.raises(SettingError, match="found no Papermerge on this host") as caught:
        require_instance(InstanceRequest(media_root="/m"))
    for name in ("project_dir", "media_root", "database_url", "app_version"):
        assert f"papermerge_backup_{name}" in caught.value.message
    directory = make_project(only / "opt" / "papermerge")
    make_environment(directory / ".venv", "other-1.0")
    with pytest.raises(SettingError, match=f"no file of {directory} .* tells the version") as caught:
        require_instance(InstanceRequest())
    assert "set papermerge_backup_app_version" in caught.value.message


DATA = Path(__file__).resolve().parents[3] / "shared" / "papermerge-data" / "2.0.2-sqlite"


@pytest.mark.skipif(not DATA.is_dir(), reason="the data of a real 2.0.2 are not here")
def test_the_paths_of_a_real_database_are_those_on_its_disk() -> None:
    from ansible_collections.papermerge.backup.plugins.module_utils.database.sqlite import DatabaseFile

    line = release_line_of("2.0.2")
    with DatabaseFile(str(DATA / "db.sqlite3"), "real") as database:
        database.quick_check()
        database.require_tables(line)
        expected = {os.fsdecode(row.path) for row in database.expected_rows(line) if row.path}
    with tarfile.open(DATA / "media.tar.gz") as archive:
        there = {member.name.removeprefix("./").removeprefix("media/") for member in archive if member.isfile()}
    assert expected
    assert expected <= there
