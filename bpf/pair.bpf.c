// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Only the normal entry and get_page_from_freelist(), at low overhead: alloc.bpf.c without the return.
 *
 * A call lies in the slot of its CPU, where the first get_page_from_freelist() nearly always finds it by its frame. If
 * another call needs the slot first (an interrupt allocates in between, another task runs, the call was rejected), the
 * older call is moved to the hash of pending calls, by its frame. A program that interrupts another one on the same CPU
 * sees the slot busy and does not touch it: its own call goes through the hash. If a task migrates to another CPU between
 * the two probes, the tracepoint of the migration moves its call to the hash.
 *
 * aggregate.bpf.c or stream.bpf.c, which come before, define what happens to a call: begin_event(), emit(),
 * emit_pending().
 *
 * Defined in addition to the constants of common.bpf.c: the offsets ALLOC_CONTEXT__* of all members in use and
 * TASK_STRUCT__CPU; TASK_FLAGS if the stage reads the task's flags; CURRENT_BTF if bpf_get_current_task_btf() exists;
 * TYPED_CONTEXT if ac is a typed pointer, or RDONLY_CAST, the number that stands for the kernel's bpf_rdonly_cast(), and
 * ALLOC_CONTEXT_ID, the type of ac, if it can be made one.
 */

/* How many calls may pass before the values that rarely change are read again; a power of two. */
#define REFRESH 64

BPF_HASH(pending_calls, u64, struct call, PENDING);

#ifdef RDONLY_CAST
static void *(*rdonly_cast)(const void *, u32) = (void *)RDONLY_CAST;
#endif

static __always_inline void refresh(struct allocation *a)
{
	READ(a->gfp_allowed_mask, GFP_ALLOWED_MASK_ADDRESS);
	a->switches = switches_now();
}

/* Emits a pending call that passes the filters, prepared or not. */
static __always_inline void emit_matching(struct call *c)
{
#ifdef CONTEXT_FILTER
	if (!(c->e.a.present & PREPARED) || !matches_zoneref(c->e.a.alloc_flags, c->e.a.preferred_zoneref)) {
		count(FILTERED);
		return;
	}
#endif
	emit_pending(c);
}

/* Adds a call to the hash after insert() failed: its frame has an entry already, or the hash is full. */
static __always_inline void overwrite_pending(u64 frame, struct call *c)
{
	struct call *old = pending_calls.lookup(&frame);

	if (!old) {
		count(PENDING_FULL);
		return;
	}
	/* The frame is in use again: the old call ended without get_page_from_freelist(). */
	emit_matching(old);
	pending_calls.update(&frame, c);
}

/* Returns whether the call in the slot has left for the hash because its task migrated to another CPU. */
static __always_inline bool has_migrated(const struct slot *s)
{
	return s->migrated == s->calls;
}

/* Moves the call in the slot to the hash. Another CPU may be moving the same call, so has_migrated() is tested again. */
static __always_inline void evict_slot(struct slot *s)
{
	u64 frame = s->call.frame;

	if (!has_migrated(s) && pending_calls.insert(&frame, &s->call) && !has_migrated(s))
		overwrite_pending(frame, &s->call);
	s->slot_to_ac = s->frame_to_ac;
	s->call.frame = 0;
}

/*
 * A task migrates to another CPU. The task does not run meanwhile, but the CPU that it leaves does, and may be moving the
 * call to the hash itself. The number of the call shows whether the copy is one consistent call. The slot is marked before
 * the call enters the hash, so that the other CPU sees why its insert() fails.
 */
AT_TRACEPOINT(sched_migrate_task)
{
	u64 task = ctx->args[0], calls;
	u32 cpu = 0;
	struct slot *s;
	struct call c;

	READ(cpu, task + TASK_STRUCT__CPU);
	s = slot_of(cpu);
	if (!s->call.frame || s->call.task != task || has_migrated(s))
		return 0;
	calls = s->calls;
	barrier();
	__builtin_memcpy(&c, &s->call, sizeof(c));
	barrier();
	if (!c.frame || c.task != task || s->calls != calls)
		return 0;
	s->migrated = calls;
	s->slot_to_ac = 0;
	barrier();
	pending_calls.update(&c.frame, &c);
	return 0;
}

/* Drops a call that is left out, and any stale entry at the same frame. */
static __always_inline void discard(struct slot *s, u64 frame)
{
	struct call *old;

	if (s->busy)
		return;
	frame = scalar(frame);
	if (s->call.frame == frame) {
		if (!has_migrated(s))
			emit_matching(&s->call);
		s->call.frame = 0;
	}
	old = pending_calls.lookup(&frame);
	if (old) {
		emit_matching(old);
		pending_calls.delete(&frame);
	}
}

/* Returns whether the call in `task`, the current one, is left out; counts it then. */
static __always_inline bool left_out(struct slot *s, u64 task, u32 gfp_mask, u32 order, s32 preferred_nid)
{
#ifdef OWN_TGID
	/* The recorder's calls have its process id. Most calls are of the same task as the CPU's last one. */
	if (unlikely(s->foreign != task)) {
		if (is_own()) {
			count(OWN);
			return true;
		}
		s->foreign = task;
	}
#endif
#ifdef FILTERS
	if (!passes(gfp_mask, order, preferred_nid)) {
		count(UNMATCHED);
		return true;
	}
#endif
	return false;
}

/*
 * Captures a request and the state that the stage reads. As the stage does, this reads more of the task than its flags only
 * if cpusets are enabled (on Debian's 7.3 also if the caller passes alloc_flags). Only the stack needs `ctx`.
 */
static __always_inline void begin(const struct slot *s, struct call *c, void *ctx, void *task, u64 frame, u32 gfp_mask,
				  u32 order, s32 preferred_nid, u64 nodemask, u32 entry_alloc_flags)
{
	struct allocation *a = &c->e.a;
	u32 present = 0;

#if defined(TASK_FLAGS) && defined(CURRENT_BTF)
	a->task_flags = *(u32 *)(task + TASK_STRUCT__FLAGS);
#elif defined(TASK_FLAGS)
	READ(a->task_flags, task + TASK_STRUCT__FLAGS);
#endif
	a->gfp_mask = gfp_mask;
	a->order = order;
	a->preferred_nid = preferred_nid;
#ifdef ENTRY_ALLOC_FLAGS
	a->entry_alloc_flags = entry_alloc_flags;
#endif
	capture_by(a, task);
	c->nodemask = nodemask;
	c->task = (u64)task;
	if (unlikely(a->present & ~PREPARED)) {
		a->preempt_count = 0;
		__builtin_memset(a->mems_allowed, 0, sizeof(*a) - __builtin_offsetof(struct allocation, mems_allowed));
	}
	if (unlikely(nodemask)) {
		READ(a->nodemask_nodes, nodemask);
		present |= NODEMASK;
	}
	if (a->switches & (CPUSETS_ENABLED | CPUSETS_SWITCHING) || entry_alloc_flags) {
		READ(a->preempt_count, s->preempt_count_address);
		READ(a->mems_allowed, task + TASK_STRUCT__MEMS_ALLOWED);
#ifdef TASK_STRUCT__SOFTIRQ_DISABLE_CNT
		bpf_probe_read_kernel(&a->softirq_disable_cnt, 4, task + TASK_STRUCT__SOFTIRQ_DISABLE_CNT);
#endif
		present |= TASK_CONTEXT;
	}
#ifdef BULK
	if (unlikely(single_opened(frame, gfp_mask, order, preferred_nid, nodemask)))
		present |= BULK_SINGLE;
#endif
	a->present = present;
	begin_event(&c->e, ctx);
}

/* Only the stack needs `ctx`. */
static __always_inline int entry_called(void *ctx, u64 frame, u32 gfp_mask, u32 order, s32 preferred_nid, u64 nodemask,
					u32 entry_alloc_flags)
{
	struct slot *s = slot_of(bpf_get_smp_processor_id());
	struct control *c;
	void *task;

	if (unlikely(s->capturing != CAPTURING)) {
		c = in_mode(CALIBRATE);
		if (c)
			calibrate_entry(c, frame, bpf_get_current_pid_tgid());
		return 0;
	}
#ifdef CURRENT_BTF
	task = bpf_get_current_task_btf();
#else
	task = (void *)bpf_get_current_task();
#endif
	if (unlikely(left_out(s, (u64)task, gfp_mask, order, preferred_nid))) {
		discard(s, frame);
		return 0;
	}
	if (unlikely(s->busy)) {
		struct call nested = {.e.cpu = s->call.e.cpu, .e.stack = -1};

		count(OPENED);
		nested.e.a.gfp_allowed_mask = s->call.e.a.gfp_allowed_mask;
		nested.e.a.switches = s->call.e.a.switches;
		begin(s, &nested, ctx, task, frame, gfp_mask, order, preferred_nid, nodemask, entry_alloc_flags);
		frame = scalar(frame);
		if (pending_calls.insert(&frame, &nested))
			overwrite_pending(frame, &nested);
		return 0;
	}
	s->busy = 1;
	barrier();
	if (unlikely(s->call.frame))
		evict_slot(s);
	/* Before any other member of the slot changes. */
	s->calls += 1;
	barrier();
	if (unlikely(s->calls % REFRESH == 1))
		refresh(&s->call.e.a);
	begin(s, &s->call, ctx, task, frame, gfp_mask, order, preferred_nid, nodemask, entry_alloc_flags);
	s->call.frame = frame;
	barrier();
	s->busy = 0;
	return 0;
}

/* The call is not in the slot: it is in the hash, or was not seen, or this is not its first get_page_from_freelist(). */
static __always_inline void freelist_of_pending(struct slot *s, bool busy, u32 gfp_mask, u32 order, u32 alloc_flags, u64 ac)
{
	u64 frame = ac + s->frame_to_ac;
	u64 copy[ALLOC_CONTEXT_WORDS] = {};
	struct call *c;

#ifdef NOLOCK
	if (alloc_flags & ALLOC_NOLOCK) {
		struct record *r;

		frame = nolock_frame(ac);
		r = pending_records.lookup(&frame);
		if (r)
			freelist_of_record(r, gfp_mask, order, alloc_flags, ac);
		else
			count_unpaired(UNPAIRED_FREELIST);
		return;
	}
#endif
	if (!first_of_call(alloc_flags)) {
#ifdef SLOW
		slow_attempt(gfp_mask, order, alloc_flags, ac);
#endif
		return;
	}
	if (unlikely(!busy && s->call.frame == frame && !has_migrated(s))) {
		/* It is in the slot after all: another CPU just mistook it for the call before it, which migrated. */
		s->busy = 1;
		barrier();
		evict_slot(s);
		barrier();
		s->busy = 0;
	}
	c = pending_calls.lookup(&frame);
	if (c && c->e.a.order == order) {
		READ(copy, ac);
		prepared(c, gfp_mask, alloc_flags, (u64)copy);
		emit_matching(c);
		pending_calls.delete(&frame);
	} else if (busy) {
		/* The interrupted program may be moving the call to the hash. */
		count(FREELIST_BUSY);
	} else {
		count_unpaired(UNPAIRED_FREELIST);
	}
}

/* Completes the call in the slot: the common case. */
static __always_inline void freelist_of_slot(struct slot *s, u32 cpu, u32 gfp_mask, u32 alloc_flags, u64 ac)
{
#ifdef RDONLY_CAST
	ac = (u64)rdonly_cast((void *)ac, ALLOC_CONTEXT_ID);
#elif !defined(TYPED_CONTEXT)
	u64 copy[ALLOC_CONTEXT_WORDS] = {};

	READ(copy, ac);
	ac = (u64)copy;
#endif
#ifdef CONTEXT_FILTER
	if (!matches_zoneref(alloc_flags, MEMBER(ac, u64, PREFERRED_ZONEREF)))
		count(FILTERED);
	else
#endif
		emit(s, cpu, gfp_mask, alloc_flags, ac);
	s->call.frame = 0;
}

static __always_inline int freelist_called(u32 gfp_mask, u32 order, u32 alloc_flags, u64 ac)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct slot *s = slot_of(cpu);
	struct control *c;
	bool busy, here;

	if (unlikely(s->capturing == IDLE)) {
		c = in_mode(CALIBRATE);
		if (c)
			calibrate_freelist(c, alloc_flags, scalar(ac));
		return 0;
	}
	busy = s->busy;
	if (likely(!busy)) {
		/* First, so that no interrupt gives the slot to another call after the test below. */
		s->busy = 1;
		barrier();
		here = s->call.frame - s->slot_to_ac == ac && s->call.e.a.order == order;
		if (likely(here))
			freelist_of_slot(s, cpu, gfp_mask, alloc_flags, ac);
		barrier();
		s->busy = 0;
		if (likely(here))
			return 0;
	}
	freelist_of_pending(s, busy, gfp_mask, order, alloc_flags, scalar(ac));
	return 0;
}
