#!/usr/bin/env bash
# Installs the pinned Azurite into a cache outside the checkout, one folder per lock file, and prints the path of
# its blob service's main.js. A second call with the same lock file only prints.
#
# Usage: node "$(azurite.sh)" --blobHost 127.0.0.1 …
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)/azurite"
cache="${SHOOT_BACKUP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/shoot-backup}"
key="$(sha256sum <(cat "$here/package.json" "$here/package-lock.json") | cut -c1-16)"
out="$cache/tools/azurite-$key"
main="$out/node_modules/azurite/dist/src/blob/main.js"

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
# The mark is written last: a folder from an installation that was broken off is installed again.
if [ ! -e "$out/.complete" ]; then
  started=$SECONDS
  cp "$here/package.json" "$here/package-lock.json" "$out/"
  npm ci --prefix "$out" --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error >&2
  [ -f "$main" ] || { echo "azurite.sh: failed to find $main after npm ci: is the pinned version still laid out so?" >&2; exit 1; }
  touch "$out/.complete"
  echo "installed azurite in $((SECONDS - started)) s" >&2
fi
echo "$main"
