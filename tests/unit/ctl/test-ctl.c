/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.pb-c.h"
#include "control/server.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "version.h"

/* Runs the program against a control server in the test process. */

static char dir[64], path[96];
static Config config;
static sd_event *event;
static ControlServer *server;
static bool handler_fails;
static char *service = (char *)"shop";
static char *task_endpoint = (char *)"/cart";
static char *capture_reason = (char *)"the kernel has no bpf_task_from_pid";

static void fill_status(ControlCall *call)
{
        Swprof__Control__Capture capture = SWPROF__CONTROL__CAPTURE__INIT;
        Swprof__Control__Oap oap = SWPROF__CONTROL__OAP__INIT;
        Swprof__Control__Store store = SWPROF__CONTROL__STORE__INIT;
        Swprof__Control__Store local = SWPROF__CONTROL__STORE__INIT;
        Swprof__Control__Instance instance = SWPROF__CONTROL__INSTANCE__INIT;
        Swprof__Control__Task task = SWPROF__CONTROL__TASK__INIT;
        Swprof__Control__Slot slot = SWPROF__CONTROL__SLOT__INIT;
        Swprof__Control__Counter counter = SWPROF__CONTROL__COUNTER__INIT;
        Swprof__Control__Status status = SWPROF__CONTROL__STATUS__INIT;
        Swprof__Control__Reply reply = SWPROF__CONTROL__REPLY__INIT;
        int32_t pids[] = {41, 42};

        capture.backend = (char *)"bpf/iter";
        capture.reason = capture_reason;
        capture.unwind = (char *)"dwarf";
        capture.targets = 4000000000U;
        store.path = (char *)"/var/lib/swprofd/swprofd.db";
        store.state = (char *)"failing";
        store.error = (char *)"disk full";
        store.bytes = 123456;
        store.snapshots = 7;
        local.path = (char *)"/var/lib/swprofd/local.db";
        local.state = (char *)"memory";
        local.bytes = 4096;
        oap.server = (char *)"oap:11800";
        oap.state = (char *)"failing";
        oap.error = (char *)"connection refused";
        oap.last_success_ms_ago = 7384000;
        oap.buffered_snapshots = 12;
        instance.service = service;
        instance.instance = (char *)"shop@1";
        instance.language = (char *)"c";
        instance.clients = 2;
        instance.pids = pids;
        instance.n_pids = 2;
        instance.live_segments = 3;
        task.id = (char *)"t1";
        task.service = service;
        task.instance = (char *)"shop@1";
        task.endpoint = task_endpoint;
        task.state = (char *)"running";
        task.start_wall_ms = 1700000000123;
        task.end_wall_ms = 1700000300123;
        task.remaining_ms = -5;
        task.threshold_ms = 100;
        task.period_ms = 10;
        task.max_sampling_count = 5;
        task.delivered_segments = 1;
        task.slots_used = 2;
        task.pending_segments = 1;
        task.matched_segments = UINT64_MAX;
        slot.task = (char *)"t1";
        slot.segment = (char *)"s1";
        slot.pid = 41;
        slot.tid = 43;
        slot.state = (char *)"profiling";
        slot.age_ms = 350;
        slot.captured = 35;
        slot.sent = 30;
        slot.on_cpu_ns = 1250000;
        slot.run_queue_ns = 90000;
        slot.blocked_ns = 348660000;
        counter.name = (char *)"samples_due";
        counter.value = 99;
        counter.help = (char *)"Samples that fell due.";
        status.version = (char *)"9.8.7";
        status.pid = 17;
        status.uptime_ms = 7500000;
        status.config_file = (char *)"/etc/swprofd/swprofd.yaml";
        status.span_socket = (char *)"/run/swprofd/span.sock";
        status.capture = &capture;
        status.oap = &oap;
        status.store = &store;
        status.local = &local;
        status.n_instances = status.n_tasks = status.n_slots = status.n_counters = 1;
        status.instances = (Swprof__Control__Instance *[]){&instance};
        status.tasks = (Swprof__Control__Task *[]){&task};
        status.slots = (Swprof__Control__Slot *[]){&slot};
        status.counters = (Swprof__Control__Counter *[]){&counter};
        reply.result_case = SWPROF__CONTROL__REPLY__RESULT_STATUS;
        reply.status = &status;
        control_call_respond(call, &reply);
}

static void on_request(void *userdata, ControlCall *call, const Swprof__Control__Request *request)
{
        Swprof__Control__Empty done = SWPROF__CONTROL__EMPTY__INIT;
        Swprof__Control__Reply reply = SWPROF__CONTROL__REPLY__INIT;

        if (!control_call_peer(call)->trusted) {
                control_call_fail(
                        call, "only root and the members of the control group may ask", true);
        } else if (handler_fails) {
                control_call_fail(call, "swprofd.yaml:3:1: unknown\x1b key", false);
        } else if (request->verb_case == SWPROF__CONTROL__REQUEST__VERB_RELOAD) {
                reply.result_case = SWPROF__CONTROL__REPLY__RESULT_DONE;
                reply.done = &done;
                control_call_respond(call, &reply);
        } else {
                fill_status(call);
        }
}

static const ControlOps ops = {.request = on_request};

static void setup(void)
{
        strcpy(dir, "/tmp/test-ctl.XXXXXX");
        cr_assert_not_null(mkdtemp(dir));
        cr_assert_eq(chmod(dir, 0755), 0);
        snprintf(path, sizeof(path), "%s/control.sock", dir);
        setenv("SWPROFD_CONTROL", path, 1);
        setenv("TZ", "UTC", 1);
        log_set_max_level(LOG_EMERG);
        config = (Config){.control_socket = path};
        cr_assert_geq(sd_event_new(&event), 0);
        cr_assert_eq(control_server_new(&server, event, -1, &config, &ops, NULL), 0);
}

static void teardown(void)
{
        server = control_server_free(server);
        event = sd_event_unref(event);
        rmdir(dir);
}

TestSuite(ctl, .init = setup, .fini = teardown, .timeout = 60);

static char out[65536], err[65536];

static void slurp(int fd, char *text, size_t size)
{
        ssize_t n = pread(fd, text, size - 1, 0);

        cr_assert_geq(n, 0);
        text[n] = '\0';
        close(fd);
}

static int on_child(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        *(bool *)userdata = true;
        return 0;
}

/* Runs `sh -c command`, in which "swprofctl" is the program. Fills out and err. Return: the exit
 * status. */
static int run(const char *command)
{
        char shell[1024];
        const char *argv[] = {"sh", "-c", shell, NULL};
        posix_spawn_file_actions_t actions;
        int out_fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        int err_fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        int pidfd, status;
        sd_event_source *source;
        bool done = false;
        pid_t pid;

        snprintf(shell, sizeof(shell), "swprofctl() { '%s' \"$@\"; }; %s", getenv("SWPROFCTL"),
                command);
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, out_fd, STDOUT_FILENO);
        posix_spawn_file_actions_adddup2(&actions, err_fd, STDERR_FILENO);
        cr_assert_eq(posix_spawn(&pid, "/bin/sh", &actions, NULL, (char **)argv, environ), 0);
        posix_spawn_file_actions_destroy(&actions);
        pidfd = pidfd_open(pid, 0);
        cr_assert_geq(sd_event_add_io(event, &source, pidfd, EPOLLIN, on_child, &done), 0);
        while (!done)
                cr_assert_geq(sd_event_run(event, UINT64_MAX), 0);
        sd_event_source_disable_unref(source);
        close(pidfd);
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert(WIFEXITED(status));
        slurp(out_fd, out, sizeof(out));
        slurp(err_fd, err, sizeof(err));
        return WEXITSTATUS(status);
}

static void expect_out(const char *text)
{
        cr_assert(strstr(out, text), "'%s' is not in:\n%s", text, out);
}

static void expect_err(const char *text)
{
        cr_assert_str_empty(out);
        cr_assert(strstr(err, text), "'%s' is not in:\n%s", text, err);
}

Test(ctl, json_golden)
{
        char golden[sizeof(out)];
        int fd = open(getenv("GOLDEN"), O_RDONLY | O_CLOEXEC);

        cr_assert_geq(fd, 0);
        slurp(fd, golden, sizeof(golden));
        cr_assert_eq(run("swprofctl --json"), 0);
        cr_assert_str_eq(out, golden);
        cr_assert_str_empty(err);
        cr_assert_eq(run("swprofctl status -j"), 0);
        cr_assert_str_eq(out, golden);
}

Test(ctl, text)
{
        cr_assert_eq(run("swprofctl"), 0);
        cr_assert_str_eq(out,
                "swprofd 9.8.7, pid 17, up 2 h 5 min\n"
                "  config     /etc/swprofd/swprofd.yaml\n"
                "  socket     /run/swprofd/span.sock\n"
                "  capture    bpf/iter: the kernel has no bpf_task_from_pid\n"
                "             unwinds by dwarf, samples 4000000000 threads now\n"
                "  OAP        oap:11800, failing, 12 snapshots waiting\n"
                "             last failure: connection refused\n"
                "  store      /var/lib/swprofd/swprofd.db, failing, 120 KiB, 7 snapshots waiting\n"
                "             last failure: disk full\n"
                "  local      in memory only, nothing outlives a restart\n"
                "  instances  1\n"
                "  tasks      1\n"
                "  slots      1\n"
                "\n"
                "TASK  SERVICE  INSTANCE  ENDPOINT  STATE    START                REMAINING"
                "  THRESHOLD  PERIOD  DELIVERED  SLOTS  PENDING               MATCHED\n"
                "t1    shop     shop@1    /cart     running  2023-11-14 22:13:20       0 ms"
                "     100 ms   10 ms        1/5      2        1  18446744073709551615\n");
        cr_assert_eq(run("swprofctl stats"), 0);
        cr_assert_str_eq(out, "COUNTER      VALUE  MEANING\n"
                              "samples_due     99  Samples that fell due.\n");
        cr_assert_eq(run("swprofctl instances"), 0);
        cr_assert_str_eq(out, "SERVICE  INSTANCE  LANGUAGE  AGENT  CLIENTS  LIVE  PIDS\n"
                              "shop     shop@1    c         no           2     3  41,42\n");
        cr_assert_eq(run("swprofctl tasks"), 0);
        expect_out("/cart");
        cr_assert_eq(run("swprofctl slots"), 0);
        cr_assert_str_eq(out, "TASK  SEGMENT  PID  TID  STATE         AGE  CAPTURED  SENT  ON CPU"
                              "  RUN QUEUE   BLOCKED\n"
                              "t1    s1        41   43  profiling  350 ms        35    30  1.2 ms"
                              "     0.1 ms  348.7 ms\n");
        cr_assert_eq(run("swprofctl reload"), 0);
        expect_out("reloaded");
        cr_assert_eq(run("swprofctl version"), 0);
        cr_assert_str_eq(out, "swprofctl " SWPROFD_VERSION "\nswprofd 9.8.7\n");
        cr_assert_str_empty(err);
}

/* The reason mostly begins with the backend's name already. */
Test(ctl, backend_is_named_once)
{
        capture_reason = (char *)"bpf/iter: captures a sleeping thread";
        cr_assert_eq(run("swprofctl"), 0);
        expect_out("  capture    bpf/iter: captures a sleeping thread\n");
}

Test(ctl, json_views)
{
        cr_assert_eq(run("swprofctl -j stats"), 0);
        cr_assert_eq(strncmp(out, "{\n  \"version\":", 13), 0, "%s", out);
        expect_out("\"value\": 99");
        cr_assert_null(strstr(out, "\"pid\""));
        cr_assert_eq(run("swprofctl -j instances"), 0);
        expect_out("\"live_segments\": 3");
        cr_assert_eq(run("swprofctl -j tasks"), 0);
        expect_out("\"remaining_ms\": -5");
        cr_assert_eq(run("swprofctl -j slots"), 0);
        expect_out("\"tid\": 43");
        cr_assert_eq(run("swprofctl -j reload"), 0);
        expect_out("\"done\"");
        cr_assert_eq(run("swprofctl -j version"), 0);
        expect_out("\"daemon\": \"9.8.7\"");
}

/* What comes from others does not reach the terminal as it is, nor breaks the JSON. */
Test(ctl, foreign_strings)
{
        task_endpoint = (char *)"a\x1b[31m\n\x7f\xff\xc2\x85"
                                "e\xcc\x81\"";
        cr_assert_eq(run("swprofctl tasks"), 0);
        expect_out("  a\\x1b[31m\\x0a\\x7f\\xff\\u0085"
                   "e\xcc\x81\"  ");
        cr_assert_eq(run("swprofctl -j tasks"), 0);
        expect_out("\"endpoint\": \"a\\u001b[31m\\n\x7f\xef\xbf\xbd\xc2\x85"
                   "e\xcc\x81\\\"\"");
}

Test(ctl, failures)
{
        handler_fails = true;
        cr_assert_eq(run("swprofctl reload"), 1);
        expect_err("swprofd: swprofd.yaml:3:1: unknown\\x1b key\n");
        cr_assert_eq(run("swprofctl -j"), 1);
        expect_err("unknown");
        handler_fails = false;
        cr_assert_eq(run("swprofctl > /dev/full"), 1);
        expect_err("cannot write");
}

Test(ctl, not_running)
{
        server = control_server_free(server);
        cr_assert_eq(run("swprofctl"), 3);
        expect_err("systemctl start swprofd");
        cr_assert_eq(run("swprofctl --json tasks"), 3);
        expect_err(path);
        cr_assert_eq(run("swprofctl version"), 0);
        cr_assert_str_eq(out, "swprofctl " SWPROFD_VERSION "\nswprofd (not running)\n");
        cr_assert_eq(run("swprofctl --version --json"), 0);
        expect_out("\"daemon\": null");
        cr_assert_eq(run("swprofctl -s /nonexistent/a.sock"), 3);
        expect_err("/nonexistent/a.sock");
}

/* Listens and never accepts. */
Test(ctl, no_answer)
{
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_un address = {.sun_family = AF_UNIX};

        server = control_server_free(server);
        strcpy(address.sun_path, path);
        cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        cr_assert_eq(listen(fd, 1), 0);
        cr_assert_eq(run("swprofctl -t 1"), 1);
        expect_err("within 1 s");
        close(fd);
        unlink(path);
}

Test(ctl, denied)
{
        if (getuid() != 0)
                cr_skip_test("needs root");
        /* The server has no group here: its socket is root's. */
        cr_assert_eq(run("setpriv --reuid 65534 --regid 65534 --clear-groups $SWPROFCTL"), 5);
        expect_err("be root");
        cr_assert_eq(
                run("setpriv --reuid 65534 --regid 65534 --clear-groups $SWPROFCTL version"), 5);
        cr_assert_str_eq(out, "swprofctl " SWPROFD_VERSION "\nswprofd (unknown)\n");
        cr_assert_eq(chown(path, 0, 4), 0);
        cr_assert_eq(chmod(path, 0660), 0);
        cr_assert_eq(run("setpriv --reuid 65534 --regid 65534 --clear-groups $SWPROFCTL"), 5);
        expect_err("join the group 'adm'");
        cr_assert_eq(chmod(path, 0666), 0);
        cr_assert_eq(run("setpriv --reuid 65534 --regid 65534 --clear-groups $SWPROFCTL"), 5);
        expect_err("swprofd: only root");
}

Test(ctl, usage)
{
        char help[sizeof(out)];

        cr_assert_eq(run("swprofctl --help"), 0);
        strcpy(help, out);
        cr_assert_str_empty(err);
        for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n"))
                cr_assert_leq(strlen(line), 80, "%s", line);
        cr_assert_eq(run("swprofctl -h"), 0);
        cr_assert_str_eq(out, help);
        cr_assert_eq(run("swprofctl help"), 0);
        cr_assert_str_eq(out, help);
        cr_assert_eq(run("swprofctl --nonsense"), 2);
        expect_err("nonsense");
        cr_assert_eq(run("swprofctl nonsense"), 2);
        expect_err("nonsense");
        cr_assert_eq(run("swprofctl stat"), 2);
        cr_assert_eq(run("swprofctl status tasks"), 2);
        expect_err("tasks");
        cr_assert_eq(run("swprofctl -t 0"), 2);
        cr_assert_eq(run("swprofctl -t 1x"), 2);
        expect_err("1x");
        cr_assert_eq(run("swprofctl --help > /dev/full"), 1);
}

Test(ctl, colour_only_on_terminals)
{
        cr_assert_eq(run("swprofctl"), 0);
        cr_assert_null(strchr(out, '\033'));
        cr_assert_eq(run("script -qec \"$SWPROFCTL\" /dev/null"), 0);
        cr_assert_not_null(strchr(out, '\033'));
        cr_assert_eq(run("NO_COLOR=1 script -qec \"$SWPROFCTL\" /dev/null"), 0);
        cr_assert_null(strchr(out, '\033'));
}
