/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <systemd/sd-event.h>

#include "capture/capture.h"
#include "client/listener.h"
#include "control/server.h"
#include "core/core.h"
#include "core/task-source.h"
#include "local/local.h"
#include "manager/manager.h"
#include "manager/observer.h"
#include "manager/realtime.h"
#include "manager/sampler.h"
#include "manager/stack-table.h"
#include "manager/worker.h"
#include "oap/session.h"
#include "store/store.h"

/* A command that the sampler's mailbox had no room for. */
typedef struct Deferred {
        ListLink link;
        TargetId id;
        bool add;
        TargetSpec spec;
} Deferred;

typedef struct Sources {
        const TaskSource *list[2];
        size_t n;
} Sources;

struct Manager {
        Config config;
        char *config_file;
        ManagerLoadConfig load;
        void *userdata;
        uint64_t start_mono_ns;

        sd_event *event;
        sd_event_source *timer;
        sd_event_source *post;
        uint64_t timer_mono_ns;
        uint64_t watchdog_ns; /* 0: systemd watches nothing */
        uint64_t next_watchdog_mono_ns;
        uint64_t stop_mono_ns; /* SIGTERM came then; 0: running */
        bool flushed;
        Realtime realtime;

        Core *core;
        CaptureInfo capture_info;
        Worker *worker;
        Sampler *sampler; /* NULL: this host allows no capture */
        StackTable *stacks;
        ObserverSet observers;
        Store *store;
        Session *session; /* NULL: not a backend */
        Store *results;   /* of `local` */
        Local *local;     /* NULL: not a backend */
        Sources sources;  /* these */
        Listener *listener;
        ControlServer *control;

        ListLink deferred;
        ListLink questions; /* results.c */
};

/* core-ops.c: what the core asks for, and the commands to the sampler that had to wait. */
extern const CoreOps manager_core_ops;
void manager_send_deferred(Manager *m);
/* The same for targets that are not the core's. */
void manager_target_add(Manager *m, TargetId id, const TargetSpec *spec);
void manager_target_remove(Manager *m, TargetId id);
/* Reads what a process runs, of which threads may be sampled soon. */
void manager_prepare(Manager *m, pid_t pid);

/* sources.c: the backends. Return: 0, -errno. */
int manager_start_backends(Manager *m);
void sources_instance_added(Sources *s, Instance *i, Now now);
void sources_instance_removed(Sources *s, Instance *i);
void sources_step(Sources *s, Now now);
uint64_t sources_next_mono_ns(const Sources *s, Now now);
void sources_flush(Sources *s, Now now);
bool sources_idle(const Sources *s);

/* restore.c: gives core and session what a former daemon has left. Logs. */
void manager_restore(Manager *m);

/* control.c: who may ask what, and what is done then. */
extern const ControlOps manager_control_ops;
extern const ObserverOps manager_observer_ops;

/* results.c: the tasks of swprofctl, and what they yield. */
struct Swprof__Control__Request;
void manager_task_start(Manager *m, ControlCall *call, const struct Swprof__Control__Request *r);
void manager_task_stop(Manager *m, ControlCall *call, const struct Swprof__Control__Request *r);
void manager_local_tasks(Manager *m, ControlCall *call);
void manager_results(Manager *m, ControlCall *call, const struct Swprof__Control__Request *r);
/* The call is gone: it gets no answer. */
void manager_results_forget(Manager *m, ControlCall *call);
void manager_results_deinit(Manager *m);

/* status.c */
void manager_status(Manager *m, ControlCall *call);

/* Loads the configuration anew and applies what can change while running. Logs. Return: 0,
 * CONFIG_E_INVALID, -errno. */
int manager_reload(Manager *m);
