/* SPDX-License-Identifier: Apache-2.0 */

/* stub: calls a function of another file, through a stub of the linker's; without the C library,
 * whose size would be most of the recording. */

void library_function(void);

__asm__(".text\n"
        ".globl _start\n"
        ".type _start, @function\n"
        "_start:\n"
        ".cfi_startproc\n"
        ".cfi_undefined %rip\n"
        "and $-16, %rsp\n"
        "call start\n"
        "hlt\n"
        ".cfi_endproc\n"
        ".size _start, . - _start\n");

void start(void);
void __attribute__((noipa)) start(void)
{
        library_function();
        __asm__ volatile("syscall" : : "a"(231), "D"(0) : "rcx", "r11", "memory");
}
