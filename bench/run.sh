#!/bin/bash
# Benchmarks against what people use today and against what the machine can do, as ratios within one run: ours and
# theirs take turns, so that a machine that slows down slows both.
#
#     bench/run.sh [NAME...]     NAME.bench of this folder; all of them by default
#     bench/run.sh --page        only writes the page again, from the results that are there
#
# Each row prints what it finds; its results are kept in RESULTS/NAME.tsv, and docs/benchmarks.md is written anew from
# all of these, and from what it says of rows that were never measured here: a row can be run again alone. A row that fails is told at the end and loses none of the others (exit 1);
# what it did not come to measure again stays, with its date.
#
# BIN            where the programs are (build/bin)
# RESULTS, PAGE  where results are kept (bench/ beside BIN), and the page (docs/benchmarks.md)
# ROUNDS, STEPS  turns of each program (3), training steps in a turn (3)
# THREADS        threads of each program (all cores, at most 2)
# ITEMS, WIDTH   vectors or images, channels, instead of what a row says (DIM, LATENT, BATCH as well, where a row has
#                them); such figures are shown without their bounds
# BIG=1          also what needs 14 GB of disk: ten million vectors in 16 bits (search16); without it an earlier result stays
# COMPILE=0      leaves torch.compile out, which takes minutes
# COMPILE_SECONDS  what a turn of it may take, compiling and steps (300); on a GPU any peer's turn
# CASES, MODES, VARIANTS  what of the row gpu is measured: see gpu.bench
# PEER_PYTHONS   the Python interpreters to compare with, ':' between them; by default Debian's with its
#                python3-torch, and one in the cache with the packages of the package index, as of the day it was made. A row that lacks
#                one of these (no network, no compiler) is compared with the others, without bounds
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
. bench/common.sh
. bench/page.sh

known() { (cd "$BENCHES" && ls ./*.bench 2>/dev/null | sed 's|^\./||; s|\.bench$||'); }
# All rows, in the order of the page: those of this list first.
in_order() {
    local name
    for name in step step16 vae flatten flatten-mlp encode search search16 approx open table1 ingest retrieve; do
        [[ ! -e $BENCHES/$name.bench ]] || echo "$name"
    done
    known | grep -vxE 'step|step16|vae|flatten|flatten-mlp|encode|search|search16|approx|open|table1|ingest|retrieve|gpu' || true
    [[ ! -e $BENCHES/gpu.bench ]] || echo gpu
}

mapfile -t all < <(in_order)
names=("$@")
mkdir -p "$RESULTS"
results_of_page "${all[@]}"
if [[ ${names[0]:-} == --page ]]; then
    ((${#names[@]} == 1)) || die "--page goes alone"
    write_page
    exit
fi
((${#names[@]})) || names=("${all[@]}")
for name in "${names[@]}"; do
    [[ $name =~ ^[a-z0-9-]+$ && -f $BENCHES/$name.bench ]] || die "no benchmark is called '$name'; there are: ${all[*]}"
done
load=$(cut -d' ' -f1 /proc/loadavg)
[[ $(calc "$load > 0.7" %d) == 0 ]] || say "other programs keep this machine busy (load $load): figures will be noisy"

failed=()
for name in "${names[@]}"; do
    printf '== %s\n' "$name"
    begin_results "$name"
    trap 'end_results "$name" 130; write_page; exit 130' INT TERM # what is there is kept
    set +e # not `|| ...`: that would keep set -e from working inside
    (
        set -e
        trap - INT TERM
        work=$session/$name
        mkdir -p "$work"
        . "$BENCHES/$name.bench"
    )
    rc=$?
    set -e
    rm -rf "${session:?}/$name"
    if ((rc)); then
        say "$name failed"
        failed+=("$name")
    fi
    trap 'exit 130' INT TERM
    end_results "$name" "$rc"
    write_page
done
((${#failed[@]} == 0)) || die "failed: ${failed[*]}; what the others gave is in $PAGE"
