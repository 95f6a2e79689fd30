/* A client's display control messages. */
#include "disp.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *why = NULL;
    DispLayout out;

    if (!disp_parse(data, size, &out, &why)) {
        assert(why);
        return 0;
    }
    if (out.monitors > 0) {
        assert(out.monitors <= DISP_MAX_MONITORS);
        assert(out.width >= DISP_MIN_SIDE && out.width <= DISP_MAX_SIDE && out.width % 2 == 0);
        assert(out.height >= DISP_MIN_SIDE && out.height <= DISP_MAX_SIDE);
        assert(out.width_mm <= 10000 && out.height_mm <= 10000);
    }
    return 0;
}
