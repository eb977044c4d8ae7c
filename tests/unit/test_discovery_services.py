# SPDX-License-Identifier: GPL-3.0-or-later
"""Discovery of services: systemd units as systemd reads them, real processes, several services of one Papermerge."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import SettingError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge import instance as instance_module
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.instance import (
    InstanceRequest,
    require_instance,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.projects import Project, find_project
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.services import Service, find_services
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.sources import read_settings
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.units import (
    find_units,
    read_environment_file,
)
from tests.support.installations import make_installation
from tests.support.projects import make_process, make_project, make_unit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


def the_project(root: Path, explicit: Path | None = None) -> Project:
    found = find_project(str(explicit) if explicit else None, str(root))
    assert found is not None
    return found


def drop_in(root: Path, place: str, name: str, text: str) -> Path:
    path = root / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_drop_ins_add_replace_and_clear_what_the_unit_says(root: Path, tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core", "3.5")
    (tmp_path / "first.env").write_text("PAPERMERGE__DATABASE__URL=postgresql://pm:old@db/old\nONLY_FIRST=1\n")
    (tmp_path / "second.env").write_text("PAPERMERGE__DATABASE__URL=postgresql://pm:new@db/new\n")
    unit = make_unit(
        root,
        "papermerge-web.service",
        f"[Unit]\nUser=nobody\nEnvironment=A=unit-section\n[Service]\nWorkingDirectory=/nowhere\nUser=root\n"
        f"Environment=A=1 B=1\nEnvironmentFile={tmp_path}/first.env\nExecStart=/old/bin/gunicorn\n[Install]\nAlias=x\n",
    )
    one = drop_in(
        root,
        "etc/systemd/system/papermerge-web.service.d",
        "20-local.conf",
        f"[Service]\nEnvironment=B=2\nEnvironmentFile=\nEnvironmentFile=-{tmp_path}/sec*.env\n"
        f"ExecStart=\nExecStart={directory}/.venv/bin/uvicorn \\\n  # a comment between\n  papermerge.app:app\n"
        f"WorkingDirectory={directory}\n",
    )
    two = drop_in(
        root, "usr/lib/systemd/system/papermerge-web.service.d", "10-vendor.conf", "[Service]\nEnvironment=B=0\n"
    )
    drop_in(root, "usr/lib/systemd/system/papermerge-web.service.d", "20-local.conf", "[Service]\nUser=hidden\n")
    wide = drop_in(root, "etc/systemd/system/papermerge-.service.d", "05-all.conf", "[Service]\nEnvironment=C=wide\n")
    drop_in(root, "etc/systemd/system/other.service.d", "a.conf", "[Service]\nEnvironment=D=1\n")
    found = the_project(root)
    assert found.directory == str(directory)
    assert found.user_id == 0
    assert found.programs == [f"{directory}/.venv/bin/uvicorn"]
    assert {name: found.environment.get(name) for name in "ABCD"} == {"A": "1", "B": "2", "C": "wide", "D": None}
    assert "ONLY_FIRST" not in found.environment
    assert read_settings(found, "3.5.3").database.name == "new"
    assert found.files == [str(unit), str(wide), str(two), str(one), str(tmp_path / "second.env")]


def test_the_first_of_several_unit_files_counts_and_a_masked_one_hides_the_others(root: Path, tmp_path: Path) -> None:
    mine, theirs = make_project(tmp_path / "mine"), make_project(tmp_path / "theirs")
    vendor = root / "usr" / "lib" / "systemd" / "system"
    vendor.mkdir(parents=True)
    (vendor / "dms.service").write_text(f"[Service]\nWorkingDirectory={theirs}\n")
    make_unit(root, "dms.service", f"[Service]\nWorkingDirectory={mine}\n")
    assert the_project(root).directory == str(mine)
    unit = root / "etc" / "systemd" / "system" / "dms.service"
    unit.unlink()
    assert the_project(root).directory == str(theirs)
    unit.symlink_to("/dev/null")
    assert find_project(None, str(root)) is None


def test_specifiers_and_doubled_percent_signs_are_read_as_systemd_does(root: Path, tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core", "3.5")
    template = make_unit(
        root,
        "papermerge@.service",
        f"[Service]\nWorkingDirectory={tmp_path}/%i\n"
        "Environment=PAPERMERGE__DATABASE__URL=postgresql://pm:p%%40ss%%25@db/%p_%i DROPPED=p%40ss NAME=%n\n",
    )
    assert find_project(None, str(root)) is None, "a bare template runs nothing"
    running = root / "sys" / "fs" / "cgroup" / "system.slice" / "system-papermerge.slice" / "papermerge@core.service"
    running.mkdir(parents=True)
    assert the_project(root).directory == str(directory)
    running.rmdir()
    wanted = root / "etc" / "systemd" / "system" / "multi-user.target.wants"
    wanted.mkdir()
    (wanted / "papermerge@core.service").symlink_to(template)
    found = the_project(root)
    assert found.directory == str(directory)
    assert found.environment["NAME"] == "papermerge@core.service"
    assert "DROPPED" not in found.environment
    place = read_settings(found, "3.5.3").database
    assert (place.name, place.password) == ("papermerge_core", "p@ss%")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ("A=two words # no comment", "two words # no comment"),
        ("A=it's", "it's"),
        (r"A=a\$b\\c", r"a$b\c"),
        ("A=one\\\ntwo", "onetwo"),
        ("A='single $x \\ '", "single $x \\ "),
        (r'A="double \" \$ \\ \x"', 'double " $ \\ \\x'),
        ('A="several\nlines"', "several\nlines"),
        ("A='joined'\"up\"", "joinedup"),
        ("  A = spaces  ", "spaces"),
        ("A=dos\r", "dos"),
        ("A=p%40ss", "p%40ss"),
        ("A=", ""),
        ("A=first\nA=second", "second"),
        ("# A=comment\n;A=comment\n#'\nA=real", "real"),
    ],
)
def test_an_environment_file_is_read_as_systemd_does(tmp_path: Path, line: str, value: str) -> None:
    path = tmp_path / "environment"
    path.write_bytes(f"\nBEFORE=1\n{line}\nAFTER='1'\n".encode())
    assert read_environment_file(str(path)) == {"BEFORE": "1", "A": value, "AFTER": "1"}


def test_what_a_unit_unsets_is_not_set(root: Path) -> None:
    make_unit(root, "x.service", "[Service]\nEnvironment=A=1 B=2\nUnsetEnvironment=A\n")
    assert [unit.environment for unit in find_units(str(root))] == [{"B": "2"}]


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/gunicorn --chdir {0} config.wsgi",
        "/usr/bin/uwsgi --chdir={0}",
        "/bin/sh -c 'cd {0} && exec uvicorn papermerge.app:app'",
        "/usr/local/bin/uv run --directory {0} uvicorn",
    ],
)
def test_a_command_that_changes_the_directory_tells_the_project(root: Path, tmp_path: Path, command: str) -> None:
    directory = make_installation(tmp_path / "core", "3.5")
    make_unit(root, "pm.service", "[Service]\nExecStart=" + command.format(directory) + "\n")
    assert the_project(root).directory == str(directory)


def test_a_program_of_papermerges_virtual_environment_tells_the_project(root: Path, tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core", "3.4")
    make_unit(
        root,
        "pm.service",
        f"[Service]\nExecStart={directory}/.venv/bin/uvicorn x\nEnvironment=PAPERMERGE__MAIN__MEDIA_ROOT=media\n",
    )
    found = the_project(root)
    assert found.directory == str(directory)
    assert read_settings(found, "3.4.1").media_root == "/media", "systemd starts services in /"


def test_a_service_whose_environment_alone_is_papermerges_is_a_project(root: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    text = f"[Service]\nWorkingDirectory={tmp_path}/run\nEnvironment=%s\nExecStart=/usr/bin/papermerge-server\n"
    unit = make_unit(root, "dms.service", text % "PM_ID=1 PM_HOME=/root/.pm2 PAPERMERGE_BACKUP_SEED=1")
    assert find_project(None, str(root)) is None, "other programs have variables that begin alike"
    make_unit(root, "dms.service", text % "PM_DB_URL=postgresql://h/pm")
    found = the_project(root)
    assert (found.directory, found.found_in) == (str(tmp_path / "run"), f"unit {unit}")
    assert the_project(root, tmp_path / "run").environment == {"PM_DB_URL": "postgresql://h/pm"}


WEB = "[Service]\nWorkingDirectory={0}\nExecStart=/x/bin/uvicorn\nEnvironment={1}\n"
URL = "PAPERMERGE__DATABASE__URL=postgresql://pm:{0}@db/{1}"


def test_web_and_workers_of_one_papermerge_are_one_project(root: Path, tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core", "3.5")
    for name in ("ocrworker", "s3worker"):
        (tmp_path / name).mkdir()
    both = URL.format("pw", "pm")
    media = "PAPERMERGE__MAIN__MEDIA_ROOT=/srv/media"
    make_unit(root, "web.service", WEB.format(directory, f"{both} {media} LOG=web"))
    make_unit(root, "beat.service", WEB.format(directory, f"{both} LOG=beat"))
    make_unit(
        root, "ocr.service", WEB.format(tmp_path / "ocrworker", f"{both} {media} PAPERMERGE__REDIS__URL=redis://x")
    )
    make_unit(root, "s3.service", WEB.format(tmp_path / "s3worker", f"{media} PAPERMERGE__S3__BUCKET_NAME=archive"))
    found = the_project(root)
    assert found.directory == found.working_directory == str(directory)
    assert len(found.services) == 4
    settings = read_settings(found, "3.5.3")
    assert (settings.media_root, settings.database.name) == ("/srv/media", "pm")
    assert settings.storage is not None
    assert (settings.storage.bucket, settings.storage.only) == ("archive", False)
    assert settings.storage.found_in.endswith("/s3.service")


def test_services_that_disagree_are_an_error_unless_a_setting_decides(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_project(tmp_path / "dms", "MEDIA_DIR = '/m'\n")
    make_unit(root, "web.service", WEB.format(directory, "POSTGRES_HOST=one POSTGRES_PASSWORD=first-secret"))
    make_unit(root, "worker.service", WEB.format(directory, "POSTGRES_HOST=one POSTGRES_PASSWORD=second-secret"))
    monkeypatch.setattr(instance_module, "find_project", lambda explicit: find_project(explicit, str(root)))
    with pytest.raises(SettingError, match="differ in POSTGRES_PASSWORD") as caught:
        require_instance(InstanceRequest(app_version="2.0.2"))
    assert "secret" not in caught.value.message
    for word in (str(directory), "web.service", "worker.service", "papermerge_backup_database_url"):
        assert word in caught.value.message
    request = InstanceRequest(app_version="2.0.2", database_url="postgresql://u:p@h/d")
    assert require_instance(request).media_root == "/m"


def test_a_disagreement_in_a_url_is_shown_without_passwords(root: Path, tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core", "3.5")
    make_unit(root, "web.service", WEB.format(directory, URL.format("first@secret", "one")))
    make_unit(root, "worker.service", WEB.format(directory, URL.format("second-secret", "two")))
    found = the_project(root)
    with pytest.raises(SettingError) as caught:
        found.require_agreement(instance_module.DATABASE_VARIABLES, "decide")
    assert "secret" not in caught.value.message
    assert "postgresql://pm:…@db/one (unit " in caught.value.message
    assert "postgresql://pm:…@db/two (unit " in caught.value.message
    assert "secret" not in repr(found)


def test_a_service_on_other_data_in_another_place_is_a_second_candidate(root: Path, tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core", "3.5")
    (tmp_path / "other").mkdir()
    make_unit(root, "web.service", WEB.format(directory, URL.format("pw", "one")))
    make_unit(root, "other.service", WEB.format(tmp_path / "other", URL.format("pw", "two")))
    with pytest.raises(SettingError, match="found 2 Papermerge projects") as caught:
        find_project(None, str(root))
    assert f"{directory} (unit {root}/etc/systemd/system/web.service)" in caught.value.message
    assert f"{tmp_path}/other (unit {root}/etc/systemd/system/other.service)" in caught.value.message
    assert read_settings(the_project(root, directory), "3.5.3").database.name == "one"
    assert read_settings(the_project(root, tmp_path / "other"), "3.5.3").database.name == "two"


def test_a_process_that_still_runs_with_the_old_settings_is_a_disagreement(root: Path, tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core", "3.5")
    make_process(root, 7, directory, ["/x/bin/python", "uvicorn"], "PAPERMERGE__MAIN__MEDIA_ROOT=/old")
    make_unit(root, "web.service", WEB.format(directory, "PAPERMERGE__MAIN__MEDIA_ROOT=/new"))
    with pytest.raises(SettingError, match=r"/old \(working directory of process 7\); /new \(unit "):
        the_project(root).require_agreement(instance_module.MEDIA_VARIABLES, "decide")


@contextmanager
def running(program: Path, directory: Path, environment: dict[str, str], *arguments: str) -> Iterator[int]:
    """Run a program of a virtual environment until the block ends."""
    process = subprocess.Popen(
        [str(program), *arguments], cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


WAIT = "import sys; print('ready', flush=True); sys.stdin.read()"


def link_python(directory: Path) -> Path:
    """Give a made virtual environment a Python that shows its path in the list of processes."""
    program = directory / ".venv" / "bin" / "python"
    if program.exists():
        program.unlink()
    program.parent.mkdir(parents=True, exist_ok=True)
    program.symlink_to(sys.executable)
    return program


def services_of(*pids: int) -> list[Service]:
    wanted = {f"working directory of process {pid}" for pid in pids}
    return [service for service in find_services("/") if service.found_in in wanted]


def test_a_real_process_tells_directory_environment_and_virtual_environment(tmp_path: Path) -> None:
    directory = make_installation(tmp_path / "core", "3.4")
    environment = {"PAPERMERGE__DATABASE__URL": "postgresql://pm:a b\n@h/pm", "VIRTUAL_ENV": "/x"}
    with running(link_python(directory), directory, environment, "-c", WAIT) as pid:
        (service,) = services_of(pid)
    assert service.directory == str(directory)
    assert service.programs == [f"{directory}/.venv/bin/python"]
    assert service.environments == ["/x", f"{directory}/.venv"]
    assert service.environment.items() >= environment.items()
    assert (service.tells, service.user_id) == (True, os.geteuid())
    assert "postgresql" not in repr(service)


def test_what_ansible_itself_runs_is_no_service(tmp_path: Path) -> None:
    started = tmp_path / "ansible-playbook"
    started.write_text(
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {WAIT!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint(child.pid, flush=True)\nsys.stdin.read()\n"
    )
    environment = {"PAPERMERGE__DATABASE__URL": "postgresql://h/pm"}
    process = subprocess.Popen(
        [sys.executable, str(started)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert services_of(process.pid, child, os.getpid(), os.getppid()) == []
    finally:
        process.communicate()
    started.rename(tmp_path / "other-program")
    with running(Path(sys.executable), tmp_path, environment, "-c", WAIT) as pid:
        assert len(services_of(pid)) == 1, "the same process counts when nothing of Ansible is above it"


def test_processes_that_come_and_go_do_not_disturb_the_search(tmp_path: Path) -> None:
    churn = subprocess.Popen(["/bin/sh", "-c", "while :; do /bin/true; done"])
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            list(find_services("/"))
    finally:
        churn.kill()
        churn.wait()
