#!/bin/sh
# Installs flash-moe: finds the archive for this machine, checks its SHA-256, and puts the binary into a folder.
#
#   sh install.sh [--version v0.1.0] [--to DIR]
#
# Variables: FLASH_MOE_INSTALL_URL, the address of the folder with the releases' archives (a mirror or a test);
# FLASH_MOE_INSTALL_DIR, as --to. Nothing is run from the download before its checksum was right.
set -eu

REPOSITORY="https://github.com/flash-moe/flash-moe/releases"

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "install: $*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

usage() {
    say "usage: sh install.sh [--version VERSION] [--to DIR]"
    exit 2
}

is_musl() {
    # The C library's own word; where ldd is missing or silent, its dynamic loader's file.
    case "$(ldd --version 2>&1 || true)" in
    *musl*) return 0 ;;
    *GNU* | *GLIBC* | *glibc*) return 1 ;;
    esac
    [ -e "/lib/ld-musl-$(uname -m).so.1" ]
}

old_glibc() {
    # The archives for GNU systems are built against 2.35; older systems get the static one.
    have getconf || return 1
    version=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc 2\.\([0-9]*\).*/\1/p')
    [ -n "$version" ] && [ "$version" -lt 35 ]
}

target() {
    case "$(uname -m)" in
    x86_64 | amd64) machine=x86_64 ;;
    aarch64 | arm64) machine=aarch64 ;;
    *) fail "no archive for $(uname -m): build it with \`cargo install --path crates/cli\`" ;;
    esac
    case "$(uname -s)" in
    Linux)
        if is_musl || old_glibc; then
            echo "$machine-unknown-linux-musl"
        else
            echo "$machine-unknown-linux-gnu"
        fi
        ;;
    Darwin)
        # A shell under Rosetta says x86_64 on an ARM machine.
        [ "$(sysctl -n hw.optional.arm64 2>/dev/null || echo 0)" = 1 ] && machine=aarch64
        echo "$machine-apple-darwin"
        ;;
    MINGW* | MSYS* | CYGWIN*) echo "$machine-pc-windows-msvc" ;;
    *) fail "no archive for $(uname -s): build it with \`cargo install --path crates/cli\`" ;;
    esac
}

download() { # URL FILE
    if have curl; then
        curl --fail --silent --show-error --location --retry 3 --output "$2" "$1"
    elif have wget; then
        wget -q -O "$2" "$1"
    else
        fail "curl or wget is needed"
    fi
}

sum() {
    if have sha256sum; then
        sha256sum "$1" | cut -d ' ' -f 1
    elif have shasum; then
        shasum -a 256 "$1" | cut -d ' ' -f 1
    else
        fail "sha256sum or shasum is needed, to check the download"
    fi
}

main() {
    version=latest
    to=${FLASH_MOE_INSTALL_DIR:-}
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || usage
        case "$1" in
        --version) version=$2 ;;
        --to) to=$2 ;;
        *) usage ;;
        esac
        shift 2
    done
    [ -n "$to" ] || to="${HOME:?set HOME, or say --to DIR}/.local/bin"

    case "$version" in
    latest) base="$REPOSITORY/latest/download" ;;
    *) base="$REPOSITORY/download/$version" ;;
    esac
    base=${FLASH_MOE_INSTALL_URL:-$base}

    name="flash-moe-$(target)"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    say "downloading $name.tar.gz"
    download "$base/$name.tar.gz" "$folder/archive" || fail "cannot download $base/$name.tar.gz"
    download "$base/$name.tar.gz.sha256" "$folder/sum" || fail "cannot download $base/$name.tar.gz.sha256"
    expected=$(cut -d ' ' -f 1 "$folder/sum" | head -n 1)
    case "$expected" in
    "" | *[!0-9a-f]*) fail "$name.tar.gz.sha256 holds no checksum" ;;
    esac
    got=$(sum "$folder/archive")
    [ "$expected" = "$got" ] || fail "wrong checksum of $name.tar.gz: expected $expected, got $got. Nothing was installed"

    tar -xzf "$folder/archive" -C "$folder"
    binary=flash-moe
    [ -f "$folder/$name/$binary" ] || binary=flash-moe.exe
    [ -f "$folder/$name/$binary" ] || fail "$name.tar.gz holds no flash-moe"
    mkdir -p "$to" || fail "cannot make $to"
    # Beside its place and then renamed: a flash-moe that runs is not written over.
    cp "$folder/$name/$binary" "$to/.$binary.new" || fail "cannot write to $to"
    chmod 755 "$to/.$binary.new"
    mv -f "$to/.$binary.new" "$to/$binary"
    say "installed $to/$binary"
    case ":$PATH:" in
    *":$to:"*) ;;
    *) say "$to is not in PATH: add it, or call the program by its whole name" ;;
    esac
}

# At the end, so that a script cut off in the middle of its download does nothing.
main "$@"
