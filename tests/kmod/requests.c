// SPDX-License-Identifier: GPL-2.0
/*
 * Makes exactly the requested page allocations in the requested contexts, and frees the pages.
 *
 * write() takes an array of struct stimulus_request and returns when all are done. It stops at a refused request: with
 * an error if that is the first, otherwise with the number of bytes done. The module never changes a request to make it
 * harmless. It refuses these with -EINVAL:
 *
 *  - an unknown context, entry or scope, count 0, a node that is not online, and arguments that the entry lacks;
 *  - __GFP_DIRECT_RECLAIM outside STIMULUS_TASK: the request may sleep;
 *  - __GFP_NOFAIL with __GFP_DIRECT_RECLAIM, if no zone is eligible or for orders 4 to the largest: it might never
 *    return;
 *  - __GFP_DIRECT_RECLAIM, if zones are eligible but none is on a node of the task's cpuset: the kernel would retry
 *    small orders until the OOM killer finds a victim, or forever;
 *  - __GFP_MOVABLE with __GFP_RECLAIMABLE, unless the order is too large or no zone is eligible: no such migratetype
 *    exists, and the kernel would index the per-CPU lists past their end.
 *
 * With cpusets, a nodemask without nodes of the task does not make zones ineligible: the kernel drops it for the second
 * attempt (check_retry_cpuset()). The module reads whether cpusets are enabled from cpusets_enabled_key, which is not
 * exported: its address is a parameter, and without it the module assumes that they may be enabled. Entries and
 * arguments that the kernel lacks are refused with -EOPNOTSUPP.
 *
 * read() returns the counters as lines "name value". Reading /dev/kalloctrace_values returns the kernel's own values.
 */
#include <linux/bottom_half.h>
#include <linux/cpuset.h>
#include <linux/gfp.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/irqflags.h>
#include <linux/jump_label.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/page_ref.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "stimulus.h"

/* Linux kernel commit 84172f4bb752 ("mm/page_alloc: combine __alloc_pages and __alloc_pages_nodemask") (in v5.13) */
/* Linux kernel commit b951aaff5035 ("mm: enable page allocation tagging") (in v6.10) */
/* Linux kernel commit 49249a2a5eeb ("mm/page_alloc: add __alloc_frozen_pages()") (in v6.14) */
#if STIMULUS_HAS_ALLOC_FLAGS
struct page *__alloc_frozen_pages_noprof(gfp_t gfp, unsigned int order, int preferred_nid, const nodemask_t *nodemask,
					 unsigned int alloc_flags);
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 14, 0)
struct page *__alloc_frozen_pages_noprof(gfp_t gfp, unsigned int order, int preferred_nid, nodemask_t *nodemask);
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#define allocate_pages __alloc_pages_noprof
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
#define allocate_pages __alloc_pages
#else
#define allocate_pages __alloc_pages_nodemask
#endif

/* Linux kernel commit 23baf831a32c ("mm, treewide: redefine MAX_ORDER sanely") (in v6.4) */
/* Linux kernel commit 5e0a760b4441 ("mm, treewide: rename MAX_ORDER to MAX_PAGE_ORDER") (in v6.8) */
#if defined(MAX_PAGE_ORDER)
#define LARGEST_ORDER MAX_PAGE_ORDER
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define LARGEST_ORDER MAX_ORDER
#else
#define LARGEST_ORDER (MAX_ORDER - 1)
#endif

/* Linux kernel commit 1a08ae36cf8b ("mm cma: rename PF_MEMALLOC_NOCMA to PF_MEMALLOC_PIN") (in v5.13) */
#if defined(PF_MEMALLOC_PIN)
#define PF_PIN PF_MEMALLOC_PIN
#else
#define PF_PIN PF_MEMALLOC_NOCMA
#endif

#define BOTH_MOBILITIES (__GFP_MOVABLE | __GFP_RECLAIMABLE)

#define LARGEST_BULK 32

static ulong cpusets_key;
module_param(cpusets_key, ulong, 0400);
MODULE_PARM_DESC(cpusets_key, "address of cpusets_enabled_key");

static atomic64_t requested, bulk, nolock, succeeded, failed, refused, strayed;

/* A request that runs in a tasklet or an interrupt. */
struct job {
	const struct stimulus_request *request;
	nodemask_t *nodemask;
	struct task_struct *task;
	struct irq_work work;
	struct tasklet_struct tasklet;
	bool done;
};

static struct page *allocate_page(const struct stimulus_request *request, nodemask_t *nodemask)
{
	gfp_t gfp = (__force gfp_t)request->gfp;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 14, 0)
	struct page *page;

#if STIMULUS_HAS_ALLOC_FLAGS
	page = __alloc_frozen_pages_noprof(gfp, request->order, request->nid, nodemask, request->alloc_flags);
#else
	page = __alloc_frozen_pages_noprof(gfp, request->order, request->nid, nodemask);
#endif
	/* __free_pages() requires a reference count; __alloc_pages_noprof() sets it in the same way. */
	if (page)
		init_page_count(page);
	return page;
#else
	return allocate_pages(gfp, request->order, request->nid, nodemask);
#endif
}

static bool allocate_normal(const struct stimulus_request *request, nodemask_t *nodemask)
{
	struct page *page = allocate_page(request, nodemask);

	if (page)
		__free_pages(page, request->order);
	return page;
}

static bool allocate_bulk(const struct stimulus_request *request, nodemask_t *nodemask)
{
#if STIMULUS_HAS_BULK
	struct page *pages[LARGEST_BULK] = { NULL };
	gfp_t gfp = (__force gfp_t)request->gfp;
	unsigned long got, left;

/* Since 6.14.0 without a list of pages: mm/page_alloc.c:5151 of Debian's 7.2.13-1 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 14, 0)
	got = alloc_pages_bulk_noprof(gfp, request->nid, nodemask, request->order, pages);
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
	got = alloc_pages_bulk_noprof(gfp, request->nid, nodemask, request->order, NULL, pages);
#else
	got = __alloc_pages_bulk(gfp, request->nid, nodemask, request->order, NULL, pages);
#endif
	for (left = got; left; left--)
		__free_page(pages[left - 1]);
	atomic64_inc(&bulk);
	return got;
#else
	return false;
#endif
}

static bool allocate_nolock(const struct stimulus_request *request)
{
#if STIMULUS_HAS_NOLOCK
	struct page *page = alloc_pages_nolock_noprof((__force gfp_t)request->gfp, request->nid, request->order);

	if (page)
		__free_pages(page, request->order);
	atomic64_inc(&nolock);
	return page;
#else
	return false;
#endif
}

static void allocate(const struct stimulus_request *request, nodemask_t *nodemask)
{
	bool got = false;

	switch (request->entry) {
	case STIMULUS_NORMAL:
		got = allocate_normal(request, nodemask);
		break;
	case STIMULUS_BULK:
		got = allocate_bulk(request, nodemask);
		break;
	case STIMULUS_NOLOCK:
		got = allocate_nolock(request);
		break;
	}
	atomic64_inc(&requested);
	atomic64_inc(got ? &succeeded : &failed);
}

static void run_job(struct job *job)
{
	allocate(job->request, job->nodemask);
	/* The kernel uses the flags of the interrupted task, so it must be the requesting one. */
	if (current != job->task)
		atomic64_inc(&strayed);
	WRITE_ONCE(job->done, true);
}

static void run_tasklet(struct tasklet_struct *tasklet)
{
	run_job(container_of(tasklet, struct job, tasklet));
}

static void run_irq_work(struct irq_work *work)
{
	run_job(container_of(work, struct job, work));
}

static void allocate_in_softirq(struct job *job)
{
	tasklet_setup(&job->tasklet, run_tasklet);
	local_bh_disable();
	tasklet_schedule(&job->tasklet);
	/* This runs the pending tasklet on top of this task. */
	local_bh_enable();
	/* Wait for it, in case ksoftirqd runs it. */
	tasklet_kill(&job->tasklet);
}

static void allocate_in_hardirq(struct job *job)
{
	/* Linux kernel commit 7a9f50a05843 ("irq_work: Cleanup") (in v5.11) */
#ifdef IRQ_WORK_INIT_HARD
	job->work = IRQ_WORK_INIT_HARD(run_irq_work);
#else
	init_irq_work(&job->work, run_irq_work);
	/* With PREEMPT_RT too it runs in hardirq context. */
	atomic_or(IRQ_WORK_HARD_IRQ, &job->work.flags);
#endif
	/* The interrupt arrives on this CPU and must interrupt this task. */
	preempt_disable();
	irq_work_queue(&job->work);
	while (!READ_ONCE(job->done))
		cpu_relax();
	preempt_enable();
	irq_work_sync(&job->work);
}

static void allocate_in_context(const struct stimulus_request *request, nodemask_t *nodemask)
{
	struct job job = { .request = request, .nodemask = nodemask, .task = current };

	switch (request->context) {
	case STIMULUS_TASK:
		allocate(request, nodemask);
		break;
	case STIMULUS_BH_DISABLED:
		local_bh_disable();
		allocate(request, nodemask);
		local_bh_enable();
		break;
	case STIMULUS_SOFTIRQ:
		allocate_in_softirq(&job);
		break;
	case STIMULUS_HARDIRQ:
		allocate_in_hardirq(&job);
		break;
	case STIMULUS_NO_PREEMPT:
		preempt_disable();
		allocate(request, nodemask);
		preempt_enable();
		break;
	case STIMULUS_NO_IRQS:
		local_irq_disable();
		allocate(request, nodemask);
		local_irq_enable();
		break;
	}
}

static unsigned int task_flags(u32 scopes)
{
	/* Set directly: without CONFIG_CMA memalloc_nocma_save() does nothing, but a tracer must see the flag. */
	return (scopes & STIMULUS_NOFS ? PF_MEMALLOC_NOFS : 0) | (scopes & STIMULUS_NOIO ? PF_MEMALLOC_NOIO : 0) |
	       (scopes & STIMULUS_PIN ? PF_PIN : 0) | (scopes & STIMULUS_NORECLAIM ? PF_MEMALLOC : 0);
}

enum eligible { NO_ZONE = 0, ZONE_OUTSIDE_CPUSET = 1, ZONE = 2 };

static enum eligible eligible_with(gfp_t gfp, int nid, const nodemask_t *nodemask)
{
	enum zone_type highest = gfp_zone(gfp);
	enum eligible found = NO_ZONE;
	struct zoneref *zone;

	for (zone = node_zonelist(nid, gfp)->_zonerefs; zone->zone; zone++) {
		if (zonelist_zone_idx(zone) > highest ||
		    (nodemask && !node_isset(zonelist_node_idx(zone), *nodemask)))
			continue;
		if (node_isset(zonelist_node_idx(zone), cpuset_current_mems_allowed))
			return ZONE;
		found = ZONE_OUTSIDE_CPUSET;
	}
	return found;
}

/* Eligible zones of the request, or'ed with those of the unmovable request that STIMULUS_PIN turns it into. */
static enum eligible eligible_in_scopes(const struct stimulus_request *request, const nodemask_t *nodemask)
{
	gfp_t gfp = (__force gfp_t)request->gfp;
	enum eligible eligible = eligible_with(gfp, request->nid, nodemask);

	if (request->scopes & STIMULUS_PIN)
		eligible |= eligible_with(gfp & ~__GFP_MOVABLE, request->nid, nodemask);
	return eligible;
}

static bool meaningful(const struct stimulus_request *request)
{
	if (request->context >= STIMULUS_CONTEXTS || request->scopes & ~STIMULUS_SCOPES || request->has_nodemask > 1 ||
	    !request->count)
		return false;
	if (request->alloc_flags && request->entry != STIMULUS_NORMAL)
		return false;
	if (request->nid == NUMA_NO_NODE)
		return request->entry == STIMULUS_NOLOCK;
	return request->nid >= 0 && request->nid < MAX_NUMNODES && node_online(request->nid);
}

bool stimulus_cpusets(void)
{
	const struct static_key *key = (const struct static_key *)cpusets_key;

	return !key || atomic_read(&key->enabled);
}

/* Returns whether the kernel survives the request and returns from it. */
static bool survivable(const struct stimulus_request *request, const nodemask_t *nodemask)
{
	unsigned int order = request->entry == STIMULUS_BULK ? 0 : request->order;
	gfp_t gfp = (__force gfp_t)request->gfp;
	enum eligible first, again;
	const nodemask_t *kept;

	if (request->context != STIMULUS_TASK && gfp & __GFP_DIRECT_RECLAIM)
		return false;
	/* The allocator checks the order first and returns. */
	if (order > LARGEST_ORDER)
		return true;

	kept = nodemask;
	if (kept && stimulus_cpusets() && !nodes_intersects(*kept, cpuset_current_mems_allowed))
		kept = NULL;
	first = eligible_in_scopes(request, nodemask);
	again = eligible_in_scopes(request, kept);
	if ((gfp & BOTH_MOBILITIES) == BOTH_MOBILITIES && (first | again) != NO_ZONE)
		return false;
	if (!(gfp & __GFP_DIRECT_RECLAIM))
		return true;
	if ((first | again) & ZONE_OUTSIDE_CPUSET)
		return false;
	if (gfp & __GFP_NOFAIL)
		return first == ZONE && order <= PAGE_ALLOC_COSTLY_ORDER;
	return true;
}

/* Returns the error for a refused request, or 0. */
static int objection(const struct stimulus_request *request, const nodemask_t *nodemask)
{
	if (!meaningful(request))
		return -EINVAL;
	if (request->alloc_flags && !STIMULUS_HAS_ALLOC_FLAGS)
		return -EOPNOTSUPP;
	switch (request->entry) {
	case STIMULUS_NORMAL:
		return survivable(request, nodemask) ? 0 : -EINVAL;
	case STIMULUS_BULK:
		if (!STIMULUS_HAS_BULK)
			return -EOPNOTSUPP;
		if (!request->order || request->order > LARGEST_BULK)
			return -EINVAL;
		return survivable(request, nodemask) ? 0 : -EINVAL;
	case STIMULUS_NOLOCK:
		if (!STIMULUS_HAS_NOLOCK)
			return -EOPNOTSUPP;
		return nodemask || request->gfp & ~(__force u32)__GFP_ACCOUNT ? -EINVAL : 0;
	}
	return -EINVAL;
}

static int serve(const struct stimulus_request *request)
{
	unsigned int scope = task_flags(request->scopes);
	nodemask_t nodes = NODE_MASK_NONE;
	nodemask_t *nodemask = NULL;
	int error;
	u32 left;

	if (request->has_nodemask) {
		nodes_addr(nodes)[0] = request->nodemask;
		nodemask = &nodes;
	}
	error = objection(request, nodemask);
	if (error) {
		atomic64_inc(&refused);
		return error;
	}
	for (left = request->count; left; left--) {
		unsigned int before = current->flags;

		current->flags |= scope;
		allocate_in_context(request, nodemask);
		current->flags = (current->flags & ~scope) | (before & scope);
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

static ssize_t stimulus_write(struct file *file, const char __user *buffer, size_t size, loff_t *position)
{
	struct stimulus_request request;
	size_t done;
	int error;

	BUILD_BUG_ON(sizeof(request) != 40);
	BUILD_BUG_ON(BITS_PER_LONG != 64);
	if (!size || size % sizeof(request))
		return -EINVAL;
	/* Copy one request at a time to the stack, so that the module itself allocates nothing. */
	for (done = 0; done < size; done += sizeof(request)) {
		error = copy_from_user(&request, buffer + done, sizeof(request)) ? -EFAULT : serve(&request);
		if (error)
			return done ? done : error;
	}
	return done;
}

static ssize_t stimulus_read(struct file *file, char __user *buffer, size_t size, loff_t *position)
{
	char text[256];
	int length = scnprintf(text, sizeof(text),
			       "requested %lld\nbulk %lld\nnolock %lld\nsucceeded %lld\nfailed %lld\nrefused %lld\n"
			       "strayed %lld\n",
			       (long long)atomic64_read(&requested), (long long)atomic64_read(&bulk),
			       (long long)atomic64_read(&nolock), (long long)atomic64_read(&succeeded),
			       (long long)atomic64_read(&failed), (long long)atomic64_read(&refused),
			       (long long)atomic64_read(&strayed));

	return simple_read_from_buffer(buffer, size, position, text, length);
}

static const struct file_operations stimulus_operations = {
	.owner = THIS_MODULE,
	.read = stimulus_read,
	.write = stimulus_write,
};

static struct miscdevice stimulus_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kalloctrace_stimulus",
	.fops = &stimulus_operations,
	.mode = 0600,
};

static int values_open(struct inode *inode, struct file *file)
{
	/* misc_open() stores the device here; single_open() requires NULL. */
	file->private_data = NULL;
	return single_open(file, stimulus_show_values, NULL);
}

static const struct file_operations values_operations = {
	.owner = THIS_MODULE,
	.open = values_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = single_release,
};

static struct miscdevice values_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kalloctrace_values",
	.fops = &values_operations,
	.mode = 0400,
};

static int __init stimulus_init(void)
{
	int error = misc_register(&values_device);

	if (error)
		return error;
	error = misc_register(&stimulus_device);
	if (error)
		misc_deregister(&values_device);
	return error;
}

static void __exit stimulus_exit(void)
{
	misc_deregister(&stimulus_device);
	misc_deregister(&values_device);
}

module_init(stimulus_init);
module_exit(stimulus_exit);

MODULE_DESCRIPTION("Makes requested page allocations");
MODULE_LICENSE("GPL");
