# A training step of benchstep beside the same in PyTorch. Read by the rows of training steps.

# What a step's numbers may differ by; and the peers that must not fail: a row is not to be judged against the others then.
tolerances=(loss=1e-4 loss_after=1e-3 ratio=1e-3 change=0.05)
must_run='eager-*'

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
    local name=$1 code=0 differs
    [[ ! -e $work/$name.why && ! -e $work/$name.slow && ! -e $work/eager-${name#*-}.why ]] || return 0
    $2 >"$work/line" 2>"$work/complaints" || code=$?
    case $code in
        0) ;;
        3) go_without "$name" "$(tail -n 1 "$work/complaints")"; return 0 ;;
        124) fails "$name" "not within $COMPILE_SECONDS s"; return 0 ;;
        *) tail -n 5 "$work/complaints" >&2
           fails "$name" "ended with exit code $code: $(tail -n 1 "$work/complaints")"; return 0 ;;
    esac
    cp "$work/line" "$work/$name.last"
    [[ $name != ours ]] || grep '^benchstep: on the device' "$work/complaints" >&2 || true # a detour is no figure of what was asked for
    differs=$([[ $name == ours ]] || difference "$work/ours.last" "$work/$name.last" "${tolerances[@]}")
    [[ -z $differs ]] || { fails "$name" "not the same step: ${differs%; }"; return 0; }
    field seconds <"$work/line" >>"$work/$name.seconds"
    [[ $name != ours ]] || field share <"$work/line" >>"$work/ours.share"
    say "round $round  $name  $(tail -n 1 "$work/$name.seconds") s"
}

# go_without NAME WHY; fails NAME WHY: the same, unless it must run
go_without() {
    say "without $1: $2"
    echo "$2" >"$work/$1.why"
    rm -f "$work/$1.seconds"
}
fails() {
    # shellcheck disable=SC2053 # a pattern
    [[ $1 != ours && $1 != $must_run ]] || die "$1: $2"
    go_without "$1" "$2"
}

# drop_slower eager|compiled FACTOR: the layout of each variant that the other outran, and variants FACTOR times behind the fastest
drop_slower() {
    local file fastest other
    fastest=$({ cat "$work/$1"*.seconds 2>/dev/null || true; } | sort -g | head -n 1)
    for file in "$work/$1"*.seconds; do
        [[ -e $file ]] || continue
        other=$(cat "${file%-*}"-*.seconds | sort -g | head -n 1)
        [[ $(calc "$(<"$file") > $other || $other > $2 * $fastest" %d) == 0 ]] || touch "${file%.seconds}.slow"
    done
}

# fastest eager|graph|compiled: sets best (seconds a step, the median), best_name and best_spread; fails where there is none
fastest() {
    local file t name
    best='' best_name=''
    for file in "$work/$1"*.seconds; do
        [[ -e $file ]] || continue
        t=$(median <"$file")
        name=${file##*/}
        name="torch $(text_field torch <"${file%.seconds}.last"), ${name%%-*}, $(text_field variant <"${file%.seconds}.last"), channels $(text_field layout <"${file%.seconds}.last")"
        printf '%-60s %9.4f s a step, peak memory %s GB, %5.2f times ours\n' "$name" "$t" \
            "$(calc "$(field memory <"${file%.seconds}.last") / 1e9")" "$(calc "$t / $ours")"
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
    peer_result "$1.torch" "fastest PyTorch / Isoface, $2" "$(calc "$best / $ours" %.3f)" more "$3" "$4" "$(step_times)$(first_times); $note" "$best_spread"
    if fastest compiled; then
        peer_result "$1.compiled" "$compiled" "$(calc "$best / $ours" %.3f)" more - - "$(step_times); losses agree" "$best_spread"
    else
        skip "$1.compiled" "$compiled" "$(why_none compiled)"
    fi
    # OpenBLAS's sgemm and a whole step: the FLOPs of its products, done directly, over its time.
    result "$1.sgemm" "its products' share of sgemm's rate" "$(median <"$work/ours.share")" more "$5" "$6" \
        "$(calc "$(field gemm_flops <"$work/ours.last") / $ours / 1e9" %.0f) GFLOP/s of products, sgemm 2048 x 2048 x 2048 between the steps: $(calc "$(field sgemm_gflops <"$work/ours.last")" %.0f) GFLOP/s" "$(spread <"$work/ours.share")"
}
step_times() { printf '%s s a step, %s %s s' "$(calc "$ours" %.4g)" "$best_name" "$(calc "$best" %.4g)"; }
# first_times: "; as it comes, channels first, 1.2 s: 3.4", where channels last were faster
first_times() {
    local t file
    [[ $best_name == *'channels last' ]] || return 0
    t=$(for file in "$work"/eager-*-first.seconds; do [[ ! -e $file ]] || median <"$file"; done | sort -g | head -n 1)
    [[ -n $t ]] || return 0
    printf '; channels first, as PyTorch comes, %s s: %s' "$(calc "$t" %.4g)" "$(calc "$t / $ours" %.2f)"
}
# why_none graph|compiled: why none of these ran
why_none() {
    local why
    why=$(cat "$work/$1"*.why 2>/dev/null | sort -u | sed 's/$/; /' | tr -d '\n')
    why=${why%; }
    echo "${why:-left out (COMPILE=0), or nothing runs eagerly}"
}
