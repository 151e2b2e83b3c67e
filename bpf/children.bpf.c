// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Follows the process CHILDREN and its descendants: marks each process that one of them makes, until it is freed.
 *
 * Defined in addition to the constants of common.bpf.c: the offsets TASK_STRUCT__PID and TASK_STRUCT__TGID.
 */

/* Before the child runs. A new thread marks its own process again. */
AT_TRACEPOINT(sched_process_fork)
{
	u32 tgid = 0;
	u8 *mark;

	if (!is_followed(bpf_get_current_pid_tgid() >> 32))
		return 0;
	READ(tgid, ctx->args[1] + TASK_STRUCT__TGID);
	mark = mark_of(tgid);
	if (mark)
		*mark = 1;
	return 0;
}

/* A process is freed when its first task is, after all others. */
AT_TRACEPOINT(sched_process_free)
{
	u32 pid = 0, tgid = 0;
	u8 *mark;

	READ(pid, ctx->args[0] + TASK_STRUCT__PID);
	READ(tgid, ctx->args[0] + TASK_STRUCT__TGID);
	mark = mark_of(tgid);
	if (mark && pid == tgid)
		*mark = 0;
	return 0;
}
