/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "unwind/cfi-code.h"
#include "unwind/x86-insn.h"
#include "util/error.h"

enum {
        JUMP_MAX = 64 << 10, /* bytes; what is known is taken no further. A power of 2 */
        JUMP_MIN = 64,
        DEPTH_MAX = 1 << 20, /* bytes of one frame */
        DEPTH_LOST = -1,
        INT3 = 0xcc,
        FUNCTION_ALIGN = 32,

        LOST_REGISTERS = 1 << X86_RBX | 1 << X86_R12 | 1 << X86_R13 | 1 << X86_R14 | 1 << X86_R15,
};

typedef enum Known {
        KNOWN_NOTHING,       /* nothing comes here */
        KNOWN_LOST,          /* something does, but not where its frame is */
        KNOWN_LOST_PUSHED,   /* the same, rbp has just been pushed */
        KNOWN_ASTRAY,        /* the same, the return address is not at rsp any more */
        KNOWN_BY_RSP,        /* CFA = rsp + depth, rbp is the caller's */
        KNOWN_BY_RSP_PUSHED, /* the same, and it is saved at CFA - 16 */
        KNOWN_BY_RBP,        /* CFA = rbp + 16, rbp is saved there, CFA = rsp + depth unless lost */
        KNOWN_RETURN_POPPED, /* the return address is in `reg`, rbp is the caller's */
} Known;

typedef struct State {
        uint8_t known;
        uint8_t reg;
        int32_t depth;
} State;

typedef struct Code {
        CfiRows *rows;
        CfiBytes bytes;
        State state; /* before the instruction at bytes.p */
        State last_row;
        bool ends;      /* the last instruction but for padding needs not go on */
        bool nops;      /* padding by them, since then */
        size_t padding; /* bytes of int3, to which nothing goes, since then */
        bool by_int3;   /* functions are: whatever is not belongs to the same one */

        /* Since when the state is lost, and whether the registers are still what they were then. */
        uint64_t lost_vaddr;
        bool lost_rbp_kept, lost_rsp_kept;

        /* States at the instructions behind, and at targets of jumps ahead, by the last bits of
         * their address. */
        State *states;
        size_t reach; /* so far in both directions */
} Code;

static const State lost = {.known = KNOWN_LOST}, astray = {.known = KNOWN_ASTRAY};

static bool is_lost(State s)
{
        return s.known <= KNOWN_ASTRAY;
}

static bool state_equal(State a, State b)
{
        return a.known == b.known && a.reg == b.reg && a.depth == b.depth;
}

/* Where two ways meet, each place in code has one kind of frame: the one that is known. */
static State state_merge(State a, State b)
{
        if (is_lost(a))
                return b.known == KNOWN_NOTHING ? a : b;
        if (is_lost(b) || state_equal(a, b))
                return a;
        if (a.known == KNOWN_BY_RBP && b.known == KNOWN_BY_RBP)
                return (State){.known = KNOWN_BY_RBP, .depth = DEPTH_LOST};
        return lost;
}

/* rsp goes down by so many bytes. */
static State state_grow(State s, int64_t bytes)
{
        int64_t depth = s.depth + bytes;

        if (s.known == KNOWN_RETURN_POPPED)
                return s;
        if (is_lost(s))
                return astray;
        if (s.known == KNOWN_BY_RBP) {
                if (s.depth != DEPTH_LOST)
                        s.depth = depth >= 16 && depth <= DEPTH_MAX ? (int32_t)depth : DEPTH_LOST;
                return s;
        }
        /* V8: the return address is dropped, to go on in the caller's place, whose is below it. */
        if (s.known == KNOWN_BY_RSP && s.depth == 8 && bytes == -8)
                return lost;
        if (depth < (s.known == KNOWN_BY_RSP_PUSHED ? 16 : 8) || depth > DEPTH_MAX)
                return astray;
        s.depth = (int32_t)depth;
        return s;
}

static State state_push(State s, uint8_t reg)
{
        if (s.known == KNOWN_RETURN_POPPED && reg == s.reg)
                return (State){.known = KNOWN_BY_RSP, .depth = 8};
        if (s.known == KNOWN_LOST && reg == X86_INSN_RBP)
                return (State){.known = KNOWN_LOST_PUSHED};
        if (s.known == KNOWN_BY_RSP && s.depth == 8 && reg == X86_INSN_RBP)
                s.known = KNOWN_BY_RSP_PUSHED;
        return state_grow(s, 8);
}

static State state_pop(State s, uint8_t reg)
{
        bool saved = s.known == KNOWN_BY_RBP || s.known == KNOWN_BY_RSP_PUSHED;

        if (reg == X86_INSN_RBP)
                return saved && s.depth == 16 ? (State){.known = KNOWN_BY_RSP, .depth = 8} : astray;
        if (s.known == KNOWN_RETURN_POPPED)
                return reg == s.reg ? astray : s;
        if (s.known == KNOWN_BY_RSP && s.depth == 8 && reg != X86_INSN_NO_REG)
                return (State){.known = KNOWN_RETURN_POPPED, .reg = reg};
        return state_grow(s, -8);
}

/* What is known behind an instruction that goes on there. */
static State state_after(State s, const X86Insn *insn)
{
        switch (insn->kind) {
        case X86_PUSH:
                return state_push(s, insn->reg);
        case X86_POP:
                return state_pop(s, insn->reg);
        case X86_ADD_RSP:
                return state_grow(s, -(int64_t)insn->value);
        case X86_RBP_FROM_RSP:
                if (s.known == KNOWN_LOST_PUSHED ||
                        (s.known == KNOWN_BY_RSP_PUSHED && s.depth == 16))
                        return (State){.known = KNOWN_BY_RBP, .depth = 16};
                return astray;
        case X86_RSP_FROM_RBP:
                if (s.known != KNOWN_BY_RBP)
                        return astray;
                s.depth = 16;
                return state_grow(s, -(int64_t)insn->value);
        case X86_LEAVE:
                return s.known == KNOWN_BY_RBP ? (State){.known = KNOWN_BY_RSP, .depth = 8}
                                               : astray;
        case X86_SETS_RSP:
                if (s.known == KNOWN_RETURN_POPPED)
                        return s;
                if (s.known != KNOWN_BY_RBP)
                        return astray;
                s.depth = DEPTH_LOST;
                return s;
        case X86_SETS_RBP:
                return astray;
        case X86_CALL:
                return is_lost(s) ? (s.known == KNOWN_ASTRAY ? s : lost) : s;
        case X86_OTHER:
                if (s.known == KNOWN_RETURN_POPPED && insn->written & 1U << s.reg)
                        return astray;
                return s.known == KNOWN_LOST_PUSHED ? astray : s;
        case X86_BRANCH:
        case X86_JUMP:
                return s.known == KNOWN_LOST_PUSHED ? astray : s;
        case X86_JUMP_AWAY:
        case X86_RET:
        case X86_TRAP:
                break;
        }
        return (State){.known = KNOWN_NOTHING};
}

static int code_row(Code *c, uint64_t vaddr, State s)
{
        CfiRule rule = {.cfa = CFI_CFA_NONE};

        if (s.known == KNOWN_BY_RBP)
                s.depth = DEPTH_LOST; /* the rule is the same */
        if (state_equal(s, c->last_row) || cfi_rows_full(c->rows))
                return 0;
        c->last_row = s;
        if (s.known == KNOWN_BY_RSP || s.known == KNOWN_BY_RSP_PUSHED || s.known == KNOWN_BY_RBP) {
                rule.cfa = CFI_CFA_REG;
                rule.cfa_reg = s.known == KNOWN_BY_RBP ? X86_RBP : X86_RSP;
                rule.cfa_offset = s.known == KNOWN_BY_RBP ? 16 : s.depth;
                rule.how[X86_RIP] = CFI_REG_OFFSET;
                rule.offset[X86_RIP] = -8;
                rule.undef = (uint16_t)LOST_REGISTERS;
                for (unsigned reg = 0; reg < X86_RIP; reg++)
                        if (rule.undef & 1U << reg)
                                rule.how[reg] = CFI_REG_UNDEF;
        }
        if (s.known == KNOWN_BY_RBP) {
                rule.how[X86_RBP] = CFI_REG_OFFSET;
                rule.offset[X86_RBP] = -16;
                rule.moved = 1 << X86_RBP;
        }
        return error_trace(cfi_rows_add(c->rows, vaddr, &rule));
}

/* Code that nothing known leads to (what is behind a call, handlers of exceptions, targets of
 * tables, loops that are entered at their end) comes here, where the frame is known: it has the
 * same one. */
static int code_found(Code *c, State found)
{
        if (!is_lost(c->state) || !c->lost_rbp_kept || is_lost(found) ||
                found.known == KNOWN_RETURN_POPPED)
                return 0;
        if (!c->lost_rsp_kept && found.known != KNOWN_BY_RBP)
                return 0;
        if (!c->lost_rsp_kept)
                found.depth = DEPTH_LOST;
        c->state = found;
        return error_trace(code_row(c, c->lost_vaddr, c->state));
}

static State *code_state(const Code *c, uint64_t vaddr)
{
        return &c->states[vaddr & (2 * c->reach - 1)];
}

/* What is known where a jump goes; NULL: too far. */
static State *code_target(const Code *c, const X86Insn *insn)
{
        int64_t distance = (int64_t)insn->length + insn->value;

        if (distance >= (int64_t)c->reach || -distance >= (int64_t)c->reach)
                return NULL;
        return code_state(c, c->bytes.vaddr + (uint64_t)distance);
}

static void code_skip(Code *c, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                *code_state(c, c->bytes.vaddr + c->reach) = (State){.known = KNOWN_NOTHING};
                c->bytes.vaddr++;
        }
        c->bytes.p += n;
}

/* From the next instruction on, until more is known. */
static void code_lose(Code *c)
{
        c->lost_vaddr = c->bytes.vaddr;
        c->lost_rbp_kept = c->lost_rsp_kept = true;
}

static void code_begin_function(Code *c)
{
        c->state = (State){.known = KNOWN_BY_RSP, .depth = 8};
        c->by_int3 = true;
}

/* Padding is of more than one int3, and nothing goes there: a single one may say that the call before
 * it never returns. */
static bool code_begins(const Code *c, State jumped)
{
        return c->padding > 1 && c->bytes.vaddr % FUNCTION_ALIGN == 0 &&
               (is_lost(jumped) || (jumped.known == KNOWN_BY_RSP && jumped.depth == 8));
}

/* At the next instruction: what leads there, and what that tells. */
static int code_arrive(Code *c)
{
        State *jumped = code_state(c, c->bytes.vaddr);
        int r;

        if (code_begins(c, *jumped))
                code_begin_function(c);
        if (jumped->known != KNOWN_NOTHING)
                c->padding = 0;
        if (c->state.known == KNOWN_NOTHING)
                code_lose(c);
        else if ((r = code_found(c, *jumped)) != 0)
                return error_trace(r);
        c->state = state_merge(c->state, *jumped);
        if (c->state.known == KNOWN_NOTHING)
                c->state = lost;
        *jumped = c->state;
        return error_trace(code_row(c, c->bytes.vaddr, c->state));
}

/* While the frame is not known: what becomes of the registers. */
static void code_keep(Code *c, const X86Insn *insn)
{
        bool stack = insn->kind == X86_PUSH || insn->kind == X86_POP;

        if (insn->kind == X86_SETS_RBP || insn->kind == X86_LEAVE ||
                insn->kind == X86_RBP_FROM_RSP || (stack && insn->reg == X86_INSN_RBP))
                c->lost_rbp_kept = false;
        if (stack || insn->kind == X86_ADD_RSP || insn->kind == X86_RSP_FROM_RBP ||
                insn->kind == X86_SETS_RSP)
                c->lost_rsp_kept = false;
}

static bool is_nop(const uint8_t *p, size_t length)
{
        while (length > 1 && (*p == 0x66 || *p == 0x2e)) {
                p++;
                length--;
        }
        return (length == 1 && *p == 0x90) || (length > 2 && p[0] == 0x0f && p[1] == 0x1f);
}

/* What is between functions. */
static void code_pad(Code *c, const X86Insn *insn)
{
        if (c->ends && is_nop(c->bytes.p, insn->length)) {
                c->nops = true;
                return;
        }
        if (*c->bytes.p == INT3) {
                c->padding = c->ends ? c->padding + 1 : 0;
                return;
        }
        if (c->nops && c->padding == 0)
                c->by_int3 = false;
        c->nops = false;
        c->padding = 0;
        c->ends = insn->kind >= X86_JUMP_AWAY || insn->kind == X86_JUMP || insn->kind == X86_CALL;
}

static int code_step(Code *c)
{
        State *target = NULL;
        X86Insn insn;
        bool was_lost;
        int r;

        r = code_arrive(c);
        if (r)
                return error_trace(r);
        if (!x86_insn_decode(c->bytes.p, (size_t)(c->bytes.end - c->bytes.p), &insn)) {
                c->state = lost;
                c->ends = c->lost_rbp_kept = false;
                c->padding = 0;
                code_skip(c, 1);
                return 0;
        }
        if (insn.kind == X86_JUMP || insn.kind == X86_BRANCH)
                target = code_target(c, &insn);
        if (target)
                r = code_found(c, *target);
        if (r)
                return error_trace(r);
        if (target && insn.value >= 0)
                *target = state_merge(state_after(c->state, &insn), *target);
        code_pad(c, &insn);
        was_lost = is_lost(c->state);
        c->state = insn.kind == X86_JUMP ? (State){.known = KNOWN_NOTHING}
                                         : state_after(c->state, &insn);
        code_skip(c, insn.length);
        if (was_lost)
                code_keep(c, &insn);
        else
                c->lost_rbp_kept = false;
        /* What does not return may be the end of a function, with another one behind it. */
        if (insn.kind == X86_CALL && !c->by_int3) {
                c->state = c->state.known == KNOWN_ASTRAY ? astray : lost;
                code_lose(c);
        }
        return 0;
}

int cfi_code_rows(CfiRows *rows, CfiBytes code)
{
        Code c = {.rows = rows, .bytes = code, .state = lost, .reach = JUMP_MIN};
        int r = 0;

        if (code.p == code.end)
                return 0;
        while (c.reach < JUMP_MAX && c.reach < (size_t)(code.end - code.p))
                c.reach *= 2;
        c.states = calloc(2 * c.reach, sizeof(*c.states));
        if (!c.states)
                return error_origin(-ENOMEM);
        c.last_row = (State){.known = KNOWN_BY_RSP}; /* the row before is of something else */
        while (r == 0 && c.bytes.p < c.bytes.end && !cfi_rows_full(rows))
                r = code_step(&c);
        free(c.states);
        if (r)
                return error_trace(r);
        return error_trace(cfi_rows_add(rows, c.bytes.vaddr, &cfi_rule_none));
}
