// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/* Copies the arguments of get_page_from_freelist() into a call. */

/* Returns what ac->nodemask points to, as enum present. */
static __always_inline u32 nodemask_kind(const struct call *c, u64 nodemask)
{
	if (nodemask == c->nodemask)
		return AC_NODEMASK_CALLER;
	if (nodemask == c->task + TASK_STRUCT__MEMS_ALLOWED)
		return AC_NODEMASK_MEMS_ALLOWED;
	return AC_NODEMASK_OTHER;
}

/* A member of ac, or of a copy of it. */
#define MEMBER(ac, type, name) (*(type *)((ac) + ALLOC_CONTEXT__##name))

/* Completes a call with its prepared context. */
static __always_inline void prepared(struct call *c, u32 gfp_mask, u32 alloc_flags, u64 ac)
{
	struct allocation *a = &c->e.a;
	u32 present = a->present | PREPARED;
	u64 nodemask = MEMBER(ac, u64, NODEMASK);

	a->freelist_gfp_mask = gfp_mask;
	a->alloc_flags = alloc_flags;
	a->zonelist = MEMBER(ac, u64, ZONELIST);
	a->preferred_zoneref = MEMBER(ac, u64, PREFERRED_ZONEREF);
	a->migratetype = MEMBER(ac, s32, MIGRATETYPE);
	a->highest_zoneidx = MEMBER(ac, s32, HIGHEST_ZONEIDX);
	a->spread_dirty_pages = MEMBER(ac, u8, SPREAD_DIRTY_PAGES);
	if (unlikely(nodemask)) {
		present |= nodemask_kind(c, nodemask);
		READ(a->ac_nodemask_nodes, nodemask);
	}
	a->present = present;
	/* Read back from memory, a value is no typed pointer any more. */
	barrier();
}
