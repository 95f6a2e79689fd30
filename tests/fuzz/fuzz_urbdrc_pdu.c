/* Any bytes as any of the three things they can be on a URBDRC channel. What is accepted must be
 * writable, and what was written must read as the same. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "urbdrc_pdu.h"

static UrbdrcScratch scratch, scratch2;
static UrbdrcInterfaceResult interfaces[URBDRC_MAX_INTERFACES];
static UrbdrcIsoPacket packets[URBDRC_MAX_ISO_PACKETS];

static void completion(const UrbdrcMessage *m)
{
    uint32_t a, b, n;

    urbdrc_parse_select_configuration_result(m->completion.result, m->completion.result_len, &a, &n,
                                             interfaces);
    assert(n <= URBDRC_MAX_INTERFACES);
    urbdrc_parse_select_interface_result(m->completion.result, m->completion.result_len,
                                         interfaces);
    assert(interfaces[0].n_pipes <= URBDRC_MAX_PIPES);
    urbdrc_parse_isoch_result(m->completion.result, m->completion.result_len, &a, &b, &n, packets);
    assert(n <= URBDRC_MAX_ISO_PACKETS);
    assert(m->completion.data_len <= m->completion.output_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    UrbdrcMessage m, again;
    char text[100];

    for (int phase = 0; phase < 2; phase++) {
        if (urbdrc_parse_from_client(data, size, (UrbdrcPhase)phase, &m))
            continue;
        if (m.kind == URBDRC_ADD_DEVICE)
            urbdrc_string_text(m.add_device.hardware_ids, text, sizeof(text));
        if (m.kind == URBDRC_URB_COMPLETION || m.kind == URBDRC_URB_COMPLETION_NO_DATA)
            completion(&m);
    }
    if (!urbdrc_parse_from_server(data, size, &m, &scratch)) {
        Writer w;

        writer_init(&w, size + 64);
        urbdrc_write_message(&w, &m);
        assert(writer_ok(&w));
        assert(!urbdrc_parse_from_server(w.data, w.len, &again, &scratch2));
        assert(again.kind == m.kind);
        if (m.kind == URBDRC_TRANSFER_IN)
            assert(again.transfer.urb.function == m.transfer.urb.function);
        writer_clear(&w);
    }
    return 0;
}
