# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_create
short_description: Take a full snapshot of a running Papermerge
version_added: 0.1.0
description:
  - Takes a snapshot of a Papermerge instance into a repository on the controller. A snapshot is the media directory,
    the database and the application version of one moment.
  - Nothing is stopped. The database is dumped first, then the media is read, then what was missing, changing or just
    written is looked at again.
  - Every version row of the database is compared with the files of the snapshot. An original that the snapshot before
    holds and that is now missing, unreadable or empty means loss. So does more than 1 % of the originals on a first
    snapshot, and a file of the media directory that cannot be read. The module then fails, and the snapshot is kept,
    marked V(incomplete), and never counts as V(latest).
  - The snapshot appears in the repository as a whole at the end, or not at all.
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.action
  - papermerge.backup.repository
  - papermerge.backup.discovery
  - papermerge.backup.media
  - papermerge.backup.transfer
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
    details: Returns RV(plan). The instance is discovered and its media files are counted.
options:
  copy_dir:
    description:
      - Directory on the host, an absolute path, in which a SQLite database is copied before it is sent. It must exist
        and have room for the database. A file system in memory, such as tmpfs, is refused.
      - The default is the directory of the database.
    type: str
  accept_missing:
    description:
      - Whether a snapshot counts as complete in spite of originals that are missing, unreadable or empty.
    type: bool
    default: false
  media_protected_elsewhere:
    description:
      - Whether originals that Papermerge keeps in object storage only (C(PM_STORAGE_BACKEND)) are protected by other
        means. Without that a create of such an instance fails, because the snapshot does not hold them.
    type: bool
    default: false
  config:
    description:
      - Whether the snapshot also holds Papermerge's settings files, unit files and the environment of its service,
        which hold the secret key and passwords. The manifest names them with their SHA-256 only.
    type: bool
    default: false
  accept_ephemeral:
    description:
      - Whether to write snapshots to a directory that is lost with the container that Ansible runs in, such as the home
        directory of an execution environment. Without that a create in a container fails unless O(repository) lies on
        a mount that outlives the container.
    type: bool
    default: false
seealso:
  - module: papermerge.backup.snapshot_restore
  - module: papermerge.backup.snapshot_verify
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Take a snapshot of the Papermerge that is found on the host
  papermerge.backup.snapshot_create:
  become: true

- name: Take a snapshot into another repository, without previews and OCR text
  papermerge.backup.snapshot_create:
    repository: /srv/backups/papermerge
    derived: false
  become: true

- name: Take a snapshot of the second instance on a host, with a media directory that is a link to a volume
  papermerge.backup.snapshot_create:
    instance: archive-2
    project_dir: /opt/papermerge-archive
    media_allowed_roots:
      - /mnt/volume1/papermerge
    copy_dir: /var/tmp
  become: true
  register: created

- name: Show what the snapshot holds
  ansible.builtin.debug:
    msg: "{{ created.snapshot.id }}: {{ created.snapshot.originals }} of {{ created.snapshot.expected }} originals"
"""

RETURN = r"""
snapshot:
  description: The snapshot that was committed.
  returned: not in check mode, on success and with the error V(loss)
  type: dict
  contains:
    id:
      description: Sequence number and start in UTC. The name of the snapshot's directory.
      returned: always
      type: str
      sample: 000042-20261122T134215Z
    sequence:
      description: Number of the snapshot. It orders the snapshots of an instance, the clock does not.
      returned: always
      type: int
      sample: 42
    instance:
      description: Name of the instance in the repository.
      returned: always
      type: str
      sample: paperhost
    state:
      description: V(complete), or V(incomplete) when originals were lost.
      returned: always
      type: str
      sample: complete
    path:
      description: Directory of the snapshot on the controller.
      returned: always
      type: str
      sample: /home/backup/papermerge-backups/paperhost/snapshots/000042-20261122T134215Z
    started:
      description: Start of the run, ISO 8601 in UTC.
      returned: always
      type: str
      sample: "2026-11-22T13:42:15.556393Z"
    ended:
      description: End of the run, ISO 8601 in UTC.
      returned: always
      type: str
      sample: "2026-11-22T13:42:58.682433Z"
    seconds:
      description: Duration of the run in seconds.
      returned: always
      type: float
      sample: 43.126
    timings:
      description: Duration of each step in seconds. V(rows), the reading of the version rows, is a part of V(dump).
      returned: always
      type: dict
      sample: {rows: 0.1, dump: 1.2, scan: 3.4, archive: 36.9, settle: 0.0, prove: 1.1}
    version:
      description: Version of Papermerge.
      returned: always
      type: str
      sample: 2.0.2
    documents:
      description: Number of documents in the database.
      returned: always
      type: int
      sample: 1204
    files:
      description: Number of media files in the snapshot.
      returned: always
      type: int
      sample: 30871
    expected:
      description: Number of version rows whose file must be in the snapshot.
      returned: always
      type: int
      sample: 1198
    originals:
      description: How many of RV(snapshot.expected) are in the snapshot.
      returned: always
      type: int
      sample: 1198
    layout:
      description: How this release keeps originals. V(unknown) means that the proof could say nothing of them.
      returned: always
      type: str
      sample: user_document
    classes:
      description: Number of version rows in each class of the proof.
      returned: always
      type: dict
      contains:
        present:
          description: The file is in the snapshot.
          returned: always
          type: int
          sample: 1197
        written_after_dump:
          description: The file is in the snapshot and was written, or written again, after the database was dumped.
          returned: always
          type: int
          sample: 1
        not_expected:
          description: The row has no file, because nothing was ever uploaded for it.
          returned: always
          type: int
          sample: 6
        not_computable:
          description: Older versions whose paths the database does not tell.
          returned: always
          type: int
          sample: 88
        missing:
          description: The file is not there.
          returned: always
          type: int
          sample: 0
        deleted_during_backup:
          description:
            - While the snapshot was taken, the row was deleted or was given another file, and the file that it named
              before is not there.
          returned: always
          type: int
          sample: 0
        unreadable:
          description: The file cannot be read.
          returned: always
          type: int
          sample: 0
        empty:
          description: The file is empty although the row has pages.
          returned: always
          type: int
          sample: 0
        in_object_storage:
          description: The file lies in object storage.
          returned: always
          type: int
          sample: 0
    orphans:
      description: Number of files among the originals, in directories that no row of the database knows.
      returned: always
      type: int
      sample: 3
    changed:
      description:
        - Number of originals whose content is not that of the snapshot before. Papermerge 2.1 and later overwrite an
          original in two cases, so this is no failure, but it is warned of. Both snapshots keep their own content; the
          manifest has the first 1,000 paths with both SHA-256.
      returned: always
      type: int
      sample: 0
    media_bytes:
      description: Size of the media files in bytes.
      returned: always
      type: int
      sample: 2147483648
    new_bytes:
      description: Bytes that this snapshot added to the repository.
      returned: always
      type: int
      sample: 1932735283
    stored_bytes:
      description: Bytes that this snapshot needs in the repository, compressed.
      returned: always
      type: int
      sample: 1932735283
    database_restarts:
      description: How often the copy of a SQLite database started again because the database was written to.
      returned: always
      type: int
      sample: 0
    database_locked_seconds:
      description: For how many seconds the copy of a SQLite database kept it from being written to.
      returned: always
      type: float
      sample: 0.0
plan:
  description:
    - What would be done. All keys of RV(papermerge.backup.instance_info#module:instance) with media files and sizes,
      and those below.
  returned: in check mode
  type: dict
  contains:
    instance:
      description: Name of the instance in the repository.
      returned: always
      type: str
      sample: paperhost
    repository:
      description: Directory of the repository on the controller.
      returned: always
      type: str
      sample: /home/backup/papermerge-backups
    previous:
      description: The id of the newest snapshot of this instance, an empty list when there is none.
      returned: always
      type: list
      elements: str
      sample: [000041-20261121T134207Z]
    host:
      description: The host's name, its Python, the user there, and whether it has the C(zstd) program.
      returned: always
      type: dict
      sample: {hostname: paperhost, python: 3.11.2, user: root, zstd: true}
rows:
  description: What M(papermerge.backup.summary) shows of this result.
  returned: always
  type: list
  elements: dict
  sample: [{host: paperhost, result: ok, snapshot: 000042-20261122T134215Z, originals: 1198/1198, time: 43.126}]
error:
  description: The kind of failure, see the notes.
  returned: on failure
  type: str
  sample: loss
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    media directory /srv/pm/media (MEDIA_DIR in /etc/papermerge.conf.py) does not exist; set
    papermerge_backup_media_root, or mount what belongs there
"""
