# SPDX-License-Identifier: Apache-2.0
"""A real SkyWalking OAP 10.1.0: its jars, by Maven, once; a server of one's own, with H2 in its memory or a
PostgreSQL of its own.

    with RealOap(folder) as oap:
        task = oap.create_task("svc", "/slow")
        ... give oap.grpc_address to the daemon ...

Needs Java 17 and Maven of Debian. The jars (130 MB) are kept in a folder of $SWPROFD_TEST_CACHE; by default that is
/var/cache/swprofd-tests. By hand: see the program real-oap beside this.
"""

import ctypes
import fcntl
import hashlib
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peer"))

from peer.client import Client, OapError, wait_until  # noqa: E402

POM = HERE / "pom.xml"
CACHE = pathlib.Path(os.environ.get("SWPROFD_TEST_CACHE", "/var/cache/swprofd-tests"))
POSTGRESQL = pathlib.Path("/usr/lib/postgresql/15/bin")
START_S = 240   # 10 to 30 on a machine that has nothing else to do
PR_SET_PDEATHSIG = 1
# The server does not start without these, whatever is in them.
EMPTY = {
    "alarm-settings.yml": "{}\n",
    "component-libraries.yml": "{}\n",
    "endpoint-name-grouping.yml": "{}\n",
    "gateways.yml": "{}\n",
    "service-apdex-threshold.yml": "{}\n",
    "trace-sampling-policy-settings.yml": "default:\n  rate: 10000\n  duration: -1\n",
    "oal/core.oal": "// no metrics\n",
    "oal/disable.oal": "// nothing\n",
    "openapi-definitions/none": "",
}


class Missing(Exception):
    """What cannot be had here, and so no OAP."""


def _with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def jars():
    """Return: the folder with the jars, which are fetched if they are not there. Raise Missing."""
    if not shutil.which("java"):
        raise Missing("there is no Java: packaging/setup real-oap installs it")
    folder = CACHE / f"oap-{hashlib.sha256(POM.read_bytes()).hexdigest()[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "w")
    except OSError as e:
        raise Missing(f"the jars have no place: {e}") from e
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = folder / "complete"
        if not complete.exists():
            if not shutil.which("mvn"):
                raise Missing("there is no Maven to fetch the jars by: packaging/setup real-oap installs it")
            fetched = subprocess.run(
                ["mvn", "-q", "-B", "-f", POM, "dependency:copy-dependencies",
                 f"-DoutputDirectory={folder}/libs"], stdin=subprocess.DEVNULL, text=True, capture_output=True)
            if fetched.returncode != 0:
                lines = (fetched.stdout + fetched.stderr).strip().splitlines() or [""]
                raise Missing(f"Maven cannot fetch the jars: {lines[0]}")
            complete.touch()
    return folder / "libs"


class _Process:
    """One that ends with us."""

    def __init__(self, command, log, **kwargs):
        self.log = pathlib.Path(log)
        with open(log, "ab") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            preexec_fn=_with_parent, **kwargs)

    def check(self):
        if self.process.poll() is not None:
            raise OapError(f"{self.process.args[0]} ended with {self.process.returncode}:\n"
                           + self.log.read_text(errors="replace")[-3000:])

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Postgresql:
    """A server with an empty database `skywalking`. It does not run as root."""

    def __init__(self):
        if not (POSTGRESQL / "postgres").exists():
            raise Missing("there is no PostgreSQL 15: packaging/setup real-oap installs it")
        self.folder = None
        self.user = {}
        if os.getuid() == 0:
            try:
                owner = pwd.getpwnam("postgres")
            except KeyError as e:
                raise Missing("there is no user postgres to run PostgreSQL as") from e
            self.user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self.port, = _free_ports(1)
        self.server = None

    def _run(self, name, *args):
        done = subprocess.run([POSTGRESQL / name, *map(str, args)], cwd="/", text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, **self.user)
        if done.returncode != 0:
            raise OapError(f"{name}: {done.stdout}{done.stderr}")

    def _answers(self):
        self.server.check()
        try:
            self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", self.port)
        except OapError:
            return False
        return True

    def start(self, log):
        # Not in a folder of the test, which is its owner's alone.
        self.folder = tempfile.TemporaryDirectory(prefix="swprofd-postgresql.")
        data = pathlib.Path(self.folder.name) / "data"
        if self.user:
            os.chown(self.folder.name, self.user["user"], self.user["group"])
        self._run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "-N")
        self.server = _Process([POSTGRESQL / "postgres", "-D", data, "-p", str(self.port),
                                "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
                                "-c", "fsync=off"], log, cwd="/", **self.user)
        wait_until(self._answers, 60, 0.2)
        self._run("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "postgres", "skywalking")

    def stop(self):
        if self.server:
            self.server.stop(signal.SIGINT)
        if self.folder:
            self.folder.cleanup()


class RealOap(Client):
    """`tls`: files of its certificate, its key, and the authority of the clients' ones (None: they need none).
    Raise Missing where it cannot be had."""

    def __init__(self, folder, *, storage="h2", token=None, tls=None, grpc_port=None, rest_port=None):
        self._libs = jars()
        self._folder = pathlib.Path(folder)
        ports = _free_ports(2)
        grpc_port, rest_port = grpc_port or ports[0], rest_port or ports[1]
        self.grpc_address = f"127.0.0.1:{grpc_port}"
        super().__init__(f"127.0.0.1:{rest_port}")
        self._postgresql = Postgresql() if storage == "postgresql" else None
        self._env = {"OAP_GRPC_PORT": str(grpc_port), "OAP_REST_PORT": str(rest_port), "OAP_STORAGE": storage}
        if self._postgresql:
            self._env["OAP_JDBC_URL"] = f"jdbc:postgresql://127.0.0.1:{self._postgresql.port}/skywalking"
        if token:
            self._env["OAP_TOKEN"] = token
        if tls:
            certificate, key, ca = tls
            self._env |= {"OAP_TLS": "true", "OAP_TLS_CERTIFICATE": str(certificate), "OAP_TLS_KEY": str(key),
                          "OAP_TLS_CLIENT_CA": str(ca or "")}
        self._server = None

    def _write_config(self):
        config = self._folder / "config"
        for name, text in EMPTY.items():
            (config / name).parent.mkdir(parents=True, exist_ok=True)
            (config / name).write_text(text)
        for name in ("application.yml", "log4j2.xml"):
            shutil.copy(HERE / name, config)
        return config

    def _answers(self):
        self._server.check()
        try:
            return self.version()
        except OapError:
            return None

    def start(self):
        """Return when GraphQL answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            if self._postgresql:
                self._postgresql.start(self._folder / "postgresql.log")
            self._server = _Process(
                ["java", "-Xms256m", "-Xmx1g", "-XX:TieredStopAtLevel=1", "-cp",
                 f"{self._write_config()}:{self._libs}/*",
                 "org.apache.skywalking.oap.server.starter.OAPServerStartUp"],
                self._folder / "oap.log", cwd=self._folder, env={**os.environ, **self._env})
            wait_until(self._answers, START_S, 0.5)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        if self._server:
            self._server.stop()
        if self._postgresql:
            self._postgresql.stop()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
