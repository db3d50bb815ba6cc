/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/capture-bpf.h"

#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "capture.skel.h"
#include "util/error.h"
#include "util/log.h"

/* Stacks that wait to be read are few; the more buckets, the fewer collide (which loses the shot).
 */
#define N_STACKS         4096U
#define N_STACKS_CROWDED (N_STACKS / 16)

DEFINE_CLEANUP(struct capture_bpf *, capture_bpf__destroy)

struct CaptureBpf {
        struct capture_bpf *skel;
        struct ring_buffer *ring;
        bool iter;
        unsigned n_slots;
        struct swp_slot *slots;
        struct swp_python *pythons;
        struct swp_buffer *buffers;
        uint64_t *work;
        unsigned n_stacks_read;
        uint64_t stacks_read[N_STACKS / 64]; /* a bit per id */
        void (*each)(void *userdata, const struct swp_event *e);
        void *each_userdata;
};

static int log_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
        char line[1024];
        size_t n;

        /* The verifier's log is of use to nobody but us, and long. */
        if (log_max_level() < LOG_DEBUG || level == LIBBPF_DEBUG)
                return 0;
        vsnprintf(line, sizeof(line), format, args);
        n = strcspn(line, "\n");
        log_debug("%.*s", (int)n, line);
        return 0;
}

static size_t page_align(size_t n)
{
        size_t page = (size_t)sysconf(_SC_PAGESIZE);

        return (n + page - 1) / page * page;
}

static int map_mmap(void **ret, const struct bpf_map *map, size_t size)
{
        void *p = mmap(
                NULL, page_align(size), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

        if (p == MAP_FAILED)
                return error_origin(-errno);
        *ret = p;
        return 0;
}

static int on_event(void *userdata, void *data, size_t size)
{
        CaptureBpf *b = userdata;

        if (size >= sizeof(struct swp_event))
                b->each(b->each_userdata, data);
        return 0;
}

static int load(struct capture_bpf **ret, bool iter, unsigned n_slots, bool stacks)
{
        _cleanup_(capture_bpf__destroyp) struct capture_bpf *skel = NULL;
        int r;

        skel = capture_bpf__open();
        if (!skel)
                return error_origin(-errno);
        /* One that cannot be loaded on this kernel makes libbpf refuse all. */
        bpf_program__set_autoload(skel->progs.pull_syscall, !iter);
        bpf_program__set_autoload(skel->progs.pull_iter, iter);
        r = bpf_map__set_max_entries(skel->maps.slots, n_slots);
        if (r == 0)
                r = bpf_map__set_max_entries(skel->maps.pythons, n_slots);
        if (r == 0)
                r = bpf_map__set_max_entries(skel->maps.work, n_slots);
        if (r == 0)
                r = bpf_map__set_max_entries(skel->maps.stacks, stacks ? N_STACKS : 1);
        if (r == 0)
                r = capture_bpf__load(skel);
        if (r < 0)
                return error_origin(r);
        *ret = TAKE_PTR(skel);
        return 0;
}

int capture_bpf_new(CaptureBpf **ret, bool iter, unsigned n_slots, bool stacks)
{
        _cleanup_(capture_bpf_freep) CaptureBpf *b = NULL;
        int r;

        assert(n_slots > 0 && n_slots <= SWP_MAX_SLOTS);

        libbpf_set_print(log_libbpf);
        b = calloc(1, sizeof(*b));
        if (!b)
                return error_origin(-ENOMEM);
        b->iter = iter;
        b->n_slots = n_slots;
        r = load(&b->skel, iter, n_slots, stacks);
        if (r)
                return error_trace(r);
        r = map_mmap((void **)&b->slots, b->skel->maps.slots, n_slots * sizeof(*b->slots));
        if (r)
                return error_trace(r);
        r = map_mmap((void **)&b->pythons, b->skel->maps.pythons, n_slots * sizeof(*b->pythons));
        if (r)
                return error_trace(r);
        r = map_mmap(
                (void **)&b->buffers, b->skel->maps.buffers, SWP_MAX_BUFFERS * sizeof(*b->buffers));
        if (r)
                return error_trace(r);
        r = map_mmap((void **)&b->work, b->skel->maps.work, n_slots * sizeof(*b->work));
        if (r)
                return error_trace(r);
        b->ring = ring_buffer__new(bpf_map__fd(b->skel->maps.events), on_event, b, NULL);
        if (!b->ring)
                return error_origin(-errno);
        *ret = TAKE_PTR(b);
        return 0;
}

CaptureBpf *capture_bpf_free(CaptureBpf *b)
{
        if (!b)
                return NULL;
        ring_buffer__free(b->ring);
        if (b->work)
                munmap(b->work, page_align(b->n_slots * sizeof(*b->work)));
        if (b->buffers)
                munmap(b->buffers, page_align(SWP_MAX_BUFFERS * sizeof(*b->buffers)));
        if (b->pythons)
                munmap(b->pythons, page_align(b->n_slots * sizeof(*b->pythons)));
        if (b->slots)
                munmap(b->slots, page_align(b->n_slots * sizeof(*b->slots)));
        capture_bpf__destroy(b->skel);
        free(b);
        return NULL;
}

bool capture_bpf_iter(const CaptureBpf *b)
{
        return b->iter;
}

struct swp_slot *capture_bpf_slot(CaptureBpf *b, uint32_t slot)
{
        assert(slot < b->n_slots);
        return &b->slots[slot];
}

struct swp_python *capture_bpf_python(CaptureBpf *b, uint32_t slot)
{
        assert(slot < b->n_slots);
        return &b->pythons[slot];
}

uint8_t *capture_bpf_buffer(CaptureBpf *b, uint32_t buffer)
{
        assert(buffer < SWP_MAX_BUFFERS);
        return b->buffers[buffer].bytes;
}

void capture_bpf_set_work(CaptureBpf *b, uint32_t n, uint32_t slot)
{
        assert(n < b->n_slots);
        b->work[n] = slot;
}

int capture_bpf_pull_list(CaptureBpf *b, uint32_t n)
{
        struct swp_pull args = {.n = n};
        LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &args, .ctx_size_in = sizeof(args));
        int r;

        r = bpf_prog_test_run_opts(bpf_program__fd(b->skel->progs.pull_syscall), &opts);
        return r < 0 ? error_origin(r) : 0;
}

int capture_bpf_link_iter(CaptureBpf *b, pid_t tid)
{
        union bpf_iter_link_info info = {.task.tid = (uint32_t)tid};
        LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = &info, .iter_info_len = sizeof(info));
        int r;

        r = bpf_link_create(bpf_program__fd(b->skel->progs.pull_iter), 0, BPF_TRACE_ITER, &opts);
        return r < 0 ? error_origin(r) : r;
}

int capture_bpf_pull_iter(CaptureBpf *b, int link_fd, uint32_t slot)
{
        _cleanup_(closep) int fd = -1;
        char nothing;

        fd = bpf_iter_create(link_fd);
        if (fd < 0)
                return error_origin(fd);
        *(volatile uint32_t *)&b->skel->bss->iter_slot = slot;
        /* The program runs in read(), which returns 0: nothing is written to the file. */
        if (read(fd, &nothing, sizeof(nothing)) < 0)
                return error_origin(-errno);
        return 0;
}

int capture_bpf_link_shot(CaptureBpf *b, int perf_fd, uint32_t slot)
{
        LIBBPF_OPTS(bpf_link_create_opts, opts, .perf_event.bpf_cookie = slot);
        int r;

        /* Not bpf_program__attach_perf_event(): that enables the event. */
        r = bpf_link_create(bpf_program__fd(b->skel->progs.shot), perf_fd, BPF_PERF_EVENT, &opts);
        return r < 0 ? error_origin(r) : r;
}

int capture_bpf_fd(const CaptureBpf *b)
{
        return bpf_map__fd(b->skel->maps.events);
}

void capture_bpf_consume(
        CaptureBpf *b, void (*each)(void *userdata, const struct swp_event *e), void *userdata)
{
        b->each = each;
        b->each_userdata = userdata;
        ring_buffer__consume(b->ring);
}

int capture_bpf_stack(CaptureBpf *b, int32_t id, uint64_t ret_pcs[static SWP_MAX_USTACK])
{
        uint32_t key = (uint32_t)id;
        int r, n;

        if (key >= N_STACKS)
                return error_origin(-EINVAL);
        r = bpf_map_lookup_elem(bpf_map__fd(b->skel->maps.stacks), &key, ret_pcs);
        if (r < 0)
                return error_origin(r);
        if (!(b->stacks_read[key / 64] & 1ULL << key % 64)) {
                b->stacks_read[key / 64] |= 1ULL << key % 64;
                b->n_stacks_read++;
        }
        for (n = 0; n < SWP_MAX_USTACK && ret_pcs[n]; n++)
                ;
        return n;
}

void capture_bpf_forget_stacks(CaptureBpf *b)
{
        for (uint32_t key = 0; key < N_STACKS; key++)
                if (b->stacks_read[key / 64] & 1ULL << key % 64)
                        bpf_map_delete_elem(bpf_map__fd(b->skel->maps.stacks), &key);
        memset(b->stacks_read, 0, sizeof(b->stacks_read));
        b->n_stacks_read = 0;
}

bool capture_bpf_stacks_crowded(const CaptureBpf *b)
{
        return b->n_stacks_read > N_STACKS_CROWDED;
}
