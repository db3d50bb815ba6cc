/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "manager/module-cache.h"
#include "manager/namer.h"
#include "manager/worker.h"
#include "util/error.h"
#include "util/list.h"
#include "util/log.h"
#include "util/mailbox.h"
#include "util/time.h"

#define N_REQUESTS 1024
#define N_REPLIES  256
/* A reply waits so long for room before it looks again. */
#define RETRY_MS 5
/* Beyond that files are read when it is needed. */
#define AHEAD_MAX 256

typedef enum RequestType {
        REQUEST_LOAD,
        REQUEST_PREPARE,
        REQUEST_SYMBOLIZE,
        REQUEST_PYTHON,
} RequestType;

typedef struct Request {
        RequestType type;
        pid_t pid;           /* LOAD, PREPARE */
        bool full;           /* LOAD */
        uint64_t ticket;     /* LOAD */
        WorkerStack stack;   /* SYMBOLIZE: owned */
        CpythonCodes *codes; /* PYTHON: a reference */
        CpythonCode *code;
} Request;

/* A map whose files are to be read in full. */
typedef struct Ahead {
        ListLink link;
        ProcMap *map; /* a reference */
        size_t next;  /* mapping */
        size_t n_gap_bytes;
        bool names; /* and their symbols */
} Ahead;

struct Worker {
        pthread_t thread;
        bool has_thread;
        int stop_fd; /* readable: the thread is to end */
        Mailbox *
                loads; /* the LOAD requests, which come first: what a map says is true for a while */
        Mailbox *requests; /* the others */
        Mailbox *maps;
        Mailbox *stacks;
        atomic_uint_fast64_t busy_since_mono_ns;
        LogLimit log_limit;
        /* the thread's */
        ModuleCache *modules;
        Namer *namer;
        ListLink ahead; /* of Ahead */
        unsigned n_ahead;
};

static bool worker_is_stopping(Worker *w, int timeout_ms)
{
        struct pollfd p = {.fd = w->stop_fd, .events = POLLIN};

        return poll(&p, 1, timeout_ms) > 0;
}

/* The reader always gets to its mailbox in the end. Return: false: the worker ends, and the reply
 * is still the caller's. */
static bool reply_push(Worker *w, Mailbox *to, const void *reply)
{
        while (mailbox_push(to, reply) == MAILBOX_E_FULL)
                if (worker_is_stopping(w, RETRY_MS))
                        return false;
        return true;
}

static void worker_stack_drop(WorkerStack *s)
{
        procmap_unref(s->map);
        cpython_codes_unref(s->codes);
        free(s->frames);
        free(s->signatures);
        free(s->kinds);
}

static ProcMap *do_load(Worker *w, pid_t pid, bool full)
{
        ProcMap *map = NULL;
        unsigned suppressed;
        int r = module_cache_load(w->modules, pid, full, w->stop_fd, &map);

        if (r < 0 && log_limit(&w->log_limit, &suppressed))
                log_warning("the map of process %d cannot be read: %s", (int)pid, strerror(-r));
        return map;
}

/* ---- what may be asked for later, when nothing is asked for now ---- */

static void ahead_free(Worker *w, Ahead *a)
{
        list_remove(&a->link);
        w->n_ahead--;
        procmap_unref(a->map);
        free(a);
}

static void ahead_add(Worker *w, ProcMap *map, bool names)
{
        Ahead *a = map && w->n_ahead < AHEAD_MAX ? calloc(1, sizeof(*a)) : NULL;

        if (!a)
                return;
        a->map = procmap_ref(map);
        a->names = names;
        list_append(&w->ahead, &a->link);
        w->n_ahead++;
}

/* Reads one file. */
static void ahead_step(Worker *w)
{
        Ahead *a = list_first(&w->ahead, Ahead, link);

        while (a && a->next < a->map->n) {
                Module *m = a->map->mappings[a->next++].module;
                int r = m ? module_cache_complete(m, &a->n_gap_bytes) : 0;

                if (m && m->symbols && a->names)
                        binary_prepare(m->symbols);
                /* No memory: its table stays lazy for now. */
                if (r != 0)
                        return;
        }
        if (a)
                ahead_free(w, a);
}

/* ---- requests ---- */

static void do_symbolize(Worker *w, WorkerStack *stack)
{
        int r = namer_stack(w->namer, stack->frames, stack->n_frames, &stack->signatures,
                &stack->kinds, &stack->n_signatures, &stack->cut);

        if (r) {
                stack->signatures = NULL;
                stack->kinds = NULL;
        }
        free(stack->frames);
        stack->frames = NULL;
        stack->n_frames = 0;
        if (!reply_push(w, w->stacks, stack))
                worker_stack_drop(stack);
}

static void do_request(Worker *w, Request *request)
{
        WorkerMap reply;
        ProcMap *map;

        switch (request->type) {
        case REQUEST_LOAD:
                reply = (WorkerMap){.pid = request->pid, .ticket = request->ticket, .early = true};
                if (module_cache_find_python(w->modules, request->pid, &reply.python) == 0)
                        reply_push(w, w->maps, &reply);
                reply = (WorkerMap){
                        .pid = request->pid,
                        .ticket = request->ticket,
                        .map = do_load(w, request->pid, request->full),
                };
                if (!request->full)
                        ahead_add(w, reply.map, false);
                if (!reply_push(w, w->maps, &reply))
                        procmap_unref(reply.map);
                break;
        case REQUEST_PREPARE:
                map = do_load(w, request->pid, false);
                ahead_add(w, map, true);
                procmap_unref(map);
                break;
        case REQUEST_SYMBOLIZE:
                do_symbolize(w, &request->stack);
                break;
        case REQUEST_PYTHON:
                cpython_code_read(request->code);
                cpython_codes_unref(request->codes);
                break;
        }
}

static void *worker_main(void *userdata)
{
        Worker *w = userdata;
        struct pollfd fds[] = {
                {.fd = w->stop_fd, .events = POLLIN},
                {.fd = mailbox_fd(w->loads), .events = POLLIN},
                {.fd = mailbox_fd(w->requests), .events = POLLIN},
        };

        pthread_setname_np(pthread_self(), "symbolizer");
        for (;;) {
                Request request;

                atomic_store(&w->busy_since_mono_ns, 0);
                /* Nothing to be done about an error but to try again (EINTR). */
                poll(fds, sizeof(fds) / sizeof(*fds), w->n_ahead > 0 ? 0 : -1);
                if (worker_is_stopping(w, 0))
                        return NULL;
                atomic_store(&w->busy_since_mono_ns, mono_now_ns());
                if (mailbox_pop(w->loads, &request) == 0 || mailbox_pop(w->requests, &request) == 0)
                        do_request(w, &request);
                else
                        ahead_step(w);
        }
}

static int start_thread(Worker *w)
{
        sigset_t all, before;
        int r;

        /* Signals are main's. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&w->thread, NULL, worker_main, w);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r)
                return error_origin(-r);
        w->has_thread = true;
        return 0;
}

int worker_new(Worker **ret, const Config *config)
{
        _cleanup_(worker_freep) Worker *w = calloc(1, sizeof(*w));
        int r;

        if (!w)
                return error_origin(-ENOMEM);
        w->log_limit = (LogLimit)LOG_LIMIT_INIT;
        list_init(&w->ahead);
        w->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (w->stop_fd < 0)
                return error_origin(-errno);
        r = mailbox_new(&w->loads, sizeof(Request), N_REQUESTS);
        if (r == 0)
                r = mailbox_new(&w->requests, sizeof(Request), N_REQUESTS);
        if (r == 0)
                r = mailbox_new(&w->maps, sizeof(WorkerMap), N_REPLIES);
        if (r == 0)
                r = mailbox_new(&w->stacks, sizeof(WorkerStack), N_REPLIES);
        if (r == 0)
                r = module_cache_new(&w->modules);
        if (r == 0)
                r = namer_new(&w->namer, config->symbols_lines, config->profile_max_depth);
        if (r == 0)
                r = start_thread(w);
        if (r)
                return error_trace(r);
        *ret = TAKE_PTR(w);
        return 0;
}

Worker *worker_free(Worker *w)
{
        Request request;
        WorkerMap map;
        WorkerStack stack;

        if (!w)
                return NULL;
        if (w->has_thread) {
                eventfd_write(w->stop_fd, 1);
                pthread_join(w->thread, NULL);
        }
        while (w->requests && mailbox_pop(w->requests, &request) == 0)
                if (request.type == REQUEST_SYMBOLIZE)
                        worker_stack_drop(&request.stack);
                else if (request.type == REQUEST_PYTHON)
                        cpython_codes_unref(request.codes);
        while (w->maps && mailbox_pop(w->maps, &map) == 0)
                procmap_unref(map.map);
        while (w->stacks && mailbox_pop(w->stacks, &stack) == 0)
                worker_stack_drop(&stack);
        mailbox_free(w->loads);
        mailbox_free(w->requests);
        mailbox_free(w->maps);
        mailbox_free(w->stacks);
        while (w->n_ahead > 0)
                ahead_free(w, list_first(&w->ahead, Ahead, link));
        namer_free(w->namer);
        module_cache_free(w->modules);
        closep(&w->stop_fd);
        free(w);
        return NULL;
}

static int request_push(Worker *w, const Request *request)
{
        Mailbox *to = request->type == REQUEST_LOAD ? w->loads : w->requests;

        return mailbox_push(to, request) == 0 ? 0 : WORKER_E_BUSY;
}

int worker_load(Worker *w, pid_t pid, bool full, uint64_t ticket)
{
        return request_push(w, &(Request){
                                       .type = REQUEST_LOAD,
                                       .pid = pid,
                                       .full = full,
                                       .ticket = ticket,
                               });
}

int worker_prepare(Worker *w, pid_t pid)
{
        return request_push(w, &(Request){.type = REQUEST_PREPARE, .pid = pid});
}

int worker_read_python(Worker *w, CpythonCodes *codes, CpythonCode *code)
{
        Request request = {.type = REQUEST_PYTHON, .codes = cpython_codes_ref(codes), .code = code};
        int r = request_push(w, &request);

        if (r)
                cpython_codes_unref(codes);
        return r;
}

int worker_symbolize(Worker *w, const WorkerStack *request)
{
        Request r = {.type = REQUEST_SYMBOLIZE, .stack = *request};

        /* Filled in by the answer. */
        r.stack.signatures = NULL;
        r.stack.kinds = NULL;
        r.stack.n_signatures = 0;
        r.stack.cut = false;
        return request_push(w, &r);
}

Mailbox *worker_maps(Worker *w)
{
        return w->maps;
}

Mailbox *worker_stacks(Worker *w)
{
        return w->stacks;
}

uint64_t worker_busy_since_mono_ns(Worker *w)
{
        return atomic_load(&w->busy_since_mono_ns);
}
