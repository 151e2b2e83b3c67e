// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The programs for kernels with preemption: kprobes. Their handlers run with preemption disabled, so that no other task
 * can find one unfinished. kalloctrace/probe/attach/plan.py says where each of these is attached.
 *
 * A call's frame is the stack pointer at the function's entry, where the return address lies. When the function has
 * returned, the stack pointer is one word above it. Where kprobe.multi sees the return through the function graph tracer,
 * it shows what return_to_handler() (arch/x86/kernel/ftrace_64.S) stores: the stack pointer before or after room for a
 * struct pt_regs is made, and with or without the word of the return address. Linux kernel commit 8bc11700e0d2
 * ("x86/fgraph: Fix return_to_handler regs.rsp value") (in v7.0) is one of its changes; stable kernels have it too. So the
 * first return of a pending call measures it.
 *
 * Defined by user space in addition: RETURN_BY_FGRAPH, the size of struct pt_regs, where that is so.
 */
#define FRAME(ctx) ((u64)(ctx)->sp)

#ifdef RETURN_BY_FGRAPH
static __always_inline bool is_pending(u64 frame)
{
#ifdef BULK
	if (bulk_pending.lookup(&frame))
		return true;
#endif
	return pending_records.lookup(&frame);
}

static __always_inline u64 returned_frame(u64 sp)
{
	const u64 distances[] = {-8, 0, RETURN_BY_FGRAPH - 8, RETURN_BY_FGRAPH};
	struct frame_offsets *l = frame_offsets();
	u32 i;

#pragma unroll
	for (i = 0; i < 4; i++) {
		if (!l->return_measured && is_pending(sp + distances[i])) {
			l->sp_to_frame = distances[i];
			l->return_measured = 1;
		}
	}
	return sp + l->sp_to_frame;
}

#define RETURNED_FRAME(ctx) returned_frame((ctx)->sp)
#else
#define RETURNED_FRAME(ctx) ((u64)(ctx)->sp - 8)
#endif

#ifndef ONE
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
	/* Loads of 32 bits: the compiler clears no upper half. */
	return freelist_called(*(u32 *)&ctx->di, *(u32 *)&ctx->si, *(u32 *)&ctx->dx, ctx->cx);
}
#endif

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
