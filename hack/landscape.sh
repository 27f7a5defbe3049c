#!/usr/bin/env bash
# The program `landscape` of this checkout: up, down, status, kubeconfig, logs, hibernate, wake, images.
set -euo pipefail
cd "$(dirname "$0")/.."
export SHOOT_BACKUP_CACHE="${SHOOT_BACKUP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/shoot-backup}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$SHOOT_BACKUP_CACHE/target}"
# Its images are made of the project's other programs. Standard output belongs to the landscape.
hack/build.sh >&2
exec "$CARGO_TARGET_DIR/debug/landscape" "$@"
