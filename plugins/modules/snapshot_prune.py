# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_prune
short_description: Remove snapshots that a policy does not keep
version_added: 0.1.0
description:
  - Removes snapshots from repositories on the controller, and then the parts that no snapshot names any more. Contacts
    no host.
  - A snapshot is kept if any rule of the policy keeps it. The rules are those of C(restic forget). An empty policy is
    refused. Hours, days, weeks, months and years are those of UTC, and go by the start of a snapshot.
  - As long as a rule could keep more than there are, it also keeps the oldest snapshot that counts.
  - Only complete snapshots count that were fully verified within O(verified_within). What a rule would keep and was not
    is verified by the module. What does not count takes nobody's place. A damaged or incomplete snapshot is removed
    once the rules find enough that count without it.
  - The newest snapshot that verifies is never removed, nor is a pinned one, see M(papermerge.backup.snapshot_pin).
  - Nothing is removed from an instance, and the module fails, while its newest snapshot is incomplete, does not verify,
    is dated more than five minutes in the future, or has shrunk, see O(shrink_threshold).
  - A removed snapshot stays in the instance's history. The number of a snapshot is never used again.
extends_documentation_fragment:
  - papermerge.backup.attributes
  - papermerge.backup.attributes.controller
  - papermerge.backup.repository.several
  - papermerge.backup.errors
attributes:
  check_mode:
    support: full
    details: Says of each snapshot whether it would be removed, and why. Verifies as it would, and writes nothing.
options:
  keep_last:
    description:
      - Keep this many of the newest snapshots that count. V(-1) keeps all, here and in the other counts.
    type: int
  keep_hourly:
    description: Keep the newest snapshot of each of the last this many hours that have one.
    type: int
  keep_daily:
    description: Keep the newest snapshot of each of the last this many days that have one.
    type: int
  keep_weekly:
    description: Keep the newest snapshot of each of the last this many weeks that have one, which begin on Monday.
    type: int
  keep_monthly:
    description: Keep the newest snapshot of each of the last this many months that have one.
    type: int
  keep_yearly:
    description: Keep the newest snapshot of each of the last this many years that have one.
    type: int
  keep_within:
    description:
      - Keep all snapshots that were started less than this before the newest one. A duration is a number of years,
        months, days and hours, in this order, such as V(2y5m7d3h), V(14d) or V(36h).
    type: str
  keep_within_hourly:
    description: As O(keep_hourly), for all hours within this duration before the newest snapshot.
    type: str
  keep_within_daily:
    description: As O(keep_daily), for all days within this duration before the newest snapshot.
    type: str
  keep_within_weekly:
    description: As O(keep_weekly), for all weeks within this duration before the newest snapshot.
    type: str
  keep_within_monthly:
    description: As O(keep_monthly), for all months within this duration before the newest snapshot.
    type: str
  keep_within_yearly:
    description: As O(keep_yearly), for all years within this duration before the newest snapshot.
    type: str
  verified_within:
    description:
      - A full or deep verification that is younger than this need not be repeated. V(0h) verifies all that a rule
        would keep.
    type: str
    default: 30d
  part_grace:
    description:
      - Parts that no snapshot names are removed when they are older than this. An interrupted create has left them for
        the next one to use.
    type: str
    default: 24h
  shrink_threshold:
    description:
      - Remove nothing while the newest snapshot has this many percent fewer documents, or bytes of media, than the last
        one that was in order. V(100) allows everything.
    type: int
    default: 20
  accept_shrink:
    description:
      - Ids or sequence numbers of snapshots that are all right although they have shrunk. Needed once for each.
    type: list
    elements: str
    default: []
seealso:
  - module: papermerge.backup.snapshot_pin
  - module: papermerge.backup.snapshot_verify
author:
  - The papermerge.backup contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Keep a week of days, a month of weeks, a year of months
  papermerge.backup.snapshot_prune:
    keep_daily: 7
    keep_weekly: 5
    keep_monthly: 12
  run_once: true

- name: Say what would go, and why
  papermerge.backup.snapshot_prune:
    repository: /srv/backups/papermerge
    keep_within: 14d
    keep_yearly: -1
  check_mode: true
  run_once: true

- name: Prune one instance after most of its documents were deleted on purpose
  papermerge.backup.snapshot_prune:
    instance: paperhost
    keep_last: 10
    accept_shrink:
      - 000042-20261122T134215Z
  run_once: true
"""

RETURN = r"""
instances:
  description: The instances, in the order in which they were pruned.
  returned: success, and when an instance could not be pruned
  type: list
  elements: dict
  contains:
    instance:
      description: Name of the instance in the repository.
      returned: always
      type: str
      sample: paperhost
    path:
      description: Directory of the instance.
      returned: always
      type: str
      sample: /home/backup/papermerge-backups/paperhost
    state:
      description: V(pruned), V(failed) or V(no snapshots).
      returned: always
      type: str
      sample: pruned
    result:
      description: V(ok), or V(failed) when nothing was removed or not everything that was to be.
      returned: always
      type: str
      sample: ok
    msg:
      description: Why it failed, or what could not be removed and why.
      returned: always
      type: str
      sample: ""
    error:
      description: The kind of failure, see the notes. Empty without one.
      returned: always
      type: str
      sample: ""
    kept:
      description: Number of snapshots that are kept.
      returned: always
      type: int
      sample: 19
    removed:
      description: Number of snapshots that are removed.
      returned: always
      type: int
      sample: 1
    removed_parts:
      description: Number of parts that are removed.
      returned: always
      type: int
      sample: 2
    freed_bytes:
      description: Size of everything that is removed, in bytes.
      returned: always
      type: int
      sample: 20971520
    snapshots:
      description:
        - The snapshots, oldest first. Beside the keys below each has those of
          RV(papermerge.backup.snapshot_create#module:snapshot), or the few that M(papermerge.backup.snapshot_info)
          returns of a damaged one.
      returned: always
      type: list
      elements: dict
      contains:
        action:
          description: V(keep) or V(remove).
          returned: always
          type: str
          sample: keep
        reasons:
          description: Why. Empty where the whole instance was refused.
          returned: always
          type: list
          elements: str
          sample: [daily snapshot, weekly snapshot]
rows:
  description: What M(papermerge.backup.summary) shows of this result.
  returned: always
  type: list
  elements: dict
  sample: [{host: localhost, instance: paperhost, result: ok, kept: 19, removed: 1, freed_bytes: 20971520}]
error:
  description: The kind of the first failure, see the notes.
  returned: on failure
  type: str
  sample: loss
msg:
  description: What was found, where, and what to do.
  returned: on failure
  type: str
  sample: >-
    instance paperhost: nothing is removed, because the newest snapshot 000042-20261122T134215Z is incomplete; what it
    lacks may be in older ones only: restore it and take another snapshot
"""
