/* images.c: many images of a folder, decoded at once. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "indexer/image.h"

/* One of them; what fails here ends it all: out of memory, or of open files. */
static iso_status decode_one(const char *folder, iso_decoding *d, uint8_t *pixels, iso_error *err)
{
    iso_image_info info;
    char *path = iso_path_join(folder, d->path);
    if (!path) return iso_fail_memory(err);
    iso_status status = iso_image_read(path, pixels, &info, err);
    free(path);
    if (status == ISO_E_MEMORY) return status;
    if (status) return (d->reason = iso_strndup(err->message, strlen(err->message))) ? ISO_OK : iso_fail_memory(err);
    memcpy(d->hash, info.hash, sizeof d->hash);
    return ISO_OK;
}

iso_status iso_images_decode(const char *folder, int64_t n, iso_decoding *image, uint8_t *pixels, int threads, iso_progress *progress, int64_t before,
                             iso_error *err)
{
    int64_t done = before;
    int stop = 0; /* 1: short of memory or of open files, 2: interrupted */
    iso_error short_of = {0};
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads > 0 ? threads : omp_get_max_threads())
    for (int64_t i = 0; i < n; i++) {
        int seen, why = 0;
        int64_t now;
        iso_error error;
#pragma omp atomic read
        seen = stop;
        if (seen) continue;
        if (iso_interrupted()) why = 2;
        else if (decode_one(folder, &image[i], pixels + i * ISO_PIXELS, &error)) {
            why = 1;
#pragma omp critical(iso_images_short)
            (void)iso_fail(&short_of, ISO_E_MEMORY, "%s: %s", image[i].path, error.message);
        }
        if (why) {
#pragma omp atomic write
            stop = why;
        }
#pragma omp atomic capture
        now = ++done;
        if (omp_get_thread_num() == 0) iso_progress_step(progress, now);
    }
    if (stop == 1) return iso_fail(err, ISO_E_MEMORY, "%s", short_of.message);
    if (stop == 2) return iso_fail(err, ISO_E_INTERRUPTED, "interrupted while decoding images");
    return ISO_OK;
}
