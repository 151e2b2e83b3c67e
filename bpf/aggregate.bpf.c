// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Counts equal allocations. Each CPU has a small set-associative cache of counters, which user space reads in place. An
 * evicted counter is added to a hash, or sent to a ring buffer if the hash is full. Only if the ring buffer is full too
 * are calls lost, and then they are counted as dropped.
 *
 * Defined in addition to the constants of common.bpf.c: CACHE_BITS, OVERFLOW, SPILLED_PAGES.
 */
BPF_F_TABLE("array", u32, struct cache_set, cache, NR_CPUS << CACHE_BITS, BPF_F_MMAPABLE);
BPF_HASH(overflow, struct allocation, u64, OVERFLOW);
BPF_RINGBUF_OUTPUT(spilled, SPILLED_PAGES);

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
	u64 *sum = overflow.lookup(&c->a);

	if (!sum) {
		if (!overflow.insert(&c->a, &c->count))
			return;
		sum = overflow.lookup(&c->a);
	}
	if (sum)
		__sync_fetch_and_add(sum, c->count);
	else if (spilled.ringbuf_output(c, sizeof(*c), BPF_RB_NO_WAKEUP))
		count_many(DROPPED, c->count);
}

static __always_inline void emit_pending(const struct call *c)
{
	struct count_entry once = {.count = 1};

	__builtin_memcpy(&once.a, &c->e.a, sizeof(once.a));
	spill(&once);
}

/* Gives the entry with the lower count to another allocation. User space reads `version` before and after the entry. */
static __always_inline void replace_entry(struct cache_set *b, const struct allocation *a)
{
	struct count_entry *c = b->entry[0].count <= b->entry[1].count ? &b->entry[0] : &b->entry[1];
	struct count_entry old;

	__builtin_memcpy(&old, c, sizeof(old));
	c->version += 1;
	c->count = 0;
	barrier();
	if (old.count)
		spill(&old);
	__builtin_memcpy(&c->a, a, sizeof(*a));
	c->count = 1;
	barrier();
	c->version += 1;
}

/* Returns the index of the set in the cache: a hash of the words of the request that vary. */
static __always_inline u32 cache_set_of(const struct allocation *a, u32 cpu)
{
	const u64 *w = (const u64 *)a;
	u64 mixed = w[0] + (w[1] << 5) + (w[2] << 9);

	return cpu << CACHE_BITS | (u32)(mixed * 0x9E3779B97F4A7C15ULL >> (64 - CACHE_BITS));
}

/* As same(), for a call without sets of nodes, and with the context still in the kernel's memory. */
static __always_inline bool same_in_place(const struct allocation *one, const struct allocation *request, u32 gfp_mask,
				  u32 alloc_flags, u64 ac)
{
	const u64 *a = (const u64 *)one, *b = (const u64 *)request;

	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[COMMON_WORDS - 1] == b[COMMON_WORDS - 1] &&
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
	u32 index = cache_set_of(a, cpu);
	struct cache_set *b = cache.lookup(&index);

	if (!b)
		return;
	if (likely(!a->present && !MEMBER(ac, u64, NODEMASK) && same_in_place(&b->entry[0].a, a, gfp_mask, alloc_flags, ac))) {
		b->entry[0].count += 1;
		return;
	}
	prepared(&s->call, gfp_mask, alloc_flags, ac);
	if (same(a, &b->entry[0].a))
		b->entry[0].count += 1;
	else if (same(a, &b->entry[1].a))
		b->entry[1].count += 1;
	else
		replace_entry(b, a);
}
