#!/usr/bin/env bash
# Builds the pinned Go programs of the landscape into a cache outside the checkout, one folder per go.sum,
# and prints that folder. A second call with the same go.sum only prints.
#
# Usage: build.sh kubernetes|gardener|helm
set -euo pipefail
set_dir="$1"
here="$(cd "$(dirname "$0")" && pwd)/$set_dir"
cache="${SHOOT_BACKUP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/shoot-backup}"
# Of the content alone: the same sources at another place are the same programs.
key="$(cat "$here/go.mod" "$here/go.sum" | sha256sum | cut -c1-16)"
out="$cache/tools/$set_dir-$key"

case "$set_dir" in
kubernetes)
  stamp=k8s.io/component-base/version
  flags="-X $stamp.gitVersion=v1.34.4 -X $stamp.gitMajor=1 -X $stamp.gitMinor=34"
  packages="go.etcd.io/etcd/server/v3=etcd"
  for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    packages="$packages k8s.io/kubernetes/cmd/$program=$program"
  done ;;
gardener)
  flags="-X k8s.io/component-base/version.gitVersion=v1.149.3"
  packages=""
  for program in gardener-apiserver gardener-controller-manager gardener-resource-manager; do
    packages="$packages github.com/gardener/gardener/cmd/$program=$program"
  done ;;
helm)
  flags=""
  packages="helm.sh/helm/v3/cmd/helm=helm" ;;
*)
  echo "build.sh: unknown set '$set_dir': use kubernetes, gardener or helm" >&2
  exit 2 ;;
esac

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
for entry in $packages; do
  package="${entry%%=*}" program="${entry##*=}"
  [ -x "$out/$program" ] && continue
  started=$SECONDS
  (cd "$here" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w $flags" -o "$out/.$program" "$package") >&2
  mv "$out/.$program" "$out/$program"
  echo "built $program in $((SECONDS - started)) s" >&2
done
echo "$out"
