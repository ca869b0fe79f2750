#!/usr/bin/env bash
# check.sh: trainings and a study on generated images, logged to TensorBoard and MLflow, read back by both.
#   MELO   the binary (target/release/melo)
# It installs tensorboard and mlflow from requirements.txt into a temporary environment, or takes that of $VENV, and starts MLflow's own server
# on loopback. One line a claim; exit status 1 where one does not hold.
set -euo pipefail
cd "$(dirname "$0")/../.."
melo=${MELO:-target/release/melo}
[ -x "$melo" ] || { echo "no $melo: cargo build --release -p melo-vit, or name one in MELO" >&2; exit 1; }
place=$(mktemp -d "${TMPDIR:-/tmp}/melo-log-XXXXXX")
trap 'rm -rf "$place"' EXIT
venv=${VENV:-$place/venv}
if [ ! -x "$venv/bin/mlflow" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --requirement tools/log/requirements.txt
fi
"$venv/bin/python" tools/log/check.py "$(realpath "$melo")" "$place" "$PWD"
