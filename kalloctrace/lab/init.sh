# SPDX-License-Identifier: MIT
# The first process of a guest in memory. The kernel starts it as root, with its output on the console.
set -u
own=/kalloctrace-lab
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

. $own/common.sh

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
for number in 0 1 2; do
    set -- stdin stdout stderr
    shift $number
    ln -sf /proc/self/fd/$number "/dev/$1"
done
ln -sf /proc/self/fd /dev/fd
chmod 1777 /tmp
# Skip this if the interpreter is below /tmp.
[ -n "$(ls -A /tmp)" ] || mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /run/kalloctrace/home
prepare_guest

PYTHONPATH=$own "$(cat $own/python)" -S -B -m kalloctrace.lab.agent || log "the guest's agent failed"
# With -no-reboot QEMU exits here.
reboot -f
