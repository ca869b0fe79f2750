#!/usr/bin/env bash
# nats.sh [IMAGES [KILLS]]: `melo archive` over a real nats-server with JetStream on loopback, with workers killed and the server restarted.
#   IMAGES  generated images, every tenth DICOM (20000)
#   KILLS   kill -9 of workers at random moments (40)
#   MELO    the binary (target/release/melo, built with --features queue)
#   RATES   if set, also what two workers reach against one, and what the queue costs; wants a machine that does nothing else
# As root, it installs nats-server from Debian and pyarrow into a temporary folder. One line a claim; exit status 1 where one does not hold.
set -euo pipefail
cd "$(dirname "$0")/../.."
melo=${MELO:-target/release/melo}
[ -x "$melo" ] || { echo "no $melo: cargo build --release -p melo-vit --features queue" >&2; exit 1; }
if ! command -v nats-server > /dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || { echo "no nats-server, and no right to install it" >&2; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nats-server > /dev/null
    # Debian starts one of its own.
    systemctl disable --now nats-server > /dev/null 2>&1 || true
fi
place=$(mktemp -d "${TMPDIR:-/tmp}/melo-nats-XXXXXX")
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$place/site" --requirement tools/scale/requirements.txt
PYTHONPATH="$place/site" python3 tools/scale/nats.py "$(realpath "$melo")" "$place" "${1:-20000}" "${2:-40}" ${RATES:+rates}
