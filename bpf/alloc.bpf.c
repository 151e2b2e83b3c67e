// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* The normal entry and get_page_from_freelist(), on every kernel. */

#ifdef ENTRY_ALLOC_FLAGS
#define ENTRY_ARGUMENTS u32 gfp_mask, u32 order, s32 preferred_nid, u64 nodemask, u32 entry_alloc_flags
#else
#define ENTRY_ARGUMENTS u32 gfp_mask, u32 order, s32 preferred_nid, u64 nodemask
#endif

/* The frame that calibration saw last, in a map of its own as programs have no memory but maps. */
static __always_inline u64 *last_frame(void)
{
	int zero = 0;

	return calibration_frame.lookup(&zero);
}

FENTRY(ENTRY, ENTRY_ARGUMENTS)
{
	u64 frame = (u64)ctx;
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct control *c = in_mode(CALIBRATE);
	struct record r = {};

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

	r.gfp_mask = gfp_mask;
	r.order = order;
	r.preferred_nid = preferred_nid;
	r.nodemask = nodemask;
#ifdef ENTRY_ALLOC_FLAGS
	r.entry_alloc_flags = entry_alloc_flags;
#endif
	capture(&r, ctx, pid_tgid);
#ifdef BULK
	if (single_opened(frame, &r))
		r.entry = ENTRY_BULK_SINGLE;
#endif
	open(frame, &r);
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
#ifdef BULK
	if (r->entry == ENTRY_BULK_SINGLE)
		single_returned(frame, page);
#endif
	close(frame, r, page);
	return 0;
}
