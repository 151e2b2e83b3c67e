/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The types that the BPF program shares with user space. Two readers parse this file: the compiler, and
 * kalloctrace/probe/layout.py, which takes every constant, enum and structure from it. It holds nothing else.
 * The widest members come first, so that only the end of a structure has padding.
 */

/* The function through which a call came in; kalloctrace/probe/decode/rows.py names them. */
enum entry {
	ENTRY_NORMAL,
	ENTRY_NOLOCK,
	ENTRY_BULK,
	ENTRY_BULK_SINGLE,		/* the normal entry, called by the bulk allocator */
};

enum mode { OFF, CALIBRATE, CAPTURE };

struct control {
	u32 mode;
	u32 tid;		/* CALIBRATE: the one task to measure */
	u64 frame_to_ac;	/* CAPTURE: frame of the entry's call minus the address of ac */
};

/* CALIBRATE: the measurement of one call; the map counts equal ones. */
struct calibrated {
	u64 frame_to_ac;
	u64 preempt_count;	/* raw, at the entry: 32 bits */
	u64 gfp_mask;		/* of get_page_from_freelist(); 0 if the entry is traced */
	u64 asked;		/* the mask before the scopes of the task; 0 if it was not seen */
};

enum counter {
	OPENED,			/* calls of an entry */
	DROPPED,		/* records that found their buffer full, or the rate used up */
	PENDING_FULL,		/* calls that found the hash of pending calls full */
	UNPAIRED_FREELIST,	/* get_page_from_freelist() without a pending call */
	UNPAIRED_RETURN,	/* returns without a pending call */
	OVERWRITTEN,		/* pending calls whose frame was used again before they returned */
	FREELIST_BUSY,		/* get_page_from_freelist() whose call could not be looked up: another program held the slot */
	FILTERED,		/* calls that a filter rejected after they were prepared, or had returned */
	REJECTED,		/* requests that the entry rejected, seen where it does */
	COMMS_DROPPED,		/* task names that found their ring buffer full */
	ZONES_DROPPED,		/* zonelists of slow calls that were not copied completely for lack of space */
	OWN,			/* calls of the recorder, which are left out */
	UNMATCHED,		/* calls that a filter rejected at once */
	OVERFLOWED,		/* counts that found their ring buffer full, so that the hash has them */
	NR_COUNTERS,
};

#define TASK_COMM_LEN 16		/* the kernel's: a name with its terminating zero */
#define BULK_WORDS 2
/* How many pages of one call are examined: vmalloc() requests up to 100. */
#define BULK_PAGES (64 * BULK_WORDS)

struct record {
	u64 time;			/* CLOCK_MONOTONIC at the entry, ns */
	u64 pid_tgid;			/* as bpf_get_current_pid_tgid() */
	u64 task;			/* current */
	u64 cgroup;			/* id of its control group, 0 if groups are not recorded */
	u64 nodemask;			/* the entry's argument, a pointer */
	u64 page;			/* what the entry returned, a pointer or NULL */
	u64 mems_allowed[NODEMASK_WORDS];	/* current->mems_allowed at the entry */
	u64 nodemask_nodes[NODEMASK_WORDS];	/* *nodemask at the entry, unless it is NULL */
	u64 ac[ALLOC_CONTEXT_WORDS];	/* *ac at the first get_page_from_freelist() */
	u64 ac_nodemask_nodes[NODEMASK_WORDS];	/* *ac->nodemask, unless it is NULL */
	u64 preferred_zone;		/* ac->preferred_zoneref->zone, a pointer or NULL */
	u64 prepare_ac[ALLOC_CONTEXT_WORDS];	/* *ac when prepare_alloc_pages() returned */
	char comm[TASK_COMM_LEN];	/* current->comm */
	u32 gfp_mask;			/* the entry's arguments */
	u32 order;
	s32 preferred_nid;
	u32 task_flags;			/* current->flags */
	u32 preempt_count;		/* raw */
	s32 cpusets_enabled;		/* cpusets_enabled_key.key.enabled.counter */
	u32 gfp_allowed_mask;
	s32 defrag_mode;		/* 0 if the kernel has none */
	u32 freelist_gfp_mask;		/* the arguments of the first get_page_from_freelist() */
	u32 freelist_order;
	u32 alloc_flags;
	s32 preferred_zone_idx;		/* ac->preferred_zoneref->zone_idx */
	u32 freelist_calls;		/* how often get_page_from_freelist() was called */
	u32 cpu;			/* at the entry */
	s32 stack;			/* id in the stack map, negative if there is none */
	u32 prepare_calls;		/* returns of prepare_alloc_pages(), 0 if it is inlined */
	u32 prepare_returned;		/* what it returned */
	u32 prepare_alloc_mask;		/* *alloc_mask and *alloc_flags when it returned */
	u32 prepare_alloc_flags;
	u32 entry_alloc_flags;		/* the entry's fifth argument, 0 if it has four */
	u32 entry;			/* enum entry */
	u32 softirq_disable_cnt;	/* current->softirq_disable_cnt, 0 without PREEMPT_RT */
	s32 numa_node_id;		/* node of the CPU, for ENTRY_NOLOCK */
};

/*
 * The identity of an allocation: the request, the other state that the kernel reads, and the prepared context. Two of
 * these are compared as 64-bit words. Members after `by` are 0 unless `present` says that they were captured.
 */
struct allocation {
	u32 gfp_mask;			/* the entry's arguments */
	u32 order;
	s32 preferred_nid;
	u32 entry_alloc_flags;		/* the fifth, 0 if it has four */
	u32 task_flags;			/* current->flags */
	u32 preempt_count;		/* raw, 0 unless captured */
	u32 freelist_gfp_mask;		/* the arguments of the first get_page_from_freelist() */
	u32 alloc_flags;
	u64 zonelist;			/* *ac at that call; a pointer, as the next one */
	u64 preferred_zoneref;
	s32 migratetype;
	s32 highest_zoneidx;
	u32 spread_dirty_pages;
	u32 present;			/* enum present */
	u32 gfp_allowed_mask;
	u32 switches;			/* enum switches */
	u64 by[BY_WORDS];		/* current->comm, or the id of its control group, if calls are counted by it; else empty */
	u64 mems_allowed[NODEMASK_WORDS];	/* current->mems_allowed at the entry */
	u64 nodemask_nodes[NODEMASK_WORDS];	/* *nodemask at the entry */
	u64 ac_nodemask_nodes[NODEMASK_WORDS];	/* *ac->nodemask */
	u64 softirq_disable_cnt;	/* current->softirq_disable_cnt, captured with preempt_count (PREEMPT_RT) */
};

enum present {
	NODEMASK = 1,			/* the entry's nodemask argument is not NULL */
	TASK_CONTEXT = 2,		/* mems_allowed and preempt_count were captured: the stage may read them */
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

/* One allocation of stream mode. */
struct event {
	u64 time;			/* CLOCK_MONOTONIC at the entry, ns */
	u64 pid_tgid;			/* as bpf_get_current_pid_tgid() */
	u32 cpu;			/* at the entry */
	s32 stack;			/* id in the stack map, negative if there is none */
	struct allocation a;
};

#define STACK_DEPTH 127		/* PERF_MAX_STACK_DEPTH: what the stack map keeps */

/* The stack with an id. */
struct stack {
	u64 addresses[STACK_DEPTH];	/* innermost first */
	s32 id;
	s32 bytes;			/* of the addresses, or a negative error */
};

/* A new task, or a task that changes its name or its control group. */
struct task_comm {
	u64 time;			/* CLOCK_MONOTONIC, ns */
	u64 cgroup;			/* id of the new control group; 0: the name changes */
	u32 tid;
	u32 pid;			/* tgid; 0 if groups are not recorded */
	char comm[TASK_COMM_LEN];
};

#define CGROUP_PATH_LEN 1024		/* the kernel's TRACE_CGROUP_PATH_LEN */

/* A new control group. */
struct cgroup_path {
	u64 id;
	char path[CGROUP_PATH_LEN];
};

/* How often an allocation was made: an entry of a CPU's cache, or one evicted from it. */
struct count_entry {
	u64 count;
	u64 version;			/* odd while the entry is given to another allocation */
	struct allocation a;
};

/* How many entries of a CPU's cache may hold an allocation. */
#define ASSOCIATIVITY 2

struct cache_set {
	struct count_entry entry[ASSOCIATIVITY];
};

/* A call between its entry and its first get_page_from_freelist(). */
struct call {
	u64 frame;			/* 0: no call */
	u64 nodemask;			/* the argument, a pointer */
	u64 task;			/* current */
	struct event e;
};

enum capturing { IDLE, CAPTURING, CLOSING };	/* CLOSING: pending calls are completed, new ones ignored */

/* What the short way of one.bpf.c compares, in memory that user space maps. */
struct look {
	u64 state;			/* enum capturing, plus LOOK for each reason not to take the short way */
	u64 return_to_ac;		/* written by user space: ac minus the address of the first call's return address */
	u64 distance;			/* of the last first call: ac minus the stack pointer, or the context */
	u64 rejects;			/* written by user space: 1 if the probe at rejected requests is to count them */
	u64 audit;			/* enum audit, written by user space */
	u64 audit_frame_to_ac;		/* written by user space: as frame_to_ac of a slot, for the pair of audit.bpf.c */
	u64 audit_unpaired;		/* first calls, by their alloc_flags, whose entry that pair has not seen */
	u64 audit_full;			/* calls that found a map of the audit full */
};

#define LOOK 256

/* Whether the pair runs beside one probe. AUDIT_READY: it follows calls, and one probe takes the long way. */
enum audit { AUDIT_OFF, AUDIT_READY, AUDIT_COUNT };

/*
 * Distances between frames of functions that user space cannot call, and so cannot calibrate. Each is the same at every
 * call; the first call measures it.
 */
struct frame_offsets {
	u64 nolock_to_ac;		/* frame of the nolock entry minus ac, 0 until measured */
	u64 bulk_to_single;		/* frame of the bulk allocator minus that of the normal entry that it calls */
	u64 bulk_running;		/* calls of the bulk allocator that have an open record */
	u64 return_measured;		/* 1 once sp_to_frame is known */
	u64 sp_to_frame;		/* frame of a call minus the stack pointer that kprobe.multi shows at its return */
};

/* The state of one CPU, in memory that user space maps. */
struct slot {
	u32 capturing;			/* enum capturing, written by user space */
	u32 busy;			/* a program uses the slot; a program that sees this has interrupted it */
	u64 frame_to_ac;		/* written by user space: frame of the entry's call minus the address of ac */
	u64 slot_to_ac;			/* the same, or 0 if the call in the slot migrated; written by any CPU */
	u64 preempt_count_address;	/* written by user space: that of this CPU */
	u64 calls;			/* calls of the entry that got the slot; also the number of the last one */
	u64 migrated;			/* the number of the call that left with its task, written by any CPU */
	u64 sample_seq;			/* calls that pass the other filters; every SAMPLEth is recorded */
	u64 tokens;			/* records that may still be sent, written by user space */
	u64 producer_pos;		/* events written to this CPU's buffer */
	u64 consumer_pos;		/* events that user space has read, written by user space */
	u64 short_until;		/* one.bpf.c: the number of the event that its short way leaves to one_long() */
	u64 foreign;			/* the last task that was seen not to be the recorder's */
	u64 counters[NR_COUNTERS];	/* enum counter */
	struct call call;		/* gfp_allowed_mask, switches, cpu and stack persist between calls */
};

/* A call of the bulk allocator: first the members that every call has, then its own. */
struct bulk_record {
	struct record r;
	u64 page_array;			/* the argument, a pointer or NULL */
	u64 single_page;		/* what its call of the normal entry returned */
	u64 populated[BULK_WORDS];	/* elements of the array that held a page at the entry; bit n is element n */
	u64 nodes[NODEMASK_WORDS];	/* nodes of the examined pages */
	s32 nr_pages;			/* the argument */
	u32 returned;			/* what it returned: populated elements of the array, or pages on the list */
	u32 examined;			/* how many of the pages that it took itself were examined */
	u32 zones;			/* zones of the examined pages; bit n is index n */
	u32 single_calls;		/* calls of the normal entry for a single page: 0 or 1 */
	u32 single_gfp_mask;		/* the gfp argument of that call */
	s32 memcg_kmem;			/* the counter of the key that memcg_kmem_online() reads */
	s32 page_owner;			/* the counter of page_owner_inited */
};

#define SLOW_STACK 24

/* What a slow-path call spends its time with. */
enum slow_part {
	PART_REST,			/* nothing of the following */
	PART_RECLAIM,			/* direct reclaim */
	PART_COMPACTION,		/* direct compaction */
	PART_OOM,			/* out_of_memory() */
	PART_THROTTLE,			/* direct reclaim that sleeps, for other tasks to write or to reclaim */
	PART_LOCK,			/* a contended lock */
};

#define SLOW_PARTS 8			/* a power of two */

/* One step of a slow-path call. Steps are sent in the order of time. */
struct slow_event {
	u64 frame;			/* the stack pointer where the entry calls __alloc_pages_slowpath(); SLOW_BEGINS and SLOW_RETURNS */
	u64 ac;				/* address of ac; SLOW_BEGINS and SLOW_ATTEMPT */
	u64 oom_mm;			/* current->signal->oom_mm: not NULL for a victim of the OOM killer */
	u64 lost;			/* events lost before this one */
	u64 stack[SLOW_STACK];		/* addresses, innermost first; SLOW_BEGINS */
	u64 parts[SLOW_PARTS];		/* ns by enum slow_part; their sum is the time since SLOW_BEGINS; SLOW_RETURNS */
	u32 kind;			/* enum slow_kind */
	s32 prio;			/* current->prio */
	struct record r;		/* as at an entry; freelist_* are the arguments of get_page_from_freelist(), or of the slow path */
};

enum slow_kind {
	SLOW_BEGINS,
	SLOW_ATTEMPT,			/* get_page_from_freelist() */
	SLOW_RETURNS,
	SLOW_RECLAIM,			/* direct reclaim begins */
	SLOW_COMPACTION,		/* direct compaction begins */
	SLOW_OOM,			/* current invoked the OOM killer, which chose a victim */
};

/* A copy of a zone. */
struct slow_zone {
	u64 time;			/* time of the event that it belongs to */
	u64 frame;			/* frame of that event */
	u64 zone;			/* its address */
	u64 words[ZONE_WORDS];		/* struct zone */
};
