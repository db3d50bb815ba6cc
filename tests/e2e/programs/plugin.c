/* SPDX-License-Identifier: Apache-2.0 */
/* A library that differs from its sibling in the name of its function alone, which is PLUGIN. */
#include "plugin.h"

void PLUGIN(void (*callee)(void *arg), void *arg)
{
        callee(arg);
        __asm__ volatile("" ::: "memory");
}
