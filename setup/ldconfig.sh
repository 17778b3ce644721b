#!/bin/bash
# After `make install`: the dynamic linker finds a new library when ldconfig has run, and in folders that ldconfig knows. Where that is not
# to be had, one line says what is left to do. Never fails.
#     setup/ldconfig.sh LIBDIR DESTDIR
PATH=$PATH:/usr/sbin:/sbin
libdir=$1

known() { ldconfig -N -X -v 2>/dev/null | while IFS=: read -r folder _; do [[ $folder -ef $libdir ]] && echo "$folder"; done | grep -q .; }

if [[ -n $2 ]]; then
    echo "Programs find libisoface.so when ldconfig has run where $libdir is in its place."
elif ! known; then
    printf 'Programs find libisoface.so when they are linked with -Wl,-rpath,%q too, or run with LD_LIBRARY_PATH=%q.\n' "$libdir" "$libdir"
elif ! ldconfig 2>/dev/null; then
    echo 'Programs find libisoface.so when root has run ldconfig.'
fi
exit 0
