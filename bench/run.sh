#!/bin/bash
# Benchmarks against what people use today, as ratios within one run: ours and theirs take turns, so that a
# machine that slows down slows both.
#
#     bench/run.sh [NAME...]     NAME.bench of this folder; all of them by default
#
# BIN            where the programs are (build/bin)
# ROUNDS, STEPS  turns of each program (3), training steps in a turn (3)
# THREADS        threads of each program (all cores, at most 2)
# PEER_PYTHONS   the Python interpreters to compare with, ':' between them; by default Debian's with its
#                python3-torch, and one in the cache with the current packages of the package index
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
. bench/common.sh

names=("$@")
((${#names[@]})) || names=(step retrieve)
for name in "${names[@]}"; do
    [[ -f bench/$name.bench ]] || die "no benchmark is called '$name'; there are: $(cd bench && ls ./*.bench | sed 's|./||; s|\.bench||' | tr '\n' ' ')"
done
for name in "${names[@]}"; do
    printf '== %s\n' "$name"
    . "bench/$name.bench"
done
