// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Captures one page allocation: what was asked for, what the preparation stage made of it, what came back.
 *
 * The entry function opens a record, the first get_page_from_freelist() of the same call fills in the prepared
 * context, the entry's return closes it. A record is keyed by the stack frame of its call: no two live calls share
 * one, whichever CPU they are on and whatever interrupts them. `struct alloc_context` lies in that frame at a fixed
 * distance, which user space measures once (CALIBRATE) and stores in `control`.
 *
 * Defined when this is compiled, from the kernel's symbols and BTF (kalloctrace/probe/plan.py):
 *   ENTRY, NODEMASK_WORDS, ALLOC_CONTEXT_WORDS, PENDING, RING_PAGES, NR_CPUS, the addresses *_ADDRESS, the offsets
 *   STRUCT__MEMBER of members, and where they apply ENTRY_ALLOC_FLAGS, DEFRAG_MODE_ADDRESS, STACKS, PREPARE_ALLOC_PAGES.
 */
#include <uapi/linux/ptrace.h>
#include "record.h"

enum mode { OFF, CALIBRATE, CAPTURE };

struct control {
	u32 mode;
	u32 tid;		/* CALIBRATE: the one task to look at */
	u64 frame_to_ac;	/* CAPTURE: address of the entry's trampoline frame minus address of ac */
	u64 tgid;		/* CAPTURE: the one process to look at, 0 for all */
};

enum counter {
	OPENED,			/* calls of the entry that were seen */
	SUBMITTED,		/* records that reached the ring buffer */
	DROPPED,		/* records that found it full */
	NO_ROOM,		/* calls that found `pending` full */
	FREELIST_ALONE,		/* get_page_from_freelist() without an open record */
	RETURN_ALONE,		/* a return without an open record */
	REPLACED,		/* calls whose frame held a record that never returned */
	NR_COUNTERS,
};

BPF_ARRAY(control, struct control, 1);
BPF_ARRAY(per_cpu_offset, u64, NR_CPUS);
BPF_PERCPU_ARRAY(counters, u64, NR_COUNTERS);
BPF_HASH(pending, u64, struct record, PENDING);
BPF_HASH(distances, u64, u64, 256);
BPF_ARRAY(calibration_frame, u64, 1);
BPF_RINGBUF_OUTPUT(records, RING_PAGES);
#ifdef STACKS
BPF_STACK_TRACE(stacks, STACKS);
#endif

/* One level more than bcc's macros, so that ENTRY and ENTRY_ARGUMENTS are replaced by their values. */
#define FENTRY(function, args...) KFUNC_PROBE(function, args)
#define FEXIT(function, args...) KRETFUNC_PROBE(function, args)

#ifdef ENTRY_ALLOC_FLAGS
#define ENTRY_ARGUMENTS u32 gfp_mask, u32 order, s32 preferred_nid, u64 nodemask, u32 entry_alloc_flags
#else
#define ENTRY_ARGUMENTS u32 gfp_mask, u32 order, s32 preferred_nid, u64 nodemask
#endif

#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), (const void *)(from))

static __always_inline void count(u32 which)
{
	u64 *value = counters.lookup(&which);

	/* Atomic, though it is this CPU's own: an interrupt may allocate in between. */
	if (value)
		__sync_fetch_and_add(value, 1);
}

static __always_inline struct control *in_mode(u32 mode)
{
	int zero = 0;
	struct control *c = control.lookup(&zero);

	return c && c->mode == mode ? c : NULL;
}

/* The frame that calibration saw last, in a map of its own as programs have no memory but maps. */
static __always_inline u64 *last_frame(void)
{
	int zero = 0;

	return calibration_frame.lookup(&zero);
}

static __always_inline bool traced(const struct control *c, u64 pid_tgid)
{
	return !c->tgid || c->tgid == pid_tgid >> 32;
}

FENTRY(ENTRY, ENTRY_ARGUMENTS)
{
	u64 frame = (u64)ctx;
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct control *c = in_mode(CALIBRATE);
	struct record r = {};
	u32 cpu = bpf_get_smp_processor_id();
	u64 *base;

	if (c) {
		u64 *last = last_frame();

		if (last && (u32)pid_tgid == c->tid)
			*last = frame;
		return 0;
	}
	c = in_mode(CAPTURE);
	if (!c || !traced(c, pid_tgid))
		return 0;
	count(OPENED);

	r.time = bpf_ktime_get_ns();
	r.pid_tgid = pid_tgid;
	r.task = bpf_get_current_task();
	bpf_get_current_comm(&r.comm, sizeof(r.comm));
	r.cpu = cpu;
	r.gfp_mask = gfp_mask;
	r.order = order;
	r.preferred_nid = preferred_nid;
	r.nodemask = nodemask;
#ifdef ENTRY_ALLOC_FLAGS
	r.entry_alloc_flags = entry_alloc_flags;
#endif
	if (nodemask)
		READ(r.nodemask_nodes, nodemask);

	READ(r.task_flags, r.task + TASK_STRUCT__FLAGS);
	READ(r.mems_allowed, r.task + TASK_STRUCT__MEMS_ALLOWED);
	base = per_cpu_offset.lookup(&cpu);
	if (base)
		READ(r.preempt_count, *base + PREEMPT_COUNT_ADDRESS);
	READ(r.cpusets_enabled, CPUSETS_ENABLED_ADDRESS);
	READ(r.gfp_allowed_mask, GFP_ALLOWED_MASK_ADDRESS);
#ifdef DEFRAG_MODE_ADDRESS
	READ(r.defrag_mode, DEFRAG_MODE_ADDRESS);
#endif
	r.stack = -1;
#ifdef STACKS
	r.stack = stacks.get_stackid(ctx, 0);
#endif
	if (pending.insert(&frame, &r)) {
		if (!pending.lookup(&frame)) {
			count(NO_ROOM);
			return 0;
		}
		count(REPLACED);
		pending.update(&frame, &r);
	}
	return 0;
}

FENTRY(get_page_from_freelist, u32 gfp_mask, u32 order, u32 alloc_flags, u64 ac_argument)
{
	struct control *c = in_mode(CALIBRATE);
	struct record *r;
	u64 ac, nodemask, zoneref, frame;

	/* Read as plain memory: the verifier lets nobody add a variable to the typed pointer. */
	READ(ac, &ctx[3]);
	if (c) {
		u64 *last = last_frame();

		/* Fast path only (ALLOC_WMARK_LOW): the slow path comes after other calls. */
		if (last && *last && (u32)bpf_get_current_pid_tgid() == c->tid && (alloc_flags & 3) == 1) {
			u64 distance = *last - ac, one = 1, *seen;

			*last = 0;
			seen = distances.lookup(&distance);
			if (seen)
				*seen += 1;
			else
				distances.insert(&distance, &one);
		}
		return 0;
	}
	c = in_mode(CAPTURE);
	if (!c || !traced(c, bpf_get_current_pid_tgid()))
		return 0;
	frame = ac + c->frame_to_ac;
	r = pending.lookup(&frame);
	if (!r) {
		count(FREELIST_ALONE);
		return 0;
	}
	r->freelist_calls += 1;
	if (r->freelist_calls > 1)
		return 0;
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
	return 0;
}

FEXIT(ENTRY, ENTRY_ARGUMENTS, u64 page)
{
	u64 frame = (u64)ctx;
	struct control *c = in_mode(CAPTURE);
	struct record *r;

	if (!c || !traced(c, bpf_get_current_pid_tgid()))
		return 0;
	r = pending.lookup(&frame);
	if (!r) {
		count(RETURN_ALONE);
		return 0;
	}
	r->page = page;
	/* User space polls: a wake-up for each allocation would allocate more. */
	if (records.ringbuf_output(r, sizeof(*r), BPF_RB_NO_WAKEUP))
		count(DROPPED);
	else
		count(SUBMITTED);
	pending.delete(&frame);
	return 0;
}

#ifdef PREPARE_ALLOC_PAGES
/*
 * Where the compiler kept it out of line. A kprobe, as trampolines take six arguments and it has seven: gfp_mask,
 * order, preferred_nid, nodemask, ac and alloc_mask in registers, alloc_flags on the stack above the return address.
 */
struct preparing {
	u64 frame;
	u64 ac;
	u64 alloc_mask;
	u64 alloc_flags;
};

/* By the stack pointer at its entry, which its return gives back: as exact as the frame of the call around it. */
BPF_HASH(preparing, u64, struct preparing, PENDING);

int on_prepare(struct pt_regs *ctx)
{
	struct control *c = in_mode(CAPTURE);
	struct preparing p = {};
	u64 sp = ctx->sp;

	if (!c)
		return 0;
	p.ac = ctx->r8;
	p.alloc_mask = ctx->r9;
	READ(p.alloc_flags, sp + 8);
	p.frame = p.ac + c->frame_to_ac;
	if (pending.lookup(&p.frame))
		preparing.update(&sp, &p);
	return 0;
}

int on_prepared(struct pt_regs *ctx)
{
	struct control *c = in_mode(CAPTURE);
	u64 sp = ctx->sp - 8;
	struct preparing *p;
	struct record *r;

	if (!c)
		return 0;
	p = preparing.lookup(&sp);
	if (!p)
		return 0;
	r = pending.lookup(&p->frame);
	if (r) {
		r->prepare_calls += 1;
		r->prepare_returned = (u8)ctx->ax;
		READ(r->prepare_alloc_mask, p->alloc_mask);
		READ(r->prepare_alloc_flags, p->alloc_flags);
		READ(r->prepare_ac, p->ac);
	}
	preparing.delete(&sp);
	return 0;
}
#endif
