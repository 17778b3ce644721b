#include "programs/encoding.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/progress.h"
#include "base/text.h"

typedef struct teller {
    iso_progress progress;
    bool started, quiet;
} teller;

static void tell_progress(void *ctx, int64_t done, int64_t total)
{
    teller *t = ctx;
    if (!t->started) iso_progress_start(&t->progress, "encoding", "images", total, t->quiet);
    t->started = true;
    iso_progress_step(&t->progress, done);
}

static void tell_skipped(void *ctx, const char *path, const char *reason)
{
    teller *t = ctx;
    char *name = iso_text_printable(path);
    iso_progress_say(t->started ? &t->progress : NULL, "skipped %s: %s", name ? name : "?", reason);
    free(name);
}

static iso_status encode(void *ctx, const uint8_t *pixels, int64_t n, float *vectors, iso_error *err)
{
    return iso_encoder_run(ctx, pixels, n, vectors, err);
}

iso_status iso_encoding_run(const iso_encoding *e, const iso_model *m, iso_encode_counts *out, iso_error *err)
{
    teller t = {.quiet = e->quiet};
    iso_encoder *encoder = NULL;
    iso_status status = iso_encoder_create_on(m, e->batch, e->backend, &encoder, err);
    if (status) return status;
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
                            .progress = tell_progress,
                            .tell_ctx = &t};
    status = iso_encode(&spec, out, err);
    if (t.started) iso_progress_end(&t.progress);
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
