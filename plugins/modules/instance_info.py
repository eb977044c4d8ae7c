#!/usr/bin/python
# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_info
short_description: Find a Papermerge and say what there is to back up
version_added: 0.1.0
description:
  - Finds the Papermerge instance on a host and returns its version, media directory and database, where each of them
    was found, and how much there is to back up. Nothing is started or stopped.
  - Fails where M(papermerge.backup.snapshot_create) would fail because of what it finds on the host.
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.reads_only
  - papermerge.backup.discovery
  - papermerge.backup.media
  - papermerge.backup.errors
requirements:
  - Python 3.8 or later with its standard library, C(sqlite3) included, on the host
options:
  accept_missing:
    description: Whether an empty media directory is accepted although the database expects files in it.
    type: bool
    default: false
  sizes:
    description:
      - Whether the media files are counted. This takes a look at each file, some seconds for 100,000 files on a local
        disk.
    type: bool
    default: true
seealso:
  - module: papermerge.backup.snapshot_create
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Find the Papermerge on a host
  papermerge.backup.instance_info:
  become: true
  register: found

- name: Show what was found and where
  ansible.builtin.debug:
    msg: >-
      Papermerge {{ found.instance.version }} ({{ found.instance.version_found_in }})
      with {{ found.instance.media_files }} files,
      {{ found.instance.media_size | ansible.builtin.human_readable }}, in {{ found.instance.media_root }}

- name: Check settings made by hand, without counting files
  papermerge.backup.instance_info:
    media_root: /srv/papermerge/media
    database_url: sqlite:////srv/papermerge/db.sqlite3
    app_version: 2.0.2
    sizes: false
  become: true
"""

RETURN = r"""
instance:
  description: The instance as it was found.
  returned: success
  type: dict
  contains:
    project_dir:
      description: Directory in which Papermerge is installed, empty when everything was set by hand.
      returned: always
      type: str
      sample: /opt/papermerge
    version:
      description: Version of Papermerge.
      returned: always
      type: str
      sample: 2.0.2
    version_found_in:
      description: Where the version was found, a file or the name of a setting.
      returned: always
      type: str
      sample: /opt/papermerge/.venv/lib/python3.9/site-packages/papermerge_core-2.0.2.dist-info
    release_line:
      description: Releases of Papermerge that look the same from outside, as far as a backup goes.
      returned: always
      type: str
      sample: "2.0"
    release_line_only:
      description:
        - Whether nothing but the release line is known. No file tells the version then, and RV(instance.version) is the
          newest one of the line that the schema of the database belongs to.
      returned: always
      type: bool
      sample: false
    media_root:
      description: The media directory.
      returned: always
      type: str
      sample: /srv/papermerge/media
    media_found_in:
      description: Where the media directory was found, a file or the name of a setting.
      returned: always
      type: str
      sample: Django settings config.settings.production in /opt/papermerge
    media_layout:
      description: Name of the layout of the media directory.
      returned: always
      type: str
      sample: user_document
    media_mode:
      description: Permissions of the media directory, as a decimal number. V(493) is the octal 0755.
      returned: always
      type: int
      sample: 493
    media_owner:
      description: User id, group id, user name and group name of the media directory's owner.
      returned: always
      type: list
      elements: raw
      sample: [998, 998, papermerge, papermerge]
    media_files:
      description: Number of files below the media directory, without derived ones unless O(derived=true).
      returned: with O(sizes=true)
      type: int
      sample: 30871
    media_size:
      description: Size of these files in bytes.
      returned: with O(sizes=true)
      type: int
      sample: 2147483648
    expected_files:
      description: Number of version rows of the database whose file must be in the media directory.
      returned: with O(sizes=true)
      type: int
      sample: 1198
    database_engine:
      description: Engine of the database.
      returned: always
      type: str
      sample: sqlite
    database_url:
      description: The database as a URL without password.
      returned: always
      type: str
      sample: sqlite:////srv/papermerge/db.sqlite3
    database_path:
      description: File of the SQLite database.
      returned: always
      type: str
      sample: /srv/papermerge/db.sqlite3
    database_found_in:
      description: Where the database was found, a file or the name of a setting.
      returned: always
      type: str
      sample: Django settings config.settings.production in /opt/papermerge
    database_size:
      description: Size of the database with its write-ahead log, in bytes.
      returned: always
      type: int
      sample: 11534336
    storage:
      description:
        - Object storage that Papermerge uses, with C(backend), C(bucket), C(only) (whether originals are nowhere else)
          and C(found_in). Not set where there is none.
      returned: always
      type: dict
      sample: {backend: s3, bucket: papermerge, only: true, found_in: unit /etc/systemd/system/papermerge.service}
    configuration_files:
      description: Settings files that the instance uses.
      returned: always
      type: list
      elements: str
      sample: [/etc/papermerge.conf.py, /opt/papermerge/config/settings/production.py]
    containers:
      description: Names of the containers that Papermerge runs in.
      returned: always
      type: list
      elements: str
      sample: [papermerge-web-1, papermerge-worker-1]
    schema_marker:
      description: Newest migration of the database that belongs to Papermerge.
      returned: always
      type: str
      sample: 0039_auto_20210216_1014
    row_counts:
      description: Number of rows in each table that is compared after a restore.
      returned: always
      type: dict
      sample: {core_document: 1204, core_page: 5310, core_user: 4}
error:
  description: The kind of failure, see the notes.
  returned: on failure
  type: str
  sample: setting
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    found 2 Papermerge projects: /opt/papermerge (unit /etc/systemd/system/papermerge.service),
    /srv/papermerge (directory /srv/papermerge); set papermerge_backup_project_dir to one of them
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.papermerge.backup.plugins.module_utils.errors import BackupError, describe_os_error
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.description import describe_instance
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.instance import (
    InstanceRequest,
    require_instance,
)

ARGUMENTS = {
    "project_dir": {"type": "str"},
    "media_root": {"type": "str"},
    "database_url": {"type": "str", "no_log": True},
    "app_version": {"type": "str"},
    "container": {"type": "str"},
    "media_allowed_roots": {"type": "list", "elements": "str", "default": []},
    "derived": {"type": "bool", "default": True},
    "accept_missing": {"type": "bool", "default": False},
    "sizes": {"type": "bool", "default": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        instance = require_instance(InstanceRequest.from_params(module.params))
        description = describe_instance(instance, module.params, tick=lambda files, size: None)
    except BackupError as error:
        module.fail_json(**error.as_result())
    except OSError as error:
        module.fail_json(**BackupError("the host's system refused: {0}".format(describe_os_error(error))).as_result())
    module.exit_json(changed=False, instance=description)


if __name__ == "__main__":
    main()
