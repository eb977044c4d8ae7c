# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every action of this collection does alike: check arguments, reach the host, turn errors into results."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shlex
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml
from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.papermerge.backup.plugins.module_utils.agent.manners import (
    LOWEST_LEVEL,
    NICEST,
    Manners,
)
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    BackupError,
    ConnectionLost,
    SettingError,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.arguments import ARGUMENTS, DISCOVERY
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import Progress
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, Repository
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.pack import agent_command
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.rate import LOWEST_RATE, RateLimit
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import (
    Call,
    Session,
    told_to,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.ssh import (
    askpass_environment,
    options_from,
    prefer_quick_cipher,
    ssh_command,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.staged import HostAccess, StagedSession
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.streamed import Login, StreamedSession
from ansible_collections.papermerge.backup.plugins.plugin_utils.verify import scratch_directory

display = Display()

#: What the closing table calls a failure; any other kind is failed.
RESULT_WORDS = {"connection": "unreachable", "loss": "incomplete"}
#: Become methods whose streams are ours to have. doas reads a password from a terminal only.
STREAMED_BECOME = ("sudo", "doas")
#: Seconds after which a worker whose parent has died ends itself.
PARENT_CHECK = 0.5
#: Seconds in which login, become and Python must have started.
START_TIMEOUT = 60.0


class BackupAction(ActionBase):
    """Base of the actions. A subclass names its module and says what to do in :meth:`act`."""

    MODULE = ""
    _supports_check_mode = True
    _supports_async = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        self._vars: Mapping[str, Any] = task_vars or {}
        self.host = str(self._vars.get("inventory_hostname", "localhost"))
        # Ansible's own functions have no types here.
        validate: Any = self.validate_argument_spec
        _validated, self.arguments = validate(argument_spec=ARGUMENTS[self.MODULE])
        self.progress = Progress(self.host, display.display)
        end_with_parent()
        try:
            result.update(self.act())
        except BackupError as error:
            result.update(error.as_result(), failed=True)
        except AnsibleConnectionFailure as error:
            lost = ConnectionLost(f"{self.host}: {error.message}")
            result.update(lost.as_result(), failed=True)
        # A host with nothing to show is still a host that has answered.
        result["rows"] = self.rows(result) or [{"host": self.host}]
        return result

    def rows(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what the closing table says of a result: one row, or one for each snapshot."""
        row = {"host": self.host, "result": "ok", **self.row(result)}
        if result.get("failed"):
            row.update(result=RESULT_WORDS.get(result["error"], "failed"), msg=result["msg"])
        elif self.check_mode:
            row.update(result="checked")
        return [row]

    def row(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of a result that are this module's own; the result may be a failed one."""
        del result
        return {}

    @abstractmethod
    def act(self) -> dict[str, Any]:
        """Do the work and return the result. A BackupError becomes a failed result."""

    @property
    def check_mode(self) -> bool:
        return bool(self._task.check_mode)

    def place(self, name: str | None = None) -> InstanceDirectory:
        """Return the directory of an instance in the repository that the arguments name."""
        return self.repository().instance(name or self.arguments["instance"] or self.host)

    def repository(self) -> Repository:
        return Repository(self.arguments["repository"])

    def repositories(self) -> list[Repository]:
        """Return the repositories of a module that may look at several."""
        return [Repository(path) for path in self.arguments["repository"]]

    # -- what modules that work on one side only ask of the agent ---------------------------------------------------

    def discovery(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of the agent's describe, from this module's own."""
        return {
            "instance": self.instance_settings(),
            "media_allowed_roots": self.arguments.get("media_allowed_roots", []),
            "derived": self.arguments.get("derived", True),
            "accept_missing": False,
            "sizes": False,
            **more,
        }

    def instance_settings(self) -> dict[str, Any]:
        """Return what the user has set of the instance by hand."""
        return {name: self.arguments[name] for name in DISCOVERY}

    def describe(self, session: Session, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the instance as found, with sizes, for check mode."""
        return session.call(
            Call("describe", {**settings, "sizes": True}),
            told_to(self.progress),
        )

    def check_target(self, session: Session, sides: list[str], **more: Any) -> dict[str, Any]:
        """Ask the agent where these sides of a restore go. Raises TargetError when the target is not empty."""
        arguments = {
            "instance": self.instance_settings(),
            "admin_url": self.arguments.get("database_admin_url"),
            "sides": sides,
            "snapshot_version": "",
            "source_media_root": "",
            "source_database": {"engine": "", "path": "", "url": "", "facts": {}},
            "media_bytes": 0,
            "database_bytes": 0,
        }
        return session.call(Call("check_target", {**arguments, **more}))

    # -- reaching the host --------------------------------------------------------------------------------------------

    def session(self, label: str) -> AbstractContextManager[Session]:
        """Return a context with an agent on the host. ``label`` names the instance in what is staged."""
        manners, limit = self._manners()
        obstacle = self._streaming_obstacle()
        transfer = self.arguments["transfer"]
        if transfer == "streamed" and obstacle:
            raise SettingError(f"papermerge_backup_transfer is streamed, but {obstacle}; use auto or staged")
        if transfer == "staged" or obstacle:
            if limit is not None:
                raise SettingError(
                    "papermerge_backup_rate_limit cannot be kept in staging, where the connection itself moves whole "
                    "files ({}); set no rate limit, or stream".format(
                        obstacle or "papermerge_backup_transfer is staged"
                    )
                )
            display.vvv("staging: {}".format(obstacle or "asked for"), host=self.host)
            return self._staged(label, manners)
        return self._streamed(manners, limit)

    def _manners(self) -> tuple[Manners, RateLimit | None]:
        """Return how the agents are to behave, and what limits their traffic. Raises SettingError."""
        manners = Manners(*(self.arguments[name] for name in Manners._fields))
        for name, most in (("nice", NICEST), ("io_level", LOWEST_LEVEL)):
            value = self.arguments[name]
            if not 0 <= value <= most:
                raise SettingError(f"papermerge_backup_{name} is {value}; it must be 0 to {most}")
        rate = self.arguments["rate_limit"] or 0
        if rate and rate < LOWEST_RATE:
            raise SettingError(
                f"papermerge_backup_rate_limit is {rate} bytes a second; it must be at least {LOWEST_RATE}, or 0 for "
                "none: write 20M for 20 MiB"
            )
        return manners, RateLimit(rate) if rate else None

    def _become_method(self) -> str:
        become = self._connection.become
        return str(become.name).rsplit(".", 1)[-1] if become is not None else ""

    def _become_password(self) -> str | None:
        become = self._connection.become
        password = become.get_option("become_pass", playcontext=self._play_context) if become is not None else None
        return None if password is None else str(password)

    def _streaming_obstacle(self) -> str:
        """Return why this host's streams are not ours to have; empty when they are."""
        transport = str(self._connection.transport).rsplit(".", 1)[-1]
        method = self._become_method()
        if transport not in ("ssh", "local"):
            return f"the connection is {transport}"
        for option in ("private_key", "pkcs11_provider"):
            if transport == "ssh" and self._connection.has_option(option) and self._connection.get_option(option):
                return f"the ssh connection uses {option}"
        if method and method not in STREAMED_BECOME:
            return f"the become method is {method}"
        if method == "doas" and self._become_password():
            return "doas asks for its password at a terminal"
        return ""

    def _interpreter(self) -> str | None:
        variables: Mapping[str, Any] = self._vars
        if self._task.delegate_to:
            variables = self._vars.get("ansible_delegated_vars", {}).get(self._task.delegate_to, {})
        value = self._templar.template(C.config.get_config_value("INTERPRETER_PYTHON", variables=dict(variables)))
        return None if value is None or str(value).startswith("auto") else str(value)

    @contextlib.contextmanager
    def _streamed(self, manners: Manners, limit: RateLimit | None) -> Iterator[Session]:
        command = agent_command(self._interpreter())
        login = Login()
        become = self._connection.become
        if become is not None:
            command = become.build_become_command(command, self._connection._shell)
            login = Login(self._become_method(), self._become_password(), become.check_password_prompt)
        transport_is_local = str(self._connection.transport).endswith("local")
        if transport_is_local:
            argv, password = ["/bin/sh", "-c", command], None
        else:
            options = options_from(self._connection.get_option)
            argv, password = prefer_quick_cipher(ssh_command(options, command)), options.password

        def start() -> Session:
            with askpass_environment(password) as environment:
                return StreamedSession(argv, self.host, login, START_TIMEOUT, environment, manners, limit)

        with start() as session:
            session.another = start
            # What does not pass through the controller is not limited there.
            session.is_here = transport_is_local and become is None and limit is None
            yield session

    @contextlib.contextmanager
    def _staged(self, label: str, manners: Manners) -> Iterator[Session]:
        if str(self._connection.transport).endswith("ssh"):
            # As the connection of our own would: a dead peer has to be noticed.
            extra = self._connection.get_option("ssh_extra_args") or ""
            self._connection.set_option(
                "ssh_extra_args", f"{extra} -o ServerAliveInterval=15 -o ServerAliveCountMax=3".strip()
            )

        def run(command: str, become: bool) -> tuple[int, str, str]:
            execute: Any = self._low_level_execute_command
            outcome = execute(f"/bin/sh -c {shlex.quote(command)}", sudoable=become)
            return int(outcome["rc"]), str(outcome["stdout"]), str(outcome["stderr"])

        become = self._connection.become
        user = str(become.get_option("become_user", playcontext=self._play_context)) if become is not None else None
        access = HostAccess(self.host, run, self._connection.put_file, self._connection.fetch_file, user)
        # Two controllers may know the same host under the same name.
        digest = hashlib.sha256(f"{socket.gethostname()} {label}".encode()).hexdigest()[:16]
        with (
            scratch_directory() as scratch,
            StagedSession(access, digest, self._interpreter(), scratch, manners=manners) as session,
        ):
            yield session


_watching = threading.Lock()


def end_with_parent() -> None:
    """End this worker when the process that started it is gone: nobody would hear of the result.

    Its connections end with it, and the agents notice.
    """
    if not _watching.acquire(blocking=False):
        return
    # Not getppid: the parent may have died before this line.
    starter = multiprocessing.parent_process()
    parent = os.getppid() if starter is None or starter.pid is None else starter.pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def collection_version() -> str:
    """Return this collection's version, for manifests."""
    root = Path(__file__).resolve().parents[2]
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads((root / "MANIFEST.json").read_text("utf-8"))["collection_info"]["version"])
    with contextlib.suppress(OSError, KeyError, yaml.YAMLError):
        return str(yaml.safe_load((root / "galaxy.yml").read_text("utf-8"))["version"])
    raise AnsibleError(f"{root} holds neither MANIFEST.json nor galaxy.yml")
