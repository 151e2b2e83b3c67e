// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The programs for kernels without preemption: trampolines (fentry, fexit). They are cheap, but the kernel skips such a
 * program while a preempted task has not finished it on the same CPU.
 */

/* One more level than bcc's macro, so that ENTRY_ARGUMENTS and the like are expanded. */
#define TRAMPOLINE(name, args...) BPF_PROG(name, args)

#ifndef ONE
#ifdef ENTRY_ALLOC_FLAGS
#define ENTRY_ARGUMENTS u32 gfp_mask, u32 order, s32 preferred_nid, u64 nodemask, u32 entry_alloc_flags
#define ENTRY_ALLOC_FLAGS_ARGUMENT entry_alloc_flags
#else
#define ENTRY_ARGUMENTS u32 gfp_mask, u32 order, s32 preferred_nid, u64 nodemask
#define ENTRY_ALLOC_FLAGS_ARGUMENT 0
#endif

TRAMPOLINE(on_entry, ENTRY_ARGUMENTS)
{
	return entry_called(ctx, (u64)ctx, gfp_mask, order, preferred_nid, nodemask, ENTRY_ALLOC_FLAGS_ARGUMENT);
}

#ifdef RETURNS
TRAMPOLINE(on_entry_return, ENTRY_ARGUMENTS, u64 page)
{
	return entry_returned((u64)ctx, page);
}
#endif

TRAMPOLINE(on_freelist, u32 gfp_mask, u32 order, u32 alloc_flags, u64 ac)
{
	/* Loads of 32 bits: the compiler clears no upper half. */
	return freelist_called(*(u32 *)&ctx[0], *(u32 *)&ctx[1], *(u32 *)&ctx[2], ac);
}
#endif

#ifdef NOLOCK
#ifdef NOLOCK_GFP_FLAGS
#define NOLOCK_ARGUMENTS u32 gfp_flags, s32 nid, u32 order
#define NOLOCK_GFP_FLAGS_ARGUMENT gfp_flags
#else
#define NOLOCK_ARGUMENTS s32 nid, u32 order
#define NOLOCK_GFP_FLAGS_ARGUMENT 0
#endif

TRAMPOLINE(on_nolock, NOLOCK_ARGUMENTS)
{
	return nolock_called(ctx, (u64)ctx, NOLOCK_GFP_FLAGS_ARGUMENT, nid, order);
}

TRAMPOLINE(on_nolock_return, NOLOCK_ARGUMENTS, u64 page)
{
	return nolock_returned((u64)ctx, page);
}
#endif

#ifdef BULK
TRAMPOLINE(on_bulk, u32 gfp, s32 preferred_nid, u64 nodemask, s32 nr_pages)
{
	u64 page_array = 0;

	/* The last argument, read as plain memory: the verifier does not know pointers to pointers. */
	READ(page_array, &ctx[BULK_ARGUMENTS - 1]);
	return bulk_called(ctx, (u64)ctx, gfp, preferred_nid, nodemask, nr_pages, page_array);
}

TRAMPOLINE(on_bulk_return, u32 gfp)
{
	u64 returned = 0;

	/* The return value follows the arguments. */
	READ(returned, &ctx[BULK_ARGUMENTS]);
	return bulk_returned((u64)ctx, returned);
}
#endif
