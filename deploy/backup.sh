#!/bin/sh
# A copy of what `melo serve` keeps, while it runs: state, audit, spool. docs/operations.md says what it holds, and how it is put back.
#
#     backup.sh STATE OUT [CHECKPOINT]      OUT must not be there; CHECKPOINT is the file of --audit-checkpoint
#
# Needs the program sqlite3. An --audit FILE outside STATE is named in AUDIT. Read as the user of the server, or as root.
set -eu
umask 077
state=$1 out=$2 checkpoint=${3:-}
audit=${AUDIT:-$state/audit.sqlite}
[ -f "$state/registry.json" ] || { echo "backup: $state is no state folder: it has no registry.json" >&2; exit 2; }
mkdir "$out"
# Objects only move on, from incoming to outgoing: in this order none is missed, and one that is in two copies is answered once.
for place in incoming series answered outgoing undelivered refused; do
    [ -d "$state/spool/$place" ] || continue
    mkdir -p "$out/spool/$place"
    # What is done meanwhile is gone: that is no failure.
    tar -C "$state/spool/$place" --ignore-failed-read --warning=no-file-removed --warning=no-file-changed \
        --exclude='.melo-*' -cf - . | tar -C "$out/spool/$place" -xf -
done
# A signed row is in the audit when it is signed: the checkpoint first.
[ -z "$checkpoint" ] || cp "$checkpoint" "$out/checkpoint"
# One transaction, whatever is written meanwhile.
if [ -f "$audit" ]; then sqlite3 -readonly "$audit" "VACUUM INTO '$out/audit.sqlite'"; fi
# The list before the files that it names: a file that is new meanwhile is not named, one that goes was replaced.
cp "$state/registry.json" "$out/"
cp -r "$state/plugins" "$out/"
for file in drift.json backbone.safetensors; do
    [ ! -f "$state/$file" ] || cp "$state/$file" "$out/"
done
