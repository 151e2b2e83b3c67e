/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Asked for by the prologue of bcc; nothing in it is used. */
