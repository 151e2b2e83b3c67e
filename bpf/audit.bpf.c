// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The pair beside one probe, to compare what both see. It is attached only while an audit lasts, so it need not be cheap.
 *
 * A call is opened at the entry, by its frame, and counted at its first get_page_from_freelist(), where one probe counts
 * it too; the same word says to both whether calls are counted. Filters do not apply, and the recorder's own calls are
 * included. Calls without locks have an entry of their own, which both attachments trace in the same way: they are not
 * compared.
 *
 * Defined in addition to the constants of one.bpf.c: ENTRY_ALLOC_FLAGS; AUDIT_BY_FENTRY if these programs are trampolines.
 */
#ifdef AUDIT_BY_FENTRY
#define AUDIT_CONTEXT u64
#define AUDIT_ARGUMENT(ctx, number, name) ((ctx)[number])
#define AUDIT_FRAME(ctx) ((u64)(ctx))
#else
#define AUDIT_CONTEXT struct pt_regs
#define AUDIT_ARGUMENT(ctx, number, name) ((ctx)->name)
#define AUDIT_FRAME(ctx) ((u64)(ctx)->sp)
#endif

BPF_HASH(audit_pending, u64, struct allocation, PENDING);
BPF_HASH(audited_pair, struct allocation, u64, AUDIT);

int audit_entry(AUDIT_CONTEXT *ctx)
{
	u64 frame = scalar(AUDIT_FRAME(ctx));
	struct allocation a = {};
	struct control *c;

	if (!AUDITED(THE_LOOK)) {
		c = in_mode(CALIBRATE);
		if (c)
			calibrate_entry(c, frame, bpf_get_current_pid_tgid());
		return 0;
	}
	a.gfp_mask = AUDIT_ARGUMENT(ctx, 0, di);
	a.order = AUDIT_ARGUMENT(ctx, 1, si);
	a.preferred_nid = -1;
#ifdef ENTRY_ALLOC_FLAGS
	a.entry_alloc_flags = AUDIT_ARGUMENT(ctx, 4, r8);
#endif
	copy_context(&a, bpf_get_current_task());
	if (audit_pending.update(&frame, &a))
		audit_is_full();
	return 0;
}

/* Counts a call of the pair. */
static __always_inline void audit_pair(struct allocation *a)
{
	u64 none = 0, *seen = audited_pair.lookup(a);

	if (!seen) {
		audited_pair.insert(a, &none);
		seen = audited_pair.lookup(a);
	}
	if (seen)
		__sync_fetch_and_add(seen, 1);
	else
		audit_is_full();
}

int audit_freelist(AUDIT_CONTEXT *ctx)
{
	u32 gfp_mask = AUDIT_ARGUMENT(ctx, 0, di), alloc_flags = AUDIT_ARGUMENT(ctx, 2, dx);
	u64 ac = scalar(AUDIT_ARGUMENT(ctx, 3, cx)), frame, copy[ALLOC_CONTEXT_WORDS] = {};
	volatile struct look *look = THE_LOOK;
	struct allocation *a;
	struct control *c;

	if (!AUDITED(look)) {
		c = in_mode(CALIBRATE);
		if (c)
			calibrate_freelist(c, alloc_flags, ac);
		return 0;
	}
	frame = ac + look->audit_frame_to_ac;
	a = audit_pending.lookup(&frame);
	if (!a) {
		if (look->audit == AUDIT_COUNT && first_of_call(alloc_flags) && !is_nolock(alloc_flags))
			__sync_fetch_and_add((u64 *)&((struct look *)MAP_VALUE(LOOK_FD))->audit_unpaired, 1);
		return 0;
	}
	if (look->audit == AUDIT_COUNT) {
		READ(copy, ac);
		copy_prepared(a, bpf_get_current_task(), gfp_mask, alloc_flags, copy);
		audit_pair(a);
	}
	audit_pending.delete(&frame);
	return 0;
}
