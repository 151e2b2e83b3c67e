// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * What a slow-path call spends its time with. Each call has a clock; at each boundary, the time since the previous one
 * goes to one part. So the parts are exact whatever is lost on the way to user space, and add up to the call's time.
 *
 * A task's innermost call has the running clock; the clocks of calls that it interrupts go on with their part.
 *
 * slow.bpf.c comes after it. Defined where the kernel has the tracepoint or the function: COMPACTION_ZONES, THROTTLED,
 * CONGESTED, LOCKS.
 */

struct slow_clock {
	u64 ac;
	u64 outer;			/* frame of the task's call that this one interrupts, 0 if there is none */
	u64 since;			/* the time up to here is in `parts` */
	u64 parts[SLOW_PARTS];
	u32 part;			/* the one that runs */
	u32 waiting;			/* for a lock */
};

/* By the stack pointer of the entry at its call of __alloc_pages_slowpath(). */
BPF_HASH(slow_open, u64, struct slow_clock, SLOW_OPEN);
/* That stack pointer, of a task's innermost call. */
BPF_HASH(slow_tasks, u64, u64, SLOW_OPEN);
/* How many clocks run: most lock waits are of no slow-path call. */
BPF_ARRAY(slow_clocks, u64, 1);

static __always_inline void slow_clock_starts(u64 frame, u64 ac, u64 task, u64 now)
{
	struct slow_clock c = {.ac = ac, .since = now};
	u64 *outer = slow_tasks.lookup(&task), *clocks;
	int zero = 0;

	if (outer && *outer != frame)
		c.outer = *outer;
	if (slow_open.update(&frame, &c))
		return;
	slow_tasks.update(&task, &frame);
	clocks = slow_clocks.lookup(&zero);
	if (clocks)
		__sync_fetch_and_add(clocks, 1);
}

static __always_inline void slow_clock_ends(u64 frame, struct slow_clock *c, u64 task)
{
	u64 outer = c->outer, *clocks;
	int zero = 0;

	if (outer)
		slow_tasks.update(&task, &outer);
	else
		slow_tasks.delete(&task);
	slow_open.delete(&frame);
	clocks = slow_clocks.lookup(&zero);
	if (clocks)
		__sync_fetch_and_add(clocks, -1);
}

/* The clock of the current task, NULL if it is not in the slow path. */
static __always_inline struct slow_clock *slow_clock(void)
{
	u64 task, *frame, *clocks;
	int zero = 0;

	clocks = slow_clocks.lookup(&zero);
	if (!clocks || !*clocks)
		return NULL;
	task = bpf_get_current_task();
	frame = slow_tasks.lookup(&task);
	return frame ? slow_open.lookup(frame) : NULL;
}

/* Adds the time since the previous boundary to a part. */
static __always_inline void spend(struct slow_clock *c, u32 part, u64 now)
{
	if (now <= c->since)
		return;
	c->parts[BOUNDED(part, SLOW_PARTS)] += now - c->since;
	c->since = now;
}

/* From here on, the time of the current task's call goes to this part. */
static __always_inline void slow_part(u32 part)
{
	struct slow_clock *c = slow_clock();

	if (!c)
		return;
	spend(c, c->part, bpf_ktime_get_ns());
	c->part = part;
	c->waiting = 0;
}

/* The time since the previous boundary was spent with this part. */
static __always_inline void slow_spent(u32 part)
{
	struct slow_clock *c = slow_clock();

	if (c)
		spend(c, part, bpf_ktime_get_ns());
}

/* try_to_free_pages(). Before it reclaims, throttle_direct_reclaim() may sleep. */
int on_reclaim(struct pt_regs *ctx)
{
	slow_part(PART_RECLAIM);
	return 0;
}

/* out_of_memory(): what follows it is the next attempt. */
int on_oom(struct pt_regs *ctx)
{
	slow_part(PART_OOM);
	return 0;
}

static __always_inline void slow_reclaim_begins(void)
{
	struct slow_clock *c = slow_clock();

	if (!c)
		return;
	spend(c, c->part == PART_RECLAIM ? PART_THROTTLE : c->part, bpf_ktime_get_ns());
	c->part = PART_RECLAIM;
	c->waiting = 0;
}

#ifdef RECLAIM
AT_TRACEPOINT(mm_vmscan_direct_reclaim_end)
{
	slow_part(PART_REST);
	return 0;
}
#endif

#ifdef COMPACTION_ZONES
AT_TRACEPOINT(mm_compaction_begin)
{
	slow_part(PART_COMPACTION);
	return 0;
}

AT_TRACEPOINT(mm_compaction_end)
{
	slow_part(PART_REST);
	return 0;
}
#endif

/* A function that may sleep. Its tracepoint at the end is not reached where it did not. */
static __always_inline void may_throttle(void)
{
	struct slow_clock *c = slow_clock();

	if (c)
		spend(c, c->part, bpf_ktime_get_ns());
}

#ifdef THROTTLED
int on_reclaim_throttle(struct pt_regs *ctx)
{
	may_throttle();
	return 0;
}

AT_TRACEPOINT(mm_vmscan_throttled)
{
	slow_spent(PART_THROTTLE);
	return 0;
}
#endif

#ifdef CONGESTED
int on_congestion_wait(struct pt_regs *ctx)
{
	may_throttle();
	return 0;
}

int on_wait_iff_congested(struct pt_regs *ctx)
{
	may_throttle();
	return 0;
}

AT_TRACEPOINT(writeback_congestion_wait)
{
	slow_spent(PART_THROTTLE);
	return 0;
}

AT_TRACEPOINT(writeback_wait_iff_congested)
{
	slow_spent(PART_THROTTLE);
	return 0;
}
#endif

#ifdef LOCKS
AT_TRACEPOINT(contention_begin)
{
	struct slow_clock *c = slow_clock();

	if (!c)
		return 0;
	/* A mutex begins to wait twice: it spins, then it sleeps. */
	spend(c, c->waiting ? PART_LOCK : c->part, bpf_ktime_get_ns());
	c->waiting = 1;
	return 0;
}

AT_TRACEPOINT(contention_end)
{
	struct slow_clock *c = slow_clock();

	if (!c || !c->waiting)
		return 0;
	spend(c, PART_LOCK, bpf_ktime_get_ns());
	c->waiting = 0;
	return 0;
}
#endif
