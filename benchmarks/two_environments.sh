#!/bin/sh
# One bundle in two fresh environments, by two engines in other versions: the verdicts must be identical.
#   make wheel && benchmarks/two_environments.sh BUNDLE FOLDER_OF_IMAGES [python3]
# Nothing but the wheel is installed in either, and no variable of this shell reaches them.
set -eu
bundle=$(realpath "$1") images=$(realpath "$2") python=${3:-python3}
here=$(cd "$(dirname "$0")/.." && pwd)
wheel=$(find "$here/dist" -name 'algan_stream-*.whl' | sort | tail -n 1)
[ -n "$wheel" ] || { echo "no wheel in dist/; run: make wheel" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

environment() { # NAME PACKAGE…
  "$python" -m venv "$work/$1"
  env_python="$work/$1/bin/python"; shift
  "$env_python" -m pip install --quiet "$wheel" "$@"
}
verify() { # NAME OPTION…
  name=$1; shift
  (cd "$work" && env -i PATH=/usr/bin:/bin HOME="$work" COLUMNS=120 "$work/$name/bin/algan-stream" \
    verify "$bundle" --images "$images" "$@")
}

environment one --constraint "$here/constraints.txt"
environment other 'openvino==2025.3.0' 'onnxruntime==1.23.2'
verify one --engine openvino --save "$work/one.json"
verify other --engine onnxruntime --engine openvino --against "$work/one.json"
echo "identical verdicts"
