#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Whose fd stands on a line, where it is hard to tell: many connections on one thread, libraries
# that never see the socket, numbers that come again, an attachment in the middle, TLS within TLS,
# bytes that only look like TLS. Truth comes from the programs, which know their fds, or from /proc.
# Needs root, node, curl, a cargo that tests/rustls/build accepts, and tlssnoop.
# It must never take a line with no fd for a right one, nor pass a trace that was not compared.

load lib

setup_file() {
	TARGETS=$(built rustls release)
	export TARGETS
}

setup() {
	make_certificate
}

teardown() {
	finish
}

# both_apart COMMAND...: a server and a client, each a process of its own, both of them traced;
# the words SIDE and TRUTH in COMMAND stand for what they are
both_apart() {
	local whole=$TRACE side stdin words
	local -A pid
	for side in server client; do
		words=("${@/#SIDE/$side}")
		start_target "${words[@]/#TRUTH/$TRUTH.$side}"
		pid[$side]=$TARGET_PID
		[[ $side == client ]] || stdin=$TARGET_STDIN
	done
	start_tlssnoop -j -B 65536 -p "${pid[server]},${pid[client]}"
	echo go >&"$stdin"
	exec {stdin}>&-
	go
	wait_target
	wait_pid 60 "${pid[server]}"
	ended_well
	pairs "$TRUTH.server" "$TRUTH.client"
	one_of_them "$whole" "${pid[server]}" "$TRUTH.server"
	one_of_them "$whole" "${pid[client]}" "$TRUTH.client"
}

# one_of_them TRACE PID TRUTH: what is of one process in the trace of several
one_of_them() {
	local TRACE=$1.$2 TRUTH=$3 TARGET_PID=$2
	grep "\"pid\":$2," "$1" >"$TRACE" || fail "nothing of pid $2"
	compare json
}

@test "node, 101 connections at once, client and server" {
	both_apart node "$TESTS/node_target.js" SIDE "$CERT" "$KEY" TRUTH "$BATS_TEST_TMPDIR/contact"
}

@test "node, https on 101 connections kept alive, client and server" {
	local server port
	start_target node "$TESTS/node_target.js" https-server "$CERT" "$KEY"
	line_comes '^listening ' "$TARGET_OUT" "$TARGET_PID"
	server=$TARGET_PID
	go
	port=$(sed -n 's/^listening //p' "$TARGET_OUT")
	start_relay "$port" --connections 101
	start_target node "$TESTS/node_target.js" https-client "$CERT" "$KEY"
	start_tlssnoop -j -B 65536 -p "$server,$TARGET_PID"
	echo "$RELAY_PORT" >&"$TARGET_STDIN"
	wait_target
	wait_relay
	wait_pid 20 "$server"
	ended_well
	compare_account json "$TARGET_PID" "$server"
}

# tunnelled CURL-OPTION...: curl gets files through an HTTPS proxy
tunnelled() {
	get_through_tunnel "$@"
	ended_well
	TARGET_PID=$CURL_PID compare json --stream --inner-truth "$TRUTH.inner"
}

@test "curl through an HTTPS proxy" {
	curl --version | grep -q HTTPS-proxy || skip 'this curl knows no HTTPS proxy'
	tunnelled
	tunnelled --tls-max 1.2 --proxy-tls13-ciphers TLS_AES_128_GCM_SHA256
	tunnelled --data-binary "@$TESTS/trace.py"
}

@test "TLS within TLS, 23 connections of rustls on one thread" {
	local tls
	for tls in 1.2 1.3; do
		observe '-j -B 262144' "$TARGETS/tunnel_target" --tls "$tls" 23
		pairs "$TRUTH"
		pairs "$TRUTH.inner"
		compare json --stream --inner-truth "$TRUTH.inner"
	done
}

trace_has() {
	(($(stat -c %s "$TRACE") > $1))
}

# in_the_middle COMMAND...: tlssnoop comes when 50 connections have long been in use
in_the_middle() {
	echo "# traced: $*"
	start_target "$@"
	echo go >&"$TARGET_STDIN"
	line_comes '^running$' "$TARGET_OUT" "$TARGET_PID"
	start_tlssnoop -j -B 262144 -p "$TARGET_PID"
	eventually 60 trace_has 40000000	# more than 100,000 lines
	go	# on to the end
	wait_target
	ended_well
	compare json --attached-late
}

@test "attached in the middle of 50 connections: OpenSSL on sockets" {
	in_the_middle "$TESTS/ssl_target" --truth "$TRUTH" --mode busy
}

@test "attached in the middle of 50 connections: OpenSSL on memory BIOs" {
	in_the_middle "$TESTS/ssl_target" --truth "$TRUTH" --mode busy --bio mem
}

@test "attached in the middle of 50 connections: node" {
	in_the_middle node "$TESTS/node_target.js" endless "$CERT" "$KEY" "$TRUTH" \
		"$BATS_TEST_TMPDIR/contact"
}

@test "attached in the middle of 50 connections: rustls, tokio on one thread" {
	in_the_middle "$TARGETS/tokio_target" --truth "$TRUTH" --endless both
}

@test "attached in the middle of 50 connections: rustls, tokio on 4 threads" {
	in_the_middle "$TARGETS/tokio_target" --truth "$TRUTH" --endless --threads 4 both
}

@test "10007 short connections: OpenSSL on sockets" {
	traced_calls json '-j -B 262144' "$TESTS/ssl_target" --mode short 10007
}

@test "10007 short connections: OpenSSL on memory BIOs" {
	traced_calls json '-j -B 262144' "$TESTS/ssl_target" --bio mem --mode short 10007
}

@test "10007 short connections: rustls, tokio on one thread" {
	traced_streams "$TARGETS/tokio_target" --short 10007 both
}

# start_addr ARG...: addr_target, through the command in the array BY if there is one
start_addr() {
	ADDRESSES=$BATS_TEST_TMPDIR/addresses
	rm -f "$ADDRESSES"
	start_target "${BY[@]}" "$PYTHON" "$TESTS/addr_target.py" --cert "$CERT" --key "$KEY" \
		--truth "$TRUTH" --addresses "$ADDRESSES" "$@"
}

# true_addresses: each line in JSON has the addresses of its fd as the sockets said them
true_addresses() {
	local wrong
	wrong=$(jq -r '"\(.fd) \(.local) \(.remote)"' "$TRACE" | sort -u | grep -vxFf "$ADDRESSES" || :)
	[[ -s $TRACE && -z $wrong ]] || fail "not among $(tr '\n' ',' <"$ADDRESSES"): $wrong"
}

# addressed FAMILY...: a connection of each, in JSON and in columns
addressed() {
	local wrong
	start_addr "$@"
	start_tlssnoop -j -B 65536 -p "$TARGET_PID"
	go
	wait_target
	ended_well
	compare json
	true_addresses

	start_addr "$@"
	start_tlssnoop -a -q -B 65536 -p "$TARGET_PID"
	go
	wait_target
	ended_well
	wrong=$(awk '{ print $4, $7, $8 }' "$TRACE" | sort -u | grep -vxFf "$ADDRESSES" || :)
	[[ -s $TRACE && -z $wrong ]] || fail "not among $(tr '\n' ',' <"$ADDRESSES"): $wrong"
}

@test "addresses: IPv4, IPv6, IPv4 on an IPv6 socket, unix" {
	local family
	for family in inet inet6 mapped unix; do
		addressed "$family"
	done
	addressed inet unix inet6
}

@test "addresses in another network namespace" {
	# shellcheck disable=SC2016 # for the inner shell
	BY=(unshare -n sh -c 'ip link set lo up && exec "$@"' sh)
	addressed inet6
	addressed inet unix
}

# both_forked PARENT CHILD: the trace of both, with the truth of each
both_forked() {
	one_of_them "$TRACE" "$1" "$TRUTH"
	one_of_them "$TRACE" "$2" "$TRUTH.child"
	cat "$TRACE.$1" "$TRACE.$2" >"$TRACE"
	true_addresses
}

@test "addresses of a connection that a child has inherited" {
	local family child
	for family in inet inet6 unix; do
		start_addr --fork before "$family"
		child=$(sed -n 's/^child //p' "$TARGET_OUT")
		start_tlssnoop -j -B 65536 -p "$TARGET_PID,$child"
		go
		wait_target
		ended_well
		both_forked "$TARGET_PID" "$child"
	done
}

@test "addresses right after a fork" {
	local library child
	library=$("$PYTHON" -c 'import _ssl; print(_ssl.__file__)')
	library=$(ldd "$library" | awk '$1 ~ /^libssl/ { print $3 }')
	start_addr --fork later inet6
	start_tlssnoop -j -B 65536 -l "$library"
	go
	wait_target
	child=$(sed -n 's/^child //p' "$TARGET_OUT")
	stop_tlssnoop
	both_forked "$TARGET_PID" "$child"
}

@test "a plain connection on the same thread that looks like TLS: OpenSSL" {
	local tls bio
	for tls in 1.2 1.3; do
		for bio in socket mem; do
			traced_calls json '-j -B 262144' "$TESTS/ssl_target" --tls "$tls" --bio "$bio" --mode decoy
		done
	done
}

@test "a plain connection on the same thread that looks like TLS: rustls" {
	with_every_tls "$TARGETS/tokio_target" --decoy both
	with_every_tls "$TARGETS/tokio_target" --decoy --threads 4 both
}

# renumbered FORMAT-OPTION BIO: the same socket under several numbers, and the other way round
renumbered() {
	start_target "$TESTS/ssl_target" --truth "$TRUTH" --bio "$2" --mode dup
	start_tlssnoop "$1" -p "$TARGET_PID"
	go
	wait_target
	ended_well
}

@test "dup and dup2 while in use: the fd of the system call" {
	renumbered -x socket	# a format without conn: a connection has several fds
	compare hex
	renumbered -x mem
	compare hex
}

@test "dup and dup2 while in use: still the same connection" {
	local bio
	for bio in socket mem; do
		renumbered -j "$bio"
		"$PYTHON" "$TESTS/trace.py" conns --format json --name 'conn ([0-9]+) ' --ends 2 "$TRACE"
	done
}

# same_bytes: all that the truth has was seen, no other, and nothing with another's fd. Each call
# is one line, and its payload names the connection.
same_bytes() {
	diff <(awk '$1 != "close" { print $1, $3 }' "$TRUTH" | sort) \
		<(awk 'NR > 1 { print $5, $7 }' "$TRACE" | sort) >"$BATS_TEST_TMPDIR/differences" ||
		fail 'other bytes than the truth has' "$(head "$BATS_TEST_TMPDIR/differences")"
	awk 'FNR == NR { truth[$2 " " $1 " " $3] = 1; next }
		FNR == 1 { next }
		$4 == "-" { unknown++; next }
		!(($4 " " $5 " " $7) in truth) { print "wrong: " substr($0, 1, 100); wrong++ }
		END { print FNR - 1, "lines,", unknown + 0, "without fd"; exit wrong > 0 }' \
		"$TRUTH" "$TRACE"
}

# unseen BIO: 100 connections at once, on 200 threads
unseen() {
	start_target "$TESTS/ssl_target" --truth "$TRUTH" --bio "$1" --mode threads
	start_tlssnoop -x -B 65536 -p "$TARGET_PID"
	go
	wait_target
	ended_well
	same_bytes
}

@test "io_uring: the bytes are right, and no fd is wrong" {
	[[ $(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0) == 0 ]] || skip 'no io_uring here'
	unseen uring
	(($(awk 'NR > 1 && $4 != "-"' "$TRACE" | wc -l) == 0)) || fail 'there is an fd: the manual says no'
}

@test "splice: records of which a part is not seen bring no wrong fd" {
	unseen pipe
}
