/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* The registers that a kprobe sees, in the order of the x86-64 user interface. */
#ifndef KALLOCTRACE_PTRACE_H
#define KALLOCTRACE_PTRACE_H

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

#endif
