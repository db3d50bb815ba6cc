/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"
#include "store/database.h"

/* What is there is of no use. */

#define MIB (1 << 20)

static Stack *stack;

static void setup(void)
{
        store_setup();
        stack = stack_of("main", "a");
}

static void teardown(void)
{
        store_teardown();
        cr_expect_eq(stack->n_refs, 1);
        stack_unref(stack);
}

TestSuite(broken, .init = setup, .fini = teardown);

static void write_file(const char *name, const void *bytes, size_t size, off_t at)
{
        int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        cr_assert_geq(fd, 0);
        cr_assert_eq(pwrite(fd, bytes, size, at), (ssize_t)size);
        close(fd);
}

static void make_database_of(size_t n_snapshots)
{
        store_begin(64 * MIB);
        record_run(1, 10, n_snapshots, stack, 0);
        store_end();
}

/* A database with some snapshots, at rest. */
static void make_database(void)
{
        make_database_of(3000);
}

static void expect_begun_anew(const char *error)
{
        char aside[128];
        StoreStatus status;

        store_begin(MIB);
        status = store_status(store);
        cr_expect_str_eq(status.state, "ready");
        cr_expect(strstr(status.error, error), "%s", status.error);
        snprintf(aside, sizeof(aside), "%s.broken", path);
        cr_expect_eq(access(aside, F_OK), 0);
        cr_expect_str_eq(restored, "");
        store_end();
        make_database();
        store_begin(MIB);
        cr_expect_str_eq(store_status(store).error, "");
}

static void expect_memory(const char *error)
{
        StoreStatus status = store_status(store);

        cr_expect_str_eq(status.state, "memory");
        cr_expect(strstr(status.error, error), "%s", status.error);
        cr_expect(!keep->works(keep->userdata));
}

/* What is found after the start. */
static void expect_put_aside(const char *error)
{
        char aside[128];

        snprintf(aside, sizeof(aside), "%s.broken", path);
        load(1);
        cr_expect(!failed, "there is nothing any more");
        cr_expect_eq(n_loaded, 0);
        expect_memory(error);
        cr_expect_eq(access(aside, F_OK), 0);
        cr_expect_neq(access(path, F_OK), 0);
        /* Nor does it take anything more. */
        record(&(KeepRecord){0});
        cr_expect(failed);
        expect_memory(error);
        store_end();
        store_begin(MIB);
        cr_expect_str_eq(store_status(store).state, "ready");
        cr_expect_str_eq(store_status(store).error, "");
        cr_expect_str_eq(restored, "");
}

static void expect_in_memory(const char *error)
{
        store_begin(MIB);
        expect_memory(error);
        cr_expect_lt(keep->load(keep->userdata, 10, NULL, NULL), 0);
        cr_expect_lt(keep->record(keep->userdata, &(KeepRecord){0}, NULL, NULL), 0);
        keep->task_reported(keep->userdata, "svc", "i", "t");
}

static void execute(const char *sql)
{
        sqlite3 *db;

        cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
        cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
        cr_assert_eq(sqlite3_close(db), SQLITE_OK);
}

Test(broken, no_database)
{
        char text[8192];

        memset(text, 'x', sizeof(text));
        write_file(path, text, sizeof(text), 0);
        expect_begun_anew("begun anew: file is not a database");
}

Test(broken, of_another_program)
{
        execute("CREATE TABLE task (a)");
        expect_begun_anew("begun anew: it is no database of swprofd");
}

Test(broken, newer)
{
        make_database();
        execute("PRAGMA user_version = 99");
        expect_begun_anew("begun anew: it is of a newer swprofd (schema 99, this one knows 2)");
}

Test(broken, damaged)
{
        char zeros[4096 * 4] = {0};

        make_database();
        write_file(path, zeros, sizeof(zeros), 4096 * 3);
        store_begin(MIB);
        expect_put_aside("");
}

Test(broken, without_a_table)
{
        make_database();
        execute("DROP TABLE snapshot");
        expect_begun_anew("begun anew: no such table: snapshot");
}

Test(broken, cut)
{
        make_database();
        cr_assert_eq(truncate(path, 4096 * 5 + 7), 0);
        expect_begun_anew("begun anew: ");
}

static uint64_t pseudo_random(void)
{
        static uint64_t state = 12345;

        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
}

/* Anywhere: it is refused, or used as far as that goes. */
Test(broken, damaged_at_random)
{
        static unsigned char whole[1 << 20], copy[1 << 20];
        int fd;
        ssize_t size;

        make_database();
        fd = open(path, O_RDONLY | O_CLOEXEC);
        size = read(fd, whole, sizeof(whole));
        close(fd);
        cr_assert_gt(size, 4096 * 8);
        for (int n = 0; n < 300; n++) {
                size_t at = pseudo_random() % (size_t)(size - 64), length = pseudo_random() % 64;

                /* Every second time where the head and the schema are. */
                if (n % 2)
                        at %= 4096 - 64;
                memcpy(copy, whole, (size_t)size);
                for (size_t i = 0; i < length; i++)
                        copy[at + i] = (unsigned char)pseudo_random();
                unlink(path);
                write_file(path, copy, (size_t)size, 0);
                store_begin(MIB);
                if (keep->works(keep->userdata)) {
                        load(100);
                        record_run(2, 100000, 10, stack, 0);
                }
                store_end();
        }
}

/* It keeps no other from being read. */
Test(broken, a_damaged_stack)
{
        Stack *other = stack_of("main", "b");

        store_begin(MIB);
        record_run(1, 10, 1, stack, 0);
        record_run(2, 20, 1, other, 0);
        record_run(3, 30, 1, stack, 0);
        store_end();
        execute("UPDATE stack SET text = x'6d' WHERE id = 1");
        store_begin(MIB);
        load(10);
        cr_expect(!failed);
        cr_expect_str_eq(loaded, "1/10@10=?>? 2/20@20=main>b 3/30@30=?>? ");
        cr_expect_eq(other->n_refs, 1);
        stack_unref(other);
}

Test(broken, of_no_length)
{
        write_file(path, "", 0, 0);
        store_begin(MIB);
        cr_expect_str_eq(store_status(store).state, "ready");
        cr_expect_str_eq(store_status(store).error, "");
}

Test(broken, no_directory)
{
        cr_assert_eq(rmdir(dir), 0);
        write_file(dir, "", 0, 0);
        expect_in_memory("unable to open database file");
}

Test(broken, a_directory_in_its_place)
{
        cr_assert_eq(mkdir(path, 0700), 0);
        expect_in_memory("unable to open database file");
}

Test(broken, a_link_in_its_place)
{
        char target[128];

        make_database();
        snprintf(target, sizeof(target), "%s/elsewhere", dir);
        cr_assert_eq(rename(path, target), 0);
        cr_assert_eq(symlink(target, path), 0);
        expect_in_memory("");
}

Test(broken, in_use)
{
        Store *first;

        store_begin(MIB);
        first = store;
        store = NULL;
        expect_in_memory("database is locked");
        store_end();
        store_free(first);
        store_begin(MIB);
        cr_expect_str_eq(store_status(store).state, "ready");
}

/* Damage that is found while it runs: nothing more is kept, and the reader is told. */
Test(broken, damaged_while_it_runs)
{
        static char garbage[2 * MIB];

        /* More than its cache holds. */
        make_database_of(200000);
        store_begin(64 * MIB);
        memset(garbage, 0xa5, sizeof(garbage));
        write_file(path, garbage, sizeof(garbage), 4096);
        load(200000);
        expect_put_aside("");
}

/* One that is large is used before all of it was looked at. */
Test(broken, damaged_and_large)
{
        static char text[32 << 10], garbage[64 << 10];
        uint64_t begin_ns;

        store_begin(64 * MIB);
        memset(text, 'x', sizeof(text) - 1);
        for (int i = 0; i < 240; i++) {
                Stack *large;

                snprintf(text, 8, "%07d", i);
                text[7] = 'x';
                large = stack_of("main", text);
                record_run(1 + (uint64_t)i, 1000 + (uint64_t)i * 10, 2, large, 0);
                stack_unref(large);
        }
        store_end();
        memset(garbage, 0xa5, sizeof(garbage));
        write_file(path, garbage, sizeof(garbage), 6 * MIB);
        store_begin(64 * MIB);
        begin_ns = mono_now_ns();
        while (strcmp(store_status(store).state, "ready") == 0) {
                cr_assert_lt(mono_now_ns(), begin_ns + 60 * NS_PER_S, "it was not found");
                load(1);
        }
        expect_put_aside("");
}

static bool stops;
static unsigned n_asked;

static bool on_stop(void *userdata)
{
        n_asked++;
        return stops;
}

Test(broken, a_check_that_is_stopped)
{
        char *error;
        Database *d;
        uint64_t at = 0;

        make_database();
        cr_assert_eq(database_open(&d, &database_spool, path, MIB, &error), 0);
        while (database_read_ahead(d, &at))
                ;
        cr_expect_geq(at, database_bytes(d));
        stops = true;
        cr_expect_eq(database_check(d, on_stop, NULL), 0);
        cr_expect_eq(n_asked, 1);
        stops = false;
        cr_expect_eq(database_check(d, on_stop, NULL), 0);
        cr_expect_gt(n_asked, 2);
        database_close(d);
}
