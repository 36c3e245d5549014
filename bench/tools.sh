#!/usr/bin/env bash
# Installs optional tools of the benchmarks with apt-get: h2load (an independent load generator, to
# check our own), nchan (an event hub in C, to compare with) and perf (for --profile: shows the CPU of
# C++ and the kernel). Needs root.
set -euo pipefail
apt-get update -qq
apt-get install -y --no-install-recommends nghttp2-client nginx-light libnginx-mod-nchan linux-perf
