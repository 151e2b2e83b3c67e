// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Counts equal allocations. Each CPU has a small set-associative cache of counters, which user space reads in place. An
 * evicted counter is sent to a ring buffer, or added to a hash if that is full. Only if the hash is full too are calls lost,
 * and then they are counted as dropped. User space reads the hash if something is in it: to read one is a bpf(2) call, and
 * during these the kernel skips programs.
 *
 * Defined in addition to the constants of common.bpf.c: the map CELLS_FD, CACHE_BITS, OVERFLOW, SPILLED_PAGES.
 */
BPF_HASH(overflow, struct allocation, u64, OVERFLOW);
BPF_RINGBUF_OUTPUT(spilled, SPILLED_PAGES);

/* The word of gfp_allowed_mask and switches. */
#define MACHINE_WORD (__builtin_offsetof(struct allocation, gfp_allowed_mask) / 8)
/* The words that every allocation has; the words after these hold sets of nodes. */
#define COMMON_WORDS (__builtin_offsetof(struct allocation, mems_allowed) / 8)
#define ALL_WORDS (sizeof(struct allocation) / 8)

static __always_inline void begin_event(struct event *e, void *ctx)
{
}

static __always_inline bool same(const struct allocation *one, const struct allocation *other)
{
	const u64 *a = (const u64 *)one, *b = (const u64 *)other;
	u32 i;

#pragma unroll
	for (i = 0; i < COMMON_WORDS; i++)
		if (a[i] != b[i])
			return false;
	if (likely(one->present == PREPARED))
		return true;
#pragma unroll
	for (i = COMMON_WORDS; i < ALL_WORDS; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* Adds to a counter outside the caches. */
static __always_inline void spill(struct count_entry *c)
{
	u64 *sum;

	if (!spilled.ringbuf_output(c, sizeof(*c), BPF_RB_NO_WAKEUP))
		return;
	count(OVERFLOWED);
	sum = overflow.lookup(&c->a);
	if (!sum) {
		if (!overflow.insert(&c->a, &c->count))
			return;
		sum = overflow.lookup(&c->a);
	}
	if (sum)
		__sync_fetch_and_add(sum, c->count);
	else {
#ifdef ONE
		/* Calls are counted nowhere else. */
		count_many(OPENED, c->count);
#endif
		count_many(DROPPED, c->count);
	}
}

/* Gives an entry to another allocation. User space reads `version` before and after the entry. */
static __always_inline void give_entry(struct count_entry *c, const struct allocation *a, u64 count)
{
	struct count_entry old;

	__builtin_memcpy(&old, c, sizeof(old));
	c->version += 1;
	c->count = 0;
	barrier();
	if (old.count)
		spill(&old);
	__builtin_memcpy(&c->a, a, sizeof(*a));
	c->count = count;
	barrier();
	c->version += 1;
}

/* How often an allocation is counted in the second entry before it may move to the first; a power of two. */
#define PROMOTION 64

/*
 * Counts an allocation in its set. The first entry is looked at first, so the more frequent one moves there, if it may.
 * User space reads the first entry before the second: while a count moves it may miss it, but never sees it twice.
 */
static __always_inline void count_in(struct cache_set *b, const struct allocation *a, bool may_be_first)
{
	struct count_entry *first = &b->entry[0], *second = &b->entry[1], *c = second;
	u64 count = 1;

	if (same(a, &first->a)) {
		first->count += 1;
		return;
	}
	if (same(a, &second->a)) {
		count += second->count;
		if (likely(count & (PROMOTION - 1) || count <= first->count || !may_be_first)) {
			second->count = count;
			return;
		}
		second->count = 0;
		barrier();
		c = first;
	} else if (may_be_first && first->count <= second->count) {
		c = first;
	}
	give_entry(c, a, count);
}

#ifndef ONE
static __always_inline void emit_pending(const struct call *c)
{
	struct count_entry once = {.count = 1};

	__builtin_memcpy(&once.a, &c->e.a, sizeof(once.a));
	spill(&once);
}

/* Returns the set of the cache: its index is a hash of the words of the request that vary. */
static __always_inline struct cache_set *cache_set_of(const struct allocation *a, u32 cpu)
{
	const u64 *w = (const u64 *)a;
	u64 mixed = w[0] + (w[1] << 5) + (w[2] << 9) + mixed_by(a);

	mixed = (u64)cpu << CACHE_BITS | mixed * 0x9E3779B97F4A7C15ULL >> (64 - CACHE_BITS);
	return (struct cache_set *)(MAP_VALUE(CELLS_FD) + BOUNDED(mixed, NR_CPUS << CACHE_BITS) * sizeof(struct cache_set));
}

/* As same(), for a call without sets of nodes, and with the context still in the kernel's memory. */
static __always_inline bool same_in_place(const struct allocation *one, const struct allocation *request, u32 gfp_mask,
				  u32 alloc_flags, u64 ac)
{
	const u64 *a = (const u64 *)one, *b = (const u64 *)request;
	u32 i;

#pragma unroll
	for (i = MACHINE_WORD; i < COMMON_WORDS; i++)
		if (a[i] != b[i])
			return false;
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] &&
	       one->present == PREPARED && one->freelist_gfp_mask == gfp_mask && one->alloc_flags == alloc_flags &&
	       one->zonelist == MEMBER(ac, u64, ZONELIST) &&
	       one->preferred_zoneref == MEMBER(ac, u64, PREFERRED_ZONEREF) &&
	       one->migratetype == MEMBER(ac, s32, MIGRATETYPE) &&
	       one->highest_zoneidx == MEMBER(ac, s32, HIGHEST_ZONEIDX) &&
	       one->spread_dirty_pages == MEMBER(ac, u8, SPREAD_DIRTY_PAGES);
}

static __always_inline void emit(struct slot *s, u32 cpu, u32 gfp_mask, u32 alloc_flags, u64 ac)
{
	struct allocation *a = &s->call.e.a;
	struct cache_set *b = cache_set_of(a, cpu);

	if (likely(!a->present && !MEMBER(ac, u64, NODEMASK) && same_in_place(&b->entry[0].a, a, gfp_mask, alloc_flags, ac))) {
		b->entry[0].count += 1;
		return;
	}
	prepared(&s->call, gfp_mask, alloc_flags, ac);
	count_in(b, a, true);
}
#endif
