/*
 * Probe and policy over an emulated device.
 */
#include <glib.h>
#include <string.h>

#include "fake_source.h"

typedef struct Result {
    UsbProbe *probe;
    UsbDescriptors *descriptors;
    unsigned calls;
    char error[200];
    bool free_inside;
} Result;

static void on_done(void *user, UsbDescriptors *d, const char *error)
{
    Result *r = user;

    r->calls++;
    r->descriptors = d;
    g_assert_cmpint(d == NULL, ==, error != NULL);
    g_strlcpy(r->error, error ? error : "", sizeof(r->error));
    if (r->free_inside) {
        usb_probe_free(r->probe);
        r->probe = NULL;
    }
}

static void start(Result *r, FakeSource *f)
{
    r->probe = usb_probe_new(&f->base, 1000, on_done, r);
    g_assert_cmpuint(usb_probe_deadline(r->probe), ==, 1000);
    usb_probe_tick(r->probe, 1000);
}

static void finish(Result *r, FakeSource *f)
{
    g_assert_cmpuint(r->calls, ==, 1);
    if (r->probe) {
        g_assert_cmpuint(usb_probe_deadline(r->probe), ==, UINT64_MAX);
        usb_probe_tick(r->probe, UINT64_MAX);
    }
    g_assert_cmpuint(r->calls, ==, 1);
    g_assert_cmpuint(f->violations, ==, 0);
    g_assert_null(f->base.gone ? NULL : f->base.sink);
    usb_probe_free(r->probe);
    usb_descriptors_unref(r->descriptors);
    fake_source_free(f);
}

static void test_probe(void)
{
    static const UsbSpeed speeds[] = {USB_SPEED_FULL, USB_SPEED_HIGH, USB_SPEED_SUPER};
    char text[200];

    for (unsigned i = 0; i < 6; i++) {
        FakeSource *f = fake_source_new(FAKE_STICK, speeds[i % 3]);
        Result r = {.free_inside = i >= 3};

        start(&r, f);
        fake_source_run(f);
        g_assert_cmpstr(r.error, ==, "");
        g_assert_cmpint(r.descriptors->speed, ==, speeds[i % 3]);
        g_assert_cmpuint(r.descriptors->n_configurations, ==, 1);
        g_assert_cmpmem(r.descriptors->configurations[0].raw,
                        r.descriptors->configurations[0].raw_len, f->config_raw, f->config_len);
        g_assert_cmpuint(r.descriptors->bos_len, ==, f->bos_len);
        g_assert_cmpstr(r.descriptors->product, ==, "Fake \"device\" \\x1b");
        g_assert_cmpstr(r.descriptors->serial, ==, "0123456789AB");
        usb_descriptors_describe(r.descriptors, text, sizeof(text));
        g_assert_nonnull(strstr(text, "1234:5678 mass storage"));
        finish(&r, f);
    }
}

/* Clients call most devices fast. One that has no device qualifier cannot be. */
static void test_hearsay(void)
{
    static const struct {
        FakeKind kind;
        UsbSpeed speed;
    } cases[] = {{FAKE_HEADSET, USB_SPEED_FULL},  {FAKE_HEADSET, USB_SPEED_HIGH},
                 {FAKE_KEYBOARD, USB_SPEED_FULL}, {FAKE_KEYBOARD, USB_SPEED_HIGH},
                 {FAKE_STICK, USB_SPEED_FULL},    {FAKE_STICK, USB_SPEED_HIGH}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        FakeSource *f = fake_source_new(cases[i].kind, cases[i].speed);
        Result r = {0};

        f->base.high_speed_hint = true;
        start(&r, f);
        fake_source_run(f);
        g_assert_cmpint(r.descriptors->speed, ==, cases[i].speed);
        finish(&r, f);
    }
}

/* What is not essential may stall or stay silent. */
static void test_tolerant(void)
{
    FakeSource *f = fake_source_new(FAKE_STICK, USB_SPEED_SUPER);
    Result r = {0};

    f->no_bos = true;
    start(&r, f);
    fake_source_run(f);
    g_assert_nonnull(r.descriptors);
    g_assert_cmpuint(r.descriptors->bos_len, ==, 0);
    g_assert_cmpstr(r.descriptors->product, ==, "");
    finish(&r, f);

    /* A second configuration that cannot be read: its request stalls. */
    f = fake_source_new(FAKE_STICK, USB_SPEED_HIGH);
    r = (Result){0};
    f->device_raw[17] = 2;
    start(&r, f);
    fake_source_run(f);
    g_assert_nonnull(r.descriptors);
    g_assert_cmpuint(r.descriptors->n_configurations, ==, 1);
    g_assert_cmpint(r.descriptors->speed, ==, USB_SPEED_HIGH);
    finish(&r, f);

    f = fake_source_new(FAKE_STICK, USB_SPEED_SUPER);
    r = (Result){0};
    start(&r, f);
    f->hold = true;
    uint64_t now = 1000;
    for (unsigned i = 0; i < 100 && !r.calls; i++) {
        now = MAX(now + 1, usb_probe_deadline(r.probe));
        usb_probe_tick(r.probe, now);
        f->hold = f->submitted > 3; /* device, two reads of the configuration: then silence */
        fake_source_run(f);
    }
    g_assert_nonnull(r.descriptors);
    g_assert_cmpuint(now, >=, USB_TIMEOUT_CONTROL_US);
    finish(&r, f);
}

/* One change of the device's answers each: the sentence says what was wrong. */
static void test_refused(void)
{
    for (unsigned i = 0; i < 6; i++) {
        FakeSource *f = fake_source_new(FAKE_STICK, USB_SPEED_HIGH);
        Result r = {0};
        const char *says = NULL;

        switch (i) {
        case 0:
            f->device_raw[1] = 9;
            says = "device descriptor";
            break;
        case 1:
            f->device_raw[17] = 0;
            says = "no configuration";
            break;
        case 2:
            f->config_raw[3] = 0xff;
            says = "claims";
            break;
        case 3:
            f->config_raw[2]++; /* more than there is */
            says = "bytes";
            break;
        case 4:
            f->config_raw[9] = 0;
            says = "length";
            break;
        default:
            f->refuse = true;
            says = "client";
        }
        start(&r, f);
        fake_source_run(f);
        g_assert_null(r.descriptors);
        g_assert_nonnull(strstr(r.error, says));
        finish(&r, f);
    }
}

static void test_silent(void)
{
    FakeSource *f = fake_source_new(FAKE_STICK, USB_SPEED_HIGH);
    Result r = {0};
    uint64_t now = 1000;

    f->hold = true;
    start(&r, f);
    for (unsigned i = 0; i < 10 && !r.calls; i++) {
        now = MAX(now + 1, usb_probe_deadline(r.probe));
        usb_probe_tick(r.probe, now);
    }
    g_assert_null(r.descriptors);
    g_assert_cmpuint(now, >=, 1000 + USB_TIMEOUT_CONTROL_US);
    g_assert_cmpuint(f->cancels, ==, 1);
    finish(&r, f);
}

static void test_gone_and_freed(void)
{
    FakeSource *f = fake_source_new(FAKE_STICK, USB_SPEED_HIGH);
    Result r = {0};

    start(&r, f);
    fake_source_stray(f, 4711);
    fake_source_unplug(f);
    g_assert_cmpstr(r.error, ==, "it was unplugged");
    finish(&r, f);

    f = fake_source_new(FAKE_STICK, USB_SPEED_HIGH);
    r = (Result){0};
    start(&r, f);
    usb_probe_free(r.probe);
    g_assert_cmpuint(r.calls, ==, 0);
    g_assert_cmpuint(f->cancels, ==, 1);
    g_assert_null(f->base.sink);
    fake_source_run(f);
    fake_source_free(f);
}

static bool allowed(const char *rules, FakeKind kind, const char *says)
{
    const char *error = NULL, *why = NULL;
    FakeSource *f = fake_source_new(kind, USB_SPEED_HIGH);
    UsbDescriptors *d = fake_source_descriptors(f);
    UsbPolicy *policy = usb_policy_new(rules, &error);

    g_assert_nonnull(policy);
    bool ok = usb_policy_check(policy, d, &why);
    g_assert_cmpstr(why, ==, says);
    g_assert_cmpint(ok, ==, !says);
    usb_policy_free(policy);
    usb_descriptors_unref(d);
    fake_source_free(f);
    return ok;
}

static void test_policy(void)
{
    static const char *const wrong[] = {"nonsense", "1,2,3", "-1,-1,-1,-1,1|x", "999,-1,-1,-1,1"};

    g_assert_true(allowed(NULL, FAKE_STICK, NULL));
    g_assert_true(allowed(NULL, FAKE_KEYBOARD, NULL));
    g_assert_false(allowed("0x03,-1,-1,-1,0|-1,-1,-1,-1,1", FAKE_KEYBOARD, "denied"));
    g_assert_true(allowed("0x03,-1,-1,-1,0|-1,-1,-1,-1,1", FAKE_STICK, NULL));
    g_assert_false(allowed("0x03,-1,-1,-1,1", FAKE_STICK, "not covered"));
    g_assert_true(allowed("-1,0x1234,0x5678,-1,1", FAKE_STICK, NULL));
    g_assert_false(allowed("-1,0x1234,0x5678,-1,1", FAKE_KEYBOARD, "not covered"));
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        const char *error = NULL;

        g_assert_null(usb_policy_new(wrong[i], &error));
        g_assert_nonnull(error);
    }
    usb_policy_free(NULL);

    /* hubs: by device class or by an interface */
    FakeSource *f = fake_source_new(FAKE_STICK, USB_SPEED_HIGH);
    f->config_raw[14] = 9;
    UsbDescriptors *d = fake_source_descriptors(f);
    const char *error, *why;
    UsbPolicy *policy = usb_policy_new(NULL, &error);
    g_assert_false(usb_policy_check(policy, d, &why));
    d->configurations[0].alts[0].class_code = 8;
    g_assert_true(usb_policy_check(policy, d, &why));
    d->class_code = 9;
    g_assert_false(usb_policy_check(policy, d, &why));
    usb_policy_free(policy);
    usb_descriptors_unref(d);
    fake_source_free(f);

    /* a setting that turns the device into something else counts, non-boot HID as well */
    f = fake_source_new(FAKE_STICK, USB_SPEED_SUPER);
    d = fake_source_descriptors(f);
    UsbAltSetting *other = &d->configurations[0].alts[1];
    other->class_code = 3;
    other->subclass = other->protocol = 0;
    policy = usb_policy_new("0x03,-1,-1,-1,0|-1,-1,-1,-1,1", &error);
    g_assert_false(usb_policy_check(policy, d, &why));
    usb_policy_free(policy);
    usb_descriptors_unref(d);
    fake_source_free(f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-probe/probe", test_probe);
    g_test_add_func("/usb-probe/hearsay", test_hearsay);
    g_test_add_func("/usb-probe/tolerant", test_tolerant);
    g_test_add_func("/usb-probe/refused", test_refused);
    g_test_add_func("/usb-probe/silent", test_silent);
    g_test_add_func("/usb-probe/gone-and-freed", test_gone_and_freed);
    g_test_add_func("/usb-probe/policy", test_policy);
    return g_test_run();
}
