# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: media_archive
short_description: Archive the media directory of a running Papermerge
version_added: 0.1.0
description:
  - Writes the media files of a Papermerge to a new directory on the controller or on the host, as parts (tar archives
    compressed with zstd) with their commit records, and an index. This is how snapshots hold media, too, and
    C(docs/snapshot-format.md) in the collection describes it.
  - A file that cannot be read or that does not stop changing is an error, and no archive is left then. Files are not
    compared with the database. For media that is proved to be whole use
    M(papermerge.backup.snapshot_create).
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.action
  - papermerge.backup.discovery
  - papermerge.backup.media
  - papermerge.backup.location
  - papermerge.backup.transfer
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
    details: Returns RV(plan). The media files are counted.
options:
  dest:
    description:
      - Directory to write, on the machine that O(location) says. It must not exist or be empty. It gets mode C(0700),
        files in it C(0600).
      - It then holds C(index.jsonl.zst), for each part C(ID.tar.zst) and its commit record C(ID.json.zst), and
        C(archive.json), which is written last. Without it there is no archive.
    type: str
    required: true
seealso:
  - module: papermerge.backup.media_restore
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Archive the media directory to the controller
  papermerge.backup.media_archive:
    dest: "/srv/backups/{{ inventory_hostname }}-media"
  become: true
  register: archived

- name: Archive the originals alone to another disk of the host
  papermerge.backup.media_archive:
    dest: /mnt/backup/papermerge-media
    location: host
    derived: false
  become: true
"""

RETURN = r"""
dest:
  description: The directory that was written.
  returned: success
  type: str
  sample: /srv/backups/paperhost-media
media_root:
  description: The media directory that was archived.
  returned: success, not in check mode
  type: str
  sample: /srv/papermerge/media
files:
  description: Number of media files archived.
  returned: success, not in check mode
  type: int
  sample: 30871
media_bytes:
  description: Size of these files in bytes.
  returned: success, not in check mode
  type: int
  sample: 2147483648
parts:
  description: Number of parts written.
  returned: success, not in check mode
  type: int
  sample: 3
stored_bytes:
  description: Size of the parts, their records and the index, in bytes.
  returned: success, not in check mode
  type: int
  sample: 1932735283
plan:
  description:
    - The instance as it was found, with all keys of RV(papermerge.backup.instance_info#module:instance), and C(host)
      as in RV(papermerge.backup.snapshot_create#module:plan.host).
  returned: in check mode
  type: dict
  sample: {version: 2.0.2, media_root: /srv/papermerge/media, database_path: /srv/papermerge/db.sqlite3}
rows:
  description: What M(papermerge.backup.summary) shows of this result.
  returned: always
  type: list
  elements: dict
  sample: [{host: paperhost, result: ok}]
error:
  description: The kind of failure, see the notes.
  returned: on failure
  type: str
  sample: media
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    media directory /srv/papermerge/media (papermerge_backup_media_root) does not exist
"""
