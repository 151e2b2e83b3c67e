// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The entry without locks on kernels where it has its own preparation stage, from 6.15 to 7.2; later it uses the normal
 * entry's.
 *
 * Defined in addition to the constants of common.bpf.c: NOLOCK, the function; NOLOCK_GFP_FLAGS if it takes a mask.
 */

/* Returns the frame of the call whose alloc_context this is. */
static __always_inline u64 nolock_frame(u64 ac)
{
	struct frame_offsets *l = frame_offsets();
	u64 distance;

	if (l->nolock_to_ac)
		return ac + l->nolock_to_ac;
	/* The nearest one above is the innermost call, and only that one can have made this call. */
	for (distance = 8; distance < FRAME_SEARCH; distance += 8) {
		u64 frame = ac + distance;
		struct record *r = pending_records.lookup(&frame);

		if (r && r->entry == ENTRY_NOLOCK) {
			l->nolock_to_ac = distance;
			return frame;
		}
	}
	return 0;
}

/* Only the stack needs `ctx`; gfp_flags is 0 if the function takes none. */
static __always_inline int nolock_called(void *ctx, u64 frame, u32 gfp_flags, s32 nid, u32 order)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct control *c = in_mode(CAPTURE);
	struct record r = {};

	if (!c || !matches_filter(gfp_flags, order, nid))
		return 0;
	count(OPENED);
	r.entry = ENTRY_NOLOCK;
	r.gfp_mask = gfp_flags;
	r.order = order;
	r.preferred_nid = nid;
	capture(&r, ctx, pid_tgid);
	open(frame, &r);
	return 0;
}

static __always_inline int nolock_returned(u64 frame, u64 page)
{
	struct control *c = in_mode(CAPTURE);
	struct record *r;

	if (!c)
		return 0;
	r = pending_records.lookup(&frame);
	if (r)
		close(frame, r, page);
	else
		count_unpaired(UNPAIRED_RETURN);
	return 0;
}
