/* examples.c: images of a query become vectors: from the database where it holds the same bytes, else by its model. */
#include "retriever/examples.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "indexer/dataset.h"
#include "indexer/model_copy.h"

enum { BATCH = 16 }; /* images in memory at a time, and in one run of the encoder */

char *iso_db_file(const iso_db *db, const char *path)
{
    const char *root = iso_db_root(db);
    if (path[0] == '/' || !root[0]) return iso_strndup(path, strlen(path));
    return iso_path_join(root, path);
}

iso_status iso_examples_add(iso_query *q, iso_sign sign, const iso_example *example, const float *vector, iso_error *err)
{
    iso_examples *set = &q->set[sign];
    size_t dim = (size_t)q->db->info.dim;
    char *file = NULL;
    if (!iso_grow(&set->item, &set->item_room, set->count + 1, sizeof *set->item) ||
        !iso_grow(&set->vector, &set->vector_room, (set->count + 1) * dim, sizeof *set->vector))
        return iso_fail_memory(err);
    if (example->file && !(file = iso_strndup(example->file, strlen(example->file)))) return iso_fail_memory(err);
    memcpy(set->vector + set->count * dim, vector, dim * sizeof *vector);
    set->item[set->count] = *example;
    set->item[set->count++].file = file;
    return ISO_OK;
}

static void free_pending(iso_pending *p)
{
    free(p->path);
    free(p->file);
}

iso_query_extent iso_query_extent_of(const iso_query *q)
{
    return (iso_query_extent){{q->set[0].count, q->set[1].count}, q->pendings, q->skips};
}

void iso_query_cut(iso_query *q, iso_query_extent to)
{
    for (int sign = 0; sign < 2; sign++)
        while (q->set[sign].count > to.count[sign]) free(q->set[sign].item[--q->set[sign].count].file);
    while (q->pendings > to.pendings) free_pending(&q->pending[--q->pendings]);
    while (q->skips > to.skips) {
        free(q->skip[--q->skips].path);
        free(q->skip[q->skips].reason);
    }
}

/* ---- adding ---- */

static iso_status add_skip(iso_query *q, iso_sign sign, const char *path, const char *reason, iso_error *err)
{
    if (!iso_grow(&q->skip, &q->skip_room, q->skips + 1, sizeof *q->skip)) return iso_fail_memory(err);
    iso_skip s = {iso_strndup(path, strlen(path)), iso_strndup(reason, strlen(reason)), sign};
    if (!s.path || !s.reason) {
        free(s.path);
        free(s.reason);
        return iso_fail_memory(err);
    }
    q->skip[q->skips++] = s;
    return ISO_OK;
}

/* Takes over `path`. */
static iso_status add_pending(iso_query *q, iso_sign sign, char *path, iso_error *err)
{
    iso_status st = ISO_OK;
    char *file = path ? iso_path_absolute(path) : NULL;
    if (path && !file) st = iso_fail_errno(err, "cannot tell where %s is", path);
    else if (!path || !iso_grow(&q->pending, &q->pending_room, q->pendings + 1, sizeof *q->pending)) st = iso_fail_memory(err);
    if (st == ISO_OK) {
        q->pending[q->pendings++] = (iso_pending){path, file, sign};
        return ISO_OK;
    }
    free(path);
    free(file);
    return st;
}

static iso_status add_folder(iso_query *q, iso_sign sign, const char *path, iso_error *err)
{
    iso_listing list = {0};
    iso_error why;
    char *images = iso_dataset_image_dir(path); /* a data set in CelebA's layout keeps them one folder down */
    if (!images) return iso_fail_memory(err);
    iso_status st = iso_listing_read(images, &list, &why);
    free(images);
    if (st == ISO_E_MEMORY) return iso_fail_memory(err);
    if (st == ISO_E_INTERRUPTED) return iso_fail(err, st, "%s", why.message);
    if (st != ISO_OK) return add_skip(q, sign, path, why.message, err);
    const iso_query_extent before = iso_query_extent_of(q);
    if (list.count + list.skipped == 0) st = add_skip(q, sign, path, "a folder without files", err);
    for (size_t i = 0; st == ISO_OK && i < list.skipped; i++) {
        char *skipped = iso_path_join(list.root, list.skip_path[i]);
        st = skipped ? add_skip(q, sign, skipped, list.skip_reason[i], err) : iso_fail_memory(err);
        free(skipped);
    }
    for (size_t i = 0; st == ISO_OK && i < list.count; i++)
        if (!iso_dataset_is_list(list.path[i])) st = add_pending(q, sign, iso_path_join(list.root, list.path[i]), err);
    if (st != ISO_OK) iso_query_cut(q, before);
    iso_listing_free(&list);
    return st;
}

iso_status iso_query_add_path(iso_query *q, iso_sign sign, const char *path, iso_error *err)
{
    struct stat s;
    if (sign != ISO_LIKE && sign != ISO_UNLIKE) return iso_fail(err, ISO_E_ARGUMENT, "an example is either like or unlike");
    if (!path || !path[0]) return iso_fail(err, ISO_E_ARGUMENT, "an empty path");
    if (iso_path_stat(path, &s) == 0 && S_ISDIR(s.st_mode)) return iso_settle(err, add_folder(q, sign, path, err));
    return iso_settle(err, add_pending(q, sign, iso_strndup(path, strlen(path)), err)); /* what is wrong with it is said on reading */
}

iso_status iso_query_add_vector(iso_query *q, iso_sign sign, const float *vector, int dim, iso_error *err)
{
    iso_example example = {0};
    if (sign != ISO_LIKE && sign != ISO_UNLIKE) return iso_fail(err, ISO_E_ARGUMENT, "an example is either like or unlike");
    if (!vector) return iso_fail(err, ISO_E_ARGUMENT, "an example without its vector");
    if (dim != q->db->info.dim)
        return iso_fail(err, ISO_E_ARGUMENT, "a vector of %d numbers for a database whose vectors have %d", dim, q->db->info.dim);
    return iso_settle(err, iso_examples_add(q, sign, &example, vector, err));
}

iso_status iso_query_add_id(iso_query *q, iso_sign sign, uint64_t id, iso_error *err)
{
    iso_txn *txn = NULL;
    iso_item item;
    const float *z;
    if (sign != ISO_LIKE && sign != ISO_UNLIKE) return iso_fail(err, ISO_E_ARGUMENT, "an example is either like or unlike");
    iso_status st = iso_txn_begin(q->db->store, false, &txn, err);
    if (st != ISO_OK) return st;
    st = iso_item_get(txn, id, &item, err);
    if (st == ISO_E_NOT_FOUND)
        st = iso_fail(err, st, "the database %s has no item %llu", iso_store_dir(q->db->store), (unsigned long long)id);
    if (st == ISO_OK) st = iso_item_vector(txn, id, &z, err);
    if (st == ISO_OK) {
        iso_example example = {.hash = {item.hash[0], item.hash[1]}, .id = id, .by_id = true};
        example.file = iso_db_file(q->db, item.path);
        st = example.file ? iso_examples_add(q, sign, &example, z, err) : iso_fail_memory(err);
        free(example.file);
    }
    iso_txn_abort(txn);
    return iso_settle(err, st);
}

/* ---- the model ---- */

/* With db->lock held. */
static iso_status load_model(iso_db *db, iso_error *err)
{
    iso_model *model = NULL;
    iso_encoder *encoder = NULL;
    if (db->encoder) return ISO_OK;
    if (!db->info.model[0])
        return iso_fail(err, ISO_E_UNSUPPORTED, "the database %s holds imported vectors and no model to encode images with: query by id", iso_store_dir(db->store));
    iso_status st = iso_model_copy_load(db->store, &db->info, &model, err);
    if (st == ISO_OK) st = iso_encoder_create(model, BATCH, &encoder, err);
    if (st == ISO_OK) {
        db->model = model;
        db->encoder = encoder;
    } else iso_model_free(model);
    return st;
}

/* ---- reading ---- */

typedef struct slot {  /* one image of a batch */
    const iso_pending *from;
    iso_image_file file;
    bool stored, bad;
    iso_error why;     /* with bad */
} slot;

typedef struct batch {
    slot slot[BATCH];
    uint8_t *pixels;   /* [BATCH, ISO_PIXELS], of those to encode */
    float *vector;     /* [BATCH, dim], by slot */
    int count;
} batch;

static iso_status look_up(iso_query *q, batch *b, iso_error *err)
{
    iso_txn *txn = NULL;
    iso_item item;
    const float *z;
    size_t dim = (size_t)q->db->info.dim;
    iso_status st = iso_txn_begin(q->db->store, false, &txn, err);
    for (int i = 0; st == ISO_OK && i < b->count; i++) {
        slot *s = &b->slot[i];
        if (s->bad) continue;
        st = iso_item_by_hash(txn, s->file.hash, &item, err);
        if (st == ISO_OK) st = iso_item_vector(txn, item.id, &z, err);
        if (st == ISO_OK) {
            memcpy(b->vector + (size_t)i * dim, z, dim * sizeof *z);
            s->stored = true;
        } else if (st == ISO_E_NOT_FOUND) st = ISO_OK;
    }
    if (txn) iso_txn_abort(txn);
    return st;
}

/* Encodes the slots `which` [n], whose pixels lie in order. A batch that fails is done one by one, to name the image. */
static iso_status encode(iso_query *q, batch *b, const int *which, int n, iso_error *err)
{
    size_t dim = (size_t)q->db->info.dim;
    float *out = iso_calloc((size_t)n, dim * sizeof *out);
    if (!out) return iso_fail_memory(err);
    pthread_mutex_lock(&q->db->lock);
    iso_status st = load_model(q->db, err);
    if (st == ISO_OK) {
        st = iso_encoder_run(q->db->encoder, b->pixels, n, out, err);
        for (int i = 0; st == ISO_E_NUMERIC && i < n; i++) {
            iso_status one = iso_encoder_run(q->db->encoder, b->pixels + (size_t)i * ISO_PIXELS, 1, out + (size_t)i * dim, err);
            if (one == ISO_OK) continue;
            (void)iso_fail_prefix(err, one, "%s", b->slot[which[i]].from->path);
            break;
        }
    }
    pthread_mutex_unlock(&q->db->lock);
    for (int i = 0; st == ISO_OK && i < n; i++) memcpy(b->vector + (size_t)which[i] * dim, out + (size_t)i * dim, dim * sizeof *out);
    free(out);
    return st;
}

static iso_status decode_and_encode(iso_query *q, batch *b, iso_error *err)
{
    int which[BATCH], n = 0;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < b->count; i++) {
        slot *s = &b->slot[i];
        iso_image_info info;
        if (s->bad || s->stored) continue;
        s->bad = iso_image_file_decode(&s->file, b->pixels + (size_t)i * ISO_PIXELS, &info, &s->why) != ISO_OK;
    }
    for (int i = 0; i < b->count; i++) {
        if (b->slot[i].bad && b->slot[i].why.status == ISO_E_MEMORY) /* says nothing of the image */
            return iso_fail(err, ISO_E_MEMORY, "%s: %s", b->slot[i].from->path, b->slot[i].why.message);
        if (b->slot[i].bad || b->slot[i].stored) continue;
        memmove(b->pixels + (size_t)n * ISO_PIXELS, b->pixels + (size_t)i * ISO_PIXELS, ISO_PIXELS);
        which[n++] = i;
    }
    return n ? encode(q, b, which, n, err) : ISO_OK;
}

/* All of it or nothing, for what fails is read again. */
static iso_status read_batch(iso_query *q, batch *b, iso_error *err)
{
    const iso_query_extent before = iso_query_extent_of(q);
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < b->count; i++) b->slot[i].bad = iso_image_file_read(b->slot[i].from->file, &b->slot[i].file, &b->slot[i].why) != ISO_OK;
    iso_status st = look_up(q, b, err);
    if (st == ISO_OK) st = decode_and_encode(q, b, err);
    for (int i = 0; st == ISO_OK && i < b->count; i++) {
        slot *s = &b->slot[i];
        if (s->bad) {
            st = add_skip(q, s->from->sign, s->from->path, s->why.message, err);
            continue;
        }
        iso_example example = {.file = s->from->path, .hash = {s->file.hash[0], s->file.hash[1]}};
        st = iso_examples_add(q, s->from->sign, &example, b->vector + (size_t)i * (size_t)q->db->info.dim, err);
    }
    if (st != ISO_OK) iso_query_cut(q, before);
    for (int i = 0; i < b->count; i++) iso_image_file_free(&b->slot[i].file);
    return st;
}

iso_status iso_query_read(iso_query *q, iso_error *err)
{
    iso_status st = ISO_OK;
    if (q->pendings == 0) return iso_settle(err, ISO_OK);
    batch *b = iso_calloc(1, sizeof *b);
    if (!b) return iso_fail_memory(err);
    b->pixels = iso_calloc(BATCH, ISO_PIXELS);
    b->vector = iso_calloc(BATCH, sizeof(float) * (size_t)q->db->info.dim);
    if (!b->pixels || !b->vector) st = iso_fail_memory(err);
    size_t done = 0;
    iso_progress_pass(q->progress, "reading examples", "images", (int64_t)q->pendings);
    while (st == ISO_OK && done < q->pendings) {
        memset(b->slot, 0, sizeof b->slot);
        b->count = q->pendings - done < BATCH ? (int)(q->pendings - done) : BATCH;
        for (int i = 0; i < b->count; i++) b->slot[i].from = &q->pending[done + (size_t)i];
        st = iso_interrupted() ? iso_fail(err, ISO_E_INTERRUPTED, "interrupted while the examples were read") : read_batch(q, b, err);
        if (st == ISO_OK) iso_progress_step(q->progress, (int64_t)(done += (size_t)b->count));
    }
    for (size_t i = 0; i < done; i++) free_pending(&q->pending[i]); /* what failed stays, to be tried again */
    if (done) memmove(q->pending, q->pending + done, sizeof *q->pending * (q->pendings - done));
    q->pendings -= done;
    free(b->pixels);
    free(b->vector);
    free(b);
    return iso_settle(err, st);
}
