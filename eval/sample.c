#include "eval/sample.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/philox.h"

enum { STREAM_SAMPLE = 0x40002 }; /* beside pullback.c's */

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

typedef struct sampler {
    const iso_sample_spec *spec;
    iso_sample *s;
    iso_listing list;
    char *image_dir;
    int64_t *order; /* the candidates' places in the list, as drawn */
    iso_error *err;
} sampler;

static iso_status choose(sampler *p, const char *partition_file, const iso_partition *partition)
{
    const iso_listing *l = &p->list;
    int64_t n = 0, *perm = iso_calloc(l->count, sizeof *perm), *place = iso_calloc(l->count, sizeof *place);
    iso_status status = ISO_OK;
    p->order = iso_calloc(l->count, sizeof *p->order);
    if (!perm || !place || !p->order) {
        status = iso_fail_memory(p->err);
        goto done;
    }
    for (size_t i = 0; i < l->count; i++)
        if (!iso_dataset_is_list(l->path[i]) && (p->s->part < 0 || iso_partition_find(partition, l->path[i]) == p->s->part))
            place[n++] = (int64_t)i;
    if (n == 0 && p->s->part < 0)
        status = iso_fail(p->err, ISO_E_ARGUMENT, "no images in %s: give a folder that holds JPEG or PNG files",
                          p->image_dir);
    else if (n == 0)
        status = iso_fail(p->err, ISO_E_ARGUMENT, "no image in %s is in part %d of %s: choose another --split",
                          p->image_dir, p->s->part, partition_file);
    if (status) goto done;
    iso_draw_permutation((iso_draw){p->spec->seed, STREAM_SAMPLE, 0}, n, perm);
    for (int64_t i = 0; i < n; i++) p->order[i] = place[perm[i]];
    p->s->candidates = n;
done:
    free(perm);
    free(place);
    return status;
}

/* Whether the folder has the partition file, or must. */
static iso_status find_candidates(sampler *p)
{
    char *own = iso_path_join(p->spec->dir, ISO_DATASET_PARTITION);
    iso_partition *partition = NULL;
    if (!own) return iso_fail_memory(p->err);
    iso_status status = ISO_OK;
    const char *file = p->spec->partition ? p->spec->partition : is_file(own) ? own : NULL;
    if (file)
        status = iso_partition_read(file, &partition, p->err);
    else if (p->spec->part >= 0)
        status = iso_fail(p->err, ISO_E_ARGUMENT,
                          "%s has no " ISO_DATASET_PARTITION ", so it has no part %d: give --partition FILE, or leave --split out",
                          p->spec->dir, p->spec->part);
    p->s->part = p->spec->part < 0 && file ? ISO_PART_VALID : p->spec->part;
    if (!status) status = iso_listing_read(p->image_dir, &p->list, p->err);
    if (!status) status = choose(p, file, partition);
    iso_partition_free(partition);
    free(own);
    return status;
}

/* --- decoding: rounds of as many as are missing, until there are enough or no more */

typedef struct round {
    int64_t first, count; /* of sampler.order */
    uint8_t *pixels;      /* [count, 64, 64, 3] */
    iso_decoding *image;  /* [count] */
} round;

static iso_status decode_round(sampler *p, round *r)
{
    for (int64_t i = 0; i < r->count; i++) r->image[i].path = p->list.path[p->order[r->first + i]];
    return iso_images_decode(p->image_dir, r->count, r->image, r->pixels, p->spec->threads, p->spec->progress, p->s->count, p->err);
}

/* Paths move over from the listing, reasons from the round. */
static iso_status keep_round(sampler *p, round *r, size_t *skips, size_t *reasons)
{
    iso_sample *s = p->s;
    for (int64_t i = 0; i < r->count; i++) {
        char **path = &p->list.path[p->order[r->first + i]];
        if (!r->image[i].reason) {
            memcpy(s->pixels + s->count * ISO_PIXELS, r->pixels + i * ISO_PIXELS, ISO_PIXELS);
            s->path[s->count++] = *path;
        } else {
            size_t n = (size_t)s->skipped + 1;
            if (!iso_grow(&s->skip_path, skips, n, sizeof *s->skip_path) ||
                !iso_grow(&s->skip_reason, reasons, n, sizeof *s->skip_reason))
                return iso_fail_memory(p->err);
            s->skip_path[s->skipped] = *path;
            s->skip_reason[s->skipped++] = r->image[i].reason;
            r->image[i].reason = NULL;
        }
        *path = NULL;
    }
    return ISO_OK;
}

static iso_status decode(sampler *p)
{
    iso_sample *s = p->s;
    int64_t wanted = p->spec->count < s->candidates ? p->spec->count : s->candidates, at = 0;
    size_t skips = 0, reasons = 0;
    iso_status status = ISO_OK;
    s->pixels = iso_calloc((size_t)wanted, ISO_PIXELS);
    s->path = iso_calloc((size_t)wanted, sizeof *s->path);
    if (!s->pixels || !s->path) return iso_fail_memory(p->err);
    iso_progress_pass(p->spec->progress, "decoding", "images", wanted);
    while (!status && s->count < wanted && at < s->candidates) {
        int64_t missing = wanted - s->count, left = s->candidates - at;
        round r = {.first = at, .count = missing < left ? missing : left};
        at += r.count;
        r.pixels = iso_calloc((size_t)r.count, ISO_PIXELS);
        r.image = iso_calloc((size_t)r.count, sizeof *r.image);
        status = r.pixels && r.image ? decode_round(p, &r) : iso_fail_memory(p->err);
        if (!status) status = keep_round(p, &r, &skips, &reasons);
        for (int64_t i = 0; r.image && i < r.count; i++) free(r.image[i].reason);
        free(r.image);
        free(r.pixels);
    }
    if (!status && s->count == 0)
        status = iso_fail(p->err, ISO_E_ARGUMENT, "no usable image in %s: %" PRId64 " skipped, the first: %s: %s",
                          p->image_dir, s->skipped, s->skip_path[0], s->skip_reason[0]);
    return status;
}

iso_status iso_sample_load(const iso_sample_spec *spec, iso_sample **out, iso_error *err)
{
    if (!spec->dir[0]) return iso_fail(err, ISO_E_ARGUMENT, "the folder of images has an empty name");
    if (spec->count < 1) return iso_fail(err, ISO_E_ARGUMENT, "at least one image must be asked for");
    sampler p = {.spec = spec, .err = err};
    p.s = iso_calloc(1, sizeof *p.s);
    p.image_dir = iso_dataset_image_dir(spec->dir);
    iso_status status = p.s && p.image_dir ? find_candidates(&p) : iso_fail_memory(err);
    if (!status) status = decode(&p);
    if (!status) {
        *out = p.s;
        p.s = NULL;
    }
    iso_sample_free(p.s);
    iso_listing_free(&p.list);
    free(p.image_dir);
    free(p.order);
    return status;
}

void iso_sample_free(iso_sample *s)
{
    if (!s) return;
    for (int64_t i = 0; s->path && i < s->count; i++) free(s->path[i]);
    for (int64_t i = 0; i < s->skipped; i++) {
        free(s->skip_path[i]);
        free(s->skip_reason[i]);
    }
    free(s->path);
    free(s->pixels);
    free(s->skip_path);
    free(s->skip_reason);
    free(s);
}

/* --- attributes */

/* "A, B, C" as far as it fits. */
static void list_names(const iso_attributes *a, size_t room, char *out)
{
    size_t used = 0;
    for (int i = 0; i < iso_attributes_count(a); i++) {
        const char *name = iso_attributes_name(a, i);
        size_t n = strlen(name);
        if (used + n + sizeof ", " + sizeof ", ..." > room) {
            strcpy(out + used, ", ...");
            return;
        }
        if (used) memcpy(out + used, ", ", 2), used += 2;
        memcpy(out + used, name, n + 1);
        used += n;
    }
}

static iso_status find_column(const iso_attributes *a, const char *name, int *column, iso_error *err)
{
    for (int i = 0; i < iso_attributes_count(a); i++)
        if (strcmp(iso_attributes_name(a, i), name) == 0) {
            *column = i;
            return ISO_OK;
        }
    char known[700] = "";
    list_names(a, sizeof known, known);
    return iso_fail(err, ISO_E_NOT_FOUND, "no attribute is called '%.100s'; there are %s", name, known);
}

iso_status iso_sample_groups(const iso_sample *s, const char *dir, const char *file, int names, const char *const *name,
                             int *group, int64_t *unlisted, iso_error *err)
{
    char *own = iso_path_join(dir, ISO_DATASET_ATTRIBUTES);
    iso_attributes *a = NULL;
    int *column = iso_calloc((size_t)names, sizeof *column);
    iso_status status = own && column ? ISO_OK : iso_fail_memory(err);
    if (!status && !file && !is_file(own))
        status = iso_fail(err, ISO_E_NOT_FOUND,
                          "%s has no " ISO_DATASET_ATTRIBUTES
                          ", so it has no attributes to colour by: leave --attribute out, or give --attributes FILE",
                          dir);
    if (!status) status = iso_attributes_read(file ? file : own, &a, err);
    for (int k = 0; k < names && !status; k++) status = find_column(a, name[k], &column[k], err);
    if (status) goto done;
    int64_t missed = 0;
    for (int64_t i = 0; i < s->count; i++) {
        const uint8_t *row = iso_attributes_find(a, s->path[i]);
        group[i] = -1;
        missed += row == NULL;
        for (int k = names - 1; k >= 0 && row; k--)
            if (row[column[k]]) group[i] = k;
    }
    *unlisted = missed;
done:
    iso_attributes_free(a);
    free(column);
    free(own);
    return status;
}
