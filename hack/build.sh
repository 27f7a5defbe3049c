#!/usr/bin/env bash
# Builds the project's programs, all or those that are named, into $CARGO_TARGET_DIR/debug.
#
# `--examples` builds nothing, there are none; with it cargo turns on the features that tests need. So programs and tests
# share one build of every dependency. The same holds for building in the workspace instead of with `-p`.
set -euo pipefail
cd "$(dirname "$0")/.."
export SHOOT_BACKUP_CACHE="${SHOOT_BACKUP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/shoot-backup}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$SHOOT_BACKUP_CACHE/target}"
[ $# -gt 0 ] || exec cargo build --workspace --bins --examples
programs=()
for program in "$@"; do
  programs+=(--bin "$program")
done
exec cargo build --quiet --workspace --examples "${programs[@]}"
