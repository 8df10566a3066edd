#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Programs that nobody built for us, under tlssnoop: rustup with rustls, and the cargo that it
# installs, with its own OpenSSL; their requests and the replies of a server on loopback. Needs
# root, tlssnoop, openssl, binutils and an installed rustup: a distribution's cargo has the
# machine's libssl.
# It must never ask a real release server, nor touch the user's toolchains.

load lib

teardown() {
	finish
}

# asks rustup|cargo PROGRAM ARG...: see release_server.py
asks() {
	local server
	echo "# traced: $2"
	start_target "$PYTHON" "$TESTS/release_server.py" "$BATS_TEST_TMPDIR" "$@"
	server=$TARGET_PID
	TARGET_PID=$(<"$BATS_TEST_TMPDIR/pid")
	start_tlssnoop -j -p "$TARGET_PID"
	go
	wait_pid 120 "$server" || fail 'the server did not succeed' "$(cat "$TARGET_ERR")"
	ended_well
	compare json --stream
}

# stripped PROGRAM: sets STRIPPED, in a directory of its own
stripped() {
	mkdir "$BATS_TEST_TMPDIR/bin"
	STRIPPED=$BATS_TEST_TMPDIR/bin/${1##*/}
	strip -o "$STRIPPED" "$1"
	nm "$STRIPPED" 2>&1 | grep -q 'no symbols'
}

# need_rustup: not in setup, where bats 1.11 forgets its clock when a test is skipped
need_rustup() {
	command -v rustup >/dev/null || skip 'rustup is not installed'
}

# find_cargo: the one behind rustup's; sets CARGO and RUSTC
find_cargo() {
	need_rustup
	CARGO=$(rustup which cargo) || skip 'rustup has installed no cargo'
	RUSTC=$(rustup which rustc)
	if ldd "$CARGO" | grep libssl; then
		skip "$CARGO has the machine's OpenSSL"
	fi
}

@test "rustup check" {
	need_rustup
	asks rustup "$(command -v rustup)"
}

@test "rustup check, stripped" {
	need_rustup
	stripped "$(command -v rustup)"
	asks rustup "$STRIPPED"
}

@test "cargo fetch, with OpenSSL of its own" {
	find_cargo
	asks cargo "$CARGO" "$RUSTC"
	grep -q '"lib":"openssl"' "$TRACE"
}

@test "cargo fetch, with OpenSSL of its own, stripped" {
	find_cargo
	stripped "$CARGO"
	"$TLSSNOOP" -q -L -l "$STRIPPED" | grep -q ' tables .* ssl3_read '
	asks cargo "$STRIPPED" "$RUSTC"
	grep -q '"lib":"openssl"' "$TRACE"
}
