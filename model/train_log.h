/* train_log.h: how an epoch's figures are written: a CSV row beside the model and a JSON object in its metadata. */
#ifndef ISO_TRAIN_LOG_H
#define ISO_TRAIN_LOG_H

#include "model/train.h"

#define ISO_LOG_HEADER                                                                            \
    "epoch,step,images,loss,nll,kl,mse,R,norm,val_loss,val_nll,val_kl,val_mse,val_R,val_norm,"    \
    "sigma,seconds,images_per_s,best,accuracy,val_accuracy\n"

/* accuracy stands at the end, behind what rows had before it was there.
 *
 * Appends to both texts (NULL or fresh memory; replaced). Fields that a method has not are empty in CSV and left out of
 * JSON. The JSON carries no times, so that a resumed run's model is the same file. false: out of memory, both as before. */
bool iso_log_add(char **csv, char **json, const iso_epoch *e);
/* Rows from before the header's last columns were there get these, empty. false: out of memory, all as before. */
bool iso_log_widen(char **csv);

#endif
