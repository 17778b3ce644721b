/* evaluate_models.c: the models that `evaluate compare` is asked for, and what they are called. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "programs/evaluate_compare.h"

static const char hole[] = "{seed}";

/* ---- lists ---- */

static iso_status parse_seeds(const char *list, int64_t *seed, int *count, iso_error *err)
{
    *count = 0;
    for (const char *at = list; list; at++) {
        size_t length = strcspn(at, ",");
        if (length == 0 || length > 15 || strspn(at, "0123456789") != length)
            return iso_fail(err, ISO_E_ARGUMENT,
                            "--seeds: whole numbers with commas between them, as 0,1,2; not '%.100s'", list);
        if (*count == ISO_SEEDS_MAX)
            return iso_fail(err, ISO_E_ARGUMENT, "--seeds: at most %d seeds can be given", ISO_SEEDS_MAX);
        int64_t value = strtoll(at, NULL, 10);
        for (int i = 0; i < *count; i++)
            if (seed[i] == value)
                return iso_fail(err, ISO_E_ARGUMENT, "--seeds: %lld is given twice", (long long)value);
        seed[(*count)++] = value;
        at += length;
        if (!*at) break;
    }
    return ISO_OK;
}

static iso_status parse_scorers(iso_comparison *c, const char *list, iso_error *err)
{
    c->scorers = 0;
    for (const char *at = list;; at++) {
        size_t length = strcspn(at, ",");
        char name[16] = "";
        if (length < sizeof name) memcpy(name, at, length);
        int scoring = strcmp(name, iso_scorer_name(ISO_AUTO)) ? iso_scorer_by_name(name) : -1;
        if (scoring < 0)
            return iso_fail(err, ISO_E_ARGUMENT, "--scorer: there is no scorer '%.*s', only %s and %s",
                            (int)(length > 100 ? 100 : length), at, iso_scorer_name(ISO_SUM),
                            iso_scorer_name(ISO_CONTRAST));
        for (int i = 0; i < c->scorers; i++)
            if ((int)c->scorer[i] == scoring) return iso_fail(err, ISO_E_ARGUMENT, "--scorer: %s is given twice", name);
        c->scorer[c->scorers++] = (iso_scoring)scoring;
        at += length;
        if (!*at) return ISO_OK;
    }
}

/* ---- entries ---- */

/* The first hole of a pattern filled, and those behind it. */
static char *fill_holes(const char *pattern, int64_t seed)
{
    char *text = iso_strndup(pattern, strlen(pattern));
    for (char *at; text && (at = strstr(text, hole));) {
        char *more = iso_format("%.*s%lld%s", (int)(at - text), text, (long long)seed, at + strlen(hole));
        free(text);
        text = more;
    }
    return text;
}

static iso_status add_model(iso_comparison *c, const char *pattern, const int64_t *seed, iso_error *err)
{
    iso_compared_model *m = c->model + c->models++;
    m->has_seed = seed != NULL;
    m->seed = seed ? *seed : 0;
    m->name = fill_holes(pattern, m->seed);
    return m->name ? ISO_OK : iso_fail_memory(err);
}

/* "LABEL=NAME" or "NAME"; what has a slash before the = is a name. */
static iso_status parse_entry(iso_comparison *c, const char *text, size_t length, const int64_t *seed, int seeds,
                              iso_error *err)
{
    iso_compared_entry *e = c->entry + c->entries++;
    const char *equals = memchr(text, '=', length), *slash = memchr(text, '/', length);
    if (equals && slash && slash < equals) equals = NULL;
    const char *name = equals ? equals + 1 : text;
    size_t rest = length - (size_t)(name - text);
    if (rest == 0 || equals == text)
        return iso_fail(err, ISO_E_ARGUMENT, "--models: '%.*s' is neither NAME nor LABEL=NAME",
                        (int)(length > 100 ? 100 : length), text);
    e->pattern = iso_strndup(name, rest);
    if (equals) e->label = iso_strndup(text, (size_t)(equals - text));
    e->label_given = equals != NULL;
    if (!e->pattern || (equals && !e->label)) return iso_fail_memory(err);
    e->first = c->models;
    bool varies = strstr(e->pattern, hole) != NULL;
    if (varies && seeds == 0) return iso_fail(err, ISO_E_ARGUMENT, "--models: %s asks for --seeds 0,1,...", e->pattern);
    iso_status status = varies ? ISO_OK : add_model(c, e->pattern, NULL, err);
    for (int i = 0; varies && !status && i < seeds; i++) status = add_model(c, e->pattern, seed + i, err);
    e->models = c->models - e->first;
    return status;
}

static iso_status check_labels(const iso_comparison *c, iso_error *err)
{
    for (int i = 0; i < c->entries; i++)
        for (int j = 0; j < i; j++) {
            const iso_compared_entry *x = c->entry + i, *y = c->entry + j;
            if (x->label_given && y->label_given && strcmp(x->label, y->label) == 0)
                return iso_fail(err, ISO_E_ARGUMENT, "--models: two entries are called '%.100s'", x->label);
            if (strcmp(x->pattern, y->pattern) == 0)
                return iso_fail(err, ISO_E_ARGUMENT, "--models: %s is given twice", x->pattern);
        }
    return ISO_OK;
}

iso_status iso_compared_parse(iso_comparison *c, const char *models, const char *seeds, const char *scorers,
                              iso_error *err)
{
    int64_t seed[ISO_SEEDS_MAX];
    int seed_count = 0;
    iso_status status = parse_scorers(c, scorers, err);
    if (!status) status = parse_seeds(seeds, seed, &seed_count, err);
    if (status) return status;
    size_t entries = 1;
    for (const char *at = models; *at; at++) entries += *at == ',';
    c->entry = iso_calloc(entries, sizeof *c->entry);
    c->model = iso_calloc(entries * (size_t)(seed_count ? seed_count : 1), sizeof *c->model);
    if (!c->entry || !c->model) return iso_fail_memory(err);
    for (const char *at = models;; at++) {
        size_t length = strcspn(at, ",");
        if ((status = parse_entry(c, at, length, seed, seed_count, err))) return status;
        at += length;
        if (!*at) break;
    }
    if (seeds && !strstr(models, hole))
        return iso_fail(err, ISO_E_ARGUMENT, "--seeds: no name of --models has {seed} in it");
    return check_labels(c, err);
}

/* ---- labels ---- */

char *iso_compared_stem(const char *name)
{
    static const char *const ending[] = {".safetensors", ".db"};
    size_t length = strlen(name);
    while (length > 1 && name[length - 1] == '/') length--;
    size_t from = length;
    while (from > 0 && name[from - 1] != '/') from--;
    if (from == length) from = 0;
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(ending[i]);
        if (length - from > n && memcmp(name + length - n, ending[i], n) == 0) {
            length -= n;
            break;
        }
    }
    return iso_strndup(name + from, length - from);
}

/* As the papers call them; `alpha` tells whether the method's weight belongs to the name. */
static const struct {
    const char *method, *name;
    bool alpha;
} known[] = {{"vae", "VAE", false},
             {"isometric", "IRVAE", true},
             {"flat-manifold", "FMVAE", true},
             {"supervised", "BR", false},
             {"pca", "PCA", false}};

/* One more word between the brackets. */
static void add_detail(char *details, size_t room, const char *name, const char *value)
{
    size_t used = strlen(details);
    snprintf(details + used, room - used, "%s%s%s", used ? ", " : "", name, value);
}

char *iso_compared_label(const iso_model *m, const char *name)
{
    const char *method = iso_model_meta(m, "method"), *alpha = NULL, *beta = NULL;
    const iso_net *net = iso_model_net(m);
    char details[160] = "";
    if (!method) return iso_compared_stem(name);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(method, known[i].method) != 0) continue;
        method = known[i].name;
        if (known[i].alpha) alpha = iso_model_meta(m, "alpha");
        break;
    }
    if (net->flow_depth > 0) beta = iso_model_meta(m, "flow.beta");
    if (alpha) add_detail(details, sizeof details, "alpha ", alpha);
    if (beta) add_detail(details, sizeof details, "beta ", beta);
    if (net->whitened) add_detail(details, sizeof details, "whitened", "");
    return iso_format("%s%s%s%s%s", method, net->flow_depth > 0 ? " + FM" : "", *details ? " (" : "", details,
                      *details ? ")" : "");
}

static bool label_is_taken(const iso_comparison *c, int but)
{
    for (int i = 0; i < c->entries; i++)
        if (i != but && c->entry[i].label && strcmp(c->entry[i].label, c->entry[but].label) == 0) return true;
    return false;
}

/* Of two that call themselves alike each says its file; where that is the same as well, its whole name. */
iso_status iso_compared_name_entries(iso_comparison *c, iso_error *err)
{
    bool *alike = iso_calloc((size_t)c->entries, sizeof *alike);
    if (!alike) return iso_fail_memory(err);
    for (int i = 0; i < c->entries; i++) {
        iso_compared_entry *e = c->entry + i;
        for (int j = 0; !e->label && j < e->models; j++) {
            const char *label = c->model[e->first + j].label;
            if (label && !(e->label = iso_strndup(label, strlen(label)))) goto no_memory;
        }
        if (!e->label && !(e->label = iso_compared_stem(e->pattern))) goto no_memory;
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < c->entries; i++) alike[i] = !c->entry[i].label_given && label_is_taken(c, i);
        for (int i = 0; i < c->entries; i++) {
            iso_compared_entry *e = c->entry + i;
            if (!alike[i]) continue;
            char *stem = iso_compared_stem(e->pattern),
                 *label = stem ? iso_format("%s, %s", e->label, pass ? e->pattern : stem) : NULL;
            free(stem);
            if (!label) goto no_memory;
            free(e->label);
            e->label = label;
        }
    }
    free(alike);
    return ISO_OK;
no_memory:
    free(alike);
    return iso_fail_memory(err);
}
