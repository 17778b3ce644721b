#!/bin/bash
# The golden program must see what is wrong: changed values, damaged files, missing tensors. (`make test` runs it on the
# good files itself.)
set -uo pipefail
golden=${ISOFACE_BIN:?}/golden
good=tests/golden/relaxed_distortion_mlp_tanh_linear.safetensors
work=$(mktemp -d "${TMPDIR:-/tmp}/isoface-golden.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
failed=0

# expect CODE VERDICT FILE: the exit code, and the first word of the last line
expect() {
    local out code
    out=$("$golden" "$3" 2>"$work/errors")
    code=$?
    if ((code != $1)) || [[ $2 && ${out%% *} != "$2" ]]; then
        echo "$4: exit code $code, expected $1; said: $out"
        cat "$work/errors"
        failed=1
    fi
    if [[ $2 == FAIL && ! -s $work/errors ]]; then
        echo "$4: no reason on stderr"
        failed=1
    fi
}

# change FROM TO: a copy with the first FROM in its header replaced by TO, of the same length
change() {
    ((${#1} == ${#2})) || { echo "test: '$1' and '$2' differ in length"; exit 1; }
    LC_ALL=C sed "0,/$1/s//$2/" "$good" >"$work/changed.safetensors"
    cmp -s "$good" "$work/changed.safetensors" && { echo "test: '$1' is not in the file"; exit 1; }
}

expect 0 ok "$good" 'a good file'
cp "$good" "$work/with space"$'\n'"and newline.safetensors"
expect 0 ok "$work/with space"$'\n'"and newline.safetensors" 'a path with a newline'
[[ $("$golden" "$work/with space"$'\n'"and newline.safetensors" | wc -l) == 1 ]] || { echo 'a newline broke the line'; failed=1; }

# The last eight bytes are a gradient: another number is off by far more than 1e-8.
size=$(stat -c %s "$good")
{ head -c $((size - 8)) "$good"; printf '\0\0\0\0\0\0\xf0\x3f'; } >"$work/changed.safetensors"
expect 1 FAIL "$work/changed.safetensors" 'another gradient'
{ head -c $((size - 8)) "$good"; printf '\0\0\0\0\0\0\xf8\x7f'; } >"$work/changed.safetensors"
expect 1 FAIL "$work/changed.safetensors" 'an expected NaN'

change '"act": "tanh"' '"act": "relu"'
expect 1 FAIL "$work/changed.safetensors" 'another activation'
change '"act": "tanh"' '"act": "cosh"'
expect 1 FAIL "$work/changed.safetensors" 'an unknown activation'
change '"sizes": "4,7,7,9"' '"sizes": "4,7,7,8"'
expect 1 FAIL "$work/changed.safetensors" 'other sizes'
change '"net": "mlp"' '"net": "gan"'
expect 1 FAIL "$work/changed.safetensors" 'an unknown net'
change 'in.delta' 'in.gamma'
expect 1 FAIL "$work/changed.safetensors" 'a missing input'
change 'param.decoder.0.bias' 'param.decoder.8.bias'
expect 1 FAIL "$work/changed.safetensors" 'a missing parameter'
change 'out.trG2' 'out.trG3'
expect 1 FAIL "$work/changed.safetensors" 'an output that the case does not compute'
change 'grad.decoder.0.bias' 'grad.decoder.8.bias'
expect 1 FAIL "$work/changed.safetensors" 'a gradient of no parameter'
change '"case": "relaxed_distortion"' '"case": "relaxed_contortion"'
expect 0 unknown "$work/changed.safetensors" 'an unknown case'
change '"case": "relaxed' '"lace": "relaxed'
expect 1 FAIL "$work/changed.safetensors" 'no case'

for cut in 0 1 8 20 1000 $((size - 1)); do
    head -c "$cut" "$good" >"$work/changed.safetensors"
    expect 1 FAIL "$work/changed.safetensors" "cut to $cut bytes"
done
yes 'not a tensor' | head -c 4096 >"$work/changed.safetensors"
expect 1 FAIL "$work/changed.safetensors" 'noise'
expect 1 FAIL "$work" 'a folder'
expect 1 FAIL "$work/nothing" 'no such file'
"$golden" >/dev/null 2>&1
(($? == 2)) || { echo 'no arguments: not a usage error'; failed=1; }
"$golden" --nonsense >/dev/null 2>&1
(($? == 2)) || { echo 'an unknown option: not a usage error'; failed=1; }
"$golden" --help >/dev/null 2>&1 || { echo '--help fails'; failed=1; }
exit $failed
