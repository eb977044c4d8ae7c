# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container is to a Papermerge: the application that serves, another process of it, a helper, or nothing."""

from __future__ import annotations

from typing import List, Tuple

from .container import Container
from .container_version import APPLICATION_IMAGES

#: Programs of Papermerge that are images of their own; their tags are not Papermerge's version.
HELPER_IMAGES = (
    "auth-server",
    "i3worker",
    "i3-worker",
    "ocrworker",
    "ocr-worker",
    "path-tmpl-worker",
    "path_tmpl_worker",
    "s3worker",
    "s3-worker",
)
#: Where the images of 3.x keep the application; no other software is known to use this name.
APPLICATION_DIRECTORY = "/core_app"
#: Where those of 1.x to 2.1 do; others do so, too.
COMMON_DIRECTORIES = ("/opt/app", "/app", "/app/papermerge")
#: Names of settings in the environment that are Papermerge's own.
SETTING_PREFIX = "PAPERMERGE_"
SETTINGS = ("PM_DB_URL", "PM_DB", "PM_MEDIA_ROOT")
#: What an image is told to do when it is not to serve: then another container of the instance knows more.
OTHER_WORK = (
    "worker",
    "ws_server",
    "scheduler",
    "beat",
    "init",
    "migrate",
    "createsuperuser",
    "backup.sh",
    "restore.sh",
)


def is_application(container: Container) -> bool:
    """Tell whether a container may run the application itself (and not one of its helpers)."""
    if container.image.name in HELPER_IMAGES:
        return False
    return is_surely_papermerge(container) or (
        container.working_directory in COMMON_DIRECTORIES
        and (has_settings(container) or "DJANGO_SETTINGS_MODULE" in container.environment)
    )


def is_surely_papermerge(container: Container) -> bool:
    """Tell whether the image's name or the directory of 3.x leaves no doubt."""
    return (
        container.image.name in APPLICATION_IMAGES
        or container.working_directory == APPLICATION_DIRECTORY
        or container.environment.get("CORE_APP") == APPLICATION_DIRECTORY
    )


def is_helper(container: Container) -> bool:
    """Tell whether a container runs a program beside the application that reads the same settings."""
    return not is_application(container) and (container.image.name in HELPER_IMAGES or has_settings(container))


def has_settings(container: Container) -> bool:
    """Tell whether a container's environment holds settings of Papermerge."""
    return any(name.startswith(SETTING_PREFIX) or name in SETTINGS for name in container.environment)


def serves(container: Container) -> bool:
    """Tell whether a container of the application answers users, and does not only work for another one."""
    if container.image.name.endswith("worker"):
        return False
    return not any(word in OTHER_WORK for word in container.command)


def rank(container: Container) -> Tuple[bool, bool, bool, List[int]]:
    """Sort what serves first, what runs, what is meant to stay, and the newest."""
    newest = [-ord(character) for character in container.created]
    return not serves(container), not container.is_running, container.is_one_off, newest
