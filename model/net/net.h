/* net.h: the papers' networks as expressions over named parameters.
 *
 * Parameters are states named as in the model file, in PyTorch layouts (Linear [out, in], Conv2d [out, in, kh, kw],
 * ConvTranspose2d [in, out, kh, kw]); convolutions' weights are kept in the engine's channels-last forms, [out, kh, kw, in] and [in, kh, kw, out].
 * Images are [B, 64, 64, 3]; MLP data are [B, D]. A net that iso_net_check refuses must not be built.
 * Builders report errors in the graph (iso_graph_check). */
#ifndef ISO_NET_H
#define ISO_NET_H

#include "model/graph/graph.h"
#include "model/model.h"

/* One parameter of a net: fan_in is what its initialisation divides by, a bias having its weight's. */
typedef struct iso_param { char name[40]; iso_shape shape; int64_t fan_in; } iso_param;
/* Every parameter, in the file's order: encoder.*, decoder.*, sigma, flow.*; of a supervised net encoder.*, classifier.*; of a whitened
 * one whiten.* behind them. Returns how many; fills up to `room`. */
int iso_net_params(const iso_net *net, int room, iso_param *out);
/* Sizes within range, known activations. */
ISO_CHECK iso_status iso_net_check(const iso_net *net, iso_error *err);

/* PyTorch's default initialisation from Philox: weights and biases uniform in +-1/sqrt(fan_in) (ConvTranspose2d's fan_in
 * is out * kh * kw, as PyTorch has it); sigma 1; the flow's last layers zero, so that it starts as the identity; so does a whitening. */
ISO_CHECK iso_status iso_net_init(iso_model *m, uint64_t seed, iso_error *err);
/* Only flow.* */
ISO_CHECK iso_status iso_flow_init(iso_model *m, uint64_t seed, iso_error *err);

/* x [B, 64, 64, 3] or [B, D] -> mu, log_sigma [B, m] (methods.md 2). Not of a pca or a supervised net, which have neither sigma nor
 * decoder. */
void iso_net_encode(iso_graph *g, const iso_net *net, iso_node x, iso_node *mu, iso_node *log_sigma);
/* z [B, m] -> [B, 64, 64, 3] (celeba) or [B, D] (mlp) */
iso_node iso_net_decode(iso_graph *g, const iso_net *net, iso_node z);
/* The same in two steps: the first layer without its bias, linear in z, [B, 8, 8, 8w] or [B, size[1]]; and the rest. */
iso_node iso_net_decode_first(iso_graph *g, const iso_net *net, iso_node z);
iso_node iso_net_decode_rest(iso_graph *g, const iso_net *net, iso_node h);
/* RealNVP (methods.md 6); z, y [B, m]. */
iso_node iso_flow_forward(iso_graph *g, const iso_net *net, iso_node z);
iso_node iso_flow_inverse(iso_graph *g, const iso_net *net, iso_node y);
/* A supervised net (methods.md 7): the encoder's m outputs divided by their norm, of each image alone; and its classifier's logits,
 * one for each class, above 0 where the attribute is likelier there than not. */
iso_node iso_net_unit(iso_graph *g, const iso_net *net, iso_node x);      /* [B, 64, 64, 3] -> [B, m] */
iso_node iso_net_classify(iso_graph *g, const iso_net *net, iso_node z);  /* [B, m] -> [B, classes] */
/* What a database holds: mu, or flow(mu); of a pca its components; of a supervised net unit vectors. With two views x has the images
 * and then their mirror images, [2B, ...], and mu is the mean of both, of a supervised net again divided by its norm: [B, m]. At last the linear layer `whiten`, where the net is
 * whitened. */
iso_node iso_net_vector(iso_graph *g, const iso_net *net, iso_node x);

/* --- the parts that nets are made of */

/* The state `name`, or layer.what: a parameter of PyTorch's shape. A convolution's weights, those with four axes, are the node with channels last,
 * and a linear layer's, if it has more inputs than outputs, the node [in, out] (iso_state_permuted): rows that lie near each other need not be packed. */
iso_node iso_parameter_named(iso_graph *g, const char *name, iso_shape shape);
iso_node iso_parameter(iso_graph *g, const char *layer, const char *what, iso_shape shape);
/* Linear layers prefix.0, prefix.2, ... from sizes[0] to sizes[layers - 1], `act` between them and `out` at the end.
 * x [B, sizes[0]] -> [B, sizes[layers - 1]]. */
iso_node iso_mlp(iso_graph *g, const char *prefix, int layers, const int *sizes, const char *act, const char *out, iso_node x);
/* The same in two steps: x times the first weight, [B, sizes[1]]; and the rest. */
iso_node iso_mlp_first(iso_graph *g, const char *prefix, const int *sizes, iso_node x);
iso_node iso_mlp_rest(iso_graph *g, const char *prefix, int layers, const int *sizes, const char *act, const char *out, iso_node x);
/* relu | tanh | softplus | sigmoid | linear; an unknown name is an error in the graph. */
iso_node iso_activation(iso_graph *g, const char *name, iso_node x);
bool iso_activation_known(const char *name);
/* x W^T + b, of parameters name.weight [out, in] and name.bias [out]. */
iso_node iso_linear(iso_graph *g, const char *name, iso_node x, int64_t outputs);

/* Each row divided by its norm; a zero stays zero. z [B, m] */
iso_node iso_unit_rows(iso_graph *g, iso_node z);

iso_node iso_celeba_encode(iso_graph *g, const iso_net *net, iso_node x); /* [B, 64, 64, 3] -> [B, 2m]; supervised: [B, m] */
iso_node iso_celeba_decode_first(iso_graph *g, const iso_net *net, iso_node z); /* [B, m] -> [B, 8, 8, 8w], without the bias */
iso_node iso_celeba_decode_rest(iso_graph *g, const iso_net *net, iso_node x);  /* [B, 8, 8, 8w] -> [B, 64, 64, 3] */

/* weight (x - mean), where x is flattened as PyTorch does it, channels first: [B, 64, 64, 3] -> [B, m] */
iso_node iso_pca_encode(iso_graph *g, const iso_net *net, iso_node x);

/* The parameters of each part, appended to a list. */
typedef struct iso_param_list { int count, room; iso_param *item; } iso_param_list;
void iso_param_add(iso_param_list *list, const char *layer, const char *name, iso_shape shape, int64_t fan_in);
void iso_linear_params(iso_param_list *list, const char *layer, int64_t inputs, int64_t outputs);
void iso_mlp_params(iso_param_list *list, const char *prefix, int layers, const int *sizes);
void iso_celeba_params(iso_param_list *list, const iso_net *net);
void iso_pca_params(iso_param_list *list, const iso_net *net);
void iso_flow_params(iso_param_list *list, const iso_net *net);

#endif
