/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Sets of nodes. The tests compile this file for the host too. */

/* Adds a node to a set of NODEMASK_WORDS words; a node beyond them is left out. */
static __always_inline void node_set(u64 node, u64 *nodes)
{
	u64 word = node / 64;

	/* Keeps bound and index in one register: the verifier of 5.10 relates no two. */
	asm volatile("" : "+r"(word));
	if (word < NODEMASK_WORDS)
		nodes[word] |= 1ULL << (node % 64);
}
