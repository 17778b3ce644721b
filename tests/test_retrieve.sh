#!/bin/bash
# The retrieve program: what it prints, its exit codes, bad input, odd paths, a database that changes or is damaged.
name=retrieve
. "$(dirname "$0")/check.bash"
retrieve() { call retrieve "$@"; }

# ---- sixty faces under odd names, a small model, a database
must "$bin/drawfaces" --output "$work/drawn" --count 60 --quiet
mkdir "$work/faces" "$work/faces/sub folder"
cp "$work"/drawn/img_align_celeba/*.jpg "$work/faces/"
cd "$work/faces" || exit 1
mv 000001.jpg $'new\nline.jpg'
mv 000002.jpg $'tab\there.jpg'
mv 000003.jpg $'latin\xe9.jpg'
mv 000004.jpg 'back\slash "quoted".jpg'
mv 000005.jpg 'sub folder/caf'$'\xc3\xa9.jpg'
cd "$OLDPWD" || exit 1
must "$bin/indexer" train --images "$work/faces" --model "$work/model" --method vae --width 4 --latent 8 --epochs 1 --batch 16 --quiet
must "$bin/indexer" encode --images "$work/faces" --model "$work/model" --db "$work/f.db" --quiet
db=$work/f.db

# ---- an example that is there, one that must be encoded: other bytes, the same picture
retrieve --query "$work/faces/000010.jpg" -k 5 --db "$db"
expect 'a stored example' 0
same "$said" '' 'a stored example: nothing to warn of'
has "$out" '1 example: the best 5 of 60 images' 'heading'
has "$(sed -n 3p "$work/out")" "1   1.0000  $work/faces/000010.jpg" 'first answer'
mkdir "$work/q"
cp "$work/faces/000010.jpg" "$work/q/other.jpg"
printf 'tail' >>"$work/q/other.jpg"
retrieve --query "$work/q" -k 3 --db "$db" --format tsv --relative
expect 'an encoded example' 0
same "$(head -n 1 "$work/out" | cut -f 1,4)" $'1\t000010.jpg' 'an encoded example finds its twin'
has "$(cut -f 3 "$work/out" | head -n 1)" '1' 'its score'
retrieve --query "$work/faces/000010.jpg" -k 60 --db "$db" --format paths --exclude-query --relative
expect 'exclude' 0
same "$(wc -l <"$work/said") $(grep -c 000010.jpg "$work/out")" '1 0' 'without the example itself'
export ISOFACE_DB=$db
retrieve --query-id 1 2 --not "$work/faces/000020.jpg" --not-id 5 --gamma 0.25 -k 4 --format json
expect 'ids and negatives' 0
has "$out" '"query": {"images": 2, "negatives": 2, "skipped": []}' 'counts'
has "$out" '"schema_version": 1' 'json'
has "$out" '"exact": true' 'json'
unset ISOFACE_DB
retrieve --query "$work/drawn" -k 1 --db "$db" --format json
has "$out" '"images": 60, "negatives": 0, "skipped": []' "a data set in CelebA's layout as the query"

# ---- what the examples share against the database
retrieve --query-id 1 2 3 --not-id 7 -k 60 --db "$db" --scorer contrast
expect 'contrast' 0
has "$out" '3 examples, 1 counter-example: the best 60 of 60 images by contrast, in standard deviations of the database' 'contrast heading'
retrieve --query-id 1 2 3 --not-id 7 -k 60 --db "$db" --scorer contrast --format json
has "$out" '"scorer": "contrast"' 'json'
retrieve --query-id 1 2 3 --not-id 7 -k 60 --db "$db" --scorer contrast --format tsv
same "$(awk '{ if (NR > 1 && $3 > last) bad++; last = $3; sum += $3; square += $3 * $3 } END { printf "%d %d %.3f %.3f", NR, bad, sum / NR, square / NR }' FS='\t' "$work/out" | sed 's/-0.000/0.000/')" '60 0 0.000 1.000' 'its scores'
retrieve --query "$work/faces" -k 5 --db "$db" --scorer contrast
expect 'the whole database as examples' 1
has "$said" 'as the whole database' 'the whole database as examples'
retrieve --query "$work/faces" -k 5 --db "$db" --scorer sum
expect 'the whole database as examples, summed' 0
# Left to itself: sum below 20 examples and where contrast finds no direction.
retrieve --query "$work/faces" -k 5 --db "$db" --format json
has "$out" '"scorer": "sum"' 'auto with the whole database as examples'
retrieve --query-id {1..19} -k 5 --db "$db" --format json
has "$out" '"scorer": "sum"' 'auto with 19 examples'
retrieve --query-id {1..20} -k 5 --db "$db" --format json
has "$out" '"scorer": "contrast"' 'auto with 20 examples'
retrieve --query-id {1..20} -k 5 --db "$db" --scorer sum --format json
has "$out" '"scorer": "sum"' 'sum with 20 examples'

# ---- every path survives every format
retrieve --query-id 1 -k 60 --db "$db" -0 --relative
expect '-0' 0
same "$(tr -cd '\0' <"$work/out" | wc -c)" 60 'NULs'
same "$(sort -z "$work/out" | sha1sum)" "$(cd "$work/faces" && find . -type f -printf '%P\0' | sort -z | sha1sum)" 'paths'
retrieve --query-id 1 -k 60 --db "$db" -0
same "$(xargs -0 cat <"$work/out" | wc -c)" "$(cd "$work/faces" && find . -type f -print0 | xargs -0 cat | wc -c)" 'paths that open'
retrieve --query-id 1 -k 60 --db "$db" --format tsv --relative
same "$(wc -l <"$work/out")" 60 'lines of tsv'
for name in 'new\nline.jpg' 'tab\there.jpg' 'back\\slash "quoted".jpg' $'latin\xe9.jpg'; do
    LC_ALL=C grep -qaF $'\t'"$name" "$work/out" || { printf 'tsv: no %q\n' "$name"; failed=1; }
done
retrieve --query-id 1 -k 60 --db "$db" --format json --relative
has "$out" '"new\nline.jpg"' 'json'
has "$out" '"back\\slash \"quoted\".jpg"' 'json'
has "$out" "\"path_bytes\": \"$(printf 'latin\xe9.jpg' | base64)\"" 'json'
retrieve --query-id 1 -k 60 --db "$db" --relative
same "$(wc -l <"$work/out")" 62 'lines of the table'

# ---- k, usage
retrieve --query-id 1 -k 100 --db "$db" --format paths
expect 'a large k' 0
has "$said" 'only 60 images' 'a large k says so'
retrieve --query-id 1 -k 100 --db "$db" --quiet
same "$said" '' '--quiet'
for words in '-k 0' '-k -1' '-k x' '-k 1.5' '--gamma nan' '--scorer mean' '--format xml' '--sheet out.pdf' '-0 --format json' '--nonsense' '--query-id x' 'stray'; do
    # shellcheck disable=SC2086
    retrieve --query "$work/q" --db "$db" $words
    expect "usage: $words" 2
    same "$out" '' "usage: $words"
done
retrieve -k 3 --db "$db"
expect 'no example' 2
retrieve --query "$work/q"
expect 'no database' 2
retrieve --help
expect 'help' 0
has "$out" '--exclude-query' 'help'

# ---- bad input
mkdir "$work/linked"
cp "$work/faces/000011.jpg" "$work/linked/good.jpg"
ln -s nowhere "$work/linked/gone.jpg"
retrieve --query "$work/linked" -k 2 --db "$db"
expect 'a folder with a broken link' 0
has "$said" "skipped $work/linked/gone.jpg: " 'a folder with a broken link'
retrieve --query "$work/linked" -k 2 --db "$db" --strict
expect 'a folder with a broken link, --strict' 1
mkdir "$work/bad"
: >"$work/bad/empty.jpg"
head -c 700 "$work/faces/000010.jpg" >"$work/bad/short.jpg"
echo 'no picture' >"$work/bad/text.png"
cp "$work/faces/000011.jpg" "$work/bad/good.jpg"
retrieve --query "$work/bad" "$work/nowhere.jpg" -k 2 --db "$db" --format json
expect 'some bad examples' 0
has "$out" '"images": 1,' 'some bad examples'
for name in bad/empty.jpg bad/short.jpg bad/text.png nowhere.jpg; do
    has "$said" "skipped $work/$name: " 'listed'
    has "$out" "{\"path\": \"$work/$name\", \"reason\": " 'listed'
done
retrieve --query "$work/bad" -k 2 --db "$db" --strict
expect '--strict' 1
same "$out" '' '--strict'
rm "$work/bad/good.jpg"
mkdir "$work/none"
for query in "$work/bad" "$work/none" "$work/nowhere.jpg" /dev/null; do
    retrieve --query "$query" -k 2 --db "$db"
    expect "nothing usable: $query" 1
    has "$said" 'no usable example' "nothing usable: $query"
done
retrieve --query-id 12345 --db "$db"
expect 'an unknown id' 1
has "$said" 'no item 12345' 'an unknown id'
retrieve --query "$work/q" --db "$work/nowhere.db"
expect 'no such database' 1
has "$said" 'indexer encode' 'what to do about it'
retrieve --query "$work/q" --db "$work/q"
expect 'a folder that is no database' 1
retrieve --query-id 1 --not-id 1 --gamma 1 --db "$db"
expect 'examples that cancel out' 1
"$bin/retrieve" --query-id 1 --db "$db" >/dev/full 2>"$work/said" && { echo 'a full disk went unnoticed'; failed=1; }
has "$(<"$work/said")" 'No space left' 'a full disk'

# ---- where files may not be opened, which is said
for n in {4..16}; do # make's own may be among them, and the loader has its own words
    (ulimit -n $n && exec "$bin/retrieve" --query-id 1 --db "$db") >"$work/out" 2>"$work/said"
    rc=$? said=$(<"$work/said")
    ((rc)) && [[ $said != *'shared libraries'* ]] && has "$said" 'Too many open files' "$n open files"
done

# ---- sheets
retrieve --query "$work/q" --not "$work/faces/000012.jpg" -k 7 --db "$db" --sheet "$work/sheet.png"
expect 'png' 0
same "$(head -c 4 "$work/sheet.png" | tail -c 3)" PNG 'png'
retrieve --query "$work/q" -k 7 --db "$db" --scorer contrast --sheet "$work/sheet.html"
has "$(<"$work/sheet.html")" 'standard deviations' 'what the scores of the sheet are'
rm "$work/faces/000010.jpg" # gone since
retrieve --query "$work/q" -k 60 --db "$db" --sheet "$work/sheet.html"
expect 'html' 0
same "$(grep -c '<figure><img alt' "$work/sheet.html") $(grep -c 'no picture' "$work/sheet.html")" '60 1' 'pictures in html'
has "$(<"$work/sheet.html")" '&quot;quoted&quot;' 'html escapes'
cp "$work/drawn/img_align_celeba/000010.jpg" "$work/faces/"
stopped "$db" 'an interrupted sheet' retrieve --query "$work/q" --db "$db" --sheet "$work/stopped.png"
[[ ! -e $work/stopped.png ]] || { echo 'a sheet in spite of an interruption'; failed=1; }
for files in 6 7 8 9 10 11 12; do # whatever is missing is named, and is not memory
    (ulimit -n $files && exec "$bin/retrieve" --query "$work/q" -k 7 --db "$db" --sheet "$work/few.png") >"$work/out" 2>"$work/said" && continue
    has "$(<"$work/said")" 'open' "$files open files"
    same "$(grep -c memory "$work/said")" 0 "$files open files"
done
retrieve --query "$work/q" --db "$db" --sheet "$work/nowhere/sheet.png"
expect 'nowhere to write the sheet' 1

# ---- the index: missing, damaged, behind; the model: another, none
best=$("$bin/retrieve" --query-id 7 -k 60 --db "$db" --format tsv)
index=$db/index.faiss
for damage in 'rm -f "$index"' 'head -c 1000 "$index" >"$work/x"; mv "$work/x" "$index"' ': >"$index"' 'printf x | dd of="$index" bs=1 seek=1000 conv=notrunc 2>/dev/null'; do
    eval "$damage"
    retrieve --query-id 7 -k 60 --db "$db" --format tsv
    expect "$damage" 0
    has "$said" 'built anew' "$damage"
    same "$out" "$best" "$damage"
    retrieve --query-id 7 -k 60 --db "$db" --format tsv
    same "$said" '' "mended: $damage"
done
for kind in sq8 fp16 ivf hnsw flat; do
    must "$bin/indexer" reindex --db "$db" --index "$kind" --quiet
    retrieve --query-id 7 -k 60 --db "$db" --format tsv
    same "$out" "$best" "kind $kind"
done
cp "$index" "$work/old.faiss"
cp "$work/q/other.jpg" "$work/faces/new.jpg"
rm "$work/faces/000030.jpg"
must "$bin/indexer" encode --images "$work/faces" --model "$work/model" --db "$db" --prune --quiet
cp "$work/old.faiss" "$index"
retrieve --query "$work/q" -k 60 --db "$db" --format tsv --relative
expect 'an index that is behind' 0
same "$(wc -l <"$work/out") $(head -n 2 "$work/out" | grep -c new.jpg) $(grep -c 000030 "$work/out")" '60 1 0' 'what was added is found, what was removed is not'
must "$bin/indexer" export --db "$db" --vectors "$work/v.npy" --paths "$work/p.txt"
must "$bin/indexer" import --vectors "$work/v.npy" --paths "$work/p.txt" --db "$work/imported.db"
retrieve --query-id 3 -k 3 --db "$work/imported.db"
expect 'imported vectors, by id' 0
retrieve --query "$work/q" -k 3 --db "$work/imported.db"
expect 'imported vectors, by image' 1
has "$said" 'imported vectors' 'imported vectors, by image'
must "$bin/indexer" train --images "$work/drawn" --model "$work/another" --method vae --width 4 --latent 8 --epochs 1 --seed 9 --quiet
# ---- while another program gives half of the items other vectors again and again: every answer has all of them
must "$bin/indexer" encode --images "$work/faces" --model "$work/another" --db "$work/another.db" --quiet
must "$bin/indexer" export --db "$work/another.db" --vectors "$work/v2.npy" --paths "$work/p2.txt"
sed 's,^,kept/,' "$work/p.txt" >"$work/kept.txt"
must "$bin/indexer" import --vectors "$work/v.npy" --paths "$work/kept.txt" --db "$work/changing.db"
(until test -e "$work/enough"; do
    for v in 2 ''; do
        "$bin/indexer" import --vectors "$work/v$v.npy" --paths "$work/p$v.txt" --db "$work/changing.db" --quiet
        sleep 0.02
    done
done) &
for i in {1..1500}; do # until it has begun
    "$bin/indexer" info --db "$work/changing.db" --format tsv | grep -q $'^items\t120$' && break
    sleep 0.02
done
short=0
for i in {1..40}; do
    retrieve --query-id 3 -k 200 --db "$work/changing.db" --format tsv --relative
    test "$rc $(wc -l <"$work/out")" = '0 120' || short=$((short + 1))
done
touch "$work/enough"
wait
same "$short" 0 'answers of no state that the database ever was in'
cp "$work/another" "$db/model.safetensors"
cp "$work/q/other.jpg" "$work/q/third.jpg"
printf 'more' >>"$work/q/third.jpg"
retrieve --query "$work/q/third.jpg" -k 3 --db "$db"
expect "another model's vectors" 1
has "$said" 'not the model' "another model's vectors"
head -c 100 "$work/another" >"$db/model.safetensors"
retrieve --query "$work/q/third.jpg" -k 3 --db "$db"
expect 'a damaged model' 1
has "$said" 'indexer encode' 'a damaged model'
retrieve --query "$work/q/other.jpg" -k 3 --db "$db"
expect 'a damaged model that is not needed' 0
rm "$db/model.safetensors"
retrieve --query "$work/q/third.jpg" -k 3 --db "$db"
expect 'a lost model' 1
has "$said" 'has lost its copy' 'a lost model'
exit $failed
