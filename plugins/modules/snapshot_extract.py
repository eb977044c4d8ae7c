# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_extract
short_description: Take one document, or some files, out of a snapshot
version_added: 0.1.0
description:
  - Writes the files of one document, all its versions, or the media files that a pattern matches, from a snapshot on
    the controller to a directory on the controller or on the host. Of the snapshot's parts only the compressed frames
    that hold these files are read.
  - Which files belong to a document is read from the snapshot's database, without its server. The dump of PostgreSQL
    is read with C(pg_restore), which the controller must have in the server's version or later. An SQLite database is
    unpacked into a private directory in E(TMPDIR), or in V(/var/tmp) when that is not set, which needs room for it.
    With O(pattern) the database is not read at all.
  - The SHA-256 of every file is compared with the snapshot's index while it is written. When one differs, nothing of
    what was written is left. (Staged, with O(location=host), the directory may stay.)
  - No host is contacted unless O(location=host).
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.action
  - papermerge.backup.repository
  - papermerge.backup.location
  - papermerge.backup.transfer
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
    details: Finds the files and says where they would go. RV(read_bytes) is 0 then.
options:
  snapshot:
    description:
      - Which snapshot to take files from.
      - V(latest) is the newest complete one. A sequence number such as V(42) or an id such as
        V(000042-20261122T134215Z) names one. A time in ISO 8601, such as V(2026-11-22T13:42:15), is the newest
        complete snapshot that was started not after it. It is in UTC unless it has an offset.
    type: str
    default: latest
  document:
    description:
      - The document to take.
      - With a slash at its beginning it is a path of titles in the owner's tree, such as V(/inbox/invoices/2026.pdf).
        Up to Papermerge 3.2 the two special folders are called C(.home) and C(.inbox); V(/home) and V(/inbox) stand
        for them as well.
      - A number or a UUID is the document's id.
      - Anything else is the document's title, or the name of the file of any of its versions.
      - If there are several such documents, the module fails and lists them with their ids. This is so for a path,
        too, when two users have the same one.
      - Either this or O(pattern) is required.
    type: str
  user:
    description: Name of the user (or, since Papermerge 3.5, the group) who owns the O(document).
    type: str
  pattern:
    description:
      - Which media files to take, by their paths relative to the media directory, such as
        V(docs/user_1/document_42/**).
      - V(*) and V(?) match any characters and one character within a name, V([abc]) one of these characters and
        V([!abc]) one of the others. V(**/) is any number of directories, and V(**) at the end everything below.
      - Either this or O(document) is required.
    type: str
  dest:
    description:
      - Directory to write to, on the machine that O(location) says. It must not exist or be empty. What is made gets
        mode C(0700), files in it C(0600) and the time that they had.
      - Files of a O(document) are called by its title and the number of the version, such as C(2026 v2.pdf). A file
        that lies in the directory of a version without being named in the database, such as one that was replaced,
        keeps its own name behind that.
      - Files of a O(pattern) keep their paths.
    type: str
    required: true
seealso:
  - module: papermerge.backup.snapshot_compare
  - module: papermerge.backup.snapshot_restore
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Take one document with all its versions out of the newest snapshot
  papermerge.backup.snapshot_extract:
    document: /inbox/invoices/2026.pdf
    user: margaret
    dest: /tmp/found
  register: found

- name: Say where the versions are
  ansible.builtin.debug:
    msg: "version {{ item.version }} is in {{ item.dest }}"
  loop: "{{ found.files }}"

- name: Put what the document was a month ago onto the host
  papermerge.backup.snapshot_extract:
    snapshot: "2026-10-22T00:00:00"
    document: 1aa870fb-e0ca-488e-b752-0332e4b62d88
    dest: /root/document
    location: host
  become: true

- name: Take all files of a document of Papermerge 2.0, the results of OCR included
  papermerge.backup.snapshot_extract:
    instance: paperhost
    snapshot: "42"
    pattern: "*/user_1/document_17/**"
    dest: /srv/found/document-17
"""

RETURN = r"""
instance:
  description: Name of the instance in the repository.
  returned: success
  type: str
  sample: paperhost
snapshot:
  description: Id of the snapshot.
  returned: success
  type: str
  sample: 000042-20261122T134215Z
version:
  description: Version of Papermerge in the snapshot.
  returned: success
  type: str
  sample: 3.5.3
document:
  description: The document that was found. Not set with O(pattern).
  returned: success
  type: dict
  contains:
    id:
      description: The document's id.
      returned: always
      type: str
      sample: 01c5784a-9908-42d8-b245-87f46ad53819
    title:
      description: Its title.
      returned: always
      type: str
      sample: 2026.pdf
    path:
      description: The titles of its folders, and its own.
      returned: always
      type: str
      sample: /inbox/invoices/2026.pdf
    owner:
      description: Name of the user or group who owns it. Empty if nobody does.
      returned: always
      type: str
      sample: margaret
dest:
  description: The directory. It is not made when there are no files.
  returned: success
  type: str
  sample: /tmp/found
files:
  description: The files that were written, by version, or by path with O(pattern). At most 1,000 are listed.
  returned: success
  type: list
  elements: dict
  contains: &file
    title:
      description: Title of the document. Not set with O(pattern).
      returned: always
      type: str
      sample: 2026.pdf
    version:
      description: >-
        Number of the version, as the database has it. Papermerge 1.x and 2.0 count from 0. Not set with O(pattern).
      returned: always
      type: int
      sample: 2
    path:
      description: Path relative to the media directory. Not set where nobody can tell it.
      returned: always
      type: str
      sample: docvers/5f/0c/5f0cbd2d-7b3e-4f6c-9c8c-0b4f1b3f9a57/2026.pdf
    state:
      description:
        - The class of the version in the snapshot's proof, such as V(present), V(written_after_dump), V(missing) or
          V(not_expected) for one that was never uploaded, as in
          RV(papermerge.backup.snapshot_create#module:snapshot.classes).
        - V(unlisted) is a file beside those that the database names. Not set with O(pattern).
      returned: always
      type: str
      sample: present
    size:
      description: Size in bytes. Not set for a version without a file.
      returned: always
      type: int
      sample: 104857
    sha256:
      description: SHA-256 of the content in hex. Not set for a version without a file.
      returned: always
      type: str
      sample: 3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b
    dest:
      description: The file that was written. Not set for a version without a file.
      returned: always
      type: str
      sample: /tmp/found/2026 v2.pdf
absent:
  description: Versions of the document that have no file in the snapshot, each with its class.
  returned: success
  type: list
  elements: dict
  contains: *file
file_count:
  description: Number of files.
  returned: success
  type: int
  sample: 2
bytes:
  description: Size of the files in bytes.
  returned: success
  type: int
  sample: 209714
read_bytes:
  description: How much was read of the snapshot's parts, in bytes.
  returned: success
  type: int
  sample: 8388608
parts_bytes:
  description: Size of all parts of the snapshot in bytes.
  returned: success
  type: int
  sample: 1932735283
seconds:
  description: Duration in seconds.
  returned: success
  type: float
  sample: 1.204
candidates:
  description:
    - When no document, or more than one, is the wanted one, those that were found. Each has the keys of RV(document),
      and at most 100 are listed.
  returned: on failure
  type: list
  elements: dict
  sample: [{id: "17", title: 2026.pdf, path: /inbox/2026.pdf, owner: margaret}]
rows:
  description: What M(papermerge.backup.summary) shows of this result.
  returned: always
  type: list
  elements: dict
  sample: [{host: paperhost, result: ok, document: /inbox/invoices/2026.pdf, files: 2, dest: /tmp/found}]
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
    2 documents of snapshot 000042-20261122T134215Z are called 2026.pdf: /inbox/2026.pdf of admin (id 12);
    /inbox/2026.pdf of margaret (id 17). Set papermerge_backup_document to an id, or papermerge_backup_user
"""
