/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "core/counter.h"
#include "manager/module-cache.h"
#include "runtime/cpython-binary.h"
#include "symbol/elf-file.h"
#include "util/error.h"
#include "util/hash.h"
#include "util/list.h"
#include "util/log.h"

/* A process with the kernel's maximum of mappings and long paths; most have some 100 KiB. */
#define MAPS_MAX (16u << 20)
/* Modules that no process uses are kept up to this number in all, for when it starts again. */
#define MODULES_KEPT 512
/* Each costs a descriptor and memory: no process takes all of them from the others. */
#define MODULES_PER_PROCESS 1024
#define MODULES_MAX         16384
#define SEGMENTS_MAX        64
/* Files whose names are an interpreter's that are looked into before a process' files are read. */
#define PEEKS_MAX 128
/* Code without unwind information that is read for one process, until no more files are: a second. */
#define GAP_BYTES_PER_PROCESS (64u << 20)
/* Lazy tables hold copies of what they are read from; beyond that, files are read in full. */
#define LAZY_BYTES_PER_PROCESS (256u << 20)

typedef struct FileKey {
        uint64_t dev, inode, size;
        uint64_t mtime_ns, ctime_ns; /* of the file's, not of a clock of ours */
} FileKey;

typedef struct Entry {
        HashLink by_key;
        ListLink by_use; /* the least recently used first */
        FileKey key;
        Module *module; /* a reference */
        Binary *binary; /* NULL: not readable */
} Entry;

struct ModuleCache {
        HashTable table;
        ListLink entries;
        Entry *vdso;
        LogLimit log_limit;
};

/* One call of module_cache_load(). */
typedef struct Load {
        ModuleCache *cache;
        pid_t pid;
        bool full;
        int root_fd; /* the process's root directory, or -1 */
        size_t n_files, n_gap_bytes, n_lazy_bytes;
} Load;

static Entry *entry_free(Entry *e)
{
        if (!e)
                return NULL;
        module_unref(e->module);
        binary_free(e->binary);
        free(e);
        return NULL;
}

DEFINE_CLEANUP(Entry *, entry_free)

int module_cache_new(ModuleCache **ret)
{
        ModuleCache *c = calloc(1, sizeof(*c));

        if (!c)
                return error_origin(-ENOMEM);
        list_init(&c->entries);
        c->log_limit = (LogLimit)LOG_LIMIT_INIT;
        *ret = c;
        return 0;
}

static void cache_remove(ModuleCache *c, Entry *e)
{
        hash_table_remove(&c->table, &e->by_key);
        list_remove(&e->by_use);
        entry_free(e);
}

ModuleCache *module_cache_free(ModuleCache *c)
{
        Entry *e, *tmp;

        if (!c)
                return NULL;
        list_for_each_safe (e, tmp, &c->entries, by_use)
                cache_remove(c, e);
        entry_free(c->vdso);
        hash_table_deinit(&c->table);
        free(c);
        return NULL;
}

size_t module_cache_n(const ModuleCache *c)
{
        return c->table.n;
}

/* A module's last reference is the cache's: only this thread could give out another. */
static bool entry_is_unused(const Entry *e)
{
        return atomic_load_explicit(&e->module->n_refs, memory_order_acquire) == 1;
}

static void cache_evict(ModuleCache *c)
{
        Entry *e, *tmp;

        list_for_each_safe (e, tmp, &c->entries, by_use) {
                if (c->table.n <= MODULES_KEPT)
                        break;
                if (entry_is_unused(e))
                        cache_remove(c, e);
        }
}

static Entry *cache_find(ModuleCache *c, const FileKey *key, uint64_t hash)
{
        for (HashLink *l = hash_table_find(&c->table, hash); l; l = hash_link_next(l)) {
                Entry *e = container_of(l, Entry, by_key);

                if (memcmp(&e->key, key, sizeof(*key)) == 0) {
                        list_remove(&e->by_use);
                        list_append(&c->entries, &e->by_use);
                        return e;
                }
        }
        return NULL;
}

/* Names files in messages only once each; many at once only by their number. */
static void log_failure(Load *l, const char *path, const char *reason)
{
        unsigned suppressed;

        counter_add(COUNTER_BINARIES_FAILED, 1);
        if (!log_limit(&l->cache->log_limit, &suppressed))
                return;
        if (suppressed > 0)
                log_info("%u more files could not be read", suppressed);
        log_info("%s of process %d: %s", path, (int)l->pid, reason);
}

/*
 * What unwinding and naming need of the file. Takes the binary over.
 * Return: 0; -EBADMSG: the file's unwind information is of no use, the entry is there nonetheless;
 * -ENOMEM.
 */
static int entry_new(Entry **ret, const char *name, Binary *binary, bool full)
{
        _cleanup_(entry_freep) Entry *e = calloc(1, sizeof(*e));
        _cleanup_(cfi_table_freep) CfiTable *cfi = NULL;
        BinarySegment segments[SEGMENTS_MAX];
        ModuleSegment module_segments[SEGMENTS_MAX];
        size_t n_segments = 0;
        int r = CFI_TABLE_E_NOT_LAZY;

        if (!e) {
                binary_free(binary);
                return error_origin(-ENOMEM);
        }
        list_init(&e->by_use);
        e->binary = binary;
        if (!binary) {
                r = 0;
        } else {
                if (!full)
                        r = cfi_table_new_lazy(&cfi, binary_elf(binary));
                if (r == CFI_TABLE_E_NOT_LAZY)
                        r = cfi_table_new(&cfi, binary_elf(binary), binary_debug_elf(binary));
                if (r < 0 && r != -EBADMSG)
                        return error_trace(r);
                n_segments = binary_segments(binary, segments, SEGMENTS_MAX);
        }
        for (size_t i = 0; i < n_segments; i++)
                module_segments[i] = (ModuleSegment){
                        .offset = segments[i].offset,
                        .vaddr = segments[i].vaddr,
                        .filesz = segments[i].filesz,
                };
        e->module = module_new(name, cfi, n_segments, module_segments);
        if (!e->module)
                return error_origin(-ENOMEM);
        cfi = NULL;
        e->module->symbols = binary;
        *ret = TAKE_PTR(e);
        return r;
}

int module_cache_complete(Module *m, size_t *n_gap_bytes)
{
        Binary *binary = m->symbols;
        CfiTable *cfi = NULL;
        int r;

        if (!binary || !module_cfi(m) || !cfi_table_is_lazy(module_cfi(m)) ||
                *n_gap_bytes >= GAP_BYTES_PER_PROCESS)
                return 0;
        r = cfi_table_new(&cfi, binary_elf(binary), binary_debug_elf(binary));
        /* The file is another one by now: what was read of it before stays. */
        if (r < 0)
                return r == -EBADMSG ? 0 : error_trace(r);
        *n_gap_bytes += cfi_table_n_gap_bytes(cfi);
        module_set_full(m, cfi);
        return MODULE_CACHE_E_COMPLETED;
}

static const char *base_name(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash && slash[1] != '\0' ? slash + 1 : path;
}

/* Return: 0, -ENOMEM. */
static int entry_find_python(Entry *e, const char *name)
{
        CpythonBinary *python = NULL;
        int r = cpython_binary_new(&python, binary_elf(e->binary), binary_debug_elf(e->binary));

        e->module->python = python;
        switch (r) {
        case CPYTHON_BINARY_E_VERSION:
        case CPYTHON_BINARY_E_BAD:
                counter_add(COUNTER_PYTHONS_UNKNOWN, 1);
                log_warning("%s: %s, its functions are not shown", name,
                        r == CPYTHON_BINARY_E_VERSION
                                ? "a Python of a version other than 3.8 to 3.14"
                                : "a Python in which its state is not to be found");
                break;
        case CPYTHON_BINARY_E_THREADS:
                counter_add(COUNTER_PYTHONS_FREE_THREADED, 1);
                log_warning("%s: a Python without a GIL, its functions are not shown", name);
                break;
        }
        return r < 0 ? error_trace(r) : 0;
}

/* Reads the file, takes fd over (-1: it could not be opened, `reason` says why). Files that are no
 * use are remembered, so that they are not read again. Return: 0, -errno. */
static int cache_add(Load *l, const FileKey *key, uint64_t hash, const Mapping *m, int fd,
        const char *reason, Entry **ret)
{
        const char *name = base_name(m->name);
        Binary *binary = NULL;
        Entry *e = NULL;
        int r;

        if (fd >= 0) {
                r = binary_new(&binary, fd, name, l->root_fd);
                if (r < 0)
                        return error_trace(r);
                if (r == BINARY_E_BAD)
                        reason = "not an x86-64 ELF file";
        }
        r = entry_new(&e, name, binary, l->full || l->n_lazy_bytes >= LAZY_BYTES_PER_PROCESS);
        if (r == -EBADMSG)
                reason = "its unwind information cannot be read";
        else if (r < 0)
                return error_trace(r);
        r = binary ? entry_find_python(e, name) : 0;
        if (r < 0) {
                entry_free(e);
                return error_trace(r);
        }
        e->key = *key;
        if (e->module->cfi) {
                l->n_gap_bytes += cfi_table_n_gap_bytes(e->module->cfi);
                if (cfi_table_is_lazy(e->module->cfi))
                        l->n_lazy_bytes += cfi_table_bytes(e->module->cfi);
        }
        r = hash_table_add(&l->cache->table, &e->by_key, hash);
        if (r < 0) {
                entry_free(e);
                return error_trace(r);
        }
        list_append(&l->cache->entries, &e->by_use);
        if (reason)
                log_failure(l, m->name, reason);
        else
                counter_add(COUNTER_BINARIES_LOADED, 1);
        *ret = e;
        return 0;
}

/*
 * The kernel tells device and inode of the mapped file. File systems with layers or subvolumes
 * (overlay, btrfs) have an anonymous device (major 0) in stat, and may have another one here: there
 * the inode has to do.
 */
static bool is_mapped_file(const struct stat *st, const Mapping *m)
{
        return st->st_ino == m->inode &&
               (st->st_dev == makedev(m->dev_major, m->dev_minor) || major(st->st_dev) == 0);
}

/* A place-holder (O_PATH): nothing happens to devices and pipes before it is known what it is. */
static int open_candidate(int root_fd, const char *path, const Mapping *m)
{
        struct open_how how = {
                .flags = O_PATH | O_CLOEXEC,
                .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        };
        _cleanup_(closep) int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        return is_mapped_file(&st, m) ? TAKE_FD(fd) : -ESTALE;
}

/* An O_PATH descriptor of the mapped file, or -errno. */
static int open_mapping(Load *l, const Mapping *m)
{
        char path[64];
        int fd, own_root_fd;

        /* The inode itself, whatever has become of its name. Needs CAP_CHECKPOINT_RESTORE. */
        snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)l->pid,
                m->start, m->end);
        fd = open(path, O_PATH | O_CLOEXEC);
        if (fd >= 0)
                return fd;
        fd = -errno;
        if (m->deleted)
                return fd;
        if (l->root_fd >= 0) {
                fd = open_candidate(l->root_fd, m->name, m);
                if (fd >= 0)
                        return fd;
        }
        own_root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (own_root_fd >= 0) {
                fd = open_candidate(own_root_fd, m->name, m);
                close(own_root_fd);
        }
        return fd;
}

static uint64_t timespec_key(const struct timespec *t)
{
        return (uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec;
}

static FileKey file_key(const struct stat *st)
{
        return (FileKey){
                .dev = st->st_dev,
                .inode = st->st_ino,
                .size = (uint64_t)st->st_size,
                .mtime_ns = timespec_key(&st->st_mtim),
                .ctime_ns = timespec_key(&st->st_ctim),
        };
}

static bool process_is_gone(pid_t pid)
{
        char path[64];

        snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
        return access(path, F_OK) < 0;
}

/* *ret NULL: not a file, or too many of them. Return: 0, MODULE_CACHE_E_GONE, -errno. */
static int mapping_load(Load *l, const Mapping *m, Entry **ret)
{
        _cleanup_(closep) int path_fd = -1;
        FileKey key = {.dev = makedev(m->dev_major, m->dev_minor), .inode = m->inode};
        const char *reason = NULL;
        struct stat st;
        char path[64];
        uint64_t hash;
        int fd = -1, r;

        *ret = NULL;
        r = open_mapping(l, m);
        if (r >= 0) {
                path_fd = r;
                if (fstat(path_fd, &st) < 0 || !S_ISREG(st.st_mode))
                        return 0;
                key = file_key(&st);
        } else if (process_is_gone(l->pid)) {
                return MODULE_CACHE_E_GONE;
        } else {
                /* No file is as large: not the key of one that can be opened. */
                key.size = UINT64_MAX;
                reason = strerrordesc_np(-r);
        }
        hash = hash_bytes(&key, sizeof(key));
        *ret = cache_find(l->cache, &key, hash);
        if (*ret) {
                r = l->full ? module_cache_complete((*ret)->module, &l->n_gap_bytes) : 0;
                return r < 0 ? error_trace(r) : 0;
        }
        if (l->cache->table.n >= MODULES_MAX || l->n_files >= MODULES_PER_PROCESS ||
                l->n_gap_bytes >= GAP_BYTES_PER_PROCESS) {
                log_failure(l, m->name, "too many files, or too large ones");
                return 0;
        }
        l->n_files++;
        if (path_fd >= 0) {
                snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
                fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
                /* What the daemon lacks for now is no property of the file, to be remembered. */
                if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
                        return error_origin(-errno);
                if (fd < 0)
                        reason = strerrordesc_np(errno);
        }
        return error_trace(cache_add(l, &key, hash, m, fd, reason, ret));
}

/* Every process of this machine has the same vDSO. */
static int vdso_load(ModuleCache *c, Entry **ret)
{
        const Elf64_Ehdr *header = (const Elf64_Ehdr *)getauxval(AT_SYSINFO_EHDR);
        Binary *binary = NULL;
        int r;

        if (!c->vdso && header) {
                /* Section headers are the last thing in it. */
                r = binary_new_memory(&binary, header,
                        header->e_shoff + (size_t)header->e_shnum * header->e_shentsize, "[vdso]");
                if (r)
                        return error_fold(r);
                r = entry_new(&c->vdso, "[vdso]", binary, true);
                if (r)
                        return error_trace(r);
        }
        *ret = c->vdso;
        return 0;
}

/* /proc/PID/maps, up to a line's end; without modules. Return: 0, MODULE_CACHE_E_GONE, -errno. */
static int map_read(pid_t pid, ProcMap **ret)
{
        _cleanup_(closep) int fd = -1;
        _cleanup_(freep) char *text = NULL;
        size_t n = 0, n_allocated = 32u << 10;
        char path[64];
        int r;

        snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT || errno == ESRCH ? MODULE_CACHE_E_GONE
                                                         : error_origin(-errno);
        for (;;) {
                char *larger = n == 0 || n == n_allocated ? realloc(text, n_allocated *= 2) : text;
                ssize_t got;

                if (!larger)
                        return error_origin(-ENOMEM);
                text = larger;
                got = read(fd, text + n, n_allocated - n);
                if (got < 0 && errno == EINTR)
                        continue;
                if (got < 0)
                        return errno == ESRCH ? MODULE_CACHE_E_GONE : error_origin(-errno);
                n += (size_t)got;
                if (got == 0 || n >= MAPS_MAX)
                        break;
        }
        while (n > 0 && text[n - 1] != '\n')
                n--;
        if (n == 0)
                return MODULE_CACHE_E_GONE;
        r = procmap_parse(ret, text, n);
        return error_fold(r);
}

static bool is_readable(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};

        return poll(&p, 1, 0) > 0;
}

/* Return: 0, MODULE_CACHE_E_GONE, -errno. */
static int mapping_find_python(Load *l, const Mapping *m, ModulePython *ret)
{
        _cleanup_(freep) CpythonBinary *python = NULL;
        _cleanup_(elf_file_freep) ElfFile *file = NULL;
        _cleanup_(closep) int path_fd = -1;
        struct stat st;
        char path[64];
        uint64_t bias = 0;
        FileKey key;
        int fd, r;

        path_fd = open_mapping(l, m);
        if (path_fd < 0 || fstat(path_fd, &st) < 0 || !S_ISREG(st.st_mode))
                return MODULE_CACHE_E_GONE;
        key = file_key(&st);
        if (cache_find(l->cache, &key, hash_bytes(&key, sizeof(key))))
                return MODULE_CACHE_E_GONE;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        r = fd < 0 ? MODULE_CACHE_E_GONE : elf_file_new(&file, fd);
        if (r == 0)
                r = cpython_binary_peek(&python, file->elf, m->start, m->offset, &bias);
        if (r)
                return r < 0 ? error_trace(r) : MODULE_CACHE_E_GONE;
        ret->layout = python->layout.walk;
        ret->interpreters = bias + python->runtime_vaddr + python->layout.runtime_interpreters;
        return 0;
}

int module_cache_find_python(ModuleCache *c, pid_t pid, ModulePython *ret)
{
        _cleanup_(procmap_unrefp) ProcMap *map = NULL;
        Load load = {.cache = c, .pid = pid, .root_fd = -1};
        int r;

        r = map_read(pid, &map);
        if (r)
                return error_trace(r);
        for (size_t i = 0; i < map->n && load.n_files < PEEKS_MAX; i++) {
                const Mapping *m = &map->mappings[i];

                if (!m->exec || m->inode == 0 || !strstr(base_name(m->name), "python"))
                        continue;
                load.n_files++;
                r = mapping_find_python(&load, m, ret);
                if (r <= 0)
                        return error_trace(r);
        }
        return MODULE_CACHE_E_GONE;
}

int module_cache_load(ModuleCache *c, pid_t pid, bool full, int stop_fd, ProcMap **ret)
{
        _cleanup_(procmap_unrefp) ProcMap *map = NULL;
        _cleanup_(closep) int root_fd = -1;
        Load load = {.cache = c, .pid = pid, .full = full};
        char path[64];
        int r;

        r = map_read(pid, &map);
        if (r)
                return error_trace(r);
        snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
        load.root_fd = root_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        for (size_t i = 0; i < map->n; i++) {
                Mapping *m = &map->mappings[i];
                Entry *e = NULL;

                if (!m->exec)
                        continue;
                if (is_readable(stop_fd))
                        return MODULE_CACHE_E_GONE;
                if (m->inode != 0)
                        r = mapping_load(&load, m, &e);
                else if (m->special && strcmp(m->name, "[vdso]") == 0)
                        r = vdso_load(c, &e);
                if (r > 0)
                        return r;
                if (r < 0)
                        log_failure(&load, m->name, strerrordesc_np(-r));
                r = 0;
                if (!e)
                        continue;
                m->module = module_ref(e->module);
                if (!map->go && m->module->cfi)
                        map->go = cfi_table_go(m->module->cfi);
        }
        cache_evict(c);
        *ret = TAKE_PTR(map);
        return 0;
}
