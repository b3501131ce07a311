/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ways in: boot sector (disk, floppy, El Torito), multiboot, ROM. All end in main, in flat 32-bit mode. */
        .set PAYLOAD, 0x10000
        .set MULTIBOOT_MAGIC, 0x1badb002
        .set MULTIBOOT_ADDRESSES, 0x00010000

/* --- boot sector, at 0000:7c00 --- */
        .section .boot, "ax"
        .code16
boot:   cli
        cld
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7c00, %sp
        ljmp $0, $1f
1:      sti
        cmpl $MULTIBOOT_MAGIC, 0x7e00   /* has El Torito loaded all of us? */
        je move
        movw $5, %bp                    /* attempts */
read:   movw $(PAYLOAD >> 4), %ax
        movw %ax, %es
        xorw %bx, %bx
        movw $payload_sectors, %ax
        movb $2, %ah                    /* read sectors from the drive in DL */
        movw $2, %cx                    /* cylinder 0, sector 2 */
        movb $0, %dh
        int $0x13
        jnc enter
        xorw %ax, %ax                   /* reset the drive and try again */
        int $0x13
        decw %bp
        jnz read
        movw $0x0e45, %ax               /* print E */
        int $0x10
        hlt
move:   movw $(PAYLOAD >> 4), %ax
        movw %ax, %es
        movw $0x7e00, %si
        xorw %di, %di
        movw $payload_words, %cx
        rep movsw
enter:  cli
        lgdtl boot_gdtr
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $8, $start_bios
        .balign 4
boot_gdtr: .word 23
        .long boot_gdt
boot_gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
        .org 440
        .long 0x32425250                /* disk signature */
        .word 0
        .byte 0x80, 0, 2, 0, 0x0c, 0, 17, 0     /* one active partition, for firmware that wants one */
        .long 1, 17
        .org 510
        .word 0xaa55

/* --- ROM stub, the last 256 bytes of 64 KiB; the reset vector is at offset 0xf0 --- */
        .section .rom, "ax"
rom:    cli
        cld
        movw $0xf000, %ax
        movw %ax, %ds
        lgdtl rom_gdtr - rom + 0xff00
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $8, $1f
        .code32
1:      movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $0xf0000, %esi             /* the payload is at the beginning of the ROM */
        movl $PAYLOAD, %edi
        movl $payload_words, %ecx
        rep movsw
        movl $start_rom, %eax
        jmp *%eax
        .balign 4
rom_gdtr: .word 23
        .long rom_gdt
rom_gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
        .org 0xf0
        .code16
        .byte 0xe9                      /* jump near, encoded by hand */
        .word rom - (. + 2)
        .org 0x100

/* --- payload, at 0x10000 --- */
        .section .head, "ax"
        .code32
multiboot: .long MULTIBOOT_MAGIC, MULTIBOOT_ADDRESSES, -(MULTIBOOT_MAGIC + MULTIBOOT_ADDRESSES)
        .long multiboot, multiboot, payload_end, bss_end, start_multiboot
        .globl start_multiboot
start_multiboot: movb $'k', %dl
        jmp 1f
start_bios: movb $'b', %dl
        jmp 1f
start_rom: movb $'r', %dl
1:      cli
        cld
        lgdt gdtr
        ljmp $8, $2f
2:      movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw %ax, %fs
        movw %ax, %gs
        movl $stack_top, %esp
        movl $bss_start, %edi
        movl $bss_end, %ecx
        subl %edi, %ecx
        xorl %eax, %eax
        rep stosb
        movzbl %dl, %edx
        pushl %edx
        call main
3:      hlt
        jmp 3b

        .globl on_timer, on_console, on_other, on_exception
on_timer: incl timer_ticks
on_console: pushl %eax
        movb $0x20, %al                 /* end of interrupt */
        outb %al, $0x20
        popl %eax
on_other: iret
on_exception: cli
        call exception
4:      hlt
        jmp 4b

        .balign 8
gdt:    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:   .word 23
        .long gdt
        .section .note.GNU-stack, "", @progbits
