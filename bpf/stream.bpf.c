// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Writes an event of fixed size for each allocation, so that user space can read many at once: into the buffer of its CPU,
 * which needs no lock because no other CPU writes to it. The event of a pending call goes to a ring buffer.
 *
 * Defined in addition to the constants of common.bpf.c: PERCPU_BUFFER_BITS, BUFFER_ENTRY_WORDS, EVENTS_PAGES,
 * TASK_COMMS_PAGES.
 */

/* A struct event, padded to whole cache lines. */
struct buffer_entry {
	u64 words[BUFFER_ENTRY_WORDS];
};

#ifndef ONE
BPF_F_TABLE("array", u32, struct buffer_entry, percpu_buffer, NR_CPUS << PERCPU_BUFFER_BITS, BPF_F_MMAPABLE);
#endif
BPF_RINGBUF_OUTPUT(events, EVENTS_PAGES);
/* Task names are sent separately: to read one at each allocation would cost as much as the rest of the request. */
BPF_RINGBUF_OUTPUT(task_comms, TASK_COMMS_PAGES);

static __always_inline void send_task_comm(struct task_comm *n, u64 task)
{
	n->time = bpf_ktime_get_ns();
	READ(n->tid, task + TASK_STRUCT__PID);
#ifdef TASK_STRUCT__CGROUPS
	READ(n->pid, task + TASK_STRUCT__TGID);
#endif
	if (task_comms.ringbuf_output(n, sizeof(*n), BPF_RB_NO_WAKEUP))
		count(COMMS_DROPPED);
}

AT_TRACEPOINT(task_newtask)
{
	struct task_comm n = {};

	/* A new task still has the name of its parent. */
	bpf_get_current_comm(&n.comm, sizeof(n.comm));
	n.cgroup = cgroup_of(ctx->args[0]);
	send_task_comm(&n, ctx->args[0]);
	return 0;
}

AT_TRACEPOINT(task_rename)
{
	struct task_comm n = {};

	bpf_probe_read_kernel_str(&n.comm, sizeof(n.comm), (const void *)ctx->args[1]);
	send_task_comm(&n, ctx->args[0]);
	return 0;
}

#ifdef TASK_STRUCT__CGROUPS
/* The task is the first of its process if the whole process moves. */
AT_TRACEPOINT(cgroup_attach_task)
{
	struct task_comm n = {};

	READ(n.comm, ctx->args[2] + TASK_STRUCT__COMM);
	n.cgroup = cgroup_of(ctx->args[2]);
	send_task_comm(&n, ctx->args[2]);
	return 0;
}
#endif

/* Only the stack needs `ctx`. */
static __always_inline void begin_event(struct event *e, void *ctx)
{
	e->time = bpf_ktime_get_ns();
	e->pid_tgid = bpf_get_current_pid_tgid();
#ifdef STACKS
	e->stack = stack_id(ctx);
#endif
}

#ifndef ONE
static __always_inline void emit_pending(struct call *c)
{
	/* User space polls: a wake-up for each allocation would itself allocate. */
	if (!within_rate() || events.ringbuf_output(&c->e, sizeof(c->e), BPF_RB_NO_WAKEUP))
		count(DROPPED);
}

static __always_inline void emit(struct slot *s, u32 cpu, u32 gfp_mask, u32 alloc_flags, u64 ac)
{
	u64 producer_pos = s->producer_pos;
	u32 index = cpu << PERCPU_BUFFER_BITS | (producer_pos & ((1 << PERCPU_BUFFER_BITS) - 1));
	struct buffer_entry *entry = percpu_buffer.lookup(&index);

	if (unlikely(!entry || producer_pos - s->consumer_pos >= 1 << PERCPU_BUFFER_BITS || !within_rate())) {
		count(DROPPED);
		return;
	}
	prepared(&s->call, gfp_mask, alloc_flags, ac);
	__builtin_memcpy(entry, &s->call.e, sizeof(s->call.e));
	/* Last, because user space reads everything before this position. x86 keeps stores in order. */
	barrier();
	s->producer_pos = producer_pos + 1;
}
#endif
