/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <string.h>

#include "runtime/cpython-layout.h"

#define NONE SWP_PYTHON_NONE

/* tstate_bytes and the like follow from the rest. */
static const CpythonLayout known[] = {
        {.minor = 8,
                .runtime_interpreters = 32,
                .text_ascii = 48,
                .text_compact = 72,
                .walk = {.interp_next = 0,
                        .interp_threads = 8,
                        .tstate_next = 8,
                        .tstate_thread_id = 176,
                        .tstate_frame = 24,
                        .cframe_frame = NONE,
                        .frame_previous = 24,
                        .frame_code = 32,
                        .frame_instr = 104,
                        .frame_owner = NONE,
                        .code_firstlineno = 40,
                        .code_filename = 104,
                        .code_name = 112,
                        .code_linetable = 120,
                        .instr_bytes = 4}},
        {.minor = 9,
                .runtime_interpreters = 32,
                .text_ascii = 48,
                .text_compact = 72,
                .walk = {.interp_next = 0,
                        .interp_threads = 8,
                        .tstate_next = 8,
                        .tstate_thread_id = 176,
                        .tstate_frame = 24,
                        .cframe_frame = NONE,
                        .frame_previous = 24,
                        .frame_code = 32,
                        .frame_instr = 104,
                        .frame_owner = NONE,
                        .code_firstlineno = 40,
                        .code_filename = 104,
                        .code_name = 112,
                        .code_linetable = 120,
                        .instr_bytes = 4}},
        {.minor = 10,
                .runtime_interpreters = 32,
                .text_ascii = 48,
                .text_compact = 72,
                .walk = {.interp_next = 0,
                        .interp_threads = 8,
                        .tstate_next = 8,
                        .tstate_thread_id = 176,
                        .tstate_frame = 24,
                        .cframe_frame = NONE,
                        .frame_previous = 24,
                        .frame_code = 32,
                        .frame_instr = 96,
                        .frame_owner = NONE,
                        .code_firstlineno = 40,
                        .code_filename = 104,
                        .code_name = 112,
                        .code_linetable = 120,
                        .instr_bytes = 4}},
        {.minor = 11,
                .runtime_interpreters = 40,
                .code_adaptive = 184,
                .text_ascii = 48,
                .text_compact = 72,
                .walk = {.interp_next = 0,
                        .interp_threads = 16,
                        .tstate_next = 8,
                        .tstate_thread_id = 152,
                        .tstate_frame = 56,
                        .cframe_frame = 8,
                        .frame_previous = 48,
                        .frame_code = 32,
                        .frame_instr = 56,
                        .frame_owner = 68, /* is_entry */
                        .code_firstlineno = 72,
                        .code_filename = 112,
                        .code_name = 120,
                        .code_linetable = 136,
                        .instr_bytes = 8}},
        {.minor = 12,
                .runtime_interpreters = 40,
                .code_adaptive = 192,
                .text_ascii = 40,
                .text_compact = 56,
                .walk = {.interp_next = 0,
                        .interp_threads = 72,
                        .tstate_next = 8,
                        .tstate_thread_id = 136,
                        .tstate_frame = 56,
                        .cframe_frame = 0,
                        .frame_previous = 8,
                        .frame_code = 0,
                        .frame_instr = 56,
                        .frame_owner = 70,
                        .code_firstlineno = 68,
                        .code_filename = 112,
                        .code_name = 120,
                        .code_linetable = 136,
                        .instr_bytes = 8,
                        .shim_owner = 3}},
};

static void raise(uint16_t *bytes, unsigned end)
{
        if (end > *bytes)
                *bytes = (uint16_t)end;
}

static void fill_sizes(struct swp_python_layout *w)
{
        w->text_hash = 24;
        raise(&w->tstate_bytes, w->tstate_next + 8u);
        raise(&w->tstate_bytes, w->tstate_thread_id + 8u);
        raise(&w->tstate_bytes, w->tstate_frame + 8u);
        raise(&w->frame_bytes, w->frame_previous + 8u);
        raise(&w->frame_bytes, w->frame_code + 8u);
        raise(&w->frame_bytes, w->frame_instr + (unsigned)w->instr_bytes);
        if (w->frame_owner != NONE)
                raise(&w->frame_bytes, w->frame_owner + 1u);
        raise(&w->code_bytes, w->code_firstlineno + 4u);
        raise(&w->code_bytes, w->code_filename + 8u);
        raise(&w->code_bytes, w->code_name + 8u);
        raise(&w->code_bytes, w->code_linetable + 8u);
}

int cpython_layout_known(CpythonLayout *ret, unsigned minor)
{
        for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
                if (known[i].minor == minor) {
                        *ret = known[i];
                        fill_sizes(&ret->walk);
                        return 0;
                }
        return CPYTHON_LAYOUT_E_VERSION;
}

/* Indices into _Py_DebugOffsets, in words of 64 bits. */
typedef struct DebugOffsets {
        unsigned minor;
        uint8_t interpreters, interp_next, interp_threads;
        uint8_t tstate_next, tstate_frame, tstate_thread_id;
        uint8_t frame_previous, frame_code, frame_instr, frame_owner;
        uint8_t code_filename, code_name, code_linetable, code_firstlineno, code_adaptive;
} DebugOffsets;

static const DebugOffsets debug_offsets[] = {
        {.minor = 13,
                .interpreters = 5,
                .interp_next = 8,
                .interp_threads = 9,
                .tstate_next = 21,
                .tstate_frame = 23,
                .tstate_thread_id = 24,
                .frame_previous = 29,
                .frame_code = 30,
                .frame_instr = 31,
                .frame_owner = 33,
                .code_filename = 35,
                .code_name = 36,
                .code_linetable = 38,
                .code_firstlineno = 39,
                .code_adaptive = 43},
        {.minor = 14,
                .interpreters = 5,
                .interp_next = 8,
                .interp_threads = 9,
                .tstate_next = 24,
                .tstate_frame = 26,
                .tstate_thread_id = 27,
                .frame_previous = 32,
                .frame_code = 33,
                .frame_instr = 34,
                .frame_owner = 36,
                .code_filename = 40,
                .code_name = 41,
                .code_linetable = 43,
                .code_firstlineno = 44,
                .code_adaptive = 48},
};

enum {
        WORD_VERSION = 1,
        WORD_FREE_THREADED = 2,
        N_WORDS = 49,
        FIELD_MAX = SWP_PYTHON_BLOCK - 8, /* read in one block */
};

/* Return: whether it can be one: aligned, and not beyond max. */
static bool take(uint16_t *ret, uint64_t value, unsigned align, unsigned max)
{
        if (value > max || value % align != 0)
                return false;
        *ret = (uint16_t)value;
        return true;
}

int cpython_layout_parse(CpythonLayout *ret, const void *runtime, size_t size)
{
        CpythonLayout l = {.text_ascii = 40, .text_compact = 56};
        struct swp_python_layout *w = &l.walk;
        const DebugOffsets *o = NULL;
        uint64_t words[N_WORDS];

        if (size < sizeof(words) || memcmp(runtime, "xdebugpy", 8) != 0)
                return CPYTHON_LAYOUT_E_BAD;
        memcpy(words, runtime, sizeof(words));
        for (size_t i = 0; i < sizeof(debug_offsets) / sizeof(*debug_offsets); i++)
                if (words[WORD_VERSION] >> 16 == (0x300 | debug_offsets[i].minor))
                        o = &debug_offsets[i];
        if (!o)
                return CPYTHON_LAYOUT_E_VERSION;
        if (words[WORD_FREE_THREADED])
                return CPYTHON_LAYOUT_E_THREADS;
        l.minor = o->minor;
        if (!take(&l.runtime_interpreters, words[o->interpreters], 8, 0x7fff) ||
                !take(&w->interp_next, words[o->interp_next], 8, 0x7fff) ||
                !take(&w->interp_threads, words[o->interp_threads], 8, 0x7fff) ||
                !take(&w->tstate_next, words[o->tstate_next], 8, FIELD_MAX) ||
                !take(&w->tstate_frame, words[o->tstate_frame], 8, FIELD_MAX) ||
                !take(&w->tstate_thread_id, words[o->tstate_thread_id], 8, FIELD_MAX) ||
                !take(&w->frame_previous, words[o->frame_previous], 8, FIELD_MAX) ||
                !take(&w->frame_code, words[o->frame_code], 8, FIELD_MAX) ||
                !take(&w->frame_instr, words[o->frame_instr], 8, FIELD_MAX) ||
                !take(&w->frame_owner, words[o->frame_owner], 1, FIELD_MAX) ||
                !take(&w->code_filename, words[o->code_filename], 8, FIELD_MAX) ||
                !take(&w->code_name, words[o->code_name], 8, FIELD_MAX) ||
                !take(&w->code_linetable, words[o->code_linetable], 8, FIELD_MAX) ||
                !take(&w->code_firstlineno, words[o->code_firstlineno], 4, FIELD_MAX) ||
                !take(&l.code_adaptive, words[o->code_adaptive], 8, 0x7fff))
                return CPYTHON_LAYOUT_E_BAD;
        w->cframe_frame = NONE;
        w->instr_bytes = 8;
        w->shim_owner = 3;
        fill_sizes(w);
        *ret = l;
        return 0;
}
