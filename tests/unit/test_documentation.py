# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the modules, as ansible-doc shows it, says what the code accepts and returns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.papermerge.backup.plugins.module_utils.errors import KINDS
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.description import describe_instance
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.instance import (
    InstanceRequest,
    require_instance,
)
from ansible_collections.papermerge.backup.plugins.modules import instance_info
from ansible_collections.papermerge.backup.plugins.plugin_utils.arguments import ARGUMENTS, DISCOVERY, MEDIA
from ansible_collections.papermerge.backup.plugins.plugin_utils.listing import list_snapshots, verify_snapshots
from ansible_collections.papermerge.backup.plugins.plugin_utils.pins import set_pin
from ansible_collections.papermerge.backup.plugins.plugin_utils.prune import prune_snapshots
from ansible_collections.papermerge.backup.plugins.plugin_utils.prune_plan import PruneRequest
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import InstanceDirectory, Repository
from ansible_collections.papermerge.backup.plugins.plugin_utils.retention import Duration, Policy
from tests.support.instances import VERSION, MadeInstance
from tests.support.snapshots import quiet, take

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "papermerge.backup."
SPECS: dict[str, Mapping[str, Mapping[str, Any]]] = {**ARGUMENTS, "instance_info": instance_info.ARGUMENTS}
MODULES = sorted(SPECS)
#: What Ansible itself puts into results.
ANSIBLE_RETURN = {"changed", "failed"}


def names_in(directory: str) -> set[str]:
    return {path.stem for path in (ROOT / "plugins" / directory).glob("*.py")}


def run(program: str, *arguments: str) -> str:
    """Run one of Ansible's programs with the collection where ./dev has linked it; returns its output."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build"), "LC_ALL": "C.UTF-8"}
    command = [str(Path(sys.executable).parent / program), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def documented() -> dict[str, dict[str, Any]]:
    """Return what ansible-doc knows of each module, fragments included: doc, examples and return."""
    found = json.loads(run("ansible-doc", "--type", "module", "--json", *[COLLECTION + name for name in MODULES]))
    return {name: found[COLLECTION + name] for name in MODULES}


def options(module: str) -> dict[str, dict[str, Any]]:
    return dict(documented()[module]["doc"]["options"])


def returned(module: str, key: str) -> set[str]:
    return set(documented()[module]["return"][key]["contains"])


def example_tasks(module: str) -> list[dict[str, Any]]:
    tasks = yaml.safe_load(documented()[module]["examples"])
    assert isinstance(tasks, list), f"{module}: EXAMPLES is not a list of tasks"
    return tasks


def test_every_action_has_its_module_and_its_arguments() -> None:
    assert names_in("action") == set(ARGUMENTS)
    assert names_in("modules") == set(MODULES)


def test_every_module_is_in_the_action_group() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text("utf-8"))
    assert sorted(runtime["action_groups"]["all"]) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_options_are_documented_as_they_are_accepted(module: str) -> None:
    def essence(option: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "type": option.get("type", "str"),
            "elements": option.get("elements"),
            "default": option.get("default"),
            "choices": option.get("choices"),
            "required": option.get("required", False),
        }

    assert {name: essence(option) for name, option in options(module).items()} == {
        name: essence(option) for name, option in SPECS[module].items()
    }


def test_instance_info_takes_the_options_of_the_actions() -> None:
    shared = {**DISCOVERY, **MEDIA, "accept_missing": ARGUMENTS["snapshot_create"]["accept_missing"]}
    assert {name: instance_info.ARGUMENTS[name] for name in shared} == shared


@pytest.mark.parametrize("module", MODULES)
def test_examples_use_only_what_is_documented(module: str) -> None:
    used = set()
    for task in example_tasks(module):
        for key in task:
            if not key.startswith(COLLECTION):
                continue
            name = key[len(COLLECTION) :]
            used.add(name)
            arguments = task[key] or {}
            assert set(arguments) <= set(options(name)), task["name"]
            required = {option for option, values in options(name).items() if values.get("required")}
            assert required <= set(arguments), task["name"]
            plain = {option: value for option, value in arguments.items() if "{{" not in str(value)}
            spec = {option: SPECS[name][option] for option in plain}
            assert ArgumentSpecValidator(spec).validate(plain).error_messages == [], task["name"]
    assert module in used


@pytest.mark.parametrize("module", MODULES)
def test_templates_in_examples_can_be_parsed(module: str) -> None:
    environment = jinja2.Environment(autoescape=True)

    def parse(value: Any) -> None:
        if isinstance(value, str):
            environment.parse(value)
        elif isinstance(value, dict):
            for inner in value.values():
                parse(inner)
        elif isinstance(value, list):
            for inner in value:
                parse(inner)

    parse(example_tasks(module))


def test_examples_are_a_playbook(tmp_path: Path) -> None:
    tasks = [task for module in MODULES for task in example_tasks(module)]
    playbook = tmp_path / "examples.yml"
    playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]), "utf-8")
    run("ansible-playbook", "--syntax-check", "--inventory", "localhost,", str(playbook))


@pytest.mark.parametrize("module", [name for name in MODULES if name != "summary"])
def test_every_kind_of_error_is_documented(module: str) -> None:
    document = documented()[module]
    assert {"error", "msg"} <= set(document["return"])
    notes = " ".join(document["doc"]["notes"])
    assert set(re.findall(r"V\((\w+)\) - ", notes)) == set(KINDS)


class TestReturnedKeysAreDocumented:
    @pytest.fixture(autouse=True)
    def made(self, instance: MadeInstance, place: InstanceDirectory) -> None:
        instance.add_document(b"an original")
        self.instance = instance
        self.place = place
        self.repository = Repository(str(place.path.parent))

    def test_of_an_instance(self) -> None:
        params = {
            **{name: values.get("default") for name, values in instance_info.ARGUMENTS.items()},
            "media_root": str(self.instance.media),
            "database_url": self.instance.database_url,
            "app_version": VERSION,
        }
        found = describe_instance(
            require_instance(InstanceRequest.from_params(params)), params, tick=lambda files, size: None
        )
        assert set(found) == returned("instance_info", "instance")

    def test_of_a_snapshot(self) -> None:
        snapshot = take(self.instance, self.place)
        assert set(snapshot) == returned("snapshot_create", "snapshot")
        classes = documented()["snapshot_create"]["return"]["snapshot"]["contains"]["classes"]
        assert set(snapshot["classes"]) == set(classes["contains"])

    def test_of_a_list(self) -> None:
        take(self.instance, self.place)
        take(self.instance, self.place)
        (self.place.snapshots_path / self.place.snapshot_names()[0] / "manifest.json").unlink()
        damaged, sound = list_snapshots([self.repository], None, [])
        known = returned("snapshot_info", "snapshots")
        assert damaged["state"] == "damaged"
        assert set(damaged) == known
        assert set(sound) == (known | returned("snapshot_create", "snapshot")) - {"msg", "seconds"}

    @pytest.mark.parametrize("level", ["quick", "full", "deep"])
    def test_of_a_verification(self, level: str) -> None:
        take(self.instance, self.place)
        (row,) = verify_snapshots([self.repository], None, [], "latest", level, quiet(), record=True)
        known = returned("snapshot_verify", "snapshots") | returned("snapshot_create", "snapshot")
        deeper = {"unpacked_files", "row_counts_compared", "proved"} if level != "deep" else set()
        stored = {"checked_bytes"} if level == "quick" else set()
        assert set(row) == known - deeper - stored
        verified = list_snapshots([self.repository], None, [])[0]["verified"]
        contains = documented()["snapshot_info"]["return"]["snapshots"]["contains"]["verified"]["contains"]
        assert set(verified) == set(contains)

    def test_of_a_prune(self) -> None:
        take(self.instance, self.place)
        request = PruneRequest(Policy(last=1), Duration(), Duration(), 20, [])
        (row,) = prune_snapshots([self.place], request, quiet(), check=True)
        assert set(row) - {"changed"} == returned("snapshot_prune", "instances")
        snapshots = documented()["snapshot_prune"]["return"]["instances"]["contains"]["snapshots"]["contains"]
        created = returned("snapshot_create", "snapshot") - {"seconds"}
        assert {frozenset(found) for found in row["snapshots"]} == {frozenset(created | set(snapshots))}

    def test_of_a_pin(self) -> None:
        take(self.instance, self.place)
        set_pin(self.place, "latest", "a note", check=False)
        pinned = list_snapshots([self.repository], None, [])[0]["pinned"]
        contains = documented()["snapshot_info"]["return"]["snapshots"]["contains"]["pinned"]["contains"]
        assert set(pinned) == set(contains)

    def test_of_every_module_with_and_without_check_mode(self, disk: Path) -> None:
        results = run_every_module(self.instance, disk)
        assert {key.split()[0] for key in results} == set(MODULES)
        for key, result in results.items():
            module, _space, check = key.partition(" ")
            expected = {name for name, value in documented()[module]["return"].items() if applies(value, bool(check))}
            assert set(result) - ANSIBLE_RETURN == expected, key


def applies(value: Mapping[str, Any], check: bool) -> bool:
    """Tell whether a successful result has a documented key."""
    text = value["returned"]
    if "on failure" in text and "success" not in text:
        return False
    return not ("not in check mode" in text and check) and (check or text != "in check mode")


def run_every_module(instance: MadeInstance, disk: Path) -> dict[str, dict[str, Any]]:
    """Run each module on an instance, first in check mode, and return the results by name and mode."""
    found = {"media_root": str(instance.media), "database_url": instance.database_url, "app_version": VERSION}
    repository = {"repository": str(disk / "repository")}
    table = {"title": "Rows", "columns": ["host"], "results": [{"host": "here"}], "hosts": ["here"]}

    def target(name: str) -> dict[str, str]:
        place = disk / name
        return {**found, "media_root": str(place / "media"), "database_url": f"sqlite:///{place / 'db.sqlite3'}"}

    steps: list[tuple[str, dict[str, Any]]] = [
        ("instance_info", found),
        ("snapshot_create", {**found, **repository}),
        ("snapshot_info", repository),
        ("snapshot_verify", {**repository, "level": "deep"}),
        ("snapshot_pin", {**repository, "instance": "here", "snapshot": "latest"}),
        ("snapshot_prune", {**repository, "keep_last": 1}),
        ("snapshot_extract", {**repository, "document": "2", "dest": str(disk / "extracted")}),
        ("snapshot_compare", {**repository, "base": "1", "dest": str(disk / "differences")}),
        ("drill", {**repository, "sample": 0, "evidence": str(disk / "drills")}),
        ("snapshot_restore", {**repository, **target("restored")}),
        ("database_dump", {**found, "dest": str(disk / "dump.zst")}),
        ("database_restore", {**target("database"), "src": str(disk / "dump.zst")}),
        ("media_archive", {**found, "dest": str(disk / "archive")}),
        ("media_restore", {**target("media"), "src": str(disk / "archive")}),
        ("summary", table),
    ]
    tasks: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for module, arguments in steps:
        for check in (True, False):
            variable = f"result_{len(names)}"
            names[f"{module} check" if check else module] = variable
            tasks.append({COLLECTION + module: arguments, "check_mode": check, "register": variable})
    content = "{{ {" + ", ".join(f"'{name}': {variable}" for name, variable in names.items()) + "} | to_json }}"
    tasks.append({"ansible.builtin.copy": {"content": content, "dest": str(disk / "results.json"), "mode": "0600"}})
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    playbook = disk / "every.yml"
    play = {"hosts": "here", "gather_facts": False, "vars": variables, "tasks": tasks}
    playbook.write_text(yaml.safe_dump([play]), "utf-8")
    run("ansible-playbook", "--inventory", "here,", str(playbook))
    results: dict[str, dict[str, Any]] = json.loads((disk / "results.json").read_text("utf-8"))
    return results
