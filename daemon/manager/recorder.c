/* SPDX-License-Identifier: Apache-2.0 */
#include "manager/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "capture/capture.h"
#include "manager/module-cache.h"
#include "unwind/recording.h"
#include "unwind/unwind.h"
#include "util/error.h"
#include "util/log.h"
#include "util/time.h"

enum {
        FRAMES_MAX = 16384,         /* of a stack */
        ATTEMPTS_MAX = 100,         /* of reading a thread that runs while it is read */
        ATTEMPT_PAUSE_NS = 1000000, /* between these */
        SHOT_TIMEOUT_MS = 1000,     /* a thread that was running and is not let run any more */
};

typedef struct Recorder {
        const RecorderOptions *options;
        Capture *capture;
        CaptureThread *thread;
        ModuleCache *modules;
        ProcMap *map;
        CaptureSpace space; /* before the map was read */
        Frame *frames;      /* scratch: FRAMES_MAX */
        size_t n_captures;
        RecordingCapture captures[RECORDER_CAPTURES_MAX]; /* bytes are ours */
} Recorder;

static Recorder *recorder_free(Recorder *r)
{
        if (!r)
                return NULL;
        for (size_t i = 0; i < r->n_captures; i++) {
                StackCopy *copy = &r->captures[i].copy;

                explicit_bzero((void *)copy->bytes, copy->n + copy->other_n);
                free((void *)copy->bytes);
        }
        free(r->frames);
        procmap_unref(r->map);
        module_cache_free(r->modules);
        capture_thread_free(r->thread);
        capture_free(r->capture);
        free(r);
        return NULL;
}

DEFINE_CLEANUP(Recorder *, recorder_free)

static int open_capture(Recorder *r, const Config *config)
{
        const RecorderOptions *o = r->options;
        CaptureInfo info;
        int e;

        e = capture_new(&r->capture, config, &info);
        if (e == CAPTURE_E_UNAVAILABLE) {
                log_error("stacks cannot be read: %s", info.reason);
                return RECORDER_E_FAILED;
        }
        if (e)
                return error_trace(e);
        e = capture_thread_new(r->capture, &r->thread, o->pid, o->tid, r);
        if (e == CAPTURE_E_GONE) {
                log_error("process %d has no thread %d", (int)o->pid, (int)o->tid);
                return RECORDER_E_FAILED;
        }
        if (e)
                return error_fold(e);
        capture_thread_set_want(r->thread, SIZE_MAX); /* as much as there can be */
        return 0;
}

/* Of a thread that runs. */
static void wait_shot(Recorder *r, CaptureResult *ret)
{
        struct pollfd p = {.fd = capture_fd(r->capture), .events = POLLIN};
        void *userdata;

        do
                if (capture_collect(r->capture, &userdata, ret))
                        return;
        while (poll(&p, 1, SHOT_TIMEOUT_MS) > 0);
        if (!capture_cancel(r->thread, ret))
                ret->status = CAPTURE_UNSTABLE;
}

static const char *reason_of(CaptureStatus status)
{
        switch (status) {
        case CAPTURE_GONE:
                return "it has ended";
        case CAPTURE_FAULT:
                return "its stack cannot be read";
        case CAPTURE_DENIED:
                return "it has another tracer, or a security module forbids it";
        case CAPTURE_BUSY:
                return "no buffer is free";
        default:
                return "it runs whenever it is looked at, or does not stop";
        }
}

/* Return: 0, RECORDER_E_FAILED (logged), -errno. */
static int take(Recorder *r, CaptureResult *ret)
{
        const struct timespec pause = {.tv_nsec = ATTEMPT_PAUSE_NS};

        for (int i = 0; i < ATTEMPTS_MAX; i++) {
                int e;

                capture_thread_forget(r->thread);
                e = capture_pull(r->capture, &r->thread, 1, ret);
                if (e)
                        return error_trace(e);
                if (ret->status == CAPTURE_RUNNING)
                        wait_shot(r, ret);
                if (ret->status == CAPTURE_TAKEN)
                        return 0;
                if (ret->status == CAPTURE_GONE || ret->status == CAPTURE_FAULT)
                        break;
                /* It may need this very CPU, or a tracer may be about to let it go. */
                clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        }
        log_error("thread %d: %s", (int)r->options->tid, reason_of(ret->status));
        return RECORDER_E_FAILED;
}

/* The one map that all captures are to fit. */
static int load_map(Recorder *r)
{
        CaptureResult first;
        int e;

        e = take(r, &first);
        if (e)
                return error_trace(e);
        r->space = first.space;
        capture_release(r->thread);
        e = module_cache_new(&r->modules);
        if (e)
                return error_trace(e);
        e = module_cache_load(r->modules, r->options->pid, true, -1, &r->map);
        if (e == MODULE_CACHE_E_GONE) {
                log_error("process %d has ended", (int)r->options->pid);
                return RECORDER_E_FAILED;
        }
        return error_trace(e);
}

static int keep(Recorder *r, const CaptureResult *c)
{
        uint8_t *bytes = malloc(c->copy.n + c->copy.other_n + c->copy.n_code ?: 1);
        RecordingCapture *kept = &r->captures[r->n_captures];

        if (!bytes)
                return error_origin(-ENOMEM);
        memcpy(bytes, c->copy.bytes, c->copy.n);
        *kept = (RecordingCapture){.mono_ns = c->mono_ns, .syscall = c->syscall, .copy = c->copy};
        kept->copy.bytes = bytes;
        if (c->copy.other_n > 0)
                memcpy(bytes + c->copy.n, c->copy.other_bytes, c->copy.other_n);
        kept->copy.other_bytes = bytes + c->copy.n;
        if (c->copy.n_code > 0)
                memcpy(bytes + c->copy.n + c->copy.other_n, c->copy.code, c->copy.n_code);
        kept->copy.code = kept->copy.other_bytes + c->copy.other_n;
        r->n_captures++;
        log_info("capture %zu: pc %#" PRIx64 ", stack %#" PRIx64 "-%#" PRIx64 "%s", r->n_captures,
                c->copy.regs.r[X86_RIP], c->copy.addr, c->copy.addr + c->copy.n,
                c->shot ? ", running" : "");
        return 0;
}

/* The stack that a signal interrupted is copied only when a walk has come to it. */
static int take_whole(Recorder *r, CaptureResult *ret)
{
        UnwindResult u;
        int e;

        capture_thread_set_other(r->thread, 0);
        capture_thread_set_go(r->thread, r->map->go);
        capture_thread_set_code(r->thread, r->map->generates_code);
        e = take(r, ret);
        if (e)
                return error_trace(e);
        u = unwind_cfi(&ret->copy, r->map, r->frames, FRAMES_MAX);
        if (u.status != UNWIND_OTHER_STACK || u.need_addr == 0)
                return 0;
        capture_release(r->thread);
        capture_thread_set_other(r->thread, u.need_addr);
        return error_trace(take(r, ret));
}

static int take_all(Recorder *r)
{
        uint64_t due_mono_ns = mono_now_ns();

        for (unsigned i = 0; i < r->options->n_captures; i++) {
                struct timespec due = {.tv_sec = (time_t)(due_mono_ns / NS_PER_S),
                        .tv_nsec = (long)(due_mono_ns % NS_PER_S)};
                CaptureResult c;
                int e;

                while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
                        ;
                due_mono_ns += r->options->interval_ms * NS_PER_MS;
                e = take_whole(r, &c);
                if (e)
                        return error_trace(e);
                if (!capture_space_equal(&c.space, &r->space)) {
                        log_error("process %d has mapped or unmapped code meanwhile: try again",
                                (int)r->options->pid);
                        return RECORDER_E_FAILED;
                }
                e = keep(r, &c);
                capture_release(r->thread);
                if (e)
                        return error_trace(e);
        }
        return 0;
}

/* ---- the file ---- */

typedef struct Addresses {
        uint64_t *vaddrs;
        size_t n;
} Addresses;

static void addresses_deinit(Addresses *a)
{
        free(a->vaddrs);
}

static void address_note(const Recorder *r, const Module *m, uint64_t addr, Addresses *a)
{
        const Mapping *mapping = procmap_find(r->map, addr);

        if (mapping && mapping->module == m)
                a->vaddrs[a->n++] = module_vaddr(m, addr - mapping->start + mapping->offset);
}

static void addresses_note(const Recorder *r, const Module *m, uint64_t addr, const uint8_t *bytes,
        size_t n, Addresses *a)
{
        for (size_t at = -addr % 8; n >= 8 && at <= n - 8; at += 8) {
                uint64_t word;

                memcpy(&word, bytes + at, 8);
                address_note(r, m, word, a);
        }
}

/* Where in the module any word of a stack, or a register, points to. What no word points to, no
 * walk can come to. */
static int addresses_find(const Recorder *r, const Module *m, Addresses *ret)
{
        size_t n = 0;

        for (size_t i = 0; i < r->n_captures; i++)
                n += N_REGS + r->captures[i].copy.n / 8 + r->captures[i].copy.other_n / 8;
        ret->vaddrs = calloc(n, sizeof(*ret->vaddrs));
        if (!ret->vaddrs)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < r->n_captures; i++) {
                const StackCopy *c = &r->captures[i].copy;

                for (unsigned reg = 0; reg < N_REGS; reg++)
                        address_note(r, m, c->regs.r[reg], ret);
                addresses_note(r, m, c->addr, c->bytes, c->n, ret);
                addresses_note(r, m, c->other_addr, c->other_bytes, c->other_n, ret);
        }
        return 0;
}

/* *ret_image is left alone if the file is of no use. */
static int write_image(
        FILE *f, Elf *elf, const Addresses *a, uint32_t *n_images, uint32_t *ret_image)
{
        int e = elf ? recording_write_image(f, elf, a->vaddrs, a->n) : RECORDING_E_BAD;

        if (e == 0)
                *ret_image = (*n_images)++;
        return e < 0 ? error_trace(e) : 0;
}

/* Modules that no capture points into go without their file. */
static int write_module(FILE *f, const Recorder *r, const Module *m, uint32_t *n_images)
{
        uint32_t image = RECORDING_NONE, debug_image = RECORDING_NONE;
        _cleanup_(addresses_deinit) Addresses a = {0};
        Binary *binary = m->symbols;
        int e;

        e = addresses_find(r, m, &a);
        if (e == 0 && binary && a.n > 0)
                e = write_image(f, binary_elf(binary), &a, n_images, &image);
        if (e == 0 && binary && a.n > 0)
                e = write_image(f, binary_debug_elf(binary), &a, n_images, &debug_image);
        if (e)
                return error_trace(e);
        recording_write_module(
                f, image, debug_image, m->name, binary ? binary_build_id(binary) : "");
        return 0;
}

static int write_all(FILE *f, const Recorder *r)
{
        _cleanup_(freep) uint32_t *modules = calloc(r->map->n + 1, sizeof(*modules));
        uint32_t n_modules = 0, n_images = 0;
        int e;

        if (!modules)
                return error_origin(-ENOMEM);
        recording_write_head(f);
        for (size_t i = 0; i < r->map->n; i++) {
                const Module *m = r->map->mappings[i].module;

                modules[i] = RECORDING_NONE;
                for (size_t k = 0; m && k < i && modules[i] == RECORDING_NONE; k++)
                        if (r->map->mappings[k].module == m)
                                modules[i] = modules[k];
                if (!m || modules[i] != RECORDING_NONE)
                        continue;
                e = write_module(f, r, m, &n_images);
                if (e)
                        return error_trace(e);
                modules[i] = n_modules++;
        }
        e = recording_write_map(f, r->map, modules);
        if (e)
                return error_trace(e);
        for (size_t i = 0; i < r->n_captures; i++)
                recording_write_capture(f, &r->captures[i]);
        if (fflush(f) != 0 || ferror(f))
                return error_origin(errno ? -errno : -EIO);
        return 0;
}

static int write_file(const Recorder *r)
{
        const char *path = r->options->path;
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), e;
        FILE *f;

        if (fd < 0) {
                log_error("%s: %s", path, strerror(errno));
                return RECORDER_E_FAILED;
        }
        f = fdopen(fd, "w");
        if (f) {
                e = write_all(f, r);
                /* Some file systems tell only now that there was no room. */
                if (fclose(f) != 0 && e == 0)
                        e = error_origin(-errno);
        } else {
                e = error_origin(-errno);
                close(fd);
        }
        if (e < 0) {
                log_error("%s: %s", path, strerror(-e));
                unlink(path);
                return RECORDER_E_FAILED;
        }
        return 0;
}

int recorder_run(const Config *config, const RecorderOptions *options)
{
        _cleanup_(recorder_freep) Recorder *r = calloc(1, sizeof(*r));
        int e;

        if (!r)
                return error_origin(-ENOMEM);
        r->options = options;
        r->frames = calloc(FRAMES_MAX, sizeof(*r->frames));
        if (!r->frames)
                return error_origin(-ENOMEM);
        log_warning("%s will hold what is on the stack of process %d, secrets and all",
                options->path, (int)options->pid);
        e = open_capture(r, config);
        if (e == 0)
                e = load_map(r);
        if (e == 0)
                e = take_all(r);
        if (e == 0)
                e = write_file(r);
        return error_trace(e);
}
