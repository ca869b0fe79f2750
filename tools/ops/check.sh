#!/usr/bin/env bash
# check.sh: the files of deploy/ at work, on loopback: Orthanc sends a film to melo and gets a structured report and a heat map back,
# Prometheus answers every query of Grafana's dashboard, nginx speaks TLS, and a backup that was made under load is put back.
#   MELO   the binary (target/release/melo)
# As root, it installs orthanc, prometheus, nginx-light, sqlite3 and docker-compose from Debian; pydicom and Pillow go into a temporary
# environment, or are taken from $VENV. One line a claim; exit status 1 where one does not hold.
set -euo pipefail
cd "$(dirname "$0")/../.."
melo=${MELO:-target/release/melo}
[ -x "$melo" ] || { echo "no $melo: cargo build --release -p melo-vit, or name one in MELO" >&2; exit 1; }
missing=()
for of in Orthanc:orthanc prometheus:prometheus promtool:prometheus nginx:nginx-light sqlite3:sqlite3 openssl:openssl docker-compose:docker-compose; do
    PATH=$PATH:/usr/sbin command -v "${of%:*}" > /dev/null || missing+=("${of#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || { echo "no ${missing[*]}, and no right to install them" >&2; exit 1; }
    apt-get update -qq
    # Debian starts services of its own, where there is somebody to start them.
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" > /dev/null
    systemctl disable --now orthanc prometheus nginx > /dev/null 2>&1 || true
fi
place=$(mktemp -d "${TMPDIR:-/tmp}/melo-ops-XXXXXX")
trap 'rm -rf "$place"' EXIT
venv=${VENV:-$place/venv}
if ! "$venv/bin/python" -c 'import PIL, pydicom' 2> /dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --requirement tools/ops/requirements.txt
fi
PATH=$PATH:/usr/sbin "$venv/bin/python" tools/ops/check.py "$(realpath "$melo")" "$place" "$PWD"
