#!/usr/bin/env bash
# Installs the proxies, the connection pooler and the clients that some tests run beside Herald, from
# Debian's packages and npm, if they are missing. Does not start them. Needs root and apt-get; otherwise it
# reports the missing programs, and the tests that need them are skipped. test/browser.sh installs the browser.
set -euo pipefail

missing=()

# need <package> <command>: adds the package to `missing` unless the command exists.
need() {
  command -v "$2" > /dev/null || missing+=("$1")
}

need nginx-light nginx # test/proxies.test.ts
need haproxy haproxy
need caddy caddy
need pgbouncer pgbouncer # test/pgbouncer.test.ts
need libnss3-tools certutil # test/certificate-clients.test.ts
need golang-go go
# test/client-libraries.test.ts, with Debian's Python
/usr/bin/python3 -c 'import httpx, h2' 2> /dev/null || missing+=(python3-httpx python3-h2)

# test/certificate-clients.test.ts. Debian has no Deno; the npm package needs no install script.
if ! command -v deno > /dev/null && ! npm install --global --ignore-scripts --silent deno@2; then
  echo 'No deno, and this script cannot install it: the test of Deno will be skipped' >&2
fi

if [ "${#missing[@]}" -eq 0 ]; then
  exit 0
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "No ${missing[*]}, and this script cannot install them (no root or no apt-get): their tests will be skipped" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
"${apt[@]}" update || true # An unreachable source must not prevent the use of the others.
# Prevents packages from starting the servers that they install, because the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
code=0
for package in "${missing[@]}"; do # An unavailable package must not affect the others.
  if "${apt[@]}" install -y --no-install-recommends "$package" > /dev/null; then
    echo "installed: $package"
  else
    code=1
  fi
done
exit "$code"
