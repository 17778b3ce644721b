#!/bin/bash
# evaluate precision as a table: it says what the JSON says, which test_precision.c and test_few.c compare with the definition; what is left out.
name=evaluate-precision
. "$(dirname "$0")/check.bash"

must "$bin/drawfaces" --output "$work/drawn" --count 120 --quiet
must "$bin/indexer" train --images "$work/drawn" --method pca --model "$work/pca.safetensors" --latent 6 --quiet
must "$bin/indexer" encode --images "$work/drawn" --model "$work/pca.safetensors" --db "$work/p.db" --quiet
# A name of more bytes than letters; an attribute that none has.
list=$work/drawn/list_attr_celeba.txt
awk 'NR == 2 { for (i = 1; i <= NF; i++) if ($i == "Bald") bald = i + 1; sub(/Blurry/, "Grünäugig") } NR > 2 { $bald = -1 } { print }' "$list" >"$work/list"
mv "$work/list" "$list"
precision() { call evaluate precision --images "$work/drawn" --db "$work/p.db" "$@"; }

# The table's rows, and only these, are the JSON's figures in per cent; those of attributes have one width.
cat >"$work/agree.py" <<'PY'
import json, sys
x, table = json.load(open(sys.argv[1])), open(sys.argv[2], encoding="utf-8").read()
few, draws = x["few"], x["few"]["draws"]
percent = lambda v: "-" if v is None else "%.1f" % (100 * v)
with_error = lambda mean, error: percent(mean) if mean is None or draws == 1 else percent(mean) + " ±" + percent(error)
want = []
for label, part in (("single attributes (SAR)", x["single"]), ("double attributes (DAR)", x["double"])):
    want.append([label, part["sets"], percent(part["chance"])] + [percent(p) for p in part["precision"]])
for r in x["single"]["rows"]:
    want.append(r["attributes"] + [r["examples"], r["relevant"], percent(r["chance"])] + [percent(p) for p in r["precision"]])
for i, n in enumerate(few["n"]):
    want.append([n] + [c for p in (few["single"], few["double"]) for c in (p["sets"][i], with_error(p["precision"][i], p["standard_error"][i]))])
for r in few["single"]["rows"]:
    errors = [None if d is None else d / draws ** 0.5 for d in r["standard_deviation"]]
    want.append(r["attributes"] + [r["examples"], r["relevant"]] + [with_error(m, e) for m, e in zip(r["precision"], errors)])
got = [l for l in table.splitlines() if any(c.isdigit() for c in l) and not l.startswith(("database", "examples from", "averaged", "attribute", "P@10 with"))]
if [l.split() for l in got] != [" ".join(map(str, row)).split() for row in want]:
    sys.exit("the table is not what the JSON says:\n" + table)
many = len(few["single"]["rows"])
for block in (got[2:2 + len(x["single"]["rows"])], got[-many:]):
    if len({len(l) for l in block}) != 1: sys.exit("columns are not below one another:\n" + "\n".join(block))
PY

for scorer in sum contrast; do
    asked=(--scorer $scorer --per-attribute --examples 1,5,200)
    for draws in 1 3; do
        precision "${asked[@]}" --draws $draws --format json --quiet
        expect "$scorer, JSON" 0
        cp "$work/out" "$work/json"
        precision "${asked[@]}" --draws $draws --quiet
        expect "$scorer, table" 0
        same "$said" '' '--quiet'
        has "$out" "scorer $scorer" 'the scorer'
        has "$out" $'\nGrünäugig  ' 'a row of an attribute'
        same "$(grep -c ^Grünäugig <<<"$out")" 2 'both tables of attributes'
        if command -v python3 >/dev/null; then python3 "$work/agree.py" "$work/json" "$work/out" || failed=1; fi
    done
    precision "${asked[@]}"
    has "$said" 'no test image has it: ' "$scorer: left out"
    has "$said" 'Bald' "$scorer: left out"
    has "$said" 'left out with n = 200' "$scorer: too few"
done

# ---- a name that is shown as more letters than it has
sed '2s/Gr[^ ]*ugig/\x01\x02\x03\x04\x05\x06\x07\x08/' "$list" >"$work/odd"
precision --attributes "$work/odd" --per-attribute --quiet
cp "$work/out" "$work/odd-precision"
call evaluate compare --images "$work/drawn" --models "$work/p.db" --attributes "$work/odd" --per-attribute --examples none --quiet
for table in "$work/odd-precision" "$work/out"; do
    same "$(grep -c '^\\x01\\x02' "$table")" 1 'an odd name'
    same "$(sed -n '/^attribute /,$p' "$table" | awk '{ print length($0) }' | sort -u | wc -l)" 1 'columns below one another beside an odd name'
done

# ---- on a terminal the few examples, which take longest, are told; and their seconds
if command -v script >/dev/null; then
    TERM=xterm script -qec "$(printf '%q ' "$bin/evaluate" precision --images "$work/drawn" --db "$work/p.db" --examples 1,5)" /dev/null >"$work/shown"
    has "$(<"$work/shown")" 'asking with few examples 0/' 'on a terminal'
fi
precision --examples 1,5 --timing --quiet
same "$(grep -cE ' [0-9.]+ s for the (table|few examples)$' "$work/said")" 2 '--timing'
exit $failed
