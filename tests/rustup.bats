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

# rustup_checks: with the rustup that is the first on PATH
rustup_checks() {
	local server
	start_target "$PYTHON" "$TESTS/rustup_server.py" "$BATS_TEST_TMPDIR"
	server=$TARGET_PID
	TARGET_PID=$(<"$BATS_TEST_TMPDIR/pid")
	start_tlssnoop -j -p "$TARGET_PID"
	go
	wait_pid 120 "$server" || fail 'the server did not succeed' "$(cat "$TARGET_ERR")"
	ended_well
	compare json --stream
}

@test "rustup check" {
	command -v rustup >/dev/null || skip 'rustup is not installed'
	rustup_checks
}

@test "rustup check, stripped" {
	local dir=$BATS_TEST_TMPDIR/bin
	command -v rustup >/dev/null || skip 'rustup is not installed'
	mkdir "$dir"
	strip -o "$dir/rustup" "$(command -v rustup)"
	nm "$dir/rustup" 2>&1 | grep -q 'no symbols'
	PATH=$dir:$PATH rustup_checks
}
