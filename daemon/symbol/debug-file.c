/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "symbol/debug-file.h"
#include "util/error.h"

#define LINK_SECTION_MAX 8192
/* A file without build-id is read whole for its checksum; larger ones are not looked at. */
#define CHECKSUM_FILE_MAX (1LL << 30)
#define UNPACKED_MAX      (64u << 20)
#define LZMA_MEMORY_MAX   (128u << 20)

/* Where a binary's debug files are looked for. */
typedef struct Place {
        int root_fd;
        uid_t owner; /* of the binary */
} Place;

static bool place_init(Place *p, const ElfFile *binary)
{
        struct stat st;

        if (p->root_fd < 0 || binary->fd < 0 || fstat(binary->fd, &st) < 0)
                return false;
        p->owner = st.st_uid;
        return true;
}

/*
 * -1: there is no such regular file inside of the root, or it is not the binary's owner's nor root's.
 * A root directory is what its processes made of it: somebody who runs /usr/bin/node in a mount
 * namespace of his own must not be able to name the functions of everybody's node.
 */
static int open_in_root(int root_fd, const char *path, uid_t owner)
{
        struct open_how how = {
                .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        };
        _cleanup_(closep) int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
                (st.st_uid != owner && st.st_uid != 0))
                return -1;
        return TAKE_FD(fd);
}

static bool checksum_matches(int fd, uint32_t crc)
{
        _cleanup_(freep) uint8_t *buffer = malloc(1 << 16);
        struct stat st;
        uint32_t sum = 0;
        ssize_t n;

        if (!buffer || fstat(fd, &st) < 0 || st.st_size > CHECKSUM_FILE_MAX)
                return false;
        for (off_t at = 0; (n = pread(fd, buffer, 1 << 16, at)) > 0; at += n) {
                if (at > CHECKSUM_FILE_MAX)
                        return false;
                sum = lzma_crc32(buffer, (size_t)n, sum);
        }
        return n == 0 && sum == crc;
}

/* Opens the file if it belongs: the same build-id, or for binaries without one (crc not NULL) the
 * checksum. *ret stays NULL if not. */
static int open_matching(ElfFile **ret, const Place *place, const char *path, const char *build_id,
        const uint32_t *crc)
{
        _cleanup_(elf_file_freep) ElfFile *f = NULL;
        int fd = open_in_root(place->root_fd, path, place->owner), r;

        if (fd < 0)
                return 0;
        r = elf_file_new(&f, fd);
        if (r < 0)
                return error_trace(r);
        if (r > 0)
                return 0;
        if (build_id[0] != '\0' ? strcmp(f->build_id, build_id) == 0
                                : crc && checksum_matches(f->fd, *crc))
                *ret = TAKE_PTR(f);
        return 0;
}

static int open_by_build_id(
        ElfFile **ret, char **ret_path, const Place *place, const char *build_id)
{
        _cleanup_(freep) char *path = NULL;
        int r;

        if (strlen(build_id) < 4)
                return 0;
        if (asprintf(&path, "usr/lib/debug/.build-id/%.2s/%s.debug", build_id, build_id + 2) < 0) {
                path = NULL;
                return error_origin(-ENOMEM);
        }
        r = open_matching(ret, place, path, build_id, NULL);
        if (r == 0 && *ret && ret_path)
                *ret_path = TAKE_PTR(path);
        return r;
}

/* A section that begins with a file name; NULL: not there, or the name does not end. */
static Elf_Data *link_section(ElfFile *f, const char *name, size_t *ret_n_name)
{
        GElf_Shdr shdr;
        Elf_Scn *scn = elf_file_section(f, name, &shdr);
        Elf_Data *data = scn && shdr.sh_size <= LINK_SECTION_MAX ? elf_rawdata(scn, NULL) : NULL;

        if (!data || !data->d_buf)
                return NULL;
        *ret_n_name = strnlen(data->d_buf, data->d_size);
        return *ret_n_name > 0 && *ret_n_name < data->d_size ? data : NULL;
}

/* The directory of an opened file, without the leading slash, as /proc tells it: the path inside of
 * its mount namespace. It only leads to candidates, which are checked. */
static bool directory_of(int fd, char *ret, size_t size)
{
        char link[64], *slash;
        ssize_t n;

        if (fd < 0)
                return false;
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        n = readlink(link, ret, size - 1);
        if (n <= 0 || ret[0] != '/')
                return false;
        ret[n] = '\0';
        slash = strrchr(ret, '/');
        memmove(ret, ret + 1, (size_t)(slash - ret));
        ret[slash - ret > 0 ? slash - ret - 1 : 0] = '\0';
        return true;
}

static int open_by_link(ElfFile **ret, char **ret_path, ElfFile *binary, const Place *place)
{
        static const char *const patterns[] = {
                "usr/lib/debug/%1$s/%2$s",
                "%1$s/.debug/%2$s",
                "%1$s/%2$s",
        };
        char directory[PATH_MAX];
        size_t n_name, crc_at;
        Elf_Data *data = link_section(binary, ".gnu_debuglink", &n_name);
        uint32_t crc;
        int r;

        crc_at = data ? (n_name + 4) & ~(size_t)3 : 0;
        if (!data || crc_at + sizeof(crc) > data->d_size || memchr(data->d_buf, '/', n_name) ||
                !directory_of(binary->fd, directory, sizeof(directory)))
                return 0;
        memcpy(&crc, (const char *)data->d_buf + crc_at, sizeof(crc));
        for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns) && !*ret; i++) {
                _cleanup_(freep) char *path = NULL;

                if (asprintf(&path, patterns[i], directory, (const char *)data->d_buf) < 0) {
                        path = NULL;
                        return error_origin(-ENOMEM);
                }
                r = open_matching(ret, place, path, binary->build_id, &crc);
                if (r)
                        return error_trace(r);
                if (*ret)
                        *ret_path = TAKE_PTR(path);
        }
        return 0;
}

int debug_file_find(ElfFile **ret, char **ret_path, ElfFile *binary, int root_fd)
{
        Place place = {.root_fd = root_fd};
        ElfFile *found = NULL;
        char *path = NULL;
        int r;

        if (place_init(&place, binary)) {
                r = open_by_build_id(&found, &path, &place, binary->build_id);
                if (r == 0 && !found)
                        r = open_by_link(&found, &path, binary, &place);
                if (r)
                        return error_trace(r);
        }
        *ret = found;
        *ret_path = path;
        return 0;
}

int debug_file_find_alt(ElfFile **ret, ElfFile *debug, const char *path, int root_fd)
{
        char build_id[2 * BUILD_ID_MAX + 1] = "";
        size_t n_name;
        Elf_Data *data = link_section(debug, ".gnu_debugaltlink", &n_name);
        const char *name = data ? data->d_buf : NULL;
        const char *slash = path ? strrchr(path, '/') : NULL;
        _cleanup_(freep) char *joined = NULL;
        Place place = {.root_fd = root_fd};
        ElfFile *found = NULL;
        size_t n_id = data ? data->d_size - n_name - 1 : 0;
        int r;

        if (place_init(&place, debug) && n_id > 0 && n_id <= BUILD_ID_MAX) {
                for (size_t i = 0; i < n_id; i++)
                        sprintf(build_id + 2 * i, "%02x", (unsigned char)name[n_name + 1 + i]);
                r = open_by_build_id(&found, NULL, &place, build_id);
                if (r)
                        return error_trace(r);
                /* Relative to the directory of the file that it stands in. */
                if (!found && (name[0] == '/' || slash)) {
                        if (asprintf(&joined, "%.*s%s",
                                    name[0] == '/' ? 0 : (int)(slash - path + 1), path ? path : "",
                                    name) < 0) {
                                joined = NULL;
                                return error_origin(-ENOMEM);
                        }
                        r = open_matching(&found, &place, joined, build_id, NULL);
                        if (r)
                                return error_trace(r);
                }
        }
        *ret = found;
        return 0;
}

/* Return: LZMA_STREAM_END when all was unpacked. */
static lzma_ret unpack(lzma_stream *stream, uint8_t **out, size_t *ret_size)
{
        size_t size = 1 << 16;
        lzma_ret r = lzma_stream_decoder(stream, LZMA_MEMORY_MAX, 0);

        for (; r == LZMA_OK && size <= UNPACKED_MAX; size *= 2) {
                uint8_t *larger = realloc(*out, size);

                if (!larger)
                        return LZMA_MEM_ERROR;
                *out = larger;
                stream->next_out = larger + stream->total_out;
                stream->avail_out = size - stream->total_out;
                r = lzma_code(stream, LZMA_FINISH);
        }
        *ret_size = stream->total_out;
        return r;
}

int debug_file_unpack(ElfFile **ret, ElfFile *binary)
{
        lzma_stream stream = LZMA_STREAM_INIT;
        GElf_Shdr shdr;
        Elf_Scn *scn = elf_file_section(binary, ".gnu_debugdata", &shdr);
        Elf_Data *data = scn && shdr.sh_size <= UNPACKED_MAX ? elf_rawdata(scn, NULL) : NULL;
        uint8_t *bytes = NULL;
        ElfFile *found = NULL;
        size_t size;
        lzma_ret unpacked;
        int r;

        if (data && data->d_buf) {
                stream.next_in = data->d_buf;
                stream.avail_in = data->d_size;
                unpacked = unpack(&stream, &bytes, &size);
                lzma_end(&stream);
                if (unpacked == LZMA_STREAM_END) {
                        r = elf_file_new_memory(&found, TAKE_PTR(bytes), size);
                        if (r < 0)
                                return error_trace(r);
                }
                free(bytes);
        }
        *ret = found;
        return 0;
}
