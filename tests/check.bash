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
# stopped DB WHAT PROGRAM ARG...: a program that is told to stop while it waits for the database says so, and leaves no file behind. WHAT: of the run
stopped() {
    local db=$1 what=$2 pid caught i
    exec 9<"$db"
    flock -x 9
    (trap - EXIT; exec "$bin/$3" "${@:4}" >"$work/out" 2>"$work/said" 9<&-) &
    pid=$!
    for ((i = 0; i < 1500; i++)); do # until it would rather be told than killed
        [[ $(<"/proc/$pid/comm") == "$3" ]] || { sleep 0.02; continue; } # the shell's own, which may catch it, too
        caught=$(sed -n 's/^SigCgt:\s*//p' "/proc/$pid/status")
        ((0x${caught:-0} & 1 << 14)) && break
        sleep 0.02
    done
    kill -TERM $pid
    flock -u 9
    wait $pid 2>>"$work/log"
    rc=$? said=$(<"$work/said")
    exec 9<&-
    expect "$what" 1
    has "$said" interrupted "$what"
    same "$(find "$work" -name '.isoface-*.tmp')" '' "$what: temporary files"
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
