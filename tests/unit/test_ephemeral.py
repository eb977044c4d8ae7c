# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written inside a container stays only on a mount; a machine of its own is none, whatever marks it bears."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.papermerge.backup.plugins.module_utils.errors import RepositoryError
from ansible_collections.papermerge.backup.plugins.plugin_utils.ephemeral import (
    Surroundings,
    read_mounts,
    require_lasting,
)

HASH = "4f1d0c7b9e2a63580f1d0c7b9e2a63584f1d0c7b9e2a63580f1d0c7b9e2a6358"

# As the kernel writes them; host names and most mounts of /proc and /sys left out.
DOCKER = f"""\
1203 1092 0:132 / / rw,relatime master:411 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/QX6:/var/lib/docker/overlay2/l/7GZ,upperdir=/var/lib/docker/overlay2/9ab/diff,workdir=/var/lib/docker/overlay2/9ab/work
1204 1203 0:135 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1205 1203 0:136 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64
1210 1205 0:133 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k,inode64
1211 1203 8:1 /var/lib/docker/containers/{HASH}/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/sda1 rw,errors=remount-ro
1212 1203 8:1 /srv/backups /backups rw,relatime - ext4 /dev/sda1 rw,errors=remount-ro
1213 1203 8:1 /srv/my\\040backups /my\\040backups rw,relatime - ext4 /dev/sda1 rw,errors=remount-ro
1214 1203 8:1 /var/lib/docker/volumes/papermerge-backups/_data /volume rw,relatime master:1 - ext4 /dev/sda1 rw
1215 1203 8:1 /var/lib/docker/volumes/{HASH}/_data /anonymous rw,relatime master:1 - ext4 /dev/sda1 rw
1216 1203 0:140 / /memory rw,relatime - tmpfs tmpfs rw,inode64
1217 1203 0:52 / /nfs rw,relatime - nfs4 nas:/backups rw,vers=4.2
"""  # noqa: E501
DOCKER_CONTAINERD = """\
812 790 0:71 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/31/fs,upperdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/44/fs,workdir=/w
"""  # noqa: E501
DOCKER_BTRFS = "640 602 0:35 /@/var/lib/docker/btrfs/subvolumes/9ab / rw,relatime - btrfs /dev/sda2 rw,subvolid=512\n"
DOCKER_VFS = "640 602 8:1 /var/lib/docker/vfs/dir/9ab / rw,relatime - ext4 /dev/sda1 rw\n"
PODMAN_ROOTLESS = """\
733 640 0:61 / / rw,nodev,relatime - fuse.fuse-overlayfs fuse-overlayfs rw,user_id=0,group_id=0,default_permissions
734 733 8:3 /user/1000/containers/overlay-containers/9ab/userdata/.containerenv /run/.containerenv rw - tmpfs tmpfs rw
735 733 8:2 /home/backup/project /home/backup/project rw,relatime - xfs /dev/sda2 rw
"""
KUBERNETES = """\
2101 1988 0:301 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
2120 2101 8:1 /var/lib/kubelet/pods/0b/volumes/kubernetes.io~empty-dir/backups /backups rw,relatime - ext4 /dev/sda1 rw
2121 2101 8:16 / /claim rw,relatime - ext4 /dev/sdb rw
"""
AWX = """\
733 640 0:61 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/awx/.local/share/containers/storage/overlay/l/A
734 733 8:2 /tmp/awx_61_ifxztvul /runner rw,relatime - xfs /dev/sda2 rw
735 733 8:2 /srv/backups /srv/backups rw,relatime - xfs /dev/sda2 rw
"""
MACHINE = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n33 27 0:30 / /run rw - tmpfs tmpfs rw\n"
SUBVOLUME = "27 1 0:25 /@rootfs / rw,relatime shared:1 - btrfs /dev/sda2 rw,subvol=/@rootfs\n"
NSPAWN = "500 400 0:55 / / rw,relatime - overlay overlay rw,lowerdir=/base,upperdir=/u,workdir=/w\n"
LXC = "500 400 0:55 /subvol-101-disk-0 / rw,noatime - zfs rpool/data/subvol-101-disk-0 rw,xattr\n"
LIVE = "26 1 0:24 / / rw,relatime - overlay overlay rw,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay\n"


def at(mountinfo: str, **more: Any) -> Surroundings:
    return Surroundings(mounts=read_mounts(mountinfo.splitlines()), **more)


DOCKER_MARKED = at(DOCKER, markers=["/.dockerenv"])


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/root/papermerge-backups", "the container's own layer"),
        ("/backups2/here", "the container's own layer"),
        ("/etc/resolv.conf.d", "the container's own layer"),
        ("/dev/shm/backups", "in memory"),
        ("/memory/backups", "in memory"),
        ("/anonymous", "a volume without a name"),
        ("/backups", ""),
        ("/backups/below/not/there/yet", ""),
        ("/my backups/papermerge", ""),
        ("/volume/papermerge", ""),
        ("/nfs", ""),
    ],
)
def test_in_a_container_only_a_mount_that_outlives_it_will_do(path: str, reason: str) -> None:
    loss = DOCKER_MARKED.loss(path)
    assert bool(loss) == bool(reason)
    assert reason in loss


@pytest.mark.parametrize(
    ("surroundings", "sign"),
    [
        (DOCKER_MARKED, "/.dockerenv"),
        (at(DOCKER), "container engine"),
        (at(DOCKER_CONTAINERD), "container engine"),
        (at(DOCKER_BTRFS), "container engine"),
        (at(DOCKER_VFS), "container engine"),
        (at(PODMAN_ROOTLESS, markers=["/run/.containerenv"], manager="oci"), "/run/.containerenv"),
        (at(PODMAN_ROOTLESS, manager="podman"), "container=podman"),
        (at(KUBERNETES, environment={"KUBERNETES_SERVICE_HOST": "10.96.0.1"}), "KUBERNETES_SERVICE_HOST"),
        (at(LIVE, control_groups="0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-9ab.scope\n"), "control group"),
        (at(LIVE, control_groups="12:pids:/docker/9ab\n"), "control group"),
        (at(AWX), "container engine"),
    ],
)
def test_a_container_is_known_by_its_root_and_one_sign_more(surroundings: Surroundings, sign: str) -> None:
    assert sign in surroundings.container()
    assert "own layer" in surroundings.loss("/home/runner/papermerge-backups")


@pytest.mark.parametrize(
    "surroundings",
    [
        at(MACHINE),
        at(MACHINE, markers=["/.dockerenv"]),  # a virtual machine made of an image
        at(MACHINE, control_groups="0::/system.slice/docker-backup.service\n"),
        at(SUBVOLUME),
        at(LIVE),
        at(NSPAWN, manager="systemd-nspawn"),
        at(LXC, manager="lxc"),
        at(""),
    ],
)
def test_a_system_that_stays_is_no_such_container(surroundings: Surroundings) -> None:
    assert surroundings.container() == ""
    assert surroundings.loss("/root/papermerge-backups") == ""
    assert surroundings.loss("/run/backups") == ""


def test_volumes_of_a_pod_stay_unless_they_are_the_pods_own() -> None:
    pod = at(KUBERNETES, environment={"KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert "emptyDir" in pod.loss("/backups/papermerge")
    assert pod.loss("/claim/papermerge") == ""


def test_the_directory_of_a_job_of_awx_does_not_stay() -> None:
    job = at(AWX, environment={"AWX_PRIVATE_DATA_DIR": "/tmp/awx_61_ifxztvul"})
    assert "one job of AWX" in job.loss("/runner/project/backups")
    assert job.loss("/srv/backups") == ""
    assert replace(job, environment={}).loss("/runner/project/backups") == ""


def test_the_later_of_two_mounts_on_one_point_counts() -> None:
    covered = at(DOCKER + "1300 1212 0:150 / /backups rw,relatime - tmpfs tmpfs rw\n", markers=["/.dockerenv"])
    assert "in memory" in covered.loss("/backups")


def test_a_link_counts_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/backups")
    assert DOCKER_MARKED.loss(str(tmp_path / "link" / "papermerge")) == ""


def test_the_error_says_what_to_do() -> None:
    with pytest.raises(RepositoryError) as caught:
        require_lasting(Path("/root/papermerge-backups"), DOCKER_MARKED)
    for part in ("/root/papermerge-backups", "/.dockerenv", "papermerge_backup_repository", "_accept_ephemeral"):
        assert part in caught.value.message


def test_where_the_tests_run_is_understood() -> None:
    here = Surroundings.found()
    assert here.mount_of("/") is not None
    assert here.mount_of(os.path.realpath("/proc/self")) == next(m for m in here.mounts if m.point == "/proc")
