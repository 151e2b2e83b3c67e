# SPDX-License-Identifier: MIT
# Sourced by busybox's shell in every guest: mounts the file systems that a recording requires.

log() {
    echo "kalloctrace lab: $*" >&2
}

mounted() {
    grep -q " $1 " /proc/mounts
}

prepare_guest() {
    mounted /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
    mounted /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
    mounted /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
    mounted /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mounted /dev/shm || { mkdir -p /dev/shm && mount -t tmpfs -o mode=1777 tmpfs /dev/shm; }
    ip link set lo up
    ulimit -l unlimited
    # The boot is over. Unless --append chose another level, the console shows only warnings from now on.
    read -r level _ </proc/sys/kernel/printk
    [ "$level" != 7 ] || echo 5 >/proc/sys/kernel/printk
}
