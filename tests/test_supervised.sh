#!/bin/bash
# indexer train --method supervised: the attribute file that it needs and what may be wrong with it, options, resuming, and the
# model's way into a database.
name=supervised
. "$(dirname "$0")/check.bash"
indexer() { call indexer "$@"; }
train() { call indexer train --images "$work/drawn" --method supervised --width 2 --latent 6 --epochs 2 --batch 10 --schedule constant --threads 1 "$@"; }

must "$bin/drawfaces" --output "$work/drawn" --count 60 --quiet
list=$work/drawn/list_attr_celeba.txt
partition=$work/drawn/list_eval_partition.txt
trained=$(grep -c ' 0$' "$partition") validated=$(grep -c ' 1$' "$partition")
first=$(sed -n 's/ 0$//p' "$partition" | head -n 1)
names=$(sed -n 2p "$list" | xargs)
mv "$list" "$work/list"

# ---- the attribute file
train --model "$work/m"
expect 'no attribute file' 2
has "$said" 'has no list_attr_celeba.txt' 'no attribute file'
has "$said" '--attributes FILE' 'no attribute file: what to do'
[[ ! -e $work/m ]] || { echo 'a model without attributes'; failed=1; }
train --model "$work/m" --attributes "$work/none"
expect 'an attribute file that is not there' 1
has "$said" "$work/none" 'an attribute file that is not there'
train --model "$work/m" --attributes "$partition"
expect 'another file' 1
has "$said" 'list_eval_partition.txt: line 1: expected the number of files' 'another file'
sed '7s/ [-0-9]*$//' "$work/list" >"$work/short"
train --model "$work/m" --attributes "$work/short"
expect 'a column less' 1
has "$said" 'line 7: has ' 'a column less'
awk 'NR == 1 { print 1 } NR == 2 { print; n = NF } END { line = "other.jpg"; for (i = 0; i < n; i++) line = line " 1"; print line }' \
    "$work/list" >"$work/strange"
train --model "$work/m" --attributes "$work/strange"
expect 'no image listed' 2
has "$said" 'lists none of the training images' 'no image listed'

train --model "$work/m" --attributes "$work/list"
expect 'train' 0
has "$said" "$trained training images, $validated validation images" 'all of them'
has "$said" 'accuracy ' 'the share told right'
has "$said" 'the best by validation loss' 'the end'

# The same with Windows line ends, 0 for -1 and an image that is not there: the same labels, the same run.
awk 'NR == 1 { print $1 + 1 "\r"; next } { gsub(/ -1/, " 0"); print $0 "\r" } END { sub(/^[^ ]*/, "extra.jpg"); print $0 "\r" }' \
    "$work/list" >"$list"
train --model "$work/m" --resume --epochs 2
expect 'another form of the same file' 0
has "$said" 'nothing to do' 'another form of the same file'
train --model "$work/windows"
expect 'Windows line ends' 0
cmp "$work/m" "$work/windows" || { echo 'another form, another model'; failed=1; }

# An image less: left out and said, or fatal. One attribute that nobody has and one that all have.
awk -v gone="$first" 'NR == 1 { print $1 - 1; next } NR == 2 { print $0 " Nobody Everybody"; next } $1 != gone { print $0 " -1 1" }' \
    "$work/list" >"$list"
train --model "$work/fewer"
expect 'an image that is not listed' 0
has "$said" "1 training and 0 validation images are not listed in $list and are left out, the first: $first" 'not listed'
has "$said" "$((trained - 1)) training images" 'not listed'
has "$said" 'no training image has: Nobody' 'nobody has it'
has "$said" 'every training image has: Everybody' 'everybody has it'
train --model "$work/strict" --strict
expect '--strict' 1
has "$said" "--strict: 1 images are not listed" '--strict'
train --model "$work/m" --resume --epochs 3
expect 'resume with other attributes' 2
has "$said" "the attributes are not those" "resume with other attributes"
cp "$work/list" "$list"
train --model "$work/m" --resume --epochs 3
expect 'resume' 0

# ---- options
for o in '--alpha 10' '--eta 0.2' '--kl-weight 0' '--sigma optimal' '--sigma-lr 0.01'; do
    # shellcheck disable=SC2086 # two words
    train --model "$work/o" $o
    expect "supervised $o" 2
    has "$said" "${o%% *} means nothing with --method supervised" "supervised $o"
done
for m in vae isometric flat-manifold pca; do
    indexer train --images "$work/drawn" --model "$work/o" --method "$m" --attributes "$list"
    expect "$m --attributes" 2
    has "$said" "--attributes means nothing with --method $m" "$m --attributes"
done
train --model "$work/mirrored" --mirror --quiet
expect '--mirror' 0
same "$said" '' '--quiet'
cmp -s "$work/mirrored" "$work/windows" && { echo '--mirror does nothing'; failed=1; }

# ---- from model to database
indexer flatten --images "$work/drawn" --model "$work/m" --output "$work/fm"
expect 'flatten' 1
has "$said" 'cannot be flattened: a supervised model has no decoder' 'flatten'
indexer encode --images "$work/drawn" --model "$work/m" --db "$work/db" --quiet
expect 'encode' 0
same "$out" 'added 60, changed 0, unchanged 0, skipped 0, removed 0' 'encode'
indexer info --db "$work/db" --format tsv
has "$out" 'method	supervised' 'info'
has "$out" "classes	$(wc -w <<<"$names")" 'info'
has "$out" "attributes	$names" 'info'
indexer export --db "$work/db" --vectors "$work/v.npy" --paths "$work/p.txt"
expect 'export' 0
call retrieve --db "$work/db" --query "$work/drawn/img_align_celeba/$first" -k 3
expect 'retrieve' 0

exit "$failed"
