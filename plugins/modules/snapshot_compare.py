# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_compare
short_description: Compare two snapshots
version_added: 0.1.0
description:
  - Tells which files were added, removed or changed between two snapshots of an instance, or of two instances.
    Contacts no host, and reads no media file. What the indexes of the two snapshots say is merged line by line.
  - A file counts as changed when its content is another one. Other times or owners do not count.
  - Originals are counted for the users (or, since Papermerge 3.5, groups) who own them, as the snapshot's database
    says. If there is a difference, the database is looked into without its server; the dump of PostgreSQL takes
    C(pg_restore) on the controller for that. An SQLite database is unpacked into a private directory in E(TMPDIR), or
    in V(/var/tmp) when that is not set.
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.controller
  - papermerge.backup.repository
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
    details: Compares all the same, and writes no O(dest).
options:
  snapshot:
    description:
      - The snapshot to compare, usually the newer one.
      - V(latest) is the newest complete one. A sequence number such as V(42) or an id such as
        V(000042-20261122T134215Z) names one. A time in ISO 8601, such as V(2026-11-22T13:42:15), is the newest
        complete snapshot that was started not after it. It is in UTC unless it has an offset.
    type: str
    default: latest
  base:
    description:
      - The snapshot to compare it with, usually the older one, named in the same ways as O(snapshot).
      - The default is the complete one before O(snapshot), or the latest of O(base_instance).
    type: str
  base_instance:
    description: The instance that O(base) is a snapshot of. The default is the same instance.
    type: str
  dest:
    description:
      - File on the controller for the list of all differences. It must not exist. It gets mode C(0600).
      - It holds one JSON object a line, with the keys of RV(differences).
    type: str
seealso:
  - module: papermerge.backup.snapshot_info
  - module: papermerge.backup.snapshot_extract
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Tell what has come, gone or changed since the snapshot before
  papermerge.backup.snapshot_compare:
  register: compared

- name: Fail when originals have gone
  ansible.builtin.assert:
    that: compared.originals.removed.files == 0

- name: Compare two snapshots and keep the whole list
  papermerge.backup.snapshot_compare:
    instance: paperhost
    base: "17"
    snapshot: "42"
    dest: /srv/reports/paperhost-17-42.jsonl

- name: Compare a restored instance with the one that it came from
  papermerge.backup.snapshot_compare:
    instance: newhost
    base_instance: paperhost
"""

RETURN = r"""
instance:
  description: Name of the instance in the repository.
  returned: success
  type: str
  sample: paperhost
snapshot:
  description: Id of O(snapshot).
  returned: success
  type: str
  sample: 000042-20261122T134215Z
base_instance:
  description: Name of the instance of RV(base).
  returned: success
  type: str
  sample: paperhost
base:
  description: Id of the snapshot that it was compared with.
  returned: success
  type: str
  sample: 000041-20261121T134210Z
same_layout:
  description:
    - Whether both snapshots keep media files under the same kind of paths. V(false) after an upgrade of Papermerge
      that moved them; then every file is both removed and added.
  returned: success
  type: bool
  sample: true
unchanged:
  description: Number of files of any kind that are the same in both.
  returned: success
  type: int
  sample: 30871
originals:
  description: What differs among the originals, all versions of documents.
  returned: success
  type: dict
  contains: &changes
    added:
      description: Files that only RV(snapshot) has, C(files) and C(bytes).
      returned: always
      type: dict
      sample: {files: 12, bytes: 1048576}
    removed:
      description: Files that only RV(base) has, C(files) and C(bytes).
      returned: always
      type: dict
      sample: {files: 0, bytes: 0}
    changed:
      description: Files whose content differs, C(files) and, in RV(snapshot), C(bytes).
      returned: always
      type: dict
      sample: {files: 1, bytes: 20480}
derived:
  description: What differs among files that Papermerge can make again, OCR text and previews.
  returned: success
  type: dict
  contains: *changes
other:
  description:
    - What differs among all other files in the media directory. If the release of Papermerge is not known to this
      version of the collection, these are all files.
  returned: success
  type: dict
  contains: *changes
users:
  description:
    - What differs among the originals of each user, for users of whom something differs. C(user) is not set for
      originals that belong to nobody, such as those of documents that were deleted.
    - Not set where nobody can tell, because the release of Papermerge is not known to this version of the collection.
  returned: success
  type: list
  elements: dict
  sample:
    - user: margaret
      added: {files: 12, bytes: 1048576}
      removed: {files: 0, bytes: 0}
      changed: {files: 1, bytes: 20480}
difference_count:
  description: Number of differences, of files of any kind.
  returned: success
  type: int
  sample: 27
differences:
  description: The first 100 differences, originals before others, by path.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Path relative to the media directory. C(path_base64) instead where it is not UTF-8.
      returned: always
      type: str
      sample: docs/user_1/document_42/v2/scan.pdf
    change:
      description: V(added), V(removed) or V(changed).
      returned: always
      type: str
      sample: added
    kind:
      description: V(original), V(derived) or V(other).
      returned: always
      type: str
      sample: original
    user:
      description: Name of the user or group who owns it. Not set for files that are no originals or belong to nobody.
      returned: always
      type: str
      sample: margaret
    size_before:
      description: Size in RV(base) in bytes. Not set for an added file.
      returned: always
      type: int
      sample: 20480
    size:
      description: Size in RV(snapshot) in bytes. Not set for a removed file.
      returned: always
      type: int
      sample: 20481
row_counts:
  description:
    - Number of rows of each table of the database, C(before) in RV(base) and C(now) in RV(snapshot). Not set where
      there is no such table.
  returned: success
  type: dict
  sample: {core_document: {before: 1180, now: 1192}}
dest:
  description: The file with all differences. Not set without O(dest).
  returned: success
  type: str
  sample: /srv/reports/paperhost-17-42.jsonl
seconds:
  description: Duration in seconds.
  returned: success
  type: float
  sample: 3.1
rows:
  description: >-
    What M(papermerge.backup.summary) shows of this result, a row for each user and one for each kind of file.
  returned: always
  type: list
  elements: dict
  sample: [{host: paperhost, files: originals, user: margaret, added: 12, removed: 0, changed: 1}]
error:
  description: The kind of failure, see the notes.
  returned: on failure
  type: str
  sample: repository
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    instance paperhost has no complete snapshot before 000001-20261121T134210Z to compare it with; set
    papermerge_backup_base
"""
