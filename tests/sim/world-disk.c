/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "world.h"

static bool keep_works(void *userdata)
{
        return w.session && !w.disk_fails;
}

int disk_push(Op *op)
{
        uint64_t latency_ms = random_n(100) == 0 ? random_n(2000) : random_n(20);
        uint64_t due_ns = w.now_ns + latency_ms * NS_PER_MS;

        cr_assert(op);
        cr_assert_lt(w.n_ops, OPS_MAX);
        if (w.n_ops > 0 && w.ops[w.n_ops - 1].due_ns > due_ns)
                due_ns = w.ops[w.n_ops - 1].due_ns;
        w.ops[w.n_ops++] = (DiskOp){.op = op, .due_ns = due_ns};
        return 0;
}

static int keep_record(
        void *userdata, const KeepRecord *record, KeepRecorded done, void *done_userdata)
{
        /* Of a daemon that was killed nothing comes any more. */
        return w.session ? disk_push(op_new_record(record, done, done_userdata)) : -1;
}

static int keep_load(void *userdata, size_t n, KeepLoaded done, void *done_userdata)
{
        return w.session ? disk_push(op_new_load(n, done, done_userdata)) : -1;
}

static void keep_task_reported(
        void *userdata, const char *service, const char *instance, const char *task_id)
{
        disk_push(op_new_task_end(
                service, instance, task_id, KEPT_TASK_REPORTED, world_now().wall_ms));
}

static void disk_do(DiskOp *d)
{
        if (d->done)
                return;
        d->done = true;
        cr_assert_eq(database_begin(w.database, false), 0);
        if (w.disk_fails || op_do(d->op, w.database, 64 << 20) != 0) {
                cr_assert(w.disk_fails, "%s", database_error(w.database));
                op_fail(d->op);
                database_rollback(w.database);
                return;
        }
        cr_assert_eq(database_commit(w.database), 0);
}

void disk_step(void)
{
        while (w.n_ops > 0 && w.ops[0].due_ns <= w.now_ns) {
                DiskOp d = w.ops[0];

                disk_do(&d);
                memmove(w.ops, w.ops + 1, --w.n_ops * sizeof(*w.ops));
                op_answer(d.op);
                op_free(d.op);
        }
}

void disk_kill(void)
{
        unsigned n = (unsigned)random_n(w.n_ops + 1);

        for (unsigned i = 0; i < w.n_ops; i++) {
                if (i < n)
                        disk_do(&w.ops[i]);
                op_free(w.ops[i].op);
        }
        w.n_ops = 0;
}

Keep disk_keep(void)
{
        return (Keep){.last_id = database_last_id(w.database),
                .works = keep_works,
                .record = keep_record,
                .load = keep_load,
                .task_reported = keep_task_reported};
}
