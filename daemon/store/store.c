/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/counter.h"
#include "store/op.h"
#include "store/store-private.h"
#include "store/store.h"
#include "util/error.h"
#include "util/log.h"
#include "util/mailbox.h"

/* Pieces of work that wait for the thread. */
#define WAITING_MAX 4096
/* Done in one transaction. */
#define GROUP_MAX 256
/* Keeping snapshots is tried again so long after it failed. */
#define RETRY_NS (5 * NS_PER_S)
/* What is of no use any more is looked for that often, while there is anything to do. */
#define SWEEP_NS (600 * NS_PER_S)
/* A database of that size is checked before anything is done with it; of a larger one, the rest is
 * read while there is nothing else to do. */
#define CHECK_FIRST_BYTES (4 << 20)
/* Then work waits so long for the check; the rows are left alone from there on. */
#define CHECK_NS (500 * NS_PER_MS)

DEFINE_CLEANUP(Mailbox *, mailbox_free)

struct Store {
        const StoreKind *kind;
        char *path;
        uint64_t max_bytes, max_age_ms;
        _Atomic bool in_memory; /* the database is, for want of a file */
        Keep keep;
        Results results;
        Database *database; /* NULL: all in memory. The thread's, once that runs. */
        bool has_database;
        Mailbox *ops;       /* of Op *, to the thread; NULL in it: the end */
        Mailbox *answers;   /* of Op * */
        size_t n_under_way; /* of the main thread: so the answers always have room */
        pthread_t thread;
        bool running;
        uint64_t swept_mono_ns;
        uint64_t n_read_ahead; /* bytes, for the check */
        uint64_t check_mono_ns;
        bool checked;
        _Atomic uint64_t bytes, retry_mono_ns; /* 0: works */
        _Atomic bool damaged;                  /* and put aside */
        pthread_mutex_t lock;                  /* of the error */
        char error[256];
};

/* ---- what became of it ---- */

/* The log of a database that is put aside goes along: it may hold what the file lacks. */
static bool store_put_aside(const char *path)
{
        static const char *const suffixes[] = {"", "-wal", "-shm"};
        char from[4200], to[4200];
        bool moved = true;

        for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
                snprintf(from, sizeof(from), "%s%s", path, suffixes[i]);
                snprintf(to, sizeof(to), "%s.broken%s", path, suffixes[i]);
                if (rename(from, to) < 0 && errno != ENOENT)
                        moved = false;
        }
        return moved;
}

/* What cannot be on disk is in memory, less of it. Return: 0, -ENOMEM. */
static int store_open_memory(Store *s)
{
        _cleanup_(freep) char *error = NULL;
        Database *database;
        int r;

        if (s->max_bytes > s->kind->max_memory_bytes)
                s->max_bytes = s->kind->max_memory_bytes;
        r = database_open(&database, s->kind->schema, ":memory:", s->max_bytes, &error);
        if (r)
                return r < 0 ? error_trace(r) : error_origin(-ENOMEM);
        database_close(s->database);
        s->database = database;
        atomic_store(&s->in_memory, true);
        return 0;
}

static void store_failed(Store *s, const char *error)
{
        bool damaged = database_is_damaged(s->database);

        if (damaged && store_put_aside(s->path))
                log_error("%s is damaged: %s. It is %s.broken now, and snapshots are kept in "
                          "memory until the next start",
                        s->path, error, s->kind->file_name);
        else if (atomic_load(&s->retry_mono_ns) == 0)
                log_error("%s cannot be written, snapshots are kept in memory: %s%s", s->path,
                        error, damaged ? "" : "; trying again");
        pthread_mutex_lock(&s->lock);
        snprintf(s->error, sizeof(s->error), "%s", error);
        pthread_mutex_unlock(&s->lock);
        if (damaged && s->kind->max_memory_bytes > 0 && store_open_memory(s) == 0)
                damaged = false;
        atomic_store(&s->damaged, damaged);
        atomic_store(&s->retry_mono_ns, damaged ? UINT64_MAX : mono_now_ns() + RETRY_NS);
}

static void store_succeeded(Store *s)
{
        if (atomic_exchange(&s->retry_mono_ns, 0) != 0)
                log_info("%s can be written again", s->path);
        atomic_store(&s->bytes, database_bytes(s->database));
}

StoreStatus store_status(Store *s)
{
        StoreStatus status = {
                .path = s->path,
                .state = !s->has_database || atomic_load(&s->in_memory) || atomic_load(&s->damaged)
                                 ? "memory"
                         : atomic_load(&s->retry_mono_ns) == 0 ? "ready"
                                                               : "failing",
                .bytes = atomic_load(&s->bytes),
        };

        pthread_mutex_lock(&s->lock);
        memcpy(status.error, s->error, sizeof(status.error));
        pthread_mutex_unlock(&s->lock);
        return status;
}

/* ---- the thread ---- */

static int store_do_all(Store *s, Op *const *ops, size_t n)
{
        bool durable = false;
        int r;

        for (size_t i = 0; i < n; i++)
                durable = durable || op_is_durable(ops[i]);
        r = database_begin(s->database, durable);
        for (size_t i = 0; i < n && r == 0; i++)
                r = op_do(ops[i], s->database, s->max_bytes);
        if (r == 0)
                r = database_commit(s->database);
        else
                database_rollback(s->database);
        return r;
}

static void store_do(Store *s, Op *const *ops, size_t n)
{
        /* What is renamed gets nothing more, even where it could. */
        int r = atomic_load(&s->damaged) ? DATABASE_E_FAILED : store_do_all(s, ops, n);

        /* One that cannot be done shall not stand in the way of the others. */
        if (r != 0 && n > 1) {
                for (size_t i = 0; i < n; i++)
                        store_do(s, &ops[i], 1);
                return;
        }
        if (r == 0) {
                /* That a full disk can be read says nothing. */
                if (n > 1 || !op_is_load(ops[0]))
                        store_succeeded(s);
        } else {
                if (!atomic_load(&s->damaged))
                        store_failed(s, database_error(s->database));
                if (atomic_load(&s->damaged))
                        op_fail_for_good(ops[0]);
                else
                        op_fail(ops[0]);
        }
        for (size_t i = 0; i < n; i++)
                /* There is room: see n_under_way. */
                mailbox_push(s->answers, &ops[i]);
}

static void store_sweep(Store *s)
{
        uint64_t now_ns = mono_now_ns();

        if (atomic_load(&s->damaged) || now_ns < s->swept_mono_ns + SWEEP_NS)
                return;
        s->swept_mono_ns = now_ns;
        if (database_begin(s->database, false) != 0)
                return;
        if (s->kind->sweep(s, s->database, (int64_t)(wall_now_ns() / NS_PER_MS)) == 0)
                (void)database_commit(s->database); /* the next time will do */
        else
                database_rollback(s->database);
}

/* Or its end. */
static bool store_has_work(const Store *s)
{
        return poll(&(struct pollfd){.fd = mailbox_fd(s->ops), .events = POLLIN}, 1, 0) > 0;
}

static bool check_stops(void *userdata)
{
        const Store *s = userdata;

        return mono_now_ns() >= s->check_mono_ns + CHECK_NS && store_has_work(s);
}

static void store_check_step(Store *s)
{
        if (database_read_ahead(s->database, &s->n_read_ahead))
                return;
        s->checked = true;
        s->check_mono_ns = mono_now_ns();
        if (database_check(s->database, check_stops, s) != 0)
                store_failed(s, database_error(s->database));
}

static void store_check(Store *s)
{
        while (!s->checked && !atomic_load(&s->damaged)) {
                store_check_step(s);
                if (s->n_read_ahead >= CHECK_FIRST_BYTES && store_has_work(s))
                        return;
        }
}

static void *store_thread(void *userdata)
{
        Store *s = userdata;
        struct pollfd fd = {.fd = mailbox_fd(s->ops), .events = POLLIN};
        bool ends = false;

        while (!ends) {
                Op *ops[GROUP_MAX];
                size_t n = 0;

                store_check(s);
                /* EINTR cannot be: all signals are blocked here. */
                poll(&fd, 1, -1);
                while (!ends && n < GROUP_MAX && mailbox_pop(s->ops, &ops[n]) == 0) {
                        ends = !ops[n];
                        n += !ends;
                }
                if (n > 0)
                        store_do(s, ops, n);
                if (n > 0 && !ends)
                        store_sweep(s);
        }
        return NULL;
}

int store_start(Store *s)
{
        sigset_t all, before;
        int r;

        if (!s->has_database)
                return 0;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&s->thread, NULL, store_thread, s);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r != 0)
                return error_origin(-r);
        pthread_setname_np(s->thread, "store");
        s->running = true;
        return 0;
}

/* ---- work for it ---- */

int store_push(Store *s, Op *op)
{
        int r = -EBUSY;

        if (s->has_database && s->n_under_way < WAITING_MAX && mailbox_push(s->ops, &op) == 0) {
                s->n_under_way++;
                return 0;
        }
        op_free(op);
        return error_origin(r);
}

uint64_t store_max_age_ms(const Store *s)
{
        return s->max_age_ms;
}

Database *store_database(Store *s)
{
        return s->database;
}

bool store_works(void *userdata)
{
        Store *s = userdata;

        return s->has_database && s->n_under_way < WAITING_MAX / 2 &&
               atomic_load(&s->retry_mono_ns) <= mono_now_ns();
}

static int keep_record(
        void *userdata, const KeepRecord *record, KeepRecorded done, void *done_userdata)
{
        Op *op = op_new_record(record, done, done_userdata);
        int r;

        if (!op)
                return error_origin(-ENOMEM);
        r = store_push(userdata, op);
        return r < 0 ? error_trace(r) : 0;
}

static int keep_load(void *userdata, size_t n, KeepLoaded done, void *done_userdata)
{
        Op *op = op_new_load(n, done, done_userdata);
        int r;

        if (!op)
                return error_origin(-ENOMEM);
        r = store_push(userdata, op);
        return r < 0 ? error_trace(r) : 0;
}

/* What nobody waits for: lost if it cannot be done. */
static void store_push_record(Store *s, Op *op)
{
        if (!s->has_database)
                op_free(op);
        else if (!op || store_push(s, op) < 0)
                counter_add(COUNTER_STORE_RECORDS_LOST, 1);
}

static void keep_task_reported(
        void *userdata, const char *service, const char *instance, const char *task_id)
{
        store_push_record(userdata, op_new_task_end(service, instance, task_id, KEPT_TASK_REPORTED,
                                            (int64_t)(wall_now_ns() / NS_PER_MS)));
}

void store_instance(Store *s, const Instance *i, Now now)
{
        store_push_record(s, op_new_instance(i, now.wall_ms));
}

void store_task(Store *s, const Task *task)
{
        store_push_record(s, op_new_task(task));
}

void store_task_over(
        Store *s, const char *service, const char *instance, const char *task_id, Now now)
{
        store_push_record(
                s, op_new_task_end(service, instance, task_id, KEPT_TASK_OVER, now.wall_ms));
}

const Keep *store_keep(Store *s)
{
        return &s->keep;
}

int store_fd(const Store *s)
{
        return mailbox_fd(s->answers);
}

void store_dispatch(Store *s)
{
        Op *op;

        while (mailbox_pop(s->answers, &op) == 0) {
                s->n_under_way--;
                op_answer(op);
                op_free(op);
        }
}

/* ---- its beginning and end ---- */

static int store_open(Store *s, const char *dir)
{
        _cleanup_(freep) char *error = NULL;
        int r;

        /* systemd makes it. */
        if (mkdir(dir, 0700) < 0 && errno != EEXIST)
                log_debug("%s: %s", dir, strerror(errno));
        r = database_open(&s->database, s->kind->schema, s->path, s->max_bytes, &error);
        if (r < 0)
                return error_trace(r);
        if (r == DATABASE_E_BROKEN && store_put_aside(s->path)) {
                log_error("%s was of no use: %s. It is %s.broken now, and a new one is begun",
                        s->path, error ? error : "out of memory", s->kind->file_name);
                snprintf(s->error, sizeof(s->error), "begun anew: %s", error ? error : "");
                free(TAKE_PTR(error));
                r = database_open(&s->database, s->kind->schema, s->path, s->max_bytes, &error);
                if (r < 0)
                        return error_trace(r);
        }
        if (r == 0) {
                atomic_store(&s->bytes, database_bytes(s->database));
                return 0;
        }
        log_error("%s cannot be used, nothing is kept over a restart: %s", s->path,
                error ? error : "out of memory");
        snprintf(s->error, sizeof(s->error), "%s", error ? error : "out of memory");
        return s->kind->max_memory_bytes > 0 ? error_trace(store_open_memory(s)) : 0;
}

int store_new_kind(Store **ret, const StoreKind *kind, const char *dir, uint64_t max_bytes,
        uint64_t max_age_ms)
{
        _cleanup_(store_freep) Store *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return error_origin(-ENOMEM);
        pthread_mutex_init(&s->lock, NULL);
        s->kind = kind;
        s->max_bytes = max_bytes;
        s->max_age_ms = max_age_ms;
        s->swept_mono_ns = mono_now_ns();
        if (asprintf(&s->path, "%s/%s", dir, kind->file_name) < 0) {
                s->path = NULL;
                return error_origin(-ENOMEM);
        }
        r = mailbox_new(&s->ops, sizeof(Op *), WAITING_MAX + 1);
        if (r == 0)
                r = mailbox_new(&s->answers, sizeof(Op *), WAITING_MAX);
        if (r == 0)
                r = store_open(s, dir);
        if (r < 0)
                return error_trace(r);
        s->has_database = s->database != NULL;
        s->keep = (Keep){
                .userdata = s,
                .last_id = s->database ? database_last_id(s->database) : 0,
                .works = store_works,
                .record = keep_record,
                .load = keep_load,
                .task_reported = keep_task_reported,
        };
        s->results = (Results){
                .userdata = s,
                .last_id = s->keep.last_id,
                .works = store_works,
                .record = store_record_results,
        };
        *ret = TAKE_PTR(s);
        return 0;
}

const Results *store_results(Store *s)
{
        return &s->results;
}

static int spool_sweep(const Store *s, Database *d, int64_t now_wall_ms)
{
        return database_sweep(d, now_wall_ms);
}

static const StoreKind spool = {
        .file_name = "swprofd.db",
        .schema = &database_spool,
        .sweep = spool_sweep,
};

int store_new(Store **ret, const char *dir, uint64_t max_bytes)
{
        return store_new_kind(ret, &spool, dir, max_bytes, 0);
}

void store_log_restore(const Store *s)
{
        log_error("%s: not all that a former swprofd has left can be read: %s", s->path,
                database_error(s->database));
}

void store_restore(Store *s, const StoreRestore *restore, void *userdata, Now now)
{
        int r;

        if (!s->database)
                return;
        r = database_begin(s->database, false);
        if (r == 0)
                r = database_sweep(s->database, now.wall_ms);
        if (r == 0)
                r = database_commit(s->database);
        database_rollback(s->database);
        if (r == 0)
                r = database_instances(s->database, restore->instance, userdata);
        if (r == 0)
                r = database_tasks(s->database, restore->task, userdata);
        if (r == 0)
                r = database_segments(s->database, restore->segment, userdata);
        if (r != 0)
                store_log_restore(s);
}

Store *store_free(Store *s)
{
        Op *op = NULL;

        if (!s)
                return NULL;
        if (s->running) {
                /* There is always room for this one. */
                mailbox_push(s->ops, &op);
                pthread_join(s->thread, NULL);
        }
        while (s->answers && mailbox_pop(s->answers, &op) == 0)
                op_free(op);
        mailbox_free(s->ops);
        mailbox_free(s->answers);
        database_close(s->database);
        pthread_mutex_destroy(&s->lock);
        free(s->path);
        free(s);
        return NULL;
}
