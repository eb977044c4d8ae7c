# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: database_dump
short_description: Dump the database of a running Papermerge
version_added: 0.1.0
description:
  - Writes a copy of Papermerge's database to a new file on the controller or on the host. The file appears as a whole
    at the end, or not at all.
  - A SQLite database is copied through SQLite's online backup while Papermerge works with it. The copy is checked,
    and then compressed with zstd. C(zstd -d) makes a database of it that can be opened.
  - For a database that belongs to its media files use M(papermerge.backup.snapshot_create).
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.action
  - papermerge.backup.discovery
  - papermerge.backup.location
  - papermerge.backup.transfer
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
    details: Returns RV(plan).
options:
  dest:
    description:
      - File to write, on the machine that O(location) says. It must not exist, and its directory must. Its
        mode is C(0600).
      - The name should end in V(.zst), by which M(papermerge.backup.database_restore) knows a compressed dump.
    type: str
    required: true
  copy_dir:
    description:
      - Directory on the host, an absolute path, in which a SQLite database is copied before it is sent. It must exist
        and have room for the database. A file system in memory, such as tmpfs, is refused.
      - The default is the directory of the database.
    type: str
seealso:
  - module: papermerge.backup.database_restore
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Dump the database to the controller
  papermerge.backup.database_dump:
    dest: "/srv/backups/{{ inventory_hostname }}.sqlite3.zst"
  become: true
  register: dumped

- name: Keep a dump on the host before an upgrade
  papermerge.backup.database_dump:
    dest: /var/backups/papermerge-before-upgrade.sqlite3.zst
    location: host
    copy_dir: /var/tmp
  become: true
"""

RETURN = r"""
dest:
  description: The file that was written.
  returned: success
  type: str
  sample: /srv/backups/paperhost.sqlite3.zst
compressed:
  description: Whether the file is compressed. It is not with O(location=host) on a host without the C(zstd) program.
  returned: success, not in check mode
  type: bool
  sample: true
size:
  description: Size of the file in bytes.
  returned: success, not in check mode
  type: int
  sample: 3145728
sha256:
  description: SHA-256 of the file, 64 hexadecimal digits.
  returned: success, not in check mode
  type: str
  sample: 8d2c1e1b5d7b4f0c9a3e6f8071625344d5e6f708192a3b4c5d6e7f8091a2b3c4
format:
  description: Form of the dump. V(sqlite3) is the database file, V(pgdump) is for C(pg_restore), V(mysqldump) is SQL.
  returned: success, not in check mode
  type: str
  sample: sqlite3
plain_size:
  description: Size of the uncompressed dump in bytes.
  returned: success, not in check mode
  type: int
  sample: 11534336
plain_sha256:
  description: SHA-256 of the uncompressed dump, 64 hexadecimal digits.
  returned: success, not in check mode
  type: str
  sample: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
row_counts:
  description: Number of rows in each table of the dump.
  returned: success, not in check mode
  type: dict
  sample: {core_document: 1204, core_page: 5310, core_user: 4}
schema_marker:
  description: Newest migration of the database that belongs to Papermerge.
  returned: success, not in check mode
  type: str
  sample: 0039_auto_20210216_1014
restarts:
  description: How often the copy of a SQLite database started again because the database was written to.
  returned: success, not in check mode
  type: int
  sample: 0
locked_seconds:
  description: For how many seconds the copy of a SQLite database kept it from being written to.
  returned: success, not in check mode
  type: float
  sample: 0.0
journal_mode:
  description: Journal mode of the SQLite database, for example V(delete) or V(wal).
  returned: success, not in check mode
  type: str
  sample: wal
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
  sample: setting
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    /srv/backups/paperhost.sqlite3.zst exists already; name another dest
"""
