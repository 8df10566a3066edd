#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Programs that nobody built for a test, under tlssnoop: curl, nginx, openssl, Python; wget, git and
# gnutls-cli, which use GnuTLS; NSS's tools. A relay between client and server keeps every byte of
# the plaintext and, from /proc, the pid and fd of the sockets; the trace has to say the same. Needs
# root, those programs and tlssnoop.
# It must never talk to anything but 127.0.0.1, nor use the machine's own nginx configuration.

load lib

setup() {
	make_certificate
}

teardown() {
	finish
}

# fetches COUNT: a configuration that gets files of every size, COUNT in all, over one connection
fetches() {
	local i size
	for ((i = 0; i < $1; i++)); do
		size=${SIZES[i % ${#SIZES[@]}]}
		echo "url = https://localhost:$RELAY_PORT/$size"
		echo "output = $BATS_TEST_TMPDIR/nginx/got.$BASHPID.$size"
	done
}

# same_files: what was fetched is what nginx has
same_files() {
	local file count=0
	for file in "$BATS_TEST_TMPDIR"/nginx/got.*; do
		cmp "$file" "$BATS_TEST_TMPDIR/nginx/html/${file##*.}"
		count=$((count + 1))
	done
	((count)) || fail 'nothing was fetched'
}

# curl_gets FORMAT RELAY-OPTIONS SNOOP-OPTIONS CURL-OPTION...: all sizes, over one connection
curl_gets() {
	local relay snoop
	read -r -a relay <<<"$2"
	read -r -a snoop <<<"$3"
	start_nginx 1
	start_relay "$NGINX_PORT" "${relay[@]}"
	start_curl "${@:4}"
	start_tlssnoop -p "$CURL_PID" "${snoop[@]}"
	fetches 4 | configure_curl
	wait_curl
	same_files
	wait_relay
	wait_tlssnoop
	compare_account "$1" "$CURL_PID"
}

@test "curl, HTTP/1.1" {
	curl_gets json '' -j --http1.1
}

@test "curl, HTTP/1.1 in the default format" {
	curl_gets ascii '' '' --http1.1
}

@test "curl, HTTP/2" {
	curl --version | grep -q HTTP2 || skip 'this curl has no HTTP/2'
	curl_gets json '--alpn h2' -j --http2
}

@test "curl, HTTP/1.1 with TLS 1.2" {
	curl_gets json '' -j --http1.1 --tls-max 1.2
}

@test "curl, POST and PUT" {
	start_nginx 1
	start_relay "$NGINX_PORT"
	start_curl --http1.1
	start_tlssnoop -j -p "$CURL_PID"
	configure_curl <<-EOF
		url = https://localhost:$RELAY_PORT/post
		data-binary = @$BATS_TEST_TMPDIR/nginx/html/8192
		next
		url = https://localhost:$RELAY_PORT/put/file
		upload-file = $BATS_TEST_TMPDIR/nginx/html/1048576
		silent
		ipv4
		cacert = $CERT
	EOF
	wait_curl
	cmp "$BATS_TEST_TMPDIR/nginx/html/put/file" "$BATS_TEST_TMPDIR/nginx/html/1048576"
	wait_relay
	wait_tlssnoop
	compare_account json "$CURL_PID"
	grep -q '"data":"POST /post HTTP/1.1' "$TRACE"
	grep -q '"data":"PUT /put/file HTTP/1.1' "$TRACE"
}

# nginx_serves WORKERS CONNECTIONS RELAY-OPTIONS CURL-OPTION...: 23 requests over each connection
nginx_serves() {
	local relay i curls=() options=()
	read -r -a relay <<<"$3"
	start_nginx "$1"
	start_relay "$NGINX_PORT" --connections "$2" "${relay[@]}"
	for i in "${WORKERS[@]}"; do
		options+=(-p "$i")
	done
	start_tlssnoop -j -B 131072 "${options[@]}"	# holds it all, however busy the machine is
	for ((i = 0; i < $2; i++)); do
		fetches 23 >"$BATS_TEST_TMPDIR/curl.config.$i"
		curl -q --silent --show-error --fail --ipv4 --cacert "$CERT" "${@:4}" \
			--config "$BATS_TEST_TMPDIR/curl.config.$i" 2>"$BATS_TEST_TMPDIR/curl.stderr" 3>&- &
		curls+=($!)
		STARTED+=($!)
	done
	for i in "${curls[@]}"; do
		wait_pid 60 "$i" || fail 'curl failed'
	done
	same_files
	wait_relay
	kill -QUIT "$NGINX_PID"
	wait_pid 20 "$NGINX_PID"
	wait_tlssnoop
	compare_account json "${WORKERS[@]}"
}

@test "nginx, one worker, 23 requests on each of 5 connections" {
	nginx_serves 1 5 '' --http1.1
}

@test "nginx, two workers, 23 requests on each of 16 connections" {
	SIZES=(1 8192 16385 65537)
	nginx_serves 2 16 '' --http1.1
}

@test "nginx, HTTP/2" {
	nginx_serves 1 3 '--alpn h2' --http2
}

has_size() {
	(($(stat -c %s "$1") == $2))
}

# say_through FROM-FD TO-FILE: lines of several sizes go into one program and come out of another
say_through() {
	local size total
	total=$(stat -c %s "$2")
	for size in 1 100 8192 16384 16385 100000; do
		{
			seq "$size" 200000 | head -c "$size" | tr '\n' ' ' | head -c "$((size - 1))"
			echo
		} >&"$1"
		total=$((total + size))
		eventually 20 has_size "$2" "$total" || fail "$2: not $total bytes"
	done
}

# has_owners COUNT: the relay has seen so many ends of connections
has_owners() {
	(($(find "$ACCOUNT" -name '*.owner' -size +0 | wc -l) == $1))
}

listens() {
	grep -qiE "$(printf %x "$1") .* 0A " /proc/net/tcp /proc/net/tcp6
}

@test "openssl s_client and s_server, attached to an open connection" {
	local port server server_stdin server_out=$BATS_TEST_TMPDIR/server.stdout
	port=$(free_port)
	TARGET_OUT=$server_out launch_target openssl s_server -quiet -naccept 1 \
		-accept "127.0.0.1:$port" -cert "$CERT" -key "$KEY"
	server=$TARGET_PID server_stdin=$TARGET_STDIN
	eventually 10 listens "$port"
	start_relay "$port"
	launch_target openssl s_client -quiet -connect "127.0.0.1:$RELAY_PORT" -CAfile "$CERT"
	eventually 10 has_owners 2
	start_tlssnoop -j -p "$TARGET_PID,$server"
	say_through "$TARGET_STDIN" "$server_out"
	say_through "$server_stdin" "$TARGET_OUT"
	say_through "$TARGET_STDIN" "$server_out"
	kill -TERM "$TARGET_PID"
	wait_relay
	wait_pid 20 "$server"
	wait_tlssnoop
	compare_account json "$TARGET_PID" "$server"
}

@test "wget (GnuTLS), all sizes over one connection" {
	local size sizes=(1 8192 16385 1048576) urls=$BATS_TEST_TMPDIR/urls
	start_nginx 1
	start_relay "$NGINX_PORT"
	mkfifo "$urls" # wget waits for who writes into it
	launch_target wget --no-config --no-verbose --ca-certificate="$CERT" --input-file="$urls" \
		--directory-prefix="$BATS_TEST_TMPDIR/got"
	eventually 10 has_library "$TARGET_PID" libgnutls || fail 'this wget does not use GnuTLS'
	start_tlssnoop -j -p "$TARGET_PID"
	printf "https://localhost:$RELAY_PORT/%s\n" "${sizes[@]}" |
		timeout 20 tee "$urls" >"$BATS_TEST_TMPDIR/urls.written"
	wait_target
	for size in "${sizes[@]}"; do
		cmp "$BATS_TEST_TMPDIR/got/$size" "$BATS_TEST_TMPDIR/nginx/html/$size"
	done
	wait_relay
	wait_tlssnoop
	compare_account json "$TARGET_PID"
}

# make_repository DIRECTORY: with one commit, to be served as files
make_repository() {
	export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
	git init -q -b main "$1"
	seq 200000 >"$1/file"
	git -C "$1" add file
	git -C "$1" -c user.name=test -c user.email=test@localhost commit -qm 'a file'
	git -C "$1" update-server-info
}

@test "git (GnuTLS), refs and objects over one connection" {
	local repository=$BATS_TEST_TMPDIR/nginx/html/repository
	start_nginx 1
	start_relay "$NGINX_PORT"
	make_repository "$repository"
	git init -q "$BATS_TEST_TMPDIR/clone"
	GIT_DIR=$BATS_TEST_TMPDIR/clone/.git GIT_SSL_CAINFO=$CERT GIT_HTTP_MAX_REQUESTS=1 \
		launch_target "$(git --exec-path)/git-remote-https" origin \
		"https://localhost:$RELAY_PORT/repository/.git"
	eventually 10 has_library "$TARGET_PID" libgnutls || fail 'this git does not use GnuTLS'
	start_tlssnoop -j -p "$TARGET_PID"
	printf 'list\nfetch %s refs/heads/main\n\n\n' "$(git -C "$repository" rev-parse main)" \
		>&"$TARGET_STDIN"
	exec {TARGET_STDIN}>&-
	wait_target
	git -C "$BATS_TEST_TMPDIR/clone" cat-file -p "$(git -C "$repository" rev-parse main:file)" |
		cmp - "$repository/file"
	wait_relay
	wait_tlssnoop
	compare_account json "$TARGET_PID"
}

@test "gnutls-cli and gnutls-serv, attached to an open connection" {
	local port server
	port=$(free_port)
	TARGET_OUT=$BATS_TEST_TMPDIR/server.stdout launch_target gnutls-serv --echo --quiet \
		--port "$port" --x509certfile "$CERT" --x509keyfile "$KEY"
	server=$TARGET_PID
	eventually 10 listens "$port"
	start_relay "$port"
	launch_target gnutls-cli --logfile="$BATS_TEST_TMPDIR/cli.log" --x509cafile "$CERT" \
		--port "$RELAY_PORT" localhost
	eventually 10 has_owners 2
	start_tlssnoop -j -p "$TARGET_PID,$server"
	say_through "$TARGET_STDIN" "$TARGET_OUT"
	kill -TERM "$TARGET_PID"
	wait_relay
	kill -TERM "$server"
	wait_pid 20 "$server" || :
	wait_tlssnoop
	compare_account json "$TARGET_PID" "$server"
}

@test "NSS's tstclnt and selfserv (-l), from the first byte" {
	local port server
	make_nss_database
	port=$(free_port)
	TARGET_OUT=$BATS_TEST_TMPDIR/server.stdout launch_target selfserv -d "$NSS_DATABASE" \
		-n localhost -p "$port" -H 1
	server=$TARGET_PID
	eventually 10 listens "$port"
	start_relay "$port"
	start_tlssnoop -j -k nss -l "$("${CC:-cc}" -print-file-name=libnspr4.so)"
	launch_target tstclnt -d "$NSS_DATABASE" -h localhost -p "$RELAY_PORT" -4 -o
	printf 'GET / HTTP/1.0\r\n\r\n' >&"$TARGET_STDIN"
	eventually 20 grep -q '^EOF' "$TARGET_OUT"
	kill -TERM "$TARGET_PID"
	wait_relay
	stop_tlssnoop
	compare_account json "$TARGET_PID" "$server"
}

@test "Python's http.client and http.server, a connection kept alive" {
	local port server
	launch_target /usr/bin/python3 "$TESTS/py_http.py" server "$CERT" "$KEY"
	server=$TARGET_PID
	line_comes '^listening ' "$TARGET_OUT" "$server"
	read -r _ port <"$TARGET_OUT"
	start_relay "$port"
	start_target /usr/bin/python3 "$TESTS/py_http.py" client "$CERT"
	start_tlssnoop -j -p "$server" -p "$TARGET_PID"
	echo "$RELAY_PORT" >&"$TARGET_STDIN"
	wait_target
	wait_relay
	wait_pid 20 "$server"
	wait_tlssnoop
	compare_account json "$TARGET_PID" "$server"
}

# two_targets FIRST-OPTION...: they run one after the other; "A" and "B" stand for their pids
two_targets() {
	local whole=$TRACE pid first first_stdin
	start_target "$TESTS/ssl_target" --mode edges --truth "$TRUTH.first"
	first=$TARGET_PID first_stdin=$TARGET_STDIN
	start_target "$TESTS/ssl_target" --mode ex --truth "$TRUTH.second"
	set -- "${@//A/$first}"
	start_tlssnoop -j "${@//B/$TARGET_PID}"

	echo go >&"$first_stdin"
	wait_pid 60 "$first"
	eventually 10 grep -q "\"pid\":$first," "$TRACE"
	go
	wait_target
	wait_tlssnoop
	((SNOOP_STATUS == 0))
	for pid in "$first first" "$TARGET_PID second"; do
		TARGET_PID=${pid% *} TRUTH=$BATS_TEST_TMPDIR/truth.${pid#* } TRACE=$whole.${pid#* }
		grep "\"pid\":$TARGET_PID," "$whole" >"$TRACE"
		compare json
	done
	[[ $(cat "$whole".* | wc -l) == "$(wc -l <"$whole")" ]] || fail 'lines of another process'
}

@test "two targets at once (-p A,B), to the end of the last" {
	two_targets -p A,B
}

@test "two targets at once (-p A -p B), to the end of the last" {
	two_targets -p A -p B
}
