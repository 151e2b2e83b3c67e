# SPDX-License-Identifier: MIT
# virtme's init runs it as root in the guest. It mounts file systems, runs the command, and writes its output and exit
# code into the job's directory. Its own messages go to the console.
#
# usage: busybox sh guest.sh JOB
#   JOB/shares   lines "TAG PATH": host directories to mount read-write, JOB itself first
#   JOB/cached   lines "PATH": directories below these to mount read-only and cached
#   JOB/command  the command, as a script
set -u
job=$1
own=/run/kalloctrace
root=$own/root
nine=trans=virtio,version=9p2000.L,access=any,msize=512000

. "${0%/*}/common.sh"

mkdir -p "$root" $own/home $own/modules $own/lib/upper $own/lib/work

# virtme mounts the host's files uncached, so a Python import takes a thousand round trips. Mount them again with a cache
# over themselves, except for directories that virtme has changed (/etc, /var).
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
    log "the host's files remain uncached"
fi

# A host without a kernel, such as a container, has no /lib/modules to mount modules on.
if [ ! -d /lib/modules ]; then
    modules=$(sed -n 's/.*\bvirtme_link_mods=\([^ ]*\).*/\1/p' /proc/cmdline)
    mount -t overlay -o "lowerdir=/usr/lib,upperdir=$own/lib/upper,workdir=$own/lib/work" overlay /usr/lib &&
        mkdir -p /lib/modules && ln -s "$modules" "/lib/modules/$(uname -r)" || log "no modules can be loaded"
fi

# virtme makes /tmp writable if the kernel has overlayfs.
mounted /tmp || mount -t tmpfs -o mode=1777 tmpfs /tmp

while read -r tag path; do
    mkdir -p "$path"
    # Uncached: the host sees every write at once, even if the guest dies.
    mount -t 9p -o "rw,$nine" "$tag" "$path" || log "cannot mount $path"
done <"$job/shares"
while read -r path; do
    mount --bind "$root$path" "$path" || log "$path remains uncached"
done <"$job/cached"

prepare_guest

uname -r >"$job/release"

# Use pipes: files on 9p cannot be opened a second time as /dev/stdout.
mkfifo $own/stdout $own/stderr
cat <$own/stdout >"$job/stdout" &
out=$!
cat <$own/stderr >"$job/stderr" &
err=$!
# Use the host's shell: busybox's shell would run its built-in tools instead of the commands.
/bin/sh "$job/command" </dev/null >$own/stdout 2>$own/stderr
code=$?
# Processes that the command leaves behind may keep the pipes open, so wait two seconds at most.
tries=20
while [ $tries -gt 0 ] && { kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null; }; do
    sleep 0.1
    tries=$((tries - 1))
done
# Rename it, so that the host never reads a partial file.
echo $code >"$job/exit.new"
mv "$job/exit.new" "$job/exit"
