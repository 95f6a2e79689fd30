/* Display control: the capabilities sent, layouts at and beyond every bound, mutations. */
#include "disp.h"

#include <glib.h>
#include <string.h>

#include "bytes.h"
#include "fake_dvc.h"
#include "mutate.h"

typedef struct Monitor {
    uint32_t flags, width, height, width_mm, height_mm;
} Monitor;

static uint8_t *layout(const Monitor *monitors, uint32_t n, size_t *len)
{
    Writer w;

    writer_init(&w, 4096);
    writer_u32(&w, 2);
    writer_u32(&w, 16 + 40 * n);
    writer_u32(&w, 40);
    writer_u32(&w, n);
    for (uint32_t i = 0; i < n; i++) {
        writer_u32(&w, monitors[i].flags);
        writer_u32(&w, 0);
        writer_u32(&w, 0);
        writer_u32(&w, monitors[i].width);
        writer_u32(&w, monitors[i].height);
        writer_u32(&w, monitors[i].width_mm);
        writer_u32(&w, monitors[i].height_mm);
        writer_u32(&w, 0);
        writer_u32(&w, 100);
        writer_u32(&w, 100);
    }
    return writer_steal(&w, len);
}

static bool parse(const Monitor *monitors, uint32_t n, DispLayout *out)
{
    const char *why = NULL;
    size_t len;
    uint8_t *data = layout(monitors, n, &len);
    bool ok = disp_parse(data, len, out, &why);

    g_assert_true(ok || why);
    free(data);
    return ok;
}

static void test_bounds(void)
{
    static const struct {
        Monitor monitor;
        bool ok;
        uint32_t width, width_mm;
    } rows[] = {
        {{1, 1024, 768, 300, 200}, true, 1024, 300},
        {{1, 1025, 768, 300, 200}, true, 1024, 300}, /* odd widths are rounded down */
        {{1, 200, 200, 10, 10}, true, 200, 10},
        {{1, 8192, 8192, 10000, 10000}, true, 8192, 10000},
        {{1, 199, 768, 300, 200}, false, 0, 0},
        {{1, 1024, 199, 300, 200}, false, 0, 0},
        {{1, 8193, 768, 300, 200}, false, 0, 0},
        {{1, 1024, 8193, 300, 200}, false, 0, 0},
        {{1, 0xffffffff, 768, 300, 200}, false, 0, 0},
        {{1, 1024, 768, 9, 200}, true, 1024, 0},
        {{1, 1024, 768, 300, 10001}, true, 1024, 0},
        {{1, 1024, 768, 0, 0}, true, 1024, 0},
    };
    DispLayout out;

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_assert_true(parse(&rows[i].monitor, 1, &out) == rows[i].ok);
        if (rows[i].ok) {
            g_assert_cmpuint(out.width, ==, rows[i].width);
            g_assert_cmpuint(out.width_mm, ==, rows[i].width_mm);
            g_assert_cmpuint(out.monitors, ==, 1);
        }
    }
}

static void test_monitors(void)
{
    Monitor monitors[17];
    DispLayout out;

    for (unsigned i = 0; i < 17; i++)
        monitors[i] = (Monitor){0, 800 + 2 * i, 600, 0, 0};
    g_assert_true(parse(monitors, 16, &out));
    g_assert_cmpuint(out.width, ==, 800); /* none is primary: the first */
    g_assert_cmpuint(out.monitors, ==, 16);
    monitors[5].flags = 1;
    g_assert_true(parse(monitors, 16, &out));
    g_assert_cmpuint(out.width, ==, 810);
    g_assert_false(parse(monitors, 17, &out));
    g_assert_false(parse(monitors, 0, &out));
    monitors[15].height = 100; /* wrong although not shown */
    g_assert_false(parse(monitors, 16, &out));
}

static void truncated(uint8_t *data, size_t len, void *user)
{
    DispLayout out;
    const char *why = NULL;

    g_assert_false(disp_parse(data, len, &out, &why));
    g_assert_nonnull(why);
}

static void mangled(uint8_t *data, size_t len, void *user)
{
    DispLayout out;
    const char *why = NULL;

    if (!disp_parse(data, len, &out, &why) || out.monitors == 0)
        return;
    g_assert_cmpuint(out.monitors, <=, DISP_MAX_MONITORS);
    g_assert_true(out.width >= DISP_MIN_SIDE && out.width <= DISP_MAX_SIDE && out.width % 2 == 0);
    g_assert_true(out.height >= DISP_MIN_SIDE && out.height <= DISP_MAX_SIDE);
    g_assert_true(out.width_mm <= 10000 && out.height_mm <= 10000);
}

static void test_mutations(void)
{
    Monitor monitors[2] = {{1, 1024, 768, 300, 200}, {0, 800, 600, 0, 0}};
    size_t len;
    uint8_t *data = layout(monitors, 2, &len);

    mutate_truncations(data, len, truncated, NULL);
    mutate_bit_flips(data, len, mangled, NULL);
    mutate_random(data, len, 3, 20000, mangled, NULL);
    free(data);
}

static DispLayout seen;
static unsigned resizes;

static void on_resized(void *user, const DispLayout *out)
{
    seen = *out;
    resizes++;
}

static void test_channel(void)
{
    DvcManager *manager = fake_dvc_manager_new();
    Disp *disp = disp_new(manager, "test", on_resized, NULL);
    Dvc *dvc = fake_dvc_nth(manager, 0);
    Monitor monitor = {1, 1280, 800, 0, 0};
    size_t len;

    g_assert_cmpstr(fake_dvc_name(dvc), ==, "Microsoft::Windows::RDS::DisplayControl");
    fake_dvc_accept(dvc);
    uint8_t *caps = fake_dvc_take(dvc, &len);
    g_assert_cmpmem(caps, len, "\x05\0\0\0\x14\0\0\0\x10\0\0\0\0\x20\0\0\0\x20\0\0", 20);
    free(caps);
    uint8_t *data = layout(&monitor, 1, &len);
    fake_dvc_receive(dvc, data, len);
    g_assert_cmpuint(resizes, ==, 1);
    g_assert_cmpuint(seen.width, ==, 1280);
    data[24] ^= 1; /* the flags: still fine */
    fake_dvc_receive(dvc, data, len - 1);
    g_assert_cmpuint(resizes, ==, 1);
    g_assert_true(fake_dvc_closed_by_server(dvc));
    free(data);
    disp_free(disp);
    fake_dvc_manager_free(manager);

    manager = fake_dvc_manager_new();
    disp = disp_new(manager, "test", on_resized, NULL);
    fake_dvc_end(fake_dvc_nth(manager, 0), DVC_CLOSED_REFUSED);
    disp_free(disp);
    fake_dvc_refuse_opens(manager);
    g_assert_null(disp_new(manager, "test", on_resized, NULL));
    fake_dvc_manager_free(manager);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/disp/bounds", test_bounds);
    g_test_add_func("/disp/monitors", test_monitors);
    g_test_add_func("/disp/mutations", test_mutations);
    g_test_add_func("/disp/channel", test_channel);
    return g_test_run();
}
