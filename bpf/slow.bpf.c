// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The slow path, which runs when the first get_page_from_freelist() of a call found no page. Nothing here runs earlier.
 *
 * Each step is an event in one ring buffer, in order: the call of __alloc_pages_slowpath(), each get_page_from_freelist()
 * of it, reclaim, compaction and OOM in between (tracepoints), and its return. kalloctrace/probe/decode/slowpath.py
 * assembles calls from the events. The zones of the zonelist are copied at the beginning, and again if no page was found;
 * user space knows their layout.
 *
 * Defined in addition to the constants of common.bpf.c: SLOW_PAGES, ZONES_PAGES, SLOW_OPEN, ZONE_WORDS, ZONEREF_SIZE, the
 * offsets TASK_STRUCT__PRIO, TASK_STRUCT__SIGNAL and SIGNAL_STRUCT__OOM_MM, and RECLAIM, COMPACTION and OOM_VICTIM for the
 * tracepoints that exist. parts.bpf.c comes before.
 */

/* How many zones of a zonelist are copied. */
#define SLOW_ZONES 16

BPF_RINGBUF_OUTPUT(slow_events, SLOW_PAGES);
BPF_RINGBUF_OUTPUT(slow_zones, ZONES_PAGES);
/* The number of events that found the ring buffer full. */
BPF_ARRAY(slow_lost, u64, 1);

static __always_inline struct slow_event *slow_event_of(u32 kind)
{
	struct slow_event *e;
	u64 signal, *lost;
	int zero = 0;

	if (is_own())
		return NULL;
#ifdef TGID
	if (bpf_get_current_pid_tgid() >> 32 != TGID)
		return NULL;
#endif
#ifdef CHILDREN
	if (!is_followed(bpf_get_current_pid_tgid() >> 32))
		return NULL;
#endif
	lost = slow_lost.lookup(&zero);
	if (!lost)
		return NULL;
	e = slow_events.ringbuf_reserve(sizeof(*e));
	if (!e) {
		__sync_fetch_and_add(lost, 1);
		return NULL;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->lost = *lost;
	capture_context(&e->r, bpf_get_current_pid_tgid());
	READ(e->prio, e->r.task + TASK_STRUCT__PRIO);
	READ(signal, e->r.task + TASK_STRUCT__SIGNAL);
	READ(e->oom_mm, signal + SIGNAL_STRUCT__OOM_MM);
	return e;
}

static __always_inline void slow_step(u32 kind)
{
	struct slow_event *e;

	if (!in_mode(CAPTURE))
		return;
	e = slow_event_of(kind);
	if (e)
		slow_events.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* A get_page_from_freelist() after the first one of its call. */
static __always_inline void slow_attempt(u32 gfp_mask, u32 order, u32 alloc_flags, u64 ac)
{
	struct slow_event *e;

	slow_part(PART_REST);
	e = slow_event_of(SLOW_ATTEMPT);
	if (!e)
		return;
	e->ac = ac;
	freelist_of_record(&e->r, gfp_mask, order, alloc_flags, ac);
	slow_events.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* Copies the zones of ac->zonelist. */
static __always_inline void copy_zones(u64 time, u64 frame, u64 ac)
{
	u64 zonelist = 0, zone;
	struct slow_zone *z;
	u32 i;

	READ(zonelist, ac + ALLOC_CONTEXT__ZONELIST);
	for (i = 0; i < SLOW_ZONES; i++) {
		zone = 0;
		READ(zone, zonelist + i * ZONEREF_SIZE + ZONEREF__ZONE);
		if (!zone)
			break;
		z = slow_zones.ringbuf_reserve(sizeof(*z));
		if (!z) {
			count(ZONES_DROPPED);
			break;
		}
		z->time = time;
		z->frame = frame;
		z->zone = zone;
		bpf_probe_read_kernel(z->words, sizeof(z->words), (const void *)zone);
		slow_zones.ringbuf_submit(z, BPF_RB_NO_WAKEUP);
	}
}

/* At the instruction by which the entry calls the slow path. */
int on_slowpath(struct pt_regs *ctx)
{
	u64 frame = ctx->sp, ac = ctx->dx, time;
	struct slow_event *e;

	if (!in_mode(CAPTURE))
		return 0;
	e = slow_event_of(SLOW_BEGINS);
	if (!e)
		return 0;
	e->frame = frame;
	e->ac = ac;
	freelist_of_record(&e->r, ctx->di, ctx->si, 0, ac);
	bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	time = e->r.time;
	slow_events.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	slow_clock_starts(frame, ac, bpf_get_current_task(), time);
	copy_zones(time, frame, ac);
	return 0;
}

/* At the instruction after that call, which is reached in no other way. */
int on_slowpath_return(struct pt_regs *ctx)
{
	u64 frame = ctx->sp, page = ctx->ax, time;
	struct slow_clock *c;
	struct slow_event *e;

	if (!in_mode(CAPTURE))
		return 0;
	c = slow_open.lookup(&frame);
	e = slow_event_of(SLOW_RETURNS);
	if (e) {
		e->frame = frame;
		e->r.page = page;
		if (c) {
			spend(c, c->part, e->r.time);
			/* The clock of another CPU may have been ahead. */
			e->r.time = c->since;
			__builtin_memcpy(e->parts, c->parts, sizeof(e->parts));
		}
		time = e->r.time;
		slow_events.ringbuf_submit(e, BPF_RB_NO_WAKEUP);
		if (c && !page)
			copy_zones(time, frame, c->ac);
	}
	if (c)
		slow_clock_ends(frame, c, bpf_get_current_task());
	return 0;
}

#ifdef RECLAIM
AT_TRACEPOINT(mm_vmscan_direct_reclaim_begin)
{
	slow_reclaim_begins();
	slow_step(SLOW_RECLAIM);
	return 0;
}
#endif

#ifdef COMPACTION
AT_TRACEPOINT(mm_compaction_try_to_compact_pages)
{
	slow_part(PART_COMPACTION);
	slow_step(SLOW_COMPACTION);
	return 0;
}
#endif

#ifdef OOM_VICTIM
AT_TRACEPOINT(mark_victim)
{
	slow_step(SLOW_OOM);
	return 0;
}
#endif
