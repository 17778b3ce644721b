# What the benchmarks share. Read by bench/run.sh.

BIN=${BIN:-build/bin}
ROUNDS=${ROUNDS:-3}
STEPS=${STEPS:-3}
cores=$(nproc)
THREADS=${THREADS:-$((cores < 2 ? cores : 2))}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/isoface

say() { printf 'bench: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/isoface-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# field NAME <JSON: the number of that name.
field() { sed -nE 's/.*"'"$1"'": *(-?[0-9][-+0-9.eE]*).*/\1/p'; }
text_field() { sed -nE 's/.*"'"$1"'": *"([^"]*)".*/\1/p'; }
calc() { awk "BEGIN { printf \"${2:-%.2f}\", ($1) }"; }
# The median of the numbers on stdin.
median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
# seconds COMMAND...: the wall time of a whole process, whose output goes to $work/said
seconds() {
    local start=$EPOCHREALTIME
    "$@" >"$work/said" 2>"$work/complaints" || { cat "$work/complaints" >&2; die "failed: $*"; }
    calc "$EPOCHREALTIME - $start" %.4f
}

# OpenBLAS picks kernels by a list of CPU models and falls back to very old ones for a CPU that is newer than itself. It
# and what is built on it are measured with the kernels that are fastest here.
choose_openblas() {
    local core rate best=0 best_core=
    [[ -z ${OPENBLAS_CORETYPE:-} ]] || return 0
    unset OPENBLAS_CORETYPE # set but empty is not the same to it
    for core in own Haswell SkylakeX; do
        rate=$([[ $core == own ]] || export OPENBLAS_CORETYPE=$core
            "$BIN/benchstep" --quiet --width 2 --latent 2 --batch 2 --steps 3 --threads "$THREADS" 2>/dev/null |
                field sgemm_gflops) || continue
        say "sgemm with OpenBLAS's $core kernels: ${rate:-none} GFLOP/s"
        [[ -n $rate && $(calc "$rate > 1.05 * $best" %d) == 1 ]] && best=$rate best_core=$core
    done
    [[ -z $best_core || $best_core == own ]] || export OPENBLAS_CORETYPE=$best_core
}

# A virtual environment with the current wheels, made once: it appears whole or not at all.
wheel_python() {
    local home=$cache/peers
    if [[ ! -e $home/complete ]]; then
        say "installing the current torch, faiss-cpu and Pillow into $home (several GB, once)"
        rm -rf "$home"
        mkdir -p "$cache"
        setup/setup.sh --packages python3-venv >&2 && python3 -m venv "$home" >&2 &&
            "$home/bin/pip" install --quiet torch faiss-cpu pillow numpy >&2 && touch "$home/complete" ||
            { say "that failed; going on without it"; rm -rf "$home"; return; }
    fi
    echo "$home/bin/python"
}

# Sets peers to the interpreters that have torch and run here.
find_peers() {
    local candidates python
    [[ -z ${peers+set} ]] || return 0
    if [[ -n ${PEER_PYTHONS:-} ]]; then
        IFS=: read -ra candidates <<<"$PEER_PYTHONS"
    else
        setup/setup.sh --packages python3-torch >&2 || say "no Debian python3-torch; going on without it"
        mapfile -t candidates < <(echo /usr/bin/python3; wheel_python)
    fi
    peers=()
    for python in "${candidates[@]}"; do
        if "$python" -c 'import torch' 2>/dev/null; then
            peers+=("$python")
        else
            say "$python cannot import torch here; going on without it"
        fi
    done
    ((${#peers[@]})) || die "no PyTorch to compare with"
}
