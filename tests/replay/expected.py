# SPDX-License-Identifier: Apache-2.0
"""Sourced by gdb: what gdb says are the frames of the selected thread, for `regenerate`."""

import os
import struct
import subprocess

import gdb
import gdb.unwinder


def mappings(pid):
    """[(start, end, offset, name)]"""
    for line in open(f"/proc/{pid}/maps"):
        fields = line.split(maxsplit=5)
        start, end = (int(n, 16) for n in fields[0].split("-"))
        name = fields[5].strip() if len(fields) > 5 else ""
        yield start, end, int(fields[2], 16), name.removesuffix(" (deleted)")


def segments(path):
    """[(offset, vaddr, filesz)] of an ELF file's PT_LOADs."""
    with open(path, "rb") as file:
        head = file.read(64)
        at, size, n = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
        for i in range(n):
            file.seek(at + i * size)
            kind, _, offset, vaddr, _, filesz = struct.unpack_from("<IIQQQQ", file.read(size))
            if kind == 1:
                yield offset, vaddr, filesz


def place(pid, address):
    """(module, address in its terms)"""
    for start, end, offset, name in mappings(pid):
        if not start <= address < end:
            continue
        if name == "[vdso]":
            return name, address - start
        if not name.startswith("/"):
            break
        at = address - start + offset
        for segment, vaddr, filesz in segments(f"/proc/{pid}/map_files/{start:x}-{end:x}"):
            if segment <= at < segment + filesz:
                return os.path.basename(name), vaddr + at - segment
    return "-", address


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


class Generated(gdb.unwinder.Unwinder):
    """Code in memory of no file, of which gdb could only guess: that of frames.c, from the mapping's
    beginning on. It keeps frame pointers."""

    PUSHED, BUILT, LEFT = 1, 4, 11  # where rbp has been pushed, the frame is in place, is no more

    def __init__(self):
        super().__init__("generated")

    def __call__(self, pending):
        pc = pending.read_register("rip")
        for start, end, _, name in mappings(gdb.selected_inferior().pid):
            if start <= int(pc) < end and not name:
                word = gdb.lookup_type("unsigned long").pointer()
                rbp, rsp = (pending.read_register(r).cast(word) for r in ("rbp", "rsp"))
                at = int(pc) - start
                if self.BUILT <= at < self.LEFT:
                    rsp = rbp
                elif at != self.PUSHED:
                    rsp = rsp - 1
                info = pending.create_unwind_info(FrameId(rsp + 2, pc))
                info.add_saved_register("rip", rsp[1])
                info.add_saved_register("rbp", rbp if rsp != rbp and at != self.PUSHED else rsp[0])
                info.add_saved_register("rsp", rsp + 2)
                return info
        return None


def word_at(address):
    return struct.unpack("<Q", gdb.selected_inferior().read_memory(address, 8).tobytes())[0]


def left_goroutine(name):
    """Where a function of Go's runtime has left the goroutine's stack for the thread's own: (pc, stack
    pointer, frame pointer) there, as Go's debug information tells; None: it is on it."""
    places = {"runtime.systemstack": "sched", "runtime.morestack": "sched", "time.now": "vdsoSP",
              "runtime.nanotime1": "vdsoSP"}
    where = places.get(name.removesuffix(".abi0"))
    if not where:
        return None
    g = gdb.Value(word_at(int(gdb.parse_and_eval("$fs_base")) - 8)).cast(gdb.lookup_type("runtime.g").pointer())
    curg, sched = g["m"]["curg"], g["m"]["curg"]["sched"]
    if int(curg["stack"]["lo"]) <= int(gdb.parse_and_eval("$rsp")) & (1 << 64) - 1 < int(curg["stack"]["hi"]):
        return None
    if where == "vdsoSP":
        sp = int(g["m"]["vdsoSP"])
        return word_at(sp - 8), sp, 0
    sp = int(sched["sp"])
    if name.startswith("runtime.morestack"):
        return int(sched["pc"]), sp, 0
    return word_at(sp + 8), sp + 16, 0      # behind rbp, which systemstack has pushed


def frames():
    """[(pc, whether that is an instruction, stack pointer, name)], without the frames that are
    no frames: inlined functions, and callers that gdb knows of though they have jumped."""
    found = []
    frame, exact, saved = gdb.newest_frame(), True, None
    while frame is not None and frame.pc() != 0:    # a return address of 0 is the end
        if frame.type() in (gdb.NORMAL_FRAME, gdb.SIGTRAMP_FRAME):
            sp = int(frame.read_register("rsp")) & (1 << 64) - 1
            found.append((frame.pc(), exact, sp, frame.name() or "?"))
            exact = frame.type() == gdb.SIGTRAMP_FRAME
            left = left_goroutine(found[-1][3]) if not saved else None
            if left:    # gdb would not follow to a lower address
                saved = [(r, int(gdb.parse_and_eval(f"${r}"))) for r in ("rip", "rsp", "rbp")]
                for register, value in zip(("rip", "rsp", "rbp"), left):
                    gdb.execute(f"set ${register} = {value}")
                frame = gdb.newest_frame()
                continue
        frame = frame.older()
    for register, value in saved or ():
        gdb.execute(f"set ${register} = {value}")
    return found


def write(path):
    """One line a frame: stack pointer, module, address, function. Of frames that inlined functions
    are part of the outermost has the name."""
    pid = gdb.selected_inferior().pid
    with open(path, "w") as file:
        for pc, exact, sp, name in frames():
            module, address = place(pid, pc - (not exact))
            if module == "-":
                address = pc
            print(f"{sp:x} {module} {address:#x} {name}", file=file)


def select(tid):
    """Makes that thread the selected one."""
    for thread in gdb.selected_inferior().threads():
        if thread.ptid[1] == tid:
            thread.switch()


def stop_at(module, addresses):
    """Runs on to the first of these addresses of a module."""
    pid = gdb.selected_inferior().pid
    start, offset = next((start, offset) for start, _, offset, name in mappings(pid)
                         if os.path.basename(name).startswith(module))
    base = 0 if addresses[0] >= start else start - offset
    points = [gdb.Breakpoint(f"*{base + a:#x}", internal=True) for a in addresses]
    gdb.execute("continue")
    for point in points:
        point.delete()


def break_here(where):
    """For the selected thread alone: others of the runtime come there, too."""
    gdb.Breakpoint(where).thread = gdb.selected_thread().num


def step_to_generated():
    """By instructions, to the first one in memory of no file."""
    while not any(start <= gdb.newest_frame().pc() < end and not name
                  for start, end, _, name in mappings(gdb.selected_inferior().pid)):
        gdb.execute("stepi")


def record(command):
    """Runs the recorder on the selected thread, which gdb holds."""
    pid, tid, _ = gdb.selected_thread().ptid
    print(subprocess.run([*command, f"--pid={pid}", f"--tid={tid}"], check=True, text=True,
                         stderr=subprocess.PIPE).stderr)


for setting in ("pagination off", "confirm off", "debuginfod enabled off", "backtrace past-main on",
                "backtrace limit unlimited", "width 0", "startup-with-shell off"):
    gdb.execute("set " + setting)
gdb.unwinder.register_unwinder(None, Generated())
