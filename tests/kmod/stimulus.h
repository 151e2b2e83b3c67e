/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is written to /dev/kalloctrace_stimulus: an array of these. stimulus.py packs the same layout.
 */
#ifndef KALLOCTRACE_STIMULUS_H
#define KALLOCTRACE_STIMULUS_H

#include <linux/types.h>

/* Where a request is made from. */
enum stimulus_context {
	STIMULUS_TASK,		/* the writing task */
	STIMULUS_BH_DISABLED,	/* the same between local_bh_disable() and local_bh_enable() */
	STIMULUS_SOFTIRQ,	/* a tasklet on top of the writing task */
	STIMULUS_HARDIRQ,	/* an interrupt on top of the writing task */
	STIMULUS_NO_PREEMPT,	/* the writing task with preemption disabled */
	STIMULUS_NO_IRQS,	/* the writing task with this CPU's interrupts disabled */
	STIMULUS_CONTEXTS
};

/* Which allocation scopes the writing task is in meanwhile. */
enum stimulus_scope {
	STIMULUS_NOFS		= 1,
	STIMULUS_NOIO		= 2,
	STIMULUS_PIN		= 4,	/* NOCMA before 5.13: the same bit of the task */
	STIMULUS_NORECLAIM	= 8,
	STIMULUS_SCOPES		= 15
};

struct stimulus_request {
	__u32 gfp;		/* as the kernel at hand numbers the bits; handed on unchanged */
	__u32 order;
	__s32 nid;		/* an online node */
	__u32 context;		/* enum stimulus_context */
	__u64 nodemask;		/* nodes 0 to 63, if has_nodemask */
	__u32 has_nodemask;	/* 0 or 1 */
	__u32 scopes;		/* of enum stimulus_scope, or'ed */
	__u32 count;		/* how many times, one after the other */
	__u32 unused;		/* 0 */
};

#endif
