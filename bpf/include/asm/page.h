/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* x86-64 pages; bcc sizes its maps with them. */
#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)
