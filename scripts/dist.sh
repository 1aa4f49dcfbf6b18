#!/bin/sh
# Makes target/dist/ringmark-VERSION-ARCH-linux.tar.gz: both programs, linked statically, with their
# manual pages, completions, matrices and licences. It runs on a machine that has nothing but a
# kernel. The programs are stripped: only a build of your own names its functions in `ringmark
# count`.
#
#   scripts/dist.sh              prints the path of the archive
#   scripts/dist.sh --check      then unpacks it in an empty root with /proc, /sys and /dev, and runs
#                                the matrix `smoke` there, as root
set -eu
check=
case "${1-}" in
    "") ;;
    --check) check=yes ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; case "$1" in -h | --help) exit 0 ;; *) exit 2 ;; esac ;;
esac
cd "$(dirname "$0")/.."

arch=$(uname -m)
target=$arch-unknown-linux-gnu
CARGO_PROFILE_RELEASE_STRIP=symbols RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --release --locked --workspace --bins --target "$target" >&2 || {
    echo "dist.sh: no static programs were built, see above; they need the C library's archive," \
        "libc.a (Debian: libc6-dev)" >&2
    exit 1
}
built=target/$target/release
version=$("$built/ringmark" --version | sed 's/^ringmark \([^,]*\),.*/\1/')
name=ringmark-$version-$arch-linux
folder=target/dist/$name
rm -rf "$folder" "$folder.tar.gz"

share=$folder/share
mkdir -p "$folder/bin" "$share/man/man1" "$share/bash-completion/completions" \
    "$share/zsh/site-functions" "$share/fish/vendor_completions.d" "$share/ringmark/matrix"
for program in ringmark ringmark-server; do
    cp "$built/$program" "$folder/bin/"
    for shell in bash zsh fish; do
        case $shell in
            bash) file=bash-completion/completions/$program ;;
            zsh) file=zsh/site-functions/_$program ;;
            fish) file=fish/vendor_completions.d/$program.fish ;;
        esac
        case $program in
            ringmark) "$built/$program" completions $shell ;;
            *) "$built/$program" --completions $shell ;;
        esac > "$share/$file"
    done
done
"$built/ringmark" man "$share/man/man1"
"$built/ringmark-server" --man > "$share/man/man1/ringmark-server.1"
cp harness/matrix/*.toml "$share/ringmark/matrix/"
cp LICENSE CITATION.cff README.md "$folder/"
{
    echo "The programs contain these packages, and the GNU C library (LGPL-2.1-or-later):"
    cargo tree --locked --package ringmark-harness --edges normal --prefix none \
        --format '{p}: {l}' | sed 's/ (\/[^)]*)//; s/ (\*)$//; s/ (proc-macro)//' | sort -u
} > "$folder/LICENSES-OF-OTHERS"

# The same files give the same archive.
time=$(git log -1 --format=%ct 2> /dev/null) || time=0
tar --create --gzip --file "$folder.tar.gz" --directory target/dist --sort=name --owner=0 --group=0 \
    --numeric-owner --mtime="@$time" "$name"
echo "$folder.tar.gz"
[ -n "$check" ] || exit 0

root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
mkdir "$root/proc" "$root/sys" "$root/dev"
tar --extract --file "$folder.tar.gz" --directory "$root"
# The mounts are gone when the program ends.
unshare --mount sh -euc '
    for place in proc sys dev; do mount --rbind "/$place" "$1/$place"; done
    exec chroot "$1" "/$2/bin/ringmark" run smoke' sh "$root" "$name"
