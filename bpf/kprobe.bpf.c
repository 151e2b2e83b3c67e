// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The programs for kernels with preemption: kprobes. Their handlers run with preemption disabled, so that no other task
 * can find one unfinished. kalloctrace/probe/attach/plan.py says where each of these is attached.
 *
 * A call's frame is the stack pointer at the function's entry, where the return address lies. When the function has
 * returned, the stack pointer is one word above it.
 */
#define FRAME(ctx) ((u64)(ctx)->sp)
#define RETURNED_FRAME(ctx) ((u64)(ctx)->sp - 8)

int on_entry(struct pt_regs *ctx)
{
#ifdef ENTRY_ALLOC_FLAGS
	u32 entry_alloc_flags = ctx->r8;
#else
	u32 entry_alloc_flags = 0;
#endif

	return entry_called(ctx, FRAME(ctx), ctx->di, ctx->si, ctx->dx, ctx->cx, entry_alloc_flags);
}

#ifdef RETURNS
int on_entry_return(struct pt_regs *ctx)
{
	return entry_returned(RETURNED_FRAME(ctx), ctx->ax);
}
#endif

int on_freelist(struct pt_regs *ctx)
{
	return freelist_called(ctx->di, ctx->si, ctx->dx, ctx->cx);
}

#ifdef NOLOCK
int on_nolock(struct pt_regs *ctx)
{
#ifdef NOLOCK_GFP_FLAGS
	return nolock_called(ctx, FRAME(ctx), ctx->di, ctx->si, ctx->dx);
#else
	return nolock_called(ctx, FRAME(ctx), 0, ctx->di, ctx->si);
#endif
}

int on_nolock_return(struct pt_regs *ctx)
{
	return nolock_returned(RETURNED_FRAME(ctx), ctx->ax);
}
#endif

#ifdef BULK
int on_bulk(struct pt_regs *ctx)
{
#if BULK_ARGUMENTS == 6
	u64 page_array = ctx->r9;
#else
	u64 page_array = ctx->r8;
#endif

	return bulk_called(ctx, FRAME(ctx), ctx->di, ctx->si, ctx->dx, ctx->cx, page_array);
}

int on_bulk_return(struct pt_regs *ctx)
{
	return bulk_returned(RETURNED_FRAME(ctx), ctx->ax);
}
#endif
