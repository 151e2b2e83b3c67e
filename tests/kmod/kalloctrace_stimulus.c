// SPDX-License-Identifier: GPL-2.0
/*
 * Makes exactly the page allocations it is asked for, from real contexts, and frees what it gets.
 *
 * write() takes an array of struct stimulus_request and returns when all of them are done. One that is refused ends
 * it: with -EINVAL if it is the first, otherwise with the number of bytes done. Nothing of a request is ever changed
 * to make it harmless; these are refused:
 *
 *  - fields that are no context, scope, count or online node;
 *  - __GFP_DIRECT_RECLAIM from anywhere but STIMULUS_TASK: such a request may sleep;
 *  - __GFP_NOFAIL with __GFP_DIRECT_RECLAIM, if no zone is eligible or for orders 4 to the largest: it might never
 *    return;
 *  - __GFP_DIRECT_RECLAIM, if zones are eligible but the task's cpuset has none of their nodes: small orders would be
 *    tried until the OOM killer has found a victim, or for ever;
 *  - __GFP_MOVABLE with __GFP_RECLAIMABLE, unless the order is too large or no zone is eligible: there is no such
 *    migratetype, and the per-CPU lists would be indexed past their end. A nodemask without any node that the task
 *    may use does not count, as with cpusets the kernel's second attempt is without it (check_retry_cpuset()).
 *
 * read() returns the counters as lines of "name value".
 */
#include <linux/bottom_half.h>
#include <linux/cpuset.h>
#include <linux/gfp.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/irqflags.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "stimulus.h"

/* Linux kernel commit 84172f4bb752 ("mm/page_alloc: combine __alloc_pages and __alloc_pages_nodemask") (in v5.13) */
/* Linux kernel commit b951aaff5035 ("mm: enable page allocation tagging") (in v6.10) */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#define entry __alloc_pages_noprof
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
#define entry __alloc_pages
#else
#define entry __alloc_pages_nodemask
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

static atomic64_t requested, succeeded, failed, refused, strayed;

/* One request on its way through a tasklet or an interrupt. */
struct job {
	const struct stimulus_request *request;
	nodemask_t *nodemask;
	struct task_struct *task;
	struct irq_work work;
	struct tasklet_struct tasklet;
	bool done;
};

static void allocate(const struct stimulus_request *request, nodemask_t *nodemask)
{
	struct page *page = entry((__force gfp_t)request->gfp, request->order, request->nid, nodemask);

	atomic64_inc(&requested);
	if (page) {
		__free_pages(page, request->order);
		atomic64_inc(&succeeded);
	} else {
		atomic64_inc(&failed);
	}
}

static void run_job(struct job *job)
{
	allocate(job->request, job->nodemask);
	/* The kernel goes by the flags of whichever task it interrupted: another one's would not be those asked for. */
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
	/* Runs what became pending meanwhile, on top of this task. */
	local_bh_enable();
	/* Waits, should it have been left to ksoftirqd. */
	tasklet_kill(&job->tasklet);
}

static void allocate_in_hardirq(struct job *job)
{
	/* Linux kernel commit 7a9f50a05843 ("irq_work: Cleanup") (in v5.11) */
#ifdef IRQ_WORK_INIT_HARD
	job->work = IRQ_WORK_INIT_HARD(run_irq_work);
#else
	init_irq_work(&job->work, run_irq_work);
	/* So that it is an interrupt with PREEMPT_RT too. */
	atomic_or(IRQ_WORK_HARD_IRQ, &job->work.flags);
#endif
	/* The interrupt is this CPU's own and must find this very task. */
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
	/* By hand, as memalloc_nocma_save() does nothing without CONFIG_CMA, and a tracer is to see the flag anyway. */
	return (scopes & STIMULUS_NOFS ? PF_MEMALLOC_NOFS : 0) | (scopes & STIMULUS_NOIO ? PF_MEMALLOC_NOIO : 0) |
	       (scopes & STIMULUS_PIN ? PF_PIN : 0) | (scopes & STIMULUS_NORECLAIM ? PF_MEMALLOC : 0);
}

enum eligible { NO_ZONE, ZONE_OUTSIDE_CPUSET, ZONE };

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

/* Whether a request is one that the kernel survives, and returns from. */
static bool acceptable(const struct stimulus_request *request, const nodemask_t *nodemask)
{
	gfp_t gfp = (__force gfp_t)request->gfp;
	gfp_t unmovable = gfp;
	enum eligible eligible, pinned;

	if (request->context >= STIMULUS_CONTEXTS || request->scopes & ~STIMULUS_SCOPES || request->has_nodemask > 1 ||
	    !request->count || request->unused)
		return false;
	if (request->nid < 0 || request->nid >= MAX_NUMNODES || !node_online(request->nid))
		return false;
	if (request->context != STIMULUS_TASK && gfp & __GFP_DIRECT_RECLAIM)
		return false;
	/* The allocator returns before it looks at anything else. */
	if (request->order > LARGEST_ORDER)
		return true;

	/* The scope makes an unmovable request of it, which other zones may be eligible for. */
	if (request->scopes & STIMULUS_PIN)
		unmovable = gfp & ~__GFP_MOVABLE;
	if ((gfp & BOTH_MOBILITIES) == BOTH_MOBILITIES) {
		bool kept = nodemask && nodes_intersects(*nodemask, cpuset_current_mems_allowed);
		const nodemask_t *sure = kept ? nodemask : NULL;

		if (eligible_with(gfp, request->nid, sure) != NO_ZONE ||
		    eligible_with(unmovable, request->nid, sure) != NO_ZONE)
			return false;
	}
	if (!(gfp & __GFP_DIRECT_RECLAIM))
		return true;
	eligible = eligible_with(gfp, request->nid, nodemask);
	pinned = eligible_with(unmovable, request->nid, nodemask);
	if (eligible == ZONE_OUTSIDE_CPUSET || pinned == ZONE_OUTSIDE_CPUSET)
		return false;
	if (gfp & __GFP_NOFAIL)
		return eligible == ZONE && pinned == ZONE && request->order <= PAGE_ALLOC_COSTLY_ORDER;
	return true;
}

static int serve(const struct stimulus_request *request)
{
	unsigned int scope = task_flags(request->scopes);
	nodemask_t nodes = NODE_MASK_NONE;
	nodemask_t *nodemask = NULL;
	u32 left;

	if (request->has_nodemask) {
		nodes_addr(nodes)[0] = request->nodemask;
		nodemask = &nodes;
	}
	if (!acceptable(request, nodemask)) {
		atomic64_inc(&refused);
		return -EINVAL;
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
	/* One at a time from the stack, so that no allocations are made but those asked for. */
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
			       "requested %lld\nsucceeded %lld\nfailed %lld\nrefused %lld\nstrayed %lld\n",
			       (long long)atomic64_read(&requested), (long long)atomic64_read(&succeeded),
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

module_misc_device(stimulus_device);

MODULE_DESCRIPTION("Makes the page allocations it is asked for");
MODULE_LICENSE("GPL");
