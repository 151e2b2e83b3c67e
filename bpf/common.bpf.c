// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Captures page allocations: the request, the context that the preparation stage made of it, and the result.
 *
 * An entry function opens a record, the first get_page_from_freelist() of the same call adds the prepared context, and
 * the entry's return closes the record. The key of a record is the stack frame of its call: no two live calls share a
 * frame, whichever CPU they run on and whatever interrupts them. `struct alloc_context` lies in that frame at a fixed
 * distance. User space measures the distance once (CALIBRATE) and stores it in `control`.
 *
 * The program is this file, followed by those that apply to the kernel and the mode: slow.bpf.c, bulk.bpf.c,
 * nolock.bpf.c; context.bpf.c, aggregate.bpf.c or stream.bpf.c, and pair.bpf.c; or alloc.bpf.c and prepare.bpf.c; and
 * last fentry.bpf.c or kprobe.bpf.c with the functions that are attached. These fetch arguments and call functions of the
 * other files. The files are concatenated before compilation, because bcc does not rewrite included files.
 *
 * The frame of a call is an address in its stack at a distance from `ac` that is the same for every call: the context of
 * the trampoline (fentry), or the stack pointer at the function's entry (kprobe).
 *
 * Defined by user space from the kernel's symbols and BTF (kalloctrace/probe/attach/plan.py):
 *   ENTRY, NODEMASK_WORDS, ALLOC_CONTEXT_WORDS, PENDING, RECORDS_PAGES, NR_CPUS, the addresses *_ADDRESS, the offsets
 *   STRUCT__MEMBER of members, and where they apply ENTRY_ALLOC_FLAGS, DEFRAG_MODE_ADDRESS, STACKS,
 *   TASK_STRUCT__SOFTIRQ_DISABLE_CNT, NOLOCK, ALLOC_NOLOCK (the bit of alloc_flags that only allocations without locks
 *   have, under either of its names), and BULK with the constants of bulk.bpf.c.
 * Defined by the filters (kalloctrace/probe/attach/filters.py):
 *   TGID, COMM_0 and COMM_1, ORDER, GFP_ANY, GFP_ALL, GFP_NONE, PREFERRED_NID, SAMPLE, MAX_RATE, FAILED, ALLOC_FLAGS and
 *   ZONE_IDX; CONTEXT_FILTER with either of the last two; FILTERS with any of all these.
 */
#include <uapi/linux/ptrace.h>
#include "record.h"

/*
 * Distances between frames of functions that user space cannot call, and so cannot calibrate. Each is the same at every
 * call; the first call measures it.
 */
struct frame_offsets {
	u64 nolock_to_ac;	/* frame of the nolock entry minus ac, 0 until measured */
	u64 bulk_to_single;	/* frame of the bulk allocator minus that of the normal entry that it calls */
	u64 bulk_running;	/* calls of the bulk allocator that have an open record */
};

/* CALIBRATE: the call that has not reached get_page_from_freelist() yet. */
struct calibrating {
	u64 frame;		/* 0: no call */
	u64 preempt_count;
};

/* CALIBRATE: the measurement of one call; the map counts equal ones. */
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
/* Orders stores as a program that interrupts this one sees them. */
#define barrier() asm volatile("" ::: "memory")
#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), (const void *)(from))

/* How far above a frame to search for another one whose distance is unknown: more than lies between any two. */
#define FRAME_SEARCH 0x200

/* Returns a pointer as a scalar: the verifier forbids adding a variable to a pointer to the context. */
static __always_inline u64 scalar(u64 pointer)
{
	u64 value = 0;

	READ(value, &pointer);
	return value;
}

static __always_inline void count_many(u32 which, u64 many)
{
	u64 *value = counters.lookup(&which);

	/* Atomic although the counter is per-CPU: an interrupt may allocate in between. */
	if (value)
		__sync_fetch_and_add(value, many);
}

static __always_inline void count(u32 which)
{
	count_many(which, 1);
}

/* Counts a probe hit without a pending call. With filters active the call was probably filtered out. */
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

/* Returns whether a request passes the filters. A filter that is not defined passes everything. */
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

/* Likewise for the prepared context: alloc_flags, and the zone that ac->preferred_zoneref names. */
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

/* Takes one of the tokens that user space hands out; returns whether there was one. */
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

/* Captures the caller, and the state that the stage reads in addition to its arguments. */
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

/* Likewise, with the stack if stacks are recorded; only the stack needs `ctx`. */
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
	/* User space polls: a wake-up for each allocation would itself allocate. */
	if (!matches_result(r))
		count(FILTERED);
	else if (!within_rate() || records.ringbuf_output(r, sizeof(*r), BPF_RB_NO_WAKEUP))
		count(DROPPED);
	pending_records.delete(&frame);
}

/* Captures the arguments of the first get_page_from_freelist() of a call. */
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
 * Returns whether this is the first get_page_from_freelist() of a call. It has ALLOC_WMARK_LOW; the attempts of the slow
 * path do not, and could match an earlier, rejected call with the same frame. A call without locks has no slow path.
 */
static __always_inline bool first_of_call(u32 alloc_flags)
{
#ifdef ALLOC_NOLOCK
	if (alloc_flags & ALLOC_NOLOCK)
		return true;
#endif
	return (alloc_flags & 3) == 1;
}

/* Notes a call of the one task that calibration measures. */
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

/* Counts the measurement of that call, once get_page_from_freelist() shows where its ac is. */
static __always_inline void calibrate_freelist(const struct control *c, u32 alloc_flags, u64 ac)
{
	int zero = 0;
	struct calibrating *now = calibrating.lookup(&zero);
	struct calibrated shown = {};
	u64 one = 1, *seen;

	/* Fast path only (ALLOC_WMARK_LOW): other calls may come before an attempt of the slow path. */
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
