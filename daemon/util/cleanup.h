/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Scope cleanup: `_cleanup_(task_freep) Task *t = NULL;`, handed over with TAKE_PTR(t) or
 * TAKE_FD(fd). */

#define _cleanup_(fn) __attribute__((cleanup(fn)))

/* Defines Tp-cleanup `fnp(T *p)` that calls fn(*p); every destructor here takes NULL and returns
 * NULL. */
#define DEFINE_CLEANUP(type, fn)          \
        static inline void fn##p(type *p) \
        {                                 \
                if (*p)                   \
                        fn(*p);           \
        }

#define TAKE_PTR(p)                        \
        ({                                 \
                __typeof__(p) take_ = (p); \
                (p) = NULL;                \
                take_;                     \
        })

#define TAKE_FD(fd)               \
        ({                        \
                int take_ = (fd); \
                (fd) = -1;        \
                take_;            \
        })

static inline void closep(const int *fd)
{
        if (*fd >= 0)
                close(*fd);
}

static inline void freep(void *p)
{
        free(*(void **)p);
}

static inline void fclosep(FILE **f)
{
        if (*f)
                fclose(*f);
}
