/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "unwind/cfi-go-code.h"
#include "unwind/x86-insn.h"

enum {
        FLAG_TOP_FRAME = 1, /* internal/abi/symtab.go */

        TARGETS_MAX = 16, /* of jumps in one function */
        INSN_RBX = 3,     /* numbers of the architecture */
        INSN_R12 = 12,
};

/* What is known before an instruction. */
typedef struct Flow {
        GoStretch now;
        uint8_t saved; /* register that has a copy of rsp, or 0; CFA = it + saved_offset */
        int32_t saved_offset;
        int32_t rdx_offset; /* the same of rdx, 0: none; good for a few instructions only */
} Flow;

typedef struct Scan {
        const GoFunction *function;
        GoDepth depth;
        CfiBytes code;
        Flow flow;
        bool alive; /* something leads to the next instruction */
        size_t n_targets;
        struct {
                uint64_t vaddr;
                Flow flow;
        } targets[TARGETS_MAX];
} Scan;

static const GoStretch plain = {.cfa = CFI_CFA_REG}, unknown = {.cfa = CFI_CFA_NONE};

static bool same(const GoStretch *a, const GoStretch *b)
{
        return a->cfa == b->cfa && a->reg == b->reg && a->offset == b->offset &&
               a->offset2 == b->offset2;
}

static GoStretch by_saved(const Flow *f)
{
        return (GoStretch){.cfa = CFI_CFA_OTHER,
                .reg = f->saved == INSN_RBX ? X86_RBX : X86_R12,
                .offset = f->saved_offset};
}

/* Two ways meet. Where one of them has left the stack, the copy of rsp is right for both. */
static Flow merge(const Flow *a, const Flow *b)
{
        Flow f = *a;

        if (a->saved != b->saved || a->saved_offset != b->saved_offset)
                f.saved = 0;
        if (a->rdx_offset != b->rdx_offset)
                f.rdx_offset = 0;
        if (same(&a->now, &b->now))
                return f;
        f.now = f.saved && (a->now.cfa == CFI_CFA_OTHER || b->now.cfa == CFI_CFA_OTHER)
                        ? by_saved(&f)
                        : unknown;
        return f;
}

static void arrive(Scan *s)
{
        for (size_t i = 0; i < s->n_targets; i++) {
                if (s->targets[i].vaddr != s->code.vaddr)
                        continue;
                s->flow = s->alive ? merge(&s->flow, &s->targets[i].flow) : s->targets[i].flow;
                s->alive = true;
        }
        if (!s->alive)
                s->flow = (Flow){.now = unknown};
}

static bool is(const Scan *s, const X86Insn *insn, const char *bytes, size_t n)
{
        return insn->length >= n && memcmp(s->code.p, bytes, n) == 0;
}

#define IS(bytes) is(s, insn, bytes, sizeof(bytes) - 1)

/* rsp becomes something else than before by so many bytes. */
static void set_rsp(Scan *s, const X86Insn *insn, int32_t depth)
{
        Flow *f = &s->flow;
        bool from_saved = (f->saved == INSN_R12 && IS("\x4c\x89\xe4")) ||
                          (f->saved == INSN_RBX && IS("\x48\x89\xdc"));

        if (from_saved) {
                f->now = depth + 8 == f->saved_offset ? plain : unknown;
        } else if (f->saved && f->now.cfa != CFI_CFA_NONE) {
                f->now = by_saved(f);
        } else if (go_function_is(s->function, "runtime.systemstack")) {
                if (f->now.cfa == CFI_CFA_REG)
                        f->now = (GoStretch){.cfa = CFI_CFA_GOROUTINE, .offset = depth + 8};
                else
                        f->now = f->now.cfa == CFI_CFA_GOROUTINE ? plain : unknown;
        } else if (go_function_is(s->function, "runtime.asmcgocall")) {
                /* mov disp8(%rsi), %rsp; and $-16, %rsp; mov %rsi, %rsp */
                if (f->now.cfa == CFI_CFA_REG && IS("\x48\x8b\x66"))
                        f->now = (GoStretch){.cfa = CFI_CFA_GOROUTINE, .offset = depth + 8};
                else if (IS("\x48\x89\xf4"))
                        f->now = plain;
                else if (f->now.cfa != CFI_CFA_GOROUTINE)
                        f->now = unknown;
        } else if (f->now.cfa == CFI_CFA_REG && go_function_is(s->function, "runtime.morestack")) {
                f->now = (GoStretch){.cfa = CFI_CFA_GO_CALLER};
        } else if (f->now.cfa == CFI_CFA_REG && go_function_is(s->function, "runtime.mcall")) {
                f->now = (GoStretch){.cfa = CFI_CFA_ROOT};
        } else if (f->now.cfa != CFI_CFA_ROOT && f->now.cfa != CFI_CFA_GO_CALLER) {
                f->now = unknown;
        }
}

static void copy_rsp(Scan *s, const X86Insn *insn, int32_t depth)
{
        Flow *f = &s->flow;

        if (f->saved && insn->written & 1U << f->saved)
                f->saved = 0;
        if (f->now.cfa == CFI_CFA_REG && IS("\x49\x89\xe4")) /* mov %rsp, %r12 */
                f->saved = INSN_R12;
        else if (f->now.cfa == CFI_CFA_REG && IS("\x48\x89\xe3")) /* mov %rsp, %rbx */
                f->saved = INSN_RBX;
        else if (f->now.cfa == CFI_CFA_REG && IS("\x48\x89\xe2")) /* mov %rsp, %rdx */
                f->rdx_offset = depth + 8;
        /* mov %rdx, disp8(%rsp): asmcgocall, if it is not to leave the stack */
        else if (f->now.cfa == CFI_CFA_NONE && f->rdx_offset && IS("\x48\x89\x54\x24"))
                f->now = (GoStretch){.cfa = CFI_CFA_DEREF,
                        .reg = X86_RSP,
                        .offset = (int8_t)s->code.p[4],
                        .offset2 = f->rdx_offset};
        else if (f->now.cfa == CFI_CFA_NONE && f->rdx_offset && IS("\x48\x89\x14\x24"))
                f->now =
                        (GoStretch){.cfa = CFI_CFA_DEREF, .reg = X86_RSP, .offset2 = f->rdx_offset};
        else
                return;
        if (f->now.cfa == CFI_CFA_REG && !IS("\x48\x89\xe2"))
                f->saved_offset = depth + 8;
}

/* What rsp is moved by, the function table knows of, unless it was written by hand. */
static void move_rsp(Scan *s, const X86Insn *insn, int32_t depth, int32_t bytes)
{
        Flow *f = &s->flow;
        int32_t after;

        if (insn->kind == X86_POP && insn->reg == f->saved)
                f->saved = 0;
        if (f->now.cfa == CFI_CFA_DEREF)
                f->now = unknown;
        if (f->now.cfa == CFI_CFA_REG &&
                (!go_depth_at(&s->depth, s->code.vaddr + insn->length, &after) ||
                        after != depth + bytes))
                f->now = unknown;
}

static void jump(Scan *s, const X86Insn *insn)
{
        uint64_t target = s->code.vaddr + insn->length + (uint64_t)(int64_t)insn->value;

        if (insn->value >= 0 && s->n_targets < TARGETS_MAX) {
                s->targets[s->n_targets].vaddr = target;
                s->targets[s->n_targets].flow = s->flow;
                s->n_targets++;
        }
}

/* False: nothing more is known. */
static bool step(Scan *s)
{
        X86Insn decoded, *insn = &decoded;
        int32_t depth;

        if (!go_depth_at(&s->depth, s->code.vaddr, &depth) ||
                !x86_insn_decode(s->code.p, (size_t)(s->code.end - s->code.p), insn))
                return false;
        switch (insn->kind) {
        case X86_PUSH:
                move_rsp(s, insn, depth, 8);
                break;
        case X86_POP:
                move_rsp(s, insn, depth, -8);
                break;
        case X86_ADD_RSP:
                move_rsp(s, insn, depth, -insn->value);
                break;
        case X86_SETS_RSP:
        case X86_RSP_FROM_RBP:
        case X86_LEAVE:
                set_rsp(s, insn, depth);
                break;
        case X86_BRANCH:
        case X86_JUMP:
                jump(s, insn);
                break;
        case X86_OTHER:
        case X86_RBP_FROM_RSP:
        case X86_SETS_RBP:
                copy_rsp(s, insn, depth);
                break;
        case X86_CALL:
                s->flow.rdx_offset = s->flow.now.cfa == CFI_CFA_REG ? s->flow.rdx_offset : 0;
                break;
        case X86_JUMP_AWAY:
        case X86_RET:
        case X86_TRAP:
                break;
        }
        s->alive = insn->kind != X86_JUMP && insn->kind != X86_JUMP_AWAY && insn->kind != X86_RET &&
                   insn->kind != X86_TRAP;
        s->code.p += insn->length;
        s->code.vaddr += insn->length;
        return true;
}

static void find_stretches(GoTable *t, const GoFunction *f, CfiBytes code, GoStretches *ret)
{
        Scan s = {.function = f, .code = code, .flow = {.now = plain}, .alive = true};

        ret->n = 0;
        go_depth_init(&s.depth, t, f);
        while (s.code.p < s.code.end) {
                GoStretch *last = ret->n > 0 ? &ret->stretches[ret->n - 1] : NULL;

                arrive(&s);
                if (!last || !same(last, &s.flow.now)) {
                        if (ret->n == GO_STRETCHES_MAX)
                                return;
                        last = &ret->stretches[ret->n++];
                        *last = s.flow.now;
                        last->end = s.code.vaddr;
                }
                if (!step(&s))
                        break;
                last->end = s.code.vaddr;
        }
        if (ret->n > 0 && ret->stretches[ret->n - 1].end == code.vaddr)
                ret->n = 0;
}

/* ---- places ---- */

static int32_t i32_at(const uint8_t *p)
{
        int32_t value;

        memcpy(&value, p, sizeof(value));
        return value;
}

/* An operand disp(%reg) of one of both sizes, with that ModRM byte for the short one. */
static bool displacement(
        const CfiBytes *code, const X86Insn *insn, const char *opcode, uint8_t modrm, uint32_t *ret)
{
        const uint8_t *p = code->p;

        if (p[0] != (uint8_t)opcode[0] || p[1] != (uint8_t)opcode[1] || insn->length < 4)
                return false;
        if (p[2] == modrm && insn->length == 4 && (int8_t)p[3] >= 0)
                *ret = p[3];
        else if (p[2] == (modrm ^ 0xc0) && insn->length == 7 && i32_at(p + 3) >= 0)
                *ret = (uint32_t)i32_at(p + 3);
        else
                return false;
        return true;
}

static void systemstack_places(CfiBytes code, GoPlaces *ret)
{
        static const char fs_rax[] = "\x64\x48\x8b\x04\x25", rcx[] = "\x48\xc7\xc1",
                          fs_rcx_rax[] = "\x64\x48\x8b\x01";
        GoPlaces places = {0};
        bool in_rcx = false, g = false;
        unsigned n_compared = 0;
        uint32_t m = 0;
        X86Insn insn;

        for (; x86_insn_decode(code.p, (size_t)(code.end - code.p), &insn); code.p += insn.length) {
                if (insn.length == 9 && memcmp(code.p, fs_rax, 5) == 0) {
                        places.g = i32_at(code.p + 5);
                        g = true;
                } else if (insn.length == 7 && memcmp(code.p, rcx, 3) == 0) {
                        places.g = i32_at(code.p + 3);
                        in_rcx = true;
                } else if (insn.length == 4 && memcmp(code.p, fs_rcx_rax, 4) == 0) {
                        g = in_rcx;
                } else if (displacement(&code, &insn, "\x48\x8b", 0x58, &m)) { /* (%rax), %rbx */
                        continue;
                } else if (displacement(&code, &insn, "\x48\x3b", 0x43, &places.curg)) {
                        n_compared++; /* (%rbx), %rax: first the one for signals */
                } else if (displacement(&code, &insn, "\x48\x8b", 0x62, &places.sched) ||
                           displacement(&code, &insn, "\x48\x8b", 0x5a, &places.sched)) {
                        break; /* (%rdx), %rsp, or %rbx, and that to %rsp */
                } else if (insn.kind == X86_RET || insn.kind == X86_TRAP) {
                        return;
                }
        }
        if (!g || n_compared != 2 || m == 0 || places.sched == 0)
                return;
        places.m = m;
        places.vdso_sp = ret->vdso_sp;
        *ret = places;
}

/* The last "mov %rdx, disp32(%rbx)" before rsp is set. */
static void vdso_places(CfiBytes code, GoPlaces *ret)
{
        X86Insn insn;

        for (; x86_insn_decode(code.p, (size_t)(code.end - code.p), &insn) &&
                insn.kind != X86_SETS_RSP && insn.kind != X86_CALL;
                code.p += insn.length)
                displacement(&code, &insn, "\x48\x89", 0x53, &ret->vdso_sp);
}

static void find_places(GoTable *t, const GoFunction *f, CfiBytes code)
{
        if (go_function_is(f, "runtime.systemstack"))
                systemstack_places(code, &t->places);
        else if (go_function_is(f, "runtime.nanotime1"))
                vdso_places(code, &t->places);
}

/* ---- rows ---- */

/* The same everywhere in the function; CFI_CFA_REG: it depends. */
static CfiCfa kind_of(const GoFunction *f)
{
        if (go_function_is_trampoline(f))
                return CFI_CFA_SIGNAL;
        /* The handler's frame is the top one for Go, which does not look what was interrupted. */
        if (f->flags & FLAG_TOP_FRAME && !go_function_is(f, "runtime.sigtramp"))
                return CFI_CFA_ROOT;
        return go_function_is(f, "runtime.execute") ? CFI_CFA_GO_NEXT : CFI_CFA_REG;
}

void go_program_init(GoProgram *p, GoTable *t, const GoFunction *f, CfiBytes code)
{
        *p = (GoProgram){.function = *f, .pc = f->start};
        p->kind = kind_of(f);
        p->rule.cfa = (uint8_t)p->kind;
        go_depth_init(&p->depth, t, f);
        if (p->kind != CFI_CFA_REG && p->kind != CFI_CFA_GO_NEXT)
                return;
        p->stretches = (GoStretches){.n = 1, .stretches = {plain}};
        p->stretches.stretches[0].cfa = p->kind;
        p->stretches.stretches[0].end = f->end;
        if (!go_function_sets_rsp(f))
                return;
        if (code.end - code.p > GO_CODE_MAX)
                code.end = code.p + GO_CODE_MAX;
        if (code.end - code.p > t->code_left)
                code.end = code.p + t->code_left;
        t->code_left -= (uint32_t)(code.end - code.p);
        find_stretches(t, f, code, &p->stretches);
        find_places(t, f, code);
}

static void set_rule(CfiRule *rule, const GoStretch *s, int32_t depth)
{
        *rule = (CfiRule){.cfa = (uint8_t)s->cfa,
                .cfa_reg = s->reg,
                .cfa_offset = s->offset,
                .cfa_offset2 = s->offset2};
        if (s->cfa == CFI_CFA_NONE || s->cfa == CFI_CFA_ROOT || s->cfa == CFI_CFA_GO_CALLER)
                return;
        if (s->cfa == CFI_CFA_REG || s->cfa == CFI_CFA_GO_NEXT) {
                rule->cfa_reg = X86_RSP;
                rule->cfa_offset = depth + 8;
        }
        rule->how[X86_RIP] = CFI_REG_OFFSET;
        rule->offset[X86_RIP] = -8;
        /* Go's functions keep no register for their callers, but for rbp: nobody there needs it. */
        for (unsigned reg = 0; reg < X86_RIP; reg++)
                if (reg != X86_RSP) {
                        rule->how[reg] = CFI_REG_UNDEF;
                        rule->undef |= (uint16_t)(1U << reg);
                }
}

int go_program_next(GoProgram *p, uint64_t *ret_start, uint64_t *ret_end, const CfiRule **ret_rule)
{
        const GoStretch *s;

        *ret_start = p->pc;
        *ret_rule = &p->rule;
        if (p->kind == CFI_CFA_SIGNAL || p->kind == CFI_CFA_ROOT) {
                *ret_end = p->pc = p->function.end;
                return *ret_start == *ret_end;
        }
        while (p->i < p->stretches.n && p->stretches.stretches[p->i].end <= p->pc)
                p->i++;
        if (p->i == p->stretches.n || p->pc >= p->function.end ||
                (p->pc >= p->depth.end && !go_depth_next(&p->depth)))
                return 1;
        s = &p->stretches.stretches[p->i];
        set_rule(&p->rule, s, (int32_t)p->depth.depth);
        p->pc = s->end < p->depth.end ? s->end : p->depth.end;
        *ret_end = p->pc;
        return 0;
}
