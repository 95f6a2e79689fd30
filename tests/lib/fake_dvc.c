#include "fake_dvc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CHANNELS DVC_MAX_OPENS

typedef struct Message {
    struct Message *next;
    size_t len;
    DvcOwner owner; /* .owner == NULL: the bytes are this one's */
    const uint8_t *data;
} Message;

struct Dvc {
    uint32_t id;
    char name[64];
    size_t max_message;
    DvcPriority priority;
    const DvcCallbacks *callbacks;
    void *user;
    bool open, dead, closed_by_server;
    Message *first, **last;
    size_t pending;
};

struct DvcManager {
    Dvc *channels[MAX_CHANNELS];
    size_t n;
    bool refuse;
    size_t bulk_limit;
    struct {
        size_t queued, low_water;
        void (*drained)(void *user);
        void *user;
    } priorities[2];
};

/* ---- dvc.h ---- */

Dvc *dvc_open(DvcManager *manager, const char *name, size_t max_message, DvcPriority priority,
              const DvcCallbacks *callbacks, void *user)
{
    if (manager->refuse || manager->n >= MAX_CHANNELS)
        return NULL;
    Dvc *dvc = calloc(1, sizeof(*dvc));
    assert(dvc && strlen(name) < sizeof(dvc->name));
    strcpy(dvc->name, name);
    dvc->max_message = max_message;
    dvc->priority = priority;
    dvc->callbacks = callbacks;
    dvc->user = user;
    dvc->last = &dvc->first;
    manager->channels[manager->n++] = dvc;
    dvc->id = (uint32_t)manager->n;
    return dvc;
}

/* An allocation of exactly that length shows the sanitizer a read past its end. */
static uint8_t *duplicate(const void *data, size_t len)
{
    uint8_t *made = malloc(len ? len : 1);

    assert(made);
    memcpy(made, data, len);
    return made;
}

bool dvc_send(Dvc *dvc, const uint8_t *data, size_t len)
{
    return dvc_send_held(dvc, data, len, NULL);
}

bool dvc_send_held(Dvc *dvc, const uint8_t *data, size_t len, const DvcOwner *owner)
{
    assert(!dvc->dead);
    if (!dvc->open)
        return false;
    Message *m = calloc(1, sizeof(*m));
    assert(m);
    m->len = len;
    m->data = owner ? data : duplicate(data, len);
    if (owner) {
        m->owner = *owner;
        owner->ref(owner->owner);
    }
    *dvc->last = m;
    dvc->last = &m->next;
    dvc->pending++;
    return true;
}

void dvc_close(Dvc *dvc)
{
    if (!dvc)
        return;
    assert(!dvc->dead);
    dvc->open = false;
    dvc->dead = true;
    dvc->closed_by_server = true;
}

bool dvc_is_open(const Dvc *dvc)
{
    assert(!dvc->dead);
    return dvc->open;
}

uint32_t dvc_id(const Dvc *dvc)
{
    return dvc->id;
}

size_t dvc_manager_queued(const DvcManager *manager, DvcPriority priority)
{
    return manager->priorities[priority].queued;
}

void dvc_manager_limit_bulk(DvcManager *manager, size_t bytes)
{
    manager->bulk_limit = bytes;
}

void dvc_manager_on_drained(DvcManager *manager, DvcPriority priority, size_t low_water,
                            void (*drained)(void *user), void *user)
{
    manager->priorities[priority].low_water = low_water;
    manager->priorities[priority].drained = drained;
    manager->priorities[priority].user = user;
}

/* ---- the test's side ---- */

DvcManager *fake_dvc_manager_new(void)
{
    DvcManager *manager = calloc(1, sizeof(*manager));

    assert(manager);
    return manager;
}

void fake_dvc_manager_free(DvcManager *manager)
{
    size_t len;

    for (size_t i = 0; i < manager->n; i++) {
        assert(manager->channels[i]->dead); /* the code under test must not leak a channel */
        while (manager->channels[i]->first)
            free(fake_dvc_take(manager->channels[i], &len));
        free(manager->channels[i]);
    }
    free(manager);
}

void fake_dvc_refuse_opens(DvcManager *manager)
{
    manager->refuse = true;
}

size_t fake_dvc_count(const DvcManager *manager)
{
    return manager->n;
}

Dvc *fake_dvc_nth(const DvcManager *manager, size_t n)
{
    assert(n < manager->n);
    return manager->channels[n];
}

const char *fake_dvc_name(const Dvc *dvc)
{
    return dvc->name;
}

DvcPriority fake_dvc_priority(const Dvc *dvc)
{
    return dvc->priority;
}

void fake_dvc_accept(Dvc *dvc)
{
    assert(!dvc->dead && !dvc->open);
    dvc->open = true;
    if (dvc->callbacks->opened)
        dvc->callbacks->opened(dvc, dvc->user);
}

void fake_dvc_end(Dvc *dvc, DvcCloseReason reason)
{
    if (dvc->dead)
        return;
    dvc->open = false;
    dvc->callbacks->closed(dvc, reason, dvc->user);
    dvc->dead = true;
}

void fake_dvc_receive(Dvc *dvc, const void *data, size_t len)
{
    if (!dvc->open || len == 0)
        return;
    if (len > dvc->max_message) {
        fake_dvc_end(dvc, DVC_CLOSED_OVERSIZE);
        return;
    }
    uint8_t *copy = duplicate(data, len);
    dvc->callbacks->message(dvc, copy, len, dvc->user);
    free(copy);
}

uint8_t *fake_dvc_take(Dvc *dvc, size_t *len)
{
    Message *m = dvc->first;

    *len = 0;
    if (!m)
        return NULL;
    dvc->first = m->next;
    if (!dvc->first)
        dvc->last = &dvc->first;
    dvc->pending--;
    uint8_t *data = duplicate(m->data, m->len);
    *len = m->len;
    if (m->owner.owner)
        m->owner.unref(m->owner.owner);
    else
        free((void *)m->data);
    free(m);
    return data;
}

size_t fake_dvc_bulk_limit(const DvcManager *manager)
{
    return manager->bulk_limit;
}

size_t fake_dvc_pending(const Dvc *dvc)
{
    return dvc->pending;
}

bool fake_dvc_closed_by_server(const Dvc *dvc)
{
    return dvc->closed_by_server;
}

bool fake_dvc_dead(const Dvc *dvc)
{
    return dvc->dead;
}

void fake_dvc_set_queued(DvcManager *manager, DvcPriority priority, size_t bytes)
{
    bool above = manager->priorities[priority].queued > manager->priorities[priority].low_water;

    manager->priorities[priority].queued = bytes;
    if (above && bytes <= manager->priorities[priority].low_water &&
        manager->priorities[priority].drained)
        manager->priorities[priority].drained(manager->priorities[priority].user);
}
