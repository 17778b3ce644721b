/* golden_run.h: one golden file on one backend.
 *
 * A case (golden_cases.c) takes inputs from the file, builds its expressions and names what it computed; the runner fills
 * parameters and inputs, runs, and compares with every out.* and grad.* tensor of the file:
 *
 *     iso_node z = golden_input(t, "z", 2);            // in.z
 *     golden_output(t, "out.Jv", jv);                  // compared where the file has it
 *     golden_loss(t, "out.loss", loss);                // and grad.* of whatever input or parameter the file names
 *
 * Errors (a missing tensor, a shape that does not fit) stick in t->graph. */
#ifndef ISO_GOLDEN_RUN_H
#define ISO_GOLDEN_RUN_H

#include "model/model.h"
#include "model/safetensors.h"

typedef struct golden golden;

typedef struct golden_case {
    const char *name;
    void (*build)(golden *t);
} golden_case;
/* NULL: not one of ours. */
const golden_case *golden_case_find(const char *name);

#define GOLDEN_INPUTS 16

struct golden {
    const iso_st *file;
    iso_graph *graph;
    int inputs, outputs;
    struct { const iso_st_tensor *tensor; iso_node node; bool index; } input[GOLDEN_INPUTS];
    struct { const iso_st_tensor *tensor; iso_node node; } *output; /* room for every tensor of the file */
    bool *compared;        /* per tensor of the file */
    double worst;          /* the largest error so far; NaN once one was */
    const char *worst_name;
    bool verbose;
};

/* The tensor in.NAME as an input of the graph: numbers of `ndim` axes, or a list of rows below `bound`. */
iso_node golden_input(golden *t, const char *name, int ndim);
iso_node golden_index(golden *t, const char *name, int64_t bound);
/* A number from the metadata. */
double golden_number(golden *t, const char *key);
/* What the metadata say of the network; false (and an error in the graph) when they are no network. */
bool golden_net(golden *t, iso_net *net);

/* `node` is what the file calls `name`; its shape must be the tensor's. A tensor that the file lacks is not compared. */
void golden_output(golden *t, const char *name, iso_node node);
/* The same for a scalar, and its gradients for each grad.*. */
void golden_loss(golden *t, const char *name, iso_node loss);
/* The same for values that no graph computed. */
void golden_values(golden *t, const char *name, iso_shape shape, const double *values);

/* Runs a case. *worst is the largest relative error, *worst_name (in the file's memory) its tensor. */
ISO_CHECK iso_status golden_run(const iso_st *file, const golden_case *c, const iso_backend *backend, bool verbose, double *worst,
                                const char **worst_name, iso_error *err);

#endif
