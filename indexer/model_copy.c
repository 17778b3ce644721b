#include "indexer/model_copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

iso_status iso_model_copy_load(const iso_store *s, const iso_store_info *info, iso_model **out, iso_error *err)
{
    static const char remedy[] = "`indexer encode --images DIR --model M --db DB` with the model it was made with";
    iso_model *m = NULL;
    iso_error why = {0};
    char *path = iso_store_file(s, ISO_STORE_MODEL);
    if (!path) return iso_fail_memory(err);
    iso_status status = iso_model_load(path, &m, &why);
    if (status && access(path, F_OK) && errno == ENOENT)
        status = iso_fail(err, status, "%s has lost its copy of the model (" ISO_STORE_MODEL " in it): %s puts it back", iso_store_dir(s), remedy);
    else if (status == ISO_E_FORMAT)
        status = iso_fail(err, status, "%s: %s puts a sound copy in its place", why.message, remedy);
    else if (status)
        status = iso_fail(err, status, "%s", why.message);
    else if (strcmp(iso_model_digest(m), info->digest) != 0 || iso_model_dim(m) != info->dim)
        status = iso_fail(err, ISO_E_MISMATCH, "%s is not the model that made the vectors of this database (digest %s, wanted %s): %s puts that in its place",
                          path, iso_model_digest(m), info->digest, remedy);
    free(path);
    if (status) iso_model_free(m);
    else *out = m;
    return status;
}

iso_status iso_model_copy_mend(const char *dir, iso_model *m, bool *mended, iso_error *err)
{
    iso_model *copy = NULL;
    iso_error why;
    char *path = iso_path_join(dir, ISO_STORE_MODEL);
    if (!path) return iso_fail_memory(err);
    iso_status status = iso_model_load(path, &copy, &why);
    const bool wrong = status || strcmp(iso_model_digest(copy), iso_model_digest(m)) != 0;
    if (status == ISO_E_MEMORY) status = iso_fail_memory(err);
    else status = wrong ? iso_model_save(m, path, err) : ISO_OK;
    if (!status) *mended = wrong;
    iso_model_free(copy);
    free(path);
    return status;
}
