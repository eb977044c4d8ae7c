# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipes of docs/examples: their commands drill a repository, and what they gather is what CI systems look for."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.documents import pdf
from tests.support.instances import VERSION, MadeInstance
from tests.support.playbooks import CHECKOUT, Playbooks

EXAMPLES = CHECKOUT / "docs" / "examples"


def recipe(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text("utf-8"))
    return loaded


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((EXAMPLES / name).read_text("utf-8"))
    return parser


class Site:
    """A backup server: a repository with a snapshot, a checkout of the inventory, and a place for evidence."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.evidence = place / "drills"
        self.work = place / "work"
        self.work.mkdir()
        self.instance = MadeInstance(place / "instance")
        self.instance.add_document(pdf())
        self.playbooks = Playbooks(place / "home")
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "papermerge_backup_media_root": str(self.instance.media),
            "papermerge_backup_database_url": self.instance.database_url,
            "papermerge_backup_app_version": VERSION,
            "papermerge_backup_rto": 3600,
            "papermerge_backup_rpo": 86400,
        }
        created = self.playbooks.run("create", {"paperhost": host})
        assert created.status == 0, str(created)
        inventory = {"papermerge": {"hosts": {"paperhost": host}}}
        (self.work / "inventory.yml").write_text(yaml.safe_dump(inventory), "utf-8")
        packed = self._pack()
        requirements = {"collections": [{"name": str(packed), "type": "file"}]}
        (self.work / "requirements.yml").write_text(yaml.safe_dump(requirements), "utf-8")

    def _pack(self) -> Path:
        """Build the collection from what git knows, as a release would be."""
        source = self.place / "source"
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "plugins", "roles", "playbooks",
             "meta", "galaxy.yml", "README.md", "LICENSE"],
            cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
        for name in filter(None, names):
            if (CHECKOUT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, source / name)
        self.run("ansible-galaxy collection build --output-path " + shlex.quote(str(self.place)), {}, source)
        (archive,) = self.place.glob("papermerge-backup-*.tar.gz")
        return archive

    def run(self, script: str, variables: Mapping[str, str], directory: Path | None = None) -> str:
        """Run a script as the runners of CI systems do; returns its output. Raises CalledProcessError."""
        environment = self.playbooks.environment(
            {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "GITHUB_STEP_SUMMARY": str(self.place / "summary.md"),
                **variables,
            }
        )
        if "ANSIBLE_COLLECTIONS_PATH" not in variables:
            environment.pop("ANSIBLE_COLLECTIONS_PATH")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=directory or self.work, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, script, done.stdout)
        return done.stdout

    def damage(self) -> None:
        """Change one byte of a stored part, as a failing disk would."""
        (part,) = (self.playbooks.repository / "paperhost" / "parts").glob("*.tar.zst")
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)

    def gathered(self, pattern: str) -> Path:
        """Return the one file that a pattern of the recipe finds."""
        (found,) = self.work.glob(pattern)
        return found


@pytest.fixture
def site() -> Iterator[Site]:
    """A site on a disk: databases are not copied to memory."""
    place = Path(tempfile.mkdtemp(prefix="papermerge-backup-test-", dir="/var/tmp"))
    yield Site(place)
    shutil.rmtree(place)


def variables_of(found: Mapping[str, Any], site: Site) -> dict[str, str]:
    """Return a recipe's variables, with the place of evidence moved to where a test may write."""
    assert found["PAPERMERGE_EVIDENCE"] == "/srv/backups/papermerge-drills"
    return {**found, "PAPERMERGE_EVIDENCE": str(site.evidence)}


def verdicts(junit: Path) -> tuple[int, int]:
    """Return how many test cases a JUnit file has, and how many failed."""
    root = ET.parse(junit).getroot()
    return len(root.findall("testsuite/testcase")), len(root.findall("testsuite/testcase/failure"))


def github_steps() -> list[dict[str, Any]]:
    return list(recipe("github-actions-drill.yml")["jobs"]["drill"]["steps"])


def run_github(site: Site) -> bool:
    """Run the steps as GitHub does: after a failure only those with `if: always()`. Returns whether all succeeded."""
    variables = variables_of(recipe("github-actions-drill.yml")["env"], site)
    good = True
    for step in github_steps():
        if "run" in step and (good or step.get("if") == "always()"):
            try:
                site.run(step["run"], variables)
            except subprocess.CalledProcessError as error:
                print(step["name"], error.output)
                good = False
    return good


def run_gitlab(site: Site) -> bool:
    """Run the job as GitLab does: the after_script in a shell of its own, whatever came before."""
    job = recipe("gitlab-ci-drill.yml")["restore-drill"]
    variables = variables_of(job["variables"], site)
    good = True
    try:
        site.run("\n".join([*job["before_script"], *job["script"]]), variables)
    except subprocess.CalledProcessError as error:
        print(error.output)
        good = False
    site.run("\n".join(job["after_script"]), variables)
    return good


def test_the_workflow_has_what_github_needs() -> None:
    workflow = recipe("github-actions-drill.yml")
    assert set(workflow["on"]) == {"schedule", "workflow_dispatch"}
    assert len(workflow["on"]["schedule"][0]["cron"].split()) == 5
    assert workflow["permissions"] == {"contents": "read"}
    job = workflow["jobs"]["drill"]
    assert "self-hosted" in job["runs-on"]
    for step in job["steps"]:
        assert step["name"]
        assert ("run" in step) != ("uses" in step)
        # What an expression holds would get into the shell unquoted.
        assert "${{" not in step.get("run", "")
    after = [step for step in job["steps"] if step.get("if") == "always()"]
    assert [step.get("uses", "").partition("@")[0] for step in after][-1] == "actions/upload-artifact"
    assert after[-1]["with"]["path"] == "evidence"


def test_the_job_has_what_gitlab_needs() -> None:
    job = recipe("gitlab-ci-drill.yml")["restore-drill"]
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"]["junit"] == "evidence/*/*/junit.xml"
    assert "schedule" in job["rules"][0]["if"]
    for part in ("before_script", "script", "after_script"):
        assert all(isinstance(line, str) for line in job[part])


def test_the_units_belong_together_and_fit_systemd(tmp_path: Path) -> None:
    service, timer = unit("papermerge-drill.service"), unit("papermerge-drill.timer")
    assert service["Service"]["Type"] == "oneshot"
    assert timer["Install"]["WantedBy"] == "timers.target"
    program = shutil.which("systemd-analyze")
    if program is None:
        assert os.environ.get("CI") != "true", "systemd-analyze is missing"
        pytest.skip("systemd-analyze is not on PATH: the units were read, but systemd has not judged them")
    # Their program is not on this machine; another takes its place.
    for name in ("papermerge-drill.service", "papermerge-drill.timer"):
        text = (EXAMPLES / name).read_text("utf-8").replace("/opt/papermerge-backup/bin/ansible-playbook", "/bin/true")
        (tmp_path / name).write_text(text, "utf-8")
    units = [str(tmp_path / f"papermerge-drill.{kind}") for kind in ("service", "timer")]
    done = subprocess.run([program, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "papermerge-drill" in line]
    assert (done.returncode, said) == (0, []), done.stderr
    calendar = subprocess.run(
        [program, "calendar", timer["Timer"]["OnCalendar"]], capture_output=True, text=True, check=False
    )
    assert calendar.returncode == 0, calendar.stderr


@pytest.mark.parametrize("run", [run_github, run_gitlab], ids=["github", "gitlab"])
def test_the_commands_drill_and_gather_the_evidence_of_good_and_bad(site: Site, run: Any) -> None:
    assert run(site)
    cases, failures = verdicts(site.gathered("evidence/*/*/junit.xml"))
    assert cases > 5
    assert failures == 0
    assert json.loads(site.gathered("evidence/*/*/drill.json").read_text())["verdict"] == "passed"
    assert site.gathered("evidence/*/*/report.html").stat().st_size > 10_000

    shutil.rmtree(site.work / "evidence")
    (site.place / "summary.md").unlink(missing_ok=True)
    site.damage()
    assert not run(site)
    assert verdicts(site.gathered("evidence/*/*/junit.xml"))[1] >= 1
    assert len(list((site.evidence / "paperhost").iterdir())) == 2
    if run is run_github:
        assert "- paperhost: **failed**" in (site.place / "summary.md").read_text()


def test_the_command_of_the_service_drills(site: Site) -> None:
    words = shlex.split(unit("papermerge-drill.service")["Service"]["ExecStart"])
    places = {
        "/opt/papermerge-backup/bin/ansible-playbook": "ansible-playbook",
        "/etc/papermerge-backup/inventory.yml": str(site.work / "inventory.yml"),
        "papermerge_backup_evidence=/srv/backups/papermerge-drills": f"papermerge_backup_evidence={site.evidence}",
    }
    assert set(places) <= set(words)
    command = shlex.join([places.get(word, word) for word in words])
    site.run(command, {"ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build")})
    assert len(list((site.evidence / "paperhost").iterdir())) == 1


def test_the_guide_links_every_recipe() -> None:
    text = (CHECKOUT / "docs" / "drills.md").read_text("utf-8")
    for path in EXAMPLES.iterdir():
        assert f"(examples/{path.name})" in text
