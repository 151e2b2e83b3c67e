/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* bcc's own prologue includes this file; it only asks for this one. */
#define CONFIG_BPF_SYSCALL 1
