# SPDX-License-Identifier: Apache-2.0
"""What `regenerate` records."""

import dataclasses
import pathlib
import re
import subprocess

PROGRAMS = pathlib.Path(__file__).resolve().parent / "programs"
WORK = pathlib.Path("/tmp/swprofd-replay")  # always the same: names of files are in the recordings

PAUSE, READ, FUTEX, CLOCK_NANOSLEEP = 34, 0, 202, 230   # system calls
LIBC, LIBCRYPTO = "libc.so.6", "libcrypto.so.3"


@dataclasses.dataclass
class Case:
    """One recording. `build`: commands, in WORK. `run`: the program and its arguments.
    Asleep: the program is recorded where it sleeps in that system call (number), by itself;
    else gdb brings it to each of `stops`, a list of commands or a function that returns it after
    the build. `end`: what unwinding must come to; `last`: the last frame that it can give, with
    what else ends there."""
    name: str
    build: list
    run: list
    asleep: int = PAUSE
    stops: list = None
    end: str = "done"
    last: str = None
    thread: bool = False        # the second thread, not the first
    count: int = 1              # recordings of the sleeping thread
    installed: str = None       # by the build, outside of WORK: to be removed


def cc(output, sources, *args, compiler="gcc"):
    """The command that builds a program."""
    return [compiler, "-o", output, *[PROGRAMS / name for name in sources.split()], *args]


O2 = ["-O2", "-fomit-frame-pointer"]
STATIC = ["-static", "-no-pie"]     # where nothing speaks against it: the recordings are smaller
SHARED = ["-shared", "-fPIC", "-fvisibility=hidden"]
LAZY = ["-Wl,-z,lazy", "-fcf-protection=none", "-no-pie"]
IBT = ["-Wl,-z,lazy", "-Wl,-z,ibtplt", "-fcf-protection=full", "-pie"]
DEBUG_FRAME = [*O2, "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]


def frames(name, shape, *args, **options):
    """A case of frames.c."""
    program = f"frames-{name}" if args else "frames"
    return Case(name, [cc(program, "frames.c", *(args or [*O2, *STATIC]))], [f"./{program}", shape],
                **options)


def throws(name, shape, *args, **options):
    program = f"throws-{name}" if args else "throws"
    return Case(name, [cc(program, "throws.cc", *O2, *(args or STATIC), compiler="g++")],
                [f"./{program}", shape], **options)


def by_hand(shape, **options):
    return Case(f"by-hand-{shape}", [cc("by-hand", "by-hand.c by-hand.S", *O2, *STATIC)],
                ["./by-hand", shape], **options)


def calls(name, what, *stops):
    """A case of calls.c, stopped on the way by gdb."""
    return Case(name, [cc("calls", "calls.c", *O2, "-lcrypto")], ["./calls", what], stops=list(stops))


def stub(name, *args, stops=None):
    """At each instruction of what the linker puts between the call and the function, up to the
    dynamic linker, which binds this first call. The C library is there for gdb to know of that."""
    return Case(name, [cc("library.so", "library.c", *O2, *SHARED),
                       cc(f"stub-{name}", "stub.c", *O2, *args, "-nostdlib", "./library.so",
                          "-Wl,--no-as-needed", "-lc")],
                [f"./stub-{name}"],
                stops=stops or [["break *'library_function@plt'", "run"], *[["stepi"]] * 6])


def loads(name, *args, **options):
    return Case(name, [cc("loads", "loads.c", *O2), cc("library.so", "library.c", *O2, *SHARED)],
                ["./loads", "./library.so", *args], **options)


# ---- places in the code ----

def library(name):
    return pathlib.Path("/lib/x86_64-linux-gnu", name).resolve()


def readelf(*args):
    return subprocess.run(["readelf", "-W", *args], check=True, text=True, stdout=subprocess.PIPE).stdout


def section(path, name):
    """The addresses of a section."""
    found = re.search(rf" {re.escape(name)} +PROGBITS +(\w+) \w+ (\w+)", readelf("-S", path))
    start, size = (int(n, 16) for n in found.groups())
    return range(start, start + size)


def rows(path, register):
    """Addresses of the code whose frames lie relative to that register ("exp": an expression),
    without the PLT, whose stubs have one, too."""
    text = readelf("--debug-dump=frames-interp,no-follow-links", path)
    plt = section(path, ".plt")
    found = [(int(address, 16), rule) for address, rule in re.findall(r"^([0-9a-f]{16}) (\w+)", text, re.M)]
    return [address for address, rule in found if rule == register and address not in plt]


def at_rows(name, register):
    """gdb's commands: run on to the first code with such a row."""
    return lambda: [f"python stop_at('{name}', {rows(library(name), register)})"]


def at_plt(program):
    """The same, to the first stub of a static program."""
    return lambda: ["starti", f"python stop_at('{program}', {list(section(WORK / program, '.plt'))[::16]})"]


# ---- unwind information in a separate file ----

BUILD_ID = "5377707266640000000000000000000000000001"
BY_BUILD_ID = f"/usr/lib/debug/.build-id/{BUILD_ID[:2]}/{BUILD_ID[2:]}.debug"
BY_LINK = f"/usr/lib/debug{WORK}/frames-debug-link.debug"


def separate(name, path, *args, link=False):
    program = f"frames-{name}"
    build = [cc(program, "frames.c", *DEBUG_FRAME, *STATIC, *args),
             ["objcopy", "--only-keep-debug", program, "debug"],
             ["install", "-D", "-m", "644", "debug", path],
             ["strip", program]]
    if link:
        build.append(["objcopy", f"--add-gnu-debuglink={path}", program])
    return Case(name, build, [f"./{program}", "plain"], installed=path)


MAIN = ["break main", "run"]

CASES = [
    frames("plain-o2", "plain", *O2, count=3),
    frames("plain-o0", "plain", "-O0"),
    frames("plain-o1-no-pie", "plain", "-O1", "-no-pie"),
    frames("plain-static-pie", "plain", *O2, "-static-pie"),
    frames("plain-static", "plain"),
    frames("registers", "registers"),
    frames("variable", "variable"),
    frames("realigned", "realigned"),
    frames("tail", "tail"),
    frames("ends-with-call", "ends-with-call"),
    frames("split", "split"),
    frames("sort", "sort"),
    frames("deep", "deep", end="truncated"),
    frames("large", "large", end="truncated"),
    frames("spawn", "spawn", stops=[["catch vfork", "run"]]),
    frames("generated", "generated"),
    # At each instruction of it, without the call, which would not return.
    frames("generated-steps", "generated", stops=[["break generated", "run", "python step_to_generated()"],
                                                  *[["stepi"]] * 3, ["set $pc = $pc + 2"],
                                                  ["stepi"]]),
    frames("thread", "thread", thread=True),
    frames("thread-joins", "thread", asleep=FUTEX),
    frames("signal-raised", "raised"),
    frames("signal-fault", "fault"),
    frames("signal-wild", "wild", end="no-mapping", last="__restore_rt"),
    frames("signal-altstack", "altstack"),

    frames("debug-frame", "plain", *DEBUG_FRAME, *STATIC),
    separate("debug-build-id", BY_BUILD_ID, f"-Wl,--build-id=0x{BUILD_ID}"),
    separate("debug-link", BY_LINK, "-Wl,--build-id=none", link=True),

    throws("throw-destructor", "destructor", "-pie"),
    throws("throw-rethrown", "rethrown"),
    throws("throw-handler", "handler"),
    throws("throw-terminated", "terminated"),
    throws("throw-personality", "destructor", stops=[["break __gxx_personality_v0", "run"]]),
    throws("throw-sorted", "sorted"),
    throws("throw-thunk", "thunk"),

    by_hand("no-cfi", end="no-cfi", last="by_hand_no_cfi"),
    by_hand("deref"),
    by_hand("register"),
    by_hand("copy"),
    by_hand("value"),
    by_hand("restore"),
    by_hand("state"),
    by_hand("advance"),

    stub("plt-lazy", *LAZY),
    stub("plt-ibt", *IBT),
    frames("plt-static", "plain", stops=[at_plt("frames")]),
    stub("resolver", *LAZY, stops=[["break start", "run", "break _dl_fixup", "continue"]]),
    calls("vdso", "clock", [*MAIN, "break *__vdso_clock_gettime", "continue"], ["stepi 20"]),
    calls("longjmp", "longjmp", MAIN, at_rows(LIBC, "rdi")),
    calls("setcontext", "setcontext", MAIN, at_rows(LIBC, "rdx")),
    # Frames relative to other registers than rsp and rbp, or to what is in memory.
    calls("crypto", "crypto", MAIN, *[at_rows(LIBCRYPTO, row) for row in ("rax", "exp", "rsi", "r11")]),

    loads("loaded"),
    # gdb has to read the library before it is deleted.
    loads("loaded-deleted", "deleted",
          stops=[["break unlink", "run", "frame view $rsp library_call"], ["break pause", "continue"]]),

    *[Case(f"rust-{shape}", [["rustc", "-O", "-o", "sleeps-rs", PROGRAMS / "sleeps.rs"]],
           ["./sleeps-rs", shape]) for shape in ("panic", "closure")],
    Case("go", [["go", "build", "-o", "sleeps-go", PROGRAMS / "sleeps.go"]], ["./sleeps-go"], asleep=READ),

    Case("go-stacks", [["go", "build", "-o", "stacks-go", PROGRAMS / "stacks.go"]], ["./stacks-go"],
         stops=[["handle SIGURG SIGUSR1 nostop noprint pass", "set environment GODEBUG asyncpreemptoff=1",
                 f"set environment STACK {what}", "delete", "break main.main", "run", f"python break_here({where!r})", "continue"]
                for what, where in (("large", "runtime.(*mheap).allocSpan"), ("deep", "runtime.newstack"),
                                    ("raise", "runtime.sigtrampgo"), ("clock", "*__vdso_clock_gettime"))]),

    Case("debian-sleep", [], ["/bin/sleep", "1000"], asleep=CLOCK_NANOSLEEP),
]
