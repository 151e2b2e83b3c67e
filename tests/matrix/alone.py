# SPDX-License-Identifier: MIT
"""Runs a command on one CPU, and with `--first` before anything else there: `python alone.py CPU [--first] COMMAND...`.

Where a kernel is preemptible it skips a probe that a preempted task holds on the same CPU. So in the matrix what
makes the requests is neither preempted nor shares its CPU with what records them.
"""

import os
import sys

cpu, *command = sys.argv[1:]
os.sched_setaffinity(0, {int(cpu)})
if command[0] == "--first":
    del command[0]
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
os.execvp(command[0], command)
