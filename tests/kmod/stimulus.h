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

/* Which of the kernel's functions is called. */
enum stimulus_entry {
	STIMULUS_NORMAL,	/* the one that carries the preparation stage */
	STIMULUS_BULK,		/* the bulk allocator, since 5.13; the order is the number of pages, 1 to 32 */
	STIMULUS_NOLOCK,	/* the allocation without locks, here since 6.18 */
	STIMULUS_ENTRIES
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
	__s32 nid;		/* an online node; with STIMULUS_NOLOCK also NUMA_NO_NODE */
	__u16 context;		/* enum stimulus_context */
	__u16 entry;		/* enum stimulus_entry */
	__u64 nodemask;		/* nodes 0 to 63, if has_nodemask */
	__u32 has_nodemask;	/* 0 or 1 */
	__u32 scopes;		/* of enum stimulus_scope, or'ed */
	__u32 count;		/* how many times, one after the other */
	__u32 alloc_flags;	/* STIMULUS_NORMAL since 7.3: its fifth argument, handed on unchanged; elsewhere 0 */
};

#ifdef __KERNEL__
struct seq_file;

/* Prints the kernel's own values, as lines of "name value"; what opens the file is single_open(). */
int stimulus_show_values(struct seq_file *file, void *unused);

/* Whether cpusets may be in use. */
bool stimulus_cpusets(void);

/* Linux kernel commit 387ba26fb1cb ("mm/page_alloc: add a bulk page allocator") (in v5.13) */
#define STIMULUS_HAS_BULK (LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0))

/* mm/page_alloc.c:5406 of Debian's 7.3.4-1~bpo13+1; 7.2.13-1:5324 has no such argument. */
#define STIMULUS_HAS_ALLOC_FLAGS (LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0))

/* Linux kernel commit d7242af86434 ("mm: Introduce alloc_frozen_pages_nolock()") (in v6.18) gave it its arguments. */
#define STIMULUS_HAS_NOLOCK (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0))
#endif

#endif
