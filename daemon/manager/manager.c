/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "core/counter.h"
#include "manager/internal.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mailbox.h"
#include "version.h"

/* On SIGTERM: so long for the last stacks to be named, and for the OAP to take them. systemd kills
 * later than that. */
#define STOP_SETTLE_NS (1200 * NS_PER_MS)
#define STOP_SEND_NS   (1800 * NS_PER_MS)
/* A thread that is at the same work for so long hangs: systemd's watchdog is fed no more. */
#define STALL_NS (20 * NS_PER_S)
/* Events taken from the sampler before other sources get their turn. */
#define SAMPLER_BURST 4096
#define NICE          (-15)
#define SHARE_NS      (NS_PER_S / 6)

/* ---- clients ---- */

static void on_client_added(void *userdata, Instance *instance, pid_t pid)
{
        Manager *m = userdata;

        if (instance->n_clients == 1)
                sources_instance_added(&m->sources, instance, now_get());
        if (!list_empty(&instance->tasks))
                manager_prepare(m, pid);
}

static void on_client_removed(void *userdata, Instance *instance, pid_t pid)
{
        Manager *m = userdata;

        if (instance->n_clients == 1)
                sources_instance_removed(&m->sources, instance);
}

static const ListenerOps listener_ops = {
        .client_added = on_client_added,
        .client_removed = on_client_removed,
};

/* ---- event sources ---- */

/* For those who look at what is profiled. */
static void observe_profiled(Manager *m, const SamplerEvent *e, Stack *stack, Now now)
{
        pid_t pid, tid;

        if (m->observers.n_observers > 0 && core_target_thread(m->core, e->target, &pid, &tid))
                observers_profiled(&m->observers, e, pid, tid, stack, now);
}

static void take_sampler_event(Manager *m, SamplerEvent *e, Now now)
{
        Stack *stack;

        switch (e->type) {
        case SAMPLER_SAMPLE:
                stack = stack_table_sample(m->stacks, e->target, e->stack_id);
                if (stack && observer_owns(e->target))
                        observers_sample(&m->observers, e, stack, now);
                else if (stack) {
                        observe_profiled(m, e, stack, now);
                        core_samples(m->core, e->target,
                                &(SampleRun){.mono_ns = e->mono_ns,
                                        .wall_ns = e->wall_ns,
                                        .period_ns = e->period_ns,
                                        .n = e->n,
                                        .state = e->state,
                                        .stack = stack},
                                e->times, now);
                } else
                        counter_add(COUNTER_SAMPLES_QUEUE_FULL, e->n);
                break;
        case SAMPLER_STACK:
                if (stack_table_frames(m->stacks, e) < 0)
                        log_error("out of memory: a stack is lost");
                break;
        case SAMPLER_TIMES:
                if (observer_owns(e->target))
                        observers_sample(&m->observers, e, NULL, now);
                else
                        core_thread_times(m->core, e->target, e->mono_ns, e->times);
                break;
        case SAMPLER_GONE:
                if (observer_owns(e->target))
                        observers_gone(&m->observers, e->target, now);
                else
                        core_target_gone(m->core, e->target, now);
                break;
        }
}

static void take_sampler_events(Manager *m, Now now)
{
        SamplerEvent e;

        for (unsigned i = 0; i < SAMPLER_BURST && mailbox_pop(sampler_events(m->sampler), &e) == 0;
                i++)
                take_sampler_event(m, &e, now);
}

static int on_sampler(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        Manager *m = userdata;
        Now now = now_get();

        take_sampler_events(m, now);
        observers_step(&m->observers, now);
        return 0;
}

/* What is due now is delivered for want of a word that its request had ended before, and a segment
 * is over for want of further samples. Both may have been waiting to be read for long. */
static void step_core(Manager *m, Now now)
{
        if (core_next_mono_ns(m->core, now) <= now.mono_ns) {
                if (m->listener)
                        listener_catch_up(m->listener);
                if (m->sampler)
                        take_sampler_events(m, now);
        }
        core_step(m->core, now);
        observers_step(&m->observers, now);
}

static int on_worker(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        Manager *m = userdata;

        stack_table_dispatch(m->stacks);
        step_core(m, now_get());
        return 0;
}

static int on_session(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        Manager *m = userdata;

        session_dispatch(m->session, now_get());
        return 0;
}

static int on_results(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        Manager *m = userdata;

        store_dispatch(m->results);
        sources_step(&m->sources, now_get());
        return 0;
}

static int on_store(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        Manager *m = userdata;

        store_dispatch(m->store);
        sources_step(&m->sources, now_get());
        return 0;
}

static bool thread_stalled(const char *name, uint64_t busy_since, uint64_t now)
{
        if (busy_since == 0 || busy_since + STALL_NS > now)
                return false;
        log_error("the %s thread has been at one piece of work for %u s", name,
                (unsigned)((now - busy_since) / NS_PER_S));
        return true;
}

static void feed_watchdog(Manager *m, uint64_t now)
{
        if (m->watchdog_ns == 0 || now < m->next_watchdog_mono_ns)
                return;
        m->next_watchdog_mono_ns = now + m->watchdog_ns / 2;
        if (thread_stalled("symbolizer", worker_busy_since_mono_ns(m->worker), now))
                return;
        if (m->sampler && thread_stalled("sampler", sampler_busy_since_mono_ns(m->sampler), now))
                return;
        sd_notify(false, "WATCHDOG=1");
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        Manager *m = userdata;
        Now now = now_get();

        m->timer_mono_ns = UINT64_MAX;
        step_core(m, now);
        sources_step(&m->sources, now);
        stack_table_send(m->stacks);
        stack_table_expire(m->stacks, now.mono_ns);
        feed_watchdog(m, now.mono_ns);
        return 0;
}

static uint64_t min_ns(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

static void segment_count(void *userdata, const SegmentInfo *info)
{
        ++*(unsigned *)userdata;
}

/* While stopping: hand out what the segments have once their stacks are named, then send it, then
 * end. */
static int stop_step(Manager *m, Now now)
{
        unsigned n_segments = 0;

        if (!m->flushed) {
                core_segments(m->core, now, segment_count, &n_segments);
                if (n_segments > 0 && now.mono_ns < m->stop_mono_ns + STOP_SETTLE_NS)
                        return 0;
                core_flush(m->core, now);
                sources_flush(&m->sources, now);
                m->flushed = true;
        }
        if (!sources_idle(&m->sources) && now.mono_ns < m->stop_mono_ns + STOP_SEND_NS)
                return 0;
        return sd_event_exit(m->event, 0);
}

/* After each round of events: the next time at which anything is due. */
static int on_post(sd_event_source *source, void *userdata)
{
        Manager *m = userdata;
        Now now = now_get();
        uint64_t next;
        int r;

        realtime_step(&m->realtime, m->sampler && sampler_needs_realtime(m->sampler),
                clock_ns(CLOCK_THREAD_CPUTIME_ID), now.mono_ns);
        manager_send_deferred(m);
        if (m->stop_mono_ns) {
                r = stop_step(m, now);
                if (r < 0)
                        return error_trace(r);
        }
        next = min_ns(core_next_mono_ns(m->core, now), observers_next_mono_ns(&m->observers));
        next = min_ns(next, sources_next_mono_ns(&m->sources, now));
        if (m->watchdog_ns)
                next = min_ns(next, m->next_watchdog_mono_ns);
        if (!list_empty(&m->deferred) || stack_table_waits(m->stacks))
                next = min_ns(next, now.mono_ns + NS_PER_MS);
        if (m->stop_mono_ns)
                next = min_ns(next, now.mono_ns + 10 * NS_PER_MS);
        if (next == m->timer_mono_ns)
                return 0;
        m->timer_mono_ns = next;
        /* Rounded up: a timer that fires early finds nothing due, and spins. */
        r = sd_event_source_set_time(
                m->timer, next == UINT64_MAX ? UINT64_MAX : next / NS_PER_US + 1);
        if (r < 0)
                return error_origin(r);
        return sd_event_source_set_enabled(m->timer, SD_EVENT_ONESHOT);
}

static int on_stop_signal(
        sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
        Manager *m = userdata;

        if (m->stop_mono_ns)
                return sd_event_exit(m->event, 0);
        log_info("stopping: delivering what the live segments have");
        sd_notify(false, "STOPPING=1\nSTATUS=Delivering the last snapshots");
        m->stop_mono_ns = mono_now_ns();
        /* All clients go, and so all their segments stop now, unless they have before. */
        if (m->listener)
                listener_catch_up(m->listener);
        m->listener = listener_free(m->listener);
        m->control = control_server_free(m->control);
        return 0;
}

static int on_reload_signal(
        sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
        Manager *m = userdata;
        int r = manager_reload(m);

        return r < 0 ? r : 0;
}

static void note_restart(const char *key)
{
        log_warning("%s has changed: it takes effect when swprofd is restarted", key);
}

int manager_check_config(const Config *config)
{
        int r;

        if (config_backends(config) & BACKEND_OAP && !config->oap_servers[0]) {
                log_error("backends has oap, but oap.servers names none");
                return CONFIG_E_INVALID;
        }
        r = session_check_config(config);
        return r > 0 ? CONFIG_E_INVALID : error_trace(r);
}

int manager_reload(Manager *m)
{
        Config new, old = m->config;
        int r;

        sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%llu",
                (unsigned long long)(mono_now_ns() / NS_PER_US));
        r = m->load(m->userdata, &new);
        if (r == 0) {
                r = manager_check_config(&new);
                if (r)
                        config_deinit(&new);
        }
        if (r == 0) {
                if (strcmp(new.span_socket, old.span_socket) != 0)
                        note_restart("span_socket");
                if (strcmp(new.control_socket, old.control_socket) != 0)
                        note_restart("control_socket");
                if (config_backends(&new) != config_backends(&m->config))
                        note_restart("backends, or whether oap.servers names any,");
                if (strcmp(new.state_dir, old.state_dir) != 0 ||
                        new.store_max_bytes != old.store_max_bytes ||
                        new.local_max_bytes != old.local_max_bytes ||
                        new.local_max_age_ms != old.local_max_age_ms)
                        note_restart("state_dir, store.max or local");
                if (new.capture_backend != old.capture_backend ||
                        new.capture_unwind != old.capture_unwind ||
                        new.capture_kernel_frames != old.capture_kernel_frames ||
                        new.capture_realtime != old.capture_realtime ||
                        new.capture_max_stack_bytes != old.capture_max_stack_bytes ||
                        new.capture_max_targets != old.capture_max_targets)
                        note_restart("capture");
                if (new.stacks_blocked_on != old.stacks_blocked_on)
                        note_restart("stacks.blocked_on");
                if (new.symbols_lines != old.symbols_lines ||
                        new.profile_max_depth != old.profile_max_depth)
                        note_restart("symbols.lines or profile.max_depth");
                if (new.python_stacks != old.python_stacks)
                        note_restart("python.stacks");
                m->config = new;
                log_set_max_level(log_level_from_string(m->config.log_level));
                core_set_config(m->core, &m->config);
                if (m->session && m->config.oap_servers[0])
                        session_set_config(m->session, &m->config, now_get());
                if (m->listener)
                        listener_set_config(m->listener, &m->config);
                config_deinit(&old);
                log_info("configuration reloaded");
        }
        sd_notify(false, "READY=1");
        return r < 0 ? error_trace(r) : r;
}

/* ---- building it ---- */

/* Sockets of swprofd.socket units, by their FileDescriptorName. */
static void passed_sockets(int *ret_span, int *ret_control)
{
        char **names = NULL;
        int n = sd_listen_fds_with_names(true, &names);

        *ret_span = *ret_control = -1;
        for (int i = 0; i < n; i++) {
                int fd = SD_LISTEN_FDS_START + i;

                if (strcmp(names[i], "span") == 0 && *ret_span < 0)
                        *ret_span = fd;
                else if (strcmp(names[i], "control") == 0 && *ret_control < 0)
                        *ret_control = fd;
                else
                        close(fd);
                free(names[i]);
        }
        free(names);
}

static int manager_start_capture(Manager *m)
{
        _cleanup_(capture_freep) Capture *capture = NULL;
        int r;

        r = capture_new(&capture, &m->config, &m->capture_info);
        if (r < 0)
                return error_trace(r);
        if (r > 0) {
                log_error("no stacks can be captured on this host: %s", m->capture_info.reason);
                return 0;
        }
        if (m->capture_info.stops && m->config.capture_backend == CAPTURE_BACKEND_AUTO)
                log_warning(
                        "no BPF here, so each sample of a thread that has moved on stops it for a "
                        "moment: %s",
                        m->capture_info.reason);
        else
                log_info("capturing by %s", m->capture_info.reason);
        r = sampler_new(&m->sampler, &m->config, capture, m->worker);
        if (r < 0)
                return error_trace(r);
        TAKE_PTR(capture);
        r = sd_event_add_io(
                m->event, NULL, mailbox_fd(sampler_events(m->sampler)), EPOLLIN, on_sampler, m);
        return r < 0 ? error_origin(r) : 0;
}

static int manager_start_sources(Manager *m)
{
        uint64_t watchdog_us = 0;
        int r;

        r = sd_event_add_signal(m->event, NULL, SIGTERM, on_stop_signal, m);
        if (r >= 0)
                r = sd_event_add_signal(m->event, NULL, SIGINT, on_stop_signal, m);
        if (r >= 0)
                r = sd_event_add_signal(m->event, NULL, SIGHUP, on_reload_signal, m);
        if (r >= 0)
                /* Fires at once: on_post, which sets it from then on, comes after other events
                 * only, and the watchdog is to be fed even if there are none. */
                r = sd_event_add_time(m->event, &m->timer, CLOCK_MONOTONIC, 0, 1, on_timer, m);
        if (r >= 0)
                r = sd_event_add_post(m->event, &m->post, on_post, m);
        if (r >= 0)
                r = sd_event_add_io(m->event, NULL, mailbox_fd(worker_stacks(m->worker)), EPOLLIN,
                        on_worker, m);
        if (r >= 0 && m->session)
                r = sd_event_add_io(m->event, NULL, session_fd(m->session), EPOLLIN, on_session, m);
        if (r >= 0)
                r = sd_event_add_io(m->event, NULL, store_fd(m->store), EPOLLIN, on_store, m);
        if (r >= 0 && m->results)
                r = sd_event_add_io(m->event, NULL, store_fd(m->results), EPOLLIN, on_results, m);
        if (r < 0)
                return error_origin(r);
        if (sd_watchdog_enabled(false, &watchdog_us) > 0)
                m->watchdog_ns = watchdog_us * NS_PER_US;
        m->timer_mono_ns = UINT64_MAX;
        return 0;
}

int manager_new(Manager **ret, Config *config, const char *config_file, ManagerLoadConfig load,
        void *userdata)
{
        _cleanup_(manager_freep) Manager *m = calloc(1, sizeof(*m));
        int span_fd, control_fd, r;

        if (!m)
                return error_origin(-ENOMEM);
        list_init(&m->deferred);
        list_init(&m->questions);
        observer_set_init(&m->observers, &manager_observer_ops, m);
        m->start_mono_ns = mono_now_ns();
        m->load = load;
        m->userdata = userdata;
        passed_sockets(&span_fd, &control_fd);
        m->config_file = strdup(config_file);
        if (!m->config_file || sd_event_new(&m->event) < 0)
                return error_origin(-ENOMEM);
        /* Borrowed until everything stands. */
        r = core_new(&m->core, config, &manager_core_ops, m);
        if (r < 0)
                return error_trace(r);
        m->config = *config;
        core_set_config(m->core, &m->config);
        r = worker_new(&m->worker, &m->config);
        if (r >= 0)
                r = stack_table_new(&m->stacks, m->worker);
        if (r >= 0)
                r = manager_start_capture(m);
        if (r >= 0)
                r = store_new(&m->store, m->config.state_dir, m->config.store_max_bytes);
        if (r >= 0)
                r = manager_start_backends(m);
        if (r >= 0) {
                manager_restore(m);
                r = store_start(m->store);
        }
        if (r >= 0 && m->results)
                r = store_start(m->results);
        if (r >= 0)
                r = manager_start_sources(m);
        if (r < 0) {
                log_error("cannot start: %s", strerror(-r));
                m->config = (Config){0};
                return error_trace(r);
        }
        r = listener_new(&m->listener, m->event, span_fd, &m->config, m->core, &listener_ops, m);
        if (r < 0)
                log_error(
                        "cannot bind the span socket %s: %s", m->config.span_socket, strerror(-r));
        if (r >= 0) {
                r = control_server_new(
                        &m->control, m->event, control_fd, &m->config, &manager_control_ops, m);
                if (r < 0)
                        log_error("cannot bind the control socket %s: %s", m->config.control_socket,
                                strerror(-r));
        }
        if (r < 0) {
                m->config = (Config){0};
                return error_trace(r);
        }
        *config = (Config){0};
        *ret = TAKE_PTR(m);
        return 0;
}

Manager *manager_free(Manager *m)
{
        Deferred *d, *tmp;

        if (!m)
                return NULL;
        /* Clients first: their end reaches core, session and sampler. Then threads, then what they
         * used. */
        listener_free(m->listener);
        control_server_free(m->control);
        observer_set_deinit(&m->observers);
        sampler_free(m->sampler);
        m->sampler = NULL;
        session_free(m->session);
        m->session = NULL;
        local_free(m->local);
        m->local = NULL;
        m->sources.n = 0;
        store_free(m->results);
        store_free(m->store);
        core_free(m->core);
        stack_table_free(m->stacks);
        worker_free(m->worker);
        list_for_each_safe (d, tmp, &m->deferred, link)
                free(d);
        manager_results_deinit(m);
        sd_event_source_unref(m->timer);
        sd_event_source_unref(m->post);
        sd_event_unref(m->event);
        free(m->config_file);
        config_deinit(&m->config);
        free(m);
        return NULL;
}

int manager_run(Manager *m)
{
        int r;

        log_info("swprofd " SWPROFD_VERSION " is ready: spans on %s, OAP %s%s",
                m->config.span_socket, m->session ? m->config.oap_servers : "none",
                m->local ? ", tasks of swprofctl" : "");
        /* Clients never wait for us: what their sockets cannot hold is lost, and a request is
         * sampled from when its word is read. */
        realtime_init(&m->realtime, "main", m->config.capture_realtime, NICE, SHARE_NS);
        sd_notifyf(false, "READY=1\nSTATUS=Capturing by %s", m->capture_info.backend);
        r = sd_event_loop(m->event);
        if (r < 0)
                return error_origin(r);
        log_info("stopped");
        return 0;
}
