# Writes the page of benchmarks from what bench/run.sh has kept. Read by bench/run.sh.

# About a row nothing of which is known: its first line says what it is.
about() { sed -n '1s/^# *//; 1s/\.$//; 1p' "$BENCHES/$1.bench"; }

# table NAME...: of these rows
page_table() {
    local name
    printf '| what | measured | at least (≥) or at most (≤) | aim | met? | note |\n|---|---|---|---|---|---|\n'
    for name; do
        if grep -qsE $'^(result|skip|row)\t' "$RESULTS/$name.tsv"; then
            page_lines <"$RESULTS/$name.tsv"
        fi
        page_end "$name"
    done
}
# page_lines <RESULTS: a line for each figure
page_lines() {
    local kind key what a b c d e f
    # An empty field would let `read` shift those after it, so none is: record never writes one for these.
    while IFS=$'\t' read -r kind key what a b c d e f; do
        case $kind in
            result)
                printf '| `%s`: %s | **%s**%s | %s | %s | %s | %s |\n' "$key" "$what" "$(rounded "$a")" "$(between "$f")" "$(bound "$b" "$c")" \
                    "$(bound "$b" "$d")" "$(met "$(verdict "$a" "$b" "$c" "$d")")$(! within_noise "$f" "$c" "$d" || echo ', within the noise')" "$e"
                ;;
            skip) printf '| `%s`: %s | not measured | – | – | – | %s |\n' "$key" "$what" "$a" ;;
            row) printf '%s\n' "$what" ;;
        esac
    done
}
# page_end NAME: how its run ended, where that is to be told
page_end() {
    local code shown=''
    ! grep -qsE $'^(result|skip|row)\t' "$RESULTS/$1.tsv" || shown='; what it had measured stands above'
    code=$(sed -n $'s/^end\t\([0-9]*\).*/\\1/p' "$RESULTS/$1.tsv" 2>/dev/null) || true
    if ((${code:-0})); then
        printf '| `%s` | failed | – | – | – | the run ended with exit code %s%s |\n' "$1" "$code" "$shown"
    elif [[ -z $shown ]]; then
        printf '| `%s`: %s | not measured | – | – | – | |\n' "$1" "$(about "$1")"
    fi
}
between() { [[ -z $1 ]] || echo " ($(rounded "${1% *}") – $(rounded "${1#* }"))"; }
bound() { [[ $2 == - ]] && echo – || echo "$([[ $1 == more ]] && echo ≥ || echo ≤) $2"; }
met() {
    case $1 in
        aim) echo 'aim' ;;
        yes) echo 'yes' ;;
        no) echo '**no**' ;;
        *) echo '–' ;;
    esac
}
rounded() { awk -v x="$1" 'BEGIN { a = x < 0 ? -x : x; printf((a >= 100 ? "%.0f" : (a >= 10 ? "%.1f" : (a >= 0.1 || a == 0 ? "%.2f" : "%.3g"))), x) }'; }

# Which row ran when, of which commit, on which of the machines.
page_runs() {
    local name kind date commit machine seconds number machines=() libraries=() i
    printf '| row | date | commit | machine | seconds |\n|---|---|---|---|---|\n'
    for name; do
        [[ -e $RESULTS/$name.tsv ]] || continue
        IFS=$'\t' read -r kind date commit machine < <(grep -m 1 $'^run\t' "$RESULTS/$name.tsv") || continue
        IFS=$'\t' read -r kind _ seconds < <(grep $'^end\t' "$RESULTS/$name.tsv") || seconds=–
        number=0
        for i in "${!machines[@]}"; do [[ ${machines[i]} != "$machine" ]] || number=$((i + 1)); done
        ((number)) || { machines+=("$machine"); number=${#machines[@]}; }
        printf '| `%s` | %s | %s | %d | %s |\n' "$name" "$date" "$commit" "$number" "$seconds"
    done
    printf '\nMachines:\n\n'
    for i in "${!machines[@]}"; do printf '%d. %s\n' $((i + 1)) "${machines[i]}"; done
    # With the rows that used them: "Python 3.11.7, numpy 2.4.6 (`table1`, `search`)".
    mapfile -t libraries < <(for name; do
            [[ ! -e $RESULTS/$name.tsv ]] || sed -n "s/^library\t\(.*\)/\1\t\`$name\`/p" "$RESULTS/$name.tsv"
        done | awk -F '\t' '{ rows[$1] = rows[$1] (rows[$1] == "" ? "" : ", ") $2 } END { for (text in rows) printf "%s (%s)\n", text, rows[text] }' | sort)
    ((${#libraries[@]})) || return 0
    printf '\nCompared with:\n\n'
    printf -- '- %s\n' "${libraries[@]}"
}

# page_results NAME <PAGE: what a page says of a row, as results; nothing when it has no run of it
page_results() {
    awk -F ' [|] ' -v name="$1" -v OFS='\t' '
        index($0, "| `" name "`: ") == 1 || index($0, "| `" name ".") == 1 || index($0, "| `" name "` | failed |") == 1 {
            key = $0
            gsub(/^[|] `|`.*/, "", key)
            rows = rows "row" OFS key OFS $0 "\n"
        }
        $1 == "| `" name "`" && $2 ~ /^20[0-9-]+$/ { date = $2; commit = $3; number = $4; seconds = $5; sub(/ [|]$/, "", seconds) }
        /^[0-9]+[.] / && $1 + 0 == number { machine = $0; sub(/^[0-9]+[.] /, "", machine) }
        /^- .* [(]`.*[)]$/ && index($0, "`" name "`") { text = $0; gsub(/^- | [(]`[^(]*[)]$/, "", text); libraries = libraries "library" OFS text "\n" }
        END { if (machine != "") printf "%s%s%s%s", "run" OFS date OFS commit OFS machine "\n", rows, libraries, "end" OFS 0 OFS seconds "\n" }'
}
# A clone has no results but those of its page: they become the results of the rows that were not measured here.
results_of_page() {
    local name found
    [[ -e $PAGE ]] || return 0
    for name; do
        [[ ! -e $RESULTS/$name.tsv ]] || continue
        found=$(page_results "$name" <"$PAGE")
        [[ -z $found ]] || printf '%s\n' "$found" >"$RESULTS/$name.tsv"
    done
}

# Pages that were kept of other machines.
other_pages() {
    local page
    for page in "$(dirname "$PAGE")"/benchmarks-*.md; do
        [[ ! -e $page ]] || printf 'Kept of another machine: [%s](%s).\n\n' "$(sed -n '1s/^# *Benchmarks: *//p' "$page")" "${page##*/}"
    done
}

write_page() {
    local rows cpu=() gpu=() name
    mapfile -t rows < <(in_order)
    for name in "${rows[@]}"; do [[ $name == gpu* ]] && gpu+=("$name") || cpu+=("$name"); done
    {
        cat <<'TEXT'
# Benchmarks
Written by `make bench` (`bench/run.sh`), which measures all rows; `make bench BENCH="search approx"` measures these and writes the page
anew with what is known of the others. What lies behind a figure, and what each change of the code gave, is in [performance.md](performance.md).

Every figure is a **ratio within one run**. The machines that this runs on are shared and their speed drifts, so ours and theirs take turns and the
ratio is that of their medians; the absolute figures in the notes only show the size. "Times" is their time over ours: more is better. A
"share" or a "time over" compares with what the machine itself gave in that run, to code that does nothing else: a product of 2048 × 2048 matrices
(sgemm), reading memory, reading or writing a file. FLOPs are always those of direct convolution: where Winograd's do the same with fewer products (25 of 64
for the kernels that strides of two leave), a share of sgemm's rate can be above 1. Each row checks that both sides computed the same thing (the same
answers, the same recall, the same loss and step) and fails otherwise; NumPy's Table 1 is checked in double precision and timed in single, which swaps a few images
whose scores are nearly the same. Peers are Debian's and the package index's, the latter as of the day given with their versions below, with OpenBLAS's
fastest kernels for the CPU; beside fewer than a row wants there are no bounds. PyTorch has its bounds as it comes; rows called `.compiled` are beside what
torch.compile makes of the same step, where it can. Ours, theirs and the limits have the same threads: all cores, at most two unless `THREADS=` says otherwise.

In brackets: the least and the most that a single round gave. "met?" says `aim` where the aim is reached, `yes` where the bound is, **no** where it
is not, – where there is no bound; and `within the noise` where the bound or the aim lies between what single rounds gave.

TEXT
        other_pages
        printf '## CPU\n'
        page_table "${cpu[@]}"
        if ((${#gpu[@]})); then
            printf '\n## GPU\n'
            page_table "${gpu[@]}"
        fi
        printf '\n## Runs\n'
        page_runs "${rows[@]}"
    } >"$session/page"
    mkdir -p "$(dirname "$PAGE")"
    # Beside it first: a full disk must not cut it off.
    { cp "$session/page" "$PAGE.new" && mv "$PAGE.new" "$PAGE"; } || { rm -f "$PAGE.new"; die "cannot write $PAGE"; }
}
