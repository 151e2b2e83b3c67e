// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * prepare_alloc_pages(), on kernels whose compiler did not inline it. It needs a kprobe: trampolines take at most six
 * arguments and it has seven: gfp_mask, order, preferred_nid, nodemask, ac and alloc_mask in registers, alloc_flags on
 * the stack above the return address.
 */
struct preparing {
	u64 frame;
	u64 ac;
	u64 alloc_mask;
	u64 alloc_flags;
};

/* The key is the stack pointer at its entry, which its return restores: as exact as the frame of the call around it. */
BPF_HASH(preparing, u64, struct preparing, PENDING);

int on_prepare(struct pt_regs *ctx)
{
	struct control *c = in_mode(CAPTURE);
	struct preparing p = {};
	u64 sp = ctx->sp;

	if (!c)
		return 0;
	p.ac = ctx->r8;
	p.alloc_mask = ctx->r9;
	READ(p.alloc_flags, sp + 8);
	p.frame = p.ac + c->frame_to_ac;
	if (pending_records.lookup(&p.frame))
		preparing.update(&sp, &p);
	return 0;
}

int on_prepared(struct pt_regs *ctx)
{
	struct control *c = in_mode(CAPTURE);
	u64 sp = ctx->sp - 8;
	struct preparing *p;
	struct record *r;

	if (!c)
		return 0;
	p = preparing.lookup(&sp);
	if (!p)
		return 0;
	r = pending_records.lookup(&p->frame);
	if (r) {
		r->prepare_calls += 1;
		r->prepare_returned = (u8)ctx->ax;
		READ(r->prepare_alloc_mask, p->alloc_mask);
		READ(r->prepare_alloc_flags, p->alloc_flags);
		READ(r->prepare_ac, p->ac);
	}
	preparing.delete(&sp);
	return 0;
}
