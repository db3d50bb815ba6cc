/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "unwind/x86-insn.h"

/* Intel's manual, volume 2, appendix A: the opcode maps. */

enum {
        LENGTH_MAX = 15,
        REX_W = 8,
        REX_R = 4,
        REX_B = 1,
};

typedef enum Map {
        MAP_ONE_BYTE,
        MAP_0F,
        MAP_0F38,
        MAP_0F3A,
        MAP_EVEX_FP16, /* EVEX alone: maps 5 and 6 */
} Map;

typedef struct Decoder {
        const uint8_t *p, *end;
        bool operand16, address32, vex;
        uint8_t rex; /* of VEX and EVEX, too, as far as they have its bits */
        uint8_t vvvv;
        bool has_rex;
        Map map;
        uint8_t op;
        uint8_t mod, reg, rm; /* reg and rm with the bits of REX */
        int32_t disp;         /* of the memory operand; no more than is asked for here */
        bool rbp_based;       /* memory at rbp + disp, no index */
        bool rsp_based;
        int64_t imm;
} Decoder;

static bool take(Decoder *d, size_t n, int64_t *ret)
{
        uint64_t value = 0;
        unsigned unused = 64 - 8 * (unsigned)n;

        if ((size_t)(d->end - d->p) < n)
                return false;
        memcpy(&value, d->p, n);
        d->p += n;
        *ret = n == 0 ? 0 : (int64_t)(value << unused) >> unused;
        return true;
}

static bool take_vex(Decoder *d, uint8_t first)
{
        int64_t a, b = 0, c = 0;

        if (!take(d, 1, &a) || (first != 0xc5 && !take(d, 1, &b)) ||
                (first == 0x62 && !take(d, 1, &c)))
                return false;
        d->vex = true;
        if (first == 0xc5) { /* R vvvv L pp */
                d->map = MAP_0F;
                d->rex = a & 0x80 ? 0 : REX_R;
                d->vvvv = ~(a >> 3) & 15;
                return true;
        }
        switch (a & (first == 0x62 ? 7 : 31)) { /* R X B … map; then W vvvv … pp */
        case 1:
                d->map = MAP_0F;
                break;
        case 2:
                d->map = MAP_0F38;
                break;
        case 3:
                d->map = MAP_0F3A;
                break;
        case 5:
        case 6:
                d->map = MAP_EVEX_FP16;
                break;
        default:
                return false;
        }
        d->rex =
                (uint8_t)((a & 0x80 ? 0 : REX_R) | (a & 0x20 ? 0 : REX_B) | (b & 0x80 ? REX_W : 0));
        d->vvvv = ~(b >> 3) & 15;
        return true;
}

/* Prefixes and the opcode. */
static bool take_opcode(Decoder *d)
{
        int64_t byte;

        for (;;) {
                if (!take(d, 1, &byte))
                        return false;
                d->op = (uint8_t)byte;
                switch (d->op) {
                case 0x66:
                        d->operand16 = true;
                        continue;
                case 0x67:
                        d->address32 = true;
                        continue;
                case 0x26:
                case 0x2e:
                case 0x36:
                case 0x3e:
                case 0x64:
                case 0x65:
                case 0xf0:
                case 0xf2:
                case 0xf3:
                        continue;
                }
                break;
        }
        if ((d->op & 0xf0) == 0x40) {
                d->has_rex = true;
                d->rex = d->op & 15;
                if (!take(d, 1, &byte))
                        return false;
                d->op = (uint8_t)byte;
        }
        if (d->op == 0xc4 || d->op == 0xc5 || d->op == 0x62) {
                if (d->has_rex || !take_vex(d, d->op) || !take(d, 1, &byte))
                        return false;
                d->op = (uint8_t)byte;
                return true;
        }
        for (; d->op == 0x0f && d->map == MAP_ONE_BYTE; d->op = (uint8_t)byte) {
                d->map = MAP_0F;
                if (!take(d, 1, &byte))
                        return false;
        }
        if (d->map == MAP_0F && (d->op == 0x38 || d->op == 0x3a)) {
                d->map = d->op == 0x38 ? MAP_0F38 : MAP_0F3A;
                if (!take(d, 1, &byte))
                        return false;
                d->op = (uint8_t)byte;
        }
        return true;
}

static bool is_within(uint8_t op, uint8_t first, uint8_t last)
{
        return op >= first && op <= last;
}

static bool has_modrm(const Decoder *d)
{
        uint8_t op = d->op;

        if (d->map == MAP_0F)
                return op != 0x77 && !is_within(op, 0x05, 0x09) && op != 0x0b &&
                       !is_within(op, 0x30, 0x37) && (d->vex || !is_within(op, 0x80, 0x8f)) &&
                       !is_within(op, 0xa0, 0xa2) && !is_within(op, 0xa8, 0xaa) &&
                       !is_within(op, 0xc8, 0xcf);
        if (d->map != MAP_ONE_BYTE)
                return true;
        return (op < 0x40 && (op & 7) < 4) || op == 0x63 || op == 0x69 || op == 0x6b ||
               is_within(op, 0x80, 0x8f) || op == 0xc0 || op == 0xc1 || op == 0xc6 || op == 0xc7 ||
               is_within(op, 0xd0, 0xd3) || is_within(op, 0xd8, 0xdf) || op == 0xf6 || op == 0xf7 ||
               op == 0xfe || op == 0xff;
}

static bool is_invalid(const Decoder *d)
{
        uint8_t op = d->op;

        return d->map == MAP_ONE_BYTE &&
               ((op < 0x40 && (op & 7) >= 6) || op == 0x60 || op == 0x61 || op == 0x82 ||
                       op == 0x9a || op == 0xce || is_within(op, 0xd4, 0xd6) || op == 0xea ||
                       is_within(op, 0x40, 0x4f));
}

static size_t immediate_size(const Decoder *d)
{
        size_t z = d->operand16 ? 2 : 4;
        uint8_t op = d->op;

        switch (d->map) {
        case MAP_0F:
                if (!d->vex && is_within(op, 0x80, 0x8f))
                        return 4;
                return is_within(op, 0x70, 0x73) || op == 0xa4 || op == 0xac || op == 0xba ||
                                       op == 0xc2 || is_within(op, 0xc4, 0xc6) || op == 0x0f
                               ? 1
                               : 0;
        case MAP_0F38:
        case MAP_EVEX_FP16:
                return 0;
        case MAP_0F3A:
                return 1;
        case MAP_ONE_BYTE:
                break;
        }
        if (op < 0x40)
                return (op & 7) == 4 ? 1 : (op & 7) == 5 ? z : 0;
        if (is_within(op, 0xa0, 0xa3))
                return d->address32 ? 4 : 8;
        if (is_within(op, 0xb8, 0xbf))
                return d->rex & REX_W ? 8 : z;
        if (op == 0xf6 || op == 0xf7) /* test alone has one */
                return (d->reg & 7) > 1 ? 0 : op == 0xf6 ? 1 : z;
        switch (op) {
        case 0x68:
        case 0x69:
        case 0x81:
        case 0xa9:
        case 0xc7:
                return z;
        case 0xc2:
        case 0xca:
                return 2;
        case 0xc8:
                return 3;
        case 0xe8:
        case 0xe9:
                return 4;
        case 0x6a:
        case 0x6b:
        case 0x80:
        case 0x83:
        case 0xa8:
        case 0xc0:
        case 0xc1:
        case 0xc6:
        case 0xcd:
        case 0xeb:
                return 1;
        }
        return is_within(op, 0x70, 0x7f) || is_within(op, 0xb0, 0xb7) || is_within(op, 0xe0, 0xe7);
}

static bool take_modrm(Decoder *d)
{
        int64_t byte, disp = 0;
        size_t n;

        if (!take(d, 1, &byte))
                return false;
        d->mod = (byte >> 6) & 3;
        d->reg = (uint8_t)(((byte >> 3) & 7) | (d->rex & REX_R ? 8 : 0));
        d->rm = (uint8_t)((byte & 7) | (d->rex & REX_B ? 8 : 0));
        if (d->mod == 3)
                return true;
        n = d->mod == 1 ? 1 : d->mod == 2 ? 4 : 0;
        d->rbp_based = d->rm == X86_INSN_RBP && d->mod != 0;
        if ((byte & 7) == 4) {
                if (!take(d, 1, &byte))
                        return false;
                if (d->mod == 0 && (byte & 7) == 5)
                        n = 4;
                d->rsp_based = byte == 0x24 && !(d->rex & REX_B);
        } else if (d->mod == 0 && (byte & 7) == 5) {
                n = 4; /* rip-relative */
        }
        if (!take(d, n, &disp))
                return false;
        d->disp = (int32_t)disp;
        return true;
}

/* Which general register it writes, beyond rax and rdx of some: a bit mask. */
static uint32_t written_one_byte(const Decoder *d)
{
        uint32_t reg = 1U << d->reg, rm = d->mod == 3 ? 1U << d->rm : 0;
        uint32_t low = 1U << ((d->op & 7) | (d->rex & REX_B ? 8 : 0));
        uint8_t op = d->op, group = d->reg & 7;

        if (op < 0x38)
                return (op & 7) < 2 ? rm : (op & 7) < 4 ? reg : 0;
        if (op == 0x63 || op == 0x69 || op == 0x6b || op == 0x8a || op == 0x8b || op == 0x8d)
                return reg;
        if (is_within(op, 0x80, 0x83))
                return group == 7 ? 0 : rm;
        if (op == 0x86 || op == 0x87)
                return reg | rm;
        if (op == 0x88 || op == 0x89 || op == 0x8c || op == 0x8f || op == 0xc0 || op == 0xc1 ||
                op == 0xc6 || op == 0xc7 || is_within(op, 0xd0, 0xd3))
                return rm;
        if (is_within(op, 0x91, 0x97) || is_within(op, 0xb0, 0xbf))
                return low;
        if (op == 0xf6 || op == 0xf7)
                return group == 2 || group == 3 ? rm : 0;
        if (op == 0xfe || op == 0xff)
                return group < 2 ? rm : 0;
        return 0;
}

static uint32_t written_0f(const Decoder *d)
{
        uint32_t reg = 1U << d->reg, rm = d->mod == 3 ? 1U << d->rm : 0;
        uint8_t op = d->op;

        if ((!d->vex && is_within(op, 0x40, 0x4f)) || op == 0x02 || op == 0x03 || op == 0x2c ||
                op == 0x2d || op == 0x50 || op == 0x78 || op == 0x79 || op == 0x93 || op == 0xaf ||
                op == 0xb6 || op == 0xb7 || op == 0xb8 || is_within(op, 0xbc, 0xbf) || op == 0xc5 ||
                op == 0xd7)
                return reg | (op == 0x93 ? rm : 0);
        if (op == 0xc0 || op == 0xc1)
                return reg | rm;
        if (op == 0x00 || op == 0x01 || op == 0x20 || op == 0x21 || op == 0x7e ||
                (!d->vex && is_within(op, 0x90, 0x9f)) || op == 0xa4 || op == 0xa5 || op == 0xab ||
                op == 0xac || op == 0xad || op == 0xae || op == 0xb0 || op == 0xb1 || op == 0xb3 ||
                op == 0xba || op == 0xbb || op == 0xc7)
                return rm;
        if (is_within(op, 0xc8, 0xcf))
                return 1U << ((op & 7) | (d->rex & REX_B ? 8 : 0));
        return 0;
}

static uint32_t written(const Decoder *d)
{
        uint32_t reg = 1U << d->reg, rm = d->mod == 3 ? 1U << d->rm : 0;
        uint8_t op = d->op;

        switch (d->map) {
        case MAP_ONE_BYTE:
                return written_one_byte(d);
        case MAP_0F:
                return written_0f(d);
        case MAP_0F38: /* movbe, crc32, adcx, and those of BMI */
                return is_within(op, 0xf0, 0xf7) ? reg | (d->vex ? 1U << d->vvvv : 0) : 0;
        case MAP_0F3A: /* pextr…, rorx */
                return is_within(op, 0x14, 0x17) ? rm : op == 0xf0 ? reg : 0;
        case MAP_EVEX_FP16:
                break;
        }
        return reg | rm;
}

/* Of a byte that is not in the low eight bits of rsp or rbp: ah, ch, dh, bh. */
static bool is_high_byte(const Decoder *d)
{
        uint8_t op = d->op;

        if (d->has_rex || d->vex)
                return false;
        if (d->map == MAP_0F)
                return is_within(op, 0x90, 0x9f) || op == 0xb0 || op == 0xc0;
        return d->map == MAP_ONE_BYTE &&
               ((op < 0x40 && !(op & 1)) || op == 0x80 || op == 0x86 || op == 0x88 || op == 0x8a ||
                       is_within(op, 0xb0, 0xb7) || op == 0xc0 || op == 0xc6 || op == 0xd0 ||
                       op == 0xd2 || op == 0xf6 || op == 0xfe);
}

/* Those that set rsp or rbp to what can be told. */
static bool is_frame_move(const Decoder *d, X86Insn *ret)
{
        uint8_t op = d->op;

        if (d->map != MAP_ONE_BYTE || !(d->rex & REX_W))
                return false;
        if (d->mod == 3 && (op == 0x89 || op == 0x8b)) {
                uint8_t to = op == 0x89 ? d->rm : d->reg, from = op == 0x89 ? d->reg : d->rm;

                if (to == X86_INSN_RBP && from == X86_INSN_RSP) {
                        ret->kind = X86_RBP_FROM_RSP;
                        return true;
                }
                if (to == X86_INSN_RSP && from == X86_INSN_RBP) {
                        ret->kind = X86_RSP_FROM_RBP;
                        return true;
                }
        }
        if (op == 0x8d && d->reg == X86_INSN_RSP && (d->rbp_based || d->rsp_based)) {
                ret->kind = d->rbp_based ? X86_RSP_FROM_RBP : X86_ADD_RSP;
                ret->value = d->disp;
                return true;
        }
        if ((op == 0x81 || op == 0x83) && d->mod == 3 && d->rm == X86_INSN_RSP &&
                (d->reg == 0 || d->reg == 5) && d->imm > INT32_MIN) {
                ret->kind = X86_ADD_RSP;
                ret->value = (int32_t)(d->reg == 0 ? d->imm : -d->imm);
                return true;
        }
        return false;
}

static void classify_flow(const Decoder *d, X86Insn *ret)
{
        uint8_t op = d->op, group = d->reg & 7;

        ret->value = (int32_t)d->imm;
        if (d->map == MAP_0F) {
                if (!d->vex && is_within(op, 0x80, 0x8f))
                        ret->kind = X86_BRANCH;
                else if (op == 0x0b || op == 0xb9 || op == 0xff || op == 0x07 || op == 0x35)
                        ret->kind = d->vex ? X86_OTHER : X86_TRAP;
                return;
        }
        if (d->map != MAP_ONE_BYTE)
                return;
        if (is_within(op, 0x70, 0x7f) || is_within(op, 0xe0, 0xe3))
                ret->kind = X86_BRANCH;
        else if (op == 0xe9 || op == 0xeb)
                ret->kind = X86_JUMP;
        else if (op == 0xe8 || (op == 0xff && (group == 2 || group == 3)))
                ret->kind = X86_CALL;
        else if (op == 0xff && (group == 4 || group == 5))
                ret->kind = X86_JUMP_AWAY;
        else if (op == 0xc2 || op == 0xc3 || op == 0xca || op == 0xcb || op == 0xcf)
                ret->kind = X86_RET;
        else if (op == 0xcc || op == 0xf1 || op == 0xf4)
                ret->kind = X86_TRAP;
}

static bool classify_stack(const Decoder *d, X86Insn *ret)
{
        uint8_t op = d->op, low = (uint8_t)((op & 7) | (d->rex & REX_B ? 8 : 0));

        if (d->map == MAP_0F && !d->vex && (op == 0xa0 || op == 0xa8)) {
                ret->kind = X86_PUSH; /* fs, gs */
        } else if (d->map == MAP_0F && !d->vex && (op == 0xa1 || op == 0xa9)) {
                ret->kind = X86_POP;
        } else if (d->map != MAP_ONE_BYTE) {
                return false;
        } else if (is_within(op, 0x50, 0x57) || is_within(op, 0x58, 0x5f)) {
                ret->kind = op < 0x58 ? X86_PUSH : X86_POP;
                ret->reg = low;
        } else if (op == 0x68 || op == 0x6a || op == 0x9c || (op == 0xff && (d->reg & 7) == 6)) {
                ret->kind = X86_PUSH;
        } else if (op == 0x9d || (op == 0x8f && d->mod != 3)) {
                ret->kind = X86_POP;
        } else if (op == 0xc9) {
                ret->kind = X86_LEAVE;
        } else if (op == 0xc8) {
                ret->kind = X86_SETS_RBP;
        } else {
                return false;
        }
        if (d->operand16 || ret->reg == X86_INSN_RSP)
                ret->kind = X86_SETS_RSP;
        return true;
}

bool x86_insn_decode(const uint8_t *bytes, size_t n, X86Insn *ret)
{
        Decoder d = {.p = bytes, .end = bytes + (n < LENGTH_MAX ? n : LENGTH_MAX)};
        uint32_t mask;

        *ret = (X86Insn){.kind = X86_OTHER, .reg = X86_INSN_NO_REG};
        if (!take_opcode(&d) || is_invalid(&d))
                return false;
        if (has_modrm(&d) && !take_modrm(&d))
                return false;
        if (!take(&d, immediate_size(&d), &d.imm))
                return false;
        ret->length = (uint8_t)(d.p - bytes);
        if (classify_stack(&d, ret) || is_frame_move(&d, ret))
                return true;
        classify_flow(&d, ret);
        if (ret->kind != X86_OTHER)
                return true;
        mask = written(&d);
        if (is_high_byte(&d)) /* of rax, rcx, rdx or rbx, then */
                mask = mask >> 4 & 15;
        ret->written = mask;
        if (mask & 1U << X86_INSN_RBP)
                ret->kind = X86_SETS_RBP;
        else if (mask & 1U << X86_INSN_RSP)
                ret->kind = X86_SETS_RSP;
        return true;
}
