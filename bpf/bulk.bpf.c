// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The bulk allocator: it prepares once, then takes pages from the per-CPU lists without get_page_from_freelist(). What
 * it prepared shows only in the pages that it took, and in the mask that it hands on when it gives up and calls the
 * normal entry for a single page.
 *
 * Defined beside what common.bpf.c says: BULK, the function; BULK_ARGUMENTS, how many it has;
 * BULK_PENDING; BULK_RING_PAGES; PAGE__FLAGS, NODES_PGSHIFT, ZONES_PGSHIFT and ZONES_MASK where the place of a page's
 * node and zone in its flags is known; MEMCG_KMEM_ADDRESS and PAGE_OWNER_ADDRESS where the kernel has these keys.
 */
BPF_HASH(bulk_pending, u64, struct bulk_record, BULK_PENDING);
BPF_RINGBUF_OUTPUT(bulk_records, BULK_RING_PAGES);
/* Zeroes: a record of this kind has no room on a program's stack. */
BPF_ARRAY(bulk_blank, struct bulk_record, 1);

/* Notes a call of the normal entry with the bulk call that makes it, where it has the arguments of one. */
static __always_inline bool note_single_page_call(struct bulk_record *b, u32 gfp_mask, s32 preferred_nid, u64 nodemask)
{
	if (nodemask != b->r.nodemask || preferred_nid != b->r.preferred_nid)
		return false;
	b->single_calls += 1;
	b->single_gfp_mask = gfp_mask;
	return true;
}

/* Tells whether the normal entry with this frame was called by the bulk allocator. */
static __always_inline bool single_opened(u64 frame, u32 gfp_mask, u32 order, s32 preferred_nid, u64 nodemask)
{
	int zero = 0;
	struct frame_offsets *l = frame_offsets.lookup(&zero);
	struct bulk_record *b;
	u64 distance, above;

	if (!l || likely(!l->bulk_running) || order)
		return false;
	frame = scalar(frame);
	if (l->bulk_to_single) {
		above = frame + l->bulk_to_single;
		b = bulk_pending.lookup(&above);
		return b && note_single_page_call(b, gfp_mask, preferred_nid, nodemask);
	}
	for (distance = 8; distance < FRAME_SEARCH; distance += 8) {
		above = frame + distance;
		b = bulk_pending.lookup(&above);
		if (b && note_single_page_call(b, gfp_mask, preferred_nid, nodemask)) {
			l->bulk_to_single = distance;
			return true;
		}
	}
	return false;
}

static __always_inline void single_returned(u64 frame, u64 page)
{
	int zero = 0;
	struct frame_offsets *l = frame_offsets.lookup(&zero);
	struct bulk_record *b;

	if (!l)
		return;
	frame = scalar(frame) + l->bulk_to_single;
	b = bulk_pending.lookup(&frame);
	if (b)
		b->single_page = page;
}

/*
 * Notes which elements of the array hold a page already: those are none that the call will
 * take.
 */
static __always_inline void read_array(struct bulk_record *b)
{
	/* Read once: a loop that ends with a load, and falls from there into its beginning, is refused by 6.1's verifier. */
	u64 array = b->page_array;
	u64 page;
	u32 i;

	for (i = 0; i < BULK_PAGES; i++) {
		if ((s32)i >= b->nr_pages)
			break;
		page = 0;
		READ(page, array + 8 * i);
		if (page)
			b->populated[i / 64] |= 1ULL << (i % 64);
	}
}

/* Looks up node and zone of the pages that the call took itself, as far as BULK_PAGES. */
static __always_inline void read_pages(struct bulk_record *b)
{
#ifdef PAGE__FLAGS
	u64 page, flags;
	u32 i, node;

#ifndef RETURNS
	/* Which page a call for a single one gave is not seen then. */
	if (b->single_calls)
		return;
#endif
	for (i = 0; i < BULK_PAGES; i++) {
		if (i >= b->returned)
			break;
		if (b->populated[i / 64] >> (i % 64) & 1)
			continue;
		page = 0;
		flags = 0;
		READ(page, b->page_array + 8 * i);
		if (!page || page == b->single_page || READ(flags, page + PAGE__FLAGS))
			continue;
		b->examined += 1;
		b->zones |= 1U << (flags >> ZONES_PGSHIFT & ZONES_MASK);
		node = flags >> NODES_PGSHIFT;
		if (node < NODEMASK_WORDS * 64)
			b->nodes[node / 64 & (NODEMASK_WORDS - 1)] |= 1ULL << (node % 64);
	}
#endif
}

/* `ctx` is for the stack's sake only. */
static __always_inline int bulk_called(void *ctx, u64 frame, u32 gfp, s32 preferred_nid, u64 nodemask, s32 nr_pages,
				       u64 page_array)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct control *c = in_mode(CAPTURE);
	struct bulk_record *b;
	struct frame_offsets *l;
	int zero = 0;

	if (!c || !matches_filter(gfp, 0, preferred_nid))
		return 0;
	l = frame_offsets.lookup(&zero);
	b = bulk_blank.lookup(&zero);
	if (!l || !b)
		return 0;
	count(OPENED);
	if (!bulk_pending.insert(&frame, b)) {
		__sync_fetch_and_add(&l->bulk_running, 1);
	} else if (bulk_pending.lookup(&frame)) {
		count(OVERWRITTEN);
		bulk_pending.update(&frame, b);
	} else {
		count(PENDING_FULL);
		return 0;
	}
	b = bulk_pending.lookup(&frame);
	if (!b)
		return 0;
	b->r.entry = ENTRY_BULK;
	b->r.gfp_mask = gfp;
	b->r.preferred_nid = preferred_nid;
	b->r.nodemask = nodemask;
	capture(&b->r, ctx, pid_tgid);
	b->nr_pages = nr_pages;
	b->page_array = page_array;
	if (b->page_array)
		read_array(b);
#ifdef MEMCG_KMEM_ADDRESS
	READ(b->memcg_kmem, MEMCG_KMEM_ADDRESS);
#endif
#ifdef PAGE_OWNER_ADDRESS
	READ(b->page_owner, PAGE_OWNER_ADDRESS);
#endif
	return 0;
}

static __always_inline int bulk_returned(u64 frame, u64 returned)
{
	struct control *c = in_mode(CAPTURE);
	struct bulk_record *b;
	struct frame_offsets *l;
	int zero = 0;

	if (!c)
		return 0;
	l = frame_offsets.lookup(&zero);
	b = bulk_pending.lookup(&frame);
	if (!l || !b) {
		count_unpaired(UNPAIRED_RETURN);
		return 0;
	}
	b->returned = returned;
	b->r.page = b->returned;
	if (b->page_array)
		read_pages(b);
	if (bulk_records.ringbuf_output(b, sizeof(*b), BPF_RB_NO_WAKEUP))
		count(DROPPED);
	bulk_pending.delete(&frame);
	__sync_fetch_and_sub(&l->bulk_running, 1);
	return 0;
}
