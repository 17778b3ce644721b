/* model_copy.h: the model that a database keeps a copy of, so that it can encode by itself. */
#ifndef ISO_MODEL_COPY_H
#define ISO_MODEL_COPY_H

#include "indexer/store.h"
#include "model/model.h"

/* The model of a database, which is not one of imported vectors. Fails as iso_model_load does, or with ISO_E_MISMATCH: the copy is of
 * another model than the vectors. Where it is lost, damaged or another one the message says how to mend it. */
ISO_CHECK iso_status iso_model_copy_load(const iso_store *s, const iso_store_info *info, iso_model **out, iso_error *err);
/* Puts `m`, the model of the database at `dir`, in the place of a copy that is none of it. mended: whether there was one to be replaced. */
ISO_CHECK iso_status iso_model_copy_mend(const char *dir, iso_model *m, bool *mended, iso_error *err);

#endif
