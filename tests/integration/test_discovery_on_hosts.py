# SPDX-License-Identifier: GPL-3.0-or-later
"""Discovery on a host with systemd: what it reads from unit files is what systemd gives to the processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts.fixtures import host_bench, hosts
from tests.support.hosts.host import Host
from tests.support.installations import make_installation

__all__ = ["host_bench", "hosts"]

MODULE_UTILS = Path(__file__).parents[2] / "plugins" / "module_utils"
LIBRARY = "/usr/local/lib/discovery-test"
PACKAGE = "ansible_collections.papermerge.backup.plugins.module_utils.papermerge"

#: Values that systemd reads in its own way.
ENVIRONMENT_FILE = r"""
# PAPERMERGE__MAIN__COMMENT=1
; PAPERMERGE__MAIN__COMMENT=2
PAPERMERGE__DATABASE__URL=postgresql://pm:p%40ss%2Fw%23rd@db.example.com/papermerge
PAPERMERGE__MAIN__MEDIA_ROOT="/srv/media files"
PAPERMERGE__T__BARE=two words # and more
PAPERMERGE__T__APOSTROPHE=it's
PAPERMERGE__T__ESCAPED=a\$b\\c\"d
PAPERMERGE__T__CONTINUED=one\
two
PAPERMERGE__T__SINGLE='$x \y "z" '
PAPERMERGE__T__DOUBLE="\"q\" \$x \\ \y"
PAPERMERGE__T__LINES="first
second"
PAPERMERGE__T__JOINED='a'"b"
  PAPERMERGE__T__SPACES =  around
PAPERMERGE__T__EMPTY=
PAPERMERGE__T__TWICE=first
PAPERMERGE__T__TWICE=second
"""
UNIT = r"""
[Unit]
Description=papermerge
[Service]
WorkingDirectory=/opt/dms/core
User=nobody
PrivateTmp={0}
Environment=PAPERMERGE__T__UNIT=%%40-%i-%p-%h PAPERMERGE__T__NOT_DOUBLED=%40 "PAPERMERGE__T__QUOTED=a b"
Environment='PAPERMERGE__T__OTHER=c "d"'
Environment=PAPERMERGE__T__TWICE=unit PAPERMERGE__T__CLEARED=no PAPERMERGE__T__UNSET=no
EnvironmentFile=/etc/papermerge/*.env
EnvironmentFile=-/nowhere
ExecStart=/nowhere/bin/old
[Install]
WantedBy=multi-user.target
"""
DROP_IN = r"""
[Service]
UnsetEnvironment=PAPERMERGE__T__UNSET
Environment=PAPERMERGE__T__DROPPED=in
ExecStart=
ExecStart=/opt/dms/core/.venv/bin/python -c \
    # a comment between
    "import time; time.sleep(3600)"
"""
PROGRAM = f"""
import json, sys
sys.path.insert(0, {LIBRARY!r})
from {PACKAGE} import projects, services, sources, units, version
project = projects.find_project(None)
settings = sources.read_settings(project, version.find_version(project)[0])
found = [unit for unit in units.find_units("/") if unit.path.startswith("/etc/systemd/system/papermerge@")]
print(json.dumps({{
    "directory": project.directory, "services": project.services, "user_id": project.user_id,
    "programs": project.programs, "files": project.files, "version": version.find_version(project),
    "media": settings.media_root, "database": settings.database.url, "password": settings.database.password,
    "units": [unit.environment for unit in found],
}}))
"""


@pytest.fixture(scope="module")
def host(hosts: dict[str, Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with a Papermerge 3.5 in an unusual place, which a template unit with a drop-in can run."""
    host = hosts["one"]
    tree = make_installation(tmp_path_factory.mktemp("tree") / "core", "3.5")
    host.put_tree(tree, "/opt/dms/core")
    host.put_tree(MODULE_UTILS, f"{LIBRARY}/ansible_collections/papermerge/backup/plugins/module_utils")
    host.run("chmod 755 /opt/dms/core; python3 -m venv --without-pip /opt/dms/core/.venv")
    host.put("/etc/papermerge/10.env", ENVIRONMENT_FILE, mode=0o600)
    host.put("/etc/systemd/system/papermerge@.service.d/run.conf", DROP_IN)
    yield host
    host.run(
        "systemctl disable --quiet --now papermerge@web; rm -rf /etc/systemd/system/papermerge@* /etc/papermerge"
        f" /opt/dms {LIBRARY}; systemctl daemon-reload"
    )


def start(host: Host, private: str) -> dict[str, str]:
    """Start the service and return the environment that systemd gave it."""
    host.put("/etc/systemd/system/papermerge@.service", UNIT.format(private))
    host.run("systemctl daemon-reload; systemctl enable --quiet papermerge@web; systemctl restart papermerge@web")
    given = host.run("cat /proc/$(systemctl show --value --property MainPID papermerge@web)/environ").stdout
    return dict(line.split("=", 1) for line in given.split("\0") if line)


def discovered(host: Host) -> Any:
    return json.loads(host.run("python3 -", input=PROGRAM).stdout)


@pytest.mark.parametrize("private", ["no", "yes"])
def test_the_environment_of_a_unit_is_what_systemd_gives_to_its_process(host: Host, private: str) -> None:
    given = start(host, private)
    found = discovered(host)
    (environment,) = found["units"]
    ours = {name: value for name, value in given.items() if name.startswith("PAPERMERGE__")}
    assert len(ours) == 18
    assert {name: value for name, value in environment.items() if name.startswith("PAPERMERGE__")} == ours
    unit = "unit /etc/systemd/system/papermerge@.service"
    # With PrivateTmp= a process has a mount namespace of its own, like one in a container: the unit tells as much.
    assert found["services"][-1] == unit
    assert len(found["services"]) == (1 if private == "yes" else 2)
    assert (found["directory"], found["version"][0]) == ("/opt/dms/core", "3.5.3")
    assert found["user_id"] == 65534
    assert found["programs"] == ["/opt/dms/core/.venv/bin/python"]
    assert found["files"][:2] == [
        "/etc/systemd/system/papermerge@.service",
        "/etc/systemd/system/papermerge@.service.d/run.conf",
    ]
    assert found["media"] == "/srv/media files"
    assert found["database"] == "postgresql://pm@db.example.com/papermerge"
    assert found["password"] == "p@ss/w#rd"
