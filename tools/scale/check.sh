#!/usr/bin/env bash
# check.sh: runs every other script beside it: Slurm, MPI, NATS and what else is there, each on real servers of this machine.
#   MELO    the binary (target/release/melo, built with --features queue,object-store)
# Exit status 1 where one of them failed.
set -uo pipefail
cd "$(dirname "$0")/../.."
failed=()
for script in tools/scale/*.sh; do
    [ "$script" = tools/scale/check.sh ] && continue
    printf '\n== %s (%d s so far)\n' "$script" "$SECONDS"
    "$script" || failed+=("$script")
done
[ ${#failed[@]} -eq 0 ] || printf '\nFAILED: %s\n' "${failed[@]}"
[ ${#failed[@]} -eq 0 ]
