/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/watch-page.h"
#include "util/cleanup.h"
#include "util/error.h"

static size_t page_size(void)
{
        return (size_t)sysconf(_SC_PAGESIZE);
}

int watch_page_init(WatchPage *ret, uint64_t generation, int *ret_fd)
{
        _cleanup_(closep) int fd = memfd_create("swprofd-watch", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        WatchPage page;

        if (fd < 0)
                return error_origin(-errno);
        if (ftruncate(fd, (off_t)page_size()) < 0)
                return error_origin(-errno);
        page.word = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page.word == MAP_FAILED)
                return error_origin(-errno);
        watch_page_set(&page, generation);
        /* From here on nobody can map it writable any more; our mapping stays as it is. */
        if (fcntl(fd, F_ADD_SEALS,
                    F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
                int r = -errno;

                watch_page_deinit(&page);
                return error_origin(r);
        }
        *ret = page;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

void watch_page_deinit(WatchPage *p)
{
        if (!p->word)
                return;
        watch_page_set(p, WATCH_PAGE_CLOSED);
        munmap((void *)p->word, page_size());
        p->word = NULL;
}
