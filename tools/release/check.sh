#!/usr/bin/env bash
# check.sh [DIST]: what build.sh made (dist), as those would find it who get it: in empty folders, old and new Debians, as a package and as an image.
#   NEW, OLD   folders with a Debian of today and with the oldest that is to be had; where unset, debootstrap makes them of NEW_SUITE (stable) and
#              OLD_SUITE (bullseye), from MIRROR where that is set
# As root: it needs chroot, unshare, nsenter, ip, curl, readelf, objcopy and dpkg-deb, and skopeo and umoci where they are there. No network is reached
# from within. One line a claim; exit status 1 where one does not hold.
set -euo pipefail
cd "$(dirname "$0")/../.."
dist=$(realpath "${1:-dist}")
[ -f "$dist/SHA256SUMS" ] || { echo "no $dist/SHA256SUMS: tools/release/build.sh makes it" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "only root makes chroots" >&2; exit 1; }
place=$(mktemp -d "${TMPDIR:-/tmp}/melo-release-XXXXXX")
trap 'rm -rf --one-file-system "$place"' EXIT
new=${NEW:-$place/debian-new} old=${OLD:-$place/debian-old}
[ -d "$new" ] || debootstrap --variant=minbase "${NEW_SUITE:-stable}" "$new" ${MIRROR:+"$MIRROR"} > "$place/debootstrap.log"
[ -d "$old" ] || debootstrap --variant=minbase "${OLD_SUITE:-bullseye}" "$old" ${MIRROR:+"$MIRROR"} > "$place/debootstrap.log"
python3 tools/release/check.py "$dist" "$place" "$new" "$old"
