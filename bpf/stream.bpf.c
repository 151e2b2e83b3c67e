// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Writes a record for each allocation, of one size, so that user space can read whole spans of them: into a lane of its
 * CPU, which nobody else writes to, so that there is nothing to lock; a call that was parked into a ring buffer.
 *
 * Defined beside what common.bpf.c says: LANE_BITS, CELL_WORDS, EVENTS_PAGES, NAMES_PAGES.
 */
/* Holds a struct event in whole lines of the processor's cache. */
struct cell {
	u64 words[CELL_WORDS];
};

BPF_F_TABLE("array", u32, struct cell, lanes, NR_CPUS << LANE_BITS, BPF_F_MMAPABLE);
BPF_RINGBUF_OUTPUT(events, EVENTS_PAGES);
/* Names come apart: to ask for one at each allocation would cost as much as the rest of the request. */
BPF_RINGBUF_OUTPUT(names, NAMES_PAGES);

static __always_inline void send_name(struct name *n, u64 task)
{
	n->time = bpf_ktime_get_ns();
	READ(n->tid, task + TASK_STRUCT__PID);
	if (names.ringbuf_output(n, sizeof(*n), BPF_RB_NO_WAKEUP))
		count(NAMES_DROPPED);
}

RAW_TRACEPOINT_PROBE(task_newtask)
{
	struct name n = {};

	/* It still has the name of the one that made it. */
	bpf_get_current_comm(&n.comm, sizeof(n.comm));
	send_name(&n, ctx->args[0]);
	return 0;
}

RAW_TRACEPOINT_PROBE(task_rename)
{
	struct name n = {};

	bpf_probe_read_kernel_str(&n.comm, sizeof(n.comm), (const void *)ctx->args[1]);
	send_name(&n, ctx->args[0]);
	return 0;
}

/* `ctx` is for the stack's sake only. */
static __always_inline void begin_event(struct event *e, void *ctx)
{
	e->time = bpf_ktime_get_ns();
	e->pid_tgid = bpf_get_current_pid_tgid();
#ifdef STACKS
	e->stack = stacks.get_stackid(ctx, 0);
#endif
}

static __always_inline void emit_parked(struct call *c)
{
	/* User space polls: a wake-up for each allocation would allocate more. */
	if (!within_rate() || events.ringbuf_output(&c->e, sizeof(c->e), BPF_RB_NO_WAKEUP))
		count(DROPPED);
}

static __always_inline void emit(struct slot *s, u32 cpu, u32 gfp_mask, u32 alloc_flags, u64 ac)
{
	u64 sent = s->sent;
	u32 index = cpu << LANE_BITS | (sent & ((1 << LANE_BITS) - 1));
	struct cell *cell = lanes.lookup(&index);

	if (unlikely(!cell || sent - s->taken >= 1 << LANE_BITS || !within_rate())) {
		count(DROPPED);
		return;
	}
	prepared(&s->call, gfp_mask, alloc_flags, ac);
	__builtin_memcpy(cell, &s->call.e, sizeof(s->call.e));
	/* Only now: user space reads what lies before this. x86 keeps stores in order. */
	barrier();
	s->sent = sent + 1;
}
