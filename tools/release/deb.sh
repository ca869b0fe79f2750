#!/usr/bin/env bash
# deb.sh STAGE VERSION OUT.deb: the Debian package of what build.sh laid out, by dpkg-deb.
set -euo pipefail
cd "$(dirname "$0")/../.."
stage=$1 version=$2 out=$3
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
doc=$root/usr/share/doc/melo-vit
install -D -m 755 "$stage/melo" "$root/usr/bin/melo"
for page in "$stage"/man/man1/*.1; do
    install -D -m 644 "$page" "$root/usr/share/man/man1/$(basename "$page")"
done
install -D -m 644 "$stage/completions/melo.bash" "$root/usr/share/bash-completion/completions/melo"
install -D -m 644 "$stage/completions/_melo" "$root/usr/share/zsh/vendor-completions/_melo"
install -D -m 644 "$stage/completions/melo.fish" "$root/usr/share/fish/vendor_completions.d/melo.fish"
install -D -m 644 deploy/systemd/melo.service "$root/usr/lib/systemd/system/melo.service"
install -D -m 644 deploy/systemd/serve.toml "$doc/examples/serve.toml"
install -m 644 "$stage/LICENSES-THIRD-PARTY" "$stage/melo-vit.cdx.json" "$stage/README.md" "$doc"
# Paragraphs of the licence as the format of Debian's copyright files has them.
sed 's/^$/./; s/^/ /' LICENSE-MIT | sed -e '/@MIT@/{r /dev/stdin' -e 'd}' tools/release/debian/copyright > "$doc/copyright"
{
    printf 'melo-vit (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md of the source.\n\n' "$version"
    printf ' -- the authors of melo <maintainers@melo.invalid>  %s\n' "$(date -R -u -d "@$SOURCE_DATE_EPOCH")"
} > "$doc/changelog"
gzip -9n "$doc/changelog" "$doc/LICENSES-THIRD-PARTY" "$doc/melo-vit.cdx.json" "$root"/usr/share/man/man1/*.1
size=$(du -k -s --apparent-size "$root" | cut -f1)
install -d -m 755 "$root/DEBIAN"
sed "s/@VERSION@/$version/; s/@ARCHITECTURE@/amd64/; s/@SIZE@/$size/" tools/release/debian/control > "$root/DEBIAN/control"
install -m 755 tools/release/debian/{postinst,prerm,postrm} "$root/DEBIAN"
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$root" "$out" > /dev/null
