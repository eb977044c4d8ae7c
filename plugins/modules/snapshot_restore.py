# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_restore
short_description: Restore a snapshot of Papermerge onto an empty target
version_added: 0.1.0
description:
  - Restores media directory and database of a snapshot onto a host whose media directory and database are absent or
    empty. Anything else is refused.
  - Every stored byte of the snapshot is verified before the first byte is written. Media and database are then
    unpacked beside their places, compared with the manifest (row counts, every expected file, every SHA-256), and put
    in place at the end.
  - The target's Papermerge must have the version of the snapshot. It may also not be installed yet.
  - Media and database go where O(media_root) and O(database_url) say, else where the Papermerge that is installed on
    the target keeps them, else to the paths that they had where the snapshot was taken.
  - What a restore that was killed has left behind is undone first.
  - Papermerge and its workers must not run on the target meanwhile.
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.action
  - papermerge.backup.repository
  - papermerge.backup.discovery
  - papermerge.backup.transfer
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
    details: Verifies the snapshot and looks at the target.
options:
  config:
    description:
      - Whether settings files of the snapshot are restored, too, to the paths that they had. A file that is there
        already with another content is an error. The environment of the service is not restored; it is the file
        C(environment) of C(config.tar.zst).
    type: bool
    default: false
  database_admin_url:
    description:
      - Account that may create, rename and drop databases on the target's server, as a URL like O(database_url).
      - When not set, the account of the database itself is used.
    type: str
  source:
    description:
      - Name of the instance in the repository whose snapshot is restored.
      - The default is the target's own name, that is O(instance) or the host's name in the inventory.
    type: str
  snapshot:
    description:
      - Which snapshot to restore.
      - V(latest) is the newest complete one. A snapshot that is newer and damaged is an error.
      - A sequence number such as V(42) or an id such as V(000042-20261122T134215Z) names one.
      - A time in ISO 8601, such as V(2026-11-22T13:42:15) or V(2026-11-22T14:42:15+01:00), is the newest complete
        snapshot that was started not after it. It is in UTC unless it has an offset.
    type: str
    default: latest
  replace:
    description:
      - Whether to set aside what the target holds. This version of the collection cannot do it and refuses V(true).
    type: bool
    default: false
seealso:
  - module: papermerge.backup.snapshot_create
  - module: papermerge.backup.snapshot_info
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Restore the newest snapshot of this host
  papermerge.backup.snapshot_restore:
  become: true

- name: Restore onto a new host what an old one had before the accident
  papermerge.backup.snapshot_restore:
    source: oldhost
    snapshot: "2026-11-22T13:00:00+01:00"
  become: true

- name: Restore one snapshot to places of its own
  papermerge.backup.snapshot_restore:
    source: paperhost
    snapshot: "42"
    media_root: /srv/restored/media
    database_url: sqlite:////srv/restored/db.sqlite3
    app_version: 2.0.2
  become: true
  register: restored

- name: Show what was restored
  ansible.builtin.debug:
    msg: "{{ restored.files }} files, {{ restored.proved }} originals proved in {{ restored.seconds }} s"
"""

RETURN = r"""
snapshot:
  description:
    - The snapshot that was restored, with the keys of RV(papermerge.backup.snapshot_create#module:snapshot) except
      C(seconds).
  returned: success
  type: dict
  sample: {id: 000042-20261122T134215Z, instance: paperhost, state: complete, version: 2.0.2}
media_root:
  description: The media directory on the target.
  returned: success
  type: str
  sample: /srv/papermerge/media
config:
  description: The settings files that were written.
  returned: success, not in check mode
  type: list
  elements: str
  sample: [/etc/papermerge.conf.py]
database_url:
  description: Where the database was put, as a URL without a password.
  returned: success
  type: str
  sample: postgresql://papermerge@localhost/papermerge
database_path:
  description: The SQLite database on the target.
  returned: success
  type: str
  sample: /srv/papermerge/db.sqlite3
undone:
  description:
    - Media directories of restores that had been killed and were undone first (in check mode, would be undone).
  returned: success
  type: list
  elements: str
  sample: []
files:
  description: Number of media files restored.
  returned: success, not in check mode
  type: int
  sample: 30871
media_bytes:
  description: Size of the media files restored, in bytes.
  returned: success, not in check mode
  type: int
  sample: 2147483648
proved:
  description:
    - Number of files that the restored database expects and that were restored. The manifest has the same number.
  returned: success, not in check mode
  type: int
  sample: 1198
row_counts:
  description: Number of rows in each table of the restored database. The manifest has the same numbers.
  returned: success, not in check mode
  type: dict
  sample: {core_document: 1204, core_page: 5310, core_user: 4}
owners_kept:
  description: Whether files belong to the owners they had, which takes the user V(root) on the target.
  returned: success, not in check mode
  type: bool
  sample: true
seconds:
  description: Duration in seconds.
  returned: success
  type: float
  sample: 51.204
rows:
  description: What M(papermerge.backup.summary) shows of this result.
  returned: always
  type: list
  elements: dict
  sample: [{host: newhost, source: oldhost, result: ok, snapshot: 000042-20261122T134215Z, time: 51.204}]
error:
  description: The kind of failure, see the notes.
  returned: on failure
  type: str
  sample: target
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    media directory /srv/papermerge/media is not empty: it holds 'docs'; a restore goes onto a target that is
    empty: move it aside, or set papermerge_backup_media_root and papermerge_backup_database_url to another place
"""
