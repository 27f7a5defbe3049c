#!/usr/bin/env bash
# Puts everything in place that tests and demo need: Debian packages, Go programs, Azurite. What is there stays as it
# is; a second run takes a second.
set -euo pipefail
cd "$(dirname "$0")"

missing=""
for program in cargo go node npm; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
if [ -n "$missing" ]; then
  echo "setup: these programs are needed and not there:$missing (Rust by rustup, Go from go.dev, Node.js 20 or later)" >&2
  exit 1
fi

# Package and a file that shows that it is installed.
packages="
binutils:/usr/bin/strip
busybox-static:/bin/busybox
ca-certificates:/etc/ssl/certs/ca-certificates.crt
cmake:/usr/bin/cmake
conntrack:/usr/sbin/conntrack
containerd:/usr/bin/containerd
containernetworking-plugins:/usr/lib/cni/bridge
gcc:/usr/bin/gcc
iproute2:/bin/ip
iptables:/usr/sbin/iptables
jq:/usr/bin/jq
libc6-dev:/usr/include/stdio.h
nftables:/usr/sbin/nft
restic:/usr/bin/restic
runc:/usr/sbin/runc
util-linux:/usr/bin/nsenter
"
wanted=""
for entry in $packages; do
  [ -e "${entry#*:}" ] || wanted="$wanted ${entry%%:*}"
done
if [ -n "$wanted" ]; then
  command -v apt-get >/dev/null || { echo "setup: install these packages:$wanted" >&2; exit 1; }
  echo "setup: installing Debian packages:$wanted"
  sudo=""
  [ "$(id -u)" -eq 0 ] || sudo="sudo"
  $sudo apt-get update -qq
  # shellcheck disable=SC2086 # each word is a package
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >/dev/null
fi

for programs in kubernetes gardener helm; do
  tools/build.sh "$programs" >/dev/null
done
tools/azurite.sh >/dev/null
