#!/usr/bin/env bash
# twice.sh: builds the commit that is checked out once more, from another folder, with another target folder and another home of cargo, and compares
# what comes out with dist/, byte for byte.
#   CARGO, TARGET, DIST   as build.sh has them
set -euo pipefail
cd "$(dirname "$0")/../.."
dist=$(realpath "${DIST:-dist}")
place=$(mktemp -d "${TMPDIR:-/tmp}/melo-twice-XXXXXX")
trap 'rm -rf "$place"' EXIT
mkdir -p "$place/a folder/melo" "$place/cargo"
git archive HEAD | tar -x -C "$place/a folder/melo"
ln -s "${CARGO_HOME:-$HOME/.cargo}/registry" "$place/cargo/registry"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export MELO_COMMIT=${MELO_COMMIT:-$(git rev-parse --short=12 HEAD)}
CARGO_TARGET_DIR=$place/target CARGO_HOME=$place/cargo DIST=$place/dist "$place/a folder/melo/tools/release/build.sh" > /dev/null
failed=0
while read -r _ name; do
    if cmp "$dist/$name" "$place/dist/$name"; then echo "release: PASS  the same bytes twice: $name"; else echo "release: FAIL  $name differs"; failed=1; fi
done < "$dist/SHA256SUMS"
exit $failed
