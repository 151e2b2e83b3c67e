/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * One page allocation as the ring buffer carries it. This file is read twice: by the compiler, and by
 * kalloctrace/probe/layout.py, which takes names, types and order from the lines below.
 * Widest members first, so that there is no padding but at the end.
 */

/* Through which function a call came in; kalloctrace/probe/rows.py has the names. */
enum entry {
	ENTRY_NORMAL,
	ENTRY_NOLOCK,
	ENTRY_BULK,
	ENTRY_BULK_SINGLE,		/* the normal entry, called by the bulk allocator */
};

#define BULK_WORDS 2
/* How many pages of one call are looked at: vmalloc() asks for up to 100. */
#define BULK_PAGES (64 * BULK_WORDS)

struct record {
	u64 time;			/* CLOCK_MONOTONIC at the entry, ns */
	u64 pid_tgid;			/* as bpf_get_current_pid_tgid() */
	u64 task;			/* current */
	u64 nodemask;			/* the entry's argument, a pointer */
	u64 page;			/* what the entry returned, a pointer or NULL */
	u64 mems_allowed[NODEMASK_WORDS];	/* current->mems_allowed at the entry */
	u64 nodemask_nodes[NODEMASK_WORDS];	/* *nodemask at the entry, where it is not NULL */
	u64 ac[ALLOC_CONTEXT_WORDS];	/* *ac at the first get_page_from_freelist() */
	u64 ac_nodemask_nodes[NODEMASK_WORDS];	/* *ac->nodemask, where it is not NULL */
	u64 preferred_zone;		/* ac->preferred_zoneref->zone, a pointer or NULL */
	u64 prepare_ac[ALLOC_CONTEXT_WORDS];	/* *ac when prepare_alloc_pages() returned */
	char comm[16];			/* current->comm */
	u32 gfp_mask;			/* the entry's arguments */
	u32 order;
	s32 preferred_nid;
	u32 task_flags;			/* current->flags */
	u32 preempt_count;		/* raw */
	s32 cpusets_enabled;		/* cpusets_enabled_key.key.enabled.counter */
	u32 gfp_allowed_mask;
	s32 defrag_mode;		/* 0 where the kernel has none */
	u32 freelist_gfp_mask;		/* the arguments of the first get_page_from_freelist() */
	u32 freelist_order;
	u32 alloc_flags;
	s32 preferred_zone_idx;		/* ac->preferred_zoneref->zone_idx */
	u32 freelist_calls;		/* how often get_page_from_freelist() was called */
	u32 cpu;			/* at the entry */
	s32 stack;			/* id in the stack map, negative where there is none */
	u32 prepare_calls;		/* returns of prepare_alloc_pages(), 0 where it has no symbol */
	u32 prepare_returned;		/* what it returned */
	u32 prepare_alloc_mask;		/* *alloc_mask and *alloc_flags when it returned */
	u32 prepare_alloc_flags;
	u32 entry_alloc_flags;		/* the entry's fifth argument, 0 where it has four */
	u32 entry;			/* enum entry */
	u32 softirq_disable_cnt;	/* current->softirq_disable_cnt, 0 where there is none (not PREEMPT_RT) */
	s32 numa_node_id;		/* node of the CPU, for ENTRY_NOLOCK */
};

/* A call of the bulk allocator: what it shares with the others first, then what only it has. */
struct bulk_record {
	struct record r;
	u64 page_array;			/* the argument, a pointer or NULL */
	u64 single_page;		/* what its call of the normal entry returned */
	u64 populated[BULK_WORDS];	/* elements of the array that held a page at the entry, bit n is element n */
	u64 nodes[NODEMASK_WORDS];	/* nodes of the pages that were looked at */
	s32 nr_pages;			/* the argument */
	u32 returned;			/* what it returned: how far the array is filled, or how many are on the list */
	u32 seen;			/* of the pages that it took itself, how many were looked at */
	u32 zones;			/* zones of those, bit n is index n */
	u32 single_calls;		/* calls of the normal entry for a single page: 0 or 1 */
	u32 single_gfp_mask;		/* the gfp argument of that call */
	s32 memcg_kmem;			/* the counter of the key that memcg_kmem_online() asks */
	s32 page_owner;			/* the counter of page_owner_inited */
};
