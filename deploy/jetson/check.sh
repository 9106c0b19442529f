#!/usr/bin/env bash
# Checks each step of README.md on a Jetson, in its order; changes nothing.
#
#   deploy/jetson/check.sh [--line /etc/algan-stream/NAME.yaml]
#
# Ends with 0 if the service can run here with TensorRT, else with the number of steps that need work.
# ALGAN_ROOT=FOLDER looks at another root directory (for tests); ALGAN_BIN=FOLDER says where algan-stream is.
set -u
root=${ALGAN_ROOT:-}
bin=${ALGAN_BIN:-/opt/algan-stream/bin}
line=()
wrong=0
steps=0

while [ $# -gt 0 ]; do
  case $1 in
    --line)
      [ $# -gt 1 ] || { echo "check: --line: expected a file, got nothing" >&2; exit 64; }
      line=(--line "$2")
      shift 2
      ;;
    *) echo "check: expected --line FILE, got $1" >&2; exit 64 ;;
  esac
done

ok() { steps=$((steps + 1)); printf 'ok       %2d  %s\n' "$steps" "$1"; }
# note WHAT MEND: works, but not as well as it could.
note() { steps=$((steps + 1)); printf 'note     %2d  %s\n             %s\n' "$steps" "$1" "$2"; }
# need WHAT MEND: has to be done.
need() { steps=$((steps + 1)); wrong=$((wrong + 1)); printf 'MISSING  %2d  %s\n             mend: %s\n' "$steps" "$1" "$2"; }
finish() { printf '%d steps looked at, %d need work\n' "$steps" "$wrong"; exit "$wrong"; }
# value FILE PATTERN: the first group of a basic regular expression in a file, or nothing.
value() { sed -n "s/.*$2.*/\\1/p" "$root$1" 2>/dev/null | head -n 1; }

# ---- 1 a Jetson, and which JetPack -----------------------------------------------------------------

if [ ! -r "$root/etc/nv_tegra_release" ]; then
  need "this is no Jetson: there is no $root/etc/nv_tegra_release" "run this on the Jetson itself, not in a container or on the host that flashed it"
  finish
fi
major=$(value /etc/nv_tegra_release 'R\([0-9][0-9]*\)')
minor=$(value /etc/nv_tegra_release 'REVISION: *\([0-9.]*\)')
model=$(tr -d '\0' <"$root/proc/device-tree/model" 2>/dev/null || echo "unknown model")
case ${major:-none} in
  36) ok "$model with L4T $major.$minor (JetPack 6)" ;;
  35) need "$model with L4T $major.$minor (JetPack 5.1): its Python modules are for 3.8, algan-stream needs 3.10" "flash JetPack 6; until then the CPU image: README.md, section JetPack 5.1" ;;
  none) need "/etc/nv_tegra_release does not say which L4T this is" "look at: cat /etc/nv_tegra_release" ;;
  3[789] | [4-9]?) note "$model with L4T $major.$minor is newer than what this was written for (36)" "the steps below may differ" ;;
  *) need "$model with L4T $major.$minor is too old" "flash JetPack 6; Nano, TX2 and Xavier cannot have it: use the CPU image there" ;;
esac

# ---- 2 Python --------------------------------------------------------------------------------------

if [ -x "$root/usr/bin/python3.10" ]; then
  ok "Python 3.10"
else
  need "no Python 3.10" "it comes with JetPack 6 (Ubuntu 22.04): sudo apt install python3.10 python3.10-venv"
fi

# ---- 3 CUDA, 4 TensorRT ----------------------------------------------------------------------------

cuda=$(value /usr/local/cuda/version.json '"version" *: *"\([0-9.]*\)"')
case ${cuda:-none} in
  none) need "no CUDA in /usr/local/cuda" "sudo apt install nvidia-jetpack" ;;
  12.*) ok "CUDA $cuda" ;;
  *) note "CUDA $cuda, where JetPack 6 brings 12" "build pycuda and the core against it" ;;
esac
tensorrt=$(find "$root/usr/lib/python3.10/dist-packages" "$root/usr/lib/python3/dist-packages" -maxdepth 1 -name 'tensorrt-*' 2>/dev/null | sed 's/.*tensorrt-\([0-9.]*[0-9]\).*/\1/' | head -n 1)
case ${tensorrt:-none} in
  none) need "no Python module of TensorRT" "sudo apt install python3-libnvinfer" ;;
  10.*) ok "TensorRT $tensorrt" ;;
  *) need "TensorRT $tensorrt, expected 10" "JetPack 6.1 or newer brings it: sudo apt install nvidia-jetpack" ;;
esac

# ---- 5 power mode, 6 clocks ------------------------------------------------------------------------

mode=$(value /var/lib/nvpmodel/status 'pmode:0*\([0-9][0-9]*\)')
fastest=$(value /etc/nvpmodel.conf 'POWER_MODEL ID=\([0-9]*\) NAME=MAXN')
if [ -z "$mode" ]; then
  note "the power mode is unknown" "sudo nvpmodel -q"
elif [ -z "$fastest" ] || [ "$mode" = "$fastest" ]; then
  ok "power mode $mode"
else
  note "power mode $mode; MAXN ($fastest) is faster, if power supply and cooling allow" "sudo nvpmodel -m $fastest"
fi
clocks=$root/sys/devices/system/cpu/cpu0/cpufreq
if [ -r "$clocks/scaling_min_freq" ] && [ "$(cat "$clocks/scaling_min_freq")" = "$(cat "$clocks/scaling_max_freq")" ]; then
  ok "clocks are fixed"
else
  note "clocks follow the load: slow after each pause" "sudo jetson_clocks; for good: README.md, step 5"
fi

# ---- 7 algan-stream, 8 pycuda, 9 the golden gate ---------------------------------------------------

if [ ! -x "$bin/algan-stream" ]; then
  need "no algan-stream in $bin" "README.md, step 3, or set ALGAN_BIN"
  finish
fi
ok "algan-stream $("$bin/algan-stream" --version 2>/dev/null) in $bin"
if fault=$("$bin/python" -c 'import pycuda.driver; pycuda.driver.init()' 2>&1); then
  ok "pycuda finds the GPU"
else
  need "pycuda does not work: $(tail -n 1 <<<"$fault")" "$bin/pip install pycuda, with /usr/local/cuda/bin on the PATH"
fi
if fault=$("$bin/algan-stream" doctor "${line[@]}" 2>&1); then
  ok "algan-stream doctor finds nothing wrong"
else
  need "algan-stream doctor finds what keeps the service from running" "$bin/algan-stream doctor ${line[*]}"
fi
finish
