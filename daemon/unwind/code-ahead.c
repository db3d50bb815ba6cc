/* SPDX-License-Identifier: Apache-2.0 */
#include "unwind/code-ahead.h"
#include "unwind/x86-insn.h"

/* What was run through so far, and did. */
typedef struct Path {
        int32_t moved;    /* rsp is up by so many bytes */
        bool rsp_lost;    /* not known: a callee may have popped its arguments */
        bool popped;      /* something */
        bool rbp_popped;  /* rbp, from: */
        int32_t rbp_from; /* the first rsp + rbp_from */
        bool called;
} Path;

/* One of those that the code may go. */
typedef struct Way {
        Path path;
        size_t at;
} Way;

enum {
        WAYS_MAX = 8,
};

static const Ahead unknown = {.kind = AHEAD_UNKNOWN};

static Ahead at_return(const Path *p)
{
        if (p->rsp_lost)
                return unknown;
        return (Ahead){.kind = p->rbp_popped ? AHEAD_PUSHED : AHEAD_NO_FRAME,
                .cfa_offset = p->moved + 8,
                .rbp_offset = p->rbp_from};
}

/* "push %rbp; mov %rsp, %rbp" comes next: the return address is at rsp then. It may be another one
 * than is there now, if something was popped: V8's prologues that are functions of their own. */
static Ahead at_prologue(const Path *p)
{
        return p->rsp_lost || p->popped
                       ? unknown
                       : (Ahead){.kind = AHEAD_NO_FRAME, .cfa_offset = p->moved + 8};
}

static bool is_prologue(const uint8_t *code, size_t n)
{
        X86Insn push, move;

        return x86_insn_decode(code, n, &push) && push.kind == X86_PUSH &&
               push.reg == X86_INSN_RBP &&
               x86_insn_decode(code + push.length, n - push.length, &move) &&
               move.kind == X86_RBP_FROM_RSP;
}

/* Return: whether it goes on behind the instruction; else *ret is what is known. */
static bool step(Path *p, const X86Insn *insn, Ahead *ret)
{
        *ret = unknown;
        switch (insn->kind) {
        case X86_OTHER:
        case X86_BRANCH:
        case X86_JUMP:
                return true;
        case X86_PUSH:
                p->moved -= 8;
                /* Behind a call that does not return another function may begin. */
                return insn->reg != X86_INSN_RBP || !p->called;
        case X86_POP:
                p->popped = true;
                if (insn->reg == X86_INSN_RBP) {
                        if (p->rsp_lost || p->rbp_popped)
                                return false;
                        p->rbp_popped = true;
                        p->rbp_from = p->moved;
                }
                p->moved += 8;
                return true;
        case X86_ADD_RSP:
                p->moved += insn->value;
                return insn->value > -(1 << 20) && insn->value < 1 << 20;
        case X86_SETS_RSP:
                p->rsp_lost = true;
                return true;
        case X86_CALL:
                p->rsp_lost = p->called = true;
                return true;
        case X86_RSP_FROM_RBP:
        case X86_LEAVE:
                if (!p->rbp_popped)
                        ret->kind = AHEAD_FRAME;
                return false;
        case X86_RET:
                *ret = at_return(p);
                return false;
        case X86_RBP_FROM_RSP:
        case X86_SETS_RBP:
        case X86_JUMP_AWAY:
        case X86_TRAP:
                return false;
        }
        return false;
}

/* From code + at on. Branches that are not taken are kept as further ways. */
static Ahead run(const uint8_t *code, size_t n, Way way, Way *ways, size_t *n_ways)
{
        X86Insn insn;
        Ahead known;

        while (x86_insn_decode(code + way.at, n - way.at, &insn)) {
                if (is_prologue(code + way.at, n - way.at))
                        return at_prologue(&way.path);
                if (!step(&way.path, &insn, &known))
                        return known;
                way.at += insn.length;
                if (insn.kind != X86_JUMP && insn.kind != X86_BRANCH)
                        continue;
                if (insn.value < 0 || (size_t)insn.value >= n - way.at) {
                        if (insn.kind == X86_JUMP)
                                return unknown;
                        continue;
                }
                if (insn.kind == X86_BRANCH && *n_ways < WAYS_MAX)
                        ways[(*n_ways)++] = (Way){way.path, way.at + (size_t)insn.value};
                else if (insn.kind == X86_JUMP)
                        way.at += (size_t)insn.value;
        }
        return unknown;
}

Ahead code_ahead(const uint8_t *code, size_t n)
{
        Way ways[WAYS_MAX] = {0};
        size_t n_ways = 1;
        Ahead known = unknown;
        X86Insn insn;

        /* Between the two instructions of a prologue. */
        if (x86_insn_decode(code, n, &insn) && insn.kind == X86_RBP_FROM_RSP)
                return (Ahead){.kind = AHEAD_PUSHED, .is_rbp = true, .cfa_offset = 16};
        /* Whichever way it goes, the frame is the same. */
        for (size_t i = 0; i < n_ways && known.kind == AHEAD_UNKNOWN; i++)
                known = run(code, n, ways[i], ways, &n_ways);
        return known;
}
