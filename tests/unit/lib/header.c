/* SPDX-License-Identifier: Apache-2.0 */
/* The public header by itself, as C and as C++. */
#include "swprof.h"

typedef char span_has_room[sizeof(struct swprof_span) == 384 ? 1 : -1];

int main(void)
{
        return swprof_version()[0] == '\0' || swprof_close(NULL) != NULL ? sizeof(span_has_room)
                                                                         : 0;
}
