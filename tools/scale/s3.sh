#!/usr/bin/env bash
# s3.sh [IMAGES [KILLS]]: `melo archive run` on objects of moto, an S3 server that checks signatures, on loopback: the answers of a local copy, kills, wrong
# keys, no bucket, no server.
#   IMAGES  generated images (300)
#   KILLS   kill -9 at random moments (10)
#   MELO    the binary (target/release/melo, built with --features object-store)
# It installs moto and pyarrow into a temporary folder. One line a claim; exit status 1 where one does not hold.
set -euo pipefail
cd "$(dirname "$0")/../.."
melo=${MELO:-target/release/melo}
[ -x "$melo" ] || { echo "no $melo: cargo build --release -p melo-vit --features object-store" >&2; exit 1; }
place=$(mktemp -d "${TMPDIR:-/tmp}/melo-s3-XXXXXX")
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$place/site" --requirement tools/scale/requirements.txt
PYTHONPATH="$place/site" python3 tools/scale/s3.py "$(realpath "$melo")" "$place" "${1:-300}" "${2:-10}"
