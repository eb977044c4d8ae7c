# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of each release line: Django's, papermerge.conf.py, papermerge.toml, the environment; secrets are kept."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.database.place import DatabasePlace
from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.configula import SettingsText
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.projects import Project
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.sources import (
    configuration_files,
    read_settings,
    settings_from_environment,
)
from tests.support.installations import make_installation
from tests.support.projects import make_environment, make_project

PASSWORD = "p@ss/w:rd #1'\"ü"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    return made


def project_at(directory: Path, **environment: str) -> Project:
    return Project(str(directory), "test", environment=environment)


# --- Django ---------------------------------------------------------------------------------------------------------

DJANGO = """
import os
MEDIA_ROOT = "media"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.{0}", {1}}}}}
"""


def ask_django(directory: Path, engine: str, rest: str, version: str = "2.0.2", **environment: str) -> DatabasePlace:
    make_project(directory)
    make_environment(directory / ".venv")
    (directory / "config" / "settings" / "dev.py").write_text(DJANGO.format(engine, rest))
    return read_settings(project_at(directory, **environment), version).database


@pytest.mark.parametrize("version", ["1.5.5", "2.0.2", "2.1.9", "3.2"])
def test_django_tells_everything_that_it_takes_to_reach_a_server(tmp_path: Path, version: str) -> None:
    place = ask_django(
        tmp_path / "dms",
        "postgresql_psycopg2",
        "'NAME': 'pm', 'USER': 'me', 'PASSWORD': os.environ['SITE_PASSWORD'], 'HOST': 'db', 'PORT': 5433, "
        "'OPTIONS': {'sslmode': 'verify-full', 'sslrootcert': '/etc/ca.pem', 'connect_timeout': 5, "
        "'isolation_level': 4, 'options': '-c x', 'pool': {}}",
        version,
        SITE_PASSWORD=PASSWORD,
    )
    assert place == DatabasePlace(
        "postgresql",
        name="pm",
        user="me",
        password=PASSWORD,
        host="db",
        port=5433,
        options=(("sslmode", "verify-full"), ("sslrootcert", "/etc/ca.pem"), ("connect_timeout", "5")),
    )


def test_django_tells_sockets_and_certificates(tmp_path: Path) -> None:
    place = ask_django(tmp_path / "one", "postgresql", "'NAME': 'pm', 'HOST': '/run/pg', 'PORT': ''")
    assert place == DatabasePlace("postgresql", name="pm", host="/run/pg")
    place = ask_django(
        tmp_path / "two",
        "mysql",
        "'NAME': 'pm', 'USER': 'me', 'HOST': 'db', "
        "'OPTIONS': {'ssl': {'ca': '/ca.pem'}, 'charset': 'utf8mb4', 'unix_socket': '/run/my.sock'}",
    )
    assert place == DatabasePlace("mysql", name="pm", user="me", host="/run/my.sock", options=(("ssl_ca", "/ca.pem"),))
    place = ask_django(tmp_path / "three", "postgresql", "'OPTIONS': {'service': 'papermerge'}")
    assert (place.name, place.options) == ("", (("service", "papermerge"),))


@pytest.mark.parametrize(
    ("engine", "rest", "words"),
    [
        ("oracle", "'NAME': 'x'", "unknown database engine 'oracle'"),
        ("postgresql", "'HOST': 'db'", "names no database"),
        ("postgresql", "'NAME': 'pm', 'PORT': 'http'", "the port 'http', which is no number"),
        ("sqlite3", "'NAME': ':memory:'", "in memory"),
    ],
)
def test_django_settings_that_name_no_database_are_refused(tmp_path: Path, engine: str, rest: str, words: str) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        ask_django(tmp_path / "dms", engine, rest)
    assert "Django settings config.settings.dev" in caught.value.message
    assert "papermerge_backup_database_url" in caught.value.message


def test_what_django_complains_of_is_told_without_the_password(tmp_path: Path) -> None:
    url = "postgresql://me:url-secret@db/pm"
    for number, text in enumerate(
        ("os.environ['SITE_URL']", "'the password is url-secret'", "os.environ['DB_PASSWORD']")
    ):
        with pytest.raises(SettingError, match=r"ValueError: .*…") as caught:
            ask_django(
                tmp_path / str(number),
                "sqlite3",
                f"'NAME': ''}}}}\nraise ValueError({text})\nX = {{0: {{0: 0",
                SITE_URL=url,
                DB_PASSWORD="word-secret",
            )
        assert "secret" not in caught.value.message


def test_the_password_is_in_no_argument_while_django_is_asked(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    ask_django(
        tmp_path / "dms",
        "postgresql",
        f"'NAME': 'pm', 'PASSWORD': os.environ['DB_PASSWORD']}}}}\n"
        f"open({str(seen)!r}, 'wb').write(open('/proc/self/cmdline', 'rb').read())\nX = {{0: {{0: 0",
        DB_PASSWORD="arg-secret",
    )
    assert seen.read_bytes()
    assert b"secret" not in seen.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_django_runs_as_the_services_user() -> None:
    with tempfile.TemporaryDirectory(prefix="papermerge-backup-") as place:
        os.chmod(place, 0o755)
        directory = make_project(Path(place) / "dms")
        program = directory / ".venv" / "bin" / "python"
        program.parent.mkdir(parents=True)
        # A Python that everybody may run is not everywhere.
        program.write_text(
            """#!/bin/sh\necho "papermerge-settings {\\"MEDIA_ROOT\\": \\"/$(id -u)/$(id -g)/$(id -G)\\",\n"""
            """\\"ENGINE\\": \\"x.sqlite3\\", \\"NAME\\": \\"/db\\"}" | tr -d '\\n'\n"""
        )
        program.chmod(0o755)
        for user_id, owner in ((65534, 0), (None, 65534)):
            os.chown(directory, owner, owner)
            project = project_at(directory)
            project.user_id = user_id
            assert read_settings(project, "2.0.2").media_root == "/65534/65534/65534"


# --- papermerge.conf.py ---------------------------------------------------------------------------------------------


def test_papermerge_conf_py_tells_a_server_and_is_not_run(tmp_path: Path, root: Path) -> None:
    directory = make_project(
        tmp_path / "dms",
        "import os\n"
        f"os.mkdir({str(tmp_path / 'was-run')!r})\n"
        f"DBTYPE = 'postgres'\nDBNAME = 'pm'\nDBUSER = 'me'\nDBPASS = {PASSWORD!r}\nDBHOST = 'db'\nDBPORT = 5433\n"
        "MEDIA_DIR = os.environ.get('MEDIA_HERE', '/default/media')\n",
    )
    found = read_settings(project_at(directory), "1.5.5", str(root))
    assert found.database == DatabasePlace("postgresql", name="pm", user="me", password=PASSWORD, host="db", port=5433)
    assert found.database_found_in == f"DBTYPE in {directory}/papermerge.conf.py"
    assert found.media_root == "/default/media"
    assert read_settings(project_at(directory, MEDIA_HERE="/given"), "1.5.5", str(root)).media_root == "/given"
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(("kind", "engine"), [("pg", "postgresql"), ("maria", "mysql")])
def test_papermerge_conf_py_leaves_to_papermerges_defaults_what_it_does_not_say(
    tmp_path: Path, root: Path, kind: str, engine: str
) -> None:
    directory = make_project(tmp_path / "dms", f"DBTYPE = {kind!r}\n")
    found = read_settings(project_at(directory), "2.0.2", str(root))
    assert found.database == DatabasePlace(engine, name="papermerge", user="papermerge", host="localhost")


def test_a_syntax_error_is_told_without_its_line(tmp_path: Path, root: Path) -> None:
    directory = make_project(tmp_path / "dms", "DBTYPE = 'pg'\nDBPASS = 'line-secret\n")
    with pytest.raises(SettingError, match=r"papermerge\.conf\.py cannot be read: line 2: ") as caught:
        read_settings(project_at(directory), "2.0.2", str(root))
    assert "secret" not in caught.value.message


def test_a_password_with_an_odd_escape_is_not_printed_by_python(tmp_path: Path, root: Path) -> None:
    directory = make_project(tmp_path / "dms", "DBTYPE = 'pg'\nDBPASS = 'a\\d'\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_settings(project_at(directory), "2.0.2", str(root)).database.password == "a\\d"


#: The part of the images' config/settings/production.py that matters here.
PRODUCTION = """
import os
from .base import *  # noqa

DATABASES = {
    'default': {
        'ENGINE': 'django.db.backends.postgresql',
        'NAME': os.environ.get('POSTGRES_DB', 'other'),
        'USER': os.environ.get('POSTGRES_USER', 'otheruser'),
        'PASSWORD': os.environ['POSTGRES_PASSWORD'],
        'HOST': os.getenv('POSTGRES_HOST', 'db'),
        'PORT': os.environ.get('POSTGRES_PORT', 5432),
        'OPTIONS': {'sslmode': 'require', 'options': '-c x'},
    },
}
"""


def test_a_settings_module_that_asks_the_environment_wins_over_papermerge_conf_py(tmp_path: Path, root: Path) -> None:
    directory = make_project(tmp_path / "dms", "DBTYPE = 'mysql'\nMEDIA_DIR = '/srv/media'\n")
    (directory / "config" / "settings" / "production.py").write_text(PRODUCTION)
    project = project_at(
        directory,
        DJANGO_SETTINGS_MODULE="config.settings.production",
        POSTGRES_DB="pm",
        POSTGRES_PASSWORD=PASSWORD,
        POSTGRES_PORT="5433",
    )
    found = read_settings(project, "2.0.2", str(root))
    assert found.database == DatabasePlace(
        "postgresql",
        name="pm",
        user="otheruser",
        password=PASSWORD,
        host="db",
        port=5433,
        options=(("sslmode", "require"),),
    )
    assert found.database_found_in == f"DATABASES in {directory}/config/settings/production.py"
    assert found.media_root == "/srv/media"
    del project.environment["POSTGRES_PASSWORD"]
    with pytest.raises(SettingError, match=r"PASSWORD of DATABASES in .*production\.py is computed"):
        read_settings(project, "2.0.2", str(root))


def test_a_settings_module_that_computes_from_papermerge_conf_py_leaves_it_the_word(tmp_path: Path, root: Path) -> None:
    directory = make_project(tmp_path / "dms", "DBDIR = '/srv/db'\n")
    (directory / "config" / "settings" / "dev.py").write_text(
        "cfg_papermerge = try_load_config(['papermerge.conf.py'])\nCFG_PAPERMERGE = cfg_papermerge\n"
        "MEDIA_ROOT = cfg_papermerge.get('MEDIA_DIR', 'media')\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': f(cfg_papermerge)}}\n"
    )
    assert read_settings(project_at(directory), "2.0.2", str(root)).database.path == "/srv/db/db.sqlite3"


# --- papermerge.toml ------------------------------------------------------------------------------------------------

TOML = """
[main]
secret_key = "toml-signing-secret"
media_root = 'files'  # relative to the working directory

[database]
type = "postgresql"
name = "pm"
user = "me"
password = "p@ss \\"quoted\\" \\u00fc"
host = "db"
port = 5433

[ocr]
default_language = 'deu'
"""


def test_papermerge_toml_tells_media_and_server_of_2_1(tmp_path: Path, root: Path) -> None:
    directory = make_installation(tmp_path / "app", "2.1")
    (directory / "papermerge.toml").write_text(TOML)
    found = read_settings(project_at(directory), "2.1.9", str(root))
    assert found.database == DatabasePlace(
        "postgresql", name="pm", user="me", password='p@ss "quoted" ü', host="db", port=5433
    )
    assert (found.media_root, found.media_found_in) == (
        f"{directory}/files",
        f"media_root of [main] in {directory}/papermerge.toml",
    )
    found = read_settings(
        project_at(
            directory,
            PAPERMERGE__DATABASE__PASSWORD="from-environment",
            PAPERMERGE__DATABASE__HOST="",
            PAPERMERGE__MAIN__MEDIA_ROOT="/srv/media",
        ),
        "2.1.9",
        str(root),
    )
    assert (found.database.password, found.database.host, found.media_root) == ("from-environment", "db", "/srv/media")


def test_defaults_of_2_1_and_of_3_0_to_3_2_differ(tmp_path: Path, root: Path) -> None:
    directory = make_installation(tmp_path / "app", "2.1")
    found = read_settings(project_at(directory), "2.1.9", str(root))
    assert (found.media_root, found.database.path) == (f"{directory}/media", f"{directory}/db.sqlite3")
    (directory / "papermerge.toml").write_text("[database]\ndir = 'data'\ntype = 'sqlite3'\n[main]\n")
    assert read_settings(project_at(directory), "2.1.9", str(root)).database.path == f"{directory}/data/db.sqlite3"
    for kind, engine in (("pg", "postgresql"), ("mariadb", "mysql")):
        place = read_settings(project_at(directory, PAPERMERGE__DATABASE__TYPE=kind), "2.1.9", str(root)).database
        assert place == DatabasePlace(engine, name="papermerge", user="papermerge", host="localhost")
    (directory / "papermerge.toml").write_text("[database]\nurl = 'sqlite:////ignored'\n[main]\nmedia_root='/m'\n")
    found = read_settings(project_at(directory), "3.2", str(root))
    assert (found.media_root, found.database.path) == ("/m", "/db/db.sqlite3")
    assert found.database_found_in.startswith("default of Papermerge 3.0 to 3.2; PAPERMERGE__DATABASE__URL is not set")
    found = read_settings(project_at(directory, PAPERMERGE__DATABASE__URL="mysql://me:p%40@db/pm"), "3.2", str(root))
    assert found.database == DatabasePlace("mysql", name="pm", user="me", password="p@", host="db")
    relative = read_settings(project_at(directory, PAPERMERGE__DATABASE__URL="sqlite:///x/../db"), "3.0.3", str(root))
    assert relative.database.path == f"{directory}/db"


def test_the_toml_files_are_searched_in_papermerges_order(tmp_path: Path, root: Path) -> None:
    directory = make_installation(tmp_path / "app", "2.1")
    project = project_at(directory, PAPERMERGE__CONFIG=str(tmp_path / "named.toml"))
    seen = []
    for path in (
        tmp_path / "named.toml",
        directory / "papermerge.toml",
        root / "etc" / "papermerge.toml",
        root / "etc" / "papermerge" / "papermerge.toml",
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"[main]\nmedia_root = '/m/{path.parent.name}'\n")
        found = read_settings(project, "3.0.3", str(root))
        assert found.media_found_in.endswith(f" in {path}")
        assert str(path) in configuration_files(project, "3.0.3", str(root))
        seen.append(found.media_root)
    assert seen == [f"/m/{tmp_path.name}", "/m/app", "/m/etc", "/m/papermerge"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[main]\nmedia_root = [1]\n", r"media_root of \[main\] in .* is neither a text nor a whole number"),
        ("[main]\nmedia_root = 1.5\n", "set papermerge_backup_media_root"),
        ("[main]\nmedia_root = toml-secret\n", "line 2"),
        ("[main\n", "cannot be read: line 1"),
        ("main = 1\n[main]\n", "line 2"),
        ("[database]\ntype = 'oracle'\n", "unknown database engine 'oracle'"),
        ("[database]\ntype = 'pg'\nport = 'x'\n", "the port 'x', which is no number"),
    ],
)
def test_a_papermerge_toml_that_cannot_be_understood_is_named(
    tmp_path: Path, root: Path, text: str, words: str
) -> None:
    directory = make_installation(tmp_path / "app", "2.1")
    (directory / "papermerge.toml").write_text(text)
    with pytest.raises(SettingError, match=words) as caught:
        read_settings(project_at(directory), "2.1.9", str(root))
    assert f"{directory}/papermerge.toml" in caught.value.message
    assert "set papermerge_backup_" in caught.value.message
    assert "toml-secret" not in caught.value.message


def test_a_container_of_2_1_tells_its_toml_as_a_text() -> None:
    found = settings_from_environment({}, "2.1.9", "/app", "container app", toml=SettingsText("/etc/x.toml", TOML))
    assert (found.media_root, found.database.host) == ("/app/files", "db")
    assert settings_from_environment({}, "2.1.9", "/app", "container app").media_root == "/app/media"


def test_the_settings_files_in_use_are_named(tmp_path: Path, root: Path) -> None:
    directory = make_project(tmp_path / "dms", "")
    (directory / "config" / "settings" / "dev.py").write_text("")
    project = project_at(directory)
    project.files = ["/etc/systemd/system/dms.service"]
    settings = [f"{directory}/config/settings/{name}" for name in ("dev.py", "base.py")]
    assert configuration_files(project, "2.0.2", str(root)) == (
        f"{directory}/papermerge.conf.py",
        *settings,
        "/etc/systemd/system/dms.service",
    )
    core = make_installation(tmp_path / "core_app", "3.2")
    (root / "etc" / "papermerge.toml").write_text("")
    assert configuration_files(project_at(core), "3.2", str(root)) == (
        f"{root}/etc/papermerge.toml",
        f"{core}/config/settings.py",
    )
    assert configuration_files(project_at(core), "3.5.3", str(root)) == ()
