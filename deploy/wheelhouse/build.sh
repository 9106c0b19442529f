#!/usr/bin/env bash
# Makes dist/wheelhouse: our wheel, every wheel that it needs, their hashes, and an installer. Copied to a
# machine without a network, `wheelhouse/install.sh` installs from it and from nothing else.
#
#   deploy/wheelhouse/build.sh [PYTHON]        or: make wheelhouse
#
#   EXTRAS=tensorrt           extras of pyproject.toml, separated by commas
#   OUT=dist/wheelhouse       where to
# For another machine than this one, all three:
#   TARGET_PYTHON=3.10        its Python
#   TARGET_PLATFORMS="manylinux_2_28_aarch64 manylinux2014_aarch64"
#   WHEEL=dist/….whl          our wheel for it, e.g. from cibuildwheel
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
out=${OUT:-dist/wheelhouse}
say() { echo "wheelhouse: $*"; }
fail() { say "$*" >&2; exit 1; }

if [ -n "${TARGET_PYTHON:-}${TARGET_PLATFORMS:-}" ]; then
  [ -n "${TARGET_PYTHON:-}" ] && [ -n "${TARGET_PLATFORMS:-}" ] && [ -n "${WHEEL:-}" ] ||
    fail "for another machine, expected TARGET_PYTHON, TARGET_PLATFORMS and WHEEL, got only some of them"
  version=$TARGET_PYTHON
else
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
fi
# Its own folder, or a new one: what lies there already would be installed, too.
if [ -e "$out" ] && [ ! -e "$out/requirements.txt" ] && [ -n "$(ls -A "$out")" ]; then
  fail "$out is not empty and no wheelhouse; name another by OUT="
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# ---- our own wheel ---------------------------------------------------------------------------------

# constraints.txt, the versions that were tested, is for Python 3.11; for others pip chooses the newest.
unset PIP_CONSTRAINT
"$python" -m venv "$scratch/tools"
pip=("$scratch/tools/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet --upgrade pip
wheel=${WHEEL:-}
if [ -z "$wheel" ]; then
  say "building our wheel for Python $version"
  "${pip[@]}" wheel --quiet --no-deps --wheel-dir "$scratch/own" \
    --config-settings=cmake.define.ALGAN_CUDA="${ALGAN_CUDA:-AUTO}" .
  wheel=$(ls "$scratch"/own/*.whl)
fi
[ -f "$wheel" ] || fail "expected our wheel at $wheel, found nothing"

# ---- what it needs ---------------------------------------------------------------------------------

chosen=(--only-binary=:all: --dest "$scratch/wheels")
if [ "$version" = 3.11 ]; then chosen+=(--constraint constraints.txt); fi
if [ -n "${TARGET_PYTHON:-}" ]; then
  chosen+=(--python-version "$version" --implementation cp)
  for platform in $TARGET_PLATFORMS; do chosen+=(--platform "$platform"); done
fi
say "fetching what it needs"
"${pip[@]}" download --quiet "${chosen[@]}" "$wheel${EXTRAS:+[$EXTRAS]}"

# ---- hashes and the installer ----------------------------------------------------------------------

rm -rf "$out"
mkdir -p "$out"
cp "$scratch"/wheels/*.whl deploy/wheelhouse/install.sh "$out"
cp -n "$wheel" "$out"
"$python" - "$out" "$version" "${EXTRAS:-}" <<'PYTHON'
import hashlib
import sys
from pathlib import Path

out, version, extras = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
wheels = sorted(out.glob("*.whl"))
lines = [f"# For Python {version}. Made by deploy/wheelhouse/build.sh."]
sums = []
for wheel in wheels:
    name, release = wheel.name.split("-")[:2]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    wanted = f"{name}[{extras}]" if extras and name == "algan_stream" else name
    lines.append(f"{wanted}=={release} --hash=sha256:{digest}")
    sums.append(f"{digest}  {wheel.name}")
(out / "requirements.txt").write_text("\n".join(lines) + "\n")
sums.append(f"{hashlib.sha256((out / 'requirements.txt').read_bytes()).hexdigest()}  requirements.txt")
(out / "SHA256SUMS").write_text("\n".join(sums) + "\n")
(out / "PYTHON").write_text(version + "\n")
PYTHON
say "$(find "$out" -name '*.whl' | wc -l) wheels, $(du -sh "$out" | cut -f1), in $out"
say "copy that folder to the machine and run: wheelhouse/install.sh --prefix /opt/algan-stream"
