/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "unwind/cfi-lazy.h"
#include "unwind/cfi-rows.h"
#include "util/error.h"
#include "util/list.h"

enum {
        ROWS_MAX = 8 << 20, /* librustc_driver, the largest met, has 1.15 M */
        CACHE_LINE = 64,
        MEMO_BITS_MAX = 10,
        MEMO_BITS_MIN = 3,
        MEMO_USED = 1 << 16,
        LOOK_MAX = 8,      /* rows looked at all at once */
        RULES_MAX = 65535, /* 16-bit indices; libLLVM, the largest met, has 987 */
};

const CfiRule cfi_rule_none = {.cfa = CFI_CFA_NONE};

struct CfiTable {
        CfiLazy *lazy; /* or NULL, and: */
        uint64_t base; /* lowest code address of the file */
        size_t n_rows, n_rules, n_gap_bytes;
        GoPlaces go;
        CfiRow *rows;   /* the first pc is 0; at the end LOOK_MAX more of the last one */
        CfiRule *rules; /* the first one says CFI_CFA_NONE; at cache lines */

        /* The row in force at the beginning of each block of 2^shift bytes, and at last the last
         * row: some two to four rows are left to look at then. */
        size_t n_blocks;
        unsigned shift;
        uint32_t *blocks;

        /* What was found of late, by a hash of the address: its offset, then MEMO_USED and the rule.
         * Each word is all of an answer, and the same from whichever thread. */
        unsigned memo_bits;
        _Atomic uint64_t *memo;
};

struct RuleNode {
        HashLink link;
        struct RuleNode *next; /* of all, last one first */
        CfiRule rule;
        uint16_t index;
};

int cfi_reserve(void *array, size_t n, size_t *size, size_t element)
{
        size_t wanted = *size ? *size * 2 : 64;
        void *p;

        if (n < *size)
                return 0;
        memcpy(&p, array, sizeof(p));
        p = reallocarray(p, wanted, element);
        if (!p)
                return error_origin(-ENOMEM);
        memcpy(array, &p, sizeof(p));
        *size = wanted;
        return 0;
}

/* One form for all rules that unwinding treats alike. */
static CfiRule rule_canonical(const CfiRule *rule)
{
        if (rule->cfa == CFI_CFA_SIGNAL)
                return (CfiRule){.cfa = CFI_CFA_SIGNAL};
        if (rule->cfa == CFI_CFA_GO_CALLER)
                return (CfiRule){.cfa = CFI_CFA_GO_CALLER};
        if (rule->cfa == CFI_CFA_ROOT || rule->how[X86_RIP] == CFI_REG_UNDEF)
                return (CfiRule){.cfa = CFI_CFA_ROOT};
        if (rule->cfa == CFI_CFA_NONE || rule->how[X86_RIP] == CFI_REG_SAME)
                return (CfiRule){.cfa = CFI_CFA_NONE};
        return *rule;
}

static int rows_new_rule(CfiRows *b, const CfiRule *rule, uint64_t hash, RuleNode **ret)
{
        RuleNode *node = calloc(1, sizeof(*node));
        int r;

        if (!node)
                return error_origin(-ENOMEM);
        node->rule = *rule;
        node->index = (uint16_t)b->n_rules;
        r = hash_table_add(&b->by_hash, &node->link, hash);
        if (r) {
                free(node);
                return error_trace(r);
        }
        node->next = b->nodes;
        b->nodes = node;
        b->n_rules++;
        *ret = node;
        return 0;
}

static int rows_rule(CfiRows *b, const CfiRule *raw, uint16_t *ret)
{
        uint32_t key = raw->cfa_reg * 0x85ebca6bU + raw->moved * 0x9e3779b1U +
                       (uint32_t)raw->cfa_offset * 0xc2b2ae35U;
        RuleNode **recent = &b->recent[(key >> 16) % CFI_RECENT_RULES], *node = *recent;
        CfiRule rule;
        uint64_t hash;
        int r;

        if (node && memcmp(&node->rule, raw, sizeof(*raw)) == 0) {
                *ret = node->index;
                return 0;
        }
        rule = rule_canonical(raw);
        hash = hash_bytes(&rule, sizeof(rule));
        for (HashLink *l = hash_table_find(&b->by_hash, hash); l; l = hash_link_next(l)) {
                node = container_of(l, RuleNode, link);
                if (memcmp(&node->rule, &rule, sizeof(rule)) == 0) {
                        *recent = node;
                        *ret = node->index;
                        return 0;
                }
        }
        if (b->n_rules == RULES_MAX) {
                *ret = 0;
                return 0;
        }
        r = rows_new_rule(b, &rule, hash, &node);
        if (r)
                return error_trace(r);
        *recent = node;
        *ret = node->index;
        return 0;
}

int cfi_rows_add(CfiRows *b, uint64_t pc, const CfiRule *rule)
{
        uint32_t offset = (uint32_t)(pc - b->base);
        uint16_t index = 0;
        int r;

        if (b->n_rows > 0 && offset < b->rows[b->n_rows - 1].pc)
                return 0;
        r = rows_rule(b, rule, &index);
        if (r)
                return error_trace(r);
        if (b->n_rows > 0 && b->rows[b->n_rows - 1].pc == offset)
                b->n_rows--;
        if (b->n_rows > 0 && b->rows[b->n_rows - 1].rule == index)
                return 0;
        r = cfi_reserve(&b->rows, b->n_rows, &b->size, sizeof(*b->rows));
        if (r)
                return error_trace(r);
        b->rows[b->n_rows++] = (CfiRow){.pc = offset, .rule = index};
        return 0;
}

static void rule_set_plain(CfiRule *rule)
{
        static const uint8_t regs[CFI_PLAIN_REGS] = {
                X86_RBX, X86_RBP, X86_R12, X86_R13, X86_R14, X86_R15};
        CfiPlain p = {.is_plain = true,
                .cfa_reg = rule->cfa_reg,
                .moved = rule->moved,
                .undef = rule->undef,
                .lowest = CFI_KEPT,
                .cfa_offset = rule->cfa_offset};
        uint16_t left = rule->moved;

        if (rule->cfa != CFI_CFA_REG || rule->how[X86_RIP] != CFI_REG_OFFSET ||
                rule->offset[X86_RIP] != -8)
                return;
        for (size_t i = 0; i < CFI_PLAIN_REGS; i++) {
                int32_t offset = rule->offset[regs[i]];

                p.saved[i] = CFI_KEPT;
                if (!(left & 1U << regs[i]))
                        continue;
                if (rule->how[regs[i]] != CFI_REG_OFFSET || offset >= CFI_KEPT ||
                        offset < INT16_MIN || offset % 8 != 0)
                        return;
                left &= (uint16_t) ~(1U << regs[i]);
                p.saved[i] = (int16_t)offset;
                if (p.saved[i] < p.lowest)
                        p.lowest = p.saved[i];
        }
        if (left == 0)
                rule->plain = p;
}

void cfi_rule_finish(CfiRule *rule)
{
        *rule = rule_canonical(rule);
        rule_set_plain(rule);
}

int cfi_table_of_lazy(CfiTable **ret, CfiLazy *lazy)
{
        CfiTable *t = calloc(1, sizeof(*t));

        if (!t) {
                cfi_lazy_free(lazy);
                return error_origin(-ENOMEM);
        }
        t->lazy = lazy;
        *ret = t;
        return 0;
}

static int table_index(CfiTable *t)
{
        uint32_t last = t->rows[t->n_rows - 1].pc;
        size_t row = 0;

        while ((last >> t->shift) > t->n_rows / 2 + 1)
                t->shift++;
        t->n_blocks = (last >> t->shift) + 1;
        t->blocks = calloc(t->n_blocks + 1, sizeof(*t->blocks));
        if (!t->blocks)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < t->n_blocks; i++) {
                while (row + 1 < t->n_rows && t->rows[row + 1].pc <= (uint64_t)i << t->shift)
                        row++;
                t->blocks[i] = (uint32_t)row;
        }
        t->blocks[t->n_blocks] = (uint32_t)(t->n_rows - 1);
        t->memo_bits = MEMO_BITS_MIN;
        while (t->memo_bits < MEMO_BITS_MAX && t->n_rows >> (t->memo_bits + 4) > 0)
                t->memo_bits++;
        t->memo = calloc((size_t)1 << t->memo_bits, sizeof(*t->memo));
        return t->memo ? 0 : error_origin(-ENOMEM);
}

int cfi_rows_finish(CfiRows *b, CfiTable **ret)
{
        _cleanup_(cfi_table_freep) CfiTable *t = calloc(1, sizeof(*t));
        CfiRow *rows;
        int r;

        if (!t)
                return error_origin(-ENOMEM);
        t->rules = aligned_alloc(CACHE_LINE, b->n_rules * sizeof(*t->rules));
        if (!t->rules)
                return error_origin(-ENOMEM);
        for (const RuleNode *n = b->nodes; n; n = n->next) {
                t->rules[n->index] = n->rule;
                rule_set_plain(&t->rules[n->index]);
        }
        t->base = b->base;
        t->n_rules = b->n_rules;
        t->n_rows = b->n_rows;
        t->n_gap_bytes = b->n_gap_bytes;
        t->go = b->go;
        /* Gives back what doubling took too much. */
        rows = reallocarray(b->rows, b->n_rows + LOOK_MAX, sizeof(*rows));
        if (!rows)
                return error_origin(-ENOMEM);
        b->rows = NULL;
        t->rows = rows;
        for (size_t i = 0; i < LOOK_MAX; i++)
                rows[t->n_rows + i] = (CfiRow){.pc = UINT32_MAX, .rule = rows[t->n_rows - 1].rule};
        r = table_index(t);
        if (r)
                return error_trace(r);
        *ret = TAKE_PTR(t);
        return 0;
}

void cfi_rows_deinit(CfiRows *b)
{
        for (RuleNode *n = b->nodes, *next; n; n = next) {
                next = n->next;
                free(n);
        }
        hash_table_deinit(&b->by_hash);
        free(b->rows);
        *b = (CfiRows){0};
}

bool cfi_rows_full(const CfiRows *b)
{
        return b->n_rows >= ROWS_MAX;
}

CfiTable *cfi_table_free(CfiTable *t)
{
        if (!t)
                return NULL;
        cfi_lazy_free(t->lazy);
        free(t->rows);
        free(t->rules);
        free(t->blocks);
        free((void *)t->memo);
        free(t);
        return NULL;
}

/* The row in force at an offset from base. */
static const CfiRow *table_search(const CfiTable *t, uint32_t offset)
{
        size_t block = offset >> t->shift, n, half;
        const CfiRow *row;

        if (block >= t->n_blocks)
                return &t->rows[t->n_rows - 1];
        row = &t->rows[t->blocks[block]];
        n = t->blocks[block + 1] - t->blocks[block] + 1;
        /* row->pc <= offset always. No branch depends on what is compared, as none of them could be
         * predicted; and the last comparisons do not wait for each other. */
        for (; n > LOOK_MAX; n -= half) {
                half = n / 2;
                row += half & -(size_t)(row[half].pc <= offset);
        }
        n = 0;
        for (size_t i = 1; i < LOOK_MAX; i++)
                n += row[i].pc <= offset;
        return &row[n];
}

const CfiRule *cfi_table_find(const CfiTable *t, uint64_t vaddr)
{
        uint64_t offset = vaddr - t->base, known;
        _Atomic uint64_t *memo;
        uint16_t rule;

        if (t->lazy)
                return cfi_lazy_find(t->lazy, vaddr);
        if (offset > UINT32_MAX)
                return &t->rules[0];
        memo = &t->memo[(uint32_t)offset * 0x9e3779b1U >> (32 - t->memo_bits)];
        known = atomic_load_explicit(memo, memory_order_relaxed);
        if (known >> 32 == offset && known & MEMO_USED)
                return &t->rules[(uint16_t)known];
        rule = table_search(t, (uint32_t)offset)->rule;
        atomic_store_explicit(memo, offset << 32 | MEMO_USED | rule, memory_order_relaxed);
        return &t->rules[rule];
}

const GoPlaces *cfi_table_go(const CfiTable *t)
{
        return t->go.m ? &t->go : NULL;
}

bool cfi_table_is_lazy(const CfiTable *t)
{
        return t->lazy != NULL;
}

size_t cfi_table_n_rows(const CfiTable *t)
{
        return t->n_rows;
}

size_t cfi_table_n_rules(const CfiTable *t)
{
        return t->n_rules;
}

size_t cfi_table_n_gap_bytes(const CfiTable *t)
{
        return t->n_gap_bytes;
}

size_t cfi_table_bytes(const CfiTable *t)
{
        if (t->lazy)
                return sizeof(*t) + cfi_lazy_bytes(t->lazy);
        return sizeof(*t) + (t->n_rows + LOOK_MAX) * sizeof(*t->rows) +
               t->n_rules * sizeof(*t->rules) + (t->n_blocks + 1) * sizeof(*t->blocks) +
               ((size_t)1 << t->memo_bits) * sizeof(*t->memo);
}
