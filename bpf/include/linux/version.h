/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Tracing programs need no version any more; bcc's prologue still writes one down. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
