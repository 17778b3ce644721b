#!/bin/bash
# Set-up of Isoface on Debian 12: the Debian packages, and FAISS with its C API.
#
#     setup/setup.sh OUTPUT               writes OUTPUT, a makefile fragment that says where things are
#     setup/setup.sh --packages NAME...   only has these Debian packages installed
#
# Does nothing that is done already. Packages are named before they are installed (as root or by
# sudo). FAISS is built once, into a cache outside the checkout that all checkouts of a user share.
set -euo pipefail
export LC_ALL=C

script_version=1
faiss_version=1.7.3
output=${1:?usage: setup/setup.sh OUTPUT, or setup/setup.sh --packages NAME...}
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/isoface

packages=(
    gcc g++ libc6-dev make cmake pkg-config dpkg-dev
    libopenblas-openmp-dev libturbojpeg0-dev libpng-dev libexif-dev liblmdb-dev
    libxxhash-dev libcairo2-dev fonts-dejavu-core
    libcmocka-dev libjansson-dev
)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[[ $cache != *[[:space:]]* ]] || die "make cannot use a cache in '$cache': set XDG_CACHE_HOME to a path without blanks"

# ---------------------------------------------------------------- packages

missing_packages() {
    local name
    for name in "${packages[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
    done
}

install_packages() {
    local missing as_root=()
    command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
        die "this is not Debian; install yourself what these Debian packages hold: ${packages[*]}"
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]})) || return 0
    say "needs the Debian packages: ${missing[*]}"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "not root, and there is no sudo: have them installed, then run make again"
        as_root=(sudo)
        [[ -t 0 ]] || as_root=(sudo -n)
        "${as_root[@]}" true || die "sudo refused: have them installed, then run make again"
    fi
    say "installing them"
    "${as_root[@]}" apt-get -q update >&2 || say "apt-get update had failures; trying to install all the same"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q install -y --no-install-recommends "${missing[@]}" >&2 ||
        die "apt-get could not install them (see above)"
}

# ---------------------------------------------------------------- FAISS

# Debian's own build is for plain x86-64; these are the flags FAISS gives its AVX2 variant. All of x86-64-v3 is wanted for them: that is what the dynamic
# linker can be told that a library needs.
cpu_flags() {
    local have=' ' want
    [[ $(uname -m) == x86_64 && -r /proc/cpuinfo ]] || return 0
    have=" $(grep -m1 '^flags' /proc/cpuinfo | cut -d: -f2) "
    for want in avx2 fma f16c popcnt bmi1 bmi2 abm movbe; do
        [[ $have == *" $want "* ]] || return 0
    done
    echo '-mavx2 -mfma -mf16c -mpopcnt'
}

# The machine's own package sources with "deb" turned to "deb-src", in folder $1. The system's configuration
# is only read. Sources of other suites are left out: they have no FAISS of this Debian.
derive_sources() {
    local to=$1 file etc=/etc/apt n=0 VERSION_CODENAME=none
    . /etc/os-release
    for file in "$etc"/sources.list "$etc"/sources.list.d/*; do
        [[ -r $file && -s $file ]] || continue
        n=$((n + 1))
        case $file in
        *.list)
            sed -nE 's/^[[:space:]]*deb(-src)?[[:space:]]+/deb-src /p' "$file" |
                grep -E "[[:space:]]$VERSION_CODENAME([-/][^[:space:]]*)?[[:space:]]" >"$to/$n.list" || true ;;
        *.sources)
            awk -v RS= -v ORS='\n\n' -v suite="$VERSION_CODENAME" '
                ("\n" $0) ~ /\n[Ee]nabled:[ \t]*[Nn]o/ { next }
                ("\n" $0) !~ ("\n[Ss]uites:[^\n]*[ \t]" suite) { next }
                { sub(/(^|\n)[Tt]ypes:[^\n]*/, "\nTypes: deb-src"); sub(/^\n/, ""); print }' \
                "$file" >"$to/$n.sources" ;;
        esac
    done
    find "$to" -type f -empty -delete
    [[ -n $(ls "$to") ]] || { say "found no package sources of $VERSION_CODENAME in $etc"; return 1; }
}

fetch_faiss() {
    local work=$1 options
    mkdir -p "$work"/{sources,lists/partial,cache/archives/partial} && derive_sources "$work/sources" || return
    options=(
        -q
        -o Dir::Etc::sourcelist=/nonexistent -o Dir::Etc::sourceparts="$work/sources"
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache"
        # apt's own unprivileged user cannot read a folder of ours
        -o APT::Sandbox::User="$(id -un)"
    )
    # A third party's list may have no sources: what counts is whether FAISS is found.
    apt-get "${options[@]}" update || true
    (cd "$work" && apt-get "${options[@]}" source --only-source faiss) || return
    [[ -d $work/faiss-$faiss_version ]] && return
    say "this Debian's FAISS is $(cd "$work" && ls -d faiss-*/ | head -1), not $faiss_version: Isoface is made for Debian 12"
    return 1
}

# Called where errexit is off (before ||), hence the chain.
build_faiss() {
    local work=$1 flags=$2 blas=$3 source=$1/faiss-$faiss_version
    cmake -S "$source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release \
        -DFAISS_ENABLE_GPU=OFF -DFAISS_ENABLE_PYTHON=OFF -DFAISS_ENABLE_C_API=ON -DBUILD_TESTING=OFF \
        -DBUILD_SHARED_LIBS=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DCMAKE_CXX_FLAGS="$flags" \
        -DBLAS_LIBRARIES="$blas/libopenblas.so" -DLAPACK_LIBRARIES="$blas/libopenblas.so" &&
        cmake --build "$work/build" --target faiss faiss_c -j "$(nproc)" &&
        mkdir -p "$work/out/lib" "$work/out/include/faiss" &&
        cp "$work/build/faiss/libfaiss.a" "$work/build/c_api/libfaiss_c.a" "$work/out/lib/" &&
        (cd "$source" && find c_api -name '*.h' -exec cp --parents {} "$work/out/include/faiss/" \;) &&
        cp "$source/LICENSE" "$work/out/"
}

# Sets $faiss to the folder that holds lib/ and include/, and $flags to those it was compiled with.
need_faiss() {
    local blas=$1 key work
    flags=$(cpu_flags)
    key=$(printf '%s\n' "$script_version" "$(uname -m)" "$flags" "$(c++ --version | head -1)" "$blas" | sha256sum)
    faiss=$cache/faiss-$faiss_version-${key:0:12}
    [[ -e $faiss/lib/libfaiss.a ]] && return
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    if ! flock -n 9; then
        say "another set-up is building FAISS; waiting for it"
        flock 9
    fi
    [[ -e $faiss/lib/libfaiss.a ]] && return
    rm -rf "$cache"/building.* # left by a build that was killed: we hold the lock
    work=$(mktemp -d "$cache/building.XXXXXX")
    trap "rm -rf '$work'" EXIT
    say "building FAISS $faiss_version with its C API (${flags:-plain}), once, into $faiss; takes some minutes"
    fetch_faiss "$work" >"$work/log" 2>&1 9>&- || { cat "$work/log" >&2; die "FAISS's source could not be fetched"; }
    build_faiss "$work" "$flags" "$blas" >"$work/log" 2>&1 9>&- || { tail -40 "$work/log" >&2; die "FAISS could not be built"; }
    rm -rf "$faiss"
    mv "$work/out" "$faiss"
    rm -rf "$work"
    trap - EXIT
    exec 9>&-
    say "FAISS is ready"
}

# ---------------------------------------------------------------- main

if [[ $output == --packages ]]; then
    packages=("${@:2}")
    install_packages
    exit
fi
install_packages
multiarch=$(gcc -print-multiarch)
[[ $(gcc -dM -E - </dev/null | grep -cE ' (__SIZEOF_POINTER__ 8|__BYTE_ORDER__ __ORDER_LITTLE_ENDIAN__)$') == 2 ]] ||
    die "Isoface is for 64-bit little-endian processors, and gcc here makes programs for $multiarch"
blas=/usr/lib/$multiarch/openblas-openmp
[[ -e $blas/libopenblas.so ]] || die "OpenBLAS's OpenMP flavour is not in $blas, though its package is installed"
faiss='' flags=''
need_faiss "$blas"

modules=(libturbojpeg libpng libexif lmdb libxxhash cairo)
# Headers of others need not be free of warnings: -isystem.
includes=$(pkg-config --cflags-only-I "${modules[@]}" | sed 's/-I */-isystem /g')
libraries=$(pkg-config --libs "${modules[@]}")
mkdir -p "$(dirname "$output")"
cat >"$output.new" <<END
# Written by setup/setup.sh.
FAISS_LIBRARIES := $faiss/lib/libfaiss_c.a $faiss/lib/libfaiss.a
FAISS_NEEDS := ${flags:+AVX2}
OPENBLAS_LIBDIR := $blas
LIBRARY_INCLUDES := -isystem $faiss/include -isystem /usr/include/$multiarch/openblas-openmp $includes
LIBRARY_LINKS := $libraries
END
mv "$output.new" "$output"
