#!/bin/sh
# Runs the end-to-end tests: on the cluster in KUBECONFIG, else on a kind cluster made for the purpose.
# Called by `make e2e`, which sets IMAGES, IMAGE_LOAD, VERSION and PYTEST.
set -eu

if [ -z "${KUBECONFIG:-}" ]; then
  if ! command -v kind >/dev/null 2>&1 || ! docker info >/dev/null 2>&1; then
    echo "e2e needs a cluster: set KUBECONFIG (and IMAGE_LOAD, unless it pulls the images), or install Docker and kind" >&2
    exit 1
  fi
  cluster="session-policy-e2e-$$"
  scratch=$(mktemp -d)
  KUBECONFIG=$scratch/kubeconfig
  export KUBECONFIG
  trap 'kind delete cluster --name "$cluster" >/dev/null 2>&1; rm -rf "$scratch"' EXIT
  trap 'exit 130' INT TERM
  kind create cluster --name "$cluster" --wait 120s
  IMAGE_LOAD="kind load docker-image --name $cluster"
fi

if [ -n "${IMAGE_LOAD:-}" ]; then
  for image in $IMAGES; do
    # Split on purpose: a command with its arguments.
    # shellcheck disable=SC2086
    $IMAGE_LOAD "$image"
  done
fi

export VERSION
"$PYTEST" tests/e2e "$@"
