#!/bin/bash
# evaluate compare and the scorers of evaluate precision: several models in one table, seeds in one row, what is encoded
# when, the formats, the chart, and bad input of every kind.
name=compare
. "$(dirname "$0")/check.bash"
compare() { call evaluate compare --images "$work/drawn" --bootstrap 50 --draws 3 --threads 2 "$@"; }
# valid WHAT: the last output is JSON, where there is something to tell
valid() {
    command -v python3 >/dev/null || return
    python3 -m json.tool <"$work/out" >/dev/null || { echo "$1: no JSON"; failed=1; }
}
# value PATH: of the JSON in the last output, by a Python expression on `x`
value() { python3 -c 'import json, sys; x = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$work/out" "$1"; }

# ---- usage
call evaluate --help
has "$out" 'compare ' 'help'
call evaluate compare --help
expect help 0
has "$out" 'usage: evaluate compare' 'help'
m=a.safetensors,b.safetensors
usage() {
    local what=$1
    shift
    call evaluate compare "$@"
    expect "$what" 2
    has "$said" "$what" "$*"
}
usage 'give --images' --models $m
usage 'give --models' --images x
usage 'as 0,1,2; not' --images x --models 'a-{seed}' --seeds 0,x
usage '1 is given twice' --images x --models 'a-{seed}' --seeds 1,1
usage 'asks for --seeds' --images x --models 'a-{seed}'
usage 'has {seed} in it' --images x --models $m --seeds 0,1
usage "no scorer 'cosine'" --images x --models $m --scorer cosine
usage 'sum is given twice' --images x --models $m --scorer sum,sum
usage 'neither NAME nor LABEL=NAME' --images x --models a,,b
usage 'neither NAME nor LABEL=NAME' --images x --models =a
usage "two entries are called 'A'" --images x --models A=a,A=b
usage 'a is given twice' --images x --models a,b,a
usage 'whole numbers with commas' --images x --models $m --examples 1,two
call evaluate precision --db x --images x --scorer nonsense
expect 'a scorer that is none' 2

# ---- a data set and models
must "$bin/drawfaces" --output "$work/drawn" --count 150 --train 0.6 --valid 0.1 --quiet
train=("$bin/indexer" train --images "$work/drawn" --quiet --latent 6)
must "${train[@]}" --model "$work/pca.safetensors" --method pca
must "${train[@]}" --model "$work/v-0.safetensors" --method vae --width 2 --epochs 1 --batch 10 --seed 0
must "${train[@]}" --model "$work/v-1.safetensors" --method vae --width 2 --epochs 1 --batch 10 --seed 1
must "${train[@]}" --model "$work/i.safetensors" --method isometric --alpha 50 --width 2 --epochs 1 --batch 10 --latent 5
must "$bin/indexer" encode --images "$work/drawn" --model "$work/pca.safetensors" --db "$work/p.db" --quiet
must "$bin/indexer" export --db "$work/p.db" --vectors "$work/v.npy" --paths "$work/v.txt"
must "$bin/indexer" import --db "$work/net.db" --vectors "$work/v.npy" --paths "$work/v.txt"
all=$work/pca.safetensors,$work/v-{seed}.safetensors,$work/i.safetensors,Net=$work/net.db

compare --models "$all" --seeds 0,1 --scorer sum,contrast --per-attribute --chart "$work/c.png"
expect 'the whole table' 0
for label in 'PCA' 'VAE' 'IRVAE (alpha 50)' 'Net'; do has "$out" "$label " 'labels'; done
has "$said" 'pca.db: added 150' 'what was encoded'
has "$out" 'mean ± standard deviation' 'seeds'
has "$out" 'P@10 with n random examples' 'few examples'
has "$out" '#8' 'the row of an attribute'
same "$(head -c 4 "$work/c.png" | tail -c 3)" PNG 'the chart'
cp "$work/pca.db/data.mdb" "$work/before"
compare --models "$all" --seeds 0,1 --scorer sum,contrast --per-attribute --format markdown
expect 'markdown' 0
cmp "$work/pca.db/data.mdb" "$work/before" || { echo 'the second run wrote'; failed=1; }
[[ $said != *added* ]] || { echo 'the second run encoded'; failed=1; }
has "$out" '| VAE | sum | 2 |' 'markdown'
# every row of a table has as many cells as its head
awk -F'|' '/^\|/ { if (!n) n = NF; if (NF != n) exit 1 } !/^\|/ { n = 0 }' "$work/out" || { echo 'a row of the Markdown tables is broken'; failed=1; }
compare --models "$all" --seeds 0,1 --scorer sum,contrast --format json
expect 'json' 0
valid 'json'
if command -v python3 >/dev/null; then
    same "$(value '[(r["label"], r["scorer"], r["seeds"]) for r in x["rows"]][2:5]')" "[('VAE', 'sum', 2), ('VAE', 'contrast', 2), ('IRVAE (alpha 50)', 'sum', 1)]" 'rows'
    same "$(value '[m["seed"] for m in x["rows"][2]["models"]]')" '[0, 1]' 'seeds'
    same "$(value '[m["dim"] for r in x["rows"] for m in r["models"]][0:7:3]')" '[6, 6, 5]' 'latent sizes'
    # imported, the same vectors give the same figures
    same "$(value 'x["rows"][0]["single"] == x["rows"][6]["single"] and x["rows"][1]["double"]["few"] == x["rows"][7]["double"]["few"]')" True 'imported vectors'
    # mean and standard deviation of two: |a - b| / sqrt 2
    same "$(value 'max(abs(s["standard_deviation"][k] - abs(s["runs"][0]["precision"][k] - s["runs"][1]["precision"][k]) / 2 ** .5) for r in x["rows"][2:4] for s in (r["single"], r["double"]) for k in range(4)) < 1e-12')" True 'deviation'
    # chance is over the sets that have so many examples, in JSON and below the table
    same "$(value 'all(abs(f["chance"][k] - sum(c) / len(c)) < 1e-12 for s in (x["rows"][0]["single"], x["rows"][0]["double"]) for f in (s["few"],) for k in range(5) for c in ([r["chance"] for r in s["rows"] if r["few"][k] is not None],) if c)')" True 'chance'
    want=$(value '["%.1f" % (100 * v) if v is not None else "-" for s in ("single", "double") for v in x["rows"][0][s]["few"]["chance"]]')
    cp "$work/out" "$work/kept"
    compare --models "$all" --seeds 0,1 --scorer sum,contrast
    same "$(tail -n +2 "$work/out" | sed -n '/P@10 with n random/,$ s/^ *chance *//p' | tr -s ' \n' ' ')" "$(tr -d "[]'," <<<"$want") " 'chance with few examples'
    cp "$work/kept" "$work/out"
    same "$(value 'all(s["low"][k] <= s["high"][k] for r in x["rows"] for s in (r["single"], r["double"]) for k in range(4))')" True 'intervals'
    for scorer in sum contrast; do
        [[ $scorer == sum ]] && row=0 || row=1
        want=$(value "[v is not None and round(v, 9) for v in x['rows'][$row]['single']['precision'] + x['rows'][$row]['double']['few']['precision']]")
        cp "$work/out" "$work/kept"
        call evaluate precision --images "$work/drawn" --db "$work/pca.db" --scorer $scorer --examples 1,5,10,50,200 --draws 3 --format json
        expect "precision $scorer" 0
        same "$(value '[v is not None and round(v, 9) for v in x["single"]["precision"] + x["few"]["double"]["precision"]] + [x["scorer"]]')" "${want%]}, '$scorer']" "precision $scorer"
        cp "$work/kept" "$work/out"
    done
fi
# a file that was encoded later than the rest has the last id, and the same part in all figures
f=$(sed -n 's/ 0$//p' "$work/drawn/list_eval_partition.txt" | head -n 1)
cp -r "$work/pca.db" "$work/later.db"
must "$bin/indexer" remove --db "$work/later.db" --path "$f"
must "$bin/indexer" encode --images "$work/drawn" --db "$work/later.db" --quiet
for d in pca later; do
    call evaluate precision --images "$work/drawn" --db "$work/$d.db" --examples 1,5,10 --draws 3 --per-attribute --quiet
    expect "$d.db" 0
    grep -v ^database "$work/out" >"$work/figures-$d"
done
cmp "$work/figures-pca" "$work/figures-later" || { echo 'figures depend on ids'; failed=1; }
call evaluate precision --images "$work/drawn" --db "$work/pca.db" --scorer contrast
has "$out" 'scorer contrast' 'the table names the scorer'

# ---- options
compare --models "$work/pca.safetensors" --examples none --bootstrap 0 --quiet
expect 'without examples and interval' 0
[[ -z $said && $out != *random* && $out != *'95 %'* ]] || { echo "unasked: $said $out"; failed=1; }
must "$bin/indexer" whiten --images "$work/drawn" --model "$work/v-0.safetensors" --output "$work/w.safetensors" --quiet
compare --models "$work/v-0.safetensors,$work/v-1.safetensors,$work/p.db,$work/w.safetensors" --work "$work/elsewhere" --examples none
expect '--work' 0
has "$out" 'VAE, v-0 ' 'two that call themselves alike'
has "$out" 'PCA ' 'the name of a database'
has "$out" 'VAE (whitened) ' 'a whitened model'
[[ -e $work/elsewhere/v-0.db/data.mdb ]] || { echo '--work: no database there'; failed=1; }
compare --models "$work/pca.safetensors" --split 1 --query-split 1
expect 'examples among the ranked' 2

# ---- databases of different images
{ head -n 1 "$work/v.txt"; tail -n 120 "$work/v.txt"; } >"$work/few.txt"
python=$(command -v python3)
if [[ $python ]]; then
    # the first and the last 120 rows of the array
    python3 - "$work/v.npy" "$work/few.npy" <<'END'
import struct, sys
b = open(sys.argv[1], 'rb').read()
n = struct.unpack('<H', b[8:10])[0]
head, rows, size = b[10:10 + n], b[10 + n:], 6 * 4
head = head.replace(b'(150, 6)', b'(121, 6)')
open(sys.argv[2], 'wb').write(b[:10] + head + rows[:size] + rows[-120 * size:])
END
    must "$bin/indexer" import --db "$work/less.db" --vectors "$work/few.npy" --paths "$work/few.txt"
    compare --models "$work/net.db,$work/less.db" --format json
    expect 'databases of different images' 0
    has "$said" 'do not hold the same images' 'databases of different images'
    valid 'different images'
    same "$(value 'x["rows"][0]["single"] == x["rows"][1]["single"]')" True 'over the same images the same vectors give the same figures'
fi

# ---- vectors too long for contrast: their sum is there all the same
if [[ $python ]]; then
    python3 - "$work/long.npy" <<'END'
import array, random, sys
random.seed(1)
head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (150, 4100), }".ljust(117) + b'\n'
with open(sys.argv[1], 'wb') as f:
    f.write(b'\x93NUMPY\x01\x00' + len(head).to_bytes(2, 'little') + head)
    array.array('f', (random.random() - 0.5 for _ in range(150 * 4100))).tofile(f)
END
    must "$bin/indexer" import --db "$work/long.db" --vectors "$work/long.npy" --paths "$work/v.txt"
    compare --models "$work/long.db,$work/net.db" --scorer sum,contrast --format json --examples none
    expect 'vectors too long for contrast' 1
    has "$said" 'long.db, contrast is left out: ' 'vectors too long for contrast'
    same "$(value '[(r["label"], r["scorer"]) for r in x["rows"]]')" "[('long', 'sum'), ('net', 'sum'), ('net', 'contrast')]" 'rows'
fi

# ---- what cannot be used is left out, the rest is compared
head -c 5000 "$work/i.safetensors" >"$work/cut.safetensors"
compare --models "$work/cut.safetensors,$work/nothing.safetensors,$work,$work/pca.safetensors" --format json
expect 'bad models' 1
valid 'bad models'
for bad in "$work/cut.safetensors" "$work/nothing.safetensors" "$work"; do has "$said" "$bad is left out: " 'a bad model'; done
has "$out" '"label":"PCA"' 'the good model'
has "$out" '"failed":[{' 'the list of bad models'
compare --models "$work/cut.safetensors"
expect 'only a bad model' 1
same "$out" '' 'only a bad model'
mkdir -p "$work/begun/pca.db" # by a run that was killed
: >"$work/begun/pca.db/data.mdb"
compare --models "$work/pca.safetensors" --work "$work/begun" --examples none
expect 'a database that was only begun' 0
rm -r "$work/begun"
cp "$work/v-1.safetensors" "$work/i.safetensors"
compare --models "$work/i.safetensors,$work/pca.safetensors"
expect 'a database of another model' 1
has "$said" 'belongs to another model' 'a database of another model'
has "$said" 'remove that folder' 'what to do'
has "$out" 'PCA ' 'the rest'
mkdir "$work/other"
cp "$work/v-1.safetensors" "$work/other/pca.safetensors"
compare --models "$work/pca.safetensors,$work/other/pca.safetensors" --work "$work/dbs" --examples none
expect 'two models of one name' 0
same "$(ls -d "$work"/dbs/pca*.db | wc -l)" 2 'a database each'
rm -r "$work/other" "$work/dbs"
cp -r "$work/drawn" "$work/other"
call evaluate compare --images "$work/other" --models "$work/pca.safetensors"
expect 'another folder of images' 1
has "$said" 'holds the images of' 'another folder of images'
rm -r "$work/other"
compare --models "$work/pca.safetensors" --chart "$work/no/c.png"
expect 'a chart nowhere' 1
has "$said" 'no/c.png' 'a chart nowhere'
same "$out" '' 'a chart nowhere is found before the work'
usage 'must end in .png' --images "$work/drawn" --models "$work/pca.safetensors" --chart "$work/c.jpg"
# a full disk, by a limit of 4 KiB a file: an error, and nothing half-written
(ulimit -f 4 && exec "$bin/evaluate" compare --images "$work/drawn" --models "$work/p.db" --examples none --quiet --chart "$work/big.png") >/dev/null 2>"$work/limited"
same "$?" 1 'a file size limit'
has "$(<"$work/limited")" 'cannot write' 'a file size limit'
same "$(find "$work" -maxdepth 1 -name '.isoface*' -o -name big.png)" '' 'nothing half-written'

# ---- files that do not fit
attributes=$work/drawn/list_attr_celeba.txt partition=$work/drawn/list_eval_partition.txt
compare --models "$work/pca.safetensors" --quiet
want=$out
# Windows line ends, and 0 for -1
sed 's/ -1/  0/g; s/$/\r/' "$attributes" >"$work/attr"
sed 's/$/\r/' "$partition" >"$work/part"
compare --models "$work/pca.safetensors" --quiet --attributes "$work/attr" --partition "$work/part"
same "$out" "$want" 'Windows line ends and zeros'
# rows that are missing, and rows of images that are not there
{ echo 148; sed -n 2p "$attributes"; sed -n '5,$p' "$attributes" | sed 's/^000150/999999/'; } >"$work/attr"
compare --models "$work/pca.safetensors" --attributes "$work/attr"
expect 'missing and extra rows' 0
has "$said" "3 of the database's 150 images are not in the attribute file" 'missing rows'
has "$said" "1 of the attribute file's 148 rows has no image" 'extra rows'
{ head -n 9 "$attributes"; sed -n 10p "$attributes" | sed 's/ [^ ]*$//'; sed -n '11,$p' "$attributes"; } >"$work/attr"
compare --models "$work/pca.safetensors" --attributes "$work/attr"
expect 'another number of columns' 1
has "$said" 'line 10: has 40 columns, expected 41' 'another number of columns'
same "$out" '' 'another number of columns'
# an attribute that nobody has: the first one
{ head -n 2 "$attributes"; sed -n '3,$p' "$attributes" | sed 's/^\([^ ]*\) *-\{0,1\}1/\1 -1/'; } >"$work/attr"
compare --models "$work/pca.safetensors,$work/net.db" --attributes "$work/attr"
expect 'an attribute that nobody has' 0
has "$said" 'image has it: 5_o_Clock_Shadow' 'an attribute that nobody has'
# fewer images than the largest K, and just as many
for ranked in 7 20; do
    awk -v most=$ranked '$2 == 2 && ++n > most { $2 = 1 } 1' "$partition" >"$work/part"
    note="only $ranked test images are ranked"
    compare --models "$work/pca.safetensors,$work/net.db" --scorer sum,contrast --partition "$work/part"
    expect 'few ranked images' 0
    same "$(grep -c "$note" "$work/said")" $((ranked < 20)) 'few ranked images, compared'
    call evaluate precision --db "$work/net.db" --images "$work/drawn" --partition "$work/part"
    expect 'few ranked images' 0
    same "$(grep -c "$note" "$work/said")" $((ranked < 20)) 'few ranked images'
    call evaluate precision --db "$work/net.db" --images "$work/drawn" --partition "$work/part" --quiet
    same "$said" '' 'few ranked images, quietly'
done
{ head -n 2 "$attributes"; sed -n '3,$p' "$attributes" | sed 's/ 1/ -1/g'; } >"$work/attr"
compare --models "$work/pca.safetensors,$work/net.db" --attributes "$work/attr"
expect 'nobody has anything' 1
has "$said" 'no attribute has both' 'nobody has anything'
same "$out" '' 'nobody has anything'
sed 's/2$/1/' "$partition" >"$work/part"
compare --models "$work/pca.safetensors" --partition "$work/part"
expect 'no test images' 1
has "$said" 'lists no test image' 'no test images'
has "$said" 'another --split' 'no test images'
same "$(wc -l <"$work/said")" 1 'no test images: one line'
compare --models "$work/pca.safetensors" --attributes "$work/nowhere"
expect 'no attribute file' 1
exit $failed
