#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Make a checkout ready to run: system packages, the virtual environment .venv, Python packages, the probe
# guest's images. `make` calls it before everything else, so a checkout that is ready must cost next to nothing:
# then it compares one checksum, prints nothing and exits 0.
#
# It downloads through apt-get and pip only, and installs system packages only where apt-get is and something
# is missing (with sudo when not root). Otherwise it says which packages are missing, and exits 1.
# Environment: PYTHON=COMMAND chooses the interpreter; pip's own PIP_* variables are honoured.

set -eu

cd "$(dirname "$0")/.."
root=$(pwd -P)
venv=.venv
stamp=$venv/.xlsnap-setup   # holds the key of the last set-up that came to its end
guest=conformance/xlsnap_conformance/guest
oldest_minor=11             # Python 3.11, as requires-python in pyproject.toml
newest_minor=19             # where the search for python3.N starts

# What is needed: a command, a C header (*.h), or Python. One that is optional only costs some tests.
# Presence is what counts, not the package: a machine that has it all needs no package manager.
#   need                is        apt-get          dnf                   zypper       pacman
needs='
    qemu-system-x86_64  required  qemu-system-x86  qemu-system-x86-core  qemu-x86     qemu-system-x86
    qemu-img            required  qemu-utils       qemu-img              qemu-tools   qemu-img
    qemu-io             required  qemu-utils       qemu-img              qemu-tools   qemu-img
    gcc                 required  gcc              gcc                   gcc          gcc
    ld                  required  binutils         binutils              binutils     binutils
    objcopy             required  binutils         binutils              binutils     binutils
    Python              required  python3-venv     python3               python311    python
    stdio.h             optional  libc6-dev        glibc-devel           glibc-devel  glibc
    jq                  optional  jq               jq                    jq           jq
    libxlutil.h         optional  libxen-dev       xen-devel             xen-devel    -
'

# --- Already ready? -----------------------------------------------------------------------------------------

# A checksum of all that the set-up depends on: where the checkout is (scripts in .venv hold its path), what is
# installed, and how the guest is built.
key() {
    {
        echo "$root"
        cat pyproject.toml hatch_build.py scripts/setup.sh
        find "$guest" -name images -prune -o -type f \( -name '*.[chS]' -o -name '*.ld' -o -name '*build*.py' \) -print |
            LC_ALL=C sort | xargs cat /dev/null
    } | cksum
}

ready() {
    [ -x "$venv/bin/python" ] && [ -r "$stamp" ] && [ "$(cat "$stamp")" = "$(key)" ] &&
        [ -d "$guest/images" ] && command -v qemu-system-x86_64 qemu-img >/dev/null
}

# --- What is missing ----------------------------------------------------------------------------------------

# Print the newest suitable Python: 3.11 or newer, released, able to make a virtual environment with pip in it.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"   # checked at the start
        return
    fi
    minor=$newest_minor
    while [ "$minor" -ge "$oldest_minor" ]; do
        if suitable "python3.$minor"; then
            echo "python3.$minor"
            return
        fi
        minor=$((minor - 1))
    done
    suitable python3 && echo python3
}

suitable() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c "
import sys
import ensurepip, venv
sys.exit(sys.version_info < (3, $oldest_minor) or sys.version_info.releaselevel != 'final')
" >/dev/null 2>&1
}

present() {
    case $1 in
        *.h) printf '#include <%s>\n' "$1" | gcc -E - >/dev/null 2>&1 ;;
        Python) find_python >/dev/null ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

# Print the lines of $needs that are not present.
missing() {
    echo "$needs" | while read -r need is packages; do
        [ -z "$need" ] || present "$need" || echo "$need $is $packages"
    done
}

# column N: field N of the lines on standard input, each value once, on one line; "-" stands for none.
column() {
    awk -v n="$1" '$n != "-" && !seen[$n]++ { printf "%s%s", sep, $n; sep = " " }'
}

# What the lines on standard input are about, as a person would say it.
described() {
    column 1 | sed "s/ /, /g; s/Python/Python 3.$oldest_minor or newer with venv/"
}

# --- Messages -----------------------------------------------------------------------------------------------

say() {
    echo "set-up: $*"
}

# give_up WHY: the one message for a machine that lacks something and where it cannot be installed.
give_up() {
    lacking=$(missing)
    {
        echo "set-up: missing: $(echo "$lacking" | described)"
        echo "set-up: cannot install it: $1"
        echo "Install these packages, then run make again:"
        echo "  Debian, Ubuntu   apt-get install $(echo "$lacking" | column 3)"
        echo "  Fedora           dnf install $(echo "$lacking" | column 4)"
        echo "  openSUSE         zypper install $(echo "$lacking" | column 5)"
        echo "  Arch             pacman -S $(echo "$lacking" | column 6)"
    } >&2
    exit 1
}

# quietly COMMAND…: run it with its output in the log; when it fails, show the log's last lines.
quietly() {
    "$@" >>"$log" 2>&1 </dev/null && return
    tail -n 20 "$log" | sed 's/^/    /' >&2
    return 1
}

# --- Steps --------------------------------------------------------------------------------------------------

apt_get() {
    set -- env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 "$@"
    if [ "$(id -u)" -ne 0 ]; then
        set -- sudo "$@"
    fi
    "$@"
}

# The apt package of the newest Python that the distribution has; nothing when all are too old.
apt_python() {
    minor=$newest_minor
    while [ "$minor" -ge "$oldest_minor" ]; do
        if apt-cache show "python3.$minor-venv" >/dev/null 2>&1; then
            echo "python3.$minor-venv"
            return
        fi
        minor=$((minor - 1))
    done
}

install_packages() {
    lacking=$(missing)
    [ -n "$lacking" ] || return 0
    obstacle=
    if ! command -v apt-get >/dev/null; then
        obstacle="there is no apt-get on this machine."
    elif [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        obstacle="this needs root, and there is no sudo."
    else
        apt_install
        lacking=$(missing)
    fi
    if echo "$lacking" | grep -q ' required '; then
        give_up "${obstacle:-apt-get did not provide it.}"
    elif [ -n "$lacking" ]; then
        say "without $(echo "$lacking" | described): the tests that need it will be skipped."
    fi
}

# Install the packages of $lacking. What is missing afterwards decides whether that worked.
apt_install() {
    say "apt-get update"
    apt_get update >>"$log" 2>&1 </dev/null || true   # one repository that does not answer may not matter
    packages=
    for package in $(echo "$lacking" | column 3); do
        if [ "$package" = python3-venv ]; then
            package=$(apt_python)
            [ -n "$package" ] ||
                obstacle="this distribution has no Python 3.$oldest_minor; choose one of your own with PYTHON=COMMAND."
        fi
        packages="$packages $package"
    done
    say "apt-get install$packages"
    # shellcheck disable=SC2086  # the names are words
    quietly apt_get install --no-install-recommends $packages || true
}

make_venv() {
    if suitable "$venv/bin/python" && quietly "$venv/bin/python" -m pip --version; then
        return
    fi
    if [ -e "$venv" ]; then
        say "$venv is broken or too old: making it again"
        rm -rf "$venv"
    fi
    python=$(find_python)
    say "$("$python" --version) in $venv"
    quietly "$python" -m venv "$venv" || {
        echo "set-up: $python -m venv failed (above). Install the package python3-venv, or choose another with PYTHON=." >&2
        exit 1
    }
}

install_python_packages() {
    say "pip install -e .[dev] (Python packages and the probe guest; a minute or less)"
    quietly "$venv/bin/python" -m pip --disable-pip-version-check install --quiet -e '.[dev]' || {
        echo "set-up: pip failed; its last lines are above. If it could not reach PyPI: PIP_INDEX_URL=… names a mirror," >&2
        echo "PIP_NO_INDEX=1 with PIP_FIND_LINKS=… a directory of wheels." >&2
        exit 1
    }
}

if ready; then
    exit 0
fi
if [ -n "${PYTHON:-}" ] && ! suitable "$PYTHON"; then
    echo "set-up: PYTHON=$PYTHON is not Python 3.$oldest_minor or newer with the modules venv and ensurepip." >&2
    exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
install_packages
make_venv
install_python_packages
key >"$stamp"
say "done"
