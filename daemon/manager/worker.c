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
#include "util/log.h"
#include "util/mailbox.h"
#include "util/time.h"

#define N_REQUESTS 1024
#define N_REPLIES  256
/* A reply waits so long for room before it looks again. */
#define RETRY_MS 5

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

struct Worker {
        pthread_t thread;
        bool has_thread;
        int stop_fd; /* readable: the thread is to end */
        Mailbox *requests;
        Mailbox *maps;
        Mailbox *stacks;
        atomic_uint_fast64_t busy_since_mono_ns;
        LogLimit log_limit;
        /* the thread's */
        ModuleCache *modules;
        Namer *namer;
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

static void do_prepare(Worker *w, pid_t pid)
{
        ProcMap *map = do_load(w, pid, true);

        if (map)
                module_cache_prepare_names(map);
        procmap_unref(map);
}

static void do_symbolize(Worker *w, WorkerStack *stack)
{
        int r = namer_stack(w->namer, stack->frames, stack->n_frames, &stack->signatures,
                &stack->n_signatures, &stack->cut);

        if (r)
                stack->signatures = NULL;
        free(stack->frames);
        stack->frames = NULL;
        stack->n_frames = 0;
        if (!reply_push(w, w->stacks, stack))
                worker_stack_drop(stack);
}

static void do_request(Worker *w, Request *request)
{
        WorkerMap reply;

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
                if (!reply_push(w, w->maps, &reply))
                        procmap_unref(reply.map);
                break;
        case REQUEST_PREPARE:
                do_prepare(w, request->pid);
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
                {.fd = mailbox_fd(w->requests), .events = POLLIN},
        };

        pthread_setname_np(pthread_self(), "symbolizer");
        for (;;) {
                Request request;

                atomic_store(&w->busy_since_mono_ns, 0);
                /* Nothing to be done about an error but to try again (EINTR). */
                poll(fds, sizeof(fds) / sizeof(*fds), -1);
                if (worker_is_stopping(w, 0))
                        return NULL;
                atomic_store(&w->busy_since_mono_ns, mono_now_ns());
                if (mailbox_pop(w->requests, &request) == 0)
                        do_request(w, &request);
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
        w->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (w->stop_fd < 0)
                return error_origin(-errno);
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
        mailbox_free(w->requests);
        mailbox_free(w->maps);
        mailbox_free(w->stacks);
        namer_free(w->namer);
        module_cache_free(w->modules);
        closep(&w->stop_fd);
        free(w);
        return NULL;
}

static int request_push(Worker *w, const Request *request)
{
        return mailbox_push(w->requests, request) == 0 ? 0 : WORKER_E_BUSY;
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
