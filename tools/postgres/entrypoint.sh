#!/bin/sh
# Makes a database cluster in an empty PGDATA, then becomes PostgreSQL. Variables as in the official image:
#
#   POSTGRES_PASSWORD_FILE or POSTGRES_PASSWORD   the superuser's password; one of them, for an empty PGDATA only
#   POSTGRES_USER          the superuser (postgres)
#   POSTGRES_DB            the database to create (named like the user)
#   POSTGRES_INITDB_ARGS   further arguments of initdb
#   PGDATA                 where the data lies (/var/lib/postgresql/data)
#
# Arguments are a command, or options of postgres when the first one begins with a dash. Runs as any user without
# privileges on a read-only root; writes to PGDATA and /var/run/postgresql only.
set -eu

PGDATA="${PGDATA:-/var/lib/postgresql/data}"
export PGDATA
unfinished="$PGDATA/.initializing"

fail() {
    echo "entrypoint: $*" >&2
    exit 1
}

check_settings() {
    [ -z "${POSTGRES_PASSWORD_FILE:-}" ] || [ -z "${POSTGRES_PASSWORD:-}" ] ||
        fail "both POSTGRES_PASSWORD_FILE and POSTGRES_PASSWORD are set: remove one"
    [ -n "${POSTGRES_PASSWORD_FILE:-}${POSTGRES_PASSWORD:-}" ] ||
        fail "$PGDATA is empty and no password is given: set POSTGRES_PASSWORD_FILE"
    [ -z "${POSTGRES_PASSWORD_FILE:-}" ] || [ -s "$POSTGRES_PASSWORD_FILE" ] ||
        fail "POSTGRES_PASSWORD_FILE $POSTGRES_PASSWORD_FILE is empty or cannot be read by uid $(id -u)"
    foreign=$(find "$PGDATA" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name .initializing | head -n 1)
    [ -z "$foreign" ] || fail "$PGDATA holds no database cluster, but $foreign: point PGDATA at an empty folder"
}

# Made beside its place and moved there when whole: a container killed meanwhile starts again from nothing.
create_cluster() {
    user="${POSTGRES_USER:-postgres}"
    database="${POSTGRES_DB:-$user}"
    check_settings
    rm -rf "$unfinished"
    mkdir -m 700 "$unfinished"
    # shellcheck disable=SC2086 # several arguments, as in the official image
    set -- --pgdata="$unfinished/data" --username="$user" --encoding=UTF8 --locale=C.UTF-8 --data-checksums --no-instructions \
        --auth-local=trust --auth-host=scram-sha-256 ${POSTGRES_INITDB_ARGS:-}
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        initdb --pwfile="$POSTGRES_PASSWORD_FILE" "$@"
    else
        initdb --pwfile=/dev/fd/3 "$@" 3<<EOF
$POSTGRES_PASSWORD
EOF
    fi
    echo "host all all all scram-sha-256" >>"$unfinished/data/pg_hba.conf"
    if [ "$database" != postgres ]; then
        quoted=$(printf '%s' "$database" | sed 's/"/""/g')
        echo "CREATE DATABASE \"$quoted\"" | postgres --single -D "$unfinished/data" postgres >/dev/null
    fi
    touch "$unfinished/whole"
    sync
}

# PG_VERSION last: while it is missing, the next start goes on here.
move_into_place() {
    find "$unfinished/data" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv -t "$PGDATA" {} +
    sync
    mv "$unfinished/data/PG_VERSION" "$PGDATA/"
    rm -rf "$unfinished"
}

case "${1:-}" in
-* | "") set -- postgres "$@" ;;
esac

if [ "$1" = postgres ]; then
    mkdir -p "$PGDATA" || fail "cannot make $PGDATA as uid $(id -u): is the volume writable (fsGroup)?"
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        [ -e "$unfinished/whole" ] || create_cluster
        move_into_place
    fi
    # A volume's root belongs to root with the pod's group; PostgreSQL itself then says what it refuses.
    chmod 700 "$PGDATA" 2>/dev/null || true
fi
unset POSTGRES_PASSWORD
exec "$@"
