#!/bin/bash
# evaluate geometry: what it prints and draws, which images it measures on, bad input.
name=evaluate_geometry
. "$(dirname "$0")/check.bash"
geometry() { call evaluate geometry "$@"; }
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
is_png() { [[ $(head -c 8 "$1" 2>/dev/null | od -An -tx1 | tr -d ' \n') == 89504e470d0a1a0a ]] || { echo "$2: no PNG file"; failed=1; }; }
value() { sed -n "s/.*\"$1\":\([^,}]*\).*/\1/p" "$work/out"; }

must "$bin/drawfaces" --output "$work/faces" --count 60 --quiet
train() { must "$bin/indexer" train --images "$work/faces" --model "$work/$1" --method vae --width 2 --latent "$2" --epochs 1 --batch 16 --quiet; }
train six.safetensors 6
train two.safetensors 2
must "$bin/indexer" flatten --images "$work/faces" --model "$work/six.safetensors" --output "$work/flow.safetensors" --epochs 1 --batch 16 --quiet
must "$bin/indexer" train --images "$work/faces" --model "$work/pca" --method pca --latent 4 --quiet
six=(--model "$work/six.safetensors" --images "$work/faces")
valid=$(grep -c ' 1$' "$work/faces/list_eval_partition.txt")
attribute=$(sed -n 2p "$work/faces/list_attr_celeba.txt" | cut -d ' ' -f 1)

# ---- figures
geometry "${six[@]}"
expect 'a table' 0
has "$said" "all there are: $valid" 'the validation part is small'
has "$out" "$valid of $valid validation images" 'the validation part is the default'
for words in 'reconstruction MSE' VoR MCN CN VPres ISO 'log10 magnification' 'eigenvalues are below 1e-07' "0 of $valid metrics left out"; do has "$out" "$words" 'table'; done
geometry "${six[@]}" --format json --quiet
expect 'JSON' 0
same "$said" '' '--quiet'
same "$(value count) $(value metrics) $(value left_out)" "$valid $valid 0" 'counts'
same "$(value eigenvalues)" $((6 * valid)) 'eigenvalues'
cp "$work/out" "$work/first"
geometry "${six[@]}" --format json --quiet
same "$out" "$(<"$work/first")" 'the same again'
geometry "${six[@]}" --format json --quiet --seed 1
[[ $(value vor) != "$(sed -n 's/.*"vor":\([^,]*\).*/\1/p' "$work/first")" ]] || { echo 'another seed: the same figures'; failed=1; }
mse=$(sed -n 's/.*"mse":\([^,]*\).*/\1/p' "$work/first")
geometry --model "$work/flow.safetensors" --images "$work/faces" --format json --quiet
expect 'with a flow' 0
has "$out" '"flow":true' 'with a flow'
same "$(printf '%.4f' "$(value mse)")" "$(printf '%.4f' "$mse")" 'a flow leaves the error alone'

# ---- which images
geometry "${six[@]}" --split 0 --samples 7 --format json --quiet
has "$out" '"split":0' '--split'
same "$(value count)" 7 '--samples'
geometry --model "$work/six.safetensors" --images "$work/faces/img_align_celeba" --samples 9 --format json --quiet
has "$out" '"split":null' 'a folder'
has "$out" '"candidates":60,"count":9' 'a folder'
geometry --model "$work/six.safetensors" --images "$work/faces/img_align_celeba" --split 1
expect 'a part without a partition file' 2
has "$said" '--partition' 'a part without a partition file'
awk '{print $1, 2}' "$work/faces/list_eval_partition.txt" >"$work/tests_only"
geometry "${six[@]}" --partition "$work/tests_only"
expect 'an empty part' 2
has "$said" 'no image' 'an empty part'
awk 'NR <= 1 {print $1, 1; next} {print $1, 0}' "$work/faces/list_eval_partition.txt" >"$work/one_only"
geometry "${six[@]}" --partition "$work/one_only" --interpolations "$work/none.png"
expect 'one image' 1
has "$said" 'one image only' 'one image'
has "$(grep VoR "$work/out")" ' - ' 'one image has no VoR'
has "$said" 'interpolations go from one image to another' 'one image'
mkdir "$work/mixed" "$work/empty" "$work/texts"
cp "$work"/faces/img_align_celeba/00000[1-4].jpg "$work/mixed/"
printf 'no picture' | tee "$work/mixed/a.jpg" >"$work/texts/b.txt"
geometry --model "$work/six.safetensors" --images "$work/mixed" --samples 4 --format json
expect 'a file that is no image' 0
same "$(value count)" 4 'another is drawn instead'
for dir in empty texts missing; do
    geometry --model "$work/six.safetensors" --images "$work/$dir"
    ((rc != 0)) || { echo "$dir: exit code 0"; failed=1; }
    same "$(wc -l <"$work/said")" 1 "$dir: one line"
done

# ---- pictures
geometry "${six[@]}" --quiet --plot "$work/p.png" --attribute "$attribute" --reconstructions "$work/r.png" --interpolations "$work/i.png" --axes "$work/a.png"
expect 'pictures' 0
for f in p r i a; do is_png "$work/$f.png" "six $f"; done
geometry --model "$work/two.safetensors" --images "$work/faces" --quiet --plot "$work/p2.png" --axes "$work/a2.png"
expect 'two dimensions' 0
for f in p2 a2; do is_png "$work/$f.png" "$f"; done
geometry "${six[@]}" --plot "$work/q.png" --attribute Nobody_Has_It
expect 'an unknown attribute' 1
has "$said" "no attribute is called 'Nobody_Has_It'" 'an unknown attribute'
has "$said" "$attribute" 'which there are'
geometry --model "$work/six.safetensors" --images "$work/mixed" --plot "$work/q.png" --attribute "$attribute"
expect 'no attribute file' 1
has "$said" 'list_attr_celeba.txt' 'no attribute file'
geometry "${six[@]}" --plot "$work/missing/q.png"
expect 'a folder that is not there' 1
same "$out" '' 'nothing is measured for it'
[[ -e $work/q.png ]] && { echo 'a picture in spite of the error'; failed=1; }

# ---- models
geometry --model "$work/pca" --images "$work/faces"
expect 'principal components' 1
has "$said" 'no decoder' 'principal components'
same "$(wc -l <"$work/said")" 1 'principal components: one line'
geometry --model "$work/none" --images "$work/faces"
expect 'no model' 1
# A decoder that is constant: zeros in place of its numbers.
size=$(od -An -tu8 -N8 "$work/six.safetensors" | tr -d ' ')
range=$(head -c $((8 + size)) "$work/six.safetensors" | tail -c "$size" | grep -o '"decoder.1.weight":{[^}]*}' | grep -o 'data_offsets":\[[0-9,]*' | tr -dc '0-9,')
cp "$work/six.safetensors" "$work/dead.safetensors"
dd if=/dev/zero of="$work/dead.safetensors" bs=1 seek=$((8 + size + ${range%,*})) count=$((${range#*,} - ${range%,*})) conv=notrunc status=none
geometry --model "$work/dead.safetensors" --images "$work/faces" --reconstructions "$work/d.png" --plot "$work/dp.png"
expect 'a constant decoder' 1
has "$said" "none of the $valid metrics can be used" 'a constant decoder'
has "$out" 'reconstruction MSE' 'a constant decoder still has an error'
has "$(grep MCN "$work/out")" '-           -' 'and no condition number'
is_png "$work/d.png" 'and reconstructions'

# ---- usage
for words in '--samples 0' '--eta -1' '--eta nan' '--split 3' '--format tsv' "--attribute $attribute" '--plot x.pdf' '--plot x.png --axes x.png' '--nonsense' \
    "--plot x.png --attribute A,,B" "--plot x.png --attribute A,A"; do
    # shellcheck disable=SC2086
    geometry "${six[@]}" $words
    expect "usage: $words" 2
    same "$out" '' "usage: $words"
done
geometry --images "$work/faces"
expect 'no model' 2
geometry --help
expect '--help' 0
has "$out" 'equidistance ellipses' '--help'
exit $failed
