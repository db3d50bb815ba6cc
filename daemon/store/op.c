/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/counter.h"
#include "store/op.h"

typedef enum OpType {
        OP_RECORD,
        OP_LOAD,
        OP_INSTANCE,
        OP_TASK,
        OP_TASK_END,
        OP_WORK,
} OpType;

typedef struct LoadedStack {
        uint64_t id;
        Stack *stack;
} LoadedStack;

struct Op {
        OpType type;
        bool failed;
        void *userdata;

        KeepRecord record; /* ours, but for its strings */
        KeepRecorded recorded;
        KeptLoss *losses;
        size_t n_losses;

        size_t n; /* to be loaded */
        KeepLoaded loaded;
        KeptSnapshot *snapshots;
        size_t n_snapshots;
        LoadedStack *stacks; /* by id */
        size_t n_stacks;
        bool out_of_memory;

        KeptInstance instance;
        KeptTask task;
        int64_t now_wall_ms;

        const OpWork *work;
        void *data;

        char strings[];
};

/* ---- making them ---- */

static size_t string_size(const char *s)
{
        return s ? strlen(s) + 1 : 0;
}

/* Moves on *p. */
static const char *string_copy(char **p, const char *s)
{
        const char *copy = *p;

        if (!s)
                return NULL;
        *p = stpcpy(*p, s) + 1;
        return copy;
}

static Op *op_new(OpType type, size_t strings_size)
{
        Op *op = calloc(1, sizeof(*op) + strings_size);

        if (op)
                op->type = type;
        return op;
}

static size_t record_strings_size(const KeepRecord *record)
{
        size_t size = 0;

        for (size_t i = 0; i < record->n_segments; i++) {
                const KeptSegment *s = &record->segments[i];

                size += string_size(s->service) + string_size(s->instance) +
                        string_size(s->task_id) + string_size(s->segment_id) + s->report_size;
        }
        for (size_t i = 0; i < record->n_reports; i++)
                size += record->reports[i].size;
        return size;
}

/* NULL for none, too. */
static void *array_copy(const void *array, size_t n, size_t size)
{
        void *copy = n > 0 ? malloc(n * size) : NULL;

        if (copy)
                memcpy(copy, array, n * size);
        return copy;
}

static const void *bytes_copy(char **p, const void *bytes, size_t size)
{
        const void *copy = *p;

        if (!bytes)
                return NULL;
        memcpy(*p, bytes, size);
        *p += size;
        return copy;
}

static void segment_copy_strings(KeptSegment *s, char **p)
{
        s->service = string_copy(p, s->service);
        s->instance = string_copy(p, s->instance);
        s->task_id = string_copy(p, s->task_id);
        s->segment_id = string_copy(p, s->segment_id);
        s->report = bytes_copy(p, s->report, s->report_size);
}

Op *op_new_record(const KeepRecord *record, KeepRecorded done, void *userdata)
{
        Op *op = op_new(OP_RECORD, record_strings_size(record));
        KeptSegment *segments;
        KeptSnapshot *snapshots;
        KeptReport *reports;
        char *p;

        if (!op)
                return NULL;
        segments = array_copy(record->segments, record->n_segments, sizeof(*segments));
        snapshots = array_copy(record->snapshots, record->n_snapshots, sizeof(*snapshots));
        reports = array_copy(record->reports, record->n_reports, sizeof(*reports));
        op->record = (KeepRecord){
                .segments = segments,
                .n_segments = segments ? record->n_segments : 0,
                .snapshots = snapshots,
                .n_snapshots = snapshots ? record->n_snapshots : 0,
                .removed = array_copy(record->removed, record->n_removed, sizeof(*snapshots)),
                .emptied = record->emptied,
                .reports = reports,
                .n_reports = reports ? record->n_reports : 0,
                .in_use = record->in_use,
        };
        op->record.n_removed = op->record.removed ? record->n_removed : 0;
        p = op->strings;
        for (size_t i = 0; i < op->record.n_segments; i++)
                segment_copy_strings(&segments[i], &p);
        for (size_t i = 0; i < op->record.n_reports; i++)
                reports[i].data = bytes_copy(&p, reports[i].data, reports[i].size);
        for (size_t i = 0; i < op->record.n_snapshots; i++)
                stack_ref(snapshots[i].stack);
        op->recorded = done;
        op->userdata = userdata;
        if (op->record.n_segments == record->n_segments &&
                op->record.n_snapshots == record->n_snapshots &&
                op->record.n_removed == record->n_removed &&
                op->record.n_reports == record->n_reports)
                return op;
        return op_free(op);
}

Op *op_new_load(size_t n, KeepLoaded done, void *userdata)
{
        Op *op = op_new(OP_LOAD, 0);

        if (!op)
                return NULL;
        op->n = n;
        op->loaded = done;
        op->userdata = userdata;
        op->snapshots = malloc(n * sizeof(*op->snapshots));
        op->stacks = malloc(n * sizeof(*op->stacks));
        return op->snapshots && op->stacks ? op : op_free(op);
}

Op *op_new_instance(const Instance *i, int64_t now_wall_ms)
{
        Op *op = op_new(OP_INSTANCE, string_size(i->service) + string_size(i->name));
        char *p;

        if (!op)
                return NULL;
        p = op->strings;
        op->instance.service = string_copy(&p, i->service);
        op->instance.instance = string_copy(&p, i->name);
        op->instance.last_command_wall_ms = i->last_command_wall_ms;
        op->now_wall_ms = now_wall_ms;
        return op;
}

Op *op_new_task(const Task *task)
{
        const Instance *i = task->instance;
        Op *op = op_new(OP_TASK, string_size(i->service) + string_size(i->name) +
                                         string_size(task->id) + string_size(task->endpoint));
        char *p;

        if (!op)
                return NULL;
        p = op->strings;
        op->task = (KeptTask){
                .service = string_copy(&p, i->service),
                .instance = string_copy(&p, i->name),
                .task_id = string_copy(&p, task->id),
                .endpoint = string_copy(&p, task->endpoint),
                .threshold_ms = task->threshold_ms,
                .period_ms = task->period_ms,
                .max_sampling_count = task->max_sampling_count,
                .start_wall_ms = task->start_wall_ms,
                .end_wall_ms = task->end_wall_ms,
                .state = KEPT_TASK_LIVE,
        };
        return op;
}

Op *op_new_task_end(const char *service, const char *instance, const char *task_id,
        KeptTaskState state, int64_t now_wall_ms)
{
        Op *op = op_new(
                OP_TASK_END, string_size(service) + string_size(instance) + string_size(task_id));
        char *p;

        if (!op)
                return NULL;
        p = op->strings;
        op->task.service = string_copy(&p, service);
        op->task.instance = string_copy(&p, instance);
        op->task.task_id = string_copy(&p, task_id);
        op->task.state = state;
        op->now_wall_ms = now_wall_ms;
        return op;
}

Op *op_new_work(const OpWork *work, void *data)
{
        Op *op = op_new(OP_WORK, 0);

        if (!op) {
                work->free(data);
                return NULL;
        }
        op->work = work;
        op->data = data;
        return op;
}

static void op_clear_loaded(Op *op)
{
        for (size_t i = 0; i < op->n_stacks; i++)
                stack_unref(op->stacks[i].stack);
        op->n_snapshots = op->n_stacks = 0;
        op->out_of_memory = false;
}

Op *op_free(Op *op)
{
        if (!op)
                return NULL;
        if (op->work)
                op->work->free(op->data);
        for (size_t i = 0; i < op->record.n_snapshots; i++)
                stack_unref(op->record.snapshots[i].stack);
        free((void *)op->record.segments);
        free((void *)op->record.snapshots);
        free((void *)op->record.removed);
        free((void *)op->record.reports);
        free(op->losses);
        op_clear_loaded(op);
        free(op->snapshots);
        free(op->stacks);
        free(op);
        return NULL;
}

/* ---- doing them ---- */

bool op_is_durable(const Op *op)
{
        if (op->record.n_removed > 0 || op->record.emptied != 0)
                return true;
        for (size_t i = 0; i < op->record.n_segments; i++)
                if (op->record.segments[i].reserved_kept)
                        return true;
        return false;
}

bool op_is_load(const Op *op)
{
        return op->type == OP_LOAD || (op->type == OP_WORK && op->work->only_reads);
}

/* Return: 0, DATABASE_E_FAILED. */
static int op_make_room(Op *op, Database *d, uint64_t max_bytes)
{
        if (database_bytes(d) > max_bytes && database_remove_stacks(d) != 0)
                return DATABASE_E_FAILED;
        while (database_bytes(d) > max_bytes) {
                KeptLoss loss = {0};
                KeptLoss *losses;
                int r = database_remove_oldest(
                        d, op->record.in_use, &loss.segment, &loss.n_snapshots);

                if (r != 0)
                        return r;
                if (loss.segment == 0)
                        return 0;
                losses = realloc(op->losses, (op->n_losses + 1) * sizeof(*losses));
                if (!losses)
                        return DATABASE_E_FAILED;
                op->losses = losses;
                op->losses[op->n_losses++] = loss;
        }
        return 0;
}

static int op_record(Op *op, Database *d, uint64_t max_bytes)
{
        const KeepRecord *record = &op->record;
        int r = 0;

        op->n_losses = 0;
        if (record->emptied != 0)
                r = database_remove_segment(d, record->emptied);
        for (size_t i = 0; i < record->n_removed && r == 0; i++)
                r = database_remove_snapshot(d, record->removed[i].segment, record->removed[i].id);
        for (size_t i = 0; i < record->n_segments && r == 0; i++)
                r = database_put_segment(d, &record->segments[i]);
        for (size_t i = 0; i < record->n_snapshots && r == 0; i++)
                r = database_add_snapshot(d, &record->snapshots[i]);
        for (size_t i = 0; i < record->n_reports && r == 0; i++)
                r = database_put_report(d, &record->reports[i]);
        if (r == 0 && record->n_snapshots > 0)
                r = op_make_room(op, d, max_bytes);
        return r;
}

/* Strings, each with its NUL; else it is damaged. */
static bool text_is_whole(const char *text, size_t size)
{
        return size > 0 && text[size - 1] == '\0';
}

/* Makes the Stack of a text that is whole. NULL: no memory. */
static Stack *stack_of_text(const char *text, size_t size)
{
        const char **signatures;
        size_t n = 0;
        Stack *stack = NULL;

        for (size_t i = 0; i < size; i++)
                n += text[i] == '\0';
        signatures = malloc(n * sizeof(*signatures));
        if (!signatures)
                return NULL;
        for (size_t i = 0; i < n; text += strlen(text) + 1)
                signatures[i++] = text;
        stack = stack_new();
        if (stack && stack_set_ready(stack, n, signatures) < 0)
                stack = stack_unref(stack);
        free(signatures);
        return stack;
}

static Stack *op_stack(Op *op, uint64_t id, const char *text, size_t size)
{
        Stack *stack;

        /* Mostly the one before. */
        for (size_t i = op->n_stacks; i > 0; i--)
                if (op->stacks[i - 1].id == id)
                        return op->stacks[i - 1].stack;
        stack = stack_of_text(text, size);
        if (stack)
                op->stacks[op->n_stacks++] = (LoadedStack){.id = id, .stack = stack};
        return stack;
}

static void op_load_one(void *userdata, const KeptSnapshot *snapshot, uint64_t stack_id,
        const char *text, size_t size)
{
        Op *op = userdata;
        KeptSnapshot loaded = *snapshot;

        if (op->out_of_memory)
                return;
        if (text_is_whole(text, size)) {
                loaded.stack = op_stack(op, stack_id, text, size);
                op->out_of_memory = !loaded.stack;
        }
        if (!op->out_of_memory)
                op->snapshots[op->n_snapshots++] = loaded;
}

int op_do(Op *op, Database *d, uint64_t max_bytes)
{
        int r = 0;

        switch (op->type) {
        case OP_RECORD:
                return op_record(op, d, max_bytes);
        case OP_LOAD:
                op_clear_loaded(op);
                r = database_snapshots(d, op->n, op_load_one, op);
                op->failed = op->out_of_memory;
                return r;
        case OP_INSTANCE:
                return database_put_instance(d, &op->instance, op->now_wall_ms);
        case OP_TASK:
                return database_put_task(d, &op->task);
        case OP_WORK:
                return op->work->run(op->data, d, max_bytes);
        case OP_TASK_END:
                return database_end_task(d, op->task.service, op->task.instance, op->task.task_id,
                        op->task.state, op->now_wall_ms);
        }
        return r;
}

void op_fail(Op *op)
{
        op->failed = true;
        if (op->type == OP_WORK)
                return;
        if (op->type == OP_RECORD ? !op->recorded : op->type != OP_LOAD)
                counter_add(COUNTER_STORE_RECORDS_LOST, 1);
}

void op_fail_for_good(Op *op)
{
        if (op->type == OP_LOAD) {
                op_clear_loaded(op);
                op->failed = false;
        } else {
                op_fail(op);
        }
}

void op_answer(Op *op)
{
        if (op->work)
                op->work->answer(op->data, op->failed);
        if (op->recorded)
                op->recorded(op->userdata, op->failed, op->losses, op->failed ? 0 : op->n_losses);
        if (op->loaded)
                op->loaded(
                        op->userdata, op->failed, op->snapshots, op->failed ? 0 : op->n_snapshots);
}
