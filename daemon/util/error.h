/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Error doctrine.
 *
 * Functions return int: 0 is success; a negative value is a fatal error (-errno) that is only ever
 * forwarded, with error_trace(); a positive value is a documented condition of that module (an X_E_
 * enumerator) that the caller handles, or turns into a fatal error with error_fold().
 * error_origin() marks where a negative code is born. With SWPROFD_TRACE_ERRORS set in the
 * environment each hop prints one line to stderr.
 */

int error_trace_at(int r, const char *file, int line, const char *func);

#define error_origin(r) error_trace_at((r), __FILE__, __LINE__, __func__)
#define error_trace(r)  error_trace_at((r), __FILE__, __LINE__, __func__)
#define error_fold(r)   error_trace_at((r) > 0 ? -ENOTRECOVERABLE : (r), __FILE__, __LINE__, __func__)
