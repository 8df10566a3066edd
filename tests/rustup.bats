#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# rustup, a program with rustls that nobody built for us, under tlssnoop: its requests and the
# replies of a server on loopback. Needs root, tlssnoop, openssl and an installed rustup.
# It must never ask a real release server, nor touch the user's toolchains.

load lib

teardown() {
	finish
}

@test "rustup check" {
	local server
	command -v rustup >/dev/null || skip 'rustup is not installed'
	start_target "$PYTHON" "$TESTS/rustup_server.py" "$BATS_TEST_TMPDIR"
	server=$TARGET_PID
	TARGET_PID=$(<"$BATS_TEST_TMPDIR/pid")
	start_tlssnoop -j -p "$TARGET_PID"
	go
	wait_pid 120 "$server" || fail 'the server did not succeed' "$(cat "$TARGET_ERR")"
	wait_tlssnoop
	((SNOOP_STATUS == 0)) || fail "tlssnoop ended with status $SNOOP_STATUS"
	compare json --stream
}
