#include "programs/encoding.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/progress.h"
#include "base/text.h"

static void tell_skipped(void *ctx, const char *path, const char *reason)
{
    char *name = iso_text_printable(path);
    iso_progress_say(ctx, "skipped %s: %s", name ? name : "?", reason);
    free(name);
}

static iso_status encode(void *ctx, const uint8_t *pixels, int64_t n, float *vectors, iso_error *err)
{
    return iso_encoder_run(ctx, pixels, n, vectors, err);
}

iso_status iso_encoding_run(const iso_encoding *e, const iso_model *m, iso_encode_counts *out, iso_error *err)
{
    iso_progress progress;
    iso_encoder *encoder = NULL;
    iso_status status = iso_encoder_create_on(m, e->batch, e->backend, &encoder, err);
    if (status) return status;
    iso_progress_open(&progress, e->quiet);
    iso_encode_spec spec = {.images = e->images,
                            .db = e->db,
                            .dim = iso_model_dim(m),
                            .digest = iso_model_digest(m),
                            .model = e->model,
                            .batch = e->batch,
                            .threads = e->threads,
                            .prune = e->prune,
                            .relocate = e->relocate,
                            .overlap = e->backend && e->backend->device,
                            .encode = encode,
                            .encode_ctx = encoder,
                            .skipped = tell_skipped,
                            .skipped_ctx = &progress,
                            .progress = &progress};
    status = iso_encode(&spec, out, err);
    iso_progress_end(&progress);
    iso_encoder_free(encoder);
    return status;
}

void iso_encoding_rate(const iso_encode_counts *n)
{
    char took[32];
    if (n->encoded && n->seconds > 0)
        fprintf(stderr, "encoded %lld images in %s (%.0f a second)\n", (long long)n->encoded,
                iso_duration(n->seconds, took), (double)n->encoded / n->seconds);
}
