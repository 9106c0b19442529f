#!/usr/bin/env bash
# Lets systemd-analyze verify the unit and rate its exposure, offline, alone and with each drop-in, in a root
# directory of its own in which the program stands.
set -euo pipefail
cd "$(dirname "$0")/../.."
unit=algan-stream@press3.service
worst=20 # tenths: 2.0 of 10, which systemd calls OK
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
units=$root/etc/systemd/system
mkdir -p "$units/$unit.d" "$root/usr/lib/systemd/system" "$root/opt/algan-stream/bin"
printf '#!/bin/sh\n' >"$root/opt/algan-stream/bin/algan-stream"
chmod +x "$root/opt/algan-stream/bin/algan-stream"
for folder in /lib/systemd/system /usr/lib/systemd/system; do
  # -n: in many systems they are one folder.
  if [ -d "$folder" ]; then cp -n "$folder"/*.target "$folder"/*.slice "$root/usr/lib/systemd/system/"; fi
done
cp deploy/systemd/algan-stream@.service "$units/"

for dropin in none deploy/systemd/drop-ins/*.conf; do
  rm -f "$units/$unit.d"/*
  if [ "$dropin" != none ]; then cp "$dropin" "$units/$unit.d/"; fi
  said=$(systemd-analyze verify --root="$root" --man=no "$unit" 2>&1) || { echo "$dropin: $said"; exit 1; }
  # Unknown keys are only warned of.
  if grep -qE 'Unknown|Failed|Invalid|ignoring' <<<"$said"; then echo "$dropin: $said"; exit 1; fi
  systemd-analyze security --offline=true --root="$root" --threshold="$worst" --no-pager "$unit" | tail -n 1 | sed "s|^|$(basename "$dropin"): |"
done
