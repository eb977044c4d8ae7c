#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What of the official image's entry matters to a backup: the superuser, the database, trust inside of the container
# and a password from outside, the socket in its usual place.
set -eu
mkdir -p /tmp /run/postgresql
chmod 1777 /tmp
ln -sfn /run /var/run
chown postgres: /run/postgresql
mkdir -p "$PGDATA"
chown postgres: "$PGDATA"
chmod 0700 "$PGDATA"
as_postgres="setpriv --reuid=postgres --regid=postgres --clear-groups"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    chown postgres: /tmp/password
    $as_postgres initdb --no-sync --locale=C.UTF-8 --encoding=UTF8 --auth=trust --username="$POSTGRES_USER" \
        --pwfile=/tmp/password --pgdata="$PGDATA" >/tmp/initdb.log
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE \"${POSTGRES_DB:-$POSTGRES_USER}\";" |
        $as_postgres postgres --single -F -j -D "$PGDATA" postgres >/dev/null
fi
exec $as_postgres "$@" -c fsync=off -c jit=off -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
