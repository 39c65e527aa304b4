#!/usr/bin/env bash
# Tests install.sh against a local server: a good archive, a wrong checksum, no checksum, no archive, wrong options,
# musl and macOS by stand-ins for uname and ldd. Needs python3 and curl; uses the loopback address alone.
# shellcheck disable=SC2016  # the stand-ins expand their own variables
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill "$server"; rm -rf "$work"' EXIT

archive() { # TARGET TEXT
    local name="flash-moe-$1"
    mkdir -p "$work/$name" "$work/www"
    printf '#!/bin/sh\necho "%s"\n' "$2" >"$work/$name/flash-moe"
    tar -czf "$work/www/$name.tar.gz" -C "$work" "$name"
    (cd "$work/www" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
}

check() { # NAME STATUS-EXPECTED TEXT-EXPECTED COMMAND...
    local name=$1 expected=$2 text=$3 status=0
    shift 3
    "$@" >"$work/out" 2>&1 || status=$?
    if [ "$status" != "$expected" ] || ! grep -qF -- "$text" "$work/out"; then
        echo "FAILED $name: status $status, expected $expected and \"$text\":"
        cat "$work/out"
        exit 1
    fi
    echo "ok $name"
}

stand_in() { # FOLDER NAME TEXT
    mkdir -p "$work/$1"
    printf '#!/bin/sh\n%s\n' "$3" >"$work/$1/$2"
    chmod +x "$work/$1/$2"
}

mkdir -p "$work/www"
python3 -u -m http.server --bind 127.0.0.1 --directory "$work/www" 0 >"$work/server" 2>&1 &
server=$!
for _ in $(seq 100); do
    port=$(sed -n 's/.*port \([0-9]*\).*/\1/p' "$work/server")
    [ -n "$port" ] && break
    sleep 0.1
done
export FLASH_MOE_INSTALL_URL="http://127.0.0.1:$port"
stand_in linux uname 'case "$1" in -s) echo Linux;; -m) echo x86_64;; esac'
stand_in linux ldd 'echo "ldd (GNU libc) 2.36"'
stand_in linux getconf 'echo "glibc 2.36"'
stand_in old getconf 'echo "glibc 2.31"'
stand_in musl ldd 'echo "musl libc (x86_64)" >&2; exit 1'
stand_in mac uname 'case "$1" in -s) echo Darwin;; -m) echo x86_64;; esac'
stand_in mac sysctl 'echo 1'
stand_in odd uname 'case "$1" in -s) echo Linux;; -m) echo riscv64;; esac'
on() { # SYSTEMS... -- ARGS...
    local path=$PATH
    while [ "$1" != -- ]; do
        path="$work/$1:$path"
        shift
    done
    shift
    PATH=$path sh install.sh "$@"
}

check "no archive" 1 "cannot download" on linux -- --to "$work/bin"
archive x86_64-unknown-linux-gnu gnu
check "good archive" 0 "installed $work/bin/flash-moe" on linux -- --to "$work/bin"
check "the binary runs" 0 gnu "$work/bin/flash-moe"
archive x86_64-unknown-linux-gnu newer
check "over an older one" 0 "is not in PATH" on linux -- --to "$work/bin"
check "the newer one runs" 0 newer "$work/bin/flash-moe"
archive x86_64-unknown-linux-musl musl
check "musl" 0 installed on linux musl -- --to "$work/bin"
check "the static one runs" 0 musl "$work/bin/flash-moe"
rm "$work/bin/flash-moe"
check "an old C library" 0 installed on linux old -- --to "$work/bin"
check "the static one runs again" 0 musl "$work/bin/flash-moe"
archive aarch64-apple-darwin mac
check "macOS under Rosetta" 0 flash-moe-aarch64-apple-darwin on mac -- --to "$work/bin"
check "another processor" 1 "no archive for riscv64" on odd -- --to "$work/bin"
check "wrong options" 2 usage on linux -- --where "$work/bin"
check "an option without its value" 2 usage on linux -- --to

echo "0000  flash-moe-x86_64-unknown-linux-gnu.tar.gz" >"$work/www/flash-moe-x86_64-unknown-linux-gnu.tar.gz.sha256"
check "wrong checksum" 1 "Nothing was installed" on linux -- --to "$work/bin2"
[ ! -e "$work/bin2" ] || { echo "FAILED: a wrong checksum installed something"; exit 1; }
echo "<html>" >"$work/www/flash-moe-x86_64-unknown-linux-gnu.tar.gz.sha256"
check "no checksum in the file" 1 "holds no checksum" on linux -- --to "$work/bin2"
rm "$work/www/flash-moe-x86_64-unknown-linux-gnu.tar.gz.sha256"
check "no checksum file" 1 "cannot download" on linux -- --to "$work/bin2"
head -c 40000 install.sh | head -n 60 >"$work/cut.sh"
FLASH_MOE_INSTALL_DIR="$work/bin3" sh "$work/cut.sh" >/dev/null 2>&1 || true
[ ! -e "$work/bin3" ] || { echo "FAILED: half a script installed something"; exit 1; }
echo "ok half a script"
echo "all passed"
