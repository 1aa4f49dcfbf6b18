#!/bin/sh
# Runs ringmark on other kernels, in an emulator: which backends run there, whether they serve, the
# servers' tests, the memory of a connection by object, and the instructions of an echo. Fetches
# Debian's kernels by name, and unpacks them without installing anything.
#
#   scripts/kernels.sh                     6.1 and 6.12, and newer ones where they can be had
#   scripts/kernels.sh --fetch             only fetches them, and says where they are
#   scripts/kernels.sh --kernel FILE       on this one; again for more
#   scripts/kernels.sh --no-tests          without the servers' tests, which take most of the time
#   scripts/kernels.sh --all-tests         with those of uring-sqpoll: another hour a kernel
#   scripts/kernels.sh --out DIR           puts the results there
#
# It needs QEMU for x86-64 and a C compiler; to fetch, apt-get and dpkg-deb. A kernel takes about
# ten minutes, and the servers' tests about an hour.
set -eu
cd "$(dirname "$0")/.."

folder=target/kernels
images=
fetch_only=
tests=yes
skip="--skip short_connections --skip uring-sqpoll::"
out=results/$(date -u +%Y%m%dT%H%M%SZ)-kernels
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 0 ;;
        --fetch) fetch_only=yes ;;
        --no-tests) tests= ;;
        --all-tests) skip="--skip short_connections" ;;
        --kernel | --out)
            [ $# -ge 2 ] || { echo "kernels.sh: $1 needs a file or a folder" >&2; exit 2; }
            if [ "$1" = --out ]; then
                out=$2
            else
                [ -f "$2" ] || { echo "kernels.sh: $2: there is no such file" >&2; exit 2; }
                images="$images $2"
            fi
            shift ;;
        *) echo "kernels.sh: unknown option '$1'; see --help" >&2; exit 2 ;;
    esac
    shift
done
[ ! -e "$out" ] || { echo "kernels.sh: $out exists: give --out a new folder" >&2; exit 2; }

# Unpacks the newest package whose name fits into the folder, and prints its image. The rest of the
# arguments are options of apt's.
fetch() {
    pattern=$1
    shift
    # Newer kernels are split: linux-image-… only names linux-binary-…, which sorts before it.
    package=$(apt-cache "$@" search --names-only "$pattern" | cut -d ' ' -f 1 |
        sort -V | awk -F - '{ newest[$2] = $0 }
            END { print ("binary" in newest) ? newest["binary"] : newest["image"] }')
    [ -n "$package" ] || { echo "kernels.sh: no package fits $pattern" >&2; return 0; }
    place=$folder/$package
    if [ ! -d "$place/usr" ]; then
        mkdir -p "$place"
        (cd "$place" && apt-get "$@" -o APT::Sandbox::User=root download "$package" > /dev/null)
        dpkg-deb -x "$place"/*.deb "$place"
        rm "$place"/*.deb
    fi
    # It moved from boot/ to usr/lib/modules/ in 7.3.
    find "$place" -name 'vmlinuz*' -type f
}

# Debian's own list of newer kernels, kept apart from this machine's.
newer() {
    state=$PWD/$folder/apt
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    site=$(apt-get indextargets --format '$(REPO_URI)' | head -n 1)
    [ -n "$site" ] || return 0
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys] $site trixie-backports main" > "$state/sources.list"
    set -- -o "Dir::Etc::SourceList=$state/sources.list" -o Dir::Etc::SourceParts=- \
        -o "Dir::State::Lists=$state/lists" -o "Dir::Cache=$state/cache"
    apt-get -qq "$@" update || { echo "kernels.sh: no newer kernels: no $site" >&2; return 0; }
    for release in 6.18 7.0 7.3; do
        fetch "^linux-(image|binary)-$release\.[0-9.]+[+]deb[0-9]+-cloud-amd64\$" "$@"
    done
}

if [ -z "$images" ]; then
    command -v apt-get > /dev/null || {
        echo "kernels.sh: no apt-get to fetch kernels by; give --kernel FILE" >&2
        exit 2
    }
    images="$(fetch '^linux-image-6\.1\.0-[0-9]+-cloud-amd64$') \
        $(fetch '^linux-image-6\.12\.[0-9.]+[+]deb[0-9]+-cloud-amd64$') $(newer)"
fi
[ -n "$fetch_only" ] && { printf '%s\n' $images; exit 0; }

cargo build --release --workspace --bins --locked
ringmark=target/release/ringmark
server=target/release/ringmark-server

# The servers' tests. The many short connections take an hour here. So do those of uring-sqpoll,
# whose thread spins on an emulated CPU that the server needs. The tests of system calls by
# tracepoints belong to the machine that measures.
programs=
if [ -n "$tests" ]; then
    for test in conformance in_force failing_calls random; do
        program=$(cargo test --release --locked --package ringmark --test "$test" --no-run \
            --message-format json | sed -n "s|.*\"executable\":\"\([^\"]*/$test-[0-9a-f]*\)\".*|\1|p")
        programs="$programs $program"
    done
    # `command -v true` names a part of the shell.
    strace=
    if command -v strace > /dev/null; then
        for file in "$(command -v strace)" /usr/bin/true /bin/true; do
            [ ! -x "$file" ] || strace="$strace --with $file"
        done
    else
        echo "kernels.sh: without strace the tests that need it are left out" >&2
    fi
    mkdir -p target/tmp
    echo "kernels.sh: the servers' tests run with $skip; --help says why" >&2
fi

# Counts come first: they make the folder.
counted=
for image in $images; do counted="$counted --kernel $image"; done
"$ringmark" count instructions $counted --out "$out"

number=0
failed=
for image in $images; do
    number=$((number + 1))
    inside="$ringmark boot --kernel $image --with $server"
    echo
    echo "== $image"
    $inside -- "$server" --list
    $inside -- "$ringmark" doctor
    $inside --within 20min -- "$ringmark" run smoke --out /tmp/run || failed="$failed smoke:$number"
    $inside --within 30min --out "$out/guests/$number" \
        -- "$ringmark" run memory --out /out || failed="$failed memory:$number"
    for program in $programs; do
        test=$(basename "$program" | sed 's/-[0-9a-f]*$//')
        # With 1 GiB Linux 6.1 and 6.12 come under pressure of TCP memory (tcp_mem) when many sockets
        # are full: they drop what comes, and wait seconds before they send it again.
        $inside --memory-mib 4096 --within 3h --with target/tmp ${strace:-} --env RINGMARK_PATIENCE=600 \
            -- "$program" --test-threads 2 $skip || failed="$failed $test:$number"
    done
done
"$ringmark" report "$out"
[ -z "$failed" ] || { echo "kernels.sh: failed, each with its kernel's number:$failed" >&2; exit 1; }
