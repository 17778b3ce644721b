/* output.h: the file of a model that is made at once, not by steps: no state to resume, nothing to see before the end. */
#ifndef ISO_OUTPUT_H
#define ISO_OUTPUT_H

#include "model/model.h"

/* Whether path can be written and is free, or force is set. A caller may ask before it decodes images. ISO_E_ARGUMENT: there is a
 * model, or a PATH.state of one. */
ISO_CHECK iso_status iso_output_check(const char *path, bool force, iso_error *err);

/* Saves. With force, a PATH.state and PATH.csv of a model that was there are removed: --resume must not go on with them. */
ISO_CHECK iso_status iso_output_save(iso_model *m, const char *path, bool force, iso_error *err);

#endif
