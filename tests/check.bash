# The checks of the script tests. A test sets `name` and sources this; `call PROGRAM ARG...` runs a program.
set -uo pipefail
bin=${ISOFACE_BIN:?}
work=$(mktemp -d "${TMPDIR:-/tmp}/isoface-${name:?}.XXXXXX") || exit 1
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
unset ISOFACE_DB
failed=0 out='' said='' rc=0

call() {
    "$bin/$1" "${@:2}" >"$work/out" 2>"$work/said"
    rc=$?
    out=$(tr '\0' '\n' <"$work/out") said=$(<"$work/said")
}
# expect WHAT CODE: of the last run
expect() {
    ((rc == $2)) && return
    printf '%s: exit code %d, expected %d\n%s\n' "$1" "$rc" "$2" "$said"
    failed=1
}
# has TEXT PATTERN WHAT
has() {
    [[ $1 == *"$2"* ]] && return
    printf '%s: no "%s" in:\n%s\n' "$3" "$2" "$1"
    failed=1
}
# same GOT WANT WHAT
same() {
    [[ $1 == "$2" ]] && return
    printf '%s: expected\n%s\ngot\n%s\n' "$3" "$2" "$1"
    failed=1
}
must() {
    "$@" >"$work/log" 2>&1 && return
    printf 'cannot go on: %s\n' "$*"
    cat "$work/log"
    exit 1
}

# The checks themselves must see what is wrong.
: >"$work/said"
(expect 'deliberately wrong' 1; has abc x wrong; same a b wrong; ((failed == 1))) >"$work/log"
[[ $? == 0 && $(grep -c wrong "$work/log") == 3 ]] || { echo 'the checks do not check'; exit 1; }
