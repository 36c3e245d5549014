#!/usr/bin/env bash
# Installs what the benchmarks can use and do without, where apt-get works: h2load (a generator that
# is not ours, to check ours by), nchan (an event hub in C, to compare with) and perf (what C++ and
# the kernel do, for --profile). Needs root.
set -euo pipefail
apt-get update -qq
apt-get install -y --no-install-recommends nghttp2-client nginx-light libnginx-mod-nchan linux-perf
