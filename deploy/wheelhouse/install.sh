#!/usr/bin/env bash
# Installs algan-stream from the folder that this file is in, without a network.
#
#   install.sh [--prefix /opt/algan-stream] [--python python3.11]
#
# Everything goes into an environment of its own at the prefix; an existing one is replaced only when the new
# one has started: the command is then PREFIX/bin/algan-stream.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
prefix=/opt/algan-stream
python=
fail() { echo "install: $*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in
    --prefix | --python)
      [ $# -gt 1 ] || fail "$1: expected a value, got nothing"
      if [ "$1" = --prefix ]; then prefix=$2; else python=$2; fi
      shift 2
      ;;
    *) fail "expected --prefix FOLDER or --python PROGRAM, got $1" ;;
  esac
done

wanted=$(cat "$here/PYTHON")
python=${python:-python$wanted}
command -v "$python" >/dev/null || fail "these wheels are for Python $wanted, and there is no $python; install it (Debian: apt install python$wanted-venv) or name it by --python"
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$found" = "$wanted" ] || fail "these wheels are for Python $wanted, $python is $found; build a wheelhouse for that one"
(cd "$here" && sha256sum --check --quiet --strict SHA256SUMS) || fail "a file is missing or damaged; copy the folder again"
if [ -e "$prefix" ] && [ ! -e "$prefix/pyvenv.cfg" ]; then
  fail "$prefix exists and is no Python environment; name another --prefix"
fi

# Scripts in an environment name its place, so it is made where it stays, and the old one is kept until then.
# Nobody's settings of pip may add an index.
while read -r name; do unset "$name"; done < <(compgen -v PIP_ || true)
export PIP_CONFIG_FILE=/dev/null
old=
if [ -e "$prefix" ]; then
  old=$prefix.old
  rm -rf "$old"
  mv "$prefix" "$old"
fi
undo() {
  rm -rf "$prefix"
  if [ -n "$old" ]; then mv "$old" "$prefix"; fi
  fail "nothing was changed"
}
trap undo ERR
"$python" -m venv "$prefix" || { echo "install: on Debian and Ubuntu: apt install python$wanted-venv" >&2; false; }
"$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-index \
  --find-links "$here" --require-hashes --requirement "$here/requirements.txt"
cd /
"$prefix/bin/algan-stream" --version >/dev/null
trap - ERR
if [ -n "$old" ]; then rm -rf "$old"; fi
echo "install: algan-stream $("$prefix/bin/algan-stream" --version) is in $prefix"
echo "install: next: $prefix/bin/algan-stream doctor"
