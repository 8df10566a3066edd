# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What the bats files share: starts the programs to be traced and tlssnoop, waits for them, ends
# them. Use: "load lib" at the head of a bats file, "finish" as its teardown.
#
# In: TLSSNOOP (the program, default: the one of this tree) and PYTHON. Out: the files named below,
# in the test's own directory, shown if the test fails.
# It must never wait by a fixed sleep, nor end a process that it did not start.

TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TLSSNOOP=${TLSSNOOP:-$TESTS/../tlssnoop}
PYTHON=${PYTHON:-python3}

TRUTH=$BATS_TEST_TMPDIR/truth
TRACE=$BATS_TEST_TMPDIR/trace
SNOOP_ERR=$BATS_TEST_TMPDIR/tlssnoop.stderr
TARGET_OUT=$BATS_TEST_TMPDIR/target.stdout
TARGET_ERR=$BATS_TEST_TMPDIR/target.stderr
ACCOUNT=$BATS_TEST_TMPDIR/account	# what a relay keeps
WITNESS=$BATS_TEST_TMPDIR/witness	# what each of many processes says of itself
# shellcheck disable=SC2034 # the tests use it
LIBSSL=$(ldd "$TESTS/ssl_target" 2>/dev/null | awk '$1 ~ /^libssl/ { print $3 }') || :	# the demo has none
SIZES=(1 8192 16385 1048576)	# of the files that nginx has

BY=()	# the command that starts a target, if it is not started plainly
SERVER_DIR=	# of a database
STARTED=()	# pids of this test that nobody has waited for yet

fail() {
	printf '%s\n' "$@" >&2
	return 1
}

# eventually SECONDS COMMAND...: run COMMAND until it succeeds; fail when the time is over
eventually() {
	local end=$((EPOCHSECONDS + $1))
	shift
	until "$@"; do
		((EPOCHSECONDS <= end)) || return 1
		sleep 0.02
	done
}

gone() {
	! kill -0 "$1" 2>/dev/null
}

line_or_gone() {
	grep -q "$1" "$2" || gone "$3"
}

# line_comes PATTERN FILE PID: wait for a line that PID writes; fail if it ends without
line_comes() {
	eventually 60 line_or_gone "$@" && grep -q "$1" "$2"
}

# wait_pid SECONDS PID: its status, once it has ended by itself
wait_pid() {
	local pid=$2 other left=() status=0
	eventually "$1" gone "$pid" || fail "process $pid still runs after $1 s" || return 1
	wait "$pid" || status=$?
	for other in "${STARTED[@]}"; do
		[[ $other == "$pid" ]] || left+=("$other")
	done
	STARTED=("${left[@]}")
	return "$status"
}

# launch_target COMMAND...: with a stdin that TARGET_STDIN leads to; sets TARGET_PID
launch_target() {
	rm -f "$BATS_TEST_TMPDIR/stdin"
	mkfifo "$BATS_TEST_TMPDIR/stdin"
	exec {TARGET_STDIN}<>"$BATS_TEST_TMPDIR/stdin"
	: >"$TARGET_OUT"
	"$@" <"$BATS_TEST_TMPDIR/stdin" >"$TARGET_OUT" 2>"$TARGET_ERR" 3>&- {TARGET_STDIN}>&- &
	TARGET_PID=$!
	STARTED+=("$TARGET_PID")
}

# start_target COMMAND...: returns when it is ready; sets TARGET_PID
start_target() {
	launch_target "$@"
	line_comes '^ready$' "$TARGET_OUT" "$TARGET_PID" ||
		fail "the target did not get ready: $*" "$(cat "$TARGET_ERR")"
}

# go: let the target begin
go() {
	echo go >&"$TARGET_STDIN"
	exec {TARGET_STDIN}>&-
}

wait_target() {
	local status=0
	wait_pid 120 "$TARGET_PID" || status=$?
	((status == 0)) || fail "the target ended with status $status" "$(cat "$TARGET_ERR")"
}

# start_tlssnoop ARG...: returns when all probes are attached; sets SNOOP_PID
start_tlssnoop() {
	: >"$SNOOP_ERR"
	"$TLSSNOOP" "$@" >"$TRACE" 2>"$SNOOP_ERR" 3>&- &
	SNOOP_PID=$!
	STARTED+=("$SNOOP_PID")
	line_comes '^Tracing' "$SNOOP_ERR" "$SNOOP_PID" ||
		fail "$TLSSNOOP $* did not start to trace" "$(cat "$SNOOP_ERR")"
}

# wait_tlssnoop: until it ends by itself; its status is in SNOOP_STATUS
# shellcheck disable=SC2034 # the tests look at it
wait_tlssnoop() {
	SNOOP_STATUS=0
	wait_pid 60 "$SNOOP_PID" || SNOOP_STATUS=$?
	gone "$SNOOP_PID"
}

# instead_of_tlssnoop COMMAND...: this is run, with tlssnoop's arguments behind it
instead_of_tlssnoop() {
	local script=$BATS_TEST_TMPDIR/instead
	{
		echo '#!/bin/bash'
		printf 'exec'
		printf ' %q' "$@"
		# shellcheck disable=SC2016 # for the script
		echo ' "$@"'
	} >"$script"
	chmod +x "$script"
	TLSSNOOP=$script
}

# start_pacer: a program that talks TLS to itself for some seconds, with a pause after each message;
# sets PACER
start_pacer() {
	make_certificate
	cat >"$BATS_TEST_TMPDIR/pacer.py" <<-EOF
		import socket, ssl, sys, threading, time
		contexts = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile="$CERT")
		contexts[0].load_cert_chain("$CERT", "$KEY")
		print("ready", flush=True)
		sys.stdin.readline()
		ends = socket.socketpair()
		greeting = threading.Thread(target=lambda: tls.append(contexts[0].wrap_socket(ends[0], server_side=True)))
		tls = []
		greeting.start()
		client = contexts[1].wrap_socket(ends[1], server_hostname="localhost")
		greeting.join()
		with open("$TRUTH", "w", encoding="ascii") as truth:
		    for i in range(997):
		        message = b"message %d" % i
		        for way, end in ("write", client), ("read", tls[0]):
		            assert (end.send(message) if way == "write" else end.recv(100)) in (message, len(message))
		            print(way, end.fileno(), message.hex(), file=truth)
		        time.sleep(0.004)
	EOF
	start_target /usr/bin/python3 "$BATS_TEST_TMPDIR/pacer.py"
	# shellcheck disable=SC2034 # the tests use it
	PACER=$TARGET_PID
}

# watch_lines: what goes to LINES comes to the trace, and it is seen how late
watch_lines() {
	LINES=$BATS_TEST_TMPDIR/lines
	mkfifo "$LINES"
	"$PYTHON" "$TESTS/late.py" "$TRACE" <"$LINES" >"$LINES.late" 3>&- &
	STARTED+=("$!")
}

# lines_within MS: no line came much later, after tlssnoop has ended: twice as much, and more if many
# want a processor, as a reader has to be run, too
lines_within() {
	local late limit
	eventually 10 test -s "$LINES.late" || fail 'no lines'
	late=$(<"$LINES.late")
	limit=$(awk -v n="$(nproc)" -v ms="$1" '{ print int(ms * ($1 > 2 * n ? $1 / n : 2)) }' /proc/loadavg)
	echo "# the latest line came after $late ms" >&3
	((late < limit)) || fail "a line came after $late ms"
}

# ended_well: tlssnoop has ended, content
ended_well() {
	wait_tlssnoop
	((SNOOP_STATUS == 0)) || fail "tlssnoop ended with status $SNOOP_STATUS"
	grep -q '^tlssnoop: [0-9]* chunks, ' "$SNOOP_ERR" || fail 'no summary'
}

stop_tlssnoop() {
	kill -INT "$SNOOP_PID"
	wait_tlssnoop
}

# compare FORMAT ARG...: the trace of the target with its truth
compare() {
	"$PYTHON" "$TESTS/trace.py" compare --format "$1" --pid "$TARGET_PID" --truth "$TRUTH" \
		"${@:2}" "$TRACE"
}

# pairs TRUTH...: each stream that one end wrote, another end has read
pairs() {
	"$PYTHON" "$TESTS/trace.py" pairs "$@"
}

# observe SNOOP-OPTIONS PROGRAM ARG...: one run of PROGRAM, started by BY, that keeps the truth;
# sets TARGET_COMM
observe() {
	local options
	read -r -a options <<<"$1"
	echo "# traced: ${*:2}"
	start_target "${BY[@]}" "$2" --truth "$TRUTH" "${@:3}"
	TARGET_COMM=$(<"/proc/$TARGET_PID/comm")
	start_tlssnoop "${options[@]}" -p "$TARGET_PID"
	go
	wait_target
	ended_well
}

# The next three are for a program that has both ends of its connections, and compare

# traced_calls FORMAT SNOOP-OPTIONS PROGRAM ARG...: call by call
traced_calls() {
	observe "${@:2}"
	pairs "$TRUTH"
	compare "$1" --comm "$TARGET_COMM"
}

# traced PROGRAM ARG...: the streams, one line for each record
traced() {
	observe -j "$@"
	pairs "$TRUTH"
	compare json --stream --peer-truth "$TRUTH"
}

# traced_streams PROGRAM ARG...: the streams, where nobody knows the records; UNREAD bytes of what
# one end wrote last the other may not have read
traced_streams() {
	observe '-j -B 262144' "$@"
	pairs "$TRUTH"
	compare json --stream --unread "${UNREAD:-0}"
}

# with_every_tls PROGRAM ARG...: the streams, with both versions of TLS
with_every_tls() {
	local tls
	for tls in 1.2 1.3; do
		traced_streams "$1" --tls "$tls" "${@:2}"
	done
}

# make_certificate: once for all tests of a file; sets CERT and KEY. rustls wants no CA as server.
make_certificate() {
	CERT=$BATS_FILE_TMPDIR/cert.pem
	KEY=$BATS_FILE_TMPDIR/key.pem
	[[ -e $CERT ]] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
		-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
		-addext basicConstraints=critical,CA:FALSE \
		-keyout "$KEY" -out "$CERT" 2>"$BATS_FILE_TMPDIR/openssl.stderr" ||
		fail "$(cat "$BATS_FILE_TMPDIR/openssl.stderr")"
}

# make_nss_database: the certificate as NSS wants it; sets NSS_DATABASE
make_nss_database() {
	NSS_DATABASE=$BATS_TEST_TMPDIR/nss
	mkdir "$NSS_DATABASE"
	certutil -N -d "sql:$NSS_DATABASE" --empty-password
	openssl pkcs12 -export -in "$CERT" -inkey "$KEY" -name localhost -passout pass: \
		-out "$NSS_DATABASE/both.p12"
	pk12util -i "$NSS_DATABASE/both.p12" -d "sql:$NSS_DATABASE" -W ''
	certutil -M -d "sql:$NSS_DATABASE" -n localhost -t CT,C,C
}

free_port() {
	"$PYTHON" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
}

# start_relay PORT ARG...: towards the server at PORT; sets RELAY_PID and RELAY_PORT
start_relay() {
	local out=$BATS_TEST_TMPDIR/relay.stdout err=$BATS_TEST_TMPDIR/relay.stderr
	mkdir -p "$ACCOUNT"
	"$PYTHON" "$TESTS/relay.py" --cert "$CERT" --key "$KEY" --account "$ACCOUNT" \
		--upstream "$@" >"$out" 2>"$err" 3>&- &
	RELAY_PID=$!
	STARTED+=("$RELAY_PID")
	line_comes '^listening ' "$out" "$RELAY_PID" || fail 'no relay' "$(cat "$err")"
	# shellcheck disable=SC2034 # the tests look at it
	read -r _ RELAY_PORT <"$out"
}

wait_relay() {
	wait_pid 60 "$RELAY_PID" || fail 'the relay failed' "$(cat "$BATS_TEST_TMPDIR/relay.stderr")"
}

# compare_account FORMAT PID...: the trace of these processes with the relay's account
compare_account() {
	local pid options=()
	((SNOOP_STATUS == 0)) || fail "tlssnoop ended with status $SNOOP_STATUS"
	for pid in "${@:2}"; do
		options+=(--pid "$pid")
	done
	"$PYTHON" "$TESTS/streams.py" --format "$1" --account "$ACCOUNT" "${options[@]}" "$TRACE"
}

# has_library PID NAME
has_library() {
	grep -q "/$2" "/proc/$1/maps"
}

# start_curl ARG...: it waits for its configuration before it connects; sets CURL_PID
start_curl() {
	local config=$BATS_TEST_TMPDIR/curl.config
	[[ -p $config ]] || mkfifo "$config"
	curl -q --disable --silent --show-error --fail --ipv4 --cacert "$CERT" --config "$config" "$@" \
		>"$BATS_TEST_TMPDIR/curl.stdout" 2>"$BATS_TEST_TMPDIR/curl.stderr" 3>&- &
	CURL_PID=$!
	STARTED+=("$CURL_PID")
	eventually 10 has_library "$CURL_PID" libssl || fail 'curl has not loaded libssl'
}

# configure_curl: with what stands on stdin
configure_curl() {
	timeout 20 tee "$BATS_TEST_TMPDIR/curl.config" >"$BATS_TEST_TMPDIR/curl.configured"
}

wait_curl() {
	wait_pid 60 "$CURL_PID" || fail 'curl failed' "$(cat "$BATS_TEST_TMPDIR/curl.stderr")"
}

# built DIRECTORY ARG...: where the programs of this one are; see its build. Says so, as the first
# time takes minutes.
built() {
	echo "# tests/$1/build ${*:2}" >&3
	"$TESTS/$1/build" "${@:2}" 3>&-
}

# build_rustls: the targets there in several ways, for all tests of a file; sets RELEASE, FAT, DEV
# and MANGLED_V0, directories
build_rustls() {
	RELEASE=$(built rustls release)
	FAT=$(built rustls fat)
	DEV=$(built rustls dev)
	MANGLED_V0=$(built rustls release -Csymbol-mangling-version=v0)
	export RELEASE FAT DEV MANGLED_V0
}

# make_tables_test: once for all tests of a file; sets TABLES
make_tables_test() {
	local top=$TESTS/..
	export TABLES=$BATS_FILE_TMPDIR/tables_test
	"${CC:-cc}" -std=c11 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -I"$top" \
		-o "$TABLES" "$TESTS/tables_test.c" "$top"/elfsym_{tables,image,code}.c
}

# rustls_symbols FILE: "role address" for each function that its symbols name; encrypters that
# wrap others have no shape of their own, and need not be found
rustls_symbols() {
	nm "$1" | grep -v -e InvalidMessage -e '[$]u7b[$]' -e ' _RI' -e ' _RNC' \
		-e wrapped | sed -nE \
		-e 's/^(\w+) [tT] .*(Message|Record)Encrypter([$]GT[$])?7encrypt.*/encrypt \1/p' \
		-e 's/^(\w+) [tT] .*(Message|Record)Decrypter([$]GT[$])?7decrypt.*/decrypt \1/p' \
		-e 's/^(\w+) [tT] .*ExpectTraffic.*[E$]6handle.*/handle \1/p' \
		-e 's/^(\w+) [tT] .*ExpectEarlyData.*[E$]6handle.*/early \1/p' | sort -u
}

# without_unwind FILE: takes the program header of its .eh_frame_hdr away
without_unwind() {
	"$PYTHON" - "$1" <<-'END'
		import struct, sys
		data = bytearray(open(sys.argv[1], "rb").read())
		first, size, n = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
		at, = (at for at in range(first, first + size * n, size)
		       if struct.unpack_from("<I", data, at)[0] == 0x6474e550)
		data[at:at + 4] = bytes(4)
		open(sys.argv[1], "wb").write(data)
	END
}

# hide ADDRESS...: no table of $PROGRAM leads to these functions any more
hide() {
	"$PYTHON" - "$PROGRAM" "$@" <<-'END'
		import sys
		path, *addresses = sys.argv[1:]
		data = open(path, "rb").read()
		for address in addresses: data = data.replace(int(address, 16).to_bytes(8, "little"), bytes(8))
		open(path, "wb").write(data)
	END
}

# stacks: "PROGRAM BYTES FUNCTIONS" for each program: the most that one of its functions takes as
# the kernel counts it, in steps of 16, and what each takes
stacks() {
	awk '/BEGIN PROG LOAD LOG/ { name = $3 }
		/^stack depth / {
			n = split($3, a, "+")
			for (most = 0; n; n--)
				if (a[n] > most)
					most = a[n]
			print name, int((most + 15) / 16) * 16, $3
		}'
}

# low_stacks LEAST: what tlssnoop -vv has said of its programs, which are so many at least: none
# uses a stack that a new kernel would share
low_stacks() {
	local bytes name functions programs
	stacks <"$SNOOP_ERR" >"$TRACE.stacks"
	cat "$TRACE.stacks"
	programs=$(wc -l <"$TRACE.stacks")
	((programs == $(grep -c 'BEGIN PROG LOAD LOG' "$SNOOP_ERR") && programs >= $1)) ||
		fail "$programs programs"
	while read -r name bytes functions; do
		((bytes < 64)) || fail "$name $bytes bytes: $functions"
	done <"$TRACE.stacks"
}

# innermost PID: the last of its descendants, each of which is the only child
innermost() {
	local pid=$1 child
	while child=$(pgrep -P "$pid"); do
		pid=$child
	done
	echo "$pid"
}

# chroot_with_target: sets ROOT, a directory with ssl_target and its libraries
chroot_with_target() {
	ROOT=$BATS_TEST_TMPDIR/root
	mkdir -p "$ROOT"
	ldd "$TESTS/ssl_target" | grep -o '/[^ ]*' | xargs cp --parents -L -t "$ROOT"
	cp "$TESTS/ssl_target" "$ROOT/ssl_target"
}

# attached_below DIRECTORY COUNT: so many times were probes of a libssl there attached
attached_below() {
	(($(grep -c "^tlssnoop: attached: $1/.*: SSL_write at " "$SNOOP_ERR") >= $2))
}

# our_objects KIND: ids of the BPF programs or links ("prog", "link") that tlssnoop holds
our_objects() {
	cat "/proc/$SNOOP_PID"/fdinfo/* 2>/dev/null | awk -v kind="$1_id:" '$1 == kind { print $2 }' |
		sort -un
}

has_children() {
	(($(pgrep -c -P "$1") == $2))
}

# start_nginx WORKERS: sets NGINX_PID, NGINX_PORT and the array of WORKERS
start_nginx() {
	local prefix=$BATS_TEST_TMPDIR/nginx size
	NGINX_PORT=$(free_port)
	mkdir -p "$prefix/html"
	for size in "${SIZES[@]}"; do
		seq 200000 | head -c "$size" >"$prefix/html/$size"
	done
	cat >"$prefix/nginx.conf" <<-EOF
		user root;
		daemon off;
		pid $prefix/pid;
		error_log $prefix/error.log;
		worker_processes $1;
		events {}
		http {
			access_log off;
			client_body_temp_path $prefix/body;
			proxy_temp_path $prefix/proxy;
			fastcgi_temp_path $prefix/fastcgi;
			uwsgi_temp_path $prefix/uwsgi;
			scgi_temp_path $prefix/scgi;
			client_max_body_size 2m;
			ssl_certificate $CERT;
			ssl_certificate_key $KEY;
			server {
				listen 127.0.0.1:$NGINX_PORT ssl http2 reuseport;
				root $prefix/html;
				location /put/ {
					dav_methods PUT;
				}
				location /post {
					return 200 "thank you\n";
				}
				location /n/ {
					return 200 "this is \$uri\n";
				}
			}
		}
	EOF
	mkdir -p "$prefix/html/put"
	nginx -p "$prefix" -c "$prefix/nginx.conf" -e "$prefix/error.log" \
		>"$prefix/stdout" 2>"$prefix/stderr" 3>&- &
	NGINX_PID=$!
	STARTED+=("$NGINX_PID")
	eventually 10 has_children "$NGINX_PID" "$1" ||
		fail 'nginx did not start' "$(cat "$prefix/stderr" "$prefix/error.log")"
	# shellcheck disable=SC2034 # the tests use them
	mapfile -t WORKERS < <(pgrep -P "$NGINX_PID")
}

# witnesses: before the first of them
witnesses() {
	mkdir -p "$WITNESS"
	chmod 1777 "$WITNESS"
	! [[ ${CERT-} ]] || cp "$CERT" "$WITNESS/ca"
	WITNESSES=()	# "PID STDIN TRUTH NAME": those that run
}

# start_witness PROGRAM ARG...: as start_target; TRUTH in the arguments is the file for its truth,
# which many.py knows by the pid, and by whether it is made of records
start_witness() {
	local truth=$WITNESS/new.$SRANDOM suffix=
	[[ $1 != */rustls/* ]] || suffix=.stream
	start_target "${@//TRUTH/$truth}"
	WITNESSES+=("$TARGET_PID $TARGET_STDIN $truth $TARGET_PID$suffix")
}

# let_witnesses_go: all of them, to their end
let_witnesses_go() {
	local witness pid stdin truth name
	for witness in "${WITNESSES[@]}"; do
		read -r pid stdin truth name <<<"$witness"
		echo go >&"$stdin"
	done
	for witness in "${WITNESSES[@]}"; do
		read -r pid stdin truth name <<<"$witness"
		exec {stdin}>&-
		wait_pid 120 "$pid" || fail "a target failed: $pid" "$(cat "$TARGET_ERR")"
		mv "$truth" "$WITNESS/$name"
	done
	WITNESSES=()
}

# fetch NAME PATH: a curl that asks nginx; many.py knows it by NAME
fetch() {
	"$TESTS/fetch" "$WITNESS" "$1" "https://localhost:$NGINX_PORT$2" >"$WITNESS/$1.body" 3>&- ||
		fail "curl failed" "$(cat "$WITNESS/$1.said")"
}

# compare_witnesses [OPTION...]: the trace with what they say
compare_witnesses() {
	"$PYTHON" "$TESTS/many.py" "$@" "$WITNESS" "$TRACE"
}

# get_through_tunnel CURL-OPTION...: curl gets files through an HTTPS proxy; sets CURL_PID. Truth of
# the session with the proxy in TRUTH, of the one within in TRUTH.inner.
get_through_tunnel() {
	local out=$BATS_TEST_TMPDIR/tunnel.stdout err=$BATS_TEST_TMPDIR/tunnel.stderr
	local tunnel proxy site size
	: >"$out" # what an earlier one said
	"$PYTHON" "$TESTS/tunnel.py" --cert "$CERT" --key "$KEY" --truth "$TRUTH" \
		--inner-truth "$TRUTH.inner" >"$out" 2>"$err" 3>&- &
	tunnel=$!
	STARTED+=("$tunnel")
	line_comes '^listening ' "$out" "$tunnel" || fail 'no tunnel' "$(cat "$err")"
	read -r _ proxy site <"$out"
	start_curl --http1.1 --proxy "https://localhost:$proxy" --proxy-cacert "$CERT" "$@"
	start_tlssnoop -j -p "$CURL_PID"
	for size in 1 16385 3 300000; do
		echo "url = https://localhost:$site/$size"
		echo "output = $BATS_TEST_TMPDIR/got.$size"
	done | configure_curl
	wait_curl
	for size in 1 16385 3 300000; do
		(($(stat -c %s "$BATS_TEST_TMPDIR/got.$size") == size)) || fail "not $size bytes"
	done
	wait_pid 20 "$tunnel" || fail 'the tunnel failed' "$(cat "$err")"
}

# as_nobody COMMAND...: takes the place of the shell, which is to be one of its own
as_nobody() {
	exec setpriv --reuid nobody --regid nogroup --clear-groups "$@" 3>&-
}

# make_server_dir: with the certificate and its key, for nobody; sets SERVER_DIR
make_server_dir() {
	SERVER_DIR=$(mktemp -d)	# not below the test's, where only root comes
	cp "$CERT" "$KEY" "$SERVER_DIR"
	chown -R nobody "$SERVER_DIR"
}

# mariadb ARG...: the server, for nobody else. Takes the place of the shell.
mariadb() {
	PATH=$PATH:/usr/sbin as_nobody mariadbd --no-defaults \
		--datadir="$SERVER_DIR" --socket="$SERVER_DIR/socket" --pid-file="$SERVER_DIR/pid" \
		--innodb-log-file-size=4M --innodb-buffer-pool-size=8M "$@"
}

# start_mariadb: sets MARIADB_PID and MARIADB_PORT; its user is "tester"
start_mariadb() {
	local err=$BATS_TEST_TMPDIR/mariadb.stderr tables
	MARIADB_PORT=$(free_port)
	make_server_dir
	tables=$(find /usr/share/mysql /usr/share/mariadb -name 'm*_system_tables.sql' -print -quit)
	{
		printf 'create database mysql;\nuse mysql;\n'
		cat "$tables"
		echo "insert into global_priv values ('127.0.0.1', 'tester', '{\"access\": $((2 ** 63 - 1))}');"
	} | mariadb --bootstrap 2>"$err" || fail 'no tables for mariadbd' "$(cat "$err")"
	mariadb --port="$MARIADB_PORT" --bind-address=127.0.0.1 --skip-name-resolve \
		--ssl-cert="$SERVER_DIR/cert.pem" --ssl-key="$SERVER_DIR/key.pem" 2>"$err" &
	MARIADB_PID=$!
	STARTED+=("$MARIADB_PID")
	line_comes 'ready for connections' "$err" "$MARIADB_PID" || fail 'no mariadbd' "$(cat "$err")"
}

# finish: as teardown: end what the test left behind, and show its files if it failed
finish() {
	local pid file
	for pid in "${STARTED[@]}"; do
		kill -TERM "$pid" 2>/dev/null || continue
		eventually 5 gone "$pid" || kill -KILL "$pid"
		wait "$pid" || :
	done
	[[ -z $SERVER_DIR ]] || rm -r "$SERVER_DIR"
	[[ -z $BATS_TEST_COMPLETED ]] || return 0
	for file in "$TARGET_OUT" "$TARGET_ERR" "$BATS_TEST_TMPDIR"/{relay,curl}.stderr \
		"$SNOOP_ERR" "$TRACE"; do
		[[ -s $file ]] || continue
		echo "--- $file (first 20 lines)"
		head -n 20 "$file" | cut -c -200
	done
}
