/* store_fail.c: what LMDB's codes mean to a person. */
#include <errno.h>

#include "indexer/store_internal.h"

iso_status iso_lmdb_fail(iso_error *err, int code, const char *dir, const char *doing)
{
    switch (code) {
    case ENOMEM:
        return iso_fail(err, ISO_E_MEMORY, "cannot %s %s: out of memory or address space (see ulimit -v)", doing, dir);
    case ENOSPC: case EDQUOT: case EFBIG:
        return iso_fail(err, ISO_E_IO, "cannot %s %s: %s: make room and run again; what was committed before is kept", doing, dir, strerror(code));
    case EIO: /* LMDB's code for a short write, too */
        return iso_fail(err, ISO_E_IO, "cannot %s %s: the disk is full or failing; what was committed before is kept", doing, dir);
    case EACCES: case EROFS: case EPERM:
        return iso_fail(err, ISO_E_IO, "cannot %s %s: %s", doing, dir, strerror(code));
    case ESTALE:
        return iso_fail(err, ISO_E_MISMATCH, "cannot %s %s: its data.mdb was replaced meanwhile (by the first change, where it is on an overlay, as containers have it): "
                        "close it and open it again", doing, dir);
    case ENODEV:
        return iso_fail(err, ISO_E_IO, "cannot %s %s: its file system cannot share a file that is mapped into memory (%s), as LMDB needs it: put the database on another",
                        doing, dir, strerror(code));
    case MDB_MAP_FULL: case MDB_TXN_FULL:
        return iso_fail(err, ISO_E_IO, "cannot %s %s: one transaction is too large: nothing of it was stored; commit more often", doing, dir);
    case MDB_READERS_FULL:
        return iso_fail(err, ISO_E_IO, "cannot %s %s: too many readers at once: close some", doing, dir);
    case MDB_MAP_RESIZED:
        return iso_fail(err, ISO_E_IO, "cannot %s %s: it has grown while other transactions here are open: close them and try again", doing, dir);
    case MDB_PANIC:
        return iso_fail(err, ISO_E_IO, "cannot %s %s: it was given up after an earlier failure (of the disk, or for want of address space): close it and open it again", doing, dir);
    default:
        if (code > 0) return iso_fail(err, ISO_E_IO, "cannot %s %s: %s", doing, dir, strerror(code));
        return iso_fail(err, ISO_E_FORMAT, "cannot %s %s: the database is damaged (%s): restore it, or remove it and encode again",
                        doing, dir, mdb_strerror(code));
    }
}
