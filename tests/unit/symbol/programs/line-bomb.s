# SPDX-License-Identifier: Apache-2.0
# A unit whose line program has a row in each of its 16 MiB, and takes a few kilobytes when it is packed.
        .text
        .globl place_outer
        .type place_outer,@function
place_outer:
        nop
        .fill 4095,1,0x90
e:
        .size place_outer,e-place_outer
        .section .debug_abbrev,"",@progbits
        .byte 1,0x11,0,0x10,0x17,0x11,1,0x12,1,0,0,0
        .section .debug_info,"",@progbits
        .long 2f-1f
1: .value 4
        .long 0
        .byte 8
        .byte 1
        .long 0
        .quad place_outer
        .quad e
2:
        .section .debug_line,"",@progbits
        .long 4f-3f
3: .value 4
        .long 6f-5f
5: .byte 1,1,1,0xf6,14,13
        .byte 0,1,1,1,1,0,0,0,1,0,0,1
        .byte 0
        .asciz "a.c"
        .byte 0,0,0
        .byte 0
6: .byte 0,9,2
        .quad place_outer
        .fill 16777216,1,0x18
        .byte 0,1,1
4:
        .section .note.GNU-stack,"",@progbits
