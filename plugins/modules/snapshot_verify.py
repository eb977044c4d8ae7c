# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_verify
short_description: Verify snapshots in repositories
version_added: 0.1.0
description:
  - Verifies snapshots in repositories on the controller. Contacts no host.
  - The outcome is written into the instance's history, where M(papermerge.backup.snapshot_info) finds it. The
    snapshots themselves are never changed.
  - All snapshots asked for are verified. The module fails at the end when one of them is not sound.
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.controller
  - papermerge.backup.repository.several
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
    details: Verifies all the same, and writes nothing into the history.
options:
  snapshot:
    description:
      - Which snapshot of each instance to verify.
      - V(latest) is the newest complete one, V(all) is every one.
      - A sequence number such as V(42) or an id such as V(000042-20261122T134215Z) names one.
      - A time in ISO 8601, such as V(2026-11-22T13:42:15) or V(2026-11-22T14:42:15+01:00), is the newest complete
        snapshot that was started not after it. It is in UTC unless it has an offset.
      - An instance without such a snapshot counts as failed.
    type: str
    default: latest
  level:
    description:
      - How much is verified.
      - V(quick) compares manifest and checksum, and looks for everything that the manifest names and its size.
      - V(full) also reads every stored file and compares its SHA-256, and compares the index with the records of the
        parts.
      - V(deep) also unpacks the parts in bounded streams and compares each media file with the index, and opens the
        database and compares its rows with the manifest. An SQLite database is unpacked into a private directory in
        E(TMPDIR), or in V(/var/tmp) when that is not set, which needs room for it. The dump of a server is read without
        one, that of PostgreSQL with C(pg_restore), which the controller must have in the server's version or later.
    type: str
    choices:
      - quick
      - full
      - deep
    default: full
seealso:
  - module: papermerge.backup.snapshot_info
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Verify the newest snapshot of every instance
  papermerge.backup.snapshot_verify:
  run_once: true

- name: Look every night whether all snapshots are there
  papermerge.backup.snapshot_verify:
    repository: /srv/backups/papermerge
    snapshot: all
    level: quick
    excluded_instances:
      - laboratory
  run_once: true

- name: Prove that one snapshot can be restored
  papermerge.backup.snapshot_verify:
    instance: paperhost
    snapshot: "42"
    level: deep
  run_once: true
"""

RETURN = r"""
snapshots:
  description:
    - The snapshots that were verified, and an entry for each instance without the snapshot asked for. Beside the keys
      below each has those of RV(papermerge.backup.snapshot_create#module:snapshot), or the few that
      M(papermerge.backup.snapshot_info) returns of a damaged one.
  returned: success, and when a snapshot did not verify
  type: list
  elements: dict
  contains:
    id:
      description: Sequence number and start in UTC.
      returned: when there is such a snapshot
      type: str
      sample: 000042-20261122T134215Z
    level:
      description: The value of O(level).
      returned: when there is such a snapshot
      type: str
      sample: deep
    result:
      description: V(sound), V(damaged), or V(failed) when there is no such snapshot or it could not be verified.
      returned: always
      type: str
      sample: sound
    msg:
      description: What was found first, empty for a sound snapshot.
      returned: always
      type: str
      sample: ""
    error:
      description: The kind of failure, see the notes. Empty for a sound snapshot.
      returned: always
      type: str
      sample: ""
    seconds:
      description: Duration of this verification in seconds.
      returned: when there is such a snapshot
      type: float
      sample: 12.403
    parts:
      description: Number of parts that the snapshot needs.
      returned: for a sound snapshot
      type: int
      sample: 3
    checked_bytes:
      description: Size of everything whose SHA-256 was computed, in bytes.
      returned: for a sound snapshot, with O(level=full) or O(level=deep)
      type: int
      sample: 1873920411
    unpacked_files:
      description: Number of media files unpacked and compared.
      returned: for a sound snapshot, with O(level=deep)
      type: int
      sample: 30871
    row_counts_compared:
      description: Number of tables whose rows were counted and compared.
      returned: for a sound snapshot, with O(level=deep)
      type: int
      sample: 13
    proved:
      description: Number of files that the database expects and that are in the snapshot.
      returned: for a sound snapshot, with O(level=deep)
      type: int
      sample: 1198
rows:
  description: What M(papermerge.backup.summary) shows of this result, a row for each snapshot.
  returned: always
  type: list
  elements: dict
  sample: [{host: localhost, instance: paperhost, snapshot: 000042-20261122T134215Z, level: deep, result: sound}]
error:
  description: The kind of the first failure, see the notes.
  returned: on failure
  type: str
  sample: damage
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    1 of 4 snapshots did not verify:
    /home/backup/papermerge-backups/paperhost/parts/0b7bd2b7e3a14b6f8a9b7d7a7ad6f3c1.tar.zst is missing
"""
