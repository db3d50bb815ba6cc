/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "unwind/code-ahead.h"
#include "unwind/unwind.h"

enum {
        RED_ZONE = 128,             /* psABI, 3.2.2: below rsp, in use all the same */
        STACK_SPAN_MAX = 8 << 20,   /* of one stack from rsp up: further away is another stack */
        SIGNAL_SPAN_MAX = 64 << 10, /* the same where a signal came: no copy goes further anyway */

        /* psABI, figure 3.4: a function keeps these for its caller */
        CALLEE_SAVED = 1 << X86_RBX | 1 << X86_RBP | 1 << X86_R12 | 1 << X86_R13 | 1 << X86_R14 |
                       1 << X86_R15,
        ALL_VALID = (1 << N_REGS) - 1,

        /* ucontext_t, to which rsp points in a signal trampoline: uc_mcontext.gregs */
        UCONTEXT_GREGS = 40,
};

/* Where the walk is: registers of a frame. */
typedef struct Walk {
        const StackCopy *copy;
        uint64_t addr; /* of the stack that it is on: [addr, addr + n) */
        size_t n;
        const uint8_t *bytes; /* NULL: it was not copied, addr is the stack pointer */
        const ProcMap *map;

        /* Addresses of code where the last pc was, mostly the next one's, too: [start, start + size)
         * is at start + bias in the module, which has a table. */
        const Module *module;
        uint64_t start, size, bias;

        UnwindRegs regs;
        uint32_t valid; /* a bit for each register that is known */
        uint64_t low;   /* the next CFA is above this */
        bool exact;     /* pc is that of an instruction, not a return address */
        bool left;      /* the goroutine was left behind, which is not done twice */

        Frame *frames;
        size_t n_max;
        UnwindResult result;
} Walk;

typedef enum Stop {
        GO_ON,
        STOP, /* w->result says why */
} Stop;

static Stop stop(Walk *w, UnwindStatus status)
{
        w->result.status = status;
        if (status == UNWIND_NO_MAPPING || status == UNWIND_NO_CFI || status == UNWIND_BROKEN)
                w->result.bad_pc = w->regs.r[X86_RIP];
        return STOP;
}

static Stop read_word(Walk *w, uint64_t addr, uint64_t *ret)
{
        uint64_t at = addr - w->addr;

        if (!w->bytes) {
                w->result.need_addr = w->addr;
                return stop(w, UNWIND_OTHER_STACK);
        }
        if (addr < w->addr || addr % 8 != 0)
                return stop(w, UNWIND_BROKEN);
        if (at >= w->n || w->n - at < 8) {
                if (at > STACK_SPAN_MAX - 8)
                        return stop(w, UNWIND_BROKEN);
                w->result.need_end = addr + 8;
                return stop(w, UNWIND_TRUNCATED);
        }
        memcpy(ret, w->bytes + at, 8);
        return GO_ON;
}

/* Remembers which part of the mapping is of the same segment as the address in it. */
static void remember(Walk *w, const Mapping *m, uint64_t at)
{
        uint64_t begin, end, map_end = m->offset + (m->end - m->start);
        const ModuleSegment *s = module_segment(m->module, at - m->start + m->offset, &begin, &end);

        w->size = 0;
        if (!s || !module_cfi(m->module) || map_end < m->offset)
                return;
        begin = begin > m->offset ? begin : m->offset;
        end = end < map_end ? end : map_end;
        w->module = m->module;
        w->start = begin - m->offset + m->start;
        w->size = end - begin;
        w->bias = s->vaddr + (begin - s->offset) - w->start;
}

/* Adds the frame of the current pc and tells the rule there; NULL: the pc is in no file. */
static Stop add_frame(Walk *w, const CfiRule **ret_rule)
{
        static const CfiRule none = {.cfa = CFI_CFA_NONE};
        uint64_t pc = w->regs.r[X86_RIP], at = w->exact ? pc : pc - 1;
        const Mapping *m;
        Frame *f = &w->frames[w->result.n_frames];

        if (w->result.n_frames == w->n_max)
                return stop(w, UNWIND_TOO_DEEP);
        if (at - w->start < w->size) {
                *f = (Frame){.pc = pc,
                        .module = w->module,
                        .vaddr = at + w->bias,
                        .sp = w->regs.r[X86_RSP]};
                w->result.n_frames++;
                *ret_rule = cfi_table_find(module_cfi(w->module), f->vaddr);
                return GO_ON;
        }
        m = procmap_find(w->map, at);
        if (!m || !m->exec)
                return stop(w, UNWIND_NO_MAPPING);

        w->result.n_frames++;
        *f = (Frame){.pc = pc, .module = m->module, .vaddr = pc, .sp = w->regs.r[X86_RSP]};
        if (m->module) {
                remember(w, m, at);
                f->vaddr = module_vaddr(m->module, at - m->start + m->offset);
                *ret_rule = module_cfi(m->module) ? cfi_table_find(module_cfi(m->module), f->vaddr)
                                                  : &none;
        } else {
                *ret_rule = m->inode != 0 || m->special ? &none : NULL;
        }
        return GO_ON;
}

static bool is_valid(const Walk *w, unsigned reg)
{
        return w->valid & 1U << reg;
}

static Stop find_cfa(Walk *w, const CfiRule *rule, uint64_t *ret)
{
        const uint64_t *r = w->regs.r;
        uint64_t cfa;

        if (rule->cfa == CFI_CFA_PLT) {
                cfa = r[X86_RSP] + 8 + ((int32_t)(r[X86_RIP] & 15) >= rule->cfa_offset ? 8 : 0);
        } else {
                if (!is_valid(w, rule->cfa_reg))
                        return stop(w, UNWIND_BROKEN);
                cfa = r[rule->cfa_reg] + rule->cfa_offset;
        }
        if (rule->cfa == CFI_CFA_DEREF) {
                if (read_word(w, cfa, &cfa) != GO_ON)
                        return STOP;
                cfa += rule->cfa_offset2;
        }
        if (cfa <= w->low || cfa % 8 != 0)
                return stop(w, UNWIND_BROKEN);
        *ret = cfa;
        return GO_ON;
}

/* A register's place on the stack. Where a copy begins with rsp, not with the red zone, what was
 * saved there is lost: GCC's rules stay on registers that have been popped already. */
static Stop read_saved(Walk *w, uint64_t addr, uint64_t *ret, bool *ret_valid)
{
        if (addr < w->addr && w->addr - addr <= RED_ZONE && w->bytes) {
                *ret_valid = false;
                return GO_ON;
        }
        *ret_valid = true;
        return read_word(w, addr, ret);
}

/* The caller's value of a register that the rule moves. *ret_valid is false if it is lost. */
static Stop find_register(
        Walk *w, const CfiRule *rule, unsigned reg, uint64_t cfa, uint64_t *ret, bool *ret_valid)
{
        int32_t offset = rule->offset[reg];

        switch (rule->how[reg]) {
        case CFI_REG_OFFSET:
                return read_saved(w, cfa + offset, ret, ret_valid);
        case CFI_REG_AT_RBP:
                if (is_valid(w, X86_RBP))
                        return read_saved(w, w->regs.r[X86_RBP] + offset, ret, ret_valid);
                break;
        case CFI_REG_VALUE:
                *ret = cfa + offset;
                *ret_valid = true;
                return GO_ON;
        case CFI_REG_COPY:
                *ret = w->regs.r[offset];
                *ret_valid = is_valid(w, offset);
                return GO_ON;
        }
        *ret_valid = false;
        return GO_ON;
}

static bool copy_has(uint64_t addr, size_t n, uint64_t sp)
{
        return sp >= addr && sp - addr < n;
}

/* The stack that goes on at `sp`: the same one mostly. */
static void find_stack(Walk *w, uint64_t sp)
{
        const StackCopy *c = w->copy;

        if (copy_has(w->addr, w->n, sp))
                return;
        if (copy_has(c->other_addr, c->other_n, sp)) {
                w->addr = c->other_addr;
                w->n = c->other_n;
                w->bytes = c->other_bytes;
        } else if (copy_has(c->addr, c->n, sp)) {
                w->addr = c->addr;
                w->n = c->n;
                w->bytes = c->bytes;
        } else if (sp < w->addr || sp - w->addr > SIGNAL_SPAN_MAX) {
                w->addr = sp;
                w->n = 0;
                w->bytes = NULL;
        }
}

static Stop step_signal(Walk *w)
{
        static const uint8_t order[] = {X86_R8, X86_R9, X86_R10, X86_R11, X86_R12, X86_R13, X86_R14,
                X86_R15, X86_RDI, X86_RSI, X86_RBP, X86_RBX, X86_RDX, X86_RAX, X86_RCX, X86_RSP,
                X86_RIP};
        uint64_t at = w->regs.r[X86_RSP] + UCONTEXT_GREGS;
        UnwindRegs regs;
        uint64_t addr;

        for (size_t i = 0; i < sizeof(order); i++)
                if (read_word(w, at + 8 * i, &regs.r[order[i]]) != GO_ON)
                        return STOP;
        w->regs = regs;
        w->valid = ALL_VALID;
        w->low = regs.r[X86_RSP]; /* of whichever stack was interrupted */
        addr = w->addr;
        find_stack(w, regs.r[X86_RSP]);
        w->result.moved = w->result.moved || w->addr != addr;
        w->result.other = w->result.other || w->addr != addr;
        w->exact = true;
        return GO_ON;
}

/* Frames of one that has left its stack. */
static Stop step_left(Walk *w, const CfiRule *rule)
{
        const StackCopy *c = w->copy;
        uint64_t cfa, pc = c->go_pc, addr = w->addr;

        /* What morestack was called for has been put off meanwhile. */
        if (rule->cfa == CFI_CFA_GO_CALLER && (w->left || c->go_sp == GO_SP_NONE))
                return stop(w, UNWIND_DONE);
        if (rule->cfa == CFI_CFA_GOROUTINE && (w->left || c->go_sp == GO_SP_NONE))
                return stop(w, UNWIND_BROKEN);
        if (rule->cfa != CFI_CFA_OTHER && c->go_sp == 0) {
                w->result.other = true;
                w->result.need_addr = 0;
                return stop(w, UNWIND_OTHER_STACK);
        }
        if (rule->cfa == CFI_CFA_OTHER && !is_valid(w, rule->cfa_reg))
                return stop(w, UNWIND_BROKEN);
        cfa = (rule->cfa == CFI_CFA_OTHER ? w->regs.r[rule->cfa_reg] : c->go_sp) + rule->cfa_offset;
        if (cfa % 8 != 0)
                return stop(w, UNWIND_BROKEN);
        find_stack(w, cfa - 8);
        if (w->addr == addr && cfa <= w->low)
                return stop(w, UNWIND_BROKEN);
        w->result.moved = w->result.moved || w->addr != addr;
        if (!w->bytes)
                w->result.other = true;
        if (rule->cfa != CFI_CFA_GO_CALLER && read_word(w, cfa - 8, &pc) != GO_ON)
                return STOP;
        if (pc == 0)
                return stop(w, UNWIND_DONE);
        w->left = w->left || rule->cfa != CFI_CFA_OTHER;
        w->regs.r[X86_RSP] = cfa;
        w->regs.r[X86_RIP] = pc;
        w->valid = 1 << X86_RSP | 1 << X86_RIP;
        w->low = cfa;
        w->exact = false;
        return GO_ON;
}

static uint64_t saved_or_kept(const uint8_t *cfa, int16_t offset, uint64_t kept)
{
        uint64_t saved;

        memcpy(&saved, cfa + offset, sizeof(saved)); /* read in any case: not a branch */
        return offset != CFI_KEPT ? saved : kept;
}

/* What step_cfi() does, where nothing can go wrong. False: that is not sure, and nothing is done. */
static bool step_plain(Walk *w, const CfiPlain *p)
{
        const StackCopy *c = w->copy;
        uint64_t *r = w->regs.r, cfa = r[p->cfa_reg] + (uint64_t)(int64_t)p->cfa_offset, pc;
        uint64_t at = cfa - c->addr;
        const uint8_t *top;

        if (!p->is_plain || !is_valid(w, p->cfa_reg) || cfa <= w->low || cfa % 8 != 0 ||
                cfa < c->addr || at > c->n || at < (uint64_t)-p->lowest)
                return false;
        top = c->bytes + at;
        memcpy(&pc, top - 8, sizeof(pc));
        if (pc == 0)
                return false;
        r[X86_RBX] = saved_or_kept(top, p->saved[0], r[X86_RBX]);
        r[X86_RBP] = saved_or_kept(top, p->saved[1], r[X86_RBP]);
        r[X86_R12] = saved_or_kept(top, p->saved[2], r[X86_R12]);
        r[X86_R13] = saved_or_kept(top, p->saved[3], r[X86_R13]);
        r[X86_R14] = saved_or_kept(top, p->saved[4], r[X86_R14]);
        r[X86_R15] = saved_or_kept(top, p->saved[5], r[X86_R15]);
        r[X86_RSP] = cfa;
        r[X86_RIP] = pc;
        w->valid = (w->valid & CALLEE_SAVED & ~(uint32_t)p->undef) | p->moved | 1 << X86_RSP |
                   1 << X86_RIP;
        w->low = cfa;
        w->exact = false;
        return true;
}

/* Whether the stack looks as before a function's "push %rbp; mov %rsp,%rbp", between the two, or
 * behind "pop %rbp": a return address is at rsp, or the rbp of the caller, who would be left out. A
 * frame that is in place may hold such a word there, too: it cannot be told. */
static bool is_frameless(const Walk *w)
{
        uint64_t rsp = w->regs.r[X86_RSP], at = rsp - w->addr, word;
        const Mapping *m;

        if (!w->exact || rsp == w->regs.r[X86_RBP] || !w->bytes || rsp < w->addr || at >= w->n ||
                w->n - at < 8)
                return false; /* reading the frame tells what is missing */
        memcpy(&word, w->bytes + at, 8);
        m = procmap_find(w->map, word - 1);
        return word == w->regs.r[X86_RBP] || (m && m->exec);
}

/* Nothing but its rbp is known of the caller, if there is one. */
static Stop enter_caller(Walk *w, uint64_t cfa, uint64_t pc, uint64_t rbp)
{
        w->low = cfa;
        if (pc == 0)
                return stop(w, UNWIND_DONE);
        w->regs.r[X86_RBP] = rbp;
        w->regs.r[X86_RSP] = cfa;
        w->regs.r[X86_RIP] = pc;
        w->valid = 1 << X86_RBP | 1 << X86_RSP | 1 << X86_RIP;
        w->exact = false;
        return GO_ON;
}

/* By frame pointer: rbp points to the caller's rbp, the return address is above it. */
static Stop step_fp(Walk *w)
{
        uint64_t fp = w->regs.r[X86_RBP], cfa = fp + 16, caller_fp, pc;

        if (!is_valid(w, X86_RBP) || cfa <= w->low)
                return stop(w, UNWIND_BROKEN);
        if (read_word(w, fp, &caller_fp) != GO_ON || read_word(w, fp + 8, &pc) != GO_ON)
                return STOP;
        return enter_caller(w, cfa, pc, caller_fp);
}

/* A frame that is not in place, as the code ahead says. */
static Stop step_ahead(Walk *w, const Ahead *ahead)
{
        uint64_t rsp = w->regs.r[X86_RSP], cfa = rsp + (uint64_t)(int64_t)ahead->cfa_offset, pc;
        uint64_t rbp = w->regs.r[X86_RBP];

        if (cfa <= w->low)
                return stop(w, UNWIND_BROKEN);
        if (read_word(w, cfa - 8, &pc) != GO_ON)
                return STOP;
        if (ahead->kind == AHEAD_PUSHED &&
                read_word(w, rsp + (uint64_t)(int64_t)ahead->rbp_offset, &rbp) != GO_ON)
                return STOP;
        if (ahead->is_rbp && rbp != w->regs.r[X86_RBP])
                return stop(w, UNWIND_BROKEN);
        return enter_caller(w, cfa, pc, rbp);
}

/* Code of which nothing is known but that it keeps frame pointers: generated, or in a file that has no
 * rule there. */
static Stop step_unknown(Walk *w, bool generated)
{
        Ahead ahead = {0};

        if (w->result.n_frames == 1)
                ahead = code_ahead(w->copy->code, w->copy->n_code);
        if (ahead.kind == AHEAD_FRAME)
                return step_fp(w);
        if (ahead.kind != AHEAD_UNKNOWN)
                return step_ahead(w, &ahead);
        if (!generated)
                return stop(w, UNWIND_NO_CFI);
        return is_frameless(w) ? stop(w, UNWIND_BROKEN) : step_fp(w);
}

static Stop step_cfi(Walk *w, const CfiRule *rule)
{
        uint64_t cfa, pc, values[X86_RIP];
        uint32_t valid;
        bool known;

        if (step_plain(w, &rule->plain))
                return GO_ON;
        if (rule->cfa == CFI_CFA_NONE)
                return step_unknown(w, false);
        if (rule->cfa == CFI_CFA_UNREAD)
                return stop(w, UNWIND_UNREAD);
        if (rule->cfa == CFI_CFA_ROOT)
                return stop(w, UNWIND_DONE);
        if (rule->cfa == CFI_CFA_SIGNAL)
                return step_signal(w);
        if (rule->cfa >= CFI_CFA_OTHER)
                return step_left(w, rule);
        w->left = w->left || rule->cfa == CFI_CFA_GO_NEXT;
        if (find_cfa(w, rule, &cfa) != GO_ON ||
                find_register(w, rule, X86_RIP, cfa, &pc, &known) != GO_ON)
                return STOP;
        if (!known)
                return stop(w, UNWIND_BROKEN);
        if (pc == 0) {
                w->low = cfa;
                return stop(w, UNWIND_DONE);
        }

        /* All are found before the first one is set: they may stand in each other's places. */
        valid = (w->valid & CALLEE_SAVED & ~(uint32_t)rule->undef) | 1 << X86_RSP | 1 << X86_RIP;
        for (uint32_t left = rule->moved; left; left &= left - 1) {
                unsigned reg = __builtin_ctz(left);

                if (find_register(w, rule, reg, cfa, &values[reg], &known) != GO_ON)
                        return STOP;
                valid = known ? valid | 1U << reg : valid & ~(1U << reg);
        }
        w->regs.r[X86_RSP] = cfa;
        for (uint32_t left = rule->moved & valid; left; left &= left - 1)
                w->regs.r[__builtin_ctz(left)] = values[__builtin_ctz(left)];
        w->regs.r[X86_RIP] = pc;
        w->valid = valid;
        w->low = cfa;
        w->exact = false;
        return GO_ON;
}

static Walk walk_begin(const StackCopy *copy, const ProcMap *map, Frame *frames, size_t n_max)
{
        return (Walk){.copy = copy,
                .addr = copy->addr,
                .n = copy->n,
                .bytes = copy->bytes,
                .map = map,
                .regs = copy->regs,
                .valid = ALL_VALID,
                .low = copy->regs.r[X86_RSP],
                .exact = true,
                .frames = frames,
                .n_max = n_max};
}

UnwindResult unwind_cfi(
        const StackCopy *copy, const ProcMap *map, Frame *ret_frames, size_t max_frames)
{
        Walk w = walk_begin(copy, map, ret_frames, max_frames);
        const CfiRule *rule;

        while (add_frame(&w, &rule) == GO_ON)
                if ((rule ? step_cfi(&w, rule) : step_unknown(&w, true)) != GO_ON)
                        break;
        if (w.result.status == UNWIND_DONE)
                w.result.need_end = w.low;
        return w.result;
}

UnwindResult unwind_fp(
        const StackCopy *copy, const ProcMap *map, Frame *ret_frames, size_t max_frames)
{
        Walk w = walk_begin(copy, map, ret_frames, max_frames);
        const CfiRule *rule;

        while (add_frame(&w, &rule) == GO_ON) {
                bool root = rule && rule->cfa == CFI_CFA_ROOT;

                if (root || w.regs.r[X86_RBP] == 0) {
                        stop(&w, UNWIND_DONE);
                        break;
                }
                if (step_fp(&w) != GO_ON) {
                        /* The caller of main() mostly has no frame pointer: where the chain ends,
                         * the stack does, as for the kernel's own walk. */
                        if (w.result.status == UNWIND_BROKEN && w.result.n_frames > 1)
                                stop(&w, UNWIND_DONE);
                        break;
                }
        }
        return w.result;
}

UnwindResult unwind_pcs(
        const uint64_t *pcs, size_t n, const ProcMap *map, Frame *ret_frames, size_t max_frames)
{
        Walk w = {.map = map, .exact = true, .frames = ret_frames, .n_max = max_frames};
        const CfiRule *rule;

        for (size_t i = 0; i < n; i++) {
                w.regs.r[X86_RIP] = pcs[i];
                if (add_frame(&w, &rule) != GO_ON)
                        return w.result;
                w.exact = false;
        }
        stop(&w, UNWIND_DONE);
        return w.result;
}
