#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Print the directory for the temporary files of tests: in memory, if there is room and programs can run there.
# The toolstack syncs what must survive the machine, many times for each snapshot; nothing of a test must, and
# on a disk it would wait for most of its time. TMPDIR, if it is set, is taken as it is.

set -eu

shm=/dev/shm
room_kib=$((3 << 20))   # what two workers need at most, with live snapshots of 512 MiB, and some to spare

if [ -n "${TMPDIR:-}" ]; then
    echo "$TMPDIR"
    exit
fi
free_kib=$(df -Pk "$shm" 2>/dev/null | awk 'NR == 2 { print $4 }')
available_kib=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo 2>/dev/null)
if [ "${free_kib:-0}" -ge "$room_kib" ] && [ "${available_kib:-0}" -ge "$room_kib" ] &&
    probe=$(mktemp "$shm/xlsnap.XXXXXX" 2>/dev/null); then
    trap 'rm -f "$probe"' EXIT
    printf '#!/bin/sh\necho "%s"\n' "$shm" >"$probe"
    chmod 0700 "$probe"
    "$probe" 2>/dev/null || echo /tmp   # mounted noexec, as containers do
else
    echo /tmp
fi
