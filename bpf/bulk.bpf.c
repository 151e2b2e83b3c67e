// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The bulk allocator. It prepares once, then takes pages from the per-CPU lists without get_page_from_freelist(). The
 * prepared context shows only in the pages that it took, and in the mask that it passes on when it gives up and calls the
 * normal entry for a single page.
 *
 * Defined in addition to the constants of common.bpf.c: BULK, the function; BULK_ARGUMENTS, the number of its arguments;
 * BULK_PENDING; BULK_RING_PAGES; PAGE__FLAGS, NODES_PGSHIFT, ZONES_PGSHIFT and ZONES_MASK if the positions of node and
 * zone in page->flags are known; MEMCG_KMEM_ADDRESS and PAGE_OWNER_ADDRESS if the kernel has these keys.
 */
#include "nodemask.h"

BPF_HASH(bulk_pending, u64, struct bulk_record, BULK_PENDING);
BPF_RINGBUF_OUTPUT(bulk_records, BULK_RING_PAGES);
/* All zero: such a record does not fit on a program's stack. */
BPF_ARRAY(bulk_blank, struct bulk_record, 1);

/*
 * Adds a call of the normal entry to the bulk call that makes it, if the arguments match: those that are seen of both,
 * which are none where the entry is not traced.
 */
static __always_inline bool note_single_page_call(struct bulk_record *b, u32 gfp_mask, s32 preferred_nid, u64 nodemask)
{
#ifndef ONE
	if (nodemask != b->r.nodemask || preferred_nid != b->r.preferred_nid)
		return false;
#endif
	b->single_calls += 1;
	b->single_gfp_mask = gfp_mask;
	return true;
}

/* Returns whether the bulk allocator called the normal entry that has this frame, or any address in it. */
static __always_inline bool single_opened(u64 frame, u32 gfp_mask, u32 order, s32 preferred_nid, u64 nodemask)
{
	struct frame_offsets *l = frame_offsets();
	struct bulk_record *b;
	u64 distance, above;

	if (likely(!l->bulk_running) || order)
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
	struct frame_offsets *l = frame_offsets();
	struct bulk_record *b;

	frame = scalar(frame) + l->bulk_to_single;
	b = bulk_pending.lookup(&frame);
	if (b)
		b->single_page = page;
}

/* Notes which elements of the array hold a page already: the call skips these. */
static __always_inline void read_array(struct bulk_record *b)
{
	/* Read once: the verifier of 6.1 rejects a loop that ends with a load and continues at its start. */
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

/* Reads node and zone of the pages that the call took itself, among the first BULK_PAGES. */
static __always_inline void read_pages(struct bulk_record *b)
{
#ifdef PAGE__FLAGS
	u64 page, flags;
	u32 i;

#ifndef RETURNS
	/* Without returns, the page of a single-page call is unknown. */
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
		node_set(flags >> NODES_PGSHIFT, b->nodes);
	}
#endif
}

/* Only the stack needs `ctx`. */
static __always_inline int bulk_called(void *ctx, u64 frame, u32 gfp, s32 preferred_nid, u64 nodemask, s32 nr_pages,
				       u64 page_array)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct control *c = in_mode(CAPTURE);
	struct bulk_record *b;
	struct frame_offsets *l = frame_offsets();
	int zero = 0;

	if (!c || !matches_filter(gfp, 0, preferred_nid))
		return 0;
	b = bulk_blank.lookup(&zero);
	if (!b)
		return 0;
	count(OPENED);
	if (!bulk_pending.insert(&frame, b)) {
		__sync_fetch_and_add(&l->bulk_running, 1);
#ifdef ONE
		__sync_fetch_and_add(&THE_LOOK->state, LOOK);
#endif
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
	struct frame_offsets *l = frame_offsets();

	if (!c)
		return 0;
	b = bulk_pending.lookup(&frame);
	if (!b) {
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
#ifdef ONE
	__sync_fetch_and_sub(&THE_LOOK->state, LOOK);
#endif
	return 0;
}
