# SPDX-License-Identifier: MIT
# Runs in the guest, as root, started by virtme's init: gives the command its file systems, runs it, and leaves its
# output and exit code in the job's directory. Its own messages go to the console.
#
# usage: busybox sh guest.sh JOB
#   JOB/shares   lines of "TAG PATH": host directories to mount read-write, the job's own first
#   JOB/cached   lines of "PATH": directories below those that stay read-only and cached
#   JOB/command  the command, as a script
set -u
job=$1
own=/run/kalloctrace
root=$own/root
nine=trans=virtio,version=9p2000.L,access=any,msize=512000

. "${0%/*}/common.sh"

mkdir -p "$root" $own/home $own/modules $own/lib/upper $own/lib/work

# virtme mounts the host's files without any cache, and each import of Python's costs a thousand round trips. So they
# are mounted once more with one, over themselves. What virtme changed (/etc, /var) is left as it is.
if mount -t 9p -o "ro,cache=loose,$nine" kalloctrace.root "$root"; then
    [ -d /lib/modules ] && mount --bind /lib/modules $own/modules
    for directory in "$root"/*; do
        path=${directory#"$root"}
        case $path in
            /boot | /dev | /etc | /lost+found | /proc | /run | /sys | /tmp | /var) continue ;;
        esac
        [ -d "$directory" ] && [ ! -L "$directory" ] && mount --bind "$directory" "$path"
    done
    [ -d /lib/modules ] && mount --bind $own/modules /lib/modules
else
    say "the host's files stay uncached"
fi

# A host without kernels of its own, as containers are, has no directory to show the modules in.
if [ ! -d /lib/modules ]; then
    modules=$(sed -n 's/.*\bvirtme_link_mods=\([^ ]*\).*/\1/p' /proc/cmdline)
    mount -t overlay -o "lowerdir=/usr/lib,upperdir=$own/lib/upper,workdir=$own/lib/work" overlay /usr/lib &&
        mkdir -p /lib/modules && ln -s "$modules" "/lib/modules/$(uname -r)" || say "no modules can be loaded"
fi

# virtme has made it writable with overlayfs, where the kernel has that.
mounted /tmp || mount -t tmpfs -o mode=1777 tmpfs /tmp

while read -r tag path; do
    mkdir -p "$path"
    # Not cached: the host sees every byte at once, and has them all when the guest dies.
    mount -t 9p -o "rw,$nine" "$tag" "$path" || say "cannot mount $path"
done <"$job/shares"
while read -r path; do
    mount --bind "$root$path" "$path" || say "$path stays uncached"
done <"$job/cached"

prepare_guest

uname -r >"$job/release"

# Through pipes, as the shared directory's files could not be opened a second time as /dev/stdout.
mkfifo $own/stdout $own/stderr
cat <$own/stdout >"$job/stdout" &
out=$!
cat <$own/stderr >"$job/stderr" &
err=$!
# The host's own shell: in busybox' the command could be one of its tools.
/bin/sh "$job/command" </dev/null >$own/stdout 2>$own/stderr
code=$?
# What the command left running may hold the pipes open: what it printed by now counts.
tries=20
while [ $tries -gt 0 ] && { kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null; }; do
    sleep 0.1
    tries=$((tries - 1))
done
# Renamed into place, so that the host never reads half of it.
echo $code >"$job/exit.new"
mv "$job/exit.new" "$job/exit"
