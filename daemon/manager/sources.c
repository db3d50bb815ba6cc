/* SPDX-License-Identifier: Apache-2.0 */

/* The backends that are configured, each of which is a source of tasks. */

#include <errno.h>
#include <sys/random.h>

#include "manager/internal.h"
#include "util/error.h"

static uint32_t random_u32(void)
{
        uint32_t v = 0;

        /* Up to 256 bytes never fail nor block once the pool is ready: getrandom(2). */
        if (getrandom(&v, sizeof(v), 0) != sizeof(v))
                v = (uint32_t)mono_now_ns();
        return v;
}

static int start_oap(Manager *m)
{
        int r = session_new(&m->session, &m->config, m->core, store_keep(m->store), random_u32);

        if (r)
                return r > 0 ? error_origin(-EINVAL) : error_trace(r);
        m->sources.list[m->sources.n++] = session_source(m->session);
        return 0;
}

static int start_local(Manager *m)
{
        int r = store_new_results(&m->results, m->config.state_dir, m->config.local_max_bytes,
                m->config.local_max_age_ms);

        if (r == 0)
                r = local_new(&m->local, &m->config, m->core, store_results(m->results));
        if (r)
                return error_trace(r);
        m->sources.list[m->sources.n++] = local_source(m->local);
        return 0;
}

int manager_start_backends(Manager *m)
{
        unsigned backends = config_backends(&m->config);
        int r = 0;

        if (backends & BACKEND_OAP)
                r = start_oap(m);
        if (r == 0 && backends & BACKEND_LOCAL)
                r = start_local(m);
        return r < 0 ? error_trace(r) : 0;
}

void sources_instance_added(Sources *s, Instance *i, Now now)
{
        for (size_t k = 0; k < s->n; k++)
                s->list[k]->instance_added(s->list[k]->userdata, i, now);
}

void sources_instance_removed(Sources *s, Instance *i)
{
        for (size_t k = 0; k < s->n; k++)
                if (s->list[k]->instance_removed)
                        s->list[k]->instance_removed(s->list[k]->userdata, i);
}

void sources_step(Sources *s, Now now)
{
        for (size_t k = 0; k < s->n; k++)
                s->list[k]->step(s->list[k]->userdata, now);
}

uint64_t sources_next_mono_ns(const Sources *s, Now now)
{
        uint64_t next = UINT64_MAX;

        for (size_t k = 0; k < s->n; k++) {
                uint64_t due = s->list[k]->next_mono_ns(s->list[k]->userdata, now);

                next = due < next ? due : next;
        }
        return next;
}

void sources_flush(Sources *s, Now now)
{
        for (size_t k = 0; k < s->n; k++)
                s->list[k]->flush(s->list[k]->userdata, now);
}

bool sources_idle(const Sources *s)
{
        for (size_t k = 0; k < s->n; k++)
                if (!s->list[k]->idle(s->list[k]->userdata))
                        return false;
        return true;
}
