#!/usr/bin/env bash
# Builds the source distribution into dist/ and checks what is in it.
#
#   tests/packaging/sdist.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m venv "$scratch/tools"
"$scratch/tools/bin/python" -m pip install --quiet --disable-pip-version-check build twine
rm -f dist/*.tar.gz
"$scratch/tools/bin/python" -m build --sdist --outdir dist . >"$scratch/log" || { cat "$scratch/log"; exit 1; }
"$scratch/tools/bin/twine" check --strict dist/*.tar.gz
tar tzf dist/*.tar.gz | sed 's|^[^/]*/||' | grep -v '/$' | sort >"$scratch/inside"

for needed in LICENSE README.md PKG-INFO pyproject.toml CMakeLists.txt cmake/version.cmake csrc/preprocess.cpp \
    csrc/include/algan/preprocess.h algan_stream/py.typed tests/test_preprocess.py examples/cpp/CMakeLists.txt; do
  grep -qxF "$needed" "$scratch/inside" || { echo "sdist: expected $needed in it"; exit 1; }
done
if grep -E '^(\.ci|\.git|\.venv|build|dist|runs|shared)/|\.(so|whl|pyc)$' "$scratch/inside"; then
  echo "sdist: the files above do not belong in it; see tool.scikit-build in pyproject.toml"
  exit 1
fi
# What git does not know was never reviewed.
if git rev-parse --is-inside-work-tree >"$scratch/log" 2>&1; then
  git ls-files | sort >"$scratch/known"
  if grep -vxF PKG-INFO "$scratch/inside" | comm -23 - "$scratch/known" | grep .; then
    echo "sdist: the files above are unknown to git; commit or remove them"
    exit 1
  fi
fi
echo "sdist: $(ls dist/*.tar.gz), $(wc -l <"$scratch/inside") files"
