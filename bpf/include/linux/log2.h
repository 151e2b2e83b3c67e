/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* bcc rounds the size of a stack map with this; ours is a power of two already. */
#define roundup_pow_of_two(n) (n)
