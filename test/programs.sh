#!/usr/bin/env bash
# Brings the servers that some tests run beside Herald, proxies and a pooler, from Debian's packages,
# where they are missing and this is root on a machine with apt-get. Nothing is started. Anywhere else
# it says what is missing; those tests skip. (The browser comes by test/browser.sh.)
set -euo pipefail

missing=()

# need <package> <command>
need() {
  command -v "$2" > /dev/null || missing+=("$1")
}

need nginx-light nginx # test/proxies.test.ts
need haproxy haproxy
need caddy caddy
need pgbouncer pgbouncer # test/pgbouncer.test.ts

if [ "${#missing[@]}" -eq 0 ]; then
  exit 0
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "No ${missing[*]}, and no way to install them here: their tests will skip" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
"${apt[@]}" update || true # One source that cannot be had keeps none of the others away.
# Packages start what they install; these are for tests, which start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
code=0
for package in "${missing[@]}"; do # One that cannot be had keeps none of the others away.
  if "${apt[@]}" install -y --no-install-recommends "$package" > /dev/null; then
    echo "installed: $package"
  else
    code=1
  fi
done
exit "$code"
