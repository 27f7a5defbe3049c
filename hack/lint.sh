#!/usr/bin/env bash
# Everything that can be checked without running the product, quick checks first. Stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
export SHOOT_BACKUP_CACHE="${SHOOT_BACKUP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/shoot-backup}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$SHOOT_BACKUP_CACHE/target}"

step() {
  echo "lint: $1"
}

fail() {
  echo "lint: $1" >&2
  exit 1
}

step "shell scripts"
while IFS= read -r script; do
  bash -n "$script"
done < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)

step "layout"
while IFS= read -r main; do
  [ ! -f "$main" ] || [ "$(wc -l <"$main")" -le 30 ] || fail "$main has more than 30 lines: a main.rs sets up and runs, the rest belongs in the library"
done < <(git ls-files --cached --others --exclude-standard '*main.rs' ':!test/e2e/tests')
# A path of one machine breaks on every other. The pattern is in pieces so that it does not find itself.
machine_paths='(^|[^A-Za-z0-9_.$}-])/(ro''ot|wo''rk|ho''me|Us''ers)/[A-Za-z0-9_.]'
if git grep --untracked -nIE "$machine_paths" -- ':!*.lock' ':!*go.sum'; then
  fail "the files above name a path of one machine"
fi
if git grep --untracked -nI '"resolved":' -- '*package-lock.json'; then
  fail "a lock file names a registry's host: make it with --omit-lockfile-registry-resolved"
fi
while IFS= read -r untracked; do
  fail "$untracked is generated and not in git: git add it"
done < <(git ls-files --others --exclude-standard charts docs/src/reference extension/src/delivery/agent.yaml)

step "links of the documentation"
while IFS= read -r page; do
  folder="$(dirname "$page")"
  while IFS= read -r link; do
    [ -e "$folder/$link" ] || fail "$page links to $link, which does not exist"
  done < <(grep -oE '\]\([^)# ]+' "$page" | cut -c3- | grep -v ':')
done < <(git ls-files --cached --others --exclude-standard '*.md' ':!docs/src/reference')
while IFS= read -r page; do
  grep -qF "(${page#docs/src/})" docs/src/SUMMARY.md || fail "$page is not in docs/src/SUMMARY.md"
done < <(git ls-files --cached --others --exclude-standard 'docs/src/*.md' ':!docs/src/SUMMARY.md')

step "format"
cargo fmt --all --check

step "generated files"
hack/build.sh shoot-backup-gen
"$CARGO_TARGET_DIR/debug/shoot-backup-gen" --root . --check

step "charts"
hack/lint-charts.sh

step "clippy"
cargo clippy --quiet --workspace --all-targets -- -D warnings

step "documentation of the crates"
RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --quiet --workspace --no-deps --document-private-items

step "dependencies"
# Advisories need a database from the network, so they are left to people: `cargo deny check advisories`.
deny="$SHOOT_BACKUP_CACHE/cargo-tools/bin/cargo-deny"
version=0.20.2
if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
  echo "lint: installing cargo-deny $version"
  env -u CARGO_TARGET_DIR cargo install --quiet --locked --debug --root "$SHOOT_BACKUP_CACHE/cargo-tools" "cargo-deny@$version"
fi
"$deny" --log-level error check bans licenses sources

echo "lint: all is well"
