/* SPDX-License-Identifier: Apache-2.0 */
#include <dwarf.h>
#include <string.h>

#include "unwind/cfi-program.h"

enum {
        AUGMENTATION_MAX = 8, /* letters: "zPLRS" and the like */
};

/* What one instruction did. */
typedef enum Step {
        STEP_DONE,
        STEP_ADVANCED, /* p->pc is to become another */
        STEP_BROKEN,
} Step;

static bool take_fixed(CfiBytes *b, size_t n, uint64_t *ret)
{
        uint64_t value = 0;

        if ((size_t)(b->end - b->p) < n)
                return false;
        memcpy(&value, b->p, n); /* little endian, as this machine */
        b->p += n;
        b->vaddr += n;
        *ret = value;
        return true;
}

/* Bits above the 64th are dropped; *ret_shift is how many were read, for the sign. */
static bool take_leb(CfiBytes *b, uint64_t *ret, unsigned *ret_shift, bool *ret_negative)
{
        uint64_t value = 0, byte;
        unsigned shift = 0;

        do {
                if (!take_fixed(b, 1, &byte))
                        return false;
                if (shift < 64)
                        value |= (byte & 0x7f) << shift;
                shift = shift < 64 ? shift + 7 : 64;
        } while (byte & 0x80);
        *ret = value;
        *ret_shift = shift;
        *ret_negative = byte & 0x40;
        return true;
}

bool cfi_bytes_uleb(CfiBytes *b, uint64_t *ret)
{
        unsigned shift;
        bool negative;

        return take_leb(b, ret, &shift, &negative);
}

static bool take_sleb(CfiBytes *b, int64_t *ret)
{
        uint64_t value;
        unsigned shift;
        bool negative;

        if (!take_leb(b, &value, &shift, &negative))
                return false;
        if (negative && shift < 64)
                value |= UINT64_MAX << shift;
        *ret = (int64_t)value;
        return true;
}

bool cfi_bytes_address(CfiBytes *b, uint8_t encoding, uint64_t *ret)
{
        uint64_t value, relative;

        switch (encoding & 0x70) {
        case DW_EH_PE_absptr:
                relative = 0;
                break;
        case DW_EH_PE_pcrel:
                relative = b->vaddr;
                break;
        default:
                return false;
        }
        switch (encoding & 0x8f) { /* with DW_EH_PE_indirect, which no code address has */
        case DW_EH_PE_absptr:
        case DW_EH_PE_udata8:
        case DW_EH_PE_sdata8:
                if (!take_fixed(b, 8, &value))
                        return false;
                break;
        case DW_EH_PE_udata4:
                if (!take_fixed(b, 4, &value))
                        return false;
                break;
        case DW_EH_PE_sdata4:
                if (!take_fixed(b, 4, &value))
                        return false;
                value = (uint64_t)(int64_t)(int32_t)value;
                break;
        case DW_EH_PE_udata2:
                if (!take_fixed(b, 2, &value))
                        return false;
                break;
        case DW_EH_PE_sdata2:
                if (!take_fixed(b, 2, &value))
                        return false;
                value = (uint64_t)(int64_t)(int16_t)value;
                break;
        default:
                return false;
        }
        *ret = value + relative;
        return true;
}

/* The next `n` bytes as a piece of its own. */
static bool take_block(CfiBytes *b, CfiBytes *ret)
{
        uint64_t n;

        if (!cfi_bytes_uleb(b, &n) || n > (uint64_t)(b->end - b->p))
                return false;
        *ret = (CfiBytes){.p = b->p, .end = b->p + n, .vaddr = b->vaddr};
        b->p += n;
        b->vaddr += n;
        return true;
}

bool cfi_cie_augmentation(CfiCie *cie, const char *letters, CfiBytes b)
{
        uint64_t ignored;
        uint8_t encoding;

        cie->encoding = DW_EH_PE_absptr;
        if (letters[0] == '\0')
                return true;
        if (letters[0] != 'z' || strnlen(letters, AUGMENTATION_MAX + 1) > AUGMENTATION_MAX)
                return false;
        cie->augmented = true;
        for (letters++; *letters; letters++)
                switch (*letters) {
                case 'S':
                        cie->signal = true;
                        break;
                case 'L':
                case 'P':
                case 'R':
                        if (b.p == b.end)
                                return false;
                        encoding = *b.p++;
                        if (*letters == 'R')
                                cie->encoding = encoding;
                        if (*letters == 'P' && !cfi_bytes_address(&b, encoding & 0x0f, &ignored))
                                return false;
                        break;
                default:
                        return false;
                }
        return true;
}

static void rule_set(CfiRule *rule, uint64_t reg, CfiReg how, int32_t offset)
{
        uint16_t bit;

        if (reg >= N_REGS)
                return; /* vector registers and the like: callers need not keep them */
        rule->how[reg] = how;
        rule->offset[reg] = offset;
        if (reg == X86_RIP)
                return;
        bit = (uint16_t)(1U << reg);
        rule->moved &= ~bit;
        rule->undef &= ~bit;
        if (how == CFI_REG_UNDEF)
                rule->undef |= bit;
        else if (how != CFI_REG_SAME)
                rule->moved |= bit;
}

/* Offsets count in units of the CIE's data alignment. */
static bool factored(const CfiCie *cie, int64_t units, int32_t *ret)
{
        int64_t offset;

        if (__builtin_mul_overflow(units, cie->data_align, &offset) || offset != (int32_t)offset)
                return false;
        *ret = (int32_t)offset;
        return true;
}

static bool rule_set_factored(
        const CfiCie *cie, CfiRule *rule, uint64_t reg, CfiReg how, int64_t units)
{
        int32_t offset;

        if (!factored(cie, units, &offset))
                return false;
        if (reg == X86_RSP && how == CFI_REG_VALUE && offset == 0)
                how = CFI_REG_SAME;
        rule_set(rule, reg, how, offset);
        return true;
}

static bool rule_set_cfa(CfiRule *rule, uint64_t reg, int64_t offset)
{
        if (reg > X86_RIP || offset != (int32_t)offset)
                return false;
        rule->cfa = CFI_CFA_REG;
        rule->cfa_reg = (uint8_t)reg;
        rule->cfa_offset = (int32_t)offset;
        rule->cfa_offset2 = 0;
        return true;
}

/* DW_OP_breg0…16, or DW_OP_bregx: a register plus an offset. */
static bool take_breg(CfiBytes *b, uint64_t *ret_reg, int32_t *ret_offset)
{
        uint64_t op, reg;
        int64_t offset;

        if (!take_fixed(b, 1, &op))
                return false;
        if (op == DW_OP_bregx) {
                if (!cfi_bytes_uleb(b, &reg))
                        return false;
        } else if (op >= DW_OP_breg0 && op <= DW_OP_breg31) {
                reg = op - DW_OP_breg0;
        } else {
                return false;
        }
        if (reg >= N_REGS || !take_sleb(b, &offset) || offset != (int32_t)offset)
                return false;
        *ret_reg = reg;
        *ret_offset = (int32_t)offset;
        return true;
}

/* Linkers write this for their PLT; the constant is where in a 16-byte stub the second push ends.
 */
static bool is_plt(const CfiBytes *b, int32_t *ret_constant)
{
        static const uint8_t head[] = {DW_OP_breg7, 8, DW_OP_breg16, 0, DW_OP_lit15, DW_OP_and};
        static const uint8_t tail[] = {DW_OP_ge, DW_OP_lit3, DW_OP_shl, DW_OP_plus};
        size_t n = b->end - b->p;

        if (n != sizeof(head) + 1 + sizeof(tail) || memcmp(b->p, head, sizeof(head)) != 0 ||
                memcmp(b->p + sizeof(head) + 1, tail, sizeof(tail)) != 0 ||
                b->p[sizeof(head)] < DW_OP_lit0 || b->p[sizeof(head)] > DW_OP_lit15)
                return false;
        *ret_constant = b->p[sizeof(head)] - DW_OP_lit0;
        return true;
}

/* The forms that compilers, linkers and hand-written assembly use; any other leaves no CFA. */
static void rule_set_cfa_expression(const CfiCie *cie, CfiRule *rule, CfiBytes b)
{
        int32_t offset, constant;
        uint64_t reg, op, add = 0;

        rule->cfa = CFI_CFA_NONE;
        rule->cfa_reg = 0;
        rule->cfa_offset = rule->cfa_offset2 = 0;

        if (is_plt(&b, &constant)) {
                rule->cfa = CFI_CFA_PLT;
                rule->cfa_reg = X86_RSP;
                rule->cfa_offset = constant;
                return;
        }
        if (!take_breg(&b, &reg, &offset))
                return;
        if (b.p == b.end) {
                rule_set_cfa(rule, reg, offset);
                return;
        }
        if (!take_fixed(&b, 1, &op) || op != DW_OP_deref)
                return;
        if (b.p != b.end && (!take_fixed(&b, 1, &op) || op != DW_OP_plus_uconst ||
                                    !cfi_bytes_uleb(&b, &add) || add > INT32_MAX || b.p != b.end))
                return;
        /* The trampoline of the C library: rsp points to the ucontext_t, whose rsp lies at 160. */
        if (cie->signal && reg == X86_RSP && offset == 160 && add == 0) {
                rule->cfa = CFI_CFA_SIGNAL;
                return;
        }
        rule->cfa = CFI_CFA_DEREF;
        rule->cfa_reg = (uint8_t)reg;
        rule->cfa_offset = offset;
        rule->cfa_offset2 = (int32_t)add;
}

/* A register saved where an expression says. What is not understood loses that register alone. */
static void rule_set_expression(CfiRule *rule, uint64_t reg, CfiBytes b)
{
        int32_t offset;
        uint64_t base;

        if (take_breg(&b, &base, &offset) && b.p == b.end && base == X86_RBP)
                rule_set(rule, reg, CFI_REG_AT_RBP, offset);
        else
                rule_set(rule, reg, reg == X86_RIP ? CFI_REG_SAME : CFI_REG_UNDEF, 0);
}

static Step step_advance(CfiProgram *p, uint64_t delta, uint64_t *ret_pc)
{
        uint64_t bytes;

        if (__builtin_mul_overflow(delta, p->cie->code_align, &bytes) ||
                __builtin_add_overflow(p->pc, bytes, ret_pc))
                return STEP_BROKEN;
        return STEP_ADVANCED;
}

static Step step_restore(CfiProgram *p, uint64_t reg)
{
        if (reg < N_REGS)
                rule_set(&p->rule, reg, p->cie->initial.how[reg], p->cie->initial.offset[reg]);
        return STEP_DONE;
}

static Step step_extended(CfiProgram *p, uint8_t op, uint64_t *ret_pc)
{
        CfiBytes *b = &p->bytes, block;
        CfiRule *rule = &p->rule;
        uint64_t reg, n;
        int64_t offset;
        int32_t bytes;

        switch (op) {
        case DW_CFA_nop:
                return STEP_DONE;
        case DW_CFA_set_loc:
                return cfi_bytes_address(b, p->cie->encoding, ret_pc) && *ret_pc >= p->pc
                               ? STEP_ADVANCED
                               : STEP_BROKEN;
        case DW_CFA_advance_loc1:
                return take_fixed(b, 1, &n) ? step_advance(p, n, ret_pc) : STEP_BROKEN;
        case DW_CFA_advance_loc2:
                return take_fixed(b, 2, &n) ? step_advance(p, n, ret_pc) : STEP_BROKEN;
        case DW_CFA_advance_loc4:
                return take_fixed(b, 4, &n) ? step_advance(p, n, ret_pc) : STEP_BROKEN;
        case DW_CFA_remember_state:
                if (p->n_states == CFI_STATES_MAX)
                        return STEP_BROKEN;
                p->states[p->n_states++] = *rule;
                return STEP_DONE;
        case DW_CFA_restore_state:
                if (p->n_states == 0)
                        return STEP_BROKEN;
                *rule = p->states[--p->n_states];
                return STEP_DONE;
        case DW_CFA_GNU_args_size:
                return cfi_bytes_uleb(b, &n) ? STEP_DONE : STEP_BROKEN;
        case DW_CFA_def_cfa_expression:
                if (!take_block(b, &block))
                        return STEP_BROKEN;
                rule_set_cfa_expression(p->cie, rule, block);
                return STEP_DONE;
        case DW_CFA_def_cfa_offset:
                if (!cfi_bytes_uleb(b, &n) || n > INT32_MAX || rule->cfa != CFI_CFA_REG)
                        return STEP_BROKEN;
                rule->cfa_offset = (int32_t)n;
                return STEP_DONE;
        case DW_CFA_def_cfa_offset_sf:
                if (!take_sleb(b, &offset) || rule->cfa != CFI_CFA_REG ||
                        !factored(p->cie, offset, &bytes))
                        return STEP_BROKEN;
                rule->cfa_offset = bytes;
                return STEP_DONE;
        }

        /* All others begin with a register. */
        if (!cfi_bytes_uleb(b, &reg))
                return STEP_BROKEN;
        switch (op) {
        case DW_CFA_def_cfa:
                return cfi_bytes_uleb(b, &n) && n <= INT32_MAX &&
                                       rule_set_cfa(rule, reg, (int64_t)n)
                               ? STEP_DONE
                               : STEP_BROKEN;
        case DW_CFA_def_cfa_sf:
                return take_sleb(b, &offset) && factored(p->cie, offset, &bytes) &&
                                       rule_set_cfa(rule, reg, bytes)
                               ? STEP_DONE
                               : STEP_BROKEN;
        case DW_CFA_def_cfa_register:
                return rule->cfa == CFI_CFA_REG && rule_set_cfa(rule, reg, rule->cfa_offset)
                               ? STEP_DONE
                               : STEP_BROKEN;
        case DW_CFA_restore_extended:
                return step_restore(p, reg);
        case DW_CFA_undefined:
                rule_set(rule, reg, CFI_REG_UNDEF, 0);
                return STEP_DONE;
        case DW_CFA_same_value:
                rule_set(rule, reg, CFI_REG_SAME, 0);
                return STEP_DONE;
        case DW_CFA_register:
                if (!cfi_bytes_uleb(b, &n))
                        return STEP_BROKEN;
                if (n < N_REGS)
                        rule_set(rule, reg, CFI_REG_COPY, (int32_t)n);
                else
                        rule_set(rule, reg, reg == X86_RIP ? CFI_REG_SAME : CFI_REG_UNDEF, 0);
                return STEP_DONE;
        case DW_CFA_offset_extended:
        case DW_CFA_val_offset:
        case DW_CFA_GNU_negative_offset_extended:
                if (!cfi_bytes_uleb(b, &n) || n > INT32_MAX)
                        return STEP_BROKEN;
                offset = op == DW_CFA_GNU_negative_offset_extended ? -(int64_t)n : (int64_t)n;
                break;
        case DW_CFA_offset_extended_sf:
        case DW_CFA_val_offset_sf:
                if (!take_sleb(b, &offset))
                        return STEP_BROKEN;
                break;
        case DW_CFA_expression:
                if (!take_block(b, &block))
                        return STEP_BROKEN;
                rule_set_expression(rule, reg, block);
                return STEP_DONE;
        case DW_CFA_val_expression:
                if (!take_block(b, &block))
                        return STEP_BROKEN;
                rule_set(rule, reg, reg == X86_RIP ? CFI_REG_SAME : CFI_REG_UNDEF, 0);
                return STEP_DONE;
        default:
                return STEP_BROKEN;
        }
        return rule_set_factored(p->cie, rule, reg,
                       op == DW_CFA_val_offset || op == DW_CFA_val_offset_sf ? CFI_REG_VALUE
                                                                             : CFI_REG_OFFSET,
                       offset)
                       ? STEP_DONE
                       : STEP_BROKEN;
}

static Step step(CfiProgram *p, uint64_t *ret_pc)
{
        CfiBytes *b = &p->bytes;
        uint64_t op, n;

        if (!take_fixed(b, 1, &op))
                return STEP_BROKEN;
        switch (op & 0xc0) {
        case DW_CFA_advance_loc:
                return step_advance(p, op & 0x3f, ret_pc);
        case DW_CFA_offset:
                return cfi_bytes_uleb(b, &n) && n <= INT32_MAX &&
                                       rule_set_factored(p->cie, &p->rule, op & 0x3f,
                                               CFI_REG_OFFSET, (int64_t)n)
                               ? STEP_DONE
                               : STEP_BROKEN;
        case DW_CFA_restore:
                return step_restore(p, op & 0x3f);
        default:
                return step_extended(p, (uint8_t)op, ret_pc);
        }
}

int cfi_cie_run(CfiCie *cie, CfiBytes instructions)
{
        CfiProgram p;
        uint64_t pc;

        cie->initial = (CfiRule){.cfa = CFI_CFA_NONE};
        cfi_program_init(&p, cie, instructions, 0, 0);
        while (p.bytes.p < p.bytes.end)
                if (step(&p, &pc) != STEP_DONE)
                        return CFI_PROGRAM_E_BROKEN;
        cie->initial = p.rule;
        return 0;
}

void cfi_program_init(
        CfiProgram *p, const CfiCie *cie, CfiBytes instructions, uint64_t start, uint64_t end)
{
        p->cie = cie;
        p->bytes = instructions;
        p->pc = start;
        p->end = end;
        p->rule = cie->initial;
        p->n_states = 0;
}

int cfi_program_next(
        CfiProgram *p, uint64_t *ret_start, uint64_t *ret_end, const CfiRule **ret_rule)
{
        uint64_t start = p->pc;

        if (start >= p->end)
                return CFI_PROGRAM_E_END;
        while (p->bytes.p < p->bytes.end) {
                uint64_t pc;

                switch (step(p, &pc)) {
                case STEP_DONE:
                        break;
                case STEP_BROKEN:
                        p->pc = p->end;
                        return CFI_PROGRAM_E_BROKEN;
                case STEP_ADVANCED:
                        if (pc == start)
                                break;
                        p->pc = pc;
                        *ret_start = start;
                        *ret_end = pc < p->end ? pc : p->end;
                        *ret_rule = &p->rule;
                        return 0;
                }
        }
        p->pc = p->end;
        *ret_start = start;
        *ret_end = p->end;
        *ret_rule = &p->rule;
        return 0;
}
