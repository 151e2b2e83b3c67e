// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Sends the path of each control group that is made while the recording runs: user space knows a group by its id alone, and
 * may not find a group that exists only briefly.
 *
 * Defined in addition to the constants of common.bpf.c: CGROUP_PATHS_PAGES, and the offsets that cgroup_of() uses.
 */

BPF_RINGBUF_OUTPUT(cgroup_paths, CGROUP_PATHS_PAGES);

AT_TRACEPOINT(cgroup_mkdir)
{
	struct cgroup_path *p = cgroup_paths.ringbuf_reserve(sizeof(*p));
	u64 kn = 0;

	if (!p)
		return 0;
	READ(kn, ctx->args[0] + CGROUP__KN);
	READ(p->id, kn + KERNFS_NODE__ID);
	bpf_probe_read_kernel_str(p->path, sizeof(p->path), (const void *)ctx->args[1]);
	cgroup_paths.ringbuf_submit(p, BPF_RB_NO_WAKEUP);
	return 0;
}
