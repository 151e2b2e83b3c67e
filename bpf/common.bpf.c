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
 * nolock.bpf.c; context.bpf.c, aggregate.bpf.c or stream.bpf.c, and pair.bpf.c or one.bpf.c; or alloc.bpf.c and
 * prepare.bpf.c; audit.bpf.c after one.bpf.c; cgroup.bpf.c and children.bpf.c where they apply; and last fentry.bpf.c
 * or kprobe.bpf.c with the functions that are attached. These fetch arguments and call functions of the other files. The
 * files are concatenated before compilation, because bcc does not rewrite included files.
 *
 * The frame of a call is an address in its stack at a distance from `ac` that is the same for every call: the context of
 * the trampoline (fentry), or the stack pointer at the function's entry (kprobe).
 *
 * Defined by user space from the kernel's symbols and BTF (kalloctrace/probe/attach/plan.py):
 *   ONE if one.bpf.c takes the place of pair.bpf.c, NODEMASK_WORDS, ALLOC_CONTEXT_WORDS, PENDING, RECORDS_PAGES,
 *   NR_CPUS (a power of two, at least as many as there may be), the maps SLOTS_FD and FRAME_OFFSETS_FD, LOOK_FD with ONE,
 *   STACKS_SENT_FD with STACKS, OWN_TGID if the recorder is left out, the addresses *_ADDRESS, the offsets
 *   STRUCT__MEMBER of members, and where they apply ENTRY_ALLOC_FLAGS, DEFRAG_MODE_ADDRESS, STACKS,
 *   TASK_STRUCT__SOFTIRQ_DISABLE_CNT, TASK_STRUCT__CGROUPS with what cgroup_of() needs, BY_COMM or BY_CGROUP with the
 *   number BY_WORDS of words if calls are counted by the name or the control group of their task, NOLOCK, ALLOC_NOLOCK (the bit of
 *   alloc_flags that only allocations without locks have, under either of its names), and BULK with the constants of
 *   bulk.bpf.c.
 * Defined by the filters (kalloctrace/probe/attach/filters.py):
 *   TGID, CHILDREN, COMM_0 and COMM_1, ORDER, GFP_ANY, GFP_ALL, GFP_NONE, PREFERRED_NID, SAMPLE, MAX_RATE, FAILED,
 *   ALLOC_FLAGS and ZONE_IDX; CONTEXT_FILTER with either of the last two; FILTERS with any of all these.
 */
#include <uapi/linux/ptrace.h>
#include "record.h"

/* Programs of raw tracepoints; user space knows them by these names. */
#define AT_TRACEPOINT(event) int at_##event(struct bpf_raw_tracepoint_args *ctx)

/* CALIBRATE: the call that has not reached get_page_from_freelist() yet. */
struct calibrating {
	u64 frame;		/* 0: no call */
	u64 preempt_count;
};

BPF_ARRAY(control, struct control, 1);
BPF_ARRAY(per_cpu_offset, u64, NR_CPUS);
BPF_HASH(pending_records, u64, struct record, PENDING);
BPF_HASH(calibrated, struct calibrated, u64, 256);
BPF_ARRAY(calibrating, struct calibrating, 1);
BPF_RINGBUF_OUTPUT(records, RECORDS_PAGES);
#ifdef STACKS
BPF_STACK_TRACE(stacks, STACKS);
BPF_RINGBUF_OUTPUT(sent_stacks, SENT_STACKS_PAGES);
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
/* Orders stores as a program that interrupts this one sees them. */
#define barrier() asm volatile("" ::: "memory")
#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), (const void *)(from))

/*
 * Maps of a single value, made by user space, are addressed without a look-up: 2 is BPF_PSEUDO_MAP_VALUE.
 * The index of an element has a bound that the verifier knows.
 */
#define MAP_VALUE(fd) bpf_pseudo_fd(2, fd)
#define BOUNDED(index, elements)					\
	({								\
		u64 bounded = (index);					\
									\
		/* The compiler knows more, and would leave it out. */	\
		asm volatile("" : "+r"(bounded));			\
		bounded & ((elements) - 1);				\
	})

static __always_inline struct slot *slot_of(u64 cpu)
{
	return (struct slot *)(MAP_VALUE(SLOTS_FD) + BOUNDED(cpu, NR_CPUS) * sizeof(struct slot));
}

static __always_inline struct frame_offsets *frame_offsets(void)
{
	return (struct frame_offsets *)MAP_VALUE(FRAME_OFFSETS_FD);
}

#define THE_LOOK ((volatile struct look *)MAP_VALUE(LOOK_FD))

#ifdef STACKS
/* Returns the id of the stack, and sends the stack at its first time: to look it up takes user space a bpf(2) call. */
static __always_inline s32 stack_id(void *ctx)
{
	s32 id = stacks.get_stackid(ctx, 0);
	struct stack *s;
	u8 *sent;

	if (id < 0)
		return id;
	sent = (u8 *)(MAP_VALUE(STACKS_SENT_FD) + BOUNDED(id, STACKS));
	if (likely(*sent))
		return id;
	s = sent_stacks.ringbuf_reserve(sizeof(*s));
	if (!s)
		return id;
	s->id = id;
	s->bytes = bpf_get_stack(ctx, s->addresses, sizeof(s->addresses), 0);
	sent_stacks.ringbuf_submit(s, BPF_RB_NO_WAKEUP);
	*sent = 1;
	return id;
}
#endif

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
	/* Atomic although each CPU has its own: an interrupt may allocate in between. */
	__sync_fetch_and_add(&slot_of(bpf_get_smp_processor_id())->counters[which], many);
}

static __always_inline void count(u32 which)
{
	count_many(which, 1);
}

/* Returns whether the current task is the recorder, whose calls are left out. */
static __always_inline bool is_own(void)
{
#ifdef OWN_TGID
	return bpf_get_current_pid_tgid() >> 32 == OWN_TGID;
#else
	return false;
#endif
}

/* Counts a probe hit without a pending call, unless the call was left out. With filters active it probably was. */
static __always_inline void count_unpaired(u32 which)
{
#ifndef FILTERS
	if (!is_own())
		count(which);
#endif
}

static __always_inline struct control *in_mode(u32 mode)
{
	int zero = 0;
	struct control *c = control.lookup(&zero);

	return c && c->mode == mode ? c : NULL;
}

#ifdef CHILDREN
/* Whether a process is followed, for each possible id: PID_MAX_LIMIT in include/linux/threads.h. A value of an array takes
 * at least eight bytes, so each has many of these bytes. */
#define MARKS 64
struct marks {
	u8 of[MARKS];
};
BPF_ARRAY(followed, struct marks, (4 << 20) / MARKS);

static __always_inline u8 *mark_of(u32 tgid)
{
	u32 index = tgid / MARKS;
	struct marks *marks = followed.lookup(&index);

	return marks ? &marks->of[tgid % MARKS] : NULL;
}

/* Returns whether a process is CHILDREN or one of its descendants. */
static __always_inline bool is_followed(u32 tgid)
{
	u8 *mark;

	if (tgid == CHILDREN)
		return true;
	mark = mark_of(tgid);
	return mark && *mark;
}
#endif

/* Returns whether a request passes the filters. A filter that is not defined passes everything. */
static __always_inline bool passes(u32 gfp_mask, u32 order, s32 preferred_nid)
{
#ifdef TGID
	if (bpf_get_current_pid_tgid() >> 32 != TGID)
		return false;
#endif
#ifdef CHILDREN
	if (!is_followed(bpf_get_current_pid_tgid() >> 32))
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
	struct slot *s = slot_of(bpf_get_smp_processor_id());

	s->sample_seq += 1;
	if (s->sample_seq % SAMPLE)
		return false;
#endif
	return true;
}

/* Returns whether a call is captured, and counts it if not. */
static __always_inline bool matches_filter(u32 gfp_mask, u32 order, s32 preferred_nid)
{
	if (is_own()) {
		count(OWN);
		return false;
	}
	if (passes(gfp_mask, order, preferred_nid))
		return true;
	count(UNMATCHED);
	return false;
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

#ifdef CONTEXT_FILTER
static __always_inline bool matches_zoneref(u32 alloc_flags, u64 zoneref)
{
	u64 zone = 0;
	s32 zone_idx = 0;

#ifdef ZONE_IDX
	READ(zone, zoneref + ZONEREF__ZONE);
	READ(zone_idx, zoneref + ZONEREF__ZONE_IDX);
#endif
	return matches_context(alloc_flags, zone, zone_idx);
}
#endif

/* Takes one of the tokens that user space hands out; returns whether there was one. */
static __always_inline bool within_rate(void)
{
#ifdef MAX_RATE
	struct slot *s = slot_of(bpf_get_smp_processor_id());

	if (!s->tokens)
		return false;
	s->tokens -= 1;
#endif
	return true;
}

/* Returns the machine's switches that the stage reads, as enum switches. */
static __always_inline u32 switches_now(void)
{
	s32 cpusets = 0, defrag = 0;
	u32 switches = 0;

	READ(cpusets, CPUSETS_ENABLED_ADDRESS);
	if (cpusets > 0)
		switches |= CPUSETS_ENABLED;
	if (cpusets < 0)
		switches |= CPUSETS_SWITCHING;
#ifdef DEFRAG_MODE_ADDRESS
	READ(defrag, DEFRAG_MODE_ADDRESS);
	if (defrag)
		switches |= DEFRAG_MODE;
#endif
	return switches;
}

static __always_inline u32 preempt_count_of(const u64 *per_cpu_base)
{
	u32 value = 0;

	if (per_cpu_base)
		READ(value, *per_cpu_base + PREEMPT_COUNT_ADDRESS);
	return value;
}

#if defined(BY_CGROUP) && defined(CURRENT_BTF)
/* As cgroup_of(), for a task whose type the verifier knows. */
static __always_inline u64 typed_cgroup_of(void *task)
{
	void *at = *(void **)(task + TASK_STRUCT__CGROUPS);

	at = *(void **)(at + CSS_SET__CGROUP);
#ifdef CGROUP_SUBSYS_STATE__CGROUP
	at = *(void **)(at + CGROUP_SUBSYS_STATE__CGROUP);
#endif
	at = *(void **)(at + CGROUP__KN);
	return *(u64 *)(at + KERNFS_NODE__ID);
}
#endif

/* Returns the id of the control group of a task, in the hierarchy that user space chose; 0 if groups are not recorded. */
static __always_inline u64 cgroup_of(u64 task)
{
	u64 id = 0;
#ifdef TASK_STRUCT__CGROUPS
	u64 at = 0;

	READ(at, task + TASK_STRUCT__CGROUPS);
	READ(at, at + CSS_SET__CGROUP);
#ifdef CGROUP_SUBSYS_STATE__CGROUP
	READ(at, at + CGROUP_SUBSYS_STATE__CGROUP);
#endif
	READ(at, at + CGROUP__KN);
	READ(id, at + KERNFS_NODE__ID);
#endif
	return id;
}

/* Captures what calls are counted by in addition to the request. With CURRENT_BTF the verifier knows the type of `task`. */
static __always_inline void capture_by(struct allocation *a, void *task)
{
#if defined(BY_COMM) && defined(CURRENT_BTF)
	a->by[0] = *(u64 *)(task + TASK_STRUCT__COMM);
	a->by[1] = *(u64 *)(task + TASK_STRUCT__COMM + 8);
#elif defined(BY_COMM)
	READ(a->by, task + TASK_STRUCT__COMM);
#elif defined(BY_CGROUP) && defined(CURRENT_BTF)
	a->by[0] = typed_cgroup_of(task);
#elif defined(BY_CGROUP) && !defined(CGROUP_SUBSYS_STATE__CGROUP)
	/* The unified hierarchy: the same as cgroup_of(), for fewer instructions. */
	a->by[0] = bpf_get_current_cgroup_id();
#elif defined(BY_CGROUP)
	a->by[0] = cgroup_of((u64)task);
#endif
}

/* Returns whether two calls are counted by the same. */
static __always_inline bool same_by(const struct allocation *one, const struct allocation *other)
{
	u32 i;

#pragma unroll
	for (i = 0; i < BY_WORDS; i++)
		if (one->by[i] != other->by[i])
			return false;
	return true;
}

/* Returns what capture_by() captured as a part of a hash. */
static __always_inline u64 mixed_by(const struct allocation *a)
{
#if defined(BY_COMM)
	return a->by[0] + a->by[1];
#elif defined(BY_CGROUP)
	return a->by[0] << 44;
#else
	return 0;
#endif
}

/* Captures the caller, and the state that the stage reads in addition to its arguments. */
static __always_inline void capture_context(struct record *r, u64 pid_tgid)
{
	u32 cpu = bpf_get_smp_processor_id();
	u64 *base;

	r->time = bpf_ktime_get_ns();
	r->pid_tgid = pid_tgid;
	r->task = bpf_get_current_task();
	r->cgroup = cgroup_of(r->task);
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
	r->stack = stack_id(ctx);
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

/* Returns whether a call of get_page_from_freelist() is for an allocation without locks. */
static __always_inline bool is_nolock(u32 alloc_flags)
{
#ifdef ALLOC_NOLOCK
	return alloc_flags & ALLOC_NOLOCK;
#else
	return false;
#endif
}

/*
 * Returns whether this is the first get_page_from_freelist() of a call. It has ALLOC_WMARK_LOW; the attempts of the slow
 * path do not, and could match an earlier, rejected call with the same frame. A call without locks has no slow path.
 */
static __always_inline bool first_of_call(u32 alloc_flags)
{
	return is_nolock(alloc_flags) || (alloc_flags & 3) == 1;
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

/* Counts what a call of calibration showed. */
static __always_inline void count_calibrated(struct calibrated *shown)
{
	u64 one = 1, *seen = calibrated.lookup(shown);

	if (seen)
		*seen += 1;
	else
		calibrated.insert(shown, &one);
}

/* Counts the measurement of that call, once get_page_from_freelist() shows where its ac is. */
static __always_inline void calibrate_freelist(const struct control *c, u32 alloc_flags, u64 ac)
{
	int zero = 0;
	struct calibrating *now = calibrating.lookup(&zero);
	struct calibrated shown = {};

	/* Fast path only (ALLOC_WMARK_LOW): other calls may come before an attempt of the slow path. */
	if (!now || !now->frame || (u32)bpf_get_current_pid_tgid() != c->tid || (alloc_flags & 3) != 1)
		return;
	shown.frame_to_ac = now->frame - ac;
	shown.preempt_count = now->preempt_count;
	now->frame = 0;
	count_calibrated(&shown);
}
