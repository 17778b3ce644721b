#!/bin/bash
# What bench/run.sh keeps and writes: results, bounds, rows that are skipped, fail or were never run.
name=bench
. "$(dirname "$0")/check.bash"
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$work/rows"
export BENCHES=$work/rows RESULTS=$work/results PAGE=$work/page.md BIN=$bin
unset ITEMS DIM WIDTH LATENT BATCH ROUNDS PEER_PYTHONS

cat >"$BENCHES/step.bench" <<'ROW'
# The first row.
result step.much 'times a peer' 4.126 more 2 3.5 '1 s against 4 s | and	a tab'
result step.some 'times a peer' 2 more 2 3.5 'enough'
result step.few 'times a peer' 1.99 more 2 3.5 'too few'
result step.none 'times a peer' 12345.6 more - - ''
skip step.absent 'times another peer' 'it is not here'
ROW
cat >"$BENCHES/search.bench" <<'ROW'
# Search, of which nothing is known.
[[ $ROUNDS == 3 ]] || die 'the row before changed what this one sees'
result search.read 'over reading' 1.05 less 1.25 1.1 'fast'
result search.slow 'over reading' 1.2 less 1.25 1.1 'so so'
result search.bad 'over reading' 1.3 less 1.25 1.1 'slow'
result search.aim 'over reading' .9 less - 1 'only an aim'
ROW
cat >"$BENCHES/approx.bench" <<'ROW'
# Fails half way.
ROUNDS=99
result approx.half 'first half' 1 more 1 1.5 'done'
false
result approx.whole 'never seen' 1 more 1 1.5 'done'
ROW
cat >"$BENCHES/gpu.bench" <<'ROW'
# A step on a GPU.
skip gpu.step 'against torch' 'no GPU here'
ROW

run() {
    bench/run.sh "$@" >"$work/out" 2>"$work/said"
    rc=$?
    out=$(<"$work/out") said=$(<"$work/said") page=$(cat "$PAGE" 2>/dev/null)
}

run step gpu
expect 'two rows' 0
has "$out" '== step' 'the row is announced'
has "$out" 'step.much: times a peer = 4.126 (at least 2, aim 3.5: aim)' 'a result is printed'
has "$out" 'step.absent: times another peer: not measured: it is not here' 'a skip is printed'
has "$page" '| `step.much`: times a peer | **4.13** | ≥ 2 | ≥ 3.5 | aim | 1 s against 4 s / and a tab |' 'better than the aim'
has "$page" '| `step.some`: times a peer | **2.00** | ≥ 2 | ≥ 3.5 | yes | enough |' 'just enough'
has "$page" '| `step.few`: times a peer | **1.99** | ≥ 2 | ≥ 3.5 | **no** | too few |' 'too little'
has "$page" '| `step.none`: times a peer | **12346** | – | – | – |  |' 'without bounds'
has "$page" '| `step.absent`: times another peer | not measured | – | – | – | it is not here |' 'skipped'
has "$page" '| `search`: Search, of which nothing is known | not measured | – | – | – | |' 'never run'
has "${page#*## GPU}" '| `gpu.step`: against torch | not measured | – | – | – | no GPU here |' 'the table of the GPU'
has "${page#*## Runs}" '| `step` | 20' 'when it ran'

run
expect 'all rows, one failing' 1
has "$said" 'failed: approx;' 'which one failed'
has "$page" '| `search.read`: over reading | **1.05** | ≤ 1.25 | ≤ 1.1 | aim | fast |' 'less is better: aim'
has "$page" '| `search.slow`: over reading | **1.20** | ≤ 1.25 | ≤ 1.1 | yes | so so |' 'less is better: bound'
has "$page" '| `search.bad`: over reading | **1.30** | ≤ 1.25 | ≤ 1.1 | **no** | slow |' 'less is better: missed'
has "$page" '| `search.aim`: over reading | **0.90** | – | ≤ 1 | aim | only an aim |' 'an aim alone'
has "$page" '| `approx.half`: first half | **1.00** | ≥ 1 | ≥ 1.5 | yes | done |' 'what it had measured stays'
has "$page" '| `approx` | failed |' 'that it failed'
[[ $page != *'never seen'* ]] || { echo 'a row went on after a failing command'; failed=1; }
same "$(grep -o '^== .*' "$work/out" | tr '\n' ' ')" '== step == search == approx == gpu ' 'the order of the rows'

# One row again, the others as they were; a page from what is there.
printf '# Mended.\nresult approx.half "first half" 3 more 1 1.5 done\n' >"$BENCHES/approx.bench"
run approx
expect 'mended' 0
has "$page" '| `approx.half`: first half | **3.00** | ≥ 1 | ≥ 1.5 | aim | done |' 'its new result'
has "$page" '| `search.bad`: over reading | **1.30** |' 'the others stand'
cp "$PAGE" "$work/before"
rm "$PAGE"
run --page
expect 'the page alone' 0
same "$page" "$(<"$work/before")" 'the page from what is kept'

ITEMS=10 run approx
has "$page" '| `approx.half`: first half | **3.00** | – | – | – | ITEMS=10 without bounds; done |' "sizes of the user's own"

# What a row may not do.
bad() {
    printf '# Bad.\n%s\n' "$1" >"$BENCHES/approx.bench"
    run approx
    expect "$1" 1
    has "$said" "$2" "$1"
}
bad 'result approx.a what nan more 1 2 note' "the ratio 'nan' is not a number"
bad 'result approx.a what "" more 1 2 note' "the ratio '' is not a number"
bad 'result approx.a what 1 larger 1 2 note' "'larger' is neither more nor less"
bad 'result approx.a what 1 more one 2 note' "the bound 'one' is not a number"
bad 'result approx.a what 1' 'result needs a key'
bad $'result approx.a what 1 more 1 2 n\nresult approx.a what 1 more 1 2 n' 'two results have this key'

# What is skipped keeps what an earlier run measured, as often as it is skipped, until it is measured again.
measured() { printf '# Big.\nresult approx.big "in 4 GiB" %s less 1 1 "%s"\n' "$1" "$2" >"$BENCHES/approx.bench"; run approx; }
measured 0.5 'MB'
printf '# Big.\nskip approx.big "in 4 GiB" "wants BIG=1"\nskip approx.none "not here" why\n' >"$BENCHES/approx.bench"
for again in once twice; do
    run approx
    has "$out" 'approx.big: in 4 GiB: not measured now, the earlier result stays: wants BIG=1' "$again"
    has "$(sed -E 's/20[0-9-]+ \([^)]*\)/DATE (COMMIT)/' <<<"$page")" \
        '| `approx.big`: in 4 GiB | **0.50** | ≤ 1 | ≤ 1 | aim | measured DATE (COMMIT): MB |' "skipped $again"
    has "$page" '| `approx.none`: not here | not measured | – | – | – | why |' 'never measured'
done
measured 0.7 'more MB'
has "$page" '| `approx.big`: in 4 GiB | **0.70** | ≤ 1 | ≤ 1 | aim | more MB |' 'measured again'

# A run that fails or is ended leaves what was known and it has not measured again.
measured 0.8 'before'
printf '# Fails.\nresult approx.half half 1 more 1 1 new\nfalse\n' >"$BENCHES/approx.bench"
earlier() { sed -E 's/measured 20[0-9-]+ \([^)]*\)/of DATE/' <<<"$page"; }
for again in once twice; do
    run approx
    expect "failed $again" 1
    has "$(earlier)" '| `approx.big`: in 4 GiB | **0.80** | ≤ 1 | ≤ 1 | aim | of DATE: before |' "failed $again"
    has "$page" '| `approx.half`: half | **1.00** | ≥ 1 | ≥ 1 | aim | new |' "failed $again"
    has "$page" '| `approx` | failed |' "told $again"
    same "$(grep -c approx.big <<<"$page")" 1 "once $again"
done
printf '# Ended.\necho begun\nsleep 30\n' >"$BENCHES/approx.bench"
set -m # a group of its own, which Ctrl-C reaches as a whole
bench/run.sh approx >"$work/out" 2>&1 &
set +m
until grep -q '^begun' "$work/out"; do sleep 0.1; done
kill -INT -- "-$!"
wait "$!"
rc=$? said='' page=$(<"$PAGE")
expect 'ended' 130
has "$(earlier)" '| `approx.big`: in 4 GiB | **0.80** | ≤ 1 | ≤ 1 | aim | of DATE: before |' 'ended'
has "$page" 'the run ended with exit code 130' 'ended'
measured 0.9 'well again'
has "$page" '| `approx.big`: in 4 GiB | **0.90** | ≤ 1 | ≤ 1 | aim | well again |' 'well again'
[[ $page != *'| `approx` | failed'* ]] || { echo 'a failure outlives the next run'; failed=1; }

# A clone, which has the page and no results.
printf 'library "Python 3, torch 2"\nskip gpu.step "against torch" "no GPU here"\n' >>"$BENCHES/gpu.bench"
sed -i 1,2d "$BENCHES/gpu.bench"
run gpu
has "$page" '- Python 3, torch 2 (`gpu`)' 'which row used what'
cp "$PAGE" "$work/before"
rm -r "$RESULTS"
run --page
same "$page" "$(<"$work/before")" 'the page from the page'
rm "$RESULTS/step.tsv" "$PAGE"
run --page
has "$page" '- Python 3, torch 2 (`gpu`)' 'whose results lack the row before'
cp "$work/before" "$PAGE"
rm -r "$RESULTS"
measured 0.6 'in a clone'
same "$(grep -v approx <<<"$page")" "$(grep -v approx "$work/before")" 'one row in a clone'
has "$page" '| `approx.big`: in 4 GiB | **0.60** | ≤ 1 | ≤ 1 | aim | in a clone |' 'one row in a clone'

# What single rounds gave.
cat >"$BENCHES/approx.bench" <<'ROW'
# Rounds.
printf '2\n3\n2.5\n' >"$work/ours"
printf '4\n9\n5\n' >"$work/theirs"
result approx.near 'times a peer' 2 more 1 2.5 'near' "$(spread_of "$work/theirs" "$work/ours")"
result approx.far 'times a peer' 2 more 1 1.9 'far' "$(spread_of "$work/theirs" "$work/ours")"
result approx.miss 'times a peer' 2 more 2.2 4 'missed' "$(spread_of "$work/theirs" "$work/ours")"
result approx.once 'times a peer' 2 more 2 4 'once' "$(spread <<<2)"
ROW
run approx
expect 'rounds' 0
has "$out" 'approx.near: times a peer = 2 (2.000 3.000) (at least 1, aim 2.5: yes, within the noise); near' 'rounds are printed'
has "$page" '| `approx.near`: times a peer | **2.00** (2.00 – 3.00) | ≥ 1 | ≥ 2.5 | yes, within the noise | near |' 'the aim in the noise'
has "$page" '| `approx.far`: times a peer | **2.00** (2.00 – 3.00) | ≥ 1 | ≥ 1.9 | aim | far |' 'bounds out of the noise'
has "$page" '| `approx.miss`: times a peer | **2.00** (2.00 – 3.00) | ≥ 2.2 | ≥ 4 | **no**, within the noise | missed |' 'the bound in the noise'
has "$page" '| `approx.once`: times a peer | **2.00** | ≥ 2 | ≥ 4 | yes | once |' 'one round'

# A peer that is lacking: no bounds beside the others, but beside the machine.
cat >"$BENCHES/approx.bench" <<'ROW'
# Peers.
lack 'this one' there here there
lack 'that one' nowhere here there
lack 'another' nowhere
peer_result approx.peer 'times a peer' 3 more 1 2 'weak'
result approx.limit 'over reading' 1 less 1 1 'strong'
ROW
run approx
expect 'lacking' 0
has "$page" '| `approx.peer`: times a peer | **3.00** | – | – | – | without that one and another, so without bounds; weak |' 'a peer that is lacking'
has "$page" '| `approx.limit`: over reading | **1.00** | ≤ 1 | ≤ 1 | aim | strong |' 'what needs no peer'

# A peer that takes no step, where a step changes the loss little.
cat >"$BENCHES/approx.bench" <<'ROW'
# Two steps.
echo '{"loss":11899.582,"loss_after":11897.5127,"ratio":0.12}' >"$work/ours"
sed 's/11897.5127/11897.51/' "$work/ours" >"$work/near"
sed 's/11897.5127/11899.582/' "$work/ours" >"$work/still"
sed 's/11897.5127/nan/' "$work/ours" >"$work/none"
for theirs in near still none; do
    echo "$theirs: $(difference "$work/ours" "$work/$theirs" loss=1e-4 loss_after=1e-3 ratio=1e-3 change=0.05)"
done
ROW
run approx
expect 'steps' 0
has "$out"$'\n' $'near: \n' 'the same step'
has "$out" 'still: change is 2.0693 here and 0 there' 'no step'
has "$out" 'none: loss_after is 11897.5127 here and  there' 'no number'

run nothing
expect 'an unknown row' 1
has "$said" "no benchmark is called 'nothing'; there are: step search approx gpu" 'an unknown row'
run ../etc
expect 'a path' 1
exit "$failed"
