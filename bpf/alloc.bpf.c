// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* The normal entry and get_page_from_freelist(), on every kernel. */

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

/* `ctx` is for the stack's sake only. */
static __always_inline int entry_called(void *ctx, u64 frame, u32 gfp_mask, u32 order, s32 preferred_nid, u64 nodemask,
					u32 entry_alloc_flags)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct control *c = in_mode(CALIBRATE);
	struct record r = {};

	if (c) {
		calibrate_entry(c, frame, pid_tgid);
		return 0;
	}
	c = in_mode(CAPTURE);
	if (!c || !traced(c, pid_tgid))
		return 0;
	count(OPENED);

	r.gfp_mask = gfp_mask;
	r.order = order;
	r.preferred_nid = preferred_nid;
	r.nodemask = nodemask;
	r.entry_alloc_flags = entry_alloc_flags;
	capture(&r, ctx, pid_tgid);
#ifdef BULK
	if (single_opened(frame, &r))
		r.entry = ENTRY_BULK_SINGLE;
#endif
	open(frame, &r);
	return 0;
}

static __always_inline int freelist_called(u32 gfp_mask, u32 order, u32 alloc_flags, u64 ac)
{
	struct control *c = in_mode(CALIBRATE);
	struct record *r;
	u64 nodemask, zoneref, frame;

	if (c) {
		calibrate_freelist(c, alloc_flags, ac);
		return 0;
	}
	c = in_mode(CAPTURE);
	if (!c || !traced(c, bpf_get_current_pid_tgid()))
		return 0;
	frame = ac + c->frame_to_ac;
#ifdef NOLOCK
	if (alloc_flags & ALLOC_NOLOCK)
		frame = nolock_frame(ac);
#endif
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

static __always_inline int entry_returned(u64 frame, u64 page)
{
	struct control *c = in_mode(CAPTURE);
	struct record *r;

	if (!c || !traced(c, bpf_get_current_pid_tgid()))
		return 0;
	r = pending.lookup(&frame);
	if (!r) {
		count(RETURN_ALONE);
		return 0;
	}
#ifdef BULK
	if (r->entry == ENTRY_BULK_SINGLE)
		single_returned(frame, page);
#endif
	close(frame, r, page);
	return 0;
}
