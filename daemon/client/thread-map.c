/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/thread-map.h"
#include "util/cleanup.h"
#include "util/error.h"

/* The share of time for searches, in percent, and how much of it may be saved up. */
#define SEARCH_SHARE      2
#define SEARCH_BUDGET_MAX (100 * NS_PER_MS)

static void closedirp(DIR **d)
{
        if (*d)
                closedir(*d);
}

/*
 * The numbers of a thread in the pid namespaces from ours down to its own: how many, and the last
 * one. Return: 0, THREAD_MAP_E_UNKNOWN, -ENOMEM.
 */
static int thread_numbers(pid_t pid, pid_t tid, size_t *ret_n, pid_t *ret_last)
{
        _cleanup_(fclosep) FILE *f = NULL;
        char path[64], line[512];

        snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
        f = fopen(path, "re");
        if (!f)
                return errno == ENOMEM ? error_origin(-ENOMEM) : THREAD_MAP_E_UNKNOWN;
        /* Only the line of the groups is longer than ours; its pieces are numbers. */
        while (fgets(line, sizeof(line), f)) {
                char *p = line + strlen("NSpid:"), *end;
                size_t n = 0;
                long last = 0;

                if (strncmp(line, "NSpid:", strlen("NSpid:")) != 0)
                        continue;
                for (long v = strtol(p, &end, 10); end != p; v = strtol(p, &end, 10)) {
                        p = end;
                        last = v;
                        n++;
                }
                if (n == 0)
                        break;
                *ret_n = n;
                *ret_last = (pid_t)last;
                return 0;
        }
        return THREAD_MAP_E_UNKNOWN;
}

static int thread_is(pid_t pid, pid_t ours, pid_t theirs)
{
        size_t n;
        pid_t last;
        int r = thread_numbers(pid, ours, &n, &last);

        if (r)
                return r;
        return last == theirs ? 0 : THREAD_MAP_E_UNKNOWN;
}

/* The threads of a process, oldest first. Return: 0, THREAD_MAP_E_UNKNOWN, -ENOMEM. */
static int threads_list(pid_t pid, pid_t **ret, size_t *ret_n)
{
        _cleanup_(closedirp) DIR *d = NULL;
        _cleanup_(freep) pid_t *tids = NULL;
        struct dirent *entry;
        size_t n = 0, n_allocated = 0;
        char path[64];

        snprintf(path, sizeof(path), "/proc/%d/task", pid);
        d = opendir(path);
        if (!d)
                return errno == ENOMEM ? error_origin(-ENOMEM) : THREAD_MAP_E_UNKNOWN;
        while (n < THREAD_MAP_MAX_THREADS && (entry = readdir(d))) {
                if (entry->d_name[0] == '.')
                        continue;
                if (n == n_allocated) {
                        pid_t *t;

                        n_allocated = n_allocated ? n_allocated * 2 : 64;
                        t = reallocarray(tids, n_allocated, sizeof(*tids));
                        if (!t)
                                return error_origin(-ENOMEM);
                        tids = t;
                }
                tids[n++] = (pid_t)strtol(entry->d_name, NULL, 10);
        }
        *ret = TAKE_PTR(tids);
        *ret_n = n;
        return 0;
}

static int thread_search(pid_t pid, pid_t theirs, pid_t *ret_tid)
{
        _cleanup_(freep) pid_t *tids = NULL;
        size_t n = 0;
        int r = threads_list(pid, &tids, &n);

        if (r)
                return error_trace(r);
        /* The kernel lists the newest last, and it is mostly a new one that is searched. */
        while (n > 0) {
                r = thread_is(pid, tids[--n], theirs);
                if (r < 0)
                        return error_trace(r);
                if (r == 0) {
                        *ret_tid = tids[n];
                        return 0;
                }
        }
        return THREAD_MAP_E_UNKNOWN;
}

int thread_map_init(ThreadMap *ret, pid_t pid)
{
        ThreadMap map = {
                .pid = pid,
                .search_budget_ns = SEARCH_BUDGET_MAX,
                .budget_mono_ns = mono_now_ns(),
        };
        size_t n;
        pid_t last;
        int r = thread_numbers(pid, pid, &n, &last);

        if (r)
                return error_trace(r);
        if (n > 1) {
                map.cache = calloc(THREAD_MAP_CACHE, sizeof(*map.cache));
                if (!map.cache)
                        return error_origin(-ENOMEM);
        }
        *ret = map;
        return 0;
}

void thread_map_deinit(ThreadMap *m)
{
        free(m->cache);
        m->cache = NULL;
}

int thread_map_find(ThreadMap *m, pid_t theirs, pid_t *ret_tid)
{
        size_t slot = (size_t)theirs % THREAD_MAP_CACHE;
        uint64_t begin_ns;
        int r;

        if (!m->cache) {
                char path[64];

                snprintf(path, sizeof(path), "/proc/%d/task/%d", m->pid, theirs);
                if (access(path, F_OK) < 0)
                        return THREAD_MAP_E_UNKNOWN;
                *ret_tid = theirs;
                return 0;
        }
        if (m->cache[slot].theirs == theirs) {
                /* The thread may have ended, and its number be another's. */
                r = thread_is(m->pid, m->cache[slot].ours, theirs);
                if (r < 0)
                        return error_trace(r);
                if (r == 0) {
                        *ret_tid = m->cache[slot].ours;
                        return 0;
                }
        }
        begin_ns = mono_now_ns();
        m->search_budget_ns += (int64_t)((begin_ns - m->budget_mono_ns) / 100 * SEARCH_SHARE);
        if (m->search_budget_ns > (int64_t)SEARCH_BUDGET_MAX)
                m->search_budget_ns = SEARCH_BUDGET_MAX;
        m->budget_mono_ns = begin_ns;
        if (m->search_budget_ns <= 0)
                return THREAD_MAP_E_UNKNOWN;
        r = thread_search(m->pid, theirs, ret_tid);
        m->search_budget_ns -= (int64_t)(mono_now_ns() - begin_ns);
        if (r)
                return error_trace(r);
        m->cache[slot].theirs = theirs;
        m->cache[slot].ours = *ret_tid;
        return 0;
}
