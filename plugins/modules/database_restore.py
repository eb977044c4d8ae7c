# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: database_restore
short_description: Restore a dump of Papermerge's database
version_added: 0.1.0
description:
  - Restores what M(papermerge.backup.database_dump) has written to a host on which Papermerge's database is absent or
    empty. Anything else is refused.
  - The dump is unpacked beside the database's place, checked, and put in place at the end. A new database file has
    mode C(0600). It may have to be given to the user that Papermerge runs as.
  - Papermerge and its workers must not run on the target meanwhile.
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
    details: Looks at the target, and whether O(src) is there with O(location=controller).
options:
  database_admin_url:
    description:
      - Account that may create, rename and drop databases on the target's server, as a URL like O(database_url).
      - When not set, the account of the database itself is used.
    type: str
  src:
    description:
      - The dump, on the machine that O(location) says. A name that ends in V(.zst) means that it is compressed with
        zstd, any other one that it is the plain database.
    type: str
    required: true
  sha256:
    description:
      - SHA-256 that the uncompressed dump must have, 64 hexadecimal digits, as
        RV(papermerge.backup.database_dump#module:plain_sha256)
        says it. Nothing is put in place when it has another.
      - The default is not to compare.
    type: str
seealso:
  - module: papermerge.backup.database_dump
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Restore a database from the controller
  papermerge.backup.database_restore:
    src: /srv/backups/paperhost.sqlite3.zst
    sha256: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
  become: true

- name: Restore a dump that lies on the host to a place of its own
  papermerge.backup.database_restore:
    src: /var/backups/papermerge-before-upgrade.sqlite3.zst
    location: host
    database_url: sqlite:////srv/papermerge/restored.sqlite3
  become: true
"""

RETURN = r"""
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
plain_size:
  description: Size of the restored database in bytes.
  returned: success, not in check mode
  type: int
  sample: 11534336
plain_sha256:
  description: SHA-256 of the restored database, 64 hexadecimal digits.
  returned: success, not in check mode
  type: str
  sample: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
row_counts:
  description:
    - Number of rows in each table of the restored database. Empty when the target does not tell the version of
      Papermerge.
  returned: success, not in check mode
  type: dict
  sample: {core_document: 1204, core_page: 5310, core_user: 4}
schema_marker:
  description:
    - Newest migration of the database that belongs to Papermerge. Empty when the target does not tell the version of
      Papermerge.
  returned: success, not in check mode
  type: str
  sample: 0039_auto_20210216_1014
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
  sample: target
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    database /srv/papermerge/db.sqlite3 is not empty; a restore goes onto a target that is empty
"""
