/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
#include <stdio.h>

static inline __attribute__((always_inline)) int inner(int x)
{
        __asm__ volatile(".globl place_inner\nplace_inner: nop"); /* line 7 */
        return x * 3;
}

static inline __attribute__((always_inline)) int middle(int x)
{
        int y = x + 1;

        y += inner(y); /* line 15 */
        return y;
}

__attribute__((noinline)) int outer(int x)
{
        x = middle(x); /* line 21 */
        __asm__ volatile(".globl place_outer\nplace_outer: nop"); /* line 22 */
        return x;
}

static __attribute__((noinline)) int hidden(int x)
{
        __asm__ volatile(".globl place_hidden\nplace_hidden: nop"); /* line 28 */
        return x;
}

/* Assembler: a function without type and size, and a sized one behind which there is nothing. */
__asm__(".text\n"
        "unsized: nop\n"
        "nop\n"
        ".type sized, @function\n"
        "sized: nop\n"
        ".size sized, 1\n"
        "nop\n"
        ".p2align 6\n");

/* Two names of one function. */
int known_as(int x) __attribute__((alias("__known_as")));
__attribute__((noinline)) int __known_as(int x)
{
        __asm__ volatile(".globl place_alias\nplace_alias: nop");
        return x;
}

int main(int argc, char **argv)
{
        return puts("") + outer(argc) + hidden(argc) + known_as(argc) == 12345;
}
/* The test knows lines and columns of this file: it is not formatted, and lines do not move. */
