# What the benchmarks share. Read by bench/run.sh. A .bench file is sourced in a shell of its own (set -e), from the root
# of the checkout, with an empty folder $work; it prints for people and calls result or skip once for each figure.

BIN=${BIN:-build/bin}
RESULTS=${RESULTS:-$(dirname "$BIN")/bench}
PAGE=${PAGE:-docs/benchmarks.md}
BENCHES=${BENCHES:-bench}
ROUNDS=${ROUNDS:-3}
STEPS=${STEPS:-3}
COMPILE=${COMPILE:-1}
COMPILE_SECONDS=${COMPILE_SECONDS:-300}
# Sizes that the user chose for this run, instead of a row's own: "ITEMS=1000 WIDTH=16".
own_sizes=$(for name in ITEMS DIM WIDTH LATENT BATCH; do [[ -z ${!name:-} ]] || printf '%s ' "$name=${!name}"; done)
cores=$(nproc)
THREADS=${THREADS:-$((cores < 2 ? cores : 2))}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/isoface
debian_python=/usr/bin/python3
wheel_home=$cache/peers
lacking='' # peers that a row wants and has not

say() { printf 'bench: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The folder of this run: what one row found out for the others lies in it (the Pythons, OpenBLAS's kernels).
session=$(mktemp -d "${TMPDIR:-/tmp}/isoface-bench.XXXXXX")
work=$session
trap 'rm -rf "$session"' EXIT
trap 'exit 130' INT TERM

# ---------------------------------------------------------------- results

# A file of results: lines of fields between tabs. "run" (see begin_results) comes first, then for each figure
# "result" KEY WHAT RATIO more|less LEAST AIM NOTE SPREAD, or "skip" KEY WHAT WHY, or "row" KEY and a line of the page, which was measured in
# an earlier run; "library" NAMES AND VERSIONS; last "end" CODE SECONDS.
record() {
    local field line=$1
    shift
    for field in "$@"; do
        field=${field//[$'\t\n\r']/ }
        line+=$'\t'${field//|//}
    done
    printf '%s\n' "$line" >>"$results"
}

is_number() { [[ $1 =~ ^-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$ || $1 =~ ^-?\.[0-9]+([eE][-+]?[0-9]+)?$ ]]; }

# verdict RATIO more|less LEAST AIM: "aim" or "yes" when it reaches that bound, "no" when it misses the weaker, "-" without bounds
verdict() {
    local bound reached=() sign='>='
    [[ $2 == more ]] || sign='<='
    for bound in "$3" "$4"; do
        if [[ $bound == - ]]; then
            reached+=(-)
        else
            reached+=("$(awk "BEGIN { print ($1 $sign $bound) }")")
        fi
    done
    case ${reached[*]} in
        '- -') echo - ;;
        *' 1') echo aim ;;
        1*) echo yes ;;
        *) echo no ;;
    esac
}

# within_noise SPREAD BOUND...: a bound lies between the least and the most of the rounds
within_noise() {
    local bound low high
    read -r low high <<<"$1"
    [[ -n $high ]] || return 1
    for bound in "${@:2}"; do
        [[ $bound == - || $(calc "$low <= $bound && $bound <= $high" %d) == 0 ]] || return 0
    done
    return 1
}

# result KEY "what is measured" RATIO more|less LEAST AIM "note" ["SPREAD"]: RATIO should be at least (more) or at most (less) LEAST,
# and aims at AIM; - for no such bound. The note has what the ratio is made of: seconds, sizes, versions. SPREAD: the least and the
# most ratio of a round (see spread).
result() {
    (($# == 7 || $# == 8)) || die "result needs a key, what, ratio, more or less, two bounds, a note and perhaps a spread: $*"
    local key=$1 what=$2 ratio=$3 sense=$4 least=$5 aim=$6 note=$7 spread=${8:-} bound
    is_number "$ratio" || die "$key: the ratio '$ratio' is not a number"
    [[ $sense == more || $sense == less ]] || die "$key: '$sense' is neither more nor less"
    for bound in "$least" "$aim"; do
        [[ $bound == - ]] || is_number "$bound" || die "$key: the bound '$bound' is not a number"
    done
    [[ -z $spread || -n $note ]] || die "$key: a spread without a note"
    ! cut -f 2 "$results" | grep -qxF -- "$key" || die "$key: two results have this key"
    # Bounds are for the sizes of the row.
    [[ -z $own_sizes ]] || least=- aim=- note="${own_sizes}without bounds; $note"
    record result "$key" "$what" "$ratio" "$sense" "$least" "$aim" "$note" "$spread"
    printf '%s: %s = %s%s (%s %s, aim %s: %s); %s\n' "$key" "$what" "$ratio" "${spread:+ ($spread)}" \
        "$([[ $sense == more ]] && echo 'at least' || echo 'at most')" "$least" "$aim" \
        "$(verdict "$ratio" "$sense" "$least" "$aim")$(! within_noise "$spread" "$least" "$aim" || echo ', within the noise')" "$note"
}

# peer_result: a result beside peers. Where one is lacking the others may be easier to beat: then without bounds.
peer_result() {
    local least=$5 aim=$6 note=$7
    [[ -z $lacking ]] || least=- aim=- note="without $lacking, so without bounds; $note"
    result "${@:1:4}" "$least" "$aim" "$note" "${8:-}"
}

# skip KEY "what is measured" "why it was not measured": an earlier result stays, with its date and commit
skip() {
    (($# == 3)) || die "skip needs a key, what and why: $*"
    local earlier
    earlier=$(earlier_row "$1")
    if [[ -n $earlier ]]; then
        printf 'row\t%s\t%s\n' "$1" "$earlier" >>"$results"
    else
        record skip "$@"
    fi
    printf '%s: %s: not measured%s: %s\n' "$1" "$2" "${earlier:+ now, the earlier result stays}" "$3"
}
# earlier_row KEY: its line of the page as this row's last runs measured it, with their date and commit; nothing where they did not
earlier_row() {
    local kept=$RESULTS/${results##*/} row date commit
    [[ -e $kept ]] || return 0
    row=$(page_lines <"$kept" | grep -F "| \`$1\`: " | grep -vF '| not measured |') || return 0
    IFS=$'\t' read -r _ date commit _ < <(grep -m 1 $'^run\t' "$kept")
    [[ $row == *'| measured '[0-9]* ]] || row=$(sed -E "s#^(.*) \\| ([^|]*) \\|\$#\1 | measured $date ($commit): \2 |#" <<<"$row")
    printf '%s\n' "$row"
}

# library "name version, name version": what else the figures of this row depend on
library() { record library "$1"; }

processor() { sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1; }
# Which vector instructions there are says more about a virtual machine than its CPU's name.
processor_features() {
    local flag found=()
    for flag in avx2 avx512f avx512_bf16 avx512_fp16 amx_bf16; do
        ! grep -m 1 '^flags' /proc/cpuinfo | grep -qw "$flag" || found+=("$flag")
    done
    echo "${found[*]:-no AVX2}"
}
compiler() {
    local text
    text=$(readelf -p .comment "$BIN/indexer" 2>/dev/null | sed -n 's/^ *\[ *0\] *//p' | head -n 1)
    echo "${text:-$(gcc --version 2>/dev/null | head -n 1 || echo unknown)}"
}
version_of() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo unknown; }
graphics() {
    command -v nvidia-smi >/dev/null || return 0
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null | head -n 1 | sed 's/^/; GPU: /'
}
machine_line() {
    printf '%s (%s), %d cores, %s GiB of memory; %s, Linux %s; compiler: %s; OpenBLAS %s, FAISS %s, LMDB %s%s' \
        "$(processor)" "$(processor_features)" "$cores" "$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo)" \
        "$(. /etc/os-release 2>/dev/null && echo "$PRETTY_NAME" || echo 'unknown system')" "$(uname -r)" "$(compiler)" \
        "$(version_of libopenblas-openmp-dev 2>/dev/null)" "$(sed -n 's/^faiss_version=//p' setup/setup.sh 2>/dev/null)" \
        "$(version_of liblmdb-dev)" "$(graphics)"
}
commit() {
    local id
    id=$(git rev-parse --short HEAD 2>/dev/null) || { echo unknown; return; }
    [[ -z $(git status --porcelain --untracked-files=no -- . ":!$PAGE" 2>/dev/null) ]] || id+=' and changes'
    echo "$id"
}

# The results of a row are collected apart and take the place of the last ones when the row has ended; when it failed, what
# it did not come to stays.
begin_results() {
    results=$session/$1.tsv
    started=$EPOCHREALTIME
    : >"$results"
    record run "$(date -u +%Y-%m-%d)" "$(commit)" "$(machine_line)"
}
end_results() {
    (($2 == 0)) || keep_earlier "$RESULTS/$1.tsv"
    record end "$2" "$(calc "$EPOCHREALTIME - $started" %.0f)"
    cp "$results" "$RESULTS/$1.tsv.new"
    mv "$RESULTS/$1.tsv.new" "$RESULTS/$1.tsv"
}
# keep_earlier RESULTS: takes over the figures that this run has not, and the libraries
keep_earlier() {
    local key text
    [[ -e $1 ]] || return 0
    while IFS=$'\t' read -r _ key _; do
        text=$(earlier_row "$key")
        [[ -z $text ]] || cut -f 2 "$results" | grep -qxF -- "$key" || printf 'row\t%s\t%s\n' "$key" "$text" >>"$results"
    done < <(grep -E $'^(result|row)\t' "$1")
    while IFS=$'\t' read -r _ text; do
        grep -qxF "library"$'\t'"$text" "$results" || library "$text"
    done < <(grep $'^library\t' "$1")
}

# ---------------------------------------------------------------- numbers

# field NAME <JSON: the number of that name.
field() { sed -nE 's/.*"'"$1"'": *(-?[0-9][-+0-9.eE]*).*/\1/p'; }
text_field() { sed -nE 's/.*"'"$1"'": *"([^"]*)".*/\1/p'; }
calc() { awk "BEGIN { printf \"${2:-%.2f}\", ($1) }"; }
# The median of the numbers on stdin.
median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
# "LEAST MOST" of the numbers on stdin, one of each round; nothing where there is only one
spread() { grep . | sort -g | awk 'NR == 1 { least = $1 } { most = $1 } END { if (NR > 1) printf "%.3f %.3f", least, most }'; }
# spread_of OVER UNDER: of the ratios of two files of seconds, round by round
spread_of() { paste -d ' ' <(grep . "$1") <(grep . "$2") | awk 'NF == 2 { print $1 / $2 }' | spread; }
ms() { calc "1e3 * $1" '%.1f ms'; }
us() { calc "1e6 * $1" '%.1f µs'; }
# 1000000: 1,000,000
grouped() { sed -E ':a; s/^([0-9]+)([0-9]{3})/\1,\2/; ta' <<<"$1"; }
# seconds COMMAND...: the wall time of a whole process, whose output goes to $work/said
seconds() {
    local start=$EPOCHREALTIME
    "$@" >"$work/said" 2>"$work/complaints" || { cat "$work/complaints" >&2; die "failed: $*"; }
    calc "$EPOCHREALTIME - $start" %.4f
}

# step_value NAME <JSON of a step: a number of it; change: what the step took off the loss
step_value() {
    local line
    line=$(cat)
    [[ $1 == change ]] || { field "$1" <<<"$line"; return; }
    calc "$(field loss <<<"$line") - $(field loss_after <<<"$line")" %.9g
}
# difference OURS THEIRS NAME=BOUND...: numbers of two steps that differ by more than BOUND of ours; nothing where they are the same step. The
# change is to be among them: where it is small, the loss of a peer that takes no step agrees as well.
difference() {
    local name bound a b each
    for each in "${@:3}"; do
        name=${each%=*} bound=${each#*=}
        a=$(step_value "$name" <"$1") b=$(step_value "$name" <"$2")
        if ! is_number "$a" || ! is_number "$b" || [[ $(calc "($a - $b)^2 <= ($bound * $a)^2" %d) == 0 ]]; then
            printf '%s is %s here and %s there; ' "$name" "$a" "$b"
        fi
    done
}

# need PROGRAM...: of ours
need() {
    local program
    for program in "$@"; do
        [[ -x $BIN/$program ]] || die "$BIN/$program is missing: run make"
    done
}

# ---------------------------------------------------------------- databases of vectors

# vectors COUNT: sets data to a folder in the cache with COUNT clustered vectors of 128 numbers, made once: vectors.npy,
# queries.npy (others of the same distribution), and db to a database of them (items 1 ... COUNT). The database is made
# again when the code that writes it has changed.
vectors() {
    local count=$1 maker code
    maker=$(cat programs/benchsearch_make.c 2>/dev/null | cksum | tr -cd 0-9)
    code=$(cat indexer/store*.[ch] indexer/exchange.c retriever/[sv]*.[ch] 2>/dev/null | cksum)
    data=$cache/bench-vectors-$count
    db=$data/items.db
    if [[ $(cat "$data/made" 2>/dev/null) != "$maker" ]]; then
        say "making $count vectors in $data, once"
        rm -rf "$data"
        mkdir -p "$data/few"
        "$BIN/benchsearch" make --output "$data" --count "$count" --threads "$cores"
        "$BIN/benchsearch" make --output "$data/few" --count $((count < 1000 ? count : 1000)) --queries 0
        echo "$maker" >"$data/made"
    fi
    if [[ $(cat "$data/imported" 2>/dev/null) != "$code" ]]; then
        say "importing them into a database"
        rm -rf "$db" "$data/imported"
        # An index stays of its kind when items come: not to wait for the usual one of large databases.
        import_vectors "$data/few"
        reindex fp16
        import_vectors "$data"
        echo "$code" >"$data/imported"
    fi
}
# many_vectors COUNT: the same, a million at a time, with an index of 16 bits and without vectors.npy: for what would not fit
# on the disk twice.
many_vectors() {
    local count=$1 first piece code
    code=$(cat programs/benchsearch_make.c indexer/store*.[ch] indexer/exchange.c retriever/[sv]*.[ch] 2>/dev/null | cksum)
    data=$cache/bench-many-$count
    db=$data/items.db
    if [[ $(cat "$data/made" 2>/dev/null) != "$code" ]]; then
        say "making a database of $count vectors in $data, once"
        rm -rf "$data"
        mkdir -p "$data"
        for ((first = 0; first < count; first += 1000000)); do
            piece=$((count - first < 1000000 ? count - first : 1000000))
            "$BIN/benchsearch" make --output "$data" --first "$first" --count "$piece" --queries 0 --threads "$cores"
            if ((first == 0)); then
                mkdir "$data/few"
                "$BIN/benchsearch" make --output "$data/few" --count 1000 --queries 0
                import_vectors "$data/few"
                reindex fp16
            fi
            import_vectors "$data"
        done
        rm -rf "$data/vectors.npy" "$data/paths.txt" "$data/few"
        "$BIN/indexer" reindex --db "$db" --index fp16 --quiet >&2
        echo "$code" >"$data/made"
    fi
}
import_vectors() { "$BIN/indexer" import --vectors "$1/vectors.npy" --paths "$1/paths.txt" --db "$db" --quiet >&2; }
# reindex KIND: gives db an index of that kind, if it has another.
reindex() {
    local is
    is=$("$BIN/indexer" info --db "$db" --format json)
    [[ $(text_field index <<<"$is") == "$1" && $(text_field index_state <<<"$is") == current ]] ||
        "$BIN/indexer" reindex --db "$db" --index "$1" --quiet >&2
}

# ---------------------------------------------------------------- peers

# OpenBLAS picks kernels by a list of CPU models and falls back to very old ones for a CPU that is newer than itself. It
# and what is built on it are measured with the kernels that are fastest here.
choose_openblas() {
    local core rate best=0 best_core=
    [[ -z ${OPENBLAS_CORETYPE:-} ]] || return 0
    unset OPENBLAS_CORETYPE # set but empty is not the same to it
    if [[ ! -e $session/openblas ]]; then
        for core in own Haswell SkylakeX; do
            rate=$([[ $core == own ]] || export OPENBLAS_CORETYPE=$core
                "$BIN/benchstep" --quiet --width 2 --latent 2 --batch 2 --steps 3 --threads "$THREADS" 2>/dev/null |
                    field sgemm_gflops) || continue
            say "sgemm with OpenBLAS's $core kernels: ${rate:-none} GFLOP/s"
            [[ -n $rate && $(calc "$rate > 1.05 * $best" %d) == 1 ]] && best=$rate best_core=$core
        done
        echo "$best_core" >"$session/openblas"
    fi
    best_core=$(<"$session/openblas")
    [[ -z $best_core || $best_core == own ]] || export OPENBLAS_CORETYPE=$best_core
}

# A virtual environment with the wheels that are current then, made once: it appears whole or not at all. Whoever removes it gets newer ones.
wheel_python() {
    local home=$wheel_home
    if [[ ! -e $home/complete ]]; then
        say "installing the current torch, faiss-cpu and Pillow into $home (several GB, once)"
        rm -rf "$home"
        mkdir -p "$cache"
        setup/setup.sh --packages python3-venv >&2 && python3 -m venv "$home" >&2 &&
            "$home/bin/pip" install --quiet torch faiss-cpu pillow numpy >&2 && touch "$home/complete" ||
            { say "that failed; going on without it"; rm -rf "$home"; return; }
    fi
    # hnswlib comes as source only: its compiling must not cost the others. Tried once.
    if [[ ! -e $home/hnswlib-tried ]]; then
        touch "$home/hnswlib-tried"
        say "compiling hnswlib into $home (once)"
        setup/setup.sh --packages g++ python3-dev >&2 && "$home/bin/pip" install --quiet hnswlib >&2 ||
            say "that failed; going on without hnswlib (remove $home/hnswlib-tried to try again)"
    fi
    echo "$home/bin/python"
}

# The Pythons to compare with, one a line, found or made once in a run.
peer_candidates() {
    if [[ -n ${PEER_PYTHONS:-} ]]; then
        tr ':' '\n' <<<"$PEER_PYTHONS"
        return
    fi
    if [[ ! -e $session/candidates ]]; then
        setup/setup.sh --packages python3-torch >&2 || say "no Debian python3-torch; going on without it"
        { echo "$debian_python"; wheel_python; } >"$session/candidates.new"
        mv "$session/candidates.new" "$session/candidates"
    fi
    cat "$session/candidates"
}

has_modules() {
    local python=$1
    shift
    "$python" -W ignore -c "import $(IFS=,; echo "$*")" 2>/dev/null
}

# Sets peers to the interpreters that have torch and run here.
find_peers() {
    local candidates candidate
    [[ -z ${peers+set} ]] || return 0
    if [[ ! -e $session/peers ]]; then
        mapfile -t candidates < <(peer_candidates)
        for candidate in "${candidates[@]}"; do
            if has_modules "$candidate" torch; then
                echo "$candidate"
            else
                say "$candidate cannot import torch here; going on without it"
            fi
        done >"$session/peers.new"
        mv "$session/peers.new" "$session/peers"
    fi
    mapfile -t peers <"$session/peers"
    ((${#peers[@]})) || die "no PyTorch to compare with"
    for candidate in "${peers[@]}"; do library_python "$candidate" torch; done
    lack "Debian's PyTorch" "$debian_python" "${peers[@]}"
    lack "the PyTorch of the package index" "$wheel_home/bin/python" "${peers[@]}"
}

# lack WHAT PYTHON AVAILABLE...: notes that WHAT is lacking, unless PYTHON is among the others
lack() {
    local available
    for available in "${@:3}"; do
        [[ $available != "$2" ]] || return 0
    done
    lacking+="${lacking:+ and }$1"
}

# find_python MODULE...: sets python to the interpreter with these modules, the last of the candidates that has them.
# try_python: the same, 1 when there is none.
try_python() {
    local candidates candidate
    python=
    mapfile -t candidates < <(peer_candidates)
    for candidate in "${candidates[@]}"; do
        ! has_modules "$candidate" "$@" || python=$candidate
    done
    [[ -n $python ]] || return 1
    library_python "$python" "$@"
    lack "$* of the package index" "$wheel_home/bin/python" "$python"
}
find_python() { try_python "$@" || die "no Python with $* to compare with"; }

# Records the versions of an interpreter's modules.
library_python() {
    local python=$1 text
    shift
    text=$("$python" -W ignore - "$@" <<'PYTHON'
import importlib.metadata as m, platform, sys
names = {"PIL": ["pillow"], "faiss": ["faiss-cpu", "faiss"]}
found = ["Python " + platform.python_version()]
for module in sys.argv[1:]:
    for name in names.get(module, [module]):
        try:
            found.append(name + " " + m.version(name))
            break
        except m.PackageNotFoundError:
            pass
print(", ".join(found))
PYTHON
    ) || return 0
    [[ $python != "$wheel_home/bin/python" ]] || text+=", installed $(date -u -r "$wheel_home/complete" +%Y-%m-%d)"
    grep -qxF "library"$'\t'"$text" "$results" || library "$text"
}
