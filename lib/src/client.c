/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"
#include "clock.h"
#include "text.h"
#include "version.h"

/* The word when the daemon has closed the connection, and before there was one. No list has it. */
#define WORD_CLOSED UINT64_MAX

#define BACKOFF_MIN_NS (1 * NS_PER_S)
#define BACKOFF_MAX_NS (60 * NS_PER_S)

/* A daemon that was killed could not close its pages: its sockets tell. */
#define CHECK_INTERVAL_NS (10 * NS_PER_S)

/* Between hello and list. */
#define WELCOME_POLL_NS    (10 * NS_PER_MS)
#define WELCOME_TIMEOUT_NS (10 * NS_PER_S)

/* A daemon that sends without pause must not hold up the span that reads. */
#define PACKETS_PER_LOOK 16

/* While nothing is watched, the clock is read at every so many looks of a thread only. */
#define LOOKS_PER_CLOCK 16

_Static_assert(sizeof(ClientState) <= 4096, "has a page");

static uint64_t load(const _Atomic uint64_t *v)
{
        return atomic_load_explicit(v, memory_order_relaxed);
}

static void store(_Atomic uint64_t *v, uint64_t value)
{
        atomic_store_explicit(v, value, memory_order_relaxed);
}

static size_t page_size(void)
{
        return (size_t)sysconf(_SC_PAGESIZE);
}

/* ---- what spans look at ---- */

/* `word`: all that came before the daemon set the page to that was read. */
static void client_publish(struct swprof *c, uint64_t word, uint64_t next_look_ns)
{
        ClientState *s = c->state;

        atomic_store_explicit(&s->watching, c->list && c->list->n > 0, memory_order_relaxed);
        store(&s->quiet_word, c->list && c->list->n == 0 ? word : 0);
        store(&s->seen_word, word);
        store(&s->next_look_ns, next_look_ns);
}

static void client_set_list(struct swprof *c, WatchList *list)
{
        uint64_t filter[FILTER_WORDS] = {0};

        free(c->list);
        c->list = list;
        for (size_t i = 0; list && i < list->n; i++) {
                uint32_t bit = list->operations[i].hash % (FILTER_WORDS * 64);

                filter[bit / 64] |= UINT64_C(1) << bit % 64;
        }
        for (size_t i = 0; i < FILTER_WORDS; i++)
                store(&c->state->filter[i], filter[i]);
}

bool client_may_watch(struct swprof *c, const char *operation)
{
        uint32_t bit = text_hash(operation, strlen(operation)) % (FILTER_WORDS * 64);

        return load(&c->state->filter[bit / 64]) & UINT64_C(1) << bit % 64;
}

bool client_watches(struct swprof *c, const char *operation)
{
        return c->list && watch_list_has(c->list, operation, strlen(operation));
}

/* ---- the mutex ---- */

/*
 * The connection is the parent's, and so are the spans. Another of its threads may have been at
 * work on the list and the records when it forked: they are left as they are.
 */
static void client_forked(struct swprof *c)
{
        connection_leave(&c->connection);
        c->welcomed = false;
        c->list = NULL;
        c->records = (RecordTable){0};
        c->next_try_ns = 0;
        c->backoff_ns = BACKOFF_MIN_NS;
        c->state->is_owner = true;
}

static void guard_begin(ClientGuard *ret)
{
        ret->error = errno;
        /* A thread that is cancelled in a system call would never release the mutex. */
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &ret->cancel_state);
}

static void guard_end(const ClientGuard *guard)
{
        pthread_setcancelstate(guard->cancel_state, NULL);
        errno = guard->error;
}

void client_lock(struct swprof *c, ClientGuard *ret)
{
        guard_begin(ret);
        pthread_mutex_lock(&c->state->mutex);
        if (!c->state->is_owner)
                client_forked(c);
}

static bool client_trylock(struct swprof *c, ClientGuard *ret)
{
        guard_begin(ret);
        if (pthread_mutex_trylock(&c->state->mutex) != 0) {
                guard_end(ret);
                return false;
        }
        if (!c->state->is_owner)
                client_forked(c);
        return true;
}

void client_unlock(struct swprof *c, const ClientGuard *guard)
{
        pthread_mutex_unlock(&c->state->mutex);
        guard_end(guard);
}

/* ---- the connection ---- */

/* Or the try to make one has failed. */
static void client_disconnect(struct swprof *c)
{
        connection_close(&c->connection);
        c->welcomed = false;
        client_set_list(c, NULL);
        for (size_t i = 0; i < c->records.n; i++)
                c->records.records[i]->told = false;
        c->next_try_ns = clock_coarse_ns() + c->backoff_ns;
        c->backoff_ns = 2 * c->backoff_ns < BACKOFF_MAX_NS ? 2 * c->backoff_ns : BACKOFF_MAX_NS;
        client_publish(c, load(c->word), c->next_try_ns);
}

static void client_connect(struct swprof *c, uint64_t now)
{
        char made[SWPROF_NAME_MAX + 1], host[65] = "";
        WireHello hello = {
                .service = c->service,
                .instance = c->instance,
                .language = c->language,
                .client = "libswprof " SWPROFD_VERSION,
                .agent = c->agent,
        };
        WireBuffer b;

        if (connection_open(&c->connection, &c->address) < 0) {
                client_disconnect(c);
                return;
        }
        if (!hello.instance) {
                if (gethostname(host, sizeof(host) - 1) < 0 || !text_fits(host, sizeof(host) - 1))
                        strcpy(host, "localhost");
                snprintf(made, sizeof(made), "%d@%s", (int)getpid(), host);
                hello.instance = made;
        }
        c->hello_ns = now;
        wire_put_hello(&b, &hello);
        if (connection_send(&c->connection, b.bytes + b.begin, b.end - b.begin) != CONNECTION_DONE)
                client_disconnect(c);
}

/*
 * Puts the daemon's page where the one before it is, while other threads may read it. A file that
 * somebody could shorten is not mapped: reading what is no more would be a SIGBUS. Return: whether
 * it is mapped.
 */
static bool client_map_page(struct swprof *c, int fd)
{
        size_t size = page_size();
        struct stat st;
        int seals = fcntl(fd, F_GET_SEALS);

        if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 ||
                (uint64_t)st.st_size < size)
                return false;
        return mmap((void *)c->word, size, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
}

/* Return: whether the daemon keeps to the protocol and to us. */
static bool client_take_packet(struct swprof *c, size_t size, int fd)
{
        WatchList *list;
        WireReply reply;

        if (!wire_parse(&reply, c->packet, size))
                return false;
        switch (reply.type) {
        case WIRE_NONE:
                return true;
        case WIRE_WELCOME:
                if (c->welcomed || reply.protocol != WIRE_PROTOCOL || fd < 0 ||
                        !client_map_page(c, fd))
                        return false;
                c->welcomed = true;
                return true;
        case WIRE_WATCH:
                list = c->welcomed ? watch_list_new(reply.watch) : NULL;
                if (!list)
                        return false;
                client_set_list(c, list);
                c->backoff_ns = BACKOFF_MIN_NS;
                return true;
        case WIRE_ERROR:
                break;
        }
        return false;
}

bool client_send(struct swprof *c, WireEventType type, const WireEvent *event)
{
        WireBuffer b;

        wire_put_event(&b, type, event);
        if (connection_send(&c->connection, b.bytes + b.begin, b.end - b.begin) == CONNECTION_DONE)
                return true;
        client_disconnect(c);
        return false;
}

bool client_announce(struct swprof *c, Record *record)
{
        WireEventType type = record->parent[0] ? WIRE_CONTINUE : WIRE_START;
        WireEvent event = {
                .segment = record->segment,
                .parent = record->parent,
                .operation = record->operation,
                .tid = record->tid,
                .mono_ns = record->start_mono_ns,
        };
        const Record *parent;
        WireBuffer b;
        int r;

        if (type == WIRE_CONTINUE) {
                parent = record_table_find_segment(&c->records, record->parent);
                if (!parent || !parent->told)
                        return false;
        } else if (!client_watches(c, record->operation)) {
                return false;
        }
        /* A start that is lost costs a profile; a stop that is lost, a wrong one. */
        if (!connection_has_room(&c->connection))
                return false;
        wire_put_event(&b, type, &event);
        r = connection_send(&c->connection, b.bytes + b.begin, b.end - b.begin);
        if (r == CONNECTION_BROKEN)
                client_disconnect(c);
        if (r != CONNECTION_DONE)
                return false;
        record->told = true;
        record->let_go = false;
        return true;
}

/* Those that were live when the daemon went away, if the one that came back wants them. */
static void client_announce_all(struct swprof *c)
{
        for (size_t i = 0; c->list && i < c->records.n; i++)
                if (!c->records.records[i]->told)
                        client_announce(c, c->records.records[i]);
}

/* Reads what there is. */
static void client_read(struct swprof *c, uint64_t now)
{
        const WatchList *before = c->list;
        uint64_t word = 0;
        unsigned i;

        for (i = 0; i < PACKETS_PER_LOOK; i++) {
                size_t size;
                bool good;
                int fd, r;

                /* Before each read: what led to this word is in the socket, or was read. */
                word = atomic_load_explicit(c->word, memory_order_acquire);
                r = connection_receive(&c->connection, c->packet, sizeof(c->packet), &size, &fd);
                if (r == CONNECTION_NOT_NOW)
                        break;
                good = r == CONNECTION_DONE && client_take_packet(c, size, fd);
                if (r == CONNECTION_DONE && fd >= 0)
                        close(fd);
                if (!good) {
                        client_disconnect(c);
                        return;
                }
        }
        if ((c->welcomed && word == WORD_CLOSED) ||
                (!c->list && now > c->hello_ns + WELCOME_TIMEOUT_NS)) {
                client_disconnect(c);
                return;
        }
        client_publish(c, i < PACKETS_PER_LOOK ? word : 0,
                now + (c->list ? CHECK_INTERVAL_NS : WELCOME_POLL_NS));
        if (c->list != before)
                client_announce_all(c);
}

static void client_update(struct swprof *c, uint64_t now)
{
        if (c->connection.fd < 0 && now >= c->next_try_ns)
                client_connect(c, now);
        if (c->connection.fd >= 0)
                client_read(c, now);
}

bool client_look(struct swprof *c)
{
        static __thread unsigned n_looks __attribute__((tls_model("initial-exec")));
        ClientState *s = c->state;
        uint64_t word = load(c->word), now;
        ClientGuard guard;

        if (word == load(&s->quiet_word) && ++n_looks % LOOKS_PER_CLOCK != 0)
                return false;
        now = clock_coarse_ns();
        /* Somebody else who is at it does it for us, too. */
        if ((word != load(&s->seen_word) || now >= load(&s->next_look_ns)) &&
                client_trylock(c, &guard)) {
                client_update(c, now);
                client_unlock(c, &guard);
        }
        return atomic_load_explicit(&s->watching, memory_order_relaxed);
}

/* ---- open and close ---- */

/*
 * Options of a later version of the header that ask for what this version does not know are
 * refused.
 */
static bool options_copy(struct swprof_options *ret, const struct swprof_options *options)
{
        const uint8_t *bytes = (const uint8_t *)options;

        if (!options || options->size < sizeof(*ret))
                return false;
        for (size_t i = sizeof(*ret); i < options->size; i++)
                if (bytes[i] != 0)
                        return false;
        *ret = *options;
        return true;
}

/* Return: 0, -EINVAL. */
static int options_check(struct swprof_options *o)
{
        if (!o->socket_path) {
                o->socket_path = secure_getenv("SWPROFD_SOCKET");
                if (!o->socket_path || !o->socket_path[0])
                        o->socket_path = "/run/swprofd/span.sock";
        }
        if (!o->language)
                o->language = "c";
        if (strlen(o->socket_path) >= sizeof(((struct sockaddr_un *)0)->sun_path) ||
                !o->socket_path[0] || !o->service || !text_fits(o->service, SWPROF_NAME_MAX) ||
                (o->instance && !text_fits(o->instance, SWPROF_NAME_MAX)) ||
                !text_fits(o->language, SWPROF_NAME_MAX))
                return -EINVAL;
        return 0;
}

/* Return: 0, -errno. */
static int client_map(struct swprof *c)
{
        size_t size = page_size();
        uint8_t *pages =
                mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (pages == MAP_FAILED)
                return -errno;
        c->state = (ClientState *)pages;
        c->word = (_Atomic uint64_t *)(pages + size);
        if (madvise(pages, size, MADV_WIPEONFORK) < 0)
                return -errno;
        store(c->word, WORD_CLOSED);
        return 0;
}

/* Return: 0, -errno. */
static int client_init(struct swprof *c, const struct swprof_options *o)
{
        c->connection.fd = -1;
        c->service = strdup(o->service);
        c->instance = o->instance ? strdup(o->instance) : NULL;
        c->language = strdup(o->language);
        c->agent = o->agent != 0;
        c->address.sun_family = AF_UNIX;
        strcpy(c->address.sun_path, o->socket_path);
        if (!c->service || !c->language || (o->instance && !c->instance))
                return -ENOMEM;
        return client_map(c);
}

int swprof_open(struct swprof **ret, const struct swprof_options *options)
{
        struct swprof_options o;
        ClientGuard guard;
        struct swprof *c;
        int r, error = errno;

        if (!ret || !options_copy(&o, options) || options_check(&o) < 0)
                return -EINVAL;
        c = calloc(1, sizeof(*c));
        r = c ? client_init(c, &o) : -ENOMEM;
        if (r < 0) {
                swprof_close(c);
                errno = error;
                return r;
        }
        /* As in the child of a fork, the first to take the mutex makes it ours. */
        client_lock(c, &guard);
        client_update(c, clock_coarse_ns());
        r = c->connection.fd >= 0;
        client_unlock(c, &guard);
        *ret = c;
        return r;
}

struct swprof *swprof_close(struct swprof *c)
{
        ClientGuard guard;

        if (!c)
                return NULL;
        if (c->state) {
                client_lock(c, &guard);
                connection_close(&c->connection);
                client_unlock(c, &guard);
                guard_begin(&guard);
                munmap(c->state, 2 * page_size());
                guard_end(&guard);
        }
        record_table_deinit(&c->records);
        free(c->list);
        free(c->service);
        free(c->instance);
        free(c->language);
        free(c);
        return NULL;
}

const char *swprof_version(void)
{
        return SWPROFD_VERSION;
}
