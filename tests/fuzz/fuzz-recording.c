/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "fuzz.h"
#include "unwind/recording.h"

enum {
        EXPAND_MAX = 16 << 20, /* larger images are not tried: that takes time alone */
};

static void check_inside(const uint8_t *data, size_t size, const uint8_t *p, uint64_t n)
{
        if (p < data || p > data + size || n > (uint64_t)(data + size - p))
                abort();
}

static void check_image(const uint8_t *data, size_t size, const RecordingImage *image)
{
        uint64_t at = 0;

        for (size_t i = 0; i < image->n_ranges; i++) {
                const RecordingRange *range = &image->ranges[i];

                check_inside(data, size, range->bytes, range->size);
                if (range->size == 0 || (i > 0 && range->offset <= at))
                        abort();
                at = range->offset + range->size;
                if (at < range->offset || at > image->size)
                        abort();
        }
        if (image->size <= EXPAND_MAX)
                free(recording_image_expand(image));
}

/* What is accepted refers to nothing that is not there. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(recording_freep) Recording *r = NULL;

        if (recording_read(&r, data, size) != 0)
                return 0;
        for (size_t i = 0; i < r->n_images; i++)
                check_image(data, size, &r->images[i]);
        for (size_t i = 0; i < r->n_modules; i++)
                for (int k = 0; k < 2; k++) {
                        uint32_t image = k ? r->modules[i].debug_image : r->modules[i].image;

                        if (image != RECORDING_NONE && image >= r->n_images)
                                abort();
                }
        for (size_t i = 0; i < r->map->n; i++)
                if (r->map_modules[i] != RECORDING_NONE && r->map_modules[i] >= r->n_modules)
                        abort();
        for (size_t i = 0; i < r->n_captures; i++) {
                const StackCopy *copy = &r->captures[i].copy;

                check_inside(data, size, copy->bytes, copy->n);
                if (copy->other_n > 0)
                        check_inside(data, size, copy->other_bytes, copy->other_n);
                if (copy->addr + copy->n < copy->addr ||
                        copy->other_addr + copy->other_n < copy->other_addr)
                        abort();
        }
        return 0;
}
