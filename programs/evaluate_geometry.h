/* evaluate_geometry.h: what `evaluate geometry` prints. */
#ifndef ISO_PROGRAMS_EVALUATE_GEOMETRY_H
#define ISO_PROGRAMS_EVALUATE_GEOMETRY_H

#include "eval/pullback.h"
#include "eval/sample.h"

typedef struct iso_geometry_report {
    const char *model_path, *images; /* as given */
    const iso_model *model;
    const iso_sample *sample;
    const iso_pullback *pullback;
    double eta;
    uint64_t seed;
} iso_geometry_report;

void iso_geometry_table(const iso_geometry_report *r);
void iso_geometry_json(const iso_geometry_report *r);

#endif
