// SPDX-License-Identifier: MIT
// usage: touch PROCESSES PAGES WARM ROUNDS FILE
//
// The work of the benchmark: each round touches PAGES pages of anonymous memory and frees them, with one order-0
// allocation per page. FILE gets the nanoseconds of each round after the first WARM of each process, one per line, and in
// the last line the total CPU time in microseconds.
//
// The cost of a round varies by up to a hundred instructions per page with the physical and virtual addresses. So the
// virtual address is fixed, the kernel compacts its memory first, and several processes run one after another, each with
// its own pages.
#define _GNU_SOURCE // MAP_FIXED_NOREPLACE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const size_t page = 4096;

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long micro(struct timeval time)
{
	return time.tv_sec * 1000000LL + time.tv_usec;
}

// This requires root, and a kernel with compaction.
static void compact(void)
{
	int file = open("/proc/sys/vm/compact_memory", O_WRONLY);

	if (file >= 0) {
		if (write(file, "1", 1) != 1)
			perror("compact_memory");
		close(file);
	}
}

static int touch(size_t pages, size_t warm, size_t rounds, long long *times)
{
	// A fixed address keeps the page tables, so that they need no allocation.
	char *memory = mmap((void *)0x100000000000, pages * page, PROT_READ | PROT_WRITE,
			    MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return 1;
	// This fails on a kernel without huge pages.
	madvise(memory, pages * page, MADV_NOHUGEPAGE);
	for (size_t round = 0; round < warm + rounds; round++) {
		long long start = now();

		for (size_t i = 0; i < pages; i++)
			*(volatile char *)(memory + i * page) = 1;
		if (madvise(memory, pages * page, MADV_DONTNEED))
			return 1;
		if (round >= warm)
			times[round - warm] = now() - start;
	}
	return 0;
}

int main(int argc, char **argv)
{
	size_t processes = argc > 5 ? strtoul(argv[1], NULL, 10) : 0;
	size_t pages = argc > 5 ? strtoul(argv[2], NULL, 10) : 0;
	size_t warm = argc > 5 ? strtoul(argv[3], NULL, 10) : 0;
	size_t rounds = argc > 5 ? strtoul(argv[4], NULL, 10) : 0;
	long long *times;
	struct rusage usage;
	FILE *file;

	if (!processes || !pages || !rounds)
		return 2;
	times = mmap(NULL, processes * rounds * sizeof(*times), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (times == MAP_FAILED)
		return 1;
	for (size_t i = 0; i < processes; i++) {
		int status;
		pid_t pid;

		compact();
		pid = fork();
		if (!pid)
			_exit(touch(pages, warm, rounds, times + i * rounds));
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			return 1;
	}
	getrusage(RUSAGE_CHILDREN, &usage);
	file = fopen(argv[5], "w");
	if (!file)
		return 1;
	for (size_t i = 0; i < processes * rounds; i++)
		fprintf(file, "%lld\n", times[i]);
	fprintf(file, "%lld\n", micro(usage.ru_utime) + micro(usage.ru_stime));
	return fclose(file) ? 1 : 0;
}
