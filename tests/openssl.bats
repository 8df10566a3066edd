#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# OpenSSL programs under tlssnoop: every call that moved plaintext is there, with its bytes, fd and
# direction, in order, and nothing else is. Needs root, ssl_target next to this file and tlssnoop.
# It must never pass without having compared a trace with the target's truth.

load lib

teardown() {
	finish
}

# every_tls BIO... -- ARG...: ssl_target with both versions of TLS
every_tls() {
	local bios=() bio tls
	while [[ $1 != -- ]]; do
		bios+=("$1")
		shift
	done
	shift
	for tls in 1.2 1.3; do
		for bio in "${bios[@]}"; do
			traced_calls json -j "$TESTS/ssl_target" --tls "$tls" --bio "$bio" --mode "$@"
		done
	done
}

# lossless CHUNKS: what the summary has to say
lossless() {
	grep -Eq "(^|[^0-9])$1 chunks" "$SNOOP_ERR" || fail "the summary does not count $1 chunks"
	grep -Eq '(^|[^0-9])0 lost' "$SNOOP_ERR" || fail 'the summary does not say 0 lost'
}

@test "SSL_write and SSL_read, lengths from 0 to 1 MiB" {
	every_tls socket mem -- edges
}

@test "SSL_write_ex and SSL_read_ex, lengths from 0 to 1 MiB" {
	every_tls socket mem -- ex
}

@test "early data" {
	traced_calls json -j "$TESTS/ssl_target" --tls 1.3 --bio socket --mode early
	traced_calls json -j "$TESTS/ssl_target" --tls 1.3 --bio mem --mode early
}

@test "non-blocking sockets, retries and partial writes" {
	every_tls socket -- nonblock
}

@test "calls that fail are not data" {
	every_tls socket -- fail
}

@test "SSL_peek is not data" {
	every_tls socket mem -- peek
}

@test "13 connections with the same fd numbers" {
	every_tls socket mem -- reuse
}

@test "200 threads, 100 connections at once" {
	every_tls socket mem -- threads
}

@test "one thread, 7 connections in turn, other output in between" {
	every_tls socket mem -- mixed
}

@test "CBC and ChaCha20 records over memory BIOs" {
	local cipher
	for cipher in ECDHE-ECDSA-AES128-SHA ECDHE-ECDSA-CHACHA20-POLY1305; do
		traced_calls json -j "$TESTS/ssl_target" --tls 1.2 --cipher "$cipher" --bio mem --mode mixed
	done
}

@test "10007 messages of 256 bytes each way, none lost" {
	local tls
	for tls in 1.2 1.3; do
		traced_calls json -j "$TESTS/ssl_target" --tls "$tls" --mode bulk 10007 256
		lossless 40028
	done
}

@test "default format" {
	traced_calls ascii '' "$TESTS/ssl_target" --mode edges
	traced_calls ascii '' "$TESTS/ssl_target" --mode edges --payload utf8
}

@test "hex column (-x)" {
	traced_calls hex -x "$TESTS/ssl_target" --mode edges
}

@test "dump below the line (-X)" {
	traced_calls dump -X "$TESTS/ssl_target" --mode edges
}

@test "text below the line (-A)" {
	traced_calls text -A "$TESTS/ssl_target" --mode edges
	traced_calls text -A "$TESTS/ssl_target" --mode edges --payload text
	traced_calls text -A "$TESTS/ssl_target" --mode edges --payload utf8
}

@test "python, blocking" {
	make_certificate
	# shellcheck disable=SC2034 # lib.bash looks at it
	BY=("$PYTHON")
	traced_calls json -j "$TESTS/py_target.py" --cert "$CERT" --key "$KEY"
}

@test "python, 101 asyncio connections on one thread" {
	make_certificate
	# shellcheck disable=SC2034 # lib.bash looks at it
	BY=("$PYTHON")
	traced_calls json -j "$TESTS/py_target.py" --cert "$CERT" --key "$KEY" --asyncio
}
