// SPDX-License-Identifier: MIT
// usage: forks FORKS SECONDS FILE
//
// The work of a long recording: child processes, one after another, each with a name of its own (t0, t1, …) and one
// order-0 allocation. It ends after FORKS of them, or after SECONDS. FILE always holds about the number so far.
#define _GNU_SOURCE // vfork
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void tell(int file, long forks)
{
	char text[32];
	int length = snprintf(text, sizeof(text), "%ld\n", forks);

	if (pwrite(file, text, length, 0) != length)
		perror("pwrite");
}

int main(int argc, char **argv)
{
	const long most = argc > 3 ? atol(argv[1]) : 0;
	const time_t end = time(NULL) + (argc > 3 ? atol(argv[2]) : 0);
	int file = argc > 3 ? open(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0644) : -1;
	// The child shares this page: its page table stays, so that touching it again takes one allocation.
	volatile char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long forks;

	if (file < 0 || page == MAP_FAILED)
		return 1;
	for (forks = 0; forks < most && time(NULL) < end; forks++) {
		char name[24];
		pid_t child;

		snprintf(name, sizeof(name), "t%ld", forks);
		prctl(PR_SET_NAME, name);
		child = vfork();
		if (child == 0) {
			*page = 1;
			madvise((void *)page, 4096, MADV_DONTNEED);
			_exit(0);
		}
		if (child < 0 || waitpid(child, NULL, 0) != child)
			return 1;
		if (forks % 100 == 99)
			tell(file, forks + 1);
	}
	tell(file, forks);
	// The last samples of the recorder's memory are taken now.
	sleep(3);
	return 0;
}
