/*
 * The in-flight table: each request leaves exactly once, whatever the order.
 */
#include <glib.h>
#include <string.h>

#include "mutate.h"
#include "transfer.h"

static TransferTable table;

static void insert(uint32_t id, TransferTimer timer, uint32_t length)
{
    Transfer t = {.id = id, .timer = timer, .length = length, .owner = &table};

    transfer_insert(&table, &t);
}

static void test_fates(void)
{
    Transfer t;

    transfer_table_init(&table, 1000);
    g_assert_cmpuint(transfer_table_deadline(&table), ==, UINT64_MAX);
    insert(1, TRANSFER_TIMER_DATA, 10);
    insert(2, TRANSFER_TIMER_DATA, 20);
    insert(1025, TRANSFER_TIMER_NONE, 0); /* the bucket of 1 */
    g_assert_cmpuint(table.in_flight, ==, 3);
    g_assert_cmpuint(table.bytes, ==, 30);
    g_assert_cmpint(transfer_complete(&table, 1, &t), ==, TRANSFER_WAS_LIVE);
    g_assert_cmpuint(t.id, ==, 1);
    g_assert_cmpuint(t.length, ==, 10);
    g_assert_cmpint(transfer_complete(&table, 1, &t), ==, TRANSFER_WAS_UNKNOWN);
    g_assert_true(transfer_cancel(&table, 2));
    g_assert_false(transfer_cancel(&table, 2));
    g_assert_true(transfer_known(&table, 2)); /* as a tombstone */
    g_assert_cmpint(transfer_complete(&table, 2, &t), ==, TRANSFER_WAS_CANCELLED);
    g_assert_cmpint(transfer_complete(&table, 2, &t), ==, TRANSFER_WAS_UNKNOWN);
    g_assert_false(transfer_known(&table, 2));
    g_assert_false(transfer_cancel(&table, 77));
    transfer_reassign(&table, 1025, &t);
    g_assert_cmpint(transfer_complete(&table, 1025, &t), ==, TRANSFER_WAS_LIVE);
    g_assert_true(t.owner == &t);
    insert(3, TRANSFER_TIMER_DATA, 5);
    transfer_undo(&table, 3);
    g_assert_cmpuint(table.in_flight, ==, 0);
    g_assert_cmpuint(table.bytes, ==, 0);
    insert(4, TRANSFER_TIMER_ISO, 5);
    transfer_table_clear(&table);
    g_assert_cmpint(transfer_complete(&table, 4, &t), ==, TRANSFER_WAS_UNKNOWN);
}

static void test_timers(void)
{
    uint64_t now = 1000;
    Transfer t;

    transfer_table_init(&table, now);
    transfer_table_time(&table, now);
    insert(1, TRANSFER_TIMER_DATA, 0);
    insert(2, TRANSFER_TIMER_CONTROL, 0);
    insert(3, TRANSFER_TIMER_NONE, 0);
    insert(4, TRANSFER_TIMER_ISO, 0);
    g_assert_cmpuint(transfer_table_deadline(&table), ==, now + USB_TIMEOUT_ISO_US);
    transfer_table_time(&table, now + USB_TIMEOUT_ISO_US - 1);
    g_assert_false(transfer_expire(&table, &t));
    transfer_table_time(&table, now + USB_TIMEOUT_ISO_US);
    g_assert_true(transfer_expire(&table, &t));
    g_assert_cmpuint(t.id, ==, 4);
    g_assert_false(transfer_expire(&table, &t));
    transfer_table_time(&table, now + USB_TIMEOUT_TRANSFER_US);
    g_assert_true(transfer_expire(&table, &t));
    g_assert_cmpuint(t.id, ==, 2);
    g_assert_true(transfer_expire(&table, &t));
    g_assert_cmpuint(t.id, ==, 1);
    g_assert_false(transfer_expire(&table, &t));
    g_assert_cmpint(transfer_complete(&table, 1, &t), ==, TRANSFER_WAS_CANCELLED);
    transfer_table_time(&table, now + 100000000000u);
    g_assert_false(transfer_expire(&table, &t));                                 /* 3: never */
    g_assert_cmpint(transfer_complete(&table, 2, &t), ==, TRANSFER_WAS_UNKNOWN); /* forgotten */
    g_assert_cmpuint(transfer_table_deadline(&table), ==, UINT64_MAX);

    /* inserted while the time was not known: the timer starts when it is */
    transfer_table_time_unknown(&table);
    insert(5, TRANSFER_TIMER_CONTROL, 0);
    now = table.now + 50000000;
    g_assert_cmpuint(transfer_table_deadline(&table), <, now);
    transfer_table_time(&table, now);
    g_assert_false(transfer_expire(&table, &t));
    g_assert_cmpuint(transfer_table_deadline(&table), ==, now + USB_TIMEOUT_CONTROL_US);
    transfer_table_time(&table, now - 1000); /* a clock that steps back is ignored */
    g_assert_cmpuint(table.now, ==, now);
}

static void test_bounds(void)
{
    Transfer t;

    transfer_table_init(&table, 0);
    for (uint32_t id = 1; id <= USB_MAX_IN_FLIGHT; id++) {
        g_assert_false(transfer_full(&table));
        insert(id, TRANSFER_TIMER_DATA, 1);
    }
    g_assert_true(transfer_full(&table));
    g_assert_cmpuint(transfer_tombstones_full_since(&table), ==, UINT64_MAX);
    for (uint32_t id = 1; id <= USB_MAX_IN_FLIGHT; id++)
        g_assert_true(transfer_cancel(&table, id));
    g_assert_cmpuint(transfer_tombstones_full_since(&table), ==, 0);
    /* more tombstones push the oldest out, and the table can be filled again and again */
    for (uint32_t id = USB_MAX_IN_FLIGHT + 1; id < 5000; id++) {
        insert(id, TRANSFER_TIMER_DATA, 1);
        g_assert_true(transfer_cancel(&table, id));
        g_assert_false(transfer_known(&table, id - USB_MAX_TOMBSTONES));
        g_assert_true(transfer_known(&table, id - USB_MAX_TOMBSTONES + 1));
    }
    uint32_t cursor = 0;
    g_assert_null(transfer_next(&table, &cursor));
    for (uint32_t id = 10001; id <= 10000 + USB_MAX_IN_FLIGHT; id++)
        insert(id, TRANSFER_TIMER_DATA, 1);
    cursor = 0;
    unsigned n = 0;
    for (const Transfer *live; (live = transfer_next(&table, &cursor)); n++)
        g_assert_cmpint(transfer_complete(&table, live->id, &t), ==, TRANSFER_WAS_LIVE);
    g_assert_cmpuint(n, ==, USB_MAX_IN_FLIGHT);
}

/* A model that is obviously right against the table, in 10^5 and more random steps. */
enum { FREE, LIVE, DEAD };

static void test_random(void)
{
    enum { IDS = 4096 };
    static uint8_t model[IDS];
    static uint64_t t0[IDS];
    static uint8_t timers[IDS];
    uint32_t state = 42, left[4] = {0};
    unsigned live = 0, inserted = 0;
    uint64_t now = 1, bytes = 0;
    Transfer t;

    memset(model, FREE, sizeof(model));
    transfer_table_init(&table, now);
    transfer_table_time(&table, now);
    for (unsigned step = 0; step < 300000; step++) {
        uint32_t a = mutate_next(&state), id = 1 + mutate_next(&state) % (IDS - 1);

        switch (a % 8) {
        case 0:
        case 1:
        case 2:
            if (!transfer_full(&table) && model[id] == FREE && !transfer_known(&table, id)) {
                timers[id] = (uint8_t)(a >> 8) % TRANSFER_TIMERS;
                insert(id, timers[id], id);
                model[id] = LIVE;
                t0[id] = now;
                live++;
                inserted++;
                bytes += id;
            }
            break;
        case 3:
        case 4: {
            TransferFate fate = transfer_complete(&table, id, &t);

            g_assert_cmpint(fate == TRANSFER_WAS_LIVE, ==, model[id] == LIVE);
            if (model[id] == LIVE) {
                g_assert_cmpuint(t.id, ==, id);
                live--;
                bytes -= id;
                left[0]++;
            }
            if (fate == TRANSFER_WAS_CANCELLED)
                g_assert_cmpuint(model[id], ==, DEAD);
            model[id] = FREE;
            break;
        }
        case 5:
            g_assert_cmpint(transfer_cancel(&table, id), ==, model[id] == LIVE);
            if (model[id] == LIVE) {
                live--;
                bytes -= id;
                left[1]++;
                model[id] = DEAD;
            }
            break;
        case 6:
            now += a % 100000;
            transfer_table_time(&table, now);
            while (transfer_expire(&table, &t)) {
                static const uint64_t patience[TRANSFER_TIMERS] = {
                    0, USB_TIMEOUT_CONTROL_US, USB_TIMEOUT_TRANSFER_US, USB_TIMEOUT_ISO_US,
                    USB_TIMEOUT_SILENT_US};

                g_assert_cmpuint(model[t.id], ==, LIVE);
                g_assert_cmpuint(timers[t.id], !=, TRANSFER_TIMER_NONE);
                g_assert_cmpuint(now - t0[t.id], >=, patience[timers[t.id]]);
                model[t.id] = DEAD;
                live--;
                bytes -= t.id;
                left[2]++;
            }
            g_assert_true(transfer_table_deadline(&table) > now);
            break;
        default: /* tombstones that were pushed out or are too old may be used again */
            if (model[id] == DEAD && !transfer_known(&table, id))
                model[id] = FREE;
        }
        g_assert_cmpuint(table.in_flight, ==, live);
        g_assert_cmpuint(table.bytes, ==, bytes);
        g_assert_cmpuint(table.tombstones.count, <=, USB_MAX_TOMBSTONES);
    }
    for (uint32_t id = 1; id < IDS; id++) {
        if (model[id] == LIVE) {
            g_assert_cmpint(transfer_complete(&table, id, &t), ==, TRANSFER_WAS_LIVE);
            left[3]++;
        }
    }
    g_assert_cmpuint(inserted, ==, left[0] + left[1] + left[2] + left[3]);
    g_assert_cmpuint(inserted, >, 10000);
    for (unsigned i = 0; i < 3; i++)
        g_assert_cmpuint(left[i], >, 100); /* each way out was taken */
    g_assert_cmpuint(table.in_flight, ==, 0);
}

static void test_ids(void)
{
    UsbSource source = {.last_id = USB_MAX_REQUEST_ID - 1};

    g_assert_cmpuint(usb_source_next_id(&source), ==, USB_MAX_REQUEST_ID);
    g_assert_cmpuint(usb_source_next_id(&source), ==, 1);
    g_assert_cmpuint(usb_source_next_id(&source), ==, 2);
    g_assert_cmpstr(usb_status_name(USB_STATUS_STALL), ==, "stall");
    g_assert_cmpstr(usb_status_name((UsbStatus)99), ==, "unknown");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/transfer/fates", test_fates);
    g_test_add_func("/transfer/timers", test_timers);
    g_test_add_func("/transfer/bounds", test_bounds);
    g_test_add_func("/transfer/random", test_random);
    g_test_add_func("/transfer/ids", test_ids);
    return g_test_run();
}
