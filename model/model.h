/* model.h: a model: an architecture, its parameters, and how it came to be.
 *
 * On disk one .safetensors file with PyTorch names and layouts; __metadata__
 * holds format, method, architecture, preprocessing, hyper-parameters, seed,
 * training history and version. Loading checks all of it: a loaded model has
 * every parameter of its net, of the right shape and finite.
 *
 * A model is used by one thread at a time. */
#ifndef ISO_MODEL_H
#define ISO_MODEL_H

#include "model/graph/plan.h"
#include "model/preprocess.h"

typedef enum iso_arch {
    ISO_ARCH_CELEBA,
    ISO_ARCH_MLP,
    ISO_ARCH_PCA /* images to whitened principal components: `latent` of them, no decoder, no flow */
} iso_arch;
const char *iso_arch_name(iso_arch arch); /* "celeba", "mlp", "pca", as in the file */

#define ISO_NET_MAX_CHANNELS 4096 /* latent numbers, channels of celeba's width, attributes */

typedef struct iso_net {         /* what the tensors mean */
    iso_arch arch;
    int width, latent;           /* celeba: Lee 2022 D.3 */
    int layers;                  /* mlp: decoder sizes latent ... data; the encoder is its reverse, with 2 x latent outputs */
    int size[16];
    char act[16], out[16];       /* mlp: relu | tanh | softplus; linear | tanh | sigmoid */
    int flow_depth, flow_length; /* 0: no flow */
    int views;                   /* 2: a code is the mean over an image and its mirror image; else of the image alone */
    int classes;                 /* celeba: of a supervised net, how many attributes it tells; it has no decoder. 0: any other */
    int whitened;                /* 1: vectors go through a linear layer `whiten` at last (model/whiten.h); 0: they do not */
} iso_net;

typedef struct iso_model iso_model;

ISO_CHECK iso_status iso_model_create(const iso_net *net, iso_model **out, iso_error *err); /* zero parameters */
ISO_CHECK iso_status iso_model_load(const char *path, iso_model **out, iso_error *err);
ISO_CHECK iso_status iso_model_save(iso_model *m, const char *path, iso_error *err);
void iso_model_free(iso_model *m);

const iso_net *iso_model_net(const iso_model *m);
int iso_model_dim(const iso_model *m); /* length of its vectors: the latent dimension */
/* 32 hexadecimal digits over the tensors and everything that affects vectors. Owned by the model; valid until the next call. */
const char *iso_model_digest(const iso_model *m);

/* Metadata: "method", "alpha", "seed", "history", ... NULL when absent. UTF-8. What describes the net and the file ("format",
 * "format_version", "version", "preprocessing", "arch", "width", "latent", "sizes", "act", "out", "flow_depth",
 * "flow_length", "views", "classes", "whiten") can be read but not set. Setting NULL removes. "attributes" is a supervised net's alone, which
 * cannot be saved without: the names of its classes, separated by single spaces. */
const char *iso_model_meta(const iso_model *m, const char *key);
bool iso_model_describes(const char *key); /* one of those that cannot be set */
ISO_CHECK iso_status iso_model_set_meta(iso_model *m, const char *key, const char *value, iso_error *err);
/* A model with a fresh flow (zero parameters; see iso_flow_init) in place of any it had; all else copied. Not of a whitened one:
 * ISO_E_ARGUMENT. */
ISO_CHECK iso_status iso_model_with_flow(const iso_model *m, int depth, int length, iso_model **out, iso_error *err);
/* A whitened model, whose layer `whiten` is the identity until its parameters are set; all else copied. ISO_E_ARGUMENT: it is one
 * already. */
ISO_CHECK iso_status iso_model_with_whitening(const iso_model *m, iso_model **out, iso_error *err);
/* ISO_OK: the net has a decoder, of its vectors as they are. Else ISO_E_UNSUPPORTED, "principal components have no decoder" or the
 * like, for a caller to prefix. */
ISO_CHECK iso_status iso_net_check_decoder(const iso_net *net, iso_error *err);
enum { ISO_NET_TEXT = 512 };
/* Everything that affects vectors but the tensors, on one line: "arch=celeba width=128 ...". */
void iso_net_text(const iso_net *net, char out[ISO_NET_TEXT]);
/* "4,7,7,9" to numbers; returns how many, 0 when the text is anything else or has more than 16. */
int iso_sizes_parse(const char *text, int sizes[16]);
/* The architecture's preprocessing, as recorded in the file. */
#define ISO_PREPROCESSING "crop=celeba148;size=64;area;x/127.5-1"

/* Parameters, float, PyTorch layout. */
int iso_model_count(const iso_model *m);
const char *iso_model_name(const iso_model *m, int i);
iso_shape iso_model_shape(const iso_model *m, int i);
int iso_model_find(const iso_model *m, const char *name); /* -1: none */
float *iso_model_data(iso_model *m, int i);
const float *iso_model_data_const(const iso_model *m, int i);

/* Between a model and the vars of a plan, by name: every parameter that both have; the others stay as they are.
 * from_vars refuses numbers that are not finite (ISO_E_NUMERIC) and then leaves the model as it was. */
ISO_CHECK iso_status iso_model_to_vars(const iso_model *m, iso_vars *vars, iso_error *err);
ISO_CHECK iso_status iso_model_from_vars(iso_model *m, const iso_vars *vars, iso_error *err);

/* Images to vectors: mu, or flow(mu) when the model has a flow; the components of a pca; a supervised net's outputs divided by their
 * norm; whitened where the model is. One thread at a time; uses all threads inside. */
typedef struct iso_encoder iso_encoder;
ISO_CHECK iso_status iso_encoder_create(const iso_model *m, int batch, iso_encoder **out, iso_error *err);
/* The same on another backend; NULL: the CPU. */
ISO_CHECK iso_status iso_encoder_create_on(const iso_model *m, int batch, const iso_backend *backend, iso_encoder **out, iso_error *err);
void iso_encoder_free(iso_encoder *e);
/* Operations for one image, both of its views: the plan's over its batch. */
double iso_encoder_flops(const iso_encoder *e);
/* images [n, 64, 64, 3] bytes, any n; vectors [n, dim]. A vector that is not finite is ISO_E_NUMERIC. An image's vector
 * does not depend on its neighbours (but for rounding, where the batch differs). */
ISO_CHECK iso_status iso_encoder_run(iso_encoder *e, const uint8_t *images, int64_t n, float *vectors, iso_error *err);

#endif
