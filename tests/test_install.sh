#!/bin/bash
# What `make install` puts somewhere, by a program that knows only that: linked with either library, under a name with a space.
name=install
. "$(dirname "$0")/check.bash"
if grep -qaE '__(asan|ubsan|tsan)_' "$bin/retrieve"; then
    echo 'not with sanitizers'
    exit 0
fi
prefix=$work/in\ stalled
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
old=$(umask)
umask 077
must "${MAKE:-make}" --no-print-directory -s install PREFIX="$prefix" DESTDIR=
umask "$old"
same "$(find "$prefix" ! -type l ! -perm -444)" '' 'what others cannot read'
said=$("${MAKE:-make}" --no-print-directory -s install PREFIX=here DESTDIR="$work/" 2>&1) && { echo 'a PREFIX from nowhere is taken'; failed=1; }
has "$said" 'must begin with /' 'a PREFIX from nowhere'

# ---- three vectors of two numbers, and a program that asks for the one that is most like the second
{
    printf '\x93NUMPY\1\0v\0%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"
    printf '\0\0\x80\x3f\0\0\0\0''\0\0\0\0\0\0\x80\x3f''\0\0\x80\xbf\0\0\0\0'
} >"$work/v.npy"
printf '%s\n' right up left >"$work/p.txt"
must "$prefix/bin/indexer" import --vectors "$work/v.npy" --paths "$work/p.txt" --db "$work/v.db" --quiet
cat >"$work/app.c" <<'END'
#include <isoface.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    iso_db *db;
    iso_query *query;
    iso_answer *answer;
    iso_error err;
    if (argc != 2 || iso_db_open(argv[1], &db, &err) || iso_query_create(db, &query, &err)) return 1;
    if (iso_query_add_vector(query, ISO_LIKE, (float[2]){0.1f, 1}, 2, &err)) return 2;
    if (iso_query_run(query, &(iso_query_options){.k = 1}, &answer, &err)) return 3;
    puts(iso_answer_result(answer, 0)->path);
    iso_answer_free(answer);
    iso_query_free(query);
    iso_db_close(db);
    return 0;
}
END
# built NAME FLAG...: with the flags of pkg-config
built() {
    local program=$1 flags
    shift
    flags=$(pkg-config "$@" --cflags --libs isoface) || exit 1
    eval "must gcc -Wall -Werror \"\$work/app.c\" $flags -o \"\$work/$program\""
    "$work/$program" "$work/v.db" >"$work/out" 2>"$work/said"
    rc=$? out=$(<"$work/out") said=$(<"$work/said")
    expect "$program" 0
    same "$out" up "$program"
}
export LD_LIBRARY_PATH=$prefix/lib
built shared
same "$(pkg-config --variable=libdir isoface)" "$prefix/lib" 'libdir'
unset LD_LIBRARY_PATH

# ---- a host that opens the library and closes it, again and again
cat >"$work/host.c" <<'END'
#include <dlfcn.h>
#include <isoface.h>
#include <stdio.h>
#include <unistd.h>
#define FUNCTION(name) __typeof__(name) *p_##name = (__typeof__(name) *)dlsym(library, #name)
int main(int argc, char **argv)
{
    for (int i = 0; argc == 3 && i < 20; i++) {
        void *library = dlopen(argv[1], RTLD_NOW);
        if (!library) return puts(dlerror()), 1;
        FUNCTION(iso_db_open);
        FUNCTION(iso_db_close);
        iso_db *db;
        if (p_iso_db_open(argv[2], &db, NULL)) return 2;
        p_iso_db_close(db);
        if (dlclose(library)) return 3;
        usleep(10000);
    }
    return 0;
}
END
must gcc -Wall -Werror -I "$prefix/include" "$work/host.c" -o "$work/host"
OMP_NUM_THREADS=4 "$work/host" "$prefix/lib/libisoface.so" "$work/v.db" 2>"$work/said"
rc=$? said=$(<"$work/said")
expect 'a host that closes the library' 0

# ---- a host with LLVM's OpenMP in place of GNU's that forks, before and after either has been used
cat >"$work/fork.c" <<'END'
#include <isoface.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static int count(void)
{
    int n = 0;
#pragma omp parallel num_threads(2) reduction(+ : n)
    n++;
    return n;
}
static int forked(void)
{
    int code;
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        _exit(count() != 2);
    }
    return waitpid(child, &code, 0) != child ? -1 : code;
}
int main(int argc, char **argv)
{
    iso_db *db;
    alarm(20);
    if (argc != 2 || iso_db_open(argv[1], &db, NULL)) return 1;
    for (int i = 0; i < 3; i++) {
        if (forked()) return 2;
        if (count() != 2) return 3;
    }
    iso_db_close(db);
    return 0;
}
END
if "${CLANG:-clang}" -fopenmp -I "$prefix/include" "$work/fork.c" -L "$prefix/lib" -lisoface -o "$work/fork" 2>"$work/log"; then
    LD_LIBRARY_PATH=$prefix/lib OMP_WAIT_POLICY=passive "$work/fork" "$work/v.db" >"$work/out" 2>"$work/said"
    rc=$? said=$(<"$work/said")
    expect "a host with LLVM's OpenMP that forks" 0
fi

# ---- the static one where both are, as README says, and alone
flags=$(pkg-config --static --cflags --libs isoface | sed 's/-lisoface/-l:libisoface.a/')
eval "must gcc -Wall -Werror \"\$work/app.c\" $flags -o \"\$work/both\""
same "$("$work/both" "$work/v.db" 2>&1)" up 'the static library beside the shared one'
rm "$prefix"/lib/*.so*
built static --static

# ---- what the dynamic linker is told, by an ldconfig that knows one folder
mkdir "$work/fake" "$work/known"
cat >"$work/fake/ldconfig" <<'END'
#!/bin/bash
if [[ $1 == -N ]]; then printf '%s: (from /etc/ld.so.conf:1)\n\tlibz.so.1 -> libz.so.1.2\n' "$KNOWN"; exit; fi
echo ran
exit "${REFUSES:-0}"
END
chmod +x "$work/fake/ldconfig"
# told WHAT REFUSES LIBDIR DESTDIR WANT
told() {
    local got
    got=$(PATH=$work/fake:$PATH KNOWN=$work/known/ REFUSES=$2 setup/ldconfig.sh "$3" "$4") || { echo "$1: failed"; failed=1; }
    has ".$got." "$5" "$1"
}
cd "$(dirname "$0")/.." || exit 1
told 'a known folder' 0 "$work/known" '' .ran.
told 'a known folder of root' 1 "$work/known" '' 'root has run ldconfig'
told 'an unknown folder' 0 "$prefix/lib" '' "-Wl,-rpath,${prefix// /\\ }/lib"
told 'a package' 0 "$work/known" "$work/stage" 'ldconfig has run where'
has "$("${MAKE:-make}" --no-print-directory -s install PREFIX="$prefix" DESTDIR= 2>&1)" 'LD_LIBRARY_PATH=' 'make install says what to do'

must "${MAKE:-make}" --no-print-directory -s uninstall PREFIX="$prefix" DESTDIR=
same "$(find "$prefix" ! -type d)" '' 'what uninstall leaves'
exit $failed
