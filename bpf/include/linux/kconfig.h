/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* bcc's prologue includes this file and tests only this option. */
#define CONFIG_BPF_SYSCALL 1
