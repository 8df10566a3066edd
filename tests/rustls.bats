#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# rustls programs under tlssnoop, with blocking sockets and with tokio: every byte that rustls took
# or gave is there once, in order, with its fd, one line for each record. Needs root, tlssnoop and
# a cargo that tests/rustls/build accepts; the first build takes minutes and fetches crates.
# It must never pass without having compared a trace with the target's truth.

load lib

setup_file() {
	build_rustls
}

teardown() {
	finish
}

# every_tls ARG...: std_target with both versions of TLS
every_tls() {
	local tls
	for tls in 1.2 1.3; do
		traced "$RELEASE/std_target" --tls "$tls" "$@"
	done
}

# apart SIDE ARG...: client and server are two processes of which SIDE is traced
apart() {
	local side=$1 truth=$BATS_TEST_TMPDIR/truth contact=$BATS_TEST_TMPDIR/contact stdin
	local -A pid peer=([client]=server [server]=client)
	echo "# traced: $*"

	start_target "$RELEASE/tokio_target" --truth "$truth.server" "${@:2}" server "$contact"
	pid[server]=$TARGET_PID stdin=$TARGET_STDIN
	start_target "$RELEASE/tokio_target" --truth "$truth.client" "${@:2}" client "$contact"
	pid[client]=$TARGET_PID

	# shellcheck disable=SC2034 # lib.bash looks at it
	TARGET_PID=${pid[$side]} TRUTH=$truth.$side
	start_tlssnoop -j -p "$TARGET_PID"
	echo go >&"$stdin"
	exec {stdin}>&-
	go
	wait_pid 120 "${pid[${peer[$side]}]}"
	wait_target
	ended_well
	pairs "$truth.server" "$truth.client"
	compare json --stream --peer-truth "$truth.${peer[$side]}"
}

# whichever_build DIRECTORY: what code generation could change
whichever_build() {
	local mode tls
	for mode in edges vectored limit before; do
		for tls in 1.2 1.3; do
			traced "$1/std_target" --tls "$tls" "$mode"
		done
	done
	traced "$1/std_target" early
	traced "$1/tokio_target" --threads 4 both
}

@test "lengths from 0 to 1 MiB" {
	every_tls edges
}

@test "every cipher suite" {
	local suite
	for suite in aes128 aes256 chacha; do
		every_tls --suite "$suite" edges
	done
}

@test "write_vectored with 2 to 67 pieces" {
	every_tls vectored
}

@test "writes that a buffer limit cuts" {
	every_tls limit
}

@test "data written before the handshake" {
	every_tls before
}

@test "new keys during a connection" {
	traced "$RELEASE/std_target" --tls 1.3 rekey
}

@test "early data" {
	traced "$RELEASE/std_target" --tls 1.3 early
}

@test "panics inside rustls' I/O do no harm" {
	every_tls panic
	traced "$DEV/std_target" panic
}

@test "10007 messages of 256 bytes each way, none lost" {
	local tls
	for tls in 1.2 1.3; do
		traced "$RELEASE/std_target" --tls "$tls" bulk 10007 256
		grep -Eq '(^|[^0-9])40028 chunks' "$SNOOP_ERR" || fail 'the summary does not count 40028 chunks'
		grep -Eq '(^|[^0-9])0 lost' "$SNOOP_ERR" || fail 'the summary does not say 0 lost'
	done
}

@test "tokio, 101 connections at once on one thread" {
	traced "$RELEASE/tokio_target" both
	traced "$RELEASE/tokio_target" --tls 1.2 both
}

@test "tokio, 101 connections at once on 4 threads" {
	traced "$RELEASE/tokio_target" --threads 4 both
	traced "$RELEASE/tokio_target" --threads 4 --tls 1.2 both
}

@test "tokio, other output after every write" {
	traced "$RELEASE/tokio_target" --log both
	traced "$RELEASE/tokio_target" --log --threads 4 both
}

@test "tokio, 211 connections one after the other" {
	traced "$RELEASE/tokio_target" --short 211 both
	traced "$RELEASE/tokio_target" --threads 4 --short 211 both
}

@test "tokio, a server" {
	apart server
	apart server --threads 4
	apart server --short 211
}

@test "tokio, a client" {
	apart client
	apart client --threads 4
	apart client --short 211
}

@test "the unbuffered API" {
	local suite
	for suite in aes256 chacha; do
		traced "$RELEASE/unbuffered_target" --tls 1.2 --suite "$suite"
		traced "$RELEASE/unbuffered_target" --tls 1.3 --suite "$suite"
	done
	traced "$RELEASE/unbuffered_target" --wrapped
	strip -o "$BATS_TEST_TMPDIR/unbuffered_target" "$RELEASE/unbuffered_target"
	traced "$BATS_TEST_TMPDIR/unbuffered_target" --tls 1.2
	traced "$BATS_TEST_TMPDIR/unbuffered_target" --tls 1.3
}

@test "fat LTO that aborts on panic" {
	whichever_build "$FAT"
}

@test "unoptimised" {
	whichever_build "$DEV"
}

@test "v0 symbol names" {
	whichever_build "$MANGLED_V0"
}

# stripped_build DIRECTORY: a build without its symbols
stripped_build() {
	local target
	for target in std_target tokio_target; do
		strip -o "$BATS_TEST_TMPDIR/$target" "$1/$target"
	done
	echo "$BATS_TEST_TMPDIR"
}

# without_handle DIRECTORY: the target there with no symbol for handle, in the test's directory
without_handle() {
	local dir=$BATS_TEST_TMPDIR
	nm "$1/std_target" | awk '$3 ~ /6handle17h|6handleC/ { print $3 }' >"$dir/handles"
	[[ -s $dir/handles ]]
	objcopy --strip-symbols="$dir/handles" "$1/std_target" "$dir/std_target"
}

# wrapped_build DIRECTORY: each record passes three encrypters and three decrypters
wrapped_build() {
	local tls
	for tls in 1.2 1.3; do
		traced "$1/std_target" --tls "$tls" --wrapped edges
		traced "$1/std_target" --tls "$tls" --wrapped vectored
	done
	traced "$1/std_target" --tls 1.3 --wrapped early
	traced "$1/std_target" --tls 1.3 --wrapped rekey
}

@test "a provider that wraps another one" {
	wrapped_build "$RELEASE"
	traced "$RELEASE/tokio_target" --threads 4 --wrapped both
}

@test "a provider that wraps another one, fat LTO and unoptimised" {
	wrapped_build "$FAT"
	wrapped_build "$DEV"
}

@test "a provider that wraps another one, through decrypt" {
	local build
	for build in "$RELEASE" "$DEV"; do
		without_handle "$build"
		wrapped_build "$BATS_TEST_TMPDIR"
	done
}

@test "one message to many connections is no repeat" {
	local tls
	for tls in 1.2 1.3; do
		traced "$RELEASE/broadcast_target" --tls "$tls"
		traced "$RELEASE/broadcast_target" --tls "$tls" --wrapped
	done
}

@test "stripped, optimised" {
	local target dir
	dir=$(stripped_build "$RELEASE")
	for target in edges vectored limit before; do
		traced "$dir/std_target" --tls 1.3 "$target"
		traced "$dir/std_target" --tls 1.2 --suite chacha "$target"
	done
	traced "$dir/std_target" early
	traced "$dir/tokio_target" --threads 4 both
}

@test "stripped, fat LTO and unoptimised" {
	local build dir
	for build in "$FAT" "$DEV"; do
		dir=$(stripped_build "$build")
		traced "$dir/std_target" --tls 1.3 edges
		traced "$dir/std_target" --tls 1.2 edges
		traced "$dir/std_target" early
		traced "$dir/tokio_target" both
	done
}

@test "through decrypt, where there is no handle" {
	local dir=$BATS_TEST_TMPDIR mode
	without_handle "$RELEASE"
	for mode in edges vectored early; do
		traced "$dir/std_target" --tls 1.3 "$mode"
	done
	traced "$dir/std_target" --tls 1.2 --suite aes256 edges
}
