# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's unit files: what a service runs, where, as whom and with which environment."""

from __future__ import annotations

import glob
import os
import re
import shlex
from typing import Dict, Iterator, List, NamedTuple, Tuple

#: In systemd's order: a unit file in an earlier one hides its namesakes in the later ones.
UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
#: Where instances of templates run, with either version of control groups.
CONTROL_GROUPS = ("system.slice/*.slice", "systemd/system.slice/*.slice")
#: Settings that hold all values that were given, until an empty one clears them.
LISTS = ("Environment", "EnvironmentFile", "ExecStart", "UnsetEnvironment")
SPECIFIER = re.compile(r"%(.)", re.DOTALL)


class Unit(NamedTuple):
    """A service unit with its drop-ins. ``files``: the unit file, its drop-ins and its environment files.

    ``working_directory`` is empty where the unit names none.
    """

    path: str
    files: List[str]
    words: List[str]
    environment: Dict[str, str]
    user: str
    working_directory: str


def find_units(system_root: str) -> Iterator[Unit]:
    """Yield the service units below a root directory, each once; masked ones and bare templates not."""
    seen = set()
    for place in UNIT_DIRECTORIES:
        for path in sorted(glob.glob(os.path.join(glob.escape(system_root), place.lstrip("/"), "*.service"))):
            name = os.path.basename(path)
            if name in seen:
                continue
            seen.add(name)
            if os.path.isfile(path) and not name.endswith("@.service"):
                yield _read_unit(system_root, path, name)
    for name, template in _template_instances(system_root):
        if name not in seen:
            seen.add(name)
            yield _read_unit(system_root, template, name)


def _template_instances(system_root: str) -> Iterator[Tuple[str, str]]:
    """Yield (unit, template file) of instances such as papermerge@web.service that are enabled or running."""
    patterns = [os.path.join(place[1:], "*.wants", "*@?*.service") for place in UNIT_DIRECTORIES]
    patterns += [os.path.join("sys/fs/cgroup", place, "*@?*.service") for place in CONTROL_GROUPS]
    for pattern in patterns:
        for path in sorted(glob.glob(os.path.join(glob.escape(system_root), pattern))):
            name = os.path.basename(path)
            template = name.partition("@")[0] + "@.service"
            places = [os.path.join(system_root, directory[1:], template) for directory in UNIT_DIRECTORIES]
            found = next((place for place in places if os.path.exists(place)), None)
            if found and os.path.isfile(found):
                yield name, found


def _read_unit(system_root: str, path: str, name: str) -> Unit:
    files = [path] + _drop_ins(system_root, name)
    single: Dict[str, str] = {}
    lists: Dict[str, List[str]] = {key: [] for key in LISTS}
    for file in files:
        for key, value in _settings(file):
            if key not in LISTS:
                single[key] = value
            elif value:
                lists[key].append(value)
            else:
                lists[key] = []
    environment: Dict[str, str] = {}
    for value in lists["Environment"]:
        for assignment in split_words(value):
            variable, equals, text = assignment.partition("=")
            # As in postgresql://me:p%40ss@…, whose percent sign is not doubled: systemd drops such a variable.
            if equals and not any(letter.isdigit() for letter in SPECIFIER.findall(text)):
                environment[variable] = _expand(text, name)
    # What the files say wins over the unit's own lines, wherever these stand.
    for value in lists["EnvironmentFile"]:
        for place in sorted(glob.glob(_expand(value.lstrip("-"), name))):
            environment.update(read_environment_file(place))
            files.append(place)
    for variable in split_words(" ".join(lists["UnsetEnvironment"])):
        environment.pop(variable.partition("=")[0], None)
    words = [_expand(word, name) for value in lists["ExecStart"] for word in split_words(value.lstrip("@-:+!|"))]
    return Unit(
        path,
        files,
        words,
        environment,
        _expand(single.get("User", ""), name),
        _expand(single.get("WorkingDirectory", "").lstrip("-"), name),
    )


def _drop_ins(system_root: str, name: str) -> List[str]:
    """Return the drop-ins of a unit in the order in which they count."""
    prefix, at, rest = name[: -len(".service")].partition("@")
    directories = ["service.d"]
    pieces = prefix.split("-")
    directories += ["-".join(pieces[:count]) + "-.service.d" for count in range(1, len(pieces))]
    if at and rest:
        directories.append(prefix + "@.service.d")
    directories.append(name + ".d")
    chosen: Dict[str, str] = {}
    for directory in directories:
        for place in reversed(UNIT_DIRECTORIES):
            for path in glob.glob(os.path.join(glob.escape(os.path.join(system_root, place[1:], directory)), "*.conf")):
                chosen[os.path.basename(path)] = path
    return [chosen[file] for file in sorted(chosen) if os.path.isfile(chosen[file])]


def _settings(path: str) -> List[Tuple[str, str]]:
    """Return the settings of a unit file's [Service] section."""
    found = []
    section = "Service"
    text = re.sub(r"\\\r?\n(?:[ \t]*[#;][^\n]*\n)*", " ", _text(path))
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif section == "Service" and line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            if equals:
                found.append((key.strip(), value.strip()))
    return found


def _expand(text: str, name: str) -> str:
    """Replace the specifiers of a unit that the system's manager knows the same on every host."""
    prefix, _at, instance = name[: -len(".service")].partition("@")
    values = {
        "%": "%",
        "n": name,
        "N": name[: -len(".service")],
        "p": prefix,
        "j": prefix.rpartition("-")[2],
        "i": instance,
        "I": instance.replace("-", "/"),
        "u": "root",
        "U": "0",
        "h": "/root",
        "E": "/etc",
        "S": "/var/lib",
        "C": "/var/cache",
        "L": "/var/log",
        "t": "/run",
    }
    return SPECIFIER.sub(lambda match: values.get(match.group(1), match.group()), text)


def split_words(text: str) -> List[str]:
    """Split a line of a unit into its words, with quotation marks taken off."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def read_environment_file(path: str) -> Dict[str, str]:
    """Return the variables that an environment file sets, by systemd's rules; none for a file that cannot be read."""
    text = _text(path)
    found = {}
    position = 0
    while position < len(text):
        line, _end, _rest = text[position:].partition("\n")
        name, equals, _value = line.partition("=")
        if not equals or name.lstrip()[:1] in ("#", ";"):
            position += len(line) + 1
            continue
        value, position = _environment_value(text, position + len(name) + 1)
        found[name.strip()] = value
    return found


def _environment_value(text: str, position: int) -> Tuple[str, int]:
    """Return (value, position behind its line). Quotation marks count only where no bare text stands before them."""
    pieces: List[str] = []
    quotation = ""
    bare = False
    while position < len(text):
        character = text[position]
        position += 1
        if quotation:
            if character == quotation:
                quotation = ""
            elif character == "\\" and quotation == '"':
                following = text[position : position + 1]
                position += 1
                pieces.append(following if following in '"\\`$' else "" if following == "\n" else "\\" + following)
            else:
                pieces.append(character)
        elif character == "\n":
            break
        elif character in "\"'" and not bare:
            quotation = character
        elif character == "\\":
            bare = True
            pieces.append(text[position : position + 1].replace("\n", ""))
            position += 1
        elif bare or character not in " \t":
            bare = True
            pieces.append(character)
    value = "".join(pieces)
    return value.rstrip() if bare else value, position


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return ""
