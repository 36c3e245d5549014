#!/usr/bin/env bash
# Brings the browser of test/browser.test.ts: Debian's chromium, where it is missing and this is root
# on a machine with apt-get. Anywhere else it says what is missing; the test skips then.
set -euo pipefail

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then
    exit 0
  fi
done
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo 'No browser, and no way to install one here: test/browser.test.ts will skip' >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
"${apt[@]}" update || true # One source that cannot be had keeps none of the others away.
"${apt[@]}" install -y --no-install-recommends chromium > /dev/null
chromium --version
