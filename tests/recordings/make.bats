#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Records the facts of real programs into this directory, for tests/replay_test. Not one of the
# tests: run it by hand ("make tests/recorder && bats tests/recordings") when the facts change.
# Needs what fd.bats needs, and root. It must never record a program that is not a test's own.

load ../lib

setup_file() {
	make -s -C "$BATS_TEST_DIRNAME/../.." tests/recorder
	TARGETS=$("$BATS_TEST_DIRNAME/../rustls/build" release)
	STACKS=$("$BATS_TEST_DIRNAME/../stacks/build" release)
	export TARGETS STACKS
}

setup() {
	TESTS=$BATS_TEST_DIRNAME/..
	TLSSNOOP=$TESTS/recorder
	export FACTS=$BATS_TEST_TMPDIR/facts
	make_certificate
}

teardown() {
	finish
}

# keep NAME ARG...: as NAME.txt, if replay_test finds nothing wrong in it
keep() {
	local new=$BATS_TEST_TMPDIR/$1.txt without
	"$TESTS/recording.py" "${@:2}" >"$new"
	without=$("$TESTS/replay_test" "$new" | sed -n 's/.* wrong one, \([0-9]*\) none.*/\1/p')
	{
		echo "# $without without fd"
		cat "$new"
	} >"$BATS_TEST_DIRNAME/$1.txt"
	"$TESTS/replay_test" "$BATS_TEST_DIRNAME/$1.txt" >&3
}

# record NAME COMMAND...
record() {
	start_target "${@:2}"
	start_tlssnoop -B 65536 -p "$TARGET_PID"
	go
	wait_target
	wait_tlssnoop
	keep "$1" "$FACTS" "$TRUTH"
}

@test "tokio, 4 threads" {
	record tokio-threads "$TARGETS/tokio_target" --truth "$TRUTH" --threads 4 both
}

@test "tokio, one thread" {
	record tokio "$TARGETS/tokio_target" --truth "$TRUTH" both
}

@test "node" {
	record node node "$TESTS/node_target.js" both "$CERT" "$KEY" "$TRUTH" "$BATS_TEST_TMPDIR/contact"
}

@test "asyncio" {
	record asyncio "$PYTHON" "$TESTS/py_target.py" --cert "$CERT" --key "$KEY" --truth "$TRUTH" --asyncio
}

@test "ureq" {
	record ureq "$STACKS/ureq_target" --truth "$TRUTH" --tls 1.3 67
}

@test "OpenSSL on memory BIOs, many short connections" {
	record memory-short "$TESTS/ssl_target" --truth "$TRUTH" --bio mem --mode short 107
}

@test "TLS within TLS: rustls" {
	start_target "$TARGETS/tunnel_target" --truth "$TRUTH" --tls 1.3 5
	start_tlssnoop -B 65536 -p "$TARGET_PID"
	go
	wait_target
	wait_tlssnoop
	keep tunnel "$FACTS" "$TRUTH" "$TRUTH.inner"
}

@test "TLS within TLS: curl through an HTTPS proxy" {
	get_through_tunnel
	wait_tlssnoop
	keep curl-proxy "$FACTS" "$TRUTH" "$TRUTH.inner"
}

@test "sqlx" {
	start_mariadb
	start_target "$STACKS/sqlx_target" --truth "$TRUTH" \
		"mysql://tester@127.0.0.1:$MARIADB_PORT/?ssl-mode=REQUIRED" 101
	start_tlssnoop -B 65536 -p "$TARGET_PID"
	go
	wait_target
	wait_tlssnoop
	keep sqlx --name 'query [0-9]+;' "$FACTS" "$TRUTH"
}
