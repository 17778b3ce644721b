/* vindex_faiss.h: what vindex.c and vindex_file.c share; nobody else includes it. */
#ifndef ISO_VINDEX_FAISS_H
#define ISO_VINDEX_FAISS_H

#include <faiss/c_api/Index_c.h>
#include "retriever/vindex.h"

struct iso_vindex {
    iso_vindex_info info;
    uint64_t *ids;       /* [count] by position, ascending */
    FaissIndex *faiss;
    bool direct_map;     /* ivf: the table that reconstruction needs is there */
};

/* FAISS's last error of this thread as a status. */
iso_status iso_vindex_faiss_fail(iso_error *err, const char *doing);

#endif
