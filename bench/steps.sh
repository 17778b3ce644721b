# A training step of benchstep beside the same in PyTorch. Read by the rows of training steps.

# step_turns STEPS VARIANTS OPTION...: takes turns of benchstep and of every PyTorch's variants with these options, all with the same
# parameters and inputs, and checks that all find the same losses. Sets ours and best (seconds a step, medians), best_name,
# and $work/ours.last, the last line of benchstep. A variant that is much slower than another one takes part in the first round only,
# and so does the slower of its two layouts of images.
step_turns() {
    local steps=$1 variants=$2 turns=() i variant layout round name command code
    shift 2
    local shape=("$@" --steps "$steps" --threads "$THREADS")
    [[ -x $BIN/benchstep ]] || die "$BIN/benchstep is missing: run make"
    find_peers
    choose_openblas
    printf 'benchstep %s\n' "${shape[*]}"
    # What takes turns: "its name|command".
    turns=("ours|$BIN/benchstep ${shape[*]} --quiet --save $work/inputs")
    for i in "${!peers[@]}"; do
        for variant in $variants; do
            for layout in first last; do
                turns+=("peer$i-$variant-$layout|${peers[i]} -W ignore bench/peer_step.py ${shape[*]} --inputs $work/inputs --variant $variant --layout $layout")
            done
        done
    done
    for ((round = 1; round <= ROUNDS; round++)); do
        for i in "${turns[@]}"; do
            IFS='|' read -r name command <<<"$i"
            [[ ! -e $work/$name.absent ]] || continue
            code=0
            $command >"$work/line" || code=$?
            ((code != 3)) || { touch "$work/$name.absent"; continue; }
            ((code == 0)) || die "failed: $command"
            cp "$work/line" "$work/$name.last"
            field seconds <"$work/line" >>"$work/$name.seconds"
            say "round $round  $name  $(tail -n 1 "$work/$name.seconds") s"
            [[ $name != ours ]] || continue
            same_losses "$work/ours.last" "$work/$name.last"
        done
        ((round > 1)) || drop_slower "${turns[@]:1}"
    done
    step_summary "${turns[@]}"
}

# drop_slower TURN...: the layout of each variant that the other outran, and variants far behind the fastest
drop_slower() {
    local turn name fastest other
    fastest=$(for turn; do cat "$work/${turn%%|*}.seconds" 2>/dev/null; done | sort -g | head -n 1)
    for turn; do
        name=${turn%%|*}
        [[ -e $work/$name.seconds ]] || continue
        other=$(cat "$work/${name%-*}"-*.seconds | sort -g | head -n 1)
        [[ $(calc "$(<"$work/$name.seconds") > $other || $other > 1.5 * $fastest" %d) == 0 ]] || touch "$work/$name.absent"
    done
}

# Both have run the same step: losses before and after it agree as far as floats allow, and so does R.
same_losses() {
    local name bound a b
    while read -r name bound; do
        a=$(field "$name" <"$1") b=$(field "$name" <"$2")
        [[ $(calc "($a - $b)^2 <= ($bound * $a)^2" %d) == 1 ]] || die "not the same step: $name is $a here and $b in ${2##*/}"
    done <<<$'loss 1e-4\nloss_after 1e-3\nratio 1e-3'
}

step_summary() {
    local turn name t
    ours=$(median <"$work/ours.seconds")
    printf '%-44s %9.4f s a step, peak memory %s GB (planned %s GB)\n' isoface "$ours" \
        "$(calc "$(field peak_rss <"$work/ours.last") / 1e9")" "$(calc "$(field peak_planned <"$work/ours.last") / 1e9")"
    best='' best_name=''
    for turn in "${@:2}"; do
        name=${turn%%|*}
        [[ -e $work/$name.seconds ]] || continue
        t=$(median <"$work/$name.seconds")
        turn="torch $(text_field torch <"$work/$name.last"), $(text_field variant <"$work/$name.last"), channels $(text_field layout <"$work/$name.last")"
        printf '%-44s %9.4f s a step, peak memory %s GB, %5.2f times ours\n' "$turn" "$t" \
            "$(calc "$(field peak_rss <"$work/$name.last") / 1e9")" "$(calc "$t / $ours")"
        [[ -n $best && $(calc "$t < $best" %d) == 0 ]] || { best=$t; best_name=$turn; }
    done
    [[ -n $best ]] || die "no PyTorch computed this step"
}

# The absolute figures behind a ratio.
step_note() {
    printf '%s s a step, %s %s s; %s GFLOP a step, %s threads; peak memory %s GB (planned %s GB); losses agree; %s' \
        "$(calc "$ours" %.4g)" "$best_name" "$(calc "$best" %.4g)" "$(calc "$(field flops <"$work/ours.last") / 1e9" %.4g)" "$THREADS" \
        "$(calc "$(field peak_rss <"$work/ours.last") / 1e9")" "$(calc "$(field peak_planned <"$work/ours.last") / 1e9")" "$1"
}

# The share of OpenBLAS's sgemm rate that a whole step reaches: the FLOPs of its products over its time.
step_share() { field share <"$work/ours.last"; }
share_note() { printf '%s GFLOP/s of products, sgemm 2048 x 2048 x 2048 between the steps: %s GFLOP/s' \
    "$(calc "$(field gemm_flops <"$work/ours.last") / $(field seconds <"$work/ours.last") / 1e9" %.0f)" \
    "$(calc "$(field sgemm_gflops <"$work/ours.last")" %.0f)"; }
