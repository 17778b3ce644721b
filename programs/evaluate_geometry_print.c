#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "programs/evaluate_geometry.h"
#include "programs/evaluate_print.h"

/* ---- table ---- */

static void print_figure(double value)
{
    if (isnan(value))
        printf("%12s", "-");
    else
        printf("%12.6g", value);
}

static void print_row(const char *name, double mean, double median, const char *meaning)
{
    printf("%-30s", name);
    print_figure(mean);
    print_figure(median);
    printf("  %s\n", meaning);
}

static void print_heading(const iso_geometry_report *r)
{
    const iso_sample *s = r->sample;
    const iso_net *net = iso_model_net(r->model);
    printf("model ");
    iso_text_show(stdout, r->model_path, strlen(r->model_path));
    printf(" (%.8s), %d dimensions%s\n", iso_model_digest(r->model), net->latent, net->flow_depth > 0 ? ", with its flow" : "");
    printf("%" PRId64 " of %" PRId64 " %s%simages of ", s->count, s->candidates, s->part < 0 ? "" : iso_part_name[s->part], s->part < 0 ? "" : " ");
    iso_text_show(stdout, r->images, strlen(r->images));
    printf(", mixed up with eta %g\n\n", r->eta);
}

void iso_geometry_table(const iso_geometry_report *r)
{
    const iso_pullback *p = r->pullback;
    const iso_geometry *g = &p->geometry;
    print_heading(r);
    char isometry[64];
    snprintf(isometry, sizeof isometry, "%.4g = 1/m: an isometry, up to one factor", 1.0 / p->m);
    printf("%-30s%12s%12s\n", "", "mean", "median");
    print_row("reconstruction MSE", p->mse, NAN, "per pixel and channel, values in [-1, 1]");
    print_row("VoR", g->vor, g->vor_median, "0: the metric is the same everywhere");
    print_row("MCN", g->mcn, g->mcn_median, "1: all directions are stretched alike");
    print_row("CN", g->cn, g->cn_median, "0: all directions are stretched alike; at most 1");
    print_row("VPres", g->vpres, NAN, "0: volumes are kept, up to one factor");
    print_row("ISO", g->iso, NAN, "0: an isometry, up to one factor");
    print_row("R", p->ratio, NAN, isometry);
    print_row("Tr G / m", p->trace, NAN, "the factor, squared, of an isometry");
    print_row("log10 magnification", NAN, p->magnification, "of sqrt det G: how far volumes grow");
    print_row("  its standard deviation", p->magnification_spread, NAN, "0: volumes are kept, up to one factor");
    if (p->metrics)
        printf("\n%" PRId64 " of %" PRId64 " eigenvalues are below %.0e of the largest of their metric\n", g->tiny,
               g->eigenvalues, ISO_GEOMETRY_TINY);
    printf("%s%" PRId64 " of %" PRId64 " metrics left out\n", p->metrics ? "" : "\n", p->left_out, p->images);
}

/* ---- JSON ---- */

static void number(const char *key, double value)
{
    printf(",\"%s\":", key);
    iso_text_json_number(stdout, value);
}

/* What was measured: the model and the images. */
static void json_heading(const iso_geometry_report *r)
{
    const iso_sample *s = r->sample;
    const iso_net *net = iso_model_net(r->model);
    fputs("{\"schema_version\":1,\"model\":{", stdout);
    iso_text_json_path(stdout, "path", r->model_path);
    printf(",\"digest\":\"%s\",\"latent\":%d,\"flow\":%s},\"images\":{", iso_model_digest(r->model), net->latent,
           net->flow_depth > 0 ? "true" : "false");
    iso_text_json_path(stdout, "path", r->images);
    fputs(",\"split\":", stdout);
    if (s->part < 0)
        fputs("null", stdout);
    else
        printf("%d", s->part);
    printf(",\"candidates\":%" PRId64 ",\"count\":%" PRId64 ",\"skipped\":%" PRId64 "},\"seed\":%" PRIu64,
           s->candidates, s->count, s->skipped, r->seed);
    number("eta", r->eta);
}

void iso_geometry_json(const iso_geometry_report *r)
{
    const iso_pullback *p = r->pullback;
    const iso_geometry *g = &p->geometry;
    json_heading(r);
    printf(",\"metrics\":%" PRId64 ",\"left_out\":%" PRId64 ",\"left_out_reason\":", p->metrics, p->left_out);
    if (p->left_out)
        iso_text_json(stdout, p->left_out_reason, strlen(p->left_out_reason));
    else
        fputs("null", stdout);
    number("mse", p->mse);
    number("vor", g->vor), number("vor_median", g->vor_median);
    number("mcn", g->mcn), number("mcn_median", g->mcn_median);
    number("cn", g->cn), number("cn_median", g->cn_median);
    number("vpres", g->vpres), number("iso", g->iso);
    number("R", p->ratio);
    number("trace", p->trace);
    number("log10_magnification_median", p->magnification);
    number("log10_magnification_deviation", p->magnification_spread);
    number("tiny_below", ISO_GEOMETRY_TINY);
    printf(",\"tiny\":%" PRId64 ",\"eigenvalues\":%" PRId64 "}\n", g->tiny, g->eigenvalues);
}
