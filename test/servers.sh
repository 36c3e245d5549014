#!/usr/bin/env bash
# Starts the database servers that the tests expect on 127.0.0.1, unless something listens on their
# ports: PostgreSQL on 5432 (user postgres), MariaDB on 3306 (user root), and Redis or Valkey on 6390, all
# without a password. Each has its own folder; when a server does not start with the data of an earlier
# run, the data is deleted. Missing programs are installed from the packages of Debian 12 or 13, which
# needs apt-get and root.
#
# Redis writes each command to its append-only file before it replies. It does not use its standard port,
# because a Redis that runs there already may not persist its data. It is for event logs on Redis, which are
# planned; so far one test checks these settings and no other uses it.
#
#   test/servers.sh        starts the servers; fails when PostgreSQL or MariaDB is unavailable; reports it
#                          when Redis is unavailable
#   test/servers.sh stop   stops the servers that this script has started
#
# TEST_SERVERS_DIR is the folder of the data (default: /tmp/herald-servers). TEST_POSTGRES_PORT,
# TEST_MARIADB_PORT and TEST_REDIS_PORT set other ports; the tests then need TEST_POSTGRES_URL,
# TEST_MARIADB_URL and TEST_REDIS_URL.
set -euo pipefail

base=${TEST_SERVERS_DIR:-${TMPDIR:-/tmp}/herald-servers}
postgres_port=${TEST_POSTGRES_PORT:-5432}
mariadb_port=${TEST_MARIADB_PORT:-3306}
redis_port=${TEST_REDIS_PORT:-6390}
failed=0

# fail_later <message>: reports a failure; the script goes on and exits with code 1.
fail_later() {
  echo "$*" >&2
  failed=1
}

listens() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

is_root() {
  [ "$(id -u)" -eq 0 ]
}

# as <user> <command>…: runs a command as this user when the script runs as root, because database servers
# refuse root.
as() {
  local user=$1
  shift
  if is_root; then setpriv --reuid="$user" --regid="$user" --clear-groups -- "$@"; else "$@"; fi
}

# install_packages <package>…: installs Debian packages; fails without root or apt-get.
install_packages() {
  is_root && command -v apt-get >/dev/null || return 1
  # Another apt-get may be running, and a mirror may fail temporarily.
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
  if listens "$postgres_port"; then
    echo "PostgreSQL: something listens on $postgres_port already"
    return
  fi
  if [ -z "$(postgres_programs)" ]; then
    # Programs only: the package's own cluster would require passwords.
    mkdir -p /etc/postgresql-common/createcluster.d 2>/dev/null || true
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/herald-test.conf || true
    install_packages postgresql || true
  fi
  local programs data=$base/postgres
  programs=$(postgres_programs)
  if [ -z "$programs" ]; then
    fail_later 'PostgreSQL: not installed, and it cannot be installed here'
    return
  fi
  own_folder "$data" postgres
  if ! run_postgres && ! as postgres "$programs/pg_ctl" -D "$data/data" status >/dev/null; then
    rm -rf "$data/data"
    run_postgres || true
  fi
  if listens "$postgres_port"; then echo "PostgreSQL: started in $data"; else fail_later "PostgreSQL: see $data/log"; fi
}

# Uses the variables `programs` and `data` of the caller. Fsync is off, because the data need not survive a
# power failure.
run_postgres() {
  [ -f "$data/data/PG_VERSION" ] ||
    as postgres "$programs/initdb" -D "$data/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 \
      --no-sync >/dev/null || return 1
  as postgres "$programs/pg_ctl" -D "$data/data" -l "$data/log" -w -t 120 \
    -o "-p $postgres_port -h 127.0.0.1 -k $data -c fsync=off -c max_connections=300" start >/dev/null
}

start_mariadb() {
  if listens "$mariadb_port"; then
    echo "MariaDB: something listens on $mariadb_port already"
    return
  fi
  # The core packages contain the programs without a service.
  if ! command -v mariadbd >/dev/null || ! command -v mariadb-install-db >/dev/null; then
    install_packages mariadb-server-core mariadb-client-core || true
  fi
  if ! command -v mariadbd >/dev/null || ! command -v mariadb-install-db >/dev/null; then
    fail_later 'MariaDB: not installed, and it cannot be installed here'
    return
  fi
  local data=$base/mariadb
  if is_root && ! id mysql >/dev/null 2>&1; then useradd -r -M -s /usr/sbin/nologin mysql; fi
  own_folder "$data" mysql
  if ! run_mariadb; then
    rm -rf "$data/data"
    run_mariadb || true
  fi
  if listens "$mariadb_port"; then echo "MariaDB: started in $data"; else fail_later "MariaDB: see $data/log"; fi
}

# Uses the variable `data` of the caller. Fails when the server has ended. Commits are not flushed to disk,
# because the data need not survive a power failure.
run_mariadb() {
  # `--force` lets it work when the host name cannot be resolved.
  [ -d "$data/data/mysql" ] ||
    as mysql mariadb-install-db --no-defaults --force --datadir="$data/data" --skip-test-db \
      --auth-root-authentication-method=normal >"$data/log" 2>&1 || true
  as mysql nohup mariadbd --no-defaults --datadir="$data/data" --bind-address=127.0.0.1 \
    --port="$mariadb_port" --socket="$data/socket" --pid-file="$data/pid" --innodb-flush-log-at-trx-commit=2 \
    --max-connections=500 >>"$data/log" 2>&1 </dev/null &
  until_listening "$mariadb_port" $!
}

start_redis() {
  if listens "$redis_port"; then
    echo "Redis: something listens on $redis_port already"
    return
  fi
  # These packages contain the same program under another name, without a service.
  [ -n "$(redis_program)" ] || install_packages redis-tools || install_packages valkey-tools || true
  if [ -z "$(redis_program)" ]; then
    echo 'Redis: NOT AVAILABLE, it is not installed and cannot be installed here' >&2
    return
  fi
  local data=$base/redis
  if is_root && ! id redis >/dev/null 2>&1; then useradd -r -M -s /usr/sbin/nologin redis; fi
  own_folder "$data" redis
  if ! run_redis; then
    rm -rf "$data/data"
    run_redis || true
  fi
  if listens "$redis_port"; then echo "Redis: started in $data"; else fail_later "Redis: see $data/log"; fi
}

redis_program() {
  local name
  for name in redis-server valkey-server redis-check-rdb valkey-check-rdb; do
    if command -v "$name"; then return; fi
  done
}

# Uses the variable `data` of the caller. Fails when the server has ended. The link is needed because the
# program acts as a server only under the name `redis-server`.
run_redis() {
  ln -sf "$(redis_program)" "$data/redis-server"
  as redis mkdir -p "$data/data"
  as redis nohup "$data/redis-server" --bind 127.0.0.1 --port "$redis_port" --dir "$data/data" \
    --pidfile "$data/pid" --appendonly yes --appendfsync always --save '' \
    >>"$data/log" 2>&1 </dev/null &
  until_listening "$redis_port" $!
}

# until_listening <port> <pid>: waits up to two minutes; fails when the process has ended.
until_listening() {
  for _ in $(seq 240); do
    if listens "$1"; then return; fi
    kill -0 "$2" 2>/dev/null || return 1
    sleep 0.5
  done
}

# own_folder <folder> <user>: creates a folder that belongs to the user.
own_folder() {
  mkdir -p "$1"
  if is_root; then chown "$2" "$1"; fi
}

stop_all() {
  local programs
  programs=$(postgres_programs)
  if [ -f "$base/postgres/data/postmaster.pid" ]; then
    as postgres "$programs/pg_ctl" -D "$base/postgres/data" -m fast -w stop >/dev/null || failed=1
  fi
  stop_process "$base/mariadb/pid"
  stop_process "$base/redis/pid"
}

# stop_process <pid file>: stops a server and waits until it has removed this file.
stop_process() {
  [ -f "$1" ] || return 0
  if kill "$(cat "$1")" 2>/dev/null; then
    while [ -f "$1" ]; do sleep 0.2; done
  else
    rm -f "$1" # The server was killed and left the file behind.
  fi
}

case ${1:-start} in
  start)
    start_postgres
    start_mariadb
    start_redis
    ;;
  stop) stop_all ;;
  *)
    sed -n '2,/^set /{ /^#/ s/^# \{0,1\}//p; }' "$0" >&2
    exit 2
    ;;
esac
exit "$failed"
