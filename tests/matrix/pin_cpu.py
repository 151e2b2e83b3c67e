# SPDX-License-Identifier: MIT
"""Runs a command on one CPU, and with `--fifo` at real-time priority: `python pin_cpu.py CPU [--fifo] COMMAND...`.

A preemptible kernel skips a probe while a preempted task runs it on the same CPU. In the matrix the process that makes
the requests is therefore not preempted, and does not share its CPU with the recorder.
"""

import os
import sys

cpu, *command = sys.argv[1:]
os.sched_setaffinity(0, {int(cpu)})
if command[0] == "--fifo":
    del command[0]
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
os.execvp(command[0], command)
