// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's own constants from its compiler and macros, and the machine's memory from the kernel's functions;
 * values.py compares them with kalloctrace's values.
 *
 * ALLOC_* bits and struct alloc_context are missing, because they are in headers of mm/, which no headers package has;
 * so is gfp_migratetype(), because it reads a variable that is not exported.
 */
#include <linux/gfp.h>
#include <linux/kconfig.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/stddef.h>
#include <linux/topology.h>
#include <linux/version.h>

#include "stimulus.h"

struct value {
	const char *name;
	u64 value;
};

#define VALUE(value) { #value, (__force u64)(value) }
#define ENABLED(option) { #option, IS_ENABLED(option) }
#define SIZE(struct_name) { "sizeof " #struct_name, sizeof(struct struct_name) }
#define OFFSET(struct_name, member) { "offsetof " #struct_name "." #member, offsetof(struct struct_name, member) }

static const struct value values[] = {
	{ "bulk", STIMULUS_HAS_BULK },
	{ "nolock", STIMULUS_HAS_NOLOCK },

	VALUE(__GFP_DMA),
	VALUE(__GFP_HIGHMEM),
	VALUE(__GFP_DMA32),
	VALUE(__GFP_MOVABLE),
	VALUE(__GFP_RECLAIMABLE),
	VALUE(__GFP_HIGH),
	VALUE(__GFP_IO),
	VALUE(__GFP_FS),
	VALUE(__GFP_ZERO),
#ifdef __GFP_ATOMIC
	VALUE(__GFP_ATOMIC),
#endif
	VALUE(__GFP_DIRECT_RECLAIM),
	VALUE(__GFP_KSWAPD_RECLAIM),
	VALUE(__GFP_RECLAIM),
	VALUE(__GFP_WRITE),
	VALUE(__GFP_NOWARN),
	VALUE(__GFP_RETRY_MAYFAIL),
	VALUE(__GFP_NOFAIL),
	VALUE(__GFP_NORETRY),
	VALUE(__GFP_MEMALLOC),
	VALUE(__GFP_COMP),
	VALUE(__GFP_NOMEMALLOC),
	VALUE(__GFP_HARDWALL),
	VALUE(__GFP_THISNODE),
	VALUE(__GFP_ACCOUNT),
#ifdef __GFP_ZEROTAGS
	VALUE(__GFP_ZEROTAGS),
#endif
#ifdef __GFP_SKIP_ZERO
	VALUE(__GFP_SKIP_ZERO),
#endif
#ifdef __GFP_SKIP_KASAN_POISON
	VALUE(__GFP_SKIP_KASAN_POISON),
#endif
#ifdef __GFP_SKIP_KASAN_UNPOISON
	VALUE(__GFP_SKIP_KASAN_UNPOISON),
#endif
#ifdef __GFP_SKIP_KASAN
	VALUE(__GFP_SKIP_KASAN),
#endif
	VALUE(__GFP_NOLOCKDEP),
#ifdef __GFP_NO_OBJ_EXT
	VALUE(__GFP_NO_OBJ_EXT),
#endif
	VALUE(__GFP_BITS_SHIFT),
	VALUE(__GFP_BITS_MASK),

	VALUE(GFP_ATOMIC),
	VALUE(GFP_KERNEL),
	VALUE(GFP_KERNEL_ACCOUNT),
	VALUE(GFP_NOWAIT),
	VALUE(GFP_NOIO),
	VALUE(GFP_NOFS),
	VALUE(GFP_USER),
	VALUE(GFP_DMA),
	VALUE(GFP_DMA32),
	VALUE(GFP_HIGHUSER),
	VALUE(GFP_HIGHUSER_MOVABLE),
	VALUE(GFP_TRANSHUGE_LIGHT),
	VALUE(GFP_TRANSHUGE),
	VALUE(GFP_ZONEMASK),

	VALUE(PF_MEMALLOC),
	VALUE(PF_MEMALLOC_NOFS),
	VALUE(PF_MEMALLOC_NOIO),
#ifdef PF_MEMALLOC_PIN
	VALUE(PF_MEMALLOC_PIN),
#endif
#ifdef PF_MEMALLOC_NOCMA
	VALUE(PF_MEMALLOC_NOCMA),
#endif
#ifdef PF_MEMALLOC_NORECLAIM
	VALUE(PF_MEMALLOC_NORECLAIM),
#endif
#ifdef PF_MEMALLOC_NOWARN
	VALUE(PF_MEMALLOC_NOWARN),
#endif

	VALUE(MIGRATE_UNMOVABLE),
	VALUE(MIGRATE_MOVABLE),
	VALUE(MIGRATE_RECLAIMABLE),
	VALUE(MIGRATE_PCPTYPES),
	VALUE(MIGRATE_HIGHATOMIC),
#ifdef CONFIG_CMA
	VALUE(MIGRATE_CMA),
#endif
#ifdef CONFIG_MEMORY_ISOLATION
	VALUE(MIGRATE_ISOLATE),
#endif
	VALUE(MIGRATE_TYPES),

#ifdef CONFIG_ZONE_DMA
	VALUE(ZONE_DMA),
#endif
#ifdef CONFIG_ZONE_DMA32
	VALUE(ZONE_DMA32),
#endif
	VALUE(ZONE_NORMAL),
#ifdef CONFIG_HIGHMEM
	VALUE(ZONE_HIGHMEM),
#endif
	VALUE(ZONE_MOVABLE),
#ifdef CONFIG_ZONE_DEVICE
	VALUE(ZONE_DEVICE),
#endif
	VALUE(__MAX_NR_ZONES),
	VALUE(MAX_NR_ZONES),
	VALUE(WMARK_MIN),
	VALUE(WMARK_LOW),
	VALUE(WMARK_HIGH),
/* Linux kernel commit c574bbe91703 ("NUMA balancing: optimize page placement for memory tiering system") (in v5.18) */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	VALUE(WMARK_PROMO),
#endif
	VALUE(NR_WMARK),

	VALUE(MAX_NUMNODES),
	VALUE(NODES_SHIFT),
	VALUE(NODES_PGSHIFT),
	VALUE(ZONES_PGSHIFT),
	VALUE(ZONES_MASK),
	VALUE(PAGE_ALLOC_COSTLY_ORDER),
	{ "HPAGE_PMD_ORDER", PMD_SHIFT - PAGE_SHIFT },
/* Linux kernel commit 23baf831a32c ("mm, treewide: redefine MAX_ORDER sanely") (in v6.4) */
/* Linux kernel commit 5e0a760b4441 ("mm, treewide: rename MAX_ORDER to MAX_PAGE_ORDER") (in v6.8) */
#if defined(MAX_PAGE_ORDER)
	VALUE(MAX_PAGE_ORDER),
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	{ "MAX_PAGE_ORDER", MAX_ORDER },
#else
	{ "MAX_PAGE_ORDER", MAX_ORDER - 1 },
#endif

	VALUE(PREEMPT_MASK),
	VALUE(SOFTIRQ_MASK),
	VALUE(HARDIRQ_MASK),
	VALUE(NMI_MASK),
	VALUE(SOFTIRQ_OFFSET),
	VALUE(SOFTIRQ_DISABLE_OFFSET),
	VALUE(HARDIRQ_OFFSET),
	VALUE(NMI_OFFSET),

	{ "sizeof nodemask_t", sizeof(nodemask_t) },
	SIZE(zone),
	SIZE(zoneref),
	SIZE(zonelist),
	SIZE(pglist_data),
	SIZE(task_struct),
	OFFSET(task_struct, flags),
	OFFSET(task_struct, mems_allowed),
#ifdef CONFIG_PREEMPT_RT
	OFFSET(task_struct, softirq_disable_cnt),
#endif
	OFFSET(zone, zone_pgdat),
	OFFSET(zone, present_pages),
	OFFSET(zoneref, zone),
	OFFSET(zoneref, zone_idx),
	OFFSET(pglist_data, node_zones),
	OFFSET(pglist_data, node_zonelists),
	OFFSET(pglist_data, node_id),

	ENABLED(CONFIG_CMA),
	ENABLED(CONFIG_CPUSETS),
	ENABLED(CONFIG_DEBUG_VM),
	ENABLED(CONFIG_FAIL_PAGE_ALLOC),
	ENABLED(CONFIG_HIGHMEM),
	ENABLED(CONFIG_KASAN_HW_TAGS),
	ENABLED(CONFIG_LOCKDEP),
	ENABLED(CONFIG_NUMA),
	ENABLED(CONFIG_PREEMPT_RT),
	ENABLED(CONFIG_TRANSPARENT_HUGEPAGE),
	ENABLED(CONFIG_ZONE_DEVICE),
	ENABLED(CONFIG_ZONE_DMA),
	ENABLED(CONFIG_ZONE_DMA32),
};

static void show_functions(struct seq_file *file)
{
	unsigned int bits;

	for (bits = 0; bits < 16; bits++)
		seq_printf(file, "gfp_zone(%u) %d\n", bits, gfp_zone((__force gfp_t)bits));
}

static void show_node(struct seq_file *file, int nid)
{
	struct zoneref *zone;
	int other, kind, index;

	for (index = 0; index < MAX_NR_ZONES; index++)
		seq_printf(file, "present_pages[%d][%d] %lu\n", nid, index,
			   NODE_DATA(nid)->node_zones[index].present_pages);
	for_each_online_node(other)
		seq_printf(file, "node_distance[%d][%d] %d\n", nid, other, node_distance(nid, other));
	for (kind = 0; kind < MAX_ZONELISTS; kind++) {
		index = 0;
		for (zone = NODE_DATA(nid)->node_zonelists[kind]._zonerefs; zone->zone; zone++, index++)
			seq_printf(file, "zonelist[%d][%d][%d] %d\n", nid, kind, index,
				   zonelist_node_idx(zone) * MAX_NR_ZONES + zonelist_zone_idx(zone));
		seq_printf(file, "zonelist[%d][%d].length %d\n", nid, kind, index);
	}
}

int stimulus_show_values(struct seq_file *file, void *unused)
{
	size_t number;
	int nid;

	for (number = 0; number < ARRAY_SIZE(values); number++)
		seq_printf(file, "%s %llu\n", values[number].name, values[number].value);
	seq_printf(file, "cpusets %d\n", stimulus_cpusets());
	show_functions(file);
	seq_printf(file, "num_online_nodes() %d\n", num_online_nodes());
	for_each_online_node(nid)
		show_node(file, nid);
	return 0;
}
