/* SPDX-License-Identifier: Apache-2.0 */
#include "core/results.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/array.h"
#include "util/error.h"

void result_task_id(uint64_t number, char *ret)
{
        snprintf(ret, RESULT_TASK_ID_SIZE, RESULT_TASK_PREFIX "%" PRIu64, number);
}

uint64_t result_task_number(const char *id)
{
        const char *digits = id + strlen(RESULT_TASK_PREFIX);
        uint64_t number;
        char *end;

        if (strncmp(id, RESULT_TASK_PREFIX, strlen(RESULT_TASK_PREFIX)) != 0 || digits[0] < '1' ||
                digits[0] > '9' || strlen(digits) > 18)
                return 0;
        number = strtoull(digits, &end, 10);
        return *end ? 0 : number;
}

ResultBatch *result_batch_new(void)
{
        return calloc(1, sizeof(ResultBatch));
}

static void task_deinit(ResultTask *t)
{
        free(t->service);
        free(t->endpoint);
}

static void segment_deinit(ResultSegment *s)
{
        free(s->instance);
        free(s->segment_id);
        free(s->operation);
}

ResultBatch *result_batch_free(ResultBatch *b)
{
        if (!b)
                return NULL;
        for (size_t i = 0; i < b->n_tasks; i++)
                task_deinit(&b->tasks[i]);
        for (size_t i = 0; i < b->n_segments; i++)
                segment_deinit(&b->segments[i]);
        for (size_t i = 0; i < b->n_snapshots; i++)
                stack_unref(b->snapshots[i].stack);
        free(b->tasks);
        free(b->segments);
        free(b->snapshots);
        free(b);
        return NULL;
}

int result_batch_add_task(ResultBatch *b, const ResultTask *task)
{
        ResultTask copy = *task;

        if (array_reserve(&b->tasks, b->n_tasks, &b->tasks_size, sizeof(copy)) < 0)
                return error_origin(-ENOMEM);
        copy.service = strdup(task->service);
        copy.endpoint = strdup(task->endpoint);
        if (!copy.service || !copy.endpoint) {
                task_deinit(&copy);
                return error_origin(-ENOMEM);
        }
        b->tasks[b->n_tasks++] = copy;
        return 0;
}

int result_batch_add_segment(ResultBatch *b, const ResultSegment *segment)
{
        ResultSegment copy = *segment;

        if (array_reserve(&b->segments, b->n_segments, &b->segments_size, sizeof(copy)) < 0)
                return error_origin(-ENOMEM);
        copy.instance = strdup(segment->instance);
        copy.segment_id = strdup(segment->segment_id);
        copy.operation = strdup(segment->operation);
        if (!copy.instance || !copy.segment_id || !copy.operation) {
                segment_deinit(&copy);
                return error_origin(-ENOMEM);
        }
        b->segments[b->n_segments++] = copy;
        return 0;
}

int result_batch_add_snapshot(ResultBatch *b, const ResultSnapshot *snapshot)
{
        ResultSnapshot copy = *snapshot;

        if (array_reserve(&b->snapshots, b->n_snapshots, &b->snapshots_size, sizeof(*snapshot)) < 0)
                return error_origin(-ENOMEM);
        copy.stack_bytes = 0;
        if (b->n_snapshots == 0 || b->snapshots[b->n_snapshots - 1].stack != copy.stack)
                for (size_t i = 0; i < copy.stack->n_signatures; i++)
                        copy.stack_bytes += (uint32_t)strlen(copy.stack->signatures[i]) + 1;
        b->n_bytes += sizeof(copy) + copy.stack_bytes;
        b->snapshots[b->n_snapshots++] = copy;
        stack_ref(copy.stack);
        return 0;
}
