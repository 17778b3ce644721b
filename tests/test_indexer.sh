#!/bin/bash
# The indexer program around a database: encode, info, verify, remove, compact, export, import: what they print, their exit
# codes, bad input, kills, a full and a read-only disk.
name=indexer
. "$(dirname "$0")/check.bash"
indexer() { call indexer "$@"; }
# expect WHAT CODE: of the last run; a failure says one line (wrong usage adds the usage)
expect() {
    local lines
    lines=$(grep -vc '^(\|^usage' "$work/said")
    ((rc == $2)) && { (($2 == 0)) || ((lines == 1)); } && return
    printf '%s: exit code %d, expected %d\n%s\n' "$1" "$rc" "$2" "$said"
    failed=1
}

# ---- usage
for command in 'indexer encode' retrieve; do
    call $command --help
    has "${out//$'\n'/ }" 'of up to 104 megapixels' "what $command reads"
done
for program in 'indexer encode' 'evaluate compare' 'benchsearch open'; do # a program of several commands, and one of them
    read -r name command <<<"$program"
    for words in --help -h help; do
        call "$name" $words
        expect "$name $words" 0
        has "$out" "$command " "$name $words"
    done
    call "$name" help "$command"
    expect "$name help $command" 0
    has "$out" "usage: $program" "$name help $command"
    call "$name" --version
    expect "$name --version" 0
    for words in '' frobnicate 'help frobnicate'; do
        call "$name" $words
        expect "$name $words" 2
    done
done
for c in train flatten whiten encode info verify remove reindex compact export import; do
    indexer "$c" --help
    expect "$c --help" 0
    has "$out" "usage: indexer $c" "$c --help"
    indexer "$c" --nonsense
    expect "$c --nonsense" 2
done
indexer info
expect 'no database named' 2
indexer info --db "$work/none.db"
expect 'no such database' 1
has "$said" 'indexer encode' 'what to do'

# ---- forty faces and a model
must "$bin/drawfaces" --output "$work/drawn" --count 40 --quiet
faces=$work/drawn/img_align_celeba
printf 'no picture' >"$faces/"$'odd\n\xe9.jpg'
must "$bin/indexer" train --images "$work/drawn" --model "$work/model" --method vae --width 2 --latent 6 --epochs 1 --batch 10 --quiet
cp "$work/drawn/list_attr_celeba.txt" "$work/other"

# ---- what can be known before images are decoded is told then
again=(--images "$work/drawn" --model "$work/model" --resume --method vae --width 2 --latent 6 --batch 10)
indexer train "${again[@]}" --epochs 1
expect 'train --resume' 0
has "$said" ' training images, ' 'what decoding says'
indexer train "${again[@]}" --epochs 2 --lr 1e-3
expect 'train --resume with another option' 2
has "$said" '--lr 0.0001, now it is 0.001' 'another option'
[[ $said != *'training images'* ]] || { echo '--resume: images were decoded in vain'; failed=1; }
if ! grep -qa __asan_init "$bin/indexer"; then
    for o in 'train --width 128 --model' "flatten --length 300000 --model $work/model --output"; do
        # shellcheck disable=SC2086 # its words are plain
        (ulimit -S -v 1500000 && OMP_NUM_THREADS=1 exec timeout 20 "$bin/indexer" $o "$work/none" --images "$work/drawn" --batch 30) >"$work/out" 2>"$work/said"
        rc=$? said=$(<"$work/said")
        expect "${o%% *}: a batch that does not fit" 1
        has "$said" 'out of memory: training with a batch of ' "${o%% *}: a batch that does not fit"
        [[ $said != *'training images'* ]] || { echo "${o%% *}: images were decoded in vain"; failed=1; }
    done
    # What is said to fit before images are decoded fits then, too: beside threads, and beside images whose contents decide who validates.
    limited() { # batch
        (ulimit -S -v $limit && OMP_NUM_THREADS=3 exec timeout 60 "$bin/indexer" train --images "$work/copies" --model "$work/none" --width 8 --latent 4 \
            --epochs 1 --batch "$1" --force) >"$work/out" 2>"$work/said"
        rc=$? said=$(<"$work/said")
    }
    mkdir "$work/copies"
    for i in {1..5}; do
        for f in "$faces"/*.jpg; do cat "$f" - >"$work/copies/$i-${f##*/}" <<<"$i"; done
    done
    batches=''
    for ((limit = 500000; limit < 800000; limit += 60000)); do
        limited 200
        batch=$(sed -n 's/.*the largest batch that fits is //p' <<<"$said")
        [[ $batch && $said != *'training images'* ]] || continue
        batches+=" $batch"
        limited "$batch"
        expect "a batch of $batch, which fits, with $limit" 0
    done
    [[ $batches ]] || { echo 'no limit let a smaller batch fit'; failed=1; }
    rm -f "$work/none" "$work"/none.*
fi

# ---- encoding forty faces
db=$work/f.db
indexer encode --images "$work/drawn" --model "$work/model" --db "$db"
expect encode 0
same "$out" 'added 40, changed 0, unchanged 0, skipped 1, removed 0' 'encode'
[[ $said != *index* ]] || { echo 'encode speaks of the index that it saved'; failed=1; }
has "$said" 'skipped odd\x0A\xE9.jpg: ' 'the file that is no picture'
has "$said" 'encoded 40 images' 'the rate'
cp "$db/data.mdb" "$work/before"
indexer encode --images "$work/drawn" --model "$work/model" --db "$db" --quiet
same "$out" 'added 0, changed 0, unchanged 40, skipped 1, removed 0' 'the second run'
cmp "$db/data.mdb" "$work/before" || { echo 'the second run wrote'; failed=1; }
indexer encode --images "$work/drawn" --db "$db" --strict # the database's own model
same "$rc" 1 '--strict'
has "$said" '1 file could not be used' '--strict'
rm "$faces/"odd*
ISOFACE_DB=$db indexer encode --images "$work/drawn" --strict
expect 'encode with ISOFACE_DB' 0
rm "$faces/000001.jpg"
indexer encode --images "$work/drawn" --db "$db" --prune
same "$out" 'added 0, changed 0, unchanged 39, skipped 0, removed 1' '--prune'

# ---- two at once do every image once
("$bin/indexer" encode --images "$work/drawn" --model "$work/model" --db "$work/two.db" --quiet >"$work/one" 2>&1) &
indexer encode --images "$work/drawn" --model "$work/model" --db "$work/two.db" --quiet
wait
expect 'beside another one' 0
added=$(sed -n 's/^added \([0-9]*\),.*/\1/p' "$work/one")
same "$((added + $(sed 's/^added \([0-9]*\),.*/\1/' <<<"$out")))" 39 'added by two'

# ---- what killed writers left goes after a day
touch "$db/.isoface-0123456789abcdef.tmp" "$db/.isoface-other.tmp"
touch -d '2 days ago' "$db/.isoface-0123456789abcdee.tmp" "$db/.isoface-compact.tmp" "$db/.isoface-import.tmp" "$db/.isoface-other.tmp"
must "$bin/indexer" encode --images "$work/drawn" --db "$db" --quiet
[[ -e $db/.isoface-0123456789abcdef.tmp && -e $db/.isoface-other.tmp && ! -e $db/.isoface-0123456789abcdee.tmp
    && ! -e $db/.isoface-compact.tmp && ! -e $db/.isoface-import.tmp ]] || { echo 'temporary files'; failed=1; }
rm "$db"/.isoface-*

# ---- a file that is itself a mount cannot be replaced: found before the first epoch
if unshare -rm true 2>>"$work/log"; then
    touch "$work/mounted"
    unshare -rm sh -c 'mount --bind "$1" "$2" && shift 2 && exec "$@"' sh "$work/other" "$work/mounted" \
        "$bin/indexer" train --images "$work/missing" --model "$work/mounted" --force >"$work/out" 2>"$work/said"
    rc=$? said=$(<"$work/said")
    expect 'a model that is mounted' 1
    has "$said" 'mount its folder' 'a model that is mounted'
    rm "$work/mounted"
fi

# ---- principal components
indexer train --images "$work/drawn" --model "$work/pca" --method pca --latent 6
expect 'train --method pca' 0
has "$said" '6 components explain ' 'the share of the variance'
[[ $said != *validation* ]] || { echo 'pca reads validation images'; failed=1; }
[[ ! -e $work/pca.state && ! -e $work/pca.csv ]] || { echo 'pca wrote more than its model'; failed=1; }
for o in '--arch celeba' '--width 128' '--alpha 10' '--eta 0.2' '--kl-weight 0' '--sigma optimal' '--sigma-lr 0.01' '--epochs 100' \
    '--batch 100' '--lr 1e-4' '--schedule constant' '--warmup 0' '--warmup 10' --mirror --resume; do
    # shellcheck disable=SC2086 # two words
    indexer train --images "$work/drawn" --model "$work/pca" --method pca --force $o
    expect "pca $o" 2
    has "$said" "${o%% *} means nothing" "pca $o"
done
indexer train --images "$work/drawn" --model "$work/pca" --method pca --latent 6
expect 'a model that is there' 2
indexer train --images "$work/drawn" --model "$work/pca" --method pca --force --quiet
expect 'more components than images' 2
has "$said" 'principal components: --latent 128 is too many' 'more components than images'
indexer flatten --images "$work/drawn" --model "$work/pca" --output "$work/pca-fm"
expect 'flatten of pca' 1
has "$said" 'cannot be flattened' 'flatten of pca'
indexer encode --images "$work/drawn" --model "$work/pca" --db "$work/pca.db" --quiet
same "$out" 'added 39, changed 0, unchanged 0, skipped 0, removed 0' 'encode with pca'
indexer info --db "$work/pca.db" --format tsv
has "$out" 'architecture	pca' 'info of pca'
must "$bin/retrieve" --db "$work/pca.db" --query "$faces/000002.jpg" -k 3

# ---- whitened vectors
indexer whiten --images "$work/drawn" --model "$work/model" --output "$work/white"
expect whiten 0
has "$said" 'vectors of 6 numbers' 'what whitening says'
[[ -z $out && ! -e $work/white.state && ! -e $work/white.csv ]] || { echo 'whiten wrote more than its model'; failed=1; }
cp "$work/white" "$work/white1"
# validation images are not even opened
cp -r "$work/drawn" "$work/some"
for f in $(sed -n 's/ 1$//p' "$work/some/list_eval_partition.txt"); do echo damaged >"$work/some/img_align_celeba/$f"; done
indexer whiten --images "$work/some" --model "$work/model" --output "$work/white" --force --strict
expect 'whiten by the training images alone' 0
cmp "$work/white" "$work/white1" || { echo 'whitened by other images'; failed=1; }
indexer train --images "$work/some" --model "$work/pca-some" --method pca --latent 6 --strict
expect 'pca of the training images alone' 0
cmp "$work/pca" "$work/pca-some" || { echo 'components of other images'; failed=1; }
sed -i 's/ 0$/ 2/' "$work/some/list_eval_partition.txt"
indexer whiten --images "$work/some" --model "$work/model" --output "$work/white" --force
expect 'whiten without training images' 2
has "$said" 'of its partition file: 0' 'whiten without training images'
rm -r "$work/some"
indexer whiten --images "$work/drawn" --model "$work/model" --output "$work/white"
expect 'a whitened model that is there' 2
has "$said" '--force' 'a whitened model that is there'
indexer whiten --images "$work/drawn" --model "$work/model" --output "$work/white" --shrinkage 0.02 --force --quiet
same "$said" '' 'whiten --quiet'
cmp "$work/white" "$work/white1" || { echo 'the same whitening is another'; failed=1; }
indexer whiten --images "$work/drawn" --model "$work/pca" --output "$work/white-pca" --shrinkage 0
expect 'whiten of pca' 0
cp "$work/model" "$work/model-was"
ln -s model "$work/model-link"
for o in model model-link; do
    indexer whiten --images "$work/drawn" --model "$work/model" --output "$work/$o" --force
    expect "whiten over its own model, $o" 2
    has "$said" 'another name' 'whiten over its own model'
done
cmp "$work/model" "$work/model-was" || { echo 'whiten changed its model'; failed=1; }
indexer whiten --images "$work/drawn" --model "$work/white" --output "$work/none"
expect 'whiten twice' 2
has "$said" 'whitened already' 'whiten twice'
for o in -0.1 1.5 nan much; do
    indexer whiten --images "$work/drawn" --model "$work/model" --output "$work/none" --shrinkage "$o"
    expect "whiten --shrinkage $o" 2
done
for o in images model output; do
    args=(--images "$work/drawn" --model "$work/model" --output "$work/none")
    for i in 0 2 4; do [[ ${args[i]} == "--$o" ]] && unset "args[i]" "args[i+1]"; done
    indexer whiten "${args[@]}"
    expect "whiten without --$o" 2
    has "$said" "--$o is missing" "whiten without --$o"
done
indexer flatten --images "$work/drawn" --model "$work/white" --output "$work/none"
expect 'flatten of a whitened model' 1
has "$said" 'cannot be flattened: whitened vectors have no decoder' 'flatten of a whitened model'
must "$bin/indexer" train --images "$work/drawn" --model "$work/thin" --method vae --width 2 --latent 1 --epochs 1 --batch 10 --quiet
# a flow in place of its model could not be gone on with
cp "$work/thin" "$work/thin-was"
for o in '' --force --resume; do
    indexer flatten --images "$work/drawn" --model "$work/thin" --output "$work/../${work##*/}/thin" $o
    expect "flatten over its own model $o" 2
    has "$said" 'another name' "flatten over its own model $o"
done
cmp "$work/thin" "$work/thin-was" && [[ ! -e $work/none ]] || { echo 'a refused flatten wrote'; failed=1; }
# what is wrong with a model is told before any image is looked at
must "$bin/indexer" flatten --images "$work/drawn" --model "$work/model" --output "$work/flow" --epochs 1 --batch 10 --length 8 --quiet
# without validation images there is nothing to tell of epoch 0
cp -r "$work/drawn" "$work/single"
sed -i 's/ .$/ 2/; s/^000002.jpg .$/000002.jpg 0/' "$work/single/list_eval_partition.txt" # of one image none is held out
for o in drawn single; do
    indexer flatten --images "$work/$o" --model "$work/model" --output "$work/flow-$o" --epochs 1 --batch 10 --length 8
    expect "flatten, $o" 0
    same "$(grep -c '^epoch 0:' <<<"$said"),$(grep -c '^epoch 1:  ' <<<"$said")" "$([[ $o == drawn ]] && echo 1 || echo 0),1" "epochs told, $o"
    same "$(wc -l <"$work/flow-$o.csv")" 3 'rows of the CSV file'
done
rm -r "$work/single"
indexer flatten --images "$work/missing" --model "$work/flow" --output "$work/none"
expect 'flatten twice' 2
has "$said" 'has a flow already' 'flatten twice'
indexer flatten --images "$work/missing" --model "$work/thin" --output "$work/none"
expect 'flatten of one coordinate' 2
has "$said" 'latent dimension must be 2 or more' 'flatten of one coordinate'
[[ ! -e $work/none ]] || { echo 'a refused command wrote'; failed=1; }
indexer encode --images "$work/drawn" --model "$work/white" --db "$work/white.db" --quiet
same "$out" 'added 39, changed 0, unchanged 0, skipped 0, removed 0' 'encode with a whitened model'
indexer encode --images "$work/drawn" --model "$work/model" --db "$work/white.db"
expect 'the model without its whitening' 1
indexer info --db "$work/white.db" --format tsv
has "$out" 'whitened	yes' 'info of a whitened model'
has "$out" 'shrinkage	0.02' 'info of a whitened model'
indexer info --db "$work/white.db" --format json
has "$out" '"shrinkage": 0.02,' 'a number in JSON'
has "$out" '"alpha": 0,' 'a number in JSON'
must "$bin/retrieve" --db "$work/white.db" --query "$faces/000002.jpg" -k 3

# ---- on a terminal all that takes long is told, at a pace that is counted from its beginning
shown() { TERM=xterm script -qec "stty cols 200; $(printf '%q ' "$bin/$@")" /dev/null | tr '\r' '\n' >"$work/shown"; }
if command -v script stty >/dev/null; then
    new=(--output "$work/shown-model" --model "$work/model" --force)
    shown indexer train --images "$work/drawn" --model "$work/shown-model" --method vae --width 2 --latent 6 --epochs 1 --batch 10 --force
    for what in 'epoch 1/1  loss ' 'validating 0/'; do has "$(<"$work/shown")" "$what" 'train on a terminal'; done
    pace=$(<"$work/shown")
    shown indexer flatten --images "$work/drawn" "${new[@]}" --epochs 1 --batch 10 --length 8
    for what in 'encoding 0/' 'validating 0/' 'epoch 1/1  loss '; do has "$(<"$work/shown")" "$what" 'flatten on a terminal'; done
    pace+=$(<"$work/shown")
    shown indexer whiten --images "$work/drawn" "${new[@]}"
    has "$(<"$work/shown")" 'encoding 0/' 'whiten on a terminal'
    shown indexer train --images "$work/drawn" --model "$work/shown-model" --method pca --latent 6 --force
    has "$(<"$work/shown")" 'looking at 0/' 'pca on a terminal'
    shown indexer encode --images "$work/drawn" --model "$work/model" --db "$work/shown.db" --batch 4
    has "$(<"$work/shown")" 'encoding 0/39 images' 'encode on a terminal'
    pace+=$(<"$work/shown")
    shown retrieve --db "$work/shown.db" --query "$work/drawn/img_align_celeba" -k 1
    has "$(<"$work/shown")" 'reading examples 0/' 'retrieve on a terminal'
    shown indexer verify --db "$work/shown.db"
    for what in 'checking 0/39 items' 'adding up 0/39 vectors' 'checking the index 0/39 vectors' '39 items, no fault'; do has "$(<"$work/shown")" "$what" 'verify on a terminal'; done
    shown indexer export --db "$work/shown.db" --vectors "$work/shown.npy" --paths "$work/shown.txt"
    has "$(<"$work/shown")" 'exporting 0/39 items' 'export on a terminal'
    shown indexer import --db "$work/shown-import.db" --vectors "$work/shown.npy" --paths "$work/shown.txt"
    has "$(<"$work/shown")" 'importing 0/39 vectors' 'import on a terminal'
    shown indexer remove --db "$work/shown.db" --missing --id 1
    for what in 'looking for files 0/39 files' 'removing 0/1 items'; do has "$(<"$work/shown")" "$what" 'remove on a terminal'; done
    shown indexer compact --db "$work/shown.db"
    has "$(<"$work/shown")" 'adding up 0/38 vectors' 'compact on a terminal'
    fast=$(grep -E 'epoch|encoding' <<<"$pace" | grep -oE '[0-9.e+]+/s' | awk '$1 + 0 > 2e5')
    same "$fast" '' 'no images are that fast'
fi

# ---- what does not belong together
must "$bin/indexer" train --images "$work/drawn" --model "$work/model2" --method vae --width 2 --latent 6 --epochs 1 --batch 10 --seed 1 --quiet
indexer encode --images "$work/drawn" --model "$work/model2" --db "$db"
expect 'another model' 1
has "$said" 'two models never mix' 'another model'
indexer encode --images "$work/drawn" --model "$work/other" --db "$db"
expect 'a model that is none' 1
mkdir "$work/empty"
indexer encode --images "$work/empty" --model "$work/model" --db "$work/e.db"
expect 'an empty folder' 2
[[ ! -e $work/e.db ]] || { echo 'an empty folder made a database'; failed=1; }
indexer encode --images "$work/missing" --model "$work/model" --db "$db"
expect 'a missing folder' 1
indexer encode --images "$faces" --model "$work/model" --db "$work/empty/../other"
expect 'a database that is a file' 2
mv "$work/drawn" "$work/moved"
indexer encode --images "$work/moved" --db "$db"
expect 'a folder that moved' 1
has "$said" --relocate 'what to do about it'
indexer encode --images "$work/moved" --db "$db" --relocate
same "$out" 'added 0, changed 0, unchanged 39, skipped 0, removed 0' '--relocate'

# ---- info, verify
indexer info --db "$db"
expect info 0
has "$out" 'items         39' 'info'
indexer info --db "$db" --format json
has "$out" '"items": 39, "dim": 6, ' 'info in JSON'
indexer verify --db "$db"
expect verify 0
has "$out" '39 items, no fault' 'verify'
cp "$work/model2" "$db/model.safetensors"
indexer verify --db "$db"
expect 'verify: another model' 1
for copy in another damaged lost; do
    [[ $copy == another ]] || head -c 100 "$work/model" >"$db/model.safetensors"
    [[ $copy == lost ]] && rm "$db/model.safetensors"
    indexer encode --images "$work/moved" --db "$db"
    expect "encode: the copy of the model is $copy" 1
    has "$said" 'with the model it was made with' "encode: the copy of the model is $copy"
    indexer info --db "$db"
    expect "info: the copy of the model is $copy" 0
    has "$said" 'with the model it was made with' "info: the copy of the model is $copy"
    [[ $out != *architecture* ]] || { echo "info tells of a model that is not the database's: $copy"; failed=1; }
    indexer encode --images "$work/moved" --model "$work/model" --db "$db"
    expect "encode mends a copy that is $copy" 0
    indexer verify --db "$db"
    expect "verify: a copy that was $copy" 0
done
indexer encode --images "$work/moved" --model "$work/model2" --db "$db"
expect 'encode: the wrong model' 1
cmp "$work/model" "$db/model.safetensors" || failed=1
indexer reindex --db "$db" --index sq8
expect reindex 0
indexer verify --db "$db"
expect 'verify with an index' 0

# ---- export, import
indexer export --db "$db" --vectors "$work/v.npy" --paths "$work/p.txt"
expect export 0
same "$(wc -l <"$work/p.txt")" 39 'exported paths'
same "$(stat -c %s "$work/v.npy")" $((128 + 39 * 6 * 4)) 'exported vectors'
indexer import --vectors "$work/v.npy" --paths "$work/p.txt" --db "$work/i.db" --images "$work/moved/img_align_celeba"
expect import 0
same "$out" 'added 39, changed 0, unchanged 0' 'import'
indexer verify --db "$work/i.db"
expect 'verify imported' 0
indexer export --db "$work/i.db" --vectors "$work/v2.npy" --paths "$work/p2.txt" -0
expect 'export again' 0
cmp "$work/v.npy" "$work/v2.npy" || failed=1
same "$(tr '\0' '\n' <"$work/p2.txt")" "$(<"$work/p.txt")" 'paths ended by NUL'
page=$(getconf PAGESIZE) none='\377\377\377\377\377\377\377\377'
first_page() { # as LMDB begins with it: trees without a root, last page 1, no transaction
    head -c 80 "$db/data.mdb"
    printf "$none"
    head -c 40 /dev/zero
    printf "$none\1"
    head -c $((page - 137)) /dev/zero
}
zeros() { head -c "$1" /dev/zero; }
# begun by runs that were killed, or found the disk full, or ended with the power, which leaves zeros where pages were not synced
for left in 'head -c 0 "$db/data.mdb"' 'head -c 100 "$db/data.mdb"' 'first_page' 'zeros 100' 'zeros $((2 * page))' 'zeros 131072' 'first_page; zeros $page'; do
    mkdir "$work/begun.db"
    eval "$left" >"$work/begun.db/data.mdb"
    indexer encode --images "$work/moved" --db "$work/begun.db"
    expect 'no model for a database that was only begun' 2
    has "$said" 'was never completed' 'no model for a database that was only begun'
    indexer encode --images "$work/moved" --model "$work/model" --db "$work/begun.db" --relocate
    expect "a database that was only begun: $left" 0
    rm -r "$work/begun.db"
done
# what may have held something is damaged
for left in 'zeros 131073' 'zeros 131071; printf x' 'first_page; zeros $((page - 1)); printf x' 'first_page; zeros $((page - 1))' 'first_page; zeros $((page + 1))' \
    'zeros $((2 * page)); echo >"$work/begun.db/index.faiss"'; do
    mkdir "$work/begun.db"
    eval "$left" >"$work/begun.db/data.mdb"
    cp "$work/begun.db/data.mdb" "$work/left"
    indexer encode --images "$work/moved" --model "$work/model" --db "$work/begun.db" --relocate
    expect "a damaged database: $left" 1
    cmp "$work/left" "$work/begun.db/data.mdb" || failed=1
    rm -r "$work/begun.db"
done
indexer import --vectors "$work/v.npy" --paths "$work/other" --db "$work/i2.db"
expect 'paths that are not as many' 1
[[ ! -e $work/i2.db ]] || { echo 'a refused import made a database'; failed=1; }
indexer import --vectors "$work/other" --paths "$work/p.txt" --db "$work/i2.db"
expect 'vectors that are none' 1
indexer import --vectors "$work/v.npy" --paths "$work/p.txt" --db "$db"
expect 'imported into a model'"'"'s database' 1
indexer encode --images "$work/moved" --model "$work/model" --db "$work/i.db"
expect 'encoded into an imported database' 1
indexer encode --images "$work/moved" --db "$work/i.db"
expect 'encoded into an imported database by its own model' 1
has "$said" 'holds imported vectors' 'encoded into an imported database by its own model'
indexer export --db "$db" --vectors "$work/one.out" --paths "$work/./one.out"
expect 'two names of one file' 2
indexer export --db "$db" --vectors "$work/../${work##*/}/${db##*/}/data.mdb" --paths "$work/x"
expect 'over the database' 2
has "$said" 'a file of the database itself' 'over the database'
[[ ! -e $work/one.out && ! -e $work/x ]] || { echo 'a refused export wrote'; failed=1; }
indexer import --db "$work/i.db" --vectors "$work/v.npy" --paths "$work/p.txt" --images "$work"
expect 'import for another folder' 1
[[ $said != *relocate* ]] || { echo 'import has no --relocate'; failed=1; }
indexer import --db "$db" --vectors "$work/v.npy" --paths "$work/p.txt"
expect 'import among encoded ones' 1
has "$said" 'imported ones never mix' 'import among encoded ones'
(ulimit -f 1 && exec "$bin/indexer" export --db "$db" --vectors "$work/large" --paths "$work/small") >/dev/null 2>"$work/limited"
same "$?" 1 'room for the paths alone'
[[ ! -e $work/large && ! -e $work/small ]] || { echo 'half an export'; failed=1; }
indexer export --db "$db" --vectors /dev/full --paths "$work/x"
expect 'export into a device' 1

# ---- remove, compact
indexer remove --db "$db"
expect 'remove: nothing named' 2
indexer remove --db "$db" --id 5 99
expect 'remove: one is not there' 1
indexer remove --db "$db" --id 18446744073709551615
expect 'remove: the largest id is not there' 1
for id in 18446744073709551616 1.5 x; do # one more than any can be
    indexer remove --db "$db" --id $id
    expect "remove --id $id" 2
    has "$said" "'$id' is not the id of an item" "remove --id $id"
done
indexer remove --db "$db" --id 5 6 --path 000009.jpg
expect remove 0
has "$out" 'removed 3' 'remove'
indexer encode --images "$work/moved" --db "$db" --quiet
same "$out" 'added 3, changed 0, unchanged 36, skipped 0, removed 0' 'encoded again'
mv "$work/moved/img_align_celeba/000010.jpg" "$work/"
indexer remove --db "$db" --missing --dry-run
has "$out" $'10\t000010.jpg' '--dry-run'
indexer remove --db "$db" --missing --quiet
same "$out" 'removed 1' '--missing'
mv "$work/moved" "$work/away"
indexer remove --db "$db" --missing
expect 'every file missing' 2
printf '%0300d.jpg\n' 1 >"$work/long.txt"
head -c 128 /dev/zero | tr '\0' 1 >"$work/one"
{ printf '\x93NUMPY\x01\0\x76\0%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 32), }"; cat "$work/one"; } >"$work/long.npy"
must "$bin/indexer" import --vectors "$work/long.npy" --paths "$work/long.txt" --db "$work/long.db" --quiet
indexer remove --db "$work/long.db" --missing
expect 'every file missing, of a name that no file system takes' 2
mv "$work/away" "$work/moved"
mv "$work/000010.jpg" "$work/moved/img_align_celeba/"
stopped "$db" 'an interrupted compaction' indexer compact --db "$db"
indexer compact --db "$db"
expect compact 0
indexer verify --db "$db"
expect 'verify after compact' 0

# ---- killed at any moment, the next run goes on
for delay in 0.02 0.05 0.1 0.15 0.25; do
    rm -rf "$work/k.db"
    "$bin/indexer" encode --images "$work/moved" --model "$work/model" --db "$work/k.db" --batch 4 >"$work/log" 2>&1 &
    sleep "$delay"
    kill -KILL $! 2>>"$work/log"
    wait $! 2>>"$work/log"
    indexer encode --images "$work/moved" --model "$work/model" --db "$work/k.db"
    expect "encode after a kill at $delay s" 0
    indexer verify --db "$work/k.db"
    has "$out" '39 items, no fault' "verify after a kill at $delay s"
done

# ---- a disk that is full, or may not be written
(
    ulimit -f 16 # KiB
    "$bin/indexer" encode --images "$work/moved" --model "$work/model" --db "$work/full.db"
) >"$work/out" 2>"$work/said"
rc=$?
said=$(<"$work/said")
expect 'a full disk' 1
indexer encode --images "$work/moved" --model "$work/model" --db "$work/full.db"
expect 'with room again' 0
indexer verify --db "$work/full.db"
has "$out" '39 items, no fault' 'verify after a full disk'
(ulimit -f 16 && exec "$bin/indexer" remove --db "$work/full.db" --id 1 2 3) >"$work/out" 2>"$work/said"
rc=$? said=$(<"$work/said")
expect 'remove from a full disk' 1
same "$(<"$work/out")" '' 'what was not removed is not printed'
indexer info --db "$db" >/dev/full
"$bin/indexer" info --db "$db" >/dev/full 2>"$work/said"
rc=$? said=$(<"$work/said")
expect 'standard output full' 1
if ((EUID)); then
    chmod -R a-w "$db"
    indexer verify --db "$db"
    expect 'verify what may only be read' 0
    indexer remove --db "$db" --id 7
    expect 'remove from what may only be read' 1
    chmod -R u+w "$db"
fi

# ---- an index that cannot be saved is no failure, and is not kept quiet
cp -r "$db" "$work/unsaved.db"
rm "$work/unsaved.db/index.faiss"
mkdir -p "$work/unsaved.db/index.faiss/in its place"
cp "$work/moved/img_align_celeba/000002.jpg" "$work/moved/img_align_celeba/again.jpg"
indexer encode --images "$work/moved" --db "$work/unsaved.db" --relocate --quiet
rm "$work/moved/img_align_celeba/again.jpg"
expect 'an index that cannot be saved' 0
same "$(wc -l <"$work/said")" 1 'an index that cannot be saved'
has "$said" 'indexer: ' 'an index that cannot be saved'
has "$said" 'cannot write' 'an index that cannot be saved'

# ---- without standard files no file of the database gets their numbers
for i in 1 2 3 4 5 6; do printf 'no picture' >"$work/moved/img_align_celeba/zz$i.jpg"; done
("$bin/indexer" encode --images "$work/moved" --model "$work/model" --db "$work/closed.db" --batch 4 <&- 2>&-) >"$work/out"
rc=$? said=
expect 'without standard input and error' 0
grep -qa skipped "$work/closed.db/data.mdb" "$work/closed.db/lock.mdb" && { echo 'a warning is in the database'; failed=1; }
indexer verify --db "$work/closed.db"
expect 'verify what was made without standard files' 0
rm "$work"/moved/img_align_celeba/zz?.jpg
("$bin/indexer" info --db "$db" >&-) 2>"$work/said"
rc=$? said=$(<"$work/said")
expect 'standard output closed' 1

# ---- too little address space for OpenBLAS, as it is loaded and as it begins to work
if ! grep -qa __asan_init "$bin/indexer"; then
    export OMP_NUM_THREADS=1
    for limit in 'v 150000' 'd 100000'; do
        # shellcheck disable=SC2086 # two words
        (ulimit -S -$limit && exec timeout 20 "$bin/indexer" --version) >"$work/out" 2>"$work/said"
        rc=$? said=$(<"$work/said")
        expect "--version with $limit" 1
        has "$said" 'out of memory: OpenBLAS' "--version with $limit"
    done
    train=(train --images "$work/moved" --model "$work/small" --method pca --latent 6 --force)
    reached=0
    for ((limit = 260000; limit < 700000; limit += 40000)); do
        (ulimit -S -v $limit && exec timeout 20 "$bin/indexer" "${train[@]}") >"$work/out" 2>"$work/said"
        rc=$? said=$(grep 'out of memory' "$work/said")
        ((rc == 0)) && break
        same "$rc $(wc -l <<<"$said")" '1 1' "pca with $limit"
        [[ $said == *'OpenBLAS needs 128 MiB'* ]] && reached=1
    done
    same "$rc $reached" '0 1' 'pca with ever more'
    unset OMP_NUM_THREADS
fi

# ---- damage
cp -r "$db" "$work/d.db"
truncate -s -8192 "$work/d.db/data.mdb"
for c in info verify; do
    indexer $c --db "$work/d.db"
    expect "$c: cut off" 1
done
head -c 20000 /dev/zero >"$work/d.db/data.mdb"
indexer info --db "$work/d.db"
expect 'zeros' 1
cp "$db/data.mdb" "$work/d.db/data.mdb"
head -c 3000 /dev/urandom | dd of="$work/d.db/data.mdb" bs=1 seek=9000 conv=notrunc status=none
indexer verify --db "$work/d.db"
expect 'garbage' 1

exit "$failed"
