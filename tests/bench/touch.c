// SPDX-License-Identifier: MIT
// usage: touch PAGES ROUNDS FILE
//
// The benchmark's work: each round touches PAGES pages of anonymous memory and gives them back, one order-0 allocation a
// page. FILE gets the nanoseconds of each round, one a line, and at last the microseconds of CPU time of all of it.
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

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

int main(int argc, char **argv)
{
	const size_t page = 4096;
	size_t pages = argc > 3 ? strtoul(argv[1], NULL, 10) : 0;
	size_t rounds = argc > 3 ? strtoul(argv[2], NULL, 10) : 0;
	long long *times = calloc(rounds, sizeof(*times));
	struct rusage usage;
	FILE *file;

	// The same addresses each time: their page tables stay, and allocate nothing.
	char *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!pages || !rounds || !times || memory == MAP_FAILED)
		return 2;
	// Refused where the kernel has no huge pages.
	madvise(memory, pages * page, MADV_NOHUGEPAGE);
	for (size_t round = 0; round < rounds; round++) {
		long long start = now();

		for (size_t i = 0; i < pages; i++)
			*(volatile char *)(memory + i * page) = 1;
		if (madvise(memory, pages * page, MADV_DONTNEED))
			return 1;
		times[round] = now() - start;
	}
	getrusage(RUSAGE_SELF, &usage);
	file = fopen(argv[3], "w");
	if (!file)
		return 1;
	for (size_t round = 0; round < rounds; round++)
		fprintf(file, "%lld\n", times[round]);
	fprintf(file, "%lld\n", micro(usage.ru_utime) + micro(usage.ru_stime));
	return fclose(file) ? 1 : 0;
}
