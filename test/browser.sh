#!/usr/bin/env bash
# Installs Debian's chromium for test/browser.test.ts, unless a browser is installed. Needs root and apt-get;
# otherwise it reports that the browser is missing, and the test is skipped.
set -euo pipefail

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then
    exit 0
  fi
done
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo 'No browser, and this script cannot install one (no root or no apt-get): test/browser.test.ts will be skipped' >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
"${apt[@]}" update || true # An unreachable source must not prevent the use of the others.
"${apt[@]}" install -y --no-install-recommends chromium > /dev/null
chromium --version
