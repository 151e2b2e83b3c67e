/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The format of writes to /dev/kalloctrace_stimulus: an array of requests. request.py packs the same layout.
 */
#ifndef KALLOCTRACE_STIMULUS_H
#define KALLOCTRACE_STIMULUS_H

#include <linux/types.h>

/* The context of a request. */
enum stimulus_context {
	STIMULUS_TASK,		/* the writing task */
	STIMULUS_BH_DISABLED,	/* the writing task, between local_bh_disable() and local_bh_enable() */
	STIMULUS_SOFTIRQ,	/* a tasklet that interrupts the writing task */
	STIMULUS_HARDIRQ,	/* an interrupt of the writing task */
	STIMULUS_NO_PREEMPT,	/* the writing task with preemption disabled */
	STIMULUS_NO_IRQS,	/* the writing task with this CPU's interrupts disabled */
	STIMULUS_CONTEXTS
};

/* The kernel function to call. */
enum stimulus_entry {
	STIMULUS_NORMAL,	/* the function with the preparation stage */
	STIMULUS_BULK,		/* the bulk allocator, since 5.13; the order is the number of pages, 1 to 32 */
	STIMULUS_NOLOCK,	/* the allocation without locks, supported here since 6.18 */
	STIMULUS_ENTRIES
};

/* The allocation scopes of the writing task during the request. */
enum stimulus_scope {
	STIMULUS_NOFS		= 1,
	STIMULUS_NOIO		= 2,
	STIMULUS_PIN		= 4,	/* before 5.13 NOCMA, the same task flag */
	STIMULUS_NORECLAIM	= 8,
	STIMULUS_SCOPES		= 15
};

struct stimulus_request {
	__u32 gfp;		/* in the numbering of the running kernel; passed unchanged */
	__u32 order;
	__s32 nid;		/* an online node; with STIMULUS_NOLOCK also NUMA_NO_NODE */
	__u16 context;		/* enum stimulus_context */
	__u16 entry;		/* enum stimulus_entry */
	__u64 nodemask;		/* nodes 0 to 63, if has_nodemask */
	__u32 has_nodemask;	/* 0 or 1 */
	__u32 scopes;		/* enum stimulus_scope, or'ed */
	__u32 count;		/* the number of allocations, one after another */
	__u32 alloc_flags;	/* the fifth argument of STIMULUS_NORMAL since 7.3, passed unchanged; otherwise 0 */
};

#ifdef __KERNEL__
struct seq_file;

/* Prints the kernel's own values as lines "name value"; for single_open(). */
int stimulus_show_values(struct seq_file *file, void *unused);

/* Returns whether cpusets may be enabled. */
bool stimulus_cpusets(void);

/* Linux kernel commit 387ba26fb1cb ("mm/page_alloc: add a bulk page allocator") (in v5.13) */
#define STIMULUS_HAS_BULK (LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0))

/* mm/page_alloc.c:5406 of Debian's 7.3.4-1~bpo13+1; 7.2.13-1:5324 has no such argument. */
#define STIMULUS_HAS_ALLOC_FLAGS (LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0))

/* Linux kernel commit d7242af86434 ("mm: Introduce alloc_frozen_pages_nolock()") (in v6.18) defines its arguments. */
#define STIMULUS_HAS_NOLOCK (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0))
#endif

#endif
