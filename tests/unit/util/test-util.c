/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/hash.h"
#include "util/list.h"
#include "util/log.h"
#include "util/mailbox.h"
#include "util/owner.h"

typedef struct Item {
        HashLink by_key;
        ListLink link;
        unsigned key;
} Item;

Test(hash, add_find_remove)
{
        HashTable t = HASH_TABLE_INIT;
        Item items[1000];

        for (unsigned i = 0; i < 1000; i++) {
                items[i].key = i;
                /* Few distinct hashes: chains are walked, too. */
                cr_assert_eq(hash_table_add(&t, &items[i].by_key, hash_u64(i % 100)), 0);
        }
        cr_assert_eq(t.n, 1000);
        for (unsigned i = 0; i < 1000; i += 2)
                hash_table_remove(&t, &items[i].by_key);
        for (unsigned h = 0; h < 100; h++) {
                unsigned n = 0;

                for (HashLink *l = hash_table_find(&t, hash_u64(h)); l; l = hash_link_next(l)) {
                        Item *item = container_of(l, Item, by_key);

                        cr_assert_eq(item->key % 100, h);
                        cr_assert_eq(item->key % 2, 1);
                        n++;
                }
                cr_assert_eq(n, h % 2 ? 10 : 0);
        }
        hash_table_deinit(&t);
}

Test(list, order_and_removal)
{
        ListLink head = LIST_INIT(head);
        Item items[5], *item, *tmp;
        unsigned expect = 1;

        cr_assert_null(list_first(&head, Item, link));
        for (unsigned i = 0; i < 5; i++) {
                items[i].key = i;
                list_append(&head, &items[i].link);
        }
        list_for_each_safe (item, tmp, &head, link)
                if (item->key % 2 == 0)
                        list_remove(&item->link);
        list_remove(&items[0].link);
        list_for_each (item, &head, link) {
                cr_assert_eq(item->key, expect);
                expect += 2;
        }
        cr_assert_eq(expect, 5);
}

static bool readable(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};

        return poll(&p, 1, 0) == 1;
}

Test(mailbox, full_empty_and_readable)
{
        Mailbox *m;
        int v;

        cr_assert_eq(mailbox_new(&m, sizeof(int), 3), 0);
        cr_assert_eq(mailbox_pop(m, &v), MAILBOX_E_EMPTY);
        cr_assert(!readable(mailbox_fd(m)));
        for (int round = 0; round < 5; round++) {
                for (int i = 0; i < 3; i++)
                        cr_assert_eq(mailbox_push(m, &i), 0);
                v = 3;
                cr_assert_eq(mailbox_push(m, &v), MAILBOX_E_FULL);
                for (int i = 0; i < 3; i++) {
                        cr_assert(readable(mailbox_fd(m)));
                        cr_assert_eq(mailbox_pop(m, &v), 0);
                        cr_assert_eq(v, i);
                }
                cr_assert(!readable(mailbox_fd(m)));
        }
        cr_assert_null(mailbox_free(m));
}

#define N_PUSHED 100000

static void *push_all(void *m)
{
        for (int i = 0; i < N_PUSHED; i++)
                while (mailbox_push(m, &i) == MAILBOX_E_FULL)
                        sched_yield();
        return NULL;
}

Test(mailbox, order_between_threads, .timeout = 60)
{
        Mailbox *m;
        pthread_t thread;
        int v;

        cr_assert_eq(mailbox_new(&m, sizeof(int), 64), 0);
        cr_assert_eq(pthread_create(&thread, NULL, push_all, m), 0);
        for (int i = 0; i < N_PUSHED; i++) {
                struct pollfd p = {.fd = mailbox_fd(m), .events = POLLIN};

                while (mailbox_pop(m, &v) == MAILBOX_E_EMPTY)
                        cr_assert_eq(poll(&p, 1, 30000), 1);
                cr_assert_eq(v, i);
        }
        pthread_join(thread, NULL);
        mailbox_free(m);
}

Test(log, control_characters_and_levels)
{
        char buffer[512] = {0};
        int fds[2], saved = dup(STDERR_FILENO);

        cr_assert_eq(pipe(fds), 0);
        unsetenv("JOURNAL_STREAM");
        dup2(fds[1], STDERR_FILENO);
        log_warning("evil%s", "\n\x1b[31mpeer");
        log_debug("not shown");
        setenv("JOURNAL_STREAM", "1:2", 1);
        log_error("to the journal");
        dup2(saved, STDERR_FILENO);
        cr_assert_gt(read(fds[0], buffer, sizeof(buffer) - 1), 0);
        cr_assert_str_eq(buffer, "swprofd: warning: evil??[31mpeer\n<3>to the journal\n");
        cr_assert_eq(log_level_from_string("debug"), LOG_DEBUG);
        cr_assert_eq(log_level_from_string("loud"), -1);
        close(fds[0]);
        close(fds[1]);
        close(saved);
}

Test(log, limit)
{
        LogLimit l = {.interval_ns = 3600000000000ULL, .burst = 2};
        unsigned suppressed = 7;

        cr_assert(log_limit(&l, &suppressed));
        cr_assert_eq(suppressed, 0);
        cr_assert(log_limit(&l, &suppressed));
        cr_assert(!log_limit(&l, &suppressed));
        cr_assert(!log_limit(&l, &suppressed));
        l.begin_mono_ns = 0;
        cr_assert(log_limit(&l, &suppressed));
        cr_assert_eq(suppressed, 2);
}

/* One that has ended, and is not waited for yet: its files are root's. */
Test(owner, zombie)
{
        siginfo_t info;
        pid_t pid = fork();

        if (pid == 0)
                _exit(0);
        cr_expect_eq(owner_of(getpid(), getuid()), OWNER_SELF);
        cr_expect_eq(owner_of(getpid(), getuid() + 1), OWNER_OTHER);
        cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        cr_expect_eq(owner_of(pid, getuid()), OWNER_GONE);
        cr_assert_eq(waitpid(pid, NULL, 0), pid);
        cr_expect_eq(owner_of(pid, getuid()), OWNER_GONE);
}
