/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * One page allocation as the ring buffer carries it. This file is read twice: by the compiler, and by
 * kalloctrace/probe/layout.py, which takes names, types and order from the lines below.
 * Widest members first, so that there is no padding but at the end.
 */

/* Through which function a call came in; kalloctrace/probe/decode/rows.py has the names. */
enum entry {
	ENTRY_NORMAL,
	ENTRY_NOLOCK,
	ENTRY_BULK,
	ENTRY_BULK_SINGLE,		/* the normal entry, called by the bulk allocator */
};

enum mode { OFF, CALIBRATE, CAPTURE };

struct control {
	u32 mode;
	u32 tid;		/* CALIBRATE: the one task to look at */
	u64 frame_to_ac;	/* CAPTURE: frame of the entry's call minus address of ac */
};

enum counter {
	OPENED,			/* calls of an entry that were seen */
	DROPPED,		/* records that found it full */
	PENDING_FULL,		/* calls that found the table of running calls full */
	UNPAIRED_FREELIST,		/* get_page_from_freelist() without an open record */
	UNPAIRED_RETURN,		/* a return without an open record */
	OVERWRITTEN,		/* calls whose frame held a record that never returned */
	FREELIST_BUSY,		/* get_page_from_freelist() whose record could not be looked for, as a program was at work */
	FILTERED,		/* calls that were not wanted once they were prepared, or had returned */
	COMMS_DROPPED,		/* names of tasks that found their ring buffer full */
	ZONES_DROPPED,		/* lists of zones of slow calls that were not copied whole, as there was no room */
	NR_COUNTERS,
};

#define TASK_COMM_LEN 16		/* of the kernel: a name, and the zero that ends it */
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
	char comm[TASK_COMM_LEN];			/* current->comm */
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

/*
 * What tells one allocation from another: the request, what the kernel reads besides, and the prepared context. Read as
 * words of 64 bits where two are compared. What is behind
 * `switches` is 0 unless `present` says that it was captured.
 */
struct allocation {
	u32 gfp_mask;			/* the entry's arguments */
	u32 order;
	s32 preferred_nid;
	u32 entry_alloc_flags;		/* the fifth, 0 where it has four */
	u32 task_flags;			/* current->flags */
	u32 preempt_count;		/* raw, where it was captured */
	u32 freelist_gfp_mask;		/* the arguments of the first get_page_from_freelist() */
	u32 alloc_flags;
	u64 zonelist;			/* *ac at that call: pointers */
	u64 preferred_zoneref;
	s32 migratetype;
	s32 highest_zoneidx;
	u32 spread_dirty_pages;
	u32 present;			/* enum present */
	u32 gfp_allowed_mask;
	u32 switches;			/* enum switches */
	u64 mems_allowed[NODEMASK_WORDS];	/* current->mems_allowed at the entry */
	u64 nodemask_nodes[NODEMASK_WORDS];	/* *nodemask at the entry */
	u64 ac_nodemask_nodes[NODEMASK_WORDS];	/* *ac->nodemask */
	u64 softirq_disable_cnt;	/* current->softirq_disable_cnt, captured with preempt_count (PREEMPT_RT) */
};

enum present {
	NODEMASK = 1,			/* the entry's nodemask argument is not NULL */
	TASK_CONTEXT = 2,		/* mems_allowed and preempt_count were captured: where the stage looks at them */
	PREPARED = 4,			/* get_page_from_freelist() was reached */
	AC_NODEMASK_CALLER = 8,		/* ac->nodemask is the argument, */
	AC_NODEMASK_MEMS_ALLOWED = 16,	/* or current->mems_allowed, */
	AC_NODEMASK_OTHER = 32,		/* or something else that is not NULL */
	BULK_SINGLE = 64,		/* the bulk allocator made this call */
};

enum switches {
	CPUSETS_ENABLED = 1,
	CPUSETS_SWITCHING = 2,		/* the counter of cpusets_enabled_key is negative */
	DEFRAG_MODE = 4,
};

/* One allocation in stream mode. */
struct event {
	u64 time;			/* CLOCK_MONOTONIC at the entry, ns */
	u64 pid_tgid;			/* as bpf_get_current_pid_tgid() */
	u32 cpu;			/* at the entry */
	s32 stack;			/* id in the stack map, negative where there is none */
	struct allocation a;
};

/* A task has come to be, or has another name now. */
struct task_comm {
	u64 time;			/* CLOCK_MONOTONIC, ns */
	u32 tid;
	u32 unused;
	char comm[TASK_COMM_LEN];
};

/* How often an allocation was made: a cell of a CPU's cache, or what had to leave it. */
struct count_entry {
	u64 count;
	u64 version;			/* odd while the cell changes hands */
	struct allocation a;
};

/* The entries of a CPU's cache that an allocation may be in. */
#define ASSOCIATIVITY 2

struct cache_set {
	struct count_entry entry[ASSOCIATIVITY];
};

/* A call between its entry and its first get_page_from_freelist(). */
struct call {
	u64 frame;			/* 0: none */
	u64 nodemask;			/* the argument, a pointer */
	u64 task;			/* current */
	struct event e;
};

enum capturing { IDLE, CAPTURING, CLOSING };	/* CLOSING: calls under way are completed, new ones ignored */

/* What each CPU has of its own. Shared with user space through memory. */
struct slot {
	u32 capturing;			/* enum capturing, written by user space */
	u32 busy;			/* a program is at work here, and was interrupted if another one sees this */
	u64 frame_to_ac;		/* written by user space: frame of the entry's call minus address of ac */
	u64 slot_to_ac;			/* the same, or 0 as the call in the slot has moved away; written by any CPU */
	u64 preempt_count_address;	/* written by user space: that of this CPU */
	u64 calls;			/* calls of the entry that were seen with the slot free; the number of the last one */
	u64 migrated;			/* the number of the call that moved away with its task, written by any CPU */
	u64 sample_seq;			/* calls that a sample is taken of */
	u64 tokens;			/* records that may still be sent, written by user space */
	u64 producer_pos;			/* events that were put into this CPU's lane */
	u64 consumer_pos;			/* those of them that user space has taken over, written by it */
	struct call call;		/* what is the same at every call stays: gfp_allowed_mask, switches, cpu, stack */
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
	u32 examined;			/* of the pages that it took itself, how many were looked at */
	u32 zones;			/* zones of those, bit n is index n */
	u32 single_calls;		/* calls of the normal entry for a single page: 0 or 1 */
	u32 single_gfp_mask;		/* the gfp argument of that call */
	s32 memcg_kmem;			/* the counter of the key that memcg_kmem_online() asks */
	s32 page_owner;			/* the counter of page_owner_inited */
};

#define SLOW_STACK 24

/* One step of a call of the slow path, in the order of time. */
struct slow_event {
	u64 frame;			/* the stack pointer where the entry calls __alloc_pages_slowpath(); begins and returns */
	u64 ac;				/* address of ac; begins and attempts */
	u64 oom_mm;			/* current->signal->oom_mm: not NULL for a victim of the OOM killer */
	u64 lost;			/* events that had been lost by then */
	u64 stack[SLOW_STACK];		/* of addresses, innermost first; begins */
	u32 kind;			/* enum slow_kind */
	s32 prio;			/* current->prio */
	struct record r;		/* as at an entry; freelist_* is what get_page_from_freelist(), or the slow path, was given */
};

enum slow_kind {
	SLOW_BEGINS,
	SLOW_ATTEMPT,			/* get_page_from_freelist() */
	SLOW_RETURNS,
	SLOW_RECLAIM,			/* direct reclaim begins */
	SLOW_COMPACTION,		/* direct compaction begins */
	SLOW_OOM,			/* current has the OOM killer choose a victim */
};

/* A zone as it was. */
struct slow_zone {
	u64 time;			/* of the event that it belongs to */
	u64 frame;			/* likewise */
	u64 zone;			/* its address */
	u64 words[ZONE_WORDS];		/* struct zone */
};
