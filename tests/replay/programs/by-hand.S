/* SPDX-License-Identifier: Apache-2.0 */

/*
 * by-hand SHAPE: functions that no compiler writes, with the call frame information that
 * hand-written code has, or has not. Each calls leaf(), in by-hand.c.
 */

        .text

/* void by_hand_no_cfi(void): none at all. */
        .globl by_hand_no_cfi
        .type by_hand_no_cfi, @function
by_hand_no_cfi:
        sub $24, %rsp
        call leaf
        add $24, %rsp
        ret
        .size by_hand_no_cfi, . - by_hand_no_cfi

/* void by_hand_deref(void): the CFA is in memory, as in libcrypto (DW_OP_breg7 152, DW_OP_deref,
 * DW_OP_plus_uconst 8). */
        .globl by_hand_deref
        .type by_hand_deref, @function
by_hand_deref:
        .cfi_startproc
        mov %rsp, %rax
        .cfi_def_cfa_register %rax
        push %rbx
        .cfi_offset %rbx, -16
        push %r15
        .cfi_offset %r15, -24
        sub $320, %rsp
        and $-64, %rsp
        mov %rax, 152(%rsp)
        .cfi_escape 0x0f, 0x06, 0x77, 0x98, 0x01, 0x06, 0x23, 0x08
        call leaf
        mov 152(%rsp), %rsi
        .cfi_def_cfa %rsi, 8
        mov -16(%rsi), %r15
        .cfi_restore %r15
        mov -8(%rsi), %rbx
        .cfi_restore %rbx
        mov %rsi, %rsp
        .cfi_def_cfa_register %rsp
        ret
        .cfi_endproc
        .size by_hand_deref, . - by_hand_deref

/* void by_hand_register(void (*inner)(void)): the CFA is rbx, which inner() has to keep. */
        .globl by_hand_register
        .type by_hand_register, @function
by_hand_register:
        .cfi_startproc
        push %rbx
        .cfi_def_cfa_offset 16
        .cfi_offset %rbx, -16
        lea 16(%rsp), %rbx
        .cfi_def_cfa %rbx, 0
        sub $48, %rsp
        call *%rdi
        lea -16(%rbx), %rsp
        .cfi_def_cfa %rsp, 16
        pop %rbx
        .cfi_restore %rbx
        .cfi_def_cfa_offset 8
        ret
        .cfi_endproc
        .size by_hand_register, . - by_hand_register

/* void by_hand_copy(void): keeps rbx in r12. */
        .globl by_hand_copy
        .type by_hand_copy, @function
by_hand_copy:
        .cfi_startproc
        push %r12
        .cfi_def_cfa_offset 16
        .cfi_offset %r12, -16
        mov %rbx, %r12
        .cfi_register %rbx, %r12
        mov $0x1234, %ebx
        call leaf
        mov %r12, %rbx
        .cfi_restore %rbx
        pop %r12
        .cfi_restore %r12
        .cfi_def_cfa_offset 8
        ret
        .cfi_endproc
        .size by_hand_copy, . - by_hand_copy

/* void by_hand_value(void): called by by_hand_register alone, whose rbx is 64 above the stack
 * pointer at the call; so it is not saved, but computed. */
        .globl by_hand_value
        .type by_hand_value, @function
by_hand_value:
        .cfi_startproc
        sub $24, %rsp
        .cfi_def_cfa_offset 32
        mov $0x1234, %ebx
        .cfi_val_offset %rbx, 64
        call leaf
        lea 96(%rsp), %rbx
        .cfi_restore %rbx
        add $24, %rsp
        .cfi_def_cfa_offset 8
        ret
        .cfi_endproc
        .size by_hand_value, . - by_hand_value

/* void by_hand_restore(void): rbx is back, and where it was saved is something else. */
        .globl by_hand_restore
        .type by_hand_restore, @function
by_hand_restore:
        .cfi_startproc
        push %rbx
        .cfi_def_cfa_offset 16
        .cfi_offset %rbx, -16
        mov $0x1234, %ebx
        mov (%rsp), %rbx
        movq $0, (%rsp)
        .cfi_restore %rbx
        call leaf
        add $8, %rsp
        .cfi_def_cfa_offset 8
        ret
        .cfi_endproc
        .size by_hand_restore, . - by_hand_restore

/* void by_hand_state(long n): an epilogue in the middle, behind which the frame is there again. */
        .globl by_hand_state
        .type by_hand_state, @function
by_hand_state:
        .cfi_startproc
        push %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset %rbp, -16
        sub $32, %rsp
        .cfi_def_cfa_offset 48
        test %rdi, %rdi
        jz 1f
        .cfi_remember_state
        add $32, %rsp
        .cfi_def_cfa_offset 16
        pop %rbp
        .cfi_restore %rbp
        .cfi_def_cfa_offset 8
        ret
1:
        .cfi_restore_state
        call leaf
        add $32, %rsp
        .cfi_def_cfa_offset 16
        pop %rbp
        .cfi_restore %rbp
        .cfi_def_cfa_offset 8
        ret
        .cfi_endproc
        .size by_hand_state, . - by_hand_state

/* void NAME(void): a row is right for one byte alone, that by which the frame is looked up: the last one of the call
 * (*%rax, ff d0). GAP: so many bytes of code after the row before, so that one kind of instruction or another comes to
 * it (DW_CFA_advance_loc to _loc4). */
        .macro right_for_one_byte name, target, gap
        .globl \name
        .type \name, @function
\name:
        .cfi_startproc
        sub $24, %rsp
        .cfi_def_cfa_offset 4096
        mov $\target, %eax
        jmp 1f
        .skip \gap
1:
        .byte 0xff
        .cfi_def_cfa_offset 32
        .byte 0xd0
        .cfi_def_cfa_offset 4096
        add $24, %rsp
        .cfi_def_cfa_offset 8
        ret
        .cfi_endproc
        .size \name, . - \name
        .endm

        right_for_one_byte by_hand_advance, leaf, 8
        right_for_one_byte by_hand_advance1, by_hand_advance, 64
        right_for_one_byte by_hand_advance2, by_hand_advance1, 256
        right_for_one_byte by_hand_advance4, by_hand_advance2, 65536

        .section .note.GNU-stack, "", @progbits
