#!/usr/bin/env bash
# Builds and runs every test of the workspace. The output is streamed and kept in a log; the last line is the total.
# Arguments go to `cargo test`: `hack/test.sh -p shoot-backup-api` runs the tests of one crate. KEEP=1 leaves the
# end-to-end tests' landscape running, and uses one that runs.
set -euo pipefail
cd "$(dirname "$0")/.."
export SHOOT_BACKUP_CACHE="${SHOOT_BACKUP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/shoot-backup}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$SHOOT_BACKUP_CACHE/target}"
log="$CARGO_TARGET_DIR/test.log"
mkdir -p "$CARGO_TARGET_DIR"
[ $# -gt 0 ] || set -- --workspace

# The end-to-end tests run the binaries: they have to be those of this checkout.
if ! cargo build --workspace --all-targets; then
  echo "the build failed, no test ran"
  echo "0 passed, 0 failed"
  exit 1
fi

# The end-to-end tests share one landscape, and no single test knows that it is the last.
landscape_down() {
  [ -z "${KEEP:-}" ] || return 0
  [ -d "${SHOOT_BACKUP_STATE:-.landscape}/test" ] || return 0
  "$CARGO_TARGET_DIR/debug/landscape" --name test down "$@"
}
trap 'landscape_down; exit 130' INT TERM
landscape_down || echo "what an earlier run left could not be removed; tests may fail because of it"

status=0
# End-to-end tests wait more than they compute.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-4}"
cargo test --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

# Names of failed tests are listed at the end of each test program's output, indented, after a line `failures:`.
failed_names="$(awk '/^failures:$/ {listing = 1; next} /^test result:/ {listing = 0} listing && /^    [A-Za-z0-9_:]+/ {print $1}' "$log" | sort -u)"
read -r passed failed <<<"$(awk '/^test result:/ {passed += $4; failed += $6} END {print passed + 0, failed + 0}' "$log")"

echo
if [ -n "$failed_names" ]; then
  echo "failed tests:"
  sed 's/^/  /' <<<"$failed_names"
fi
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
  echo "cargo test ended with status $status although no test failed: a test program did not build or was killed; the log is $log"
fi
if [ "$status" -eq 0 ] && [ "$passed" -eq 0 ]; then
  echo "no test ran"
  status=1
fi
# The logs of a landscape on which a test failed say more than the test can.
keep_logs=""
[ "$status" -eq 0 ] || keep_logs=--keep-logs
# shellcheck disable=SC2086 # nothing or one word
if ! landscape_down $keep_logs 2>&1; then
  echo "the landscape of the tests could not be ended: hack/landscape.sh --name test down"
  status=1
fi
echo "$passed passed, $failed failed"
exit "$status"
