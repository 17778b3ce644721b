#!/bin/bash
# evaluate sweep: the models it trains are those of `indexer train` and `indexer flatten`; its table and its plot; going on after
# a kill, Ctrl-C, a training that breaks; bad input.
name=sweep
. "$(dirname "$0")/check.bash"
export OMP_NUM_THREADS=1 # nets this small have nothing to share
cd "$work" || exit 1
small=(--width 2 --latent 4 --batch 10 --quiet)
sweep() { call evaluate sweep --images drawn "$@"; }
# row CSV MODEL COLUMN: a field of the table
row() {
    awk -F, -v model="$2.safetensors" -v want="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == want) column = i }
        NR > 1 && $1 == model { print $column }' "$1/sweep.csv"
}
# positive WHAT NUMBER
positive() {
    awk -v x="$2" 'BEGIN { exit !(x + 0 > 0 && x + 0 < 1e300) }' </dev/null && return
    printf '%s: %s is no positive number\n' "$1" "$2"
    failed=1
}
(positive 'deliberately wrong' ''; positive wrong -1; positive wrong nan; ((failed == 1))) >log
[[ $? == 0 && $(grep -c wrong log) == 3 ]] || { echo 'the check does not check'; exit 1; }

must "$bin/drawfaces" --output drawn --count 60 --quiet
sweep --help
expect help 0
has "$out" 'usage: evaluate sweep' help
for o in --width --kl-weight --mirror --schedule --views --depth; do has "$out" " $o" 'the options of the trainings'; done

# ---- over alpha
sweep --out a --alpha 100,0,1 --method isometric,flat-manifold --seeds 0,1 "${small[@]}" --epochs 1
expect 'over alpha' 0
same "$(wc -l <a/sweep.csv)" 11 'rows of the table'
same "$(head -n 1 a/sweep.csv)" 'model,method,alpha,beta,seed,epochs,images,best_epoch,val_loss,mse,vor,vor_median,mcn,mcn_median,cn,vpres,iso,R,metrics,left_out,measured,command' 'its first line'
same "$(head -c 8 a/sweep.png | od -An -tx1)" ' 89 50 4e 47 0d 0a 1a 0a' 'the plot'
for m in vae-a0-s0 vae-a0-s1 isometric-a{100,1}-s{0,1} flat-manifold-a{100,1}-s{0,1}; do
    has "$out" "$m.safetensors" 'the table'
    for column in mse vor vor_median mcn_median R val_loss; do positive "$m $column" "$(row a "$m" "$column")"; done
    same "$(row a "$m" method) $(row a "$m" epochs) $(row a "$m" images)" "${m%%-a*} 1 40" "$m"
done
same "$(row a isometric-a100-s1 alpha),$(row a isometric-a100-s1 beta),$(row a isometric-a100-s1 seed)" 100,,1 'who a row is'

# The command in the table makes the same model.
command=$(row a flat-manifold-a100-s1 command)
has "$command" 'indexer train --images drawn --model a/flat-manifold-a100-s1.safetensors --method flat-manifold --alpha 100 --seed 1 --width 2' 'the command'
command=${command/ a\// b-}
# shellcheck disable=SC2086 # its words are plain
must "$bin/"$command --quiet
cmp a/flat-manifold-a100-s1.safetensors b-flat-manifold-a100-s1.safetensors || failed=1
cmp -s a/isometric-a100-s1.safetensors b-flat-manifold-a100-s1.safetensors && { echo 'deliberately wrong: two models are the same'; failed=1; }

# A second run trains nothing and measures nothing.
cp -r a again
before=$(stat -c '%n %Y %s %i' a/*.safetensors a/*.state)
sweep --out a --alpha 100,0,1 --method isometric,flat-manifold --seeds 0,1 "${small[@]}" --epochs 1 --format json
expect 'the second run' 0
same "$(stat -c '%n %Y %s %i' a/*.safetensors a/*.state)" "$before" 'the second run wrote'
cmp a/sweep.csv again/sweep.csv || failed=1
has "$out" '"model": "isometric-a100-s0.safetensors", "method": "isometric", "alpha": 100, "beta": null, "seed": 0, "epochs": 1, ' JSON
positive 'images of JSON' "$(sed -n 's/^.*"images": \([0-9]*\), "split": 1, .*/\1/p' out)"
# Other images to measure on: the same models, other figures.
sweep --out a --alpha 100 --split 0 --samples 5 --metrics-seed 3 "${small[@]}" --epochs 1
expect 'another part' 0
has "$out" '5 images' '--samples'
same "$(wc -l <a/sweep.csv)" 2 'the table is of what was asked for'
[[ $(row a isometric-a100-s0 mse) != $(row again isometric-a100-s0 mse) ]] || { echo 'the same figures on other images'; failed=1; }
same "$(stat -c '%n %Y %s %i' a/*.safetensors a/*.state)" "$before" 'measuring wrote a model'
# One image has no VoR: no plot, and not that of the table before.
[[ -s a/sweep.png ]] || { echo 'no plot of five images'; failed=1; }
sweep --out a --alpha 100 --samples 1 "${small[@]}" --epochs 1
expect 'one image' 0
same "$(row a isometric-a100-s0 vor_median)$(ls a/sweep.png 2>&1 | grep -v 'No such')" '' 'one image: VoR, and the plot'

# `evaluate geometry` finds the same.
call evaluate geometry --model a/isometric-a100-s0.safetensors --images drawn --split 1 --format json --quiet
expect 'evaluate geometry' 0
cp out geometry.json
sweep --out a --alpha 100 "${small[@]}" --epochs 1
for column in mse vor mcn_median cn R; do has "$(<geometry.json)" "$(row a isometric-a100-s0 $column)" "$column of evaluate geometry"; done

# ---- what does not fit what is there
sweep --out a --alpha 100 "${small[@]}" --epochs 1 --lr 1e-3
expect 'another learning rate' 2
has "$said" '--force' 'another learning rate'
has "$said" '--lr' 'another learning rate'
same "${said#*sweep: }" 'a/isometric-a100-s0.safetensors.state was trained with --lr 0.0001, now it is 0.001; give the same, or start anew with --force' 'another learning rate'
sweep --out a --alpha 100 "${small[@]}" --epochs 1 --views 1
expect 'other views' 2
has "$said" '--views' 'other views'
sweep --out a --alpha 100 "${small[@]}" --epochs 1 --schedule cosine
expect 'a schedule where there was none' 2
has "$said" 'without --schedule cosine' 'a schedule where there was none'
sweep --out c --alpha 100 "${small[@]}" --epochs 1 --schedule cosine
expect 'a schedule' 0
sweep --out c --alpha 100 "${small[@]}" --epochs 1 --schedule constant
expect 'another schedule' 2
has "$said" '--force' 'another schedule'
sweep --out c --alpha 100 "${small[@]}" --epochs 2 --schedule cosine
expect 'other epochs of a schedule' 2
has "$said" '--force' 'other epochs of a schedule'
sweep --out b --alpha 100 "${small[@]}" --epochs 2 --schedule constant
expect 'two epochs' 0
sweep --out b --alpha 100 "${small[@]}" --epochs 1 --schedule constant
expect 'fewer epochs than are done' 2
has "$said" '--force' 'fewer epochs'
cp b/isometric-a100-s0.safetensors two-epochs
rm b/isometric-a100-s0.safetensors
sweep --out b --alpha 100 "${small[@]}" --epochs 2 --schedule constant
expect 'a model that is gone' 0
cmp b/isometric-a100-s0.safetensors two-epochs || failed=1
sweep --out b --alpha 100 "${small[@]}" --epochs 3 --schedule constant
expect 'more epochs' 0
same "$(row b isometric-a100-s0 epochs)" 3 'more epochs'
rm b/isometric-a100-s0.safetensors.state
sweep --out b --alpha 100 "${small[@]}" --epochs 3 --schedule constant
expect 'a model without its state' 2
sweep --out b --alpha 100 "${small[@]}" --epochs 2 --schedule constant --force
expect '--force' 0
cmp b/isometric-a100-s0.safetensors two-epochs || failed=1
echo x >b/isometric-a100-s0.safetensors.state
sweep --out b --alpha 100 "${small[@]}" --epochs 2 --schedule constant
expect 'a state that is none' 1
has "$said" '--force' 'a state that is none'
echo 'not,a,table' >again/sweep.csv
sweep --out again --alpha 100 "${small[@]}" --epochs 1
expect 'a table that is none' 1
has "$said" 'sweep.csv is not the table' 'a table that is none'

# ---- over beta
mkdir m
for s in 0 1; do cp "a/isometric-a100-s$s.safetensors" "m/ir-$s"; cp "a/isometric-a100-s$s.safetensors.csv" "m/ir-$s.csv"; done
flat=(--batch 10 --epochs 1 --depth 2 --length 8 --lr 1e-3 --quiet)
sweep --out f --beta 10,0,1 --model 'm/ir-{seed}' --seeds 0,1 "${flat[@]}"
expect 'over beta' 0
same "$(wc -l <f/sweep.csv)" 9 'rows, with the models before'
same "$(row f fm-b10-s1 method) $(row f fm-b10-s1 alpha) $(row f fm-b10-s1 beta)" 'isometric 100 10' 'a row of a flow'
positive 'VoR of a flow' "$(row f fm-b0-s0 vor_median)"
has "$(cat f/sweep.csv)" 'ir-0,isometric,100,,0,1,40,' 'the model before any flow'
must "$bin/indexer" flatten --images drawn --model m/ir-1 --output fm --beta 10 --seed 1 "${flat[@]}"
cmp fm f/fm-b10-s1.safetensors || failed=1
has "$(row f fm-b10-s1 command)" 'indexer flatten --images drawn --model m/ir-1 --output f/fm-b10-s1.safetensors --beta 10 --seed 1 ' 'its command'
sweep --out f --alpha 1 "${small[@]}" --epochs 1
expect 'the table of the other kind' 2
has "$said" 'another --out' 'the table of the other kind'
[[ -s f/sweep.png ]] || { echo 'no plot'; failed=1; }

# ---- stopped and going on
long=(--alpha 10 --method flat-manifold,isometric --width 2 --latent 4 --batch 10 --epochs 8 --views 1)
first=k/flat-manifold-a10-s0.safetensors
for signal in KILL INT; do
    for try in 1 2 3; do # on a busy machine the signal may come too late
        rm -rf k
        set -m # a background job of a script has Ctrl-C ignored, and so would the program
        "$bin/evaluate" sweep --images drawn --out k "${long[@]}" >out 2>said &
        job=$!
        set +m
        for ((i = 0; i < 1000; i++)); do
            [[ -f $first.csv && $(wc -l <$first.csv) -ge 2 ]] && break
            sleep 0.01
        done
        kill -"$signal" "$job" 2>/dev/null
        wait "$job" 2>/dev/null
        rc=$? said=$(<said)
        [[ $(wc -l <$first.csv) -le 8 ]] && break
    done
    if [[ $signal == INT ]]; then
        expect Ctrl-C 1
        has "$said" 'interrupted while' Ctrl-C
        has "$said" 'the same command goes on' Ctrl-C
    fi
    same "$(ls k/isometric* 2>/dev/null)" '' "stopped by $signal, but the next training began"
    sweep --out k "${long[@]}"
    expect "going on after $signal" 0
    has "$said" 'going on after epoch' "going on after $signal"
    same "$(row k flat-manifold-a10-s0 epochs)" 8 "going on after $signal"
done
must "$bin/indexer" train --images drawn --model whole --method flat-manifold --alpha 10 --seed 0 --width 2 --latent 4 --batch 10 --epochs 8 --views 1 --quiet
cmp whole $first || failed=1

# ---- a training that breaks
sweep --out n --alpha 1e12,1 --width 4 --latent 4 --batch 10 --lr 1000 --epochs 1 --quiet
expect 'trainings that break' 1
has "$said" 'isometric-a1000000000000-s0.safetensors: training stopped at step' 'trainings that break'
has "$said" 'isometric-a1-s0.safetensors: ' 'the others go on'
same "$(row n isometric-a1-s0 mse),$(row n isometric-a1-s0 vor),$(row n isometric-a1-s0 alpha)" ,,1 'the row of a broken one'
same "$(wc -l <n/sweep.csv)" 3 'rows of broken ones'

# ---- bad input
bad() { # WHAT CODE TEXT OPTION...
    sweep "${@:4}"
    expect "$1" "$2"
    has "$said" "$3" "$1"
}
bad 'no list' 2 'nothing to sweep' --out x
bad 'both lists' 2 'exclude each other' --out x --alpha 1 --beta 1
bad 'no folder' 2 '--out is missing' --alpha 1
bad 'an empty item' 2 'is empty' --out x --alpha 1,,2
bad 'an empty list' 2 '--alpha' --out x --alpha ''
bad 'no number' 2 'not '\''ten'\''' --out x --alpha 1,ten
bad 'nan' 2 'not '\''nan'\''' --out x --alpha nan
bad 'a negative number' 2 'negative' --out x --alpha=1,-3
bad 'twice' 2 'twice' --out x --alpha 10,1e1
bad '0 twice' 2 'twice' --out x --alpha 0,vae
bad 'seeds' 2 'whole numbers' --out x --alpha 1 --seeds 0.5
bad 'seeds twice' 2 'twice' --out x --alpha 1 --seeds 3,3
bad 'a method' 2 '--method' --out x --alpha 1 --method isometric,pca
bad 'a method twice' 2 'twice' --out x --alpha 1 --method vae,vae
bad 'vae alone' 2 'no alpha' --out x --alpha 1 --method vae
bad 'beta without a model' 2 '--model' --out x --beta 1
bad 'alpha with a model' 2 '--model' --out x --alpha 1 --model m/ir-0
bad 'beta with a method' 2 '--method' --out x --beta 1 --model m/ir-0 --method vae
bad 'an option of the other training' 2 '--width' --out x --beta 1 --model m/ir-0 --width 2
bad 'an option of a flow' 2 '--depth' --out x --alpha 1 --depth 2
bad 'sigma' 2 '--sigma' --out x --alpha 1 --sigma loud
bad 'out of range' 2 'at least 1' --out x --alpha 1 --epochs 0
bad 'no such model' 1 'm/none' --out x --beta 1 --model m/none
bad 'a model that has a flow' 2 'flow already' --out x --beta 1 --model fm
must "$bin/indexer" train --images drawn --model m/ir-2 --method vae --width 2 --latent 3 --batch 10 --epochs 1 --quiet
bad 'latent dimensions' 1 'latent dimension 3' --out x --beta 1 --model 'm/ir-{seed}' --seeds 1,2
must "$bin/indexer" train --images drawn --model m/pca --method pca --latent 3 --quiet
bad 'no decoder' 1 'cannot be flattened' --out x --beta 1 --model m/pca
echo >file
bad 'a file for a folder' 2 'is a file' --out file --alpha 1
bad 'a folder in no folder' 1 'cannot make' --out none/x --alpha 1
[[ ! -e x ]] || { echo 'bad input made a folder'; failed=1; }
mkdir one && cp drawn/img_align_celeba/000001.jpg one
call evaluate sweep --images one --out x --alpha 1 "${small[@]}" --epochs 1
expect 'no validation images' 2
has "$said" 'no validation images' 'no validation images'
call evaluate sweep --images drawn/img_align_celeba --out y --alpha 1 "${small[@]}" --epochs 1
expect 'a folder without a partition' 0
call evaluate sweep --images drawn/img_align_celeba --out y --alpha 1 --split 2 "${small[@]}" --epochs 1
expect 'no test part' 2
has "$said" 'no test images to measure on: choose another --split' 'no test part'
[[ $said != *--partition* ]] || { echo 'no test part: an option that a sweep has not'; failed=1; }
(ulimit -f 4 && exec "$bin/evaluate" sweep --images drawn --out limited --alpha 1 "${small[@]}" --epochs 1) >/dev/null 2>said
rc=$? said=$(<said)
expect 'a file size limit' 1
has "$said" 'make room or choose another place, then repeat the command' 'a file size limit'
same "$(find limited -name '.isoface*' -o -name '*.csv' -o -name '*.state')" '' 'nothing half-written'
if [[ -e /dev/full ]]; then
    "$bin/evaluate" sweep --images drawn --out f --beta 10,0,1 --model 'm/ir-{seed}' --seeds 0,1 "${flat[@]}" >/dev/full 2>said
    rc=$? said=$(<said)
    expect 'a full disk for stdout' 1
    has "$said" 'cannot write the results' 'a full disk for stdout'
fi

exit "$failed"
