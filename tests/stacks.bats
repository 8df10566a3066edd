#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# TLS as Rust programs have it: below a library for HTTP, gRPC, WebSocket or SQL, with rustls,
# OpenSSL or BoringSSL. Truth comes from a witness between library and TLS in the same process, or
# where both ends hide their TLS from a relay between them. The databases are real servers, with
# their own clients too. Needs root, MariaDB, PostgreSQL, a cargo that tests/rustls/build accepts,
# what OpenSSL and BoringSSL are built with (C, C++, cmake, libclang), and tlssnoop; the first build
# takes minutes and fetches crates.
# It must never pass without having compared both directions of every connection that is to be shown.

load lib

setup_file() {
	STACKS=$(built stacks release)
	SHARED=$(OPENSSL_NO_VENDOR=1 built native release)
	VENDORED=$(built native vendored)
	BORING=$(built boring release)
	export STACKS SHARED VENDORED BORING
}

setup() {
	make_certificate
}

teardown() {
	finish
}

@test "ureq, three servers in turn over connections kept alive" {
	with_every_tls "$STACKS/ureq_target" 67
}

@test "futures-rustls, both ends of 53 connections on one thread" {
	with_every_tls "$STACKS/futures_target" 53
}

# http CLIENT: by HTTP/1.1 and HTTP/2, with both versions of TLS
http() {
	local version UNREAD
	for version in 1 2; do
		# of HTTP/2 a server may still send some frames to a client that has what it wants, and
		# the client says goodbye when tokio takes its tasks apart, if another thread is in time
		# shellcheck disable=SC2034 # for traced_streams
		UNREAD=$((version == 2 ? 100 : 0))
		with_every_tls "$STACKS/http_target" "$1" "$version" 23
		traced_streams "$STACKS/http_target" --threads 4 "$1" "$version" 23
	done
}

@test "hyper with hyper-rustls asks axum, HTTP/1.1 and HTTP/2" {
	http hyper
}

@test "reqwest asks axum, HTTP/1.1 and HTTP/2" {
	http reqwest
}

@test "warp, 11 connections on one thread" {
	with_every_tls "$STACKS/warp_target" "$CERT" "$KEY" 11
}

@test "tokio-tungstenite, both ends of 11 connections on one thread" {
	with_every_tls "$STACKS/websocket_target" 11
}

@test "tonic, 7 streams at once through one connection, client and server" {
	local port server stdin
	launch_target "$STACKS/tonic_target" server "$CERT" "$KEY"
	server=$TARGET_PID stdin=$TARGET_STDIN
	line_comes '^listening ' "$TARGET_OUT" "$server"
	read -r _ port <"$TARGET_OUT"
	start_relay "$port" --alpn h2
	start_target "$STACKS/tonic_target" client "$CERT" 7
	start_tlssnoop -j -B 65536 -p "$server,$TARGET_PID"
	echo "$RELAY_PORT" >&"$TARGET_STDIN"
	wait_target
	wait_relay
	echo stop >&"$stdin"
	exec {stdin}>&-
	wait_pid 20 "$server"
	ended_well
	compare_account json "$TARGET_PID" "$server"
}

@test "sqlx, 503 queries at once through a pool of 5 connections on one thread" {
	start_mariadb
	start_target "$STACKS/sqlx_target" --truth "$TRUTH" \
		"mysql://tester@127.0.0.1:$MARIADB_PORT/?ssl-mode=REQUIRED" 503
	start_tlssnoop -j -B 65536 -p "$TARGET_PID"
	go
	wait_target
	ended_well
	"$PYTHON" "$TESTS/trace.py" owners --name 'query [0-9]+;' --owners "$TRUTH" "$TRACE"
}

@test "sqlx and MariaDB, byte for byte, both of them" {
	start_mariadb
	start_relay "$MARIADB_PORT" --starttls mysql --connections 5
	start_target "$STACKS/sqlx_target" "mysql://tester@127.0.0.1:$RELAY_PORT/?ssl-mode=REQUIRED" 503
	start_tlssnoop -j -B 65536 -p "$TARGET_PID,$MARIADB_PID"
	go
	wait_target
	wait_relay
	kill -TERM "$MARIADB_PID"
	wait_pid 60 "$MARIADB_PID"
	ended_well
	compare_account json "$TARGET_PID" "$MARIADB_PID"
}

# start_postgres: sets POSTGRES_PID and POSTGRES_PORT; its user is "tester"
start_postgres() {
	local err=$BATS_TEST_TMPDIR/postgres.stderr bin
	bin=$(dirname "$(find /usr/lib/postgresql -name initdb -print -quit)")
	POSTGRES_PORT=$(free_port)
	make_server_dir
	(as_nobody "$bin/initdb" --no-sync -A trust -U tester -D "$SERVER_DIR/data") \
		>"$err" 2>&1 || fail 'no database' "$(cat "$err")"
	(LC_ALL=C as_nobody "$bin/postgres" -D "$SERVER_DIR/data" -p "$POSTGRES_PORT" -h 127.0.0.1 \
		-c unix_socket_directories= -c ssl=on -c ssl_cert_file="$SERVER_DIR/cert.pem" \
		-c ssl_key_file="$SERVER_DIR/key.pem") 2>"$err" &
	POSTGRES_PID=$!
	STARTED+=("$POSTGRES_PID")
	line_comes 'ready to accept connections' "$err" "$POSTGRES_PID" ||
		fail 'no postgres' "$(cat "$err")"
}

@test "tokio-postgres and PostgreSQL, 503 queries on 5 connections" {
	local tls
	start_postgres
	for tls in 1.2 1.3; do
		observe '-j -B 262144' "$STACKS/postgres_target" --tls "$tls" "$POSTGRES_PORT" "$CERT" 503
		compare json --stream
	done
	grep -q '"dir":"write".*SELECT REPEAT(.query 2;., 7)' "$TRACE"
	jq -r 'select(.dir == "read") | .data // (.data_base64 | @base64d)' "$TRACE" |
		grep -q 'query 2;query 2;'
}

# make_queries: a file of SQL, and one with the rows that it gives
make_queries() {
	local i long
	long=$(seq 100000 | head -c 100003 | tr '\n' ' ')
	for ((i = 0; i < 101; i++)); do
		echo "SELECT REPEAT('query $i;', 7);"
	done >"$BATS_TEST_TMPDIR/queries"
	for ((i = 0; i < 101; i++)); do
		printf "query $i;%.0s" {1..7}
		echo
	done >"$BATS_TEST_TMPDIR/rows"
	echo "SELECT '$long';" >>"$BATS_TEST_TMPDIR/queries"
	echo "$long" >>"$BATS_TEST_TMPDIR/rows"
}

# start_waiting COMMAND...: a program that gets to work as soon as it is started
start_waiting() {
	# shellcheck disable=SC2016 # for sh
	start_target sh -c 'echo ready; read line; exec "$@"' sh "$@"
}

# owners: pids of both ends of all connections that the relay knows
owners() {
	cut -d ' ' -f 1 "$ACCOUNT"/*.owner | sort -u
}

@test "psql and PostgreSQL, byte for byte, a process for each connection (-f)" {
	local tls client pids
	make_queries
	start_postgres
	for tls in 1.2 1.3; do
		start_relay "$POSTGRES_PORT" --starttls postgres
		start_waiting env PGGSSENCMODE=disable PGSSLMODE=verify-full "PGSSLROOTCERT=$CERT" \
			"PGSSLMAXPROTOCOLVERSION=TLSv$tls" "PGPORT=$RELAY_PORT" PGHOST=127.0.0.1 \
			psql --no-psqlrc -U tester -At -f "$BATS_TEST_TMPDIR/queries" postgres
		client=$TARGET_PID
		start_tlssnoop -j -f -p "$POSTGRES_PID,$client"
		go
		wait_target
		tail -n +2 "$TARGET_OUT" | diff - "$BATS_TEST_TMPDIR/rows"
		wait_relay
		stop_tlssnoop
		mapfile -t pids < <(owners)
		[[ ${#pids[@]} == 2 && " ${pids[*]} " == *" $client "* && " ${pids[*]} " != *" $POSTGRES_PID "* ]]
		compare_account json "${pids[@]}"
		rm -r "$ACCOUNT"
	done
}

@test "mariadb and MariaDB, byte for byte, among all processes of the machine" {
	local tls client
	make_queries
	start_mariadb
	for tls in 1.2 1.3; do
		start_relay "$MARIADB_PORT" --starttls mysql
		start_waiting mariadb --no-defaults --protocol=tcp -h 127.0.0.1 -P "$RELAY_PORT" -u tester \
			--ssl-ca="$CERT" --ssl-verify-server-cert --tls-version="TLSv$tls" -N -B \
			-e "source $BATS_TEST_TMPDIR/queries"
		client=$TARGET_PID
		start_tlssnoop -j -B 65536
		go
		wait_target
		tail -n +2 "$TARGET_OUT" | diff - "$BATS_TEST_TMPDIR/rows"
		wait_relay
		stop_tlssnoop
		jq -c "select(.pid == $client or .pid == $MARIADB_PID)" "$TRACE" >"$TRACE.both"
		TRACE=$TRACE.both compare_account json "$client" "$MARIADB_PID"
		rm -r "$ACCOUNT"
	done
}

# with_openssl TARGET: both versions of TLS
with_openssl() {
	traced_calls json '-j -B 262144' "$1" "$CERT" "$KEY" 5
	traced_calls json '-j -B 262144' "$1" --old "$CERT" "$KEY" 5
}

@test "native-tls and the openssl crate with the libssl of the machine" {
	with_openssl "$SHARED/tlssnoop-native-target"
}

@test "native-tls and the openssl crate, vendored" {
	with_openssl "$VENDORED/tlssnoop-native-target"
}

@test "native-tls and the openssl crate, vendored and stripped" {
	local copy=$BATS_TEST_TMPDIR/native
	strip -o "$copy" "$VENDORED/tlssnoop-native-target"
	with_openssl "$copy"
}

@test "the boring crate: BoringSSL in the executable" {
	local program=$BORING/tlssnoop-boring-target
	(($(ldd "$program" | grep -cE 'ssl|crypto') == 0))
	grep -q BoringSSL "$program"
	with_openssl "$program"
}

@test "the boring crate, stripped: it says that nothing is found, and nothing wrong is shown" {
	local copy=$BATS_TEST_TMPDIR/boring
	strip -o "$copy" "$BORING/tlssnoop-boring-target"
	start_target "$copy" --truth "$TRUTH" "$CERT" "$KEY" 5
	run "$TLSSNOOP" -p "$TARGET_PID"
	[[ $status -eq 1 && $output == "tlssnoop: nothing to trace: pid $TARGET_PID "* ]] || fail "$output"
	start_tlssnoop -j
	go
	wait_target
	stop_tlssnoop
	((SNOOP_STATUS == 0))
	(($(jq -c "select(.pid == $TARGET_PID)" "$TRACE" | wc -l) == 0))
}
