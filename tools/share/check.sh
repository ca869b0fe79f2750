#!/usr/bin/env bash
# check.sh: plug-ins pushed, pulled and asked by name, through Debian's docker-registry and through a local server that speaks the hub's API.
#   MELO   the binary (target/release/melo)
# As root, it installs docker-registry from Debian; huggingface_hub, which reads the model card and the cache, goes into a temporary
# environment, or is taken from $VENV. One line a claim; exit status 1 where one does not hold.
set -euo pipefail
cd "$(dirname "$0")/../.."
melo=${MELO:-target/release/melo}
[ -x "$melo" ] || { echo "no $melo: cargo build --release -p melo-vit, or name one in MELO" >&2; exit 1; }
if ! command -v docker-registry > /dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || { echo "no docker-registry, and no right to install it" >&2; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends docker-registry > /dev/null
    # Debian starts one of its own.
    systemctl disable --now docker-registry > /dev/null 2>&1 || true
fi
place=$(mktemp -d "${TMPDIR:-/tmp}/melo-share-XXXXXX")
trap 'rm -rf "$place"' EXIT
venv=${VENV:-$place/venv}
if ! "$venv/bin/python" -c 'import huggingface_hub' 2> /dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --requirement tools/share/requirements.txt
fi
"$venv/bin/python" tools/share/check.py "$(realpath "$melo")" "$place" "$PWD"
