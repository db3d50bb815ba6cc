/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Call a function from inside the library. */
__attribute__((visibility("default"))) void in_plugin_a(void (*callee)(void *arg), void *arg);
__attribute__((visibility("default"))) void in_plugin_b(void (*callee)(void *arg), void *arg);
