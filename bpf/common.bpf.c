// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Captures one page allocation: what was asked for, what the preparation stage made of it, what came back.
 *
 * An entry function opens a record, the first get_page_from_freelist() of the same call fills in the prepared
 * context, the entry's return closes it. A record is keyed by the stack frame of its call: no two live calls share
 * one, whichever CPU they are on and whatever interrupts them. `struct alloc_context` lies in that frame at a fixed
 * distance, which user space measures once (CALIBRATE) and stores in `control`.
 *
 * The program is this file and those that the kernel has something for, in this order: slow.bpf.c, bulk.bpf.c, nolock.bpf.c,
 * alloc.bpf.c, prepare.bpf.c, and last fentry.bpf.c or kprobe.bpf.c with the functions that are attached: these fetch
 * arguments and call the steps that the other files hold. They are joined before they are compiled, as bcc rewrites
 * no included file.
 *
 * The frame of a call is an address in its stack that lies at the same distance from `ac` at every call: the context of
 * the trampoline (fentry) or the stack pointer at the function's entry (kprobe).
 *
 * Defined when this is compiled, from the kernel's symbols and BTF (kalloctrace/probe/attach/plan.py):
 *   ENTRY, NODEMASK_WORDS, ALLOC_CONTEXT_WORDS, PENDING, RECORDS_PAGES, NR_CPUS, the addresses *_ADDRESS, the offsets
 *   STRUCT__MEMBER of members, and where they apply ENTRY_ALLOC_FLAGS, DEFRAG_MODE_ADDRESS, STACKS,
 *   TASK_STRUCT__SOFTIRQ_DISABLE_CNT, NOLOCK, ALLOC_NOLOCK (the bit of alloc_flags that allocations without locks alone
 *   have, under whichever name), and BULK with what bulk.bpf.c says. What is not wanted is told by
 *   kalloctrace/probe/attach/filters.py: TGID, COMM_0 and COMM_1, ORDER, GFP_ANY, GFP_ALL, GFP_NONE, PREFERRED_NID, SAMPLE, MAX_RATE;
 *   FAILED; ALLOC_FLAGS and ZONE_IDX, with either of which there is CONTEXT_FILTER; with any of all these, FILTERS.
 */
#include <uapi/linux/ptrace.h>
#include "record.h"

/*
 * Distances between frames that no call of ours can measure, as user space cannot call these functions. Each is the
 * same at every call, so that the first one tells it.
 */
struct frame_offsets {
	u64 nolock_to_ac;	/* frame of the nolock entry minus ac, 0 while it is not known */
	u64 bulk_to_single;	/* frame of the bulk allocator minus that of the normal entry which it calls */
	u64 bulk_running;	/* calls of the bulk allocator that have an open record */
};

/* CALIBRATE: the call that has been entered and not yet reached get_page_from_freelist(). */
struct calibrating {
	u64 frame;		/* 0 where there is none */
	u64 preempt_count;
};

/* CALIBRATE: what one call shows, the key of how often it was seen. */
struct calibrated {
	u64 frame_to_ac;
	u64 preempt_count;	/* raw, at the entry: 32 bits */
};

BPF_ARRAY(control, struct control, 1);
BPF_ARRAY(frame_offsets, struct frame_offsets, 1);
BPF_F_TABLE("array", u32, struct slot, slots, NR_CPUS, BPF_F_MMAPABLE);
BPF_ARRAY(per_cpu_offset, u64, NR_CPUS);
BPF_PERCPU_ARRAY(counters, u64, NR_COUNTERS);
BPF_HASH(pending_records, u64, struct record, PENDING);
BPF_HASH(calibrated, struct calibrated, u64, 256);
BPF_ARRAY(calibrating, struct calibrating, 1);
BPF_RINGBUF_OUTPUT(records, RECORDS_PAGES);
#ifdef STACKS
BPF_STACK_TRACE(stacks, STACKS);
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
/* A program that interrupts this one sees memory as it is written so far. */
#define barrier() asm volatile("" ::: "memory")
#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), (const void *)(from))

/* How far above a frame another one is looked for while its distance is not known: more than any two have between. */
#define FRAME_SEARCH 0x200

/* Returns a pointer as a mere number: the verifier lets nobody add a variable to a pointer to the context. */
static __always_inline u64 scalar(u64 pointer)
{
	u64 value = 0;

	READ(value, &pointer);
	return value;
}

static __always_inline void count_many(u32 which, u64 many)
{
	u64 *value = counters.lookup(&which);

	/* Atomic, though it is this CPU's own: an interrupt may allocate in between. */
	if (value)
		__sync_fetch_and_add(value, many);
}

static __always_inline void count(u32 which)
{
	count_many(which, 1);
}

/* Counts a probe hit whose call is not known: with filters it just was not wanted. */
static __always_inline void count_unpaired(u32 which)
{
#ifndef FILTERS
	count(which);
#endif
}

static __always_inline struct control *in_mode(u32 mode)
{
	int zero = 0;
	struct control *c = control.lookup(&zero);

	return c && c->mode == mode ? c : NULL;
}

/* Tells whether a request is one of those that are recorded. What is not defined filters nothing. */
static __always_inline bool matches_filter(u32 gfp_mask, u32 order, s32 preferred_nid)
{
#ifdef TGID
	if (bpf_get_current_pid_tgid() >> 32 != TGID)
		return false;
#endif
#ifdef COMM_0
	u64 comm[TASK_COMM_LEN / 8] = {};

	bpf_get_current_comm(comm, sizeof(comm));
	if (comm[0] != COMM_0 || comm[1] != COMM_1)
		return false;
#endif
#ifdef ORDER
	if (order != ORDER)
		return false;
#endif
#ifdef GFP_ANY
	if (!(gfp_mask & GFP_ANY))
		return false;
#endif
#ifdef GFP_ALL
	if ((gfp_mask & GFP_ALL) != GFP_ALL)
		return false;
#endif
#ifdef GFP_NONE
	if (gfp_mask & GFP_NONE)
		return false;
#endif
#ifdef PREFERRED_NID
	if (preferred_nid != PREFERRED_NID)
		return false;
#endif
#ifdef SAMPLE
	u32 cpu = bpf_get_smp_processor_id();
	struct slot *s = slots.lookup(&cpu);

	if (!s)
		return false;
	s->sample_seq += 1;
	if (s->sample_seq % SAMPLE)
		return false;
#endif
	return true;
}

/* Likewise of what it was prepared with: alloc_flags, and the zone that ac->preferred_zoneref names. */
static __always_inline bool matches_context(u32 alloc_flags, u64 zone, s32 zone_idx)
{
#ifdef ALLOC_FLAGS
	if ((alloc_flags & ALLOC_FLAGS) != ALLOC_FLAGS)
		return false;
#endif
#ifdef ZONE_IDX
	if (!zone || zone_idx != ZONE_IDX)
		return false;
#endif
	return true;
}

/* Tells whether there may be one more record now: user space hands out so many at a time. */
static __always_inline bool within_rate(void)
{
#ifdef MAX_RATE
	u32 cpu = bpf_get_smp_processor_id();
	struct slot *s = slots.lookup(&cpu);

	if (!s || !s->tokens)
		return false;
	s->tokens -= 1;
#endif
	return true;
}

static __always_inline u32 preempt_count_of(const u64 *per_cpu_base)
{
	u32 value = 0;

	if (per_cpu_base)
		READ(value, *per_cpu_base + PREEMPT_COUNT_ADDRESS);
	return value;
}

/* Captures who calls, and what the stage reads beside its arguments. */
static __always_inline void capture_context(struct record *r, u64 pid_tgid)
{
	u32 cpu = bpf_get_smp_processor_id();
	u64 *base;

	r->time = bpf_ktime_get_ns();
	r->pid_tgid = pid_tgid;
	r->task = bpf_get_current_task();
	bpf_get_current_comm(&r->comm, sizeof(r->comm));
	r->cpu = cpu;
	if (r->nodemask)
		READ(r->nodemask_nodes, r->nodemask);

	READ(r->task_flags, r->task + TASK_STRUCT__FLAGS);
	READ(r->mems_allowed, r->task + TASK_STRUCT__MEMS_ALLOWED);
#ifdef TASK_STRUCT__SOFTIRQ_DISABLE_CNT
	READ(r->softirq_disable_cnt, r->task + TASK_STRUCT__SOFTIRQ_DISABLE_CNT);
#endif
	base = per_cpu_offset.lookup(&cpu);
	r->preempt_count = preempt_count_of(base);
#ifdef NOLOCK
	if (base && r->entry == ENTRY_NOLOCK)
		READ(r->numa_node_id, *base + NUMA_NODE_ADDRESS);
#endif
	READ(r->cpusets_enabled, CPUSETS_ENABLED_ADDRESS);
	READ(r->gfp_allowed_mask, GFP_ALLOWED_MASK_ADDRESS);
#ifdef DEFRAG_MODE_ADDRESS
	READ(r->defrag_mode, DEFRAG_MODE_ADDRESS);
#endif
	r->stack = -1;
}

/* Likewise, with the stack where it is wanted: for its sake only there is `ctx`. */
static __always_inline void capture(struct record *r, void *ctx, u64 pid_tgid)
{
	capture_context(r, pid_tgid);
#ifdef STACKS
	r->stack = stacks.get_stackid(ctx, 0);
#endif
}

static __always_inline void open(u64 frame, struct record *r)
{
	if (pending_records.insert(&frame, r)) {
		if (!pending_records.lookup(&frame)) {
			count(PENDING_FULL);
			return;
		}
		count(OVERWRITTEN);
		pending_records.update(&frame, r);
	}
}

static __always_inline bool matches_result(const struct record *r)
{
#ifdef FAILED
	if (r->page)
		return false;
#endif
#ifdef CONTEXT_FILTER
	if (!r->freelist_calls || !matches_context(r->alloc_flags, r->preferred_zone, r->preferred_zone_idx))
		return false;
#endif
	return true;
}

static __always_inline void close(u64 frame, struct record *r, u64 page)
{
	r->page = page;
	/* User space polls: a wake-up for each allocation would allocate more. */
	if (!matches_result(r))
		count(FILTERED);
	else if (!within_rate() || records.ringbuf_output(r, sizeof(*r), BPF_RB_NO_WAKEUP))
		count(DROPPED);
	pending_records.delete(&frame);
}

/* Fills in what the first get_page_from_freelist() of a call was given. */
static __always_inline void freelist_of_record(struct record *r, u32 gfp_mask, u32 order, u32 alloc_flags, u64 ac)
{
	u64 nodemask, zoneref;

	r->freelist_calls += 1;
	if (r->freelist_calls > 1)
		return;
	r->freelist_gfp_mask = gfp_mask;
	r->freelist_order = order;
	r->alloc_flags = alloc_flags;
	READ(r->ac, ac);
	nodemask = r->ac[ALLOC_CONTEXT__NODEMASK / 8];
	if (nodemask)
		READ(r->ac_nodemask_nodes, nodemask);
	zoneref = r->ac[ALLOC_CONTEXT__PREFERRED_ZONEREF / 8];
	READ(r->preferred_zone, zoneref + ZONEREF__ZONE);
	READ(r->preferred_zone_idx, zoneref + ZONEREF__ZONE_IDX);
}

/*
 * Tells the first get_page_from_freelist() of a call, by ALLOC_WMARK_LOW, from those of its slow path, which would find a
 * rejected call that had the same frame before. A call without locks has no slow path.
 */
static __always_inline bool first_of_call(u32 alloc_flags)
{
#ifdef ALLOC_NOLOCK
	if (alloc_flags & ALLOC_NOLOCK)
		return true;
#endif
	return (alloc_flags & 3) == 1;
}

/* Notes a call by the one task that calibration looks at. */
static __always_inline void calibrate_entry(const struct control *c, u64 frame, u64 pid_tgid)
{
	u32 cpu = bpf_get_smp_processor_id();
	int zero = 0;
	struct calibrating *now = calibrating.lookup(&zero);

	if (!now || (u32)pid_tgid != c->tid)
		return;
	now->preempt_count = preempt_count_of(per_cpu_offset.lookup(&cpu));
	now->frame = frame;
}

/* Counts what that call shows, once get_page_from_freelist() tells where its ac is. */
static __always_inline void calibrate_freelist(const struct control *c, u32 alloc_flags, u64 ac)
{
	int zero = 0;
	struct calibrating *now = calibrating.lookup(&zero);
	struct calibrated shown = {};
	u64 one = 1, *seen;

	/* Fast path only (ALLOC_WMARK_LOW): the slow path comes after other calls. */
	if (!now || !now->frame || (u32)bpf_get_current_pid_tgid() != c->tid || (alloc_flags & 3) != 1)
		return;
	shown.frame_to_ac = now->frame - ac;
	shown.preempt_count = now->preempt_count;
	now->frame = 0;
	seen = calibrated.lookup(&shown);
	if (seen)
		*seen += 1;
	else
		calibrated.insert(&shown, &one);
}
