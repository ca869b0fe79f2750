#!/usr/bin/env bash
# build.sh: a release in dist/: the static binary, of the same bytes from every folder, in an archive with its manual, completions, licences and list of
# crates; on Debian, for x86-64, the package and the image too; and checksums.
#   CARGO    what builds (cargo)
#   TARGET   what it is built for (x86_64-unknown-linux-musl, which needs musl-tools)
#   DIST     where it goes (dist)
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${TARGET:-x86_64-unknown-linux-musl}
dist=${DIST:-dist}
name=melo-vit
# All but GPUs: a static program loads no libraries, and so neither NVIDIA's driver nor an MPI.
features="object-store queue parquet"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export MELO_COMMIT=${MELO_COMMIT:-$(git rev-parse --short=12 HEAD)}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_INCREMENTAL=0 LC_ALL=C TZ=UTC

# No folder of this machine is in the binary: of Rust's files, and of C's.
folders=("$CARGO_TARGET_DIR=/target" "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$PWD=/melo")
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${folders[*]/#/--remap-path-prefix=}")
export CARGO_ENCODED_RUSTFLAGS
CFLAGS=$(printf "'-ffile-prefix-map=%s' " "${folders[@]}")
case "$target" in *msvc) ;; *) export CFLAGS CC_SHELL_ESCAPED_FLAGS=1 ;; esac
build=(build --release --locked -p "$name" --bin melo --target "$target" --features "$features")
# The list of crates goes into the binary too, where cargo-auditable is there.
if command -v cargo-auditable > /dev/null; then build=(auditable "${build[@]}"); fi
"${CARGO:-cargo}" "${build[@]}"

rm -rf "$dist"
folder=$name-$version-$target
stage=$dist/stage/$folder
mkdir -p "$stage/completions"
binary=melo
case "$target" in *windows*) binary=melo.exe ;; esac
cp "$CARGO_TARGET_DIR/$target/release/$binary" LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md "$stage/"
"$stage/$binary" man "$stage/man/man1"
"$stage/$binary" completions bash > "$stage/completions/melo.bash"
"$stage/$binary" completions zsh > "$stage/completions/_melo"
"$stage/$binary" completions fish > "$stage/completions/melo.fish"
"$stage/$binary" completions powershell > "$stage/completions/_melo.ps1"
python3 tools/release/parts.py "$target" "$features" "$stage/$binary" "$stage/$name.cdx.json" "$stage/LICENSES-THIRD-PARTY"
cp "$stage/$name.cdx.json" "$dist/$folder.cdx.json"
python3 tools/release/pack.py archive "$stage" "$dist/$folder.tar.gz"
if [ "$target" = x86_64-unknown-linux-musl ] && command -v dpkg-deb > /dev/null; then
    tools/release/deb.sh "$stage" "$version" "$dist/${name}_${version}_amd64.deb"
    python3 tools/release/pack.py rootfs "$stage/melo" "$stage/LICENSES-THIRD-PARTY" "$dist/stage/rootfs.tar"
    python3 tools/release/pack.py image "$dist/stage/rootfs.tar" tools/release/Containerfile "$version" "$dist/$name-$version-oci.tar"
fi
python3 tools/release/pack.py sums "$dist"
