#!/usr/bin/env bash
# s3.sh MELO [IMAGES [KILLS]]: `melo archive run` on objects of moto, an S3 server that checks signatures, on loopback: the answers of
# a local copy, kills at random moments, wrong keys, no bucket, no server. MELO is a binary with --features object-store; the working
# folder is that of the repository.
#   S3_CACHE    where Python's packages are kept (${TMPDIR:-/tmp}/melo-s3)
set -euo pipefail
(($#)) || { sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2; exit 2; }
here=$(dirname "$0")
cache=${S3_CACHE:-${TMPDIR:-/tmp}/melo-s3}
if ! cmp -s "$here/requirements.txt" "$cache/requirements.txt"; then
    python3 -m venv "$cache"
    "$cache/bin/pip" install --quiet --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$cache/requirements.txt"
fi
exec "$cache/bin/python" "$here/s3.py" "$@"
