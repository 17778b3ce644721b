/* vindex_faiss.h: FAISS's errors as ours. FAISS is reached through its C API only, and only from vindex_hnsw.c and
 * vindex_kmeans.c. */
#ifndef ISO_VINDEX_FAISS_H
#define ISO_VINDEX_FAISS_H

#include "base/error.h"

/* FAISS's last error of this thread as a status: "FAISS failed while <doing>: <its reason>". */
iso_status iso_vindex_faiss_fail(iso_error *err, const char *doing);

#endif
