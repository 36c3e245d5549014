#!/usr/bin/env bash
# Starts the database servers that the tests expect on 127.0.0.1 and that do not run: PostgreSQL on
# 5432 (user postgres) and MariaDB on 3306 (user root), both without a password, each with an empty
# folder of its own, made anew when a server does not start with what an earlier run has left in it.
# What listens already is left as it is. Where the programs are missing they come from Debian's
# packages, given apt-get and root.
#
#   test/servers.sh        starts them; fails when one cannot be had
#   test/servers.sh stop   stops those that it started
#
# TEST_SERVERS_DIR (/tmp/herald-servers) is where their folders are.
set -euo pipefail

base=${TEST_SERVERS_DIR:-${TMPDIR:-/tmp}/herald-servers}
failed=0

complain() {
  echo "$*" >&2
  failed=1
}

listens() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

is_root() {
  [ "$(id -u)" -eq 0 ]
}

# as <user> <command>…: servers refuse to be root.
as() {
  local user=$1
  shift
  if is_root; then setpriv --reuid="$user" --regid="$user" --clear-groups -- "$@"; else "$@"; fi
}

# install_packages <package>…
install_packages() {
  is_root && command -v apt-get >/dev/null || return 1
  # Another apt-get may be at work, and a mirror may hiccup.
  local apt=(apt-get -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
  export DEBIAN_FRONTEND=noninteractive
  "${apt[@]}" install -y --no-install-recommends "$@" ||
    { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@"; }
}

postgres_programs() {
  local found
  found=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1) || true
  if [ -n "$found" ] && [ -x "$found/initdb" ]; then
    echo "$found"
  elif command -v initdb >/dev/null; then
    dirname "$(command -v initdb)"
  fi
}

start_postgres() {
  if listens 5432; then
    echo 'PostgreSQL: something listens on 5432 already'
    return
  fi
  if [ -z "$(postgres_programs)" ]; then
    # Only the programs: the package's own server would ask for passwords.
    mkdir -p /etc/postgresql-common/createcluster.d 2>/dev/null || true
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/herald-test.conf || true
    install_packages postgresql || true
  fi
  local programs data=$base/postgres
  programs=$(postgres_programs)
  if [ -z "$programs" ]; then
    complain 'PostgreSQL: not installed, and it cannot be installed here'
    return
  fi
  own_folder "$data" postgres
  if ! run_postgres && ! as postgres "$programs/pg_ctl" -D "$data/data" status >/dev/null; then
    rm -rf "$data/data"
    run_postgres || true
  fi
  if listens 5432; then echo "PostgreSQL: started in $data"; else complain "PostgreSQL: see $data/log"; fi
}

# With `programs` and `data` of the caller. What it holds need not outlive a power failure.
run_postgres() {
  [ -f "$data/data/PG_VERSION" ] ||
    as postgres "$programs/initdb" -D "$data/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 \
      --no-sync >/dev/null || return 1
  as postgres "$programs/pg_ctl" -D "$data/data" -l "$data/log" -w -t 120 \
    -o "-p 5432 -h 127.0.0.1 -k $data -c fsync=off -c max_connections=300" start >/dev/null
}

start_mariadb() {
  if listens 3306; then
    echo 'MariaDB: something listens on 3306 already'
    return
  fi
  # The core packages are the programs without a service.
  if ! command -v mariadbd >/dev/null || ! command -v mariadb-install-db >/dev/null; then
    install_packages mariadb-server-core mariadb-client-core || true
  fi
  if ! command -v mariadbd >/dev/null || ! command -v mariadb-install-db >/dev/null; then
    complain 'MariaDB: not installed, and it cannot be installed here'
    return
  fi
  local data=$base/mariadb
  if is_root && ! id mysql >/dev/null 2>&1; then useradd -r -M -s /usr/sbin/nologin mysql; fi
  own_folder "$data" mysql
  if ! run_mariadb; then
    rm -rf "$data/data"
    run_mariadb || true
  fi
  if listens 3306; then echo "MariaDB: started in $data"; else complain "MariaDB: see $data/log"; fi
}

# With `data` of the caller; as above. Fails when it has ended.
run_mariadb() {
  # `--force`: the name of this machine need not resolve.
  [ -d "$data/data/mysql" ] ||
    as mysql mariadb-install-db --no-defaults --force --datadir="$data/data" --skip-test-db \
      --auth-root-authentication-method=normal >"$data/log" 2>&1 || true
  as mysql nohup mariadbd --no-defaults --datadir="$data/data" --bind-address=127.0.0.1 --port=3306 \
    --socket="$data/socket" --pid-file="$data/pid" --innodb-flush-log-at-trx-commit=2 \
    --max-connections=500 >>"$data/log" 2>&1 </dev/null &
  local server=$!
  for _ in $(seq 240); do
    if listens 3306; then return; fi
    kill -0 "$server" 2>/dev/null || return 1
    sleep 0.5
  done
}

# own_folder <folder> <user>
own_folder() {
  mkdir -p "$1"
  if is_root; then chown "$2" "$1"; fi
}

stop_all() {
  local programs
  programs=$(postgres_programs)
  if [ -f "$base/postgres/data/postmaster.pid" ]; then
    as postgres "$programs/pg_ctl" -D "$base/postgres/data" -m fast -w stop >/dev/null
  fi
  if [ -f "$base/mariadb/pid" ]; then
    kill "$(cat "$base/mariadb/pid")"
    while [ -f "$base/mariadb/pid" ]; do sleep 0.2; done
  fi
}

case ${1:-start} in
  start)
    start_postgres
    start_mariadb
    ;;
  stop) stop_all ;;
  *)
    sed -n '2,/^set /{ /^#/ s/^# \{0,1\}//p; }' "$0" >&2
    exit 2
    ;;
esac
exit "$failed"
