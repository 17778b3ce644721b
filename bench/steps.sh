# A training step of benchstep beside the same in PyTorch. Read by the rows of training steps.

# step_turns STEPS VARIANTS OPTION...: takes turns of benchstep and of every PyTorch's variants with these options, as they come (eager) and
# compiled, in both layouts of images, all with the same parameters and inputs, and checks that all find the same losses. Sets ours (seconds
# a step, the median) and leaves the peers' in $work. The slower layout and a variant that is much slower than another one take part in
# the first round only; so do all compiled ones but the fastest: they compile anew in each turn.
step_turns() {
    local steps=$1 variants=$2 turns=() i variant layout peer round
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
                peer="${peers[i]} -W ignore bench/peer_step.py ${shape[*]} --inputs $work/inputs --variant $variant --layout $layout"
                turns+=("eager-$i-$variant-$layout|$peer")
                [[ $COMPILE == 0 ]] || turns+=("compiled-$i-$variant-$layout|timeout $COMPILE_SECONDS $peer --compile default")
            done
        done
    done
    export TORCHINDUCTOR_CACHE_DIR=$work/compiled # of this row alone
    for ((round = 1; round <= ROUNDS; round++)); do
        for i in "${turns[@]}"; do
            step_turn "${i%%|*}" "${i#*|}"
        done
        ((round > 1)) || { drop_slower eager 1.5; drop_slower compiled 1; }
    done
    ours=$(median <"$work/ours.seconds")
    printf '%-60s %9.4f s a step, peak memory %s GB (planned %s GB)\n' isoface "$ours" \
        "$(calc "$(field peak_rss <"$work/ours.last") / 1e9")" "$(calc "$(field peak_planned <"$work/ours.last") / 1e9")"
}

# step_turn NAME COMMAND: what cannot be done is not tried again, and NAME.why says why; what does not even run eagerly is not compiled.
step_turn() {
    local name=$1 code=0
    [[ ! -e $work/$name.why ]] || return 0
    [[ $name != compiled-* || -e $work/eager-${name#*-}.seconds ]] || return 0
    $2 >"$work/line" 2>"$work/complaints" || code=$?
    if ((code)); then
        [[ $name == compiled-* ]] || ((code == 3)) || { cat "$work/complaints" >&2; die "failed: $2"; }
        case $code in
            3) tail -n 1 "$work/complaints" ;;
            124) echo "not compiled within $COMPILE_SECONDS s" ;;
            *) echo "ended with exit code $code: $(tail -n 1 "$work/complaints")" ;;
        esac >"$work/$name.why"
        say "without $name: $(<"$work/$name.why")"
        return 0
    fi
    cp "$work/line" "$work/$name.last"
    [[ $name == ours ]] || same_step "$name" || return 0
    field seconds <"$work/line" >>"$work/$name.seconds"
    [[ $name != ours ]] || field share <"$work/line" >>"$work/ours.share"
    say "round $round  $name  $(tail -n 1 "$work/$name.seconds") s"
}

# same_step NAME: it has run the step that we have; fails for a compiled one that has not, which is not compared.
same_step() {
    local differs
    differs=$(difference "$work/ours.last" "$work/$1.last" loss=1e-4 loss_after=1e-3 ratio=1e-3 change=0.05)
    [[ -n $differs ]] || return 0
    [[ $1 == compiled-* ]] || die "$1 is not the same step: $differs"
    say "without $1: $differs"
    echo "compiled to another step: $differs" >"$work/$1.why"
    return 1
}

# drop_slower eager|compiled FACTOR: the layout of each variant that the other outran, and variants FACTOR times behind the fastest
drop_slower() {
    local file fastest other
    fastest=$(cat "$work/$1"-*.seconds 2>/dev/null | sort -g | head -n 1)
    for file in "$work/$1"-*.seconds; do
        [[ -e $file ]] || continue
        other=$(cat "${file%-*}"-*.seconds | sort -g | head -n 1)
        [[ $(calc "$(<"$file") > $other || $other > $2 * $fastest" %d) == 0 ]] || echo 'others were faster' >"${file%.seconds}.why"
    done
}

# fastest eager|compiled: sets best (seconds a step, the median), best_name and best_spread; fails where there is none
fastest() {
    local file t name
    best='' best_name=''
    for file in "$work/$1"-*.seconds; do
        [[ -e $file ]] || continue
        t=$(median <"$file")
        name="torch $(text_field torch <"${file%.seconds}.last"), $1, $(text_field variant <"${file%.seconds}.last"), channels $(text_field layout <"${file%.seconds}.last")"
        printf '%-60s %9.4f s a step, peak memory %s GB, %5.2f times ours\n' "$name" "$t" \
            "$(calc "$(field peak_rss <"${file%.seconds}.last") / 1e9")" "$(calc "$t / $ours")"
        [[ -n $best && $(calc "$t < $best" %d) == 0 ]] || best=$t best_name=$name best_spread=$(spread_of "$file" "$work/ours.seconds")
    done
    [[ -n $best ]]
}

# step_rows KEY "the step" LEAST AIM SHARE-LEAST SHARE-AIM "its sizes": the results of step_turns. The bounds are for PyTorch as it comes.
step_rows() {
    local compiled="torch.compile / Isoface, the same step" note
    fastest eager || die "no PyTorch computed this step"
    note="$(calc "$(field flops <"$work/ours.last") / 1e9" %.4g) GFLOP a step, $THREADS threads; peak memory $(calc "$(field peak_rss <"$work/ours.last") / 1e9") GB"
    note+=" (planned $(calc "$(field peak_planned <"$work/ours.last") / 1e9") GB); losses agree; $7"
    peer_result "$1.torch" "fastest PyTorch / Isoface, $2" "$(calc "$best / $ours" %.3f)" more "$3" "$4" "$(step_times); $note" "$best_spread"
    if fastest compiled; then
        peer_result "$1.compiled" "$compiled" "$(calc "$best / $ours" %.3f)" more - - "$(step_times); losses agree" "$best_spread"
    else
        skip "$1.compiled" "$compiled" "$(why_not_compiled)"
    fi
    # OpenBLAS's sgemm and a whole step: the FLOPs of its products, done directly, over its time.
    result "$1.sgemm" "its products' share of sgemm's rate" "$(median <"$work/ours.share")" more "$5" "$6" \
        "$(calc "$(field gemm_flops <"$work/ours.last") / $ours / 1e9" %.0f) GFLOP/s of products, sgemm 2048 x 2048 x 2048 between the steps: $(calc "$(field sgemm_gflops <"$work/ours.last")" %.0f) GFLOP/s" "$(spread "$work/ours.share")"
}
step_times() { printf '%s s a step, %s %s s' "$(calc "$ours" %.4g)" "$best_name" "$(calc "$best" %.4g)"; }
why_not_compiled() {
    if [[ $COMPILE == 0 ]]; then
        echo 'left out (COMPILE=0)'
    else
        cat "$work"/compiled-*.why | sort -u | sed 's/$/; /' | tr -d '\n' | sed 's/; $//'
    fi
}
