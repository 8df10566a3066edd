#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Whose fd stands on a line, where it is hard to tell: many connections on one thread, libraries
# that never see the socket, numbers that come again, an attachment in the middle, TLS within TLS,
# bytes that only look like TLS. Truth comes from the programs, which know their fds, or from /proc.
# Needs root, node, curl, mariadbd, a cargo that tests/rustls/build accepts, and tlssnoop.
# It must never take a line with no fd for a right one, nor pass a trace that was not compared.

load lib

setup() {
	make_certificate
}

teardown() {
	finish
}

# ended_well: tlssnoop has ended, content
ended_well() {
	wait_tlssnoop
	((SNOOP_STATUS == 0)) || fail "tlssnoop ended with status $SNOOP_STATUS"
}

# both_apart COMMAND...: a server and a client, each a process of its own, both of them traced;
# the words SIDE and TRUTH in COMMAND stand for what they are
both_apart() {
	local whole=$TRACE side stdin
	local -A pid
	for side in server client; do
		set -- "${@//SIDE/$side}"
		start_target "${@//TRUTH/$TRUTH.$side}"
		set -- "${@/#$side/SIDE}"
		pid[$side]=$TARGET_PID
		[[ $side == client ]] || stdin=$TARGET_STDIN
	done
	start_tlssnoop -j -B 65536 -p "${pid[server]},${pid[client]}"
	echo go >&"$stdin"
	go
	wait_target
	wait_pid 60 "${pid[server]}"
	exec {stdin}>&-
	ended_well
	"$PYTHON" "$TESTS/trace.py" pairs "$TRUTH.server" "$TRUTH.client"
	for side in server client; do
		TRACE=$whole.$side
		grep "\"pid\":${pid[$side]}," "$whole" >"$TRACE"
		TARGET_PID=${pid[$side]} TRUTH=$BATS_TEST_TMPDIR/truth.$side compare json
	done
}

@test "node, 101 connections at once, client and server" {
	both_apart node "$TESTS/node_target.js" SIDE "$CERT" "$KEY" TRUTH "$BATS_TEST_TMPDIR/contact"
}

@test "node, https on 101 connections kept alive, client and server" {
	local server stdin port
	start_target node "$TESTS/node_target.js" https-server "$CERT" "$KEY"
	line_comes '^listening ' "$TARGET_OUT" "$TARGET_PID"
	server=$TARGET_PID stdin=$TARGET_STDIN
	port=$(sed -n 's/^listening //p' "$TARGET_OUT")
	start_relay "$port" --connections 101
	start_target node "$TESTS/node_target.js" https-client "$CERT" "$KEY"
	start_tlssnoop -j -B 65536 -p "$server,$TARGET_PID"
	echo "$RELAY_PORT" >&"$TARGET_STDIN"
	wait_target
	wait_relay
	exec {stdin}>&-
	wait_pid 20 "$server"
	ended_well
	compare_account json "$TARGET_PID" "$server"
}
