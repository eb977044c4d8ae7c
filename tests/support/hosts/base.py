# SPDX-License-Identifier: GPL-3.0-or-later
"""The file system that every test host starts from: a Debian with the users that the tests log in as."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import sys
import time
from pathlib import Path

from tests.support.hosts.commands import BenchError, execute, require
from tests.support.hosts.storage import remove_tree, unmount_under

SUITE = "bookworm"
PACKAGES = (
    "openssh-server",
    "python3",
    "systemd",
    "systemd-sysv",
    "dbus",
    "sudo",
    "opendoas",
    "iproute2",
    "zstd",
    "acl",
    "sqlite3",
    "procps",
    "rsync",
    "postgresql-15",
    "mariadb-server",
    "python3-psycopg2",
    "docker.io",
)
LOGIN_USERS = ("root", "admin", "operator", "plain", "doer")
OPERATOR_PASSWORD = "correct horse battery staple"
"""What the user operator types, for sudo and for ssh."""

ARCHIVE_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# In a set-up script so that its hash says which image it makes. Passwords are "*", not "!": sshd without PAM refuses
# locked accounts. Debian's base has a group named operator, without a user.
SETUP = f"""
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
useradd --create-home --shell /bin/bash --uid 1001 --password '*' admin
useradd --create-home --shell /bin/bash --uid 1002 --gid operator operator
useradd --create-home --shell /bin/bash --uid 1003 --password '*' plain
useradd --create-home --shell /bin/bash --uid 1004 --password '*' doer
useradd --system --create-home --home-dir /var/lib/papermerge --shell /bin/bash --password '*' papermerge
echo 'operator:{OPERATOR_PASSWORD}' | chpasswd

echo 'admin ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin
echo 'operator ALL=(ALL:ALL) ALL' >/etc/sudoers.d/operator
chmod 0440 /etc/sudoers.d/admin /etc/sudoers.d/operator
echo 'permit nopass doer' >/etc/doas.conf
chmod 0400 /etc/doas.conf

rm -f /etc/ssh/ssh_host_*
cat >/etc/ssh/sshd_config.d/test-host.conf <<'EOF'
UsePAM no
UseDNS no
GSSAPIAuthentication no
KbdInteractiveAuthentication no
PasswordAuthentication yes
PermitRootLogin prohibit-password
AuthorizedKeysFile /etc/ssh/authorized_keys.d/%u
HostKey /etc/ssh/ssh_host_ed25519_key
MaxStartups 100
MaxSessions 100
PrintLastLog no
EOF
mkdir -m 0755 /etc/ssh/authorized_keys.d
sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf

# The package makes its cluster in the locale of whoever builds the image.
pg_dropcluster 15 main
LC_ALL=C.UTF-8 pg_createcluster 15 main -- --no-sync 2>&1
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \\
  fstrim.timer systemd-logind.service systemd-pstore.service getty.target console-getty.service 2>&1
# Started by the tests that want them: most hosts need none.
systemctl disable postgresql.service mariadb.service docker.service docker.socket containerd.service 2>&1
# Would refuse every login but root's until the last unit of the boot.
ln -s /dev/null /etc/tmpfiles.d/systemd-nologin.conf
# Empty, not absent and not "uninitialized": both would make the first boot reset which units are enabled.
: >/etc/machine-id
rm -f /etc/hostname /etc/apt/apt.conf.d/99mmdebstrap /etc/apt/sources.list
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
"""


def base_image() -> Path:
    """Return the root directory of the image, building it first if this recipe was never built here.

    It lies in ${XDG_CACHE_HOME:-~/.cache}/papermerge-backup/host-HASH and must not be written to. One process builds,
    others wait. Raises BenchError when this is not root, a program is missing, or the packages cannot be fetched.
    """
    require("mmdebstrap", "apt-get", "chroot")
    recipe = "\n".join((SUITE, platform.machine(), *PACKAGES, SETUP))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "papermerge-backup"
    image = cache / f"host-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    if image.is_dir():
        return image
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with image.with_suffix(".lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.is_dir():
            _build(image, lock.fileno())
    return image


def _build(image: Path, lock: int) -> None:
    unfinished = image.with_suffix(".unfinished")
    unmount_under(unfinished)  # an earlier build that was killed
    remove_tree(unfinished)
    started = time.monotonic()
    _say(f"building the test hosts' image ({SUITE}, {len(PACKAGES)} packages and what they need) in {image}")
    options = [f"--aptopt={line}" for line in apt_options()]
    sources = debian_sources()
    try:
        execute(
            [
                "mmdebstrap",
                "--mode=root",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                '--aptopt=Acquire::Languages "none"',
                "--dpkgopt=force-unsafe-io",
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--dpkgopt=path-exclude=/usr/share/man/*",
                "--dpkgopt=path-exclude=/usr/share/locale/*",
                *options,
                SUITE,
                unfinished,
                *sources,
            ],
            timeout=1800,
            pass_fds=[lock],  # should this process be killed, the next one waits until mmdebstrap, too, has ended
        )
        _say(f"packages installed after {time.monotonic() - started:.0f} s; users and services")
        execute(["chroot", unfinished, "/bin/sh", "-eu"], input=SETUP, timeout=300, pass_fds=[lock])
    except BenchError as error:
        raise BenchError(
            f"the test hosts' image was not built from {', '.join(sources) or 'the default Debian mirror'} "
            f"(apt's sources count only after an apt-get update): {error}"
        ) from error
    execute(["sync", "--file-system", unfinished], timeout=600)
    unfinished.rename(image)
    _say(f"image ready after {time.monotonic() - started:.0f} s")


def debian_sources() -> list[str]:
    """Return "deb URI SUITE COMPONENT" lines for the image, from the Debian mirrors that this machine's apt uses.

    A machine that runs another Debian release lends its mirrors; empty when it knows no Debian mirror.
    """
    columns = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    targets = execute(["apt-get", "indextargets", "--format", columns, "Created-By: Packages"], check=False).stdout
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", SUITE)
    signed = f"[signed-by={ARCHIVE_KEYRING}] " if ARCHIVE_KEYRING.exists() else ""
    lines: dict[str, None] = {}
    for target in targets.splitlines():
        origin, uri, release, component = target.split("|")
        suite = re.sub(rf"^{re.escape(own)}\b", SUITE, release)
        if origin == "Debian" and suite in (SUITE, f"{SUITE}-updates", f"{SUITE}-security") and component == "main":
            lines[f"deb {signed}{uri} {suite} {component}"] = None
    return list(lines)


def apt_options() -> list[str]:
    """Return this machine's apt settings for fetching packages (proxies, TLS, dates) as lines of an apt.conf."""
    wanted = re.compile(r"Acquire::(http|https|Retries|ForceIPv[46]|Check-Date|Check-Valid-Until)\b.* \"")
    return [line.rstrip(";") for line in execute(["apt-config", "dump"]).stdout.splitlines() if wanted.match(line)]


def _say(text: str) -> None:
    print(f"[test hosts] {text}", file=sys.stderr, flush=True)
