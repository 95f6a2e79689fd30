#include <stddef.h>

#include "usb.h"

const char *usb_status_name(UsbStatus status)
{
    static const char *const names[] = {"success", "cancelled", "invalid", "I/O error",
                                        "stall",   "timeout",   "babble"};

    return (unsigned)status < sizeof(names) / sizeof(names[0]) ? names[status] : "unknown";
}

const char *usb_speed_name(UsbSpeed speed)
{
    static const char *const names[] = {"low", "full", "high", "super"};

    return (unsigned)speed < sizeof(names) / sizeof(names[0]) ? names[speed] : "unknown";
}

uint32_t usb_source_next_id(UsbSource *source)
{
    source->last_id = source->last_id >= USB_MAX_REQUEST_ID ? 1 : source->last_id + 1;
    return source->last_id;
}

void usb_source_set_sink(UsbSource *source, const UsbSink *sink, void *user)
{
    source->sink = sink;
    source->sink_user = user;
}
