/* sweep_chart.c: the trade-off curves of a sweep. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/chart.h"
#include "eval/sweep.h"

enum { CURVES = 16, PANELS = 2 };

/* A curve's means over seeds. The first is that of the rows that all curves start at, where there are such. */
typedef struct line {
    const char *name;
    const char *method; /* NULL: rows of any */
    int count;
    double *value, *mse, *x[PANELS]; /* value: alpha or beta */
    char (*text)[32];
    const char **label;
} line;

static bool drawable(const iso_sweep_row *r)
{
    return isfinite(r->mse) && r->vor_median > 0 && r->mcn_median > 0 && isfinite(r->vor_median) &&
           isfinite(r->mcn_median);
}

static bool reference(const iso_sweep_row *r, bool flow) { return flow ? isnan(r->beta) : r->alpha == 0; }
static double parameter(const iso_sweep_row *r, bool flow) { return flow ? r->beta : r->alpha; }

static bool on_line(const line *l, const iso_sweep_row *r, bool flow)
{
    return drawable(r) && !reference(r, flow) && (!l->method || strcmp(l->method, r->method ? r->method : "") == 0);
}

/* Adds the mean of the rows that are references, or have this value on the line. */
static void add_mean(line *l, const iso_sweep_row *rows, int64_t count, bool flow, bool start, double value)
{
    double sum[1 + PANELS] = {0};
    int n = 0;
    for (int64_t i = 0; i < count; i++) {
        const iso_sweep_row *r = &rows[i];
        if (start ? !drawable(r) || !reference(r, flow) : !on_line(l, r, flow) || parameter(r, flow) != value) continue;
        sum[0] += r->mse, sum[1] += r->vor_median, sum[2] += r->mcn_median;
        n++;
    }
    if (n == 0) return;
    int at = l->count++;
    l->value[at] = value;
    l->mse[at] = sum[0] / n, l->x[0][at] = sum[1] / n, l->x[1][at] = sum[2] / n;
    if (!start) l->label[at] = iso_sweep_number(value, l->text[at]);
}

static void line_free(line *l)
{
    free(l->value), free(l->mse), free(l->x[0]), free(l->x[1]), free(l->text), free(l->label);
    *l = (line){0};
}

static iso_status line_make(line *l, const iso_sweep_row *rows, int64_t count, bool flow, bool rest, iso_error *err)
{
    size_t room = (size_t)count + 1;
    l->value = iso_calloc(room, sizeof *l->value), l->mse = iso_calloc(room, sizeof *l->mse);
    l->x[0] = iso_calloc(room, sizeof *l->mse), l->x[1] = iso_calloc(room, sizeof *l->mse);
    l->text = iso_calloc(room, sizeof *l->text), l->label = iso_calloc(room, sizeof *l->label);
    if (!l->value || !l->mse || !l->x[0] || !l->x[1] || !l->text || !l->label) return iso_fail_memory(err);
    add_mean(l, rows, count, flow, true, NAN);
    double done = -1; /* values in ascending order, each once */
    while (rest) {
        double next = INFINITY;
        for (int64_t i = 0; i < count; i++)
            if (on_line(l, &rows[i], flow) && parameter(&rows[i], flow) > done)
                next = fmin(next, parameter(&rows[i], flow));
        if (next == INFINITY) break;
        add_mean(l, rows, count, flow, false, next);
        done = next;
    }
    return ISO_OK;
}

/* One line for each method that has a row of its own, or one for all flows; then the points they start at. */
static iso_status make_lines(line lines[CURVES], int *n, const iso_sweep_row *rows, int64_t count, bool flow,
                             iso_error *err)
{
    iso_status status = ISO_OK;
    for (int64_t i = 0; i < count && status == ISO_OK; i++) {
        if (!drawable(&rows[i]) || reference(&rows[i], flow) || *n == CURVES - 1) continue;
        bool known = false;
        for (int k = 0; k < *n; k++) known = known || on_line(&lines[k], &rows[i], flow);
        if (known) continue;
        line *l = &lines[(*n)++];
        l->method = flow ? NULL : rows[i].method;
        l->name = flow ? "flattened" : rows[i].method;
        status = line_make(l, rows, count, flow, true, err);
    }
    if (status != ISO_OK) return status;
    line *l = &lines[*n];
    l->name = flow ? "without a flow" : "vae";
    status = line_make(l, rows, count, flow, false, err);
    *n += 1;
    if (status == ISO_OK && l->count == 0) line_free(&lines[--*n]);
    return status;
}

static int seeds(const iso_sweep_row *rows, int64_t count)
{
    int n = 0;
    for (int64_t i = 0; i < count; i++) {
        bool seen = false;
        for (int64_t k = 0; k < i; k++) seen = seen || rows[k].seed == rows[i].seed;
        if (!seen) n++;
    }
    return n;
}

iso_status iso_sweep_chart(const char *path, const iso_sweep_row *rows, int64_t count, bool flow, bool *drawn,
                           iso_error *err)
{
    line lines[CURVES] = {0};
    iso_curve curve[PANELS][CURVES] = {0};
    char note[160];
    int n = 0;
    iso_status status = make_lines(lines, &n, rows, count, flow, err);
    if (status != ISO_OK) goto done;
    *drawn = n > 0;
    if (n == 0) goto done;
    for (int p = 0; p < PANELS; p++)
        for (int i = 0; i < n; i++) {
            const line *l = &lines[i];
            curve[p][i] = (iso_curve){
                .name = l->name, .count = l->count, .x = l->x[p], .y = l->mse, .label = l->label, .line = l->count > 1};
        }
    int seen = seeds(rows, count);
    snprintf(note, sizeof note, "Points are labelled with %s; each is %s. Down and to the left is better.",
             flow ? "β" : "α", seen > 1 ? "a mean over seeds" : "one model");
    iso_curves panel[PANELS] = {{.title = "Reconstruction against VoR",
                                 .x_label = "VoR (median, log scale)",
                                 .y_label = "MSE",
                                 .note = note,
                                 .x_log = true,
                                 .count = n,
                                 .curve = curve[0]},
                                {.title = "Reconstruction against MCN",
                                 .x_label = "MCN (median, log scale)",
                                 .y_label = "MSE",
                                 .note = NULL,
                                 .x_log = true,
                                 .count = n,
                                 .curve = curve[1]}};
    status = iso_chart_curves(PANELS, panel, path, err);
done:
    for (int i = 0; i < CURVES; i++) line_free(&lines[i]);
    return status;
}
