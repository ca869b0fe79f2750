#!/usr/bin/env bash
# Makes the pictures of docs/images: tools/site/figures.sh target/release/melo
# Needs Chromium, Node.js and the minutes of a quickstart, whose files stay in target/site/figures.
set -euo pipefail
melo=$(realpath "$1")
cd "$(dirname "$0")/../.."
work=target/site/figures
mkdir -p "$work" docs/images
[ -e "$work/melo-quickstart/plugins/fundus.safetensors" ] || (cd "$work" && "$melo" quickstart)
"$melo" plugin card "$work/melo-quickstart/plugins/fundus.safetensors" --out "$work/fundus.html"
[ -d tools/page/node_modules ] || npm ci --silent --no-audit --no-fund --prefix tools/page
node tools/page/figures.mjs "$melo" "$work" docs/images
