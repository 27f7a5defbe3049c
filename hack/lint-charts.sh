#!/usr/bin/env bash
# Lints each chart and renders it over a small matrix of values; values that must be refused have to be refused.
set -euo pipefail
cd "$(dirname "$0")/.."
helm="$(hack/tools/build.sh helm)/helm"
# Helm built from its module knows of no Kubernetes release; the charts ask for one.
kubernetes="--kube-version 1.34.0"
certificate=$'-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n'
guid=00000000-0000-0000-0000-000000000000

fail() {
  echo "charts: $1" >&2
  exit 1
}

# accepts CHART NAMESPACE VALUES…: must lint and render.
accepts() {
  local chart="$1" namespace="$2" output
  shift 2
  # shellcheck disable=SC2086 # two words
  output="$("$helm" lint "charts/$chart" --strict --quiet --namespace "$namespace" $kubernetes "$@" 2>&1)" ||
    fail "$chart with '$*' does not lint:"$'\n'"$output"
  # shellcheck disable=SC2086
  output="$("$helm" template test "charts/$chart" --namespace "$namespace" $kubernetes "$@" 2>&1)" ||
    fail "$chart with '$*' does not render:"$'\n'"$output"
}

# refuses CHART NAMESPACE MESSAGE VALUES…: must not render, with this in the message.
refuses() {
  local chart="$1" namespace="$2" message="$3" output
  shift 3
  # shellcheck disable=SC2086
  if output="$("$helm" template test "charts/$chart" --namespace "$namespace" $kubernetes "$@" 2>&1)"; then
    fail "$chart with '$*' renders, and should not"
  fi
  grep -qF -- "$message" <<<"$output" || fail "$chart with '$*' is refused without saying '$message':"$'\n'"$output"
}

agent=(--set image=registry.example.org/agent:1)
accepts agent shoot-backup "${agent[@]}"
accepts agent shoot-backup "${agent[@]}" --set createNamespace=true,networkPolicy.enabled=false,priorityClassName=high
accepts agent shoot-backup "${agent[@]}" --set-string "extraCA=$certificate" --set "identity.clientID=$guid,identity.tenantID=$guid"
accepts agent shoot-backup "${agent[@]}" --set imagePullSecrets[0].name=pull --set tolerations[0].operator=Exists \
  --set nodeSelector.pool=system --set podLabels.team=backup --set podAnnotations.note=hello
refuses agent shoot-backup "image must name"
refuses agent default "install the agent into namespace shoot-backup" "${agent[@]}"
refuses agent shoot-backup "clientID" "${agent[@]}" --set identity.clientID=not-a-guid
refuses agent shoot-backup "misspelt" "${agent[@]}" --set misspelt=true

garden=(--set image=registry.example.org/extension:1 --set agent.image=registry.example.org/agent:1)
accepts garden shoot-backup-system "${garden[@]}"
accepts garden shoot-backup-system "${garden[@]}" --set replicas=2 --set garden.kubeconfigSecret=garden-kubeconfig
accepts garden garden "${garden[@]}" --set gardener.networkPolicies.enabled=true,autoEnable=true,manageIssuer=false \
  --set-string "extraCA=$certificate" --set-string "agent.extraCA=$certificate" --set priorityClassName=gardener-garden-system-200
refuses garden shoot-backup-system "agent.image must name" --set image=registry.example.org/extension:1
refuses garden shoot-backup-system "manageIssuer" "${garden[@]}" --set-string manageIssuer=maybe

accepts garden-resources garden --set user.name=system:shoot-backup
accepts garden-resources garden --set user.kind=ServiceAccount,user.name=shoot-backup,user.namespace=garden
refuses garden-resources garden "user.name must name"
refuses garden-resources garden "namespace" --set user.kind=ServiceAccount,user.name=shoot-backup
