#!/usr/bin/env bash
# Runs a real MySQL to test against. Debian's stable suites do not have MySQL, so it is installed into a
# chroot of the unstable suite, .scratch/mysql-root, from the mirror that apt is configured with. Needs root,
# Debian or a derivative, and an earlier `apt-get update`.
#
#   test/mysql.sh start   creates the chroot if needed, starts MySQL, prints `export TEST_MYSQL_URL=…`
#   test/mysql.sh stop    stops MySQL and keeps the chroot
#   test/mysql.sh remove  stops MySQL and removes the chroot
#
# PORT is the port on 127.0.0.1, by default the first free port from 11306 on; `root` has an empty password.
# Further arguments of `start` are passed to mysqld, for example --innodb-flush-log-at-trx-commit=2.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$PWD/.scratch
root=$scratch/mysql-root
socket=/run/mysqld/mysqld.sock
pid_file=/run/mysqld/mysqld.pid

fail() {
  echo "Cannot start MySQL: $*" >&2
  exit 1
}

inside() {
  chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"
}

listens() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Several checkouts may each run a server.
free_port() {
  local port=11306 # Below the ephemeral ports.
  while listens "$port"; do port=$((port + 1)); done
  echo "$port"
}

is_running() {
  [ -d "$root/usr" ] && inside mysqladmin -uroot -S "$socket" ping >/dev/null 2>&1
}

# create: installs the chroot with the server. It is built in another folder and renamed at the end, so
# that an interrupted installation is not used.
create() {
  [ "$(id -u)" -eq 0 ] || fail 'only root can create a chroot'
  command -v apt-get >/dev/null || fail 'apt-get is missing'
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -f "$keyring" ] || fail "$keyring is missing"
  # The label excludes the security archive, which has no unstable suite.
  local mirror
  # Not `| head -n 1`: with pipefail the command before it might fail by SIGPIPE.
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' |
    sort -u | sed -n 1p)
  [ -n "$mirror" ] || fail 'apt knows no Debian mirror: run apt-get update once'

  mkdir -p "$scratch/debootstrap"
  (
    cd "$scratch/debootstrap"
    apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 download debootstrap
    dpkg -x debootstrap_*.deb .
  )
  export DEBOOTSTRAP_DIR=$scratch/debootstrap/usr/share/debootstrap

  local final=$root
  root=$final.making
  unmount
  rm -rf "$root"
  "$scratch/debootstrap/usr/sbin/debootstrap" --variant=minbase --keyring="$keyring" \
    unstable "$root" "$mirror"
  # A mirror that lags behind serves an expired package list.
  printf 'Acquire::Check-Valid-Until "false";\nAcquire::Retries "3";\nAPT::Sandbox::User "root";\n' \
    >"$root/etc/apt/apt.conf.d/99test"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # Packages must not start services.
  chmod +x "$root/usr/sbin/policy-rc.d"
  inside apt-get update
  inside apt-get install -y --no-install-recommends mysql-server-core mysql-client-core
  inside mysqld --version
  mv "$root" "$final"
  root=$final
}

start() {
  [ "$(id -u)" -eq 0 ] || fail 'only root can enter a chroot'
  mkdir -p "$scratch"
  [ -d "$root/usr" ] || create >&2
  if ! is_running; then
    local port
    port=${PORT:-$(free_port)}
    mkdir -p "$root/proc" "$root/run/mysqld" "$root/var/lib/mysql-data"
    mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
    inside id mysql >/dev/null 2>&1 || inside useradd -r -M -s /usr/sbin/nologin mysql
    inside chown mysql:mysql /run/mysqld /var/lib/mysql-data
    local data=(--no-defaults --user=mysql --datadir=/var/lib/mysql-data --secure-file-priv=NULL)
    [ -d "$root/var/lib/mysql-data/mysql" ] ||
      inside mysqld "${data[@]}" --initialize-insecure >"$scratch/mysqld.log" 2>&1 ||
      fail "see $scratch/mysqld.log"
    # Messages stay in English, because some tests compare error texts. No test needs the binary log.
    nohup chroot "$root" mysqld "${data[@]}" --bind-address=127.0.0.1 --port="$port" --mysqlx=OFF \
      --socket="$socket" --pid-file="$pid_file" --innodb-buffer-pool-size=128M --skip-log-bin \
      "$@" >"$scratch/mysqld.log" 2>&1 </dev/null &
    for _ in $(seq 120); do
      is_running && break
      sleep 0.5
    done
    is_running || fail "see $scratch/mysqld.log"
  fi
  inside mysql -uroot -S "$socket" -N -e 'select concat("MySQL ", version())' >&2
  echo "export TEST_MYSQL_URL=mysql://root@127.0.0.1:$(port_in_use)"
}

# Asks the server, because it may have been started earlier, with another PORT.
port_in_use() {
  inside mysql -uroot -S "$socket" -N -e 'select @@port'
}

stop() {
  [ -d "$root/usr" ] || return 0
  if is_running; then
    inside mysqladmin -uroot -S "$socket" shutdown
    for _ in $(seq 150); do
      [ -e "$root$pid_file" ] || break
      sleep 0.2
    done
  fi
  unmount
}

# Unmounts /proc as often as it is mounted there. Detaches it (`-l`) while a process still uses it.
unmount() {
  while mountpoint -q "$root/proc"; do umount "$root/proc" || umount -l "$root/proc"; done
}

case ${1:-} in
  start) start "${@:2}" ;;
  stop) stop ;;
  remove)
    stop
    # `rm` must not delete files in a mounted file system.
    if mountpoint -q "$root/proc"; then fail "$root/proc is in use"; fi
    rm -rf "$root" "$root.making" "$scratch/debootstrap"
    ;;
  *)
    sed -n '2,/^set /{ /^#/ s/^# \{0,1\}//p; }' "$0" >&2
    exit 2
    ;;
esac
