/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "store/database.h"
#include "store/results.h"
#include "util/log.h"

static char path[64];
static size_t n_texts;

static void on_instance(void *userdata, const KeptInstance *i)
{
        n_texts += strlen(i->service) + strlen(i->instance);
}

static void on_task(void *userdata, const KeptTask *t)
{
        n_texts +=
                strlen(t->service) + strlen(t->instance) + strlen(t->task_id) + strlen(t->endpoint);
}

static void on_segment(void *userdata, const KeptSegment *s, size_t n_snapshots)
{
        const char *report = s->report;

        n_texts += strlen(s->service) + strlen(s->instance) + strlen(s->task_id) +
                   strlen(s->segment_id);
        for (size_t i = 0; i < s->report_size; i++)
                n_texts += report[i] == 'x';
        if (s->next_sequence < 0 || s->reserved_sequence < s->next_sequence)
                abort();
}

static void on_snapshot(
        void *userdata, const KeptSnapshot *s, uint64_t stack_id, const char *text, size_t size)
{
        for (size_t i = 0; i < size; i++)
                n_texts += text[i] == 'x';
}

static void remove_all(void)
{
        static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
        char name[80];

        for (size_t i = 0; i < 4; i++) {
                snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
                unlink(name);
        }
}

static void remove_directory(void)
{
        remove_all();
        *strrchr(path, '/') = '\0';
        rmdir(path);
}

static void use(Database *d)
{
        uint64_t segment;
        size_t n;

        database_instances(d, on_instance, NULL);
        database_tasks(d, on_task, NULL);
        database_segments(d, on_segment, NULL);
        database_snapshots(d, 1000, on_snapshot, NULL);
        if (database_begin(d, true) == 0 && database_sweep(d, 1700000000000) == 0 &&
                database_end_task(d, "svc", "i", "t", KEPT_TASK_OVER, 1) == 0 &&
                database_remove_oldest(d, 0, &segment, &n) == 0)
                (void)database_commit(d);
        database_rollback(d);
}

static void on_result_task(void *userdata, const ResultTaskRow *row)
{
}

static void on_result_segment(void *userdata, const ResultSegmentRow *row)
{
}

static void use_results(Database *d)
{
        const ResultQuery query = {.selection = (char *)"", .all = true, .uid = -1};
        uint8_t *profile = NULL;
        size_t size, n = 0;

        database_result_tasks(d, -1, on_result_task, NULL);
        database_result_segments(d, 0, NULL, -1, on_result_segment, NULL);
        if (results_profile(d, &query, &profile, &size) == 0)
                free(profile);
        if (database_begin(d, true) == 0 &&
                database_sweep_results(d, 1700000000000, 1000, &n) == 0 &&
                database_trim_results(d, 1, &n) == 0)
                (void)database_commit(d);
        database_rollback(d);
}

/* Whatever the file holds, it is used or refused. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *error = NULL;
        Database *d = NULL;
        int fd, r;

        if (!path[0]) {
                log_set_max_level(-1);
                strcpy(path, "/tmp/fuzz-database.XXXXXX");
                if (!mkdtemp(path))
                        abort();
                strcat(path, "/db");
                atexit(remove_directory);
        }
        remove_all();
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, data, size) != (ssize_t)size)
                abort();
        close(fd);
        r = database_open(&d, &database_spool, path, 1 << 20, &error);
        if ((r == 0) != (d != NULL) || (r > 0) != (error != NULL))
                abort();
        if (d)
                use(d);
        database_close(d);
        free(error);
        d = NULL;
        r = database_open(&d, &database_results, path, 1 << 20, &error);
        if ((r == 0) != (d != NULL) || (r > 0) != (error != NULL))
                abort();
        if (d)
                use_results(d);
        database_close(d);
        free(error);
        return 0;
}
