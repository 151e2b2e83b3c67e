// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * One probe, at get_page_from_freelist(), in place of the pair of pair.bpf.c.
 *
 * The attached program is one_short(). It counts a call that equals the last one that its CPU counted in the same cell,
 * and hands every other call to one_long(), a function of its own, which reads everything again. So the short way needs
 * no stack, and two saved registers. User space joins the two programs, because bcc does not link functions: CALL_LONG is
 * the call that it patches, CALL_CAST the one of bpf_rdonly_cast().
 *
 * The first call of a request is known by its return address, which lies right behind the entry's call. The other calls
 * come from functions that the entry calls. `ac` lies in the entry's frame, so the return address lies at a fixed distance
 * below it; user space measures that distance before capture, with calls of its own. The short way only compares the
 * distance of `ac` to the stack pointer (or to the context of the trampoline) with that of the last call that one_long()
 * saw to be a first one. No attempt of the slow path has it: between its frame and `ac` lies that of the slow path.
 *
 * The short way compares all that the stage reads and writes, and what calls are counted by (capture_by()), but for the
 * switches of the machine (struct allocation: gfp_allowed_mask, switches). These are read again when a cell has counted,
 * or a CPU has written, RECHECK calls. When cpusets are on, a call has a nodemask, or ALLOC_CPUSET, which no call has while
 * they are off; so none of these is ever late.
 *
 * What is asked is seen as far as the stage leaves it; kalloctrace/trace/inferred.py names the rest.
 *
 * Defined in addition to the constants of common.bpf.c and aggregate.bpf.c or stream.bpf.c: CELLS_FD, the map of the
 * cells; or EVENTS_FD, the map of the events; RETURN_ADDRESS, of the entry's call; the offset TASK_STRUCT__TGID;
 * ALLOC_CONTEXT__ALLOC_FLAGS where ac has them; UNTYPED_CAST if bpf_rdonly_cast() takes no type, and otherwise
 * ALLOC_CONTEXT_ID, the type; BY_FENTRY if the programs are trampolines; OWN_TGID if the recorder's own calls are
 * left out; ZONELIST and ZONELIST_NOFALLBACK, the addresses of a node's zonelists, if calls are filtered by node; where
 * there is a probe for scopes, SCOPE_GFP, the register that it reads, and SCOPE_FLAGS, the flags of tasks in a scope;
 * where there is one for rejected requests, REJECT_*, the registers of their arguments, and MAX_ORDER; where audit.bpf.c
 * follows, AUDIT, how many different calls it can count.
 */

#define CALL_LONG 0x7fff0001
#define CALL_CAST 0x7fff0002

static int (*one_long_call)(void *ctx) = (void *)CALL_LONG;
static void *(*rdonly_cast)(u64 pointer, u32 type) = (void *)CALL_CAST;
/* As bpf_get_smp_processor_id(), of which bcc says that it returns 32 bits, which would be cleared of the others. */
static u64 (*this_cpu)(void) = (void *)BPF_FUNC_get_smp_processor_id;

/* How many calls a cell counts, or a CPU writes, before the switches are read again; a power of two. */
#define RECHECK 256

/* How far below ac the return address may lie. */
#define RETURN_SEARCH 8

#ifdef BY_FENTRY
#define CONTEXT u64
#define ARG_GFP(ctx) ((ctx)[0])
#define ARG_ORDER(ctx) ((ctx)[1])
#define ARG_ALLOC_FLAGS(ctx) ((ctx)[2])
#define ARG_AC(ctx) ((ctx)[3])
#define STACK(ctx) ((u64)(ctx))
/* The verifier knows the type of the argument. */
#define TYPED(ctx) ARG_AC(ctx)
#else
#define CONTEXT struct pt_regs
#define ARG_GFP(ctx) ((ctx)->di)
#define ARG_ORDER(ctx) ((ctx)->si)
#define ARG_ALLOC_FLAGS(ctx) ((ctx)->dx)
#define ARG_AC(ctx) ((ctx)->cx)
#define STACK(ctx) (AGAIN((ctx)->sp))
#ifdef UNTYPED_CAST
#define TYPED(ctx) ((u64)rdonly_cast(AGAIN(ARG_AC(ctx)), 0))
#else
#define TYPED(ctx) ((u64)rdonly_cast(AGAIN(ARG_AC(ctx)), ALLOC_CONTEXT_ID))
#endif
#endif

/* Reads where it is used, so that it needs no saved register meanwhile. */
#define AGAIN(x) (*(volatile typeof(x) *)&(x))
#define OF_AC(ac, type, name) (*(volatile type *)((ac) + ALLOC_CONTEXT__##name))

#ifdef CELLS_FD
/* As many as all CPUs have. */
#define SETS ((u64)NR_CPUS << CACHE_BITS)
#define THE_CELLS ((struct cache_set *)bpf_pseudo_fd(2, CELLS_FD))

/* Returns the set of a call in the cells: a hash of what varies. */
static __always_inline struct cache_set *cells_of(u64 cpu, u64 gfp_mask, u64 order, u64 alloc_flags, u64 task_flags,
						  u64 mixed_by)
{
	u64 mixed = gfp_mask + (alloc_flags << 20) + (order << 36) + (task_flags << 11) + mixed_by;
	u64 index = cpu << CACHE_BITS | mixed * 0x9E3779B97F4A7C15ULL >> (64 - CACHE_BITS);

	/* Keeps the bound that follows: the verifier needs it. */
	asm volatile("" : "+r"(index));
	index &= SETS - 1;
	return THE_CELLS + index;
}
#endif

/* Returns whether the probe is where a first call has it, as far as the last first call shows. */
#define AT_FIRST_CALL(ctx) (AGAIN(ARG_AC(ctx)) - STACK(ctx) == THE_LOOK->distance)

#ifdef EVENTS_FD
/* Every filter needs one_long(), and so does a stack. */
#if !defined(FILTERS) && !defined(STACKS)
#define SHORT_WAY
#endif

/* How many have room, in the buffers of all CPUs. */
#define EVENTS ((u64)NR_CPUS << PERCPU_BUFFER_BITS)
#define THE_EVENTS ((struct buffer_entry *)bpf_pseudo_fd(2, EVENTS_FD))

/* Returns the number of an event's place, which must be less than EVENTS. */
static __always_inline u64 event_index(u64 cpu, u64 producer_pos)
{
	u64 index = cpu << PERCPU_BUFFER_BITS | (producer_pos & ((1 << PERCPU_BUFFER_BITS) - 1));

	/* Keeps the bound that follows: the verifier needs it. */
	asm volatile("" : "+r"(index));
	return index;
}

/* Every member is written below. */
_Static_assert(sizeof(struct event) == 24 + sizeof(struct allocation), "an unknown member of struct event");
_Static_assert(__builtin_offsetof(struct allocation, mems_allowed) == 72, "an unknown member of struct allocation");

/* Writes two members of four bytes as one word. */
#define STORE_BOTH(a, first, second, word)								\
	({												\
		_Static_assert(__builtin_offsetof(struct allocation, second) ==				\
			       __builtin_offsetof(struct allocation, first) + 4, "not one word");	\
		*(u64 *)&(a)->first = (word);								\
	})

/* Writes the event of a call; returns 0 if one_long() must do it. */
static __always_inline int short_way(CONTEXT *ctx, u64 cpu, void *task)
{
	u64 producer_pos, index, ac, word, task_flags;
	struct event *e;
	struct slot *s;

	if (unlikely(!AT_FIRST_CALL(ctx)))
		return 0;
#ifdef NOLOCK
	if (unlikely(AGAIN(ARG_ALLOC_FLAGS(ctx)) & ALLOC_NOLOCK))
		return 0;
#endif
	/* A call, so early: most of what follows needs no saved register. */
	ac = TYPED(ctx);
	task_flags = *(u32 *)(task + TASK_STRUCT__FLAGS);
#ifdef SCOPE_GFP
	if (unlikely(task_flags & SCOPE_FLAGS))
		return 0;
#endif
	s = slot_of(cpu);
	asm volatile("" : "+r"(s));
	producer_pos = s->producer_pos;
	if (unlikely(producer_pos >= s->short_until))
		return 0;
	index = event_index(cpu, producer_pos);
	if (unlikely(index >= EVENTS))
		return 0;
	e = (struct event *)(THE_EVENTS + index);
	/* One register for the event, not two for its parts. */
	asm volatile("" : "+r"(e));
	if (unlikely(OF_AC(ac, u64, NODEMASK)))
		return 0;
#if defined(UNTYPED_CAST) && defined(ALLOC_CONTEXT__ALLOC_FLAGS)
	/* One word, as below. */
	word = OF_AC(ac, u64, SPREAD_DIRTY_PAGES);
	if (unlikely(word > 1))
		return 0;
#else
	word = OF_AC(ac, u8, SPREAD_DIRTY_PAGES);
#ifdef ALLOC_CONTEXT__ALLOC_FLAGS
	if (unlikely(OF_AC(ac, u32, ALLOC_FLAGS)))
		return 0;
#endif
#endif
	STORE_BOTH(&e->a, spread_dirty_pages, present, word | (u64)PREPARED << 32);
#ifdef UNTYPED_CAST
	STORE_BOTH(&e->a, migratetype, highest_zoneidx, OF_AC(ac, u64, MIGRATETYPE));
#else
	e->a.migratetype = OF_AC(ac, s32, MIGRATETYPE);
	e->a.highest_zoneidx = OF_AC(ac, u32, HIGHEST_ZONEIDX);
#endif
	e->a.zonelist = OF_AC(ac, u64, ZONELIST);
	e->a.preferred_zoneref = OF_AC(ac, u64, PREFERRED_ZONEREF);
	word = AGAIN(ARG_GFP(ctx));
	e->a.gfp_mask = word;
	e->a.freelist_gfp_mask = word;
	e->a.order = AGAIN(ARG_ORDER(ctx));
	e->a.alloc_flags = AGAIN(ARG_ALLOC_FLAGS(ctx));
	STORE_BOTH(&e->a, task_flags, preempt_count, task_flags);
	STORE_BOTH(&e->a, preferred_nid, entry_alloc_flags, (u32)-1);
	STORE_BOTH(&e->a, gfp_allowed_mask, switches, *(u64 *)&s->call.e.a.gfp_allowed_mask);
	__builtin_memset(e->a.mems_allowed, 0, sizeof(e->a) - __builtin_offsetof(struct allocation, mems_allowed));
	e->cpu = cpu;
	e->stack = -1;
	((u32 *)&e->pid_tgid)[0] = *(u32 *)(task + TASK_STRUCT__PID);
	((u32 *)&e->pid_tgid)[1] = *(u32 *)(task + TASK_STRUCT__TGID);
	e->time = bpf_ktime_get_ns();
	/* Last, because user space reads everything before this position. x86 keeps stores in order. */
	barrier();
	s->producer_pos = producer_pos + 1;
	return 1;
}
#else
/* Equal calls pass the same filters, but for those of who makes them, and for every so many. */
#if !defined(TGID) && !defined(CHILDREN) && !defined(COMM_0) && !defined(SAMPLE)
#define SHORT_WAY
#endif

/* Counts a call in the first cell of its set; returns 0 if one_long() must do it. */
static __always_inline int short_way(CONTEXT *ctx, u64 cpu, void *task)
{
	u32 task_flags = *(u32 *)(task + TASK_STRUCT__FLAGS);
	struct allocation own;
	struct count_entry *c;
	u64 ac, count;

	/* Only `by` is used, which the compiler keeps in registers. */
	capture_by(&own, task);
	c = &cells_of(cpu, AGAIN(ARG_GFP(ctx)), AGAIN(ARG_ORDER(ctx)), AGAIN(ARG_ALLOC_FLAGS(ctx)), task_flags,
		      mixed_by(&own))->entry[0];
	/* One register for the cell, not two for its parts. */
	asm volatile("" : "+r"(c));
	/* Whole registers: if the upper half of an argument is not 0, one_long() decides. */
	if (unlikely(c->a.task_flags != task_flags || c->a.freelist_gfp_mask != AGAIN(ARG_GFP(ctx)) ||
		     c->a.order != AGAIN(ARG_ORDER(ctx)) || c->a.alloc_flags != AGAIN(ARG_ALLOC_FLAGS(ctx)) ||
		     !AT_FIRST_CALL(ctx)))
		return 0;
	if (unlikely(!same_by(&c->a, &own)))
		return 0;
	ac = TYPED(ctx);
	if (unlikely(c->a.preferred_zoneref != OF_AC(ac, u64, PREFERRED_ZONEREF) ||
		     c->a.zonelist != OF_AC(ac, u64, ZONELIST) ||
#ifdef UNTYPED_CAST
		     *(u64 *)&c->a.migratetype != OF_AC(ac, u64, MIGRATETYPE) ||
#else
		     c->a.migratetype != OF_AC(ac, s32, MIGRATETYPE) ||
		     c->a.highest_zoneidx != OF_AC(ac, u32, HIGHEST_ZONEIDX) ||
#endif
#if defined(UNTYPED_CAST) && defined(ALLOC_CONTEXT__ALLOC_FLAGS)
		     /* One word: the byte, padding, and ac->alloc_flags. Where these are not 0, one_long() decides. */
		     c->a.spread_dirty_pages != OF_AC(ac, u64, SPREAD_DIRTY_PAGES) ||
#else
		     c->a.spread_dirty_pages != OF_AC(ac, u8, SPREAD_DIRTY_PAGES) ||
#ifdef ALLOC_CONTEXT__ALLOC_FLAGS
		     OF_AC(ac, u32, ALLOC_FLAGS) ||
#endif
#endif
		     OF_AC(ac, u64, NODEMASK)))
		return 0;
	count = c->count + 1;
	if (unlikely(!(count & (RECHECK - 1))))
		return 0;
	c->count = count;
	return 1;
}
#endif

int one_short(CONTEXT *ctx)
{
#ifdef SHORT_WAY
	void *task;

	if (likely(THE_LOOK->state == CAPTURING)) {
		task = bpf_get_current_task_btf();
#ifdef OWN_TGID
		if (likely(*(u32 *)(task + TASK_STRUCT__TGID) != OWN_TGID))
#endif
			if (likely(short_way(ctx, this_cpu(), task)))
				return 0;
	}
#endif
	return one_long_call(ctx);
}

#ifdef AUDIT
/* How often the calls of an audit were seen. These maps are read once nothing is captured any more. */
BPF_HASH(audited_one, struct allocation, u64, AUDIT);

#define AUDITED(look) ((look)->audit)

static __always_inline void audit_is_full(void)
{
	__sync_fetch_and_add((u64 *)&((struct look *)MAP_VALUE(LOOK_FD))->audit_full, 1);
}

/* Counts a call of one probe. */
static __always_inline void audit_one(struct allocation *a)
{
	u64 none = 0, *seen;

	if (THE_LOOK->audit != AUDIT_COUNT)
		return;
	seen = audited_one.lookup(a);
	if (!seen) {
		/* Another CPU may insert it meanwhile. */
		audited_one.insert(a, &none);
		seen = audited_one.lookup(a);
	}
	if (seen)
		__sync_fetch_and_add(seen, 1);
	else
		audit_is_full();
}
#else
#define AUDITED(look) false

static __always_inline void audit_one(struct allocation *a)
{
}
#endif

#ifdef SCOPE_GFP
/* What calls of tasks in a scope ask for, by the address of their ac: from the block that applies the scope until
 * get_page_from_freelist(). */
BPF_HASH(asked_in_scope, u64, u32, PENDING);

/* Where the entry applies the scopes of a task. Its frame is complete, as where it calls get_page_from_freelist(). */
int on_scope(struct pt_regs *ctx)
{
	volatile struct look *look = THE_LOOK;
	u64 ac = ctx->sp + look->return_to_ac - 8;
	u32 gfp_mask = ctx->SCOPE_GFP;
	struct control *c;

	if (!(look->state & CAPTURING) && !AUDITED(look)) {
		c = in_mode(CALIBRATE);
		if (!c || (u32)bpf_get_current_pid_tgid() != c->tid)
			return 0;
	}
	asked_in_scope.update(&ac, &gfp_mask);
	return 0;
}

#endif

/* Notes what a call of the one task that calibration measures shows: where its return address lies below ac. */
static __always_inline void calibrate_one(const struct control *c, u32 gfp_mask, u64 ac)
{
#ifdef SCOPE_GFP
	u32 *asked;
#endif
	u32 cpu = bpf_get_smp_processor_id(), i;
	u64 below[RETURN_SEARCH] = {};
	struct calibrated shown = {};

	if ((u32)bpf_get_current_pid_tgid() != c->tid)
		return;
	READ(below, ac - sizeof(below));
#pragma unroll
	for (i = 0; i < RETURN_SEARCH; i++)
		if (below[i] == RETURN_ADDRESS)
			shown.frame_to_ac = sizeof(below) - 8 * i;
	shown.preempt_count = preempt_count_of(per_cpu_offset.lookup(&cpu));
	shown.gfp_mask = gfp_mask;
#ifdef SCOPE_GFP
	asked = asked_in_scope.lookup(&ac);
	if (asked) {
		shown.asked = *asked;
		asked_in_scope.delete(&ac);
	}
#endif
	count_calibrated(&shown);
}

/* Copies what the stage reads besides its arguments, after entry_alloc_flags. */
static __always_inline void copy_context(struct allocation *a, u64 task)
{
	u32 cpu = bpf_get_smp_processor_id();

	READ(a->task_flags, task + TASK_STRUCT__FLAGS);
	READ(a->gfp_allowed_mask, GFP_ALLOWED_MASK_ADDRESS);
#if BY_WORDS
	capture_by(a, bpf_get_current_task_btf());
#endif
	a->switches = switches_now();
	if (a->switches & (CPUSETS_ENABLED | CPUSETS_SWITCHING) || a->entry_alloc_flags) {
		a->preempt_count = preempt_count_of(per_cpu_offset.lookup(&cpu));
		READ(a->mems_allowed, task + TASK_STRUCT__MEMS_ALLOWED);
#ifdef TASK_STRUCT__SOFTIRQ_DISABLE_CNT
		bpf_probe_read_kernel(&a->softirq_disable_cnt, 4, task + TASK_STRUCT__SOFTIRQ_DISABLE_CNT);
#endif
		a->present |= TASK_CONTEXT;
	}
}

/* Copies the arguments of get_page_from_freelist(), after the switches. */
static __always_inline void copy_prepared(struct allocation *a, u64 task, u32 gfp_mask, u32 alloc_flags, const u64 *ac)
{
	u64 nodemask = ac[ALLOC_CONTEXT__NODEMASK / 8];

	a->present |= PREPARED;
	a->freelist_gfp_mask = gfp_mask;
	a->alloc_flags = alloc_flags;
	a->zonelist = ac[ALLOC_CONTEXT__ZONELIST / 8];
	a->preferred_zoneref = ac[ALLOC_CONTEXT__PREFERRED_ZONEREF / 8];
	a->migratetype = MEMBER((u64)ac, s32, MIGRATETYPE);
	a->highest_zoneidx = MEMBER((u64)ac, s32, HIGHEST_ZONEIDX);
	a->spread_dirty_pages = MEMBER((u64)ac, u8, SPREAD_DIRTY_PAGES);
	if (nodemask) {
		READ(a->ac_nodemask_nodes, nodemask);
		READ(a->nodemask_nodes, nodemask);
		a->present |= NODEMASK;
		/* Only cpusets put it there. Otherwise the caller passed its own. */
		if (nodemask == task + TASK_STRUCT__MEMS_ALLOWED && a->switches & (CPUSETS_ENABLED | CPUSETS_SWITCHING))
			a->present |= AC_NODEMASK_MEMS_ALLOWED;
		else
			a->present |= AC_NODEMASK_CALLER;
	}
}

/* Copies a call. */
static __always_inline void copy_call(struct allocation *a, u32 gfp_mask, u32 order, u32 alloc_flags, const u64 *ac)
{
	u64 task = bpf_get_current_task();

	a->gfp_mask = gfp_mask;
	a->order = order;
	a->preferred_nid = -1;
#ifdef ALLOC_CONTEXT__ALLOC_FLAGS
	a->entry_alloc_flags = *(u32 *)((u64)ac + ALLOC_CONTEXT__ALLOC_FLAGS);
#endif
	copy_context(a, task);
	copy_prepared(a, task, gfp_mask, alloc_flags, ac);
}

#ifdef SCOPE_GFP
/* Replaces the mask of a call in a scope by the one that was asked for; returns false if that was not seen. */
static __always_inline bool ask_in_scope(struct allocation *a, u64 ac)
{
	u32 *asked = asked_in_scope.lookup(&ac);

	if (!asked)
		return false;
	a->gfp_mask = *asked;
	asked_in_scope.delete(&ac);
	return true;
}

#define IN_SCOPE(a) ((a)->task_flags & SCOPE_FLAGS)
#else
#define IN_SCOPE(a) false
#endif

/* Returns whether a call passes the filters, which only one_long() applies. */
static __always_inline bool matches_one(const struct allocation *a)
{
	/* The node's zonelists stand for the argument, which is not seen. */
#ifdef PREFERRED_NID
	if (a->zonelist != ZONELIST && a->zonelist != ZONELIST_NOFALLBACK)
		return false;
	if (!passes(a->gfp_mask, a->order, PREFERRED_NID))
		return false;
#else
	if (!passes(a->gfp_mask, a->order, 0))
		return false;
#endif
#ifdef CONTEXT_FILTER
	if (!matches_zoneref(a->alloc_flags, a->preferred_zoneref))
		return false;
#endif
	return true;
}

#ifdef EVENTS_FD
static __always_inline void take(struct event *e, void *ctx)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct slot *s = slot_of(cpu);
	u64 producer_pos, index, full;
	struct event *to;

	producer_pos = s->producer_pos;
	index = event_index(cpu, producer_pos);
	full = s->consumer_pos + (1 << PERCPU_BUFFER_BITS);
	if (index >= EVENTS || producer_pos >= full || !within_rate()) {
		count(OPENED);
		count(DROPPED);
		return;
	}
	s->call.e.a.gfp_allowed_mask = e->a.gfp_allowed_mask;
	s->call.e.a.switches = e->a.switches;
	e->cpu = cpu;
	e->stack = -1;
	begin_event(e, ctx);
	to = (struct event *)(THE_EVENTS + index);
	__builtin_memcpy(to, e, sizeof(*e));
	barrier();
	s->producer_pos = producer_pos + 1;
	s->short_until = full < producer_pos + RECHECK ? full : producer_pos + RECHECK;
}
#else
/* Counts a call in the cells. The short way looks only at the first cell of a set, so other calls stay out of that. */
static __always_inline void take(struct count_entry *once, void *ctx)
{
	struct allocation *a = &once->a;
	u32 cpu = bpf_get_smp_processor_id();

	count_in(cells_of(cpu, a->freelist_gfp_mask, a->order, a->alloc_flags, a->task_flags, mixed_by(a)), a,
		 a->present == PREPARED && !IN_SCOPE(a));
}
#endif

/* Room for a call, as take() wants it. */
#ifdef EVENTS_FD
#define TAKEN struct event
#define NONE_TAKEN {}
#else
#define TAKEN struct count_entry
#define NONE_TAKEN {.count = 1}
#endif

#ifdef REJECT_ORDER
/* Where the entry ends a request that it rejects, with all arguments still in registers. */
int on_reject(struct pt_regs *ctx)
{
	u32 gfp_mask = ctx->REJECT_GFP_MASK, order = ctx->REJECT_ORDER;
	s32 preferred_nid = ctx->REJECT_PREFERRED_NID;
	u64 nodemask = ctx->REJECT_NODEMASK;
	volatile struct look *look = THE_LOOK;
	struct calibrated shown = {};
	TAKEN taken = NONE_TAKEN;
	struct control *c;

	/* Others are refused for reasons that the stage does not have. */
	if (order <= MAX_ORDER)
		return 0;
	if (!(look->state & CAPTURING)) {
		c = in_mode(CALIBRATE);
		if (!c || (u32)bpf_get_current_pid_tgid() != c->tid)
			return 0;
		shown.frame_to_ac = nodemask;
		shown.preempt_count = preferred_nid;
		shown.gfp_mask = gfp_mask;
		shown.asked = order;
		count_calibrated(&shown);
		return 0;
	}
	if (!look->rejects)
		return 0;
	if (!matches_filter(gfp_mask, order, preferred_nid))
		return 0;
#ifdef CONTEXT_FILTER
	/* It was never prepared. */
	count(OPENED);
	count(FILTERED);
#else
	taken.a.gfp_mask = gfp_mask;
	taken.a.order = order;
	taken.a.preferred_nid = preferred_nid;
#ifdef REJECT_ALLOC_FLAGS
	taken.a.entry_alloc_flags = ctx->REJECT_ALLOC_FLAGS;
#endif
	if (nodemask) {
		READ(taken.a.nodemask_nodes, nodemask);
		taken.a.present |= NODEMASK;
	}
	copy_context(&taken.a, bpf_get_current_task());
	count(REJECTED);
	take(&taken, ctx);
#endif
	return 0;
}
#endif

/* A call that the short way does not count. */
int one_long(CONTEXT *ctx)
{
	u64 ac = scalar(ARG_AC(ctx)), returns_to = 0, distance, copy[ALLOC_CONTEXT_WORDS] = {};
	u32 gfp_mask = ARG_GFP(ctx), order = ARG_ORDER(ctx), alloc_flags = ARG_ALLOC_FLAGS(ctx);
	volatile struct look *look = THE_LOOK;
	TAKEN once = NONE_TAKEN;
	bool capturing = look->state & CAPTURING;
	struct control *c;

	if (!capturing && !AUDITED(look)) {
		c = in_mode(CALIBRATE);
		if (c)
			calibrate_one(c, gfp_mask, ac);
		return 0;
	}
	READ(returns_to, ac - look->return_to_ac);
	if (returns_to != RETURN_ADDRESS) {
		if (!capturing)
			return 0;
#ifdef NOLOCK
		if (alloc_flags & ALLOC_NOLOCK) {
			u64 frame = nolock_frame(ac);
			struct record *r = pending_records.lookup(&frame);

			if (r)
				freelist_of_record(r, gfp_mask, order, alloc_flags, ac);
			else
				count_unpaired(UNPAIRED_FREELIST);
			return 0;
		}
#endif
#ifdef SLOW
		slow_attempt(gfp_mask, order, alloc_flags, ac);
#endif
		return 0;
	}
	distance = ac - scalar(STACK(ctx));
	/* Other CPUs read this memory at each call. During an audit no call is to take the short way. */
	if (look->distance != distance && !AUDITED(look))
		look->distance = distance;
	READ(copy, ac);
	copy_call(&once.a, gfp_mask, order, alloc_flags, copy);
#ifdef SCOPE_GFP
	if (IN_SCOPE(&once.a) && !ask_in_scope(&once.a, ac)) {
		if (!capturing)
			return 0;
		count(OPENED);
		count(DROPPED);
		return 0;
	}
#endif
	audit_one(&once.a);
	if (!capturing)
		return 0;
	if (is_own()) {
		count(OWN);
		return 0;
	}
#ifdef BULK
	if (single_opened(ac, once.a.gfp_mask, order, 0, 0))
		once.a.present |= BULK_SINGLE;
#endif
#ifdef FILTERS
	if (!matches_one(&once.a)) {
		count(OPENED);
		count(FILTERED);
		return 0;
	}
#endif
	take(&once, ctx);
	return 0;
}
