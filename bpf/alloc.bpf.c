// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* The normal entry and get_page_from_freelist(), on every kernel. */

/* Only the stack needs `ctx`. */
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
	if (!c || !matches_filter(gfp_mask, order, preferred_nid))
		return 0;
	count(OPENED);

	r.gfp_mask = gfp_mask;
	r.order = order;
	r.preferred_nid = preferred_nid;
	r.nodemask = nodemask;
	r.entry_alloc_flags = entry_alloc_flags;
	capture(&r, ctx, pid_tgid);
#ifdef BULK
	if (single_opened(frame, gfp_mask, order, preferred_nid, nodemask))
		r.entry = ENTRY_BULK_SINGLE;
#endif
	open(frame, &r);
	return 0;
}

static __always_inline int freelist_called(u32 gfp_mask, u32 order, u32 alloc_flags, u64 context)
{
	/* The verifier forbids adding a variable to a typed pointer. */
	u64 ac = scalar(context);
	struct control *c = in_mode(CALIBRATE);
	struct record *r;
	u64 frame;

	if (c) {
		calibrate_freelist(c, alloc_flags, ac);
		return 0;
	}
	c = in_mode(CAPTURE);
	if (!c)
		return 0;
#ifdef SLOW
	if (!first_of_call(alloc_flags))
		slow_attempt(gfp_mask, order, alloc_flags, ac);
#endif
	frame = ac + c->frame_to_ac;
#ifdef NOLOCK
	if (alloc_flags & ALLOC_NOLOCK)
		frame = nolock_frame(ac);
#endif
	r = pending_records.lookup(&frame);
	if (!r) {
		count_unpaired(UNPAIRED_FREELIST);
		return 0;
	}
	freelist_of_record(r, gfp_mask, order, alloc_flags, ac);
	return 0;
}

static __always_inline int entry_returned(u64 frame, u64 page)
{
	struct control *c = in_mode(CAPTURE);
	struct record *r;

	if (!c)
		return 0;
	r = pending_records.lookup(&frame);
	if (!r) {
		count_unpaired(UNPAIRED_RETURN);
		return 0;
	}
#ifdef BULK
	if (r->entry == ENTRY_BULK_SINGLE)
		single_returned(frame, page);
#endif
	close(frame, r, page);
	return 0;
}
