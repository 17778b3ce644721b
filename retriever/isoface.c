/* isoface.c: the public API of include/isoface.h over store, examples and search. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/progress.h"
#include "retriever/examples.h"
#include "retriever/scorer.h"

/* ---- databases ---- */

static iso_status read_info(iso_db *db, iso_error *err)
{
    iso_txn *txn = NULL;
    char *root = NULL;
    if (!iso_grow(&db->root, &db->root_room, db->roots + 1, sizeof *db->root)) return iso_fail_memory(err);
    iso_status st = iso_txn_begin(db->store, false, &txn, err);
    if (st != ISO_OK) return st;
    st = iso_store_root(txn, &root, err);
    if (st == ISO_OK) db->info = iso_store_info_get(txn);
    iso_txn_abort(txn);
    if (st != ISO_OK) return st;
    if (db->roots && strcmp(iso_db_root(db), root) == 0) free(root);
    else db->root[db->roots++] = root;
    return ISO_OK;
}

iso_status iso_db_open_telling(const char *dir, const iso_index_talk *talk, iso_db **out, iso_error *err)
{
    iso_db *db = iso_calloc(1, sizeof *db);
    if (!db) return iso_fail_memory(err);
    pthread_mutex_init(&db->lock, NULL);
    iso_status st = iso_store_open(dir, ISO_STORE_READ, NULL, &db->store, err);
    if (st == ISO_OK) st = iso_searcher_open_telling(db->store, talk, &db->searcher, err);
    if (st == ISO_OK) st = read_info(db, err); /* now: an index may have been waited for, and what was added meanwhile is in it */
    if (st == ISO_OK) *out = db;
    else iso_db_close(db);
    return iso_settle(err, st);
}

iso_status iso_db_open(const char *dir, iso_db **out, iso_error *err) { return iso_db_open_telling(dir, NULL, out, err); }

void iso_db_close(iso_db *db)
{
    if (!db) return;
    iso_encoder_free(db->encoder);
    iso_model_free(db->model);
    iso_searcher_free(db->searcher);
    if (db->store) iso_store_close(db->store);
    for (size_t i = 0; i < db->roots; i++) free(db->root[i]);
    free(db->root);
    pthread_mutex_destroy(&db->lock);
    free(db);
}

iso_status iso_db_refresh(iso_db *db, iso_error *err)
{
    iso_status st = iso_searcher_refresh(db->searcher, err);
    if (st == ISO_OK) st = read_info(db, err);
    return iso_settle(err, st);
}

uint64_t iso_db_count(const iso_db *db) { return db->info.count; }
int iso_db_dim(const iso_db *db) { return db->info.dim; }
const char *iso_db_digest(const iso_db *db) { return db->info.digest; }
const char *iso_db_root(const iso_db *db) { return db->root[db->roots - 1]; }
const char *iso_db_note(const iso_db *db) { return iso_searcher_note(db->searcher); }

void iso_interrupt(int on) { iso_interrupt_set(on != 0); }

/* ---- queries ---- */

iso_status iso_query_create(iso_db *db, iso_query **out, iso_error *err)
{
    if (!db) return iso_fail(err, ISO_E_ARGUMENT, "a query needs a database");
    iso_query *q = iso_calloc(1, sizeof *q);
    if (!q) return iso_fail_memory(err);
    q->db = db;
    *out = q;
    return iso_settle(err, ISO_OK);
}

void iso_query_free(iso_query *q)
{
    if (!q) return;
    iso_query_cut(q, (iso_query_extent){.skips = 0});
    for (int sign = 0; sign < 2; sign++) {
        free(q->set[sign].item);
        free(q->set[sign].vector);
    }
    free(q->pending);
    free(q->skip);
    free(q);
}

int64_t iso_query_count(const iso_query *q, iso_sign sign)
{
    return sign == ISO_LIKE || sign == ISO_UNLIKE ? (int64_t)q->set[sign].count : 0;
}

const char *iso_query_file(const iso_query *q, iso_sign sign, int64_t i)
{
    return i >= 0 && i < iso_query_count(q, sign) ? q->set[sign].item[i].file : NULL;
}

int64_t iso_query_skipped(const iso_query *q) { return (int64_t)q->skips; }

void iso_query_skip(const iso_query *q, int64_t i, const char **path, const char **reason)
{
    const iso_skip none = {.path = NULL}, *skip = i >= 0 && i < iso_query_skipped(q) ? &q->skip[i] : &none;
    *path = skip->path;
    *reason = skip->reason;
}

/* ---- answers ---- */

struct iso_answer {
    iso_result *result;
    int64_t count;
    iso_scoring scorer;
    bool exact;
};

void iso_answer_free(iso_answer *a)
{
    if (!a) return;
    for (int64_t i = 0; i < a->count; i++) {
        free((char *)(uintptr_t)a->result[i].path);
        free((char *)(uintptr_t)a->result[i].file);
    }
    free(a->result);
    free(a);
}

int64_t iso_answer_count(const iso_answer *a) { return a->count; }
const iso_result *iso_answer_result(const iso_answer *a, int64_t i) { return i >= 0 && i < a->count ? &a->result[i] : NULL; }
iso_scoring iso_answer_scorer(const iso_answer *a) { return a->scorer; }
int iso_answer_exact(const iso_answer *a) { return a->exact; }

/* Names the image where the scorer would only say a number. */
static iso_status check_directions(const iso_query *q, iso_error *err)
{
    size_t dim = (size_t)q->db->info.dim;
    for (int sign = 0; sign < 2; sign++)
        for (size_t i = 0; i < q->set[sign].count; i++) {
            const float *z = q->set[sign].vector + i * dim;
            const char *file = q->set[sign].item[i].file;
            if (!iso_vector_fault((int)dim, z)) continue;
            const char *what = isfinite(iso_vector_squares((int)dim, z)) ? "is a vector of zeros, which points nowhere" : "holds a number that is not finite";
            if (file) return iso_fail(err, ISO_E_NUMERIC, "the vector of %s %s: leave this example out", file, what);
            return iso_fail(err, ISO_E_NUMERIC, "example %zu %s: leave it out", i + 1, what);
        }
    return ISO_OK;
}

/* ---- leaving out the examples themselves ---- */

typedef struct shunned { /* sorted */
    uint64_t (*hash)[2];
    uint64_t *id;
    size_t hashes, ids;
} shunned;

static int compare_hashes(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    if (x[0] != y[0]) return x[0] < y[0] ? -1 : 1;
    return x[1] < y[1] ? -1 : x[1] > y[1];
}

static iso_status shun_examples(const iso_query *q, shunned *out, iso_error *err)
{
    size_t n = q->set[0].count + q->set[1].count;
    out->hash = iso_calloc(n, sizeof *out->hash);
    out->id = iso_calloc(n, sizeof *out->id);
    if (!out->hash || !out->id) return iso_fail_memory(err);
    for (int sign = 0; sign < 2; sign++)
        for (size_t i = 0; i < q->set[sign].count; i++) {
            const iso_example *e = &q->set[sign].item[i];
            if (e->by_id) out->id[out->ids++] = e->id;
            if (e->hash[0] || e->hash[1]) memcpy(out->hash[out->hashes++], e->hash, sizeof e->hash);
        }
    qsort(out->hash, out->hashes, sizeof *out->hash, compare_hashes);
    qsort(out->id, out->ids, sizeof *out->id, iso_ids_order);
    return ISO_OK;
}

/* Turns hits into results up to k, without the shunned ones and those that went away meanwhile. */
static iso_status collect(iso_query *q, const iso_hit *hits, int64_t found, int64_t k, const shunned *out_of, iso_answer *a, iso_error *err)
{
    iso_txn *txn = NULL;
    iso_item item;
    iso_status st = iso_txn_begin(q->db->store, false, &txn, err);
    for (int64_t i = 0; st == ISO_OK && i < found && a->count < k; i++) {
        st = iso_item_get(txn, hits[i].id, &item, err);
        if (st == ISO_E_NOT_FOUND) {
            st = ISO_OK;
            continue;
        }
        if (st != ISO_OK) break;
        if (out_of->hashes && bsearch(item.hash, out_of->hash, out_of->hashes, sizeof *out_of->hash, compare_hashes)) continue;
        iso_result *r = &a->result[a->count++];
        *r = (iso_result){.id = item.id, .score = hits[i].score, .path = iso_strndup(item.path, strlen(item.path)), .file = iso_db_file(q->db, item.path)};
        if (!r->path || !r->file) st = iso_fail_memory(err);
    }
    if (txn) iso_txn_abort(txn);
    return st;
}

static iso_status search(iso_query *q, const double *w, double offset, int64_t k, const shunned *out_of, iso_answer **out, iso_error *err)
{
    int64_t limit = (int64_t)q->db->info.count + q->db->info.count / 4 + 1024; /* room for what was added since; k may be anything */
    int64_t found = 0;
    if (k > limit) k = limit;
    for (int64_t want = k + (int64_t)out_of->hashes;; want *= 2) {
        iso_answer *a = iso_calloc(1, sizeof *a);
        iso_hit *hits = iso_calloc((size_t)want, sizeof *hits);
        if (a) a->result = iso_calloc((size_t)k, sizeof *a->result);
        iso_status st = a && hits && a->result ? ISO_OK : iso_fail_memory(err);
        if (st == ISO_OK) st = iso_search(q->db->searcher, w, offset, want, (int64_t)out_of->ids, out_of->id, hits, &found, &a->exact, err);
        if (st == ISO_OK) st = collect(q, hits, found, k, out_of, a, err);
        free(hits);
        if (st == ISO_OK && (a->count == k || found < want)) {
            *out = a;
            return ISO_OK;
        }
        iso_answer_free(a); /* many copies of the examples: ask for more */
        if (st != ISO_OK) return st;
    }
}

static iso_status no_example(const iso_query *q, iso_error *err)
{
    const iso_skip *first = NULL;
    size_t skips = 0;
    for (size_t i = q->skips; i-- > 0;)
        if (q->skip[i].sign == ISO_LIKE) first = &q->skip[i], skips++;
    if (!first) return iso_fail(err, ISO_E_ARGUMENT, "a query needs at least one example of what to find");
    return iso_fail(err, ISO_E_NOT_FOUND, "no usable example among %zu skipped: %.600s: %.200s", skips, first->path, first->reason);
}

/* The query vector, and which scorer it became. Auto falls back on sum where contrast cannot be: too many numbers in a vector,
 * or examples that nothing sets apart. */
static iso_status query_vector(iso_query *q, const iso_query_options *o, iso_scoring *scorer, double *w, double *offset, iso_error *err)
{
    int64_t n = (int64_t)q->set[ISO_LIKE].count, k = (int64_t)q->set[ISO_UNLIKE].count;
    const float *like = q->set[ISO_LIKE].vector, *unlike = q->set[ISO_UNLIKE].vector;
    bool choose = o->scorer == ISO_AUTO;
    *scorer = !choose ? o->scorer : n < ISO_AUTO_EXAMPLES ? ISO_SUM : ISO_CONTRAST;
    iso_status st = iso_searcher_query(q->db->searcher, *scorer, n, like, k, unlike, o->gamma, w, offset, err);
    if (!choose || *scorer == ISO_SUM || (st != ISO_E_NUMERIC && st != ISO_E_UNSUPPORTED)) return st;
    *scorer = ISO_SUM;
    return iso_searcher_query(q->db->searcher, *scorer, n, like, k, unlike, o->gamma, w, offset, err);
}

iso_status iso_query_run(iso_query *q, const iso_query_options *options, iso_answer **out, iso_error *err)
{
    shunned out_of = {0};
    if (!options) return iso_fail(err, ISO_E_ARGUMENT, "a query needs options: how many answers (k) at least");
    if (options->k < 1) return iso_fail(err, ISO_E_ARGUMENT, "k must be at least 1");
    if (!iso_scorer_name(options->scorer)) return iso_fail(err, ISO_E_ARGUMENT, "no such scorer: %d", (int)options->scorer);
    if (!(options->gamma >= 0 && options->gamma <= ISO_GAMMA_MAX))
        return iso_fail(err, ISO_E_ARGUMENT, "gamma, the weight of the counter-examples, must be from 0 to %g, not %g", ISO_GAMMA_MAX, options->gamma);
    iso_status st = iso_query_read(q, err);
    if (st != ISO_OK) return st;
    if (q->set[ISO_LIKE].count == 0) return no_example(q, err);
    st = check_directions(q, err);
    if (st != ISO_OK) return st;
    double *w = iso_calloc((size_t)q->db->info.dim, sizeof *w), offset = 0;
    if (!w) return iso_fail_memory(err);
    iso_scoring scorer;
    st = query_vector(q, options, &scorer, w, &offset, err);
    if (st == ISO_OK && options->exclude_query) st = shun_examples(q, &out_of, err);
    if (st == ISO_OK) st = search(q, w, offset, options->k, &out_of, out, err);
    if (st == ISO_OK) (*out)->scorer = scorer;
    free(out_of.hash);
    free(out_of.id);
    free(w);
    return iso_settle(err, st);
}

iso_status iso_query_run_settled(iso_query *q, const iso_query_options *options, iso_answer **out, iso_error *err)
{
    enum { TRIES = 10 };
    bool current = false;
    iso_status st = iso_query_read(q, err); /* which takes long, and is done once */
    if (st == ISO_OK) st = iso_searcher_current(q->db->searcher, &current, err);
    for (int i = 0; st == ISO_OK; i++) {
        iso_answer *a = NULL;
        if (!current) st = iso_db_refresh(q->db, err);
        if (st != ISO_OK && st != ISO_E_MISMATCH) break;
        const bool last = st != ISO_OK || i + 1 == TRIES;
        st = iso_query_run(q, options, &a, err);
        if (st == ISO_OK && !last) st = iso_searcher_current(q->db->searcher, &current, err);
        if (st == ISO_OK && (last || current)) {
            *out = a;
            break;
        }
        iso_answer_free(a);
    }
    return iso_settle(err, st);
}
