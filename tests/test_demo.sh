#!/bin/bash
# The script behind `make demo`, with programs that do nothing: which folders it takes.
name=demo
. "$(dirname "$0")/check.bash"
mkdir "$work/fake" "$work/pictures" "$work/pictures/sub" "$work/pictures/.hidden" "$work/empty"
for program in drawfaces indexer retrieve evaluate; do ln -s "$(type -P true)" "$work/fake/$program"; done
touch "$work/pictures/a.jpg" "$work/pictures/sub/b c.jpg" "$work/pictures/.hidden/d.jpg"
ln -s .. "$work/pictures/sub/round"
demo() {
    BIN=$work/fake DEMO=$work/demo IMAGES=$1 bash "$(dirname "$0")/../demo/run.sh" >"$work/out" 2>"$work/said"
    rc=$? out=$(<"$work/out") said=$(<"$work/said")
}
demo "$work/pictures"
expect 'links in a circle' 0
has "$out" 'examples: 2 images' 'links in a circle'
same "$(cd "$work/demo/run/examples" && printf '%s,' *)" '01-a.jpg,02-b c.jpg,' 'its examples'
demo "$work/empty"
expect 'no images' 1
has "$said" 'holds no images' 'no images'
exit $failed
