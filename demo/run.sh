#!/bin/bash
# The whole of Isoface once over, each step with the command that does it: faces, a model, a database, answers, figures.
#     make demo                     on 2,000 drawn faces
#     make demo IMAGES=DIR          on a folder of your own (P@K where it is a data set in CelebA's layout)
#     make demo ATTRIBUTE=Smiling   with other examples
# What it makes is left in build/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-build/bin}
work=${DEMO:-$BIN/../demo}
IMAGES=${IMAGES:-}
ATTRIBUTE=${ATTRIBUTE:-}
width=${WIDTH:-8} latent=64 batch=20
EPOCH_IMAGES=${EPOCH_IMAGES:-40000} # images seen in training, all in all

say() { printf '\n\e[1m%s\e[0m\n' "$*" | if [[ -t 1 ]]; then cat; else sed 's/\x1b\[[0-9]*m//g'; fi; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# Shows a command as a reader would type it, then does it.
run() {
    local shown
    printf -v shown ' %q' "$@"
    printf '$%s\n' "$shown"
    PATH=$BIN:$PATH "$@"
}

for program in drawfaces indexer retrieve evaluate; do
    [[ -x $BIN/$program ]] || die "$BIN/$program is not there: run make first"
done
BIN=$(cd "$BIN" && pwd)
[[ -z $IMAGES || -d $IMAGES ]] || die "IMAGES=$IMAGES is not a folder"
rm -rf -- "$work/run"
mkdir -p "$work/run"
work=$(cd "$work" && pwd)
case $work in "$PWD"/*) work=${work#"$PWD"/} ;; esac
model=$work/run/faces.safetensors flat=$work/run/faces-flat.safetensors db=$work/run/faces.db sheet=$work/answer.png

step=0
heading() { step=$((step + 1)) && say "$step. $*"; }

if [[ -z $IMAGES ]]; then
    IMAGES=$work/faces
    heading 'Images: draw 2,000 labelled faces, in the layout of the CelebA data set.'
    run drawfaces --output "$IMAGES" --count 2000 --seed 0 --force
fi
attributes=$IMAGES/list_attr_celeba.txt partition=$IMAGES/list_eval_partition.txt
folder=$IMAGES
[[ -d $IMAGES/img_align_celeba ]] && folder=$IMAGES/img_align_celeba

# What the indexer lists, each ended by a NUL byte. It passes over links that lead round in a circle; so do we, though find fails of them.
images() { (cd "$folder" && find -L . -name '.?*' -prune -o -type f -printf '%P\0' 2>/dev/null) || true; }

# As many epochs as a couple of minutes hold; a large folder needs fewer.
count=$(images | tr -cd '\0' | wc -c)
((count >= 2)) || die "$folder holds no images"
epochs=$((EPOCH_IMAGES / count)) && ((epochs = epochs > 60 ? 60 : epochs < 1 ? 1 : epochs))
flow_epochs=$(((epochs + 5) / 6))

heading 'Train: a variational autoencoder learns, without labels, to put each image into 64 numbers.' \
    'The isometric term keeps distances honest.'
run indexer train --images "$IMAGES" --model "$model" --method isometric --width $width --latent $latent \
    --batch $batch --lr 2e-3 --alpha 100 --epochs "$epochs"

heading 'Flatten: an invertible flow straightens what curvature is left.'
run indexer flatten --images "$IMAGES" --model "$model" --output "$flat" --length 128 --batch $batch --lr 1e-4 --epochs "$flow_epochs"

heading 'Encode: one vector for each image, into a database, and an index to search it by.'
run indexer encode --images "$IMAGES" --model "$flat" --db "$db"
run indexer reindex --db "$db"
run indexer info --db "$db"

heading 'Examples: a folder of images that share something.'
examples=$work/run/examples
names=()
if [[ -f $attributes && -f $partition ]]; then
    # The attribute asked for, else Eyeglasses where there is such a one, else the first.
    ATTRIBUTE=$(awk -v want="$ATTRIBUTE" 'NR == 2 { sub(/\r$/, ""); pick = $1
        for (i = 1; i <= NF; i++) if ($i == want || (want == "" && $i == "Eyeglasses")) pick = $i
        print pick; exit }' "$attributes")
    mapfile -t names < <(awk -v want="$ATTRIBUTE" '{ sub(/\r$/, "") } FNR == NR { part[$1] = $2; next }
        FNR == 2 { for (i = 1; i <= NF; i++) if ($i == want) column = i + 1 }
        FNR > 2 && $column == 1 && part[$1] == 0 && n < 20 { print $1; n++ }' "$partition" "$attributes")
    examples=$work/run/examples-$ATTRIBUTE
    echo "The first twenty training images whose attribute $ATTRIBUTE is set. Only the images are used from here on, not the label."
else
    ATTRIBUTE=
    mapfile -d '' -t names < <(images | sort -z | head -z -n 10)
    echo "The first ten images of the folder (no list_attr_celeba.txt there to choose by)."
fi
((${#names[@]})) || die "no image to take as an example"
mkdir -p "$examples"
for i in "${!names[@]}"; do
    cp -- "$folder/${names[i]}" "$examples/$(printf %02d $((i + 1)))-${names[i]##*/}"
done
echo "$examples: ${#names[@]} images"

heading 'Retrieve: the ten images of the database that are most like all the examples together.'
run retrieve --query "$examples" -k 10 --db "$db" --exclude-query --sheet "$sheet"
echo "The contact sheet, examples above and answers below: $sheet"
if [[ -n $ATTRIBUTE ]]; then
    "$BIN/retrieve" --query "$examples" -k 10 --db "$db" --exclude-query --format paths --relative --quiet |
        awk -v want="$ATTRIBUTE" '{ sub(/\r$/, "") } FNR == NR { sub(/.*\//, ""); answer[$0]; next }
            FNR == 2 { for (i = 1; i <= NF; i++) if ($i == want) column = i + 1 }
            FNR > 2 { all++; has += $column == 1; if ($1 in answer) { n++; hit += $column == 1 } }
            END { printf "%d of these %d have %s; of all images %.1f %% do.\n", hit, n, want, 100 * has / all }' - "$attributes"
fi

if [[ -f $attributes && -f $partition ]]; then
    heading 'Evaluate: how often the first K answers have the attribute that the examples share, over all attributes.'
    run evaluate precision --db "$db" --attributes "$attributes" --partition "$partition" --per-attribute
fi

say "Done in $((SECONDS / 60)) min $((SECONDS % 60)) s. Try it yourself:"
printf '  %s\n' "$BIN/retrieve --query IMAGE... -k 10 --db $db --sheet answer.html"
