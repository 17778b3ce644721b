# What the rows search and search16 share: an exact search of one query set beside reading the vectors once, beside FAISS and
# NumPy, and its resident set. Read by these rows.

# search_row KEY KIND COUNT "what is searched" PEER-OPTION...
search_row() {
    local key=$1 kind=$2 count=$3 what=$4 queries=5 round name line most bytes
    shift 4
    need benchsearch indexer
    find_python faiss numpy
    vectors "$count"
    reindex "$kind"
    local ours=("$BIN/benchsearch" search --db "$db" --sets "$queries" --examples 10 -k 10 --rounds "$ROUNDS" --read --threads "$THREADS")
    local options=(--vectors "$data/vectors.npy" --queries "$work/w.npy" -k 10 --threads "$THREADS" --rounds 1 "$@")
    local theirs=("$python" -W ignore bench/peer_search.py exact --answers "$work/answers.tsv" "${options[@]}")
    for ((round = 1; round <= ROUNDS * 2; round++)); do
        "${ours[@]}" --seed "$round" --answers "$work/answers.tsv" --save "$work/w.npy" >"$work/line"
        (($(field exact <"$work/line") == 1)) || die "the search says that its answers are not exact"
        for name in seconds read_seconds; do field "$name" <"$work/line" >>"$work/$name"; done
        calc "$(tail -n 1 "$work/seconds") / $(tail -n 1 "$work/read_seconds")" '%.4f\n' >>"$work/ratio"
        "${theirs[@]}" >"$work/line"
        OMP_NUM_THREADS=1 "$python" -W ignore bench/peer_search.py shards "${options[@]}" >>"$work/line"
        (($(field wrong <"$work/line") == 0)) ||
            die "$(field wrong <"$work/line") of $queries answers are not those of an exact search: ${theirs[*]}"
        for name in faiss shards numpy; do field "${name}_seconds" <"$work/line" >>"$work/$name"; done
        say "round $round: $(tail -n 1 "$work/seconds") s a search, $(tail -n 1 "$work/read_seconds") s to read, FAISS $(tail -n 1 "$work/faiss") s, in shards $(tail -n 1 "$work/shards") s"
    done
    # A process that answers one query and no more.
    "$BIN/benchsearch" search --db "$db" --sets 1 --examples 10 -k 10 --rounds 1 --threads "$THREADS" >"$work/line"
    most=$(field peak_rss <"$work/line") bytes=$(field vector_bytes <"$work/line")
    local s r
    s=$(median <"$work/seconds") r=$(median <"$work/read_seconds")
    result "$key.read" "$what: time over the time to read the vectors once" "$(median <"$work/ratio")" less 1.25 1.1 \
        "$(ms "$s") a search, $(ms "$r") to read $(calc "$bytes / 1e6" %.0f) MB ($(calc "$bytes / $r / 1e9" %.1f) GB/s, $THREADS threads); 10 examples, 10 answers, all exact" "$(spread <"$work/ratio")"
    result "$key.memory" "$what: largest resident set of the process over the bytes of the vectors" "$(calc "$most / $bytes" %.4f)" less 1.25 1.1 \
        "$(calc "$most / 1e6" %.0f) MB for $(calc "$bytes / 1e6" %.0f) MB of vectors, program and libraries included"
    for name in faiss shards numpy; do
        [[ -s $work/$name ]] || continue
        case $name in
            faiss) line="faiss-cpu's $kind index" ;;
            shards) line="faiss-cpu's $kind index in $THREADS shards" ;;
            numpy) line='NumPy' ;;
        esac
        peer_result "$key.$name" "$what: times $line" "$(calc "$(median <"$work/$name") / $s" %.3f)" more - - "$(ms "$(median <"$work/$name")") a query" "$(spread_of "$work/$name" "$work/seconds")"
    done
}
