/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

/* Makes room for one more at the end of an array that grows: `array` is the address of the pointer,
 * n what is in it, *size what it has room for, `element` the size of one. Return: 0, -ENOMEM. */
int array_reserve(void *array, size_t n, size_t *size, size_t element);
