/* image_exif.c: which way up a picture is. */
#include <limits.h>
#include <libexif/exif-data.h>

#include "indexer/image_codec.h"

static int entry_value(const ExifEntry *entry, ExifByteOrder order)
{
    if (entry->components < 1 || !entry->data) return 1;
    ExifLong value = 1;
    if (entry->format == EXIF_FORMAT_SHORT && entry->size >= 2) value = exif_get_short(entry->data, order);
    if (entry->format == EXIF_FORMAT_LONG && entry->size >= 4) value = exif_get_long(entry->data, order);
    if (entry->format == EXIF_FORMAT_BYTE && entry->size >= 1) value = entry->data[0];
    return value >= 1 && value <= 8 ? (int)value : 1;
}

int iso_exif_orientation(const uint8_t *block, size_t size)
{
    if (size > UINT_MAX) return 1;
    ExifData *exif = exif_data_new();
    if (!exif) return 1;
    /* As written: libexif would otherwise "correct" tags by the file's claimed version. */
    exif_data_unset_option(exif, EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
    exif_data_set_option(exif, EXIF_DATA_OPTION_DONT_CHANGE_MAKER_NOTE);
    exif_data_load_data(exif, block, (unsigned)size);
    ExifEntry *entry = exif_content_get_entry(exif->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
    int orientation = entry ? entry_value(entry, exif_data_get_byte_order(exif)) : 1;
    exif_data_unref(exif);
    return orientation;
}

bool iso_exif_swaps(int orientation)
{
    return orientation >= 5;
}
