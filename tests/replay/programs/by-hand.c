/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <unistd.h>

/* The rest of by-hand.S. */

void by_hand_no_cfi(void);
void by_hand_deref(void);
void by_hand_register(void (*inner)(void));
void by_hand_copy(void);
void by_hand_value(void);
void by_hand_restore(void);
void by_hand_state(long n);
void by_hand_advance4(void);

void leaf(void);
void __attribute__((noipa)) leaf(void)
{
        pause();
}

int main(int argc, char **argv)
{
        const char *shape = argc > 1 ? argv[1] : "";

        if (strcmp(shape, "no-cfi") == 0)
                by_hand_no_cfi();
        if (strcmp(shape, "deref") == 0)
                by_hand_deref();
        if (strcmp(shape, "register") == 0)
                by_hand_register(leaf);
        if (strcmp(shape, "copy") == 0)
                by_hand_register(by_hand_copy);
        if (strcmp(shape, "value") == 0)
                by_hand_register(by_hand_value);
        if (strcmp(shape, "restore") == 0)
                by_hand_register(by_hand_restore);
        if (strcmp(shape, "state") == 0)
                by_hand_state(0);
        if (strcmp(shape, "advance") == 0)
                by_hand_advance4();
        return 1;
}
