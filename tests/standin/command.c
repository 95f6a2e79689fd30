/*
 * The commands of the control socket: one line in, one line out. docs/testing-standin.md lists
 * them.
 */
#include "bus.h"
#include "standin.h"
#include <stdlib.h>
#include <string.h>

typedef void Handler(Device *d, char *args, FILE *answer);

/* Cuts the first word off @args. */
static char *word(char **args)
{
    char *w = *args + strspn(*args, " ");
    size_t n = strcspn(w, " ");

    *args = w + n;
    if (**args)
        *(*args)++ = 0;
    return w;
}

/* An endpoint that one of the device's alternates has, or the control endpoint. */
static Endpoint *endpoint_arg(Device *d, char **args, FILE *answer)
{
    char *w = word(args), *end;
    unsigned long address = strtoul(w, &end, 16);

    if (*w && !*end && address == 0)
        return &d->eps[0];
    for (unsigned i = 0; *w && !*end && i < d->n_eps_desc; i++) {
        if (d->eps_desc[i].address == address)
            return device_ep(d, (uint8_t)address);
    }
    fprintf(answer, "error %s has no endpoint '%s'", d->name, w);
    return NULL;
}

static void cmd_unplug(Device *d, char *args, FILE *answer)
{
    bus_unplug(d);
    fputs("ok", answer);
}

/* stall|error|oversize NAME EP [COUNT] */
static void count_fault(Device *d, char *args, FILE *answer, size_t field)
{
    Endpoint *ep = endpoint_arg(d, &args, answer);
    unsigned long n;

    if (!ep)
        return;
    args = word(&args);
    n = *args ? strtoul(args, NULL, 10) : 1;
    *(unsigned *)((char *)&ep->faults + field) = (unsigned)n;
    device_run(d);
    fputs("ok", answer);
}

static void cmd_stall(Device *d, char *args, FILE *answer)
{
    count_fault(d, args, answer, offsetof(Faults, stall));
}

static void cmd_error(Device *d, char *args, FILE *answer)
{
    count_fault(d, args, answer, offsetof(Faults, error));
}

static void cmd_oversize(Device *d, char *args, FILE *answer)
{
    count_fault(d, args, answer, offsetof(Faults, babble));
}

static void cmd_short(Device *d, char *args, FILE *answer)
{
    Endpoint *ep = endpoint_arg(d, &args, answer);

    if (!ep)
        return;
    ep->faults.clip = true;
    ep->faults.clip_len = (uint32_t)strtoul(word(&args), NULL, 10);
    fputs("ok", answer);
}

static void cmd_delay(Device *d, char *args, FILE *answer)
{
    char *w = word(&args), *end;
    double ms = strtod(w, &end);
    Endpoint *only = NULL;

    if (!*w || *end || ms < 0 || ms > 600000) {
        fputs("error delay NAME MILLISECONDS [EP]", answer);
        return;
    }
    if (*args && !(only = endpoint_arg(d, &args, answer)))
        return;
    for (unsigned i = 0; i < 32; i++) {
        if (!only || only == &d->eps[i])
            d->eps[i].faults.delay = (int64_t)(ms * MS);
    }
    fputs("ok", answer);
}

static void set_hang(Device *d, char *args, FILE *answer, bool hang)
{
    Endpoint *ep = endpoint_arg(d, &args, answer);

    if (!ep)
        return;
    ep->faults.hang = hang;
    device_run(d);
    fputs("ok", answer);
}

static void cmd_hang(Device *d, char *args, FILE *answer)
{
    set_hang(d, args, answer, true);
}

static void cmd_unhang(Device *d, char *args, FILE *answer)
{
    set_hang(d, args, answer, false);
}

static unsigned queued(const Endpoint *ep)
{
    unsigned n = 0;
    Xfer *x;

    TAILQ_FOREACH(x, &ep->queue, link)
    n++;
    return n;
}

static void log_endpoint(const Endpoint *ep, FILE *answer)
{
    const Counters *c = &ep->count;
    char name[8];

    snprintf(name, sizeof(name), "ep%02x", ep->address & 15 ? ep->address : 0);
    fprintf(answer, " %s.transfers=%llu %s.bytes=%llu", name, (unsigned long long)c->transfers,
            name, (unsigned long long)c->bytes);
    fprintf(answer, " %s.stalls=%llu %s.cancelled=%llu", name, (unsigned long long)c->stalls, name,
            (unsigned long long)c->cancelled);
    fprintf(answer, " %s.timeouts=%llu %s.errors=%llu", name, (unsigned long long)c->timeouts, name,
            (unsigned long long)c->errors);
    fprintf(answer, " %s.queued=%u %s.halted=%d", name, queued(ep), name, ep->halted);
    if (ep->iso.packets)
        fprintf(answer, " %s.packets=%llu %s.gaps=%llu %s.missed=%llu", name,
                (unsigned long long)ep->iso.packets, name, (unsigned long long)ep->iso.gaps, name,
                (unsigned long long)ep->iso.missed);
}

static void cmd_log(Device *d, char *args, FILE *answer)
{
    uint64_t all = 0;
    unsigned claimed = 0, kernel = 0;

    for (unsigned i = 0; i < device_config(d)->n_interfaces; i++) {
        claimed += d->owner[i] != NULL;
        kernel += d->kernel_bound[i];
    }
    fprintf(answer, "ok configuration=%u alt=%u opens=%u claimed=%u kernel=%u", d->configuration,
            d->alt[0], d->opens, claimed, kernel);
    fprintf(answer, " resets=%llu set_configuration=%llu set_interface=%llu",
            (unsigned long long)d->resets, (unsigned long long)d->set_configurations,
            (unsigned long long)d->set_interfaces);
    fprintf(answer, " clear_halt=%llu stalled_requests=%llu", (unsigned long long)d->clear_halts,
            (unsigned long long)d->stalled_requests);
    for (unsigned i = 0; i < V_COUNT; i++) {
        all += d->violations[i];
        fprintf(answer, " violation.%s=%llu", violation_name((Violation)i),
                (unsigned long long)d->violations[i]);
    }
    fprintf(answer, " violations=%llu", (unsigned long long)all);
    for (unsigned i = 0; i < 32; i++) {
        bool known = i == 0;

        for (unsigned e = 0; e < d->n_eps_desc; e++)
            known = known || device_ep(d, d->eps_desc[e].address) == &d->eps[i];
        if (known)
            log_endpoint(&d->eps[i], answer);
    }
}

/* forbid NAME 0|1 */
static void cmd_forbid(Device *d, char *args, FILE *answer)
{
    d->forbidden = strcmp(word(&args), "1") == 0;
    fputs("ok", answer);
}

static const struct {
    const char *verb;
    Handler *run;
} handlers[] = {
    {"forbid", cmd_forbid},     {"unplug", cmd_unplug}, {"stall", cmd_stall}, {"error", cmd_error},
    {"oversize", cmd_oversize}, {"short", cmd_short},   {"delay", cmd_delay}, {"hang", cmd_hang},
    {"unhang", cmd_unhang},     {"log", cmd_log},
};

static const char *speed_name(int speed)
{
    static const char *const names[] = {"?", "low", "full", "high", "super"};

    return names[speed];
}

static void cmd_list(FILE *answer)
{
    Device *d;

    fputs("ok", answer);
    TAILQ_FOREACH(d, bus_devices(), link)
    {
        const uint8_t *p = d->device_desc;

        fprintf(answer, " name=%s,kind=%s,vid=%02x%02x,pid=%02x%02x,bus=%u,address=%u,port=%u",
                d->name, d->ops->kind, p[9], p[8], p[11], p[10], d->bus, d->address, d->port);
        fprintf(answer, ",speed=%s,opens=%u", speed_name(d->speed), d->opens);
    }
}

static void cmd_plug(char *args, FILE *answer)
{
    char err[512];
    Device *d = bus_plug(args, err, sizeof(err));

    if (d)
        fprintf(answer, "ok name=%s,bus=%u,address=%u,port=%u", d->name, d->bus, d->address,
                d->port);
    else
        fprintf(answer, "error %s", err);
}

static void device_command(const char *verb, char *args, FILE *answer)
{
    char *name = word(&args);
    Device *d = bus_find(name);

    if (!d) {
        fprintf(answer, "error no device is called '%s', or no command '%s'", name, verb);
        return;
    }
    for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
        if (!strcmp(handlers[i].verb, verb)) {
            handlers[i].run(d, args, answer);
            return;
        }
    }
    if (!d->ops->command || !d->ops->command(d, verb, args, answer))
        fprintf(answer, "error a %s has no command '%s'", d->ops->kind, verb);
    device_run(d);
}

void machine_command(const char *line, FILE *answer)
{
    char *copy = strdup(line), *args = copy, *verb = word(&args);

    if (!copy)
        abort();
    bus_lock();
    trace(NULL, "command: %s", verb);
    if (!strcmp(verb, "plug"))
        cmd_plug(args, answer);
    else if (!strcmp(verb, "list"))
        cmd_list(answer);
    else
        device_command(verb, args, answer);
    bus_unlock();
    free(copy);
}

bool standin_command(const char *line, char *answer, size_t size)
{
    FILE *f = fmemopen(answer, size, "w");

    bus_start();
    if (!f)
        abort();
    machine_command(line, f);
    fclose(f);
    answer[size - 1] = 0;
    return !strncmp(answer, "ok", 2);
}
