#!/usr/bin/env bash
# Makes the pictures of docs/images: tools/site/figures.sh target/release/melo
# Needs Chromium, Node.js and some minutes. A study that was begun goes on.
set -euo pipefail
melo=$(realpath "$1")
cd "$(dirname "$0")/../.."
work=target/site/figures
mkdir -p "$work" docs/images
[ -e "$work/melo-quickstart/mammogram.safetensors" ] || (cd "$work" && "$melo" quickstart)
cp tools/site/figures.toml "$work/study.toml"
"$melo" study "$work/study.toml" --out "$work/study"
[ -d tools/page/node_modules ] || npm ci --silent --no-audit --no-fund --prefix tools/page
node tools/page/figures.mjs "$melo" "$work" docs/images
