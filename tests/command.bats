#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# tlssnoop -- COMMAND: all of a command from its first byte, whatever it executes or starts, and the
# command as it would be without: streams, status, signals, terminal. Each process says itself what
# it sent and received. Needs root, curl, nginx, sudo, the programs next to this file, tests/rustls.
# It must never compare with what a shell is believed to do, but with the same command in a shell.

# shellcheck disable=SC2030,SC2031 # each test is a subshell of its own, and what it sets ends with it

load lib

setup_file() {
	RELEASE=$(built rustls release)
	export RELEASE
}

setup() {
	make_certificate
	witnesses
	cd "$BATS_TEST_TMPDIR" || return
	export TESTS WITNESS
}

teardown() {
	finish
}

# snoop COMMAND...: all of it, with its own stdin; STATUS is what came of it
snoop() {
	STATUS=0
	timeout 60 "$TLSSNOOP" -j -o "$TRACE" -- "$@" >"$TARGET_OUT" 2>"$SNOOP_ERR" 3>&- || STATUS=$?
	grep -q '^Tracing pid ' "$SNOOP_ERR" || fail 'no start line' "$(cat "$SNOOP_ERR")"
	grep -q '^tlssnoop: [0-9]* chunks, .* 0 lost$' "$SNOOP_ERR" || fail 'no summary' "$(cat "$SNOOP_ERR")"
}

# snoop_well COMMAND...: and it succeeds
snoop_well() {
	snoop "$@"
	((STATUS == 0)) || fail "status $STATUS" "$(cat "$SNOOP_ERR")"
}

# url NAME: what nginx has for everybody
url() {
	echo "https://localhost:$NGINX_PORT/n/$1"
}

# script LINE...: an executable script for sh, with all paths in its environment
script() {
	{
		echo '#!/bin/sh'
		printf '%s\n' "$@"
	} >"$BATS_TEST_TMPDIR/script"
	chmod +x "$BATS_TEST_TMPDIR/script"
}

# keep_truth SUFFIX: of the process that wrote its pid
keep_truth() {
	mv "$WITNESS/new" "$WITNESS/$(<"$WITNESS/self")$1"
	rm "$WITNESS/self"
}

# ---- what is seen ----

@test "curl in a pipe" {
	start_nginx 1
	# shellcheck disable=SC2016 # for sh
	snoop_well sh -c '"$TESTS/fetch" "$WITNESS" pipe "$0" | tee "$WITNESS/pipe.body" | head -n 1' \
		"$(url pipe)"
	[[ $(<"$TARGET_OUT") == 'this is /n/pipe' ]]
	compare_witnesses --alone
}

@test "curl itself, and through programs that execute it" {
	local wrapper
	start_nginx 1
	# shellcheck disable=SC2016 # for sh
	script 'exec "$@"'
	# shellcheck disable=SC2016 # for sh
	printf '#!/bin/sh\n"$@"\nexit $?\n' >child
	chmod +x child
	while read -r -a wrapper; do
		echo "# ${wrapper[*]}"
		snoop_well "${wrapper[@]}" "$TESTS/fetch" "$WITNESS" one "$(url one)"
		cp "$TARGET_OUT" "$WITNESS/one.body"
		compare_witnesses --alone
	done <<-'EOF'
		env A=B
		nice -n 1
		nohup
		timeout 20
		setsid -w
		./script
		./child
		env nice ./script ./child nohup ./script
		xargs -0 -a /dev/null
	EOF
}

@test "a script, its children, and theirs" {
	start_nginx 1
	# shellcheck disable=SC2016 # for sh
	script 'fetch() { "$TESTS/fetch" "$WITNESS" "$1" "$URL$1" >"$WITNESS/$1.body"; }' \
		'fetch child' \
		'(fetch left) & (fetch right) & wait' \
		"sh -c 'sh -c \"\\\"\$TESTS/fetch\\\" \\\"\$WITNESS\\\" third \${URL}third >\\\"\$WITNESS/third.body\\\"; true\"; true'" \
		'exec "$TESTS/fetch" "$WITNESS" last "${URL}last" >"$WITNESS/last.body"'
	URL=$(url '') snoop_well ./script
	(($(find "$WITNESS" -name '*.pid' | wc -l) == 5))
	compare_witnesses --alone
}

@test "a Python program, which loads libssl when it likes" {
	# shellcheck disable=SC2016 # for sh
	snoop_well sh -c 'echo $$ >"$WITNESS/self"; exec "$@" --truth "$WITNESS/new"' sh \
		/usr/bin/python3 "$TESTS/py_target.py" --cert "$CERT" --key "$KEY" <<<go
	keep_truth ''
	compare_witnesses --alone
}

@test "a program that has its own libssl, never seen before" {
	local own=$BATS_TEST_TMPDIR/own/${LIBSSL##*/}
	mkdir "${own%/*}"
	cp -L "$LIBSSL" "$own"
	# shellcheck disable=SC2016 # for sh
	LD_LIBRARY_PATH=${own%/*} snoop_well sh -c \
		'echo $$ >"$WITNESS/self"; exec "$TESTS/ssl_target" --mode edges --truth "$WITNESS/new"' <<<go
	keep_truth ''
	compare_witnesses --alone
}

@test "cargo run of a rustls program, never seen before" {
	# shellcheck disable=SC2016 # for sh
	snoop_well sh -c 'echo $$ >"$WITNESS/self"
		exec "$TESTS/rustls/build" --run std_target --truth "$WITNESS/new" edges' <<<go
	keep_truth .stream
	compare_witnesses
}

@test "a rustls program as a child, never seen before" {
	cp "$RELEASE/std_target" "$BATS_TEST_TMPDIR/unseen"
	# shellcheck disable=SC2016 # for sh
	snoop_well sh -c 'sh -c '\''echo $$ >"$WITNESS/self"
		exec ./unseen --truth "$WITNESS/new" edges'\''; true' <<<go
	keep_truth .stream
	compare_witnesses --alone
}

@test "su, and a program with the set-user-ID bit" {
	start_nginx 1
	chmod 711 "$BATS_TEST_TMPDIR" "$BATS_FILE_TMPDIR" "$BATS_RUN_TMPDIR"
	# shellcheck disable=SC2016 # for sh
	snoop_well su nobody -s /bin/sh -c 'curl -s --http1.1 --cacert "$WITNESS/ca" -o "$WITNESS/su.body" \
		-D "$WITNESS/su.head" '"$(url su)"
	seen_of_nobody su

	cp /usr/bin/curl "$BATS_TEST_TMPDIR/curl"
	chmod 4755 "$BATS_TEST_TMPDIR/curl"
	cp "$CERT" secret
	chmod 600 secret	# which only the bit lets it read
	snoop_well setpriv --reuid nobody --clear-groups "$BATS_TEST_TMPDIR/curl" -s --http1.1 --cacert secret \
		-D "$WITNESS/suid.head" -o "$WITNESS/suid.body" "$(url suid)"
	[[ $(<"$WITNESS/suid.body") == 'this is /n/suid' ]]
	has_exchange suid
}

# sudo_curl NAME: as nobody; sets SUDO, the command
sudo_curl() {
	SUDO=(sudo -n -u nobody curl -s --http1.1 --cacert "$WITNESS/ca" -o "$WITNESS/$1.body"
		-D "$WITNESS/$1.head" "$(url "$1")")
}

# seen_of_nobody NAME: what its curl has said and got, and nothing else
seen_of_nobody() {
	[[ $(<"$WITNESS/$1.body") == "this is /n/$1" ]]
	(($(jq -s 'map(select(.uid == '"$(id -u nobody)"' and .comm == "curl")) | length' "$TRACE") == $(wc -l <"$TRACE")))
	has_exchange "$1"
}

@test "sudo, without and on a terminal" {
	start_nginx 1
	chmod 711 "$BATS_TEST_TMPDIR" "$BATS_FILE_TMPDIR" "$BATS_RUN_TMPDIR"
	sudo_curl plain
	snoop_well "${SUDO[@]}"
	seen_of_nobody plain
	sudo_curl terminal
	"$PYTHON" "$TESTS/terminal.py" -- "$TLSSNOOP" -j -o "$TRACE" -- "${SUDO[@]}" >"$TARGET_OUT" 3>&-
	seen_of_nobody terminal
}

# has_exchange NAME: one request, and all of the answer
has_exchange() {
	jq -e -s 'map(select(.dir == "write")) | length == 1 and
		(.[0].data | startswith("GET /n/'"$1"' HTTP/1.1\r\n") and endswith("\r\n\r\n"))' "$TRACE"
	jq -j -s 'map(select(.dir == "read").data) | add' "$TRACE" | cmp - <(cat "$WITNESS/$1".{head,body})
}

# ---- its status and streams ----

@test "the command's status" {
	local given
	for given in 0 1 3 64 255; do
		snoop sh -c "exit $given"
		((STATUS == given)) || fail "exit $given: status $STATUS"
	done
	for given in TERM KILL SEGV PIPE INT HUP; do
		# shellcheck disable=SC2016 # for sh
		snoop sh -c 'kill -s "$0" $$' "$given"
		((STATUS == 128 + $(kill -l "$given"))) || fail "SIG$given: status $STATUS"
	done
}

# cannot STATUS MESSAGE COMMAND...
cannot() {
	local status=0
	"$TLSSNOOP" -- "${@:3}" >"$TRACE" 2>"$SNOOP_ERR" || status=$?
	((status == $1)) || fail "status $status"
	[[ $(<"$SNOOP_ERR") == "tlssnoop: $2" ]] || fail "instead of: $2" "it says: $(<"$SNOOP_ERR")"
	[[ ! -s $TRACE ]]
}

@test "no such command, and one that cannot be executed" {
	: >"$BATS_TEST_TMPDIR/plain"
	cannot 127 'cannot run: no-such-command: No such file or directory' no-such-command
	cannot 127 'cannot run: ./none: No such file or directory' ./none -x
	cannot 127 'cannot run: -x: No such file or directory' -x -p 1
	cannot 126 'cannot run: ./plain: Permission denied' ./plain
	cannot 126 'cannot run: /: Permission denied' /
}

@test "what stands behind -- belongs to the command" {
	snoop_well printf '%s\n' -x --help -- -p 1 -j
	[[ $(<"$TARGET_OUT") == $'-x\n--help\n--\n-p\n1\n-j' ]]
	snoop_well sh -c 'echo "$@"' -- -c 'a  b' ''
	[[ $(<"$TARGET_OUT") == '-c a  b ' ]]
}

@test "stdin, stdout and stderr are its own" {
	local out=$BATS_TEST_TMPDIR/streams
	seq 200000 >"$out.in"
	"$TLSSNOOP" -j -o "$TRACE" -- sh -c 'cat; seq 99 >&2' <"$out.in" >"$out.out" 2>"$out.err"
	cmp "$out.in" "$out.out"
	grep -v -e '^Tracing' -e '^tlssnoop:' "$out.err" | cmp - <(seq 99)
	# shellcheck disable=SC2016 # for sh
	script 'cd /proc/self/fd && for fd in [0-9]*; do ! [ -e "$fd" ] || readlink "$fd"; done'
	./script <"$out.in" 2>/dev/null | cat >"$out.plain"
	"$TLSSNOOP" -o "$TRACE" -- ./script <"$out.in" 2>/dev/null | cat >"$out.traced"
	diff <(sed 's/pipe:.*/pipe/' "$out.plain") <(sed 's/pipe:.*/pipe/' "$out.traced")
	(($(wc -l <"$out.plain") >= 3))
}

@test "its children may outlive it, and nobody waits for them" {
	local begin=$EPOCHSECONDS
	snoop_well sh -c 'sleep 20 & echo $!'
	STARTED+=("$(<"$TARGET_OUT")")
	((EPOCHSECONDS - begin < 10))
	gone "$(<"$TARGET_OUT")" && fail 'the child is gone'
	true
}

@test "-c, -d and a closed output end the lines, not the command" {
	local status=0
	start_nginx 1
	# shellcheck disable=SC2016 # for sh
	script '"$TESTS/fetch" "$WITNESS" "$1" "$2" >"$WITNESS/$1.body" || exit 9'
	status=0
	"$TLSSNOOP" -j -c 1 -o "$TRACE" -- sh -c "./script one $(url one); ./script two $(url two); exit 4" \
		2>"$SNOOP_ERR" || status=$?
	((status == 4)) || fail "-c: status $status"
	[[ -s $WITNESS/two.body ]] && (($(wc -l <"$TRACE") == 1))
	grep -q '^tlssnoop: 1 chunks' "$SNOOP_ERR"

	launch_target "$TLSSNOOP" -j -d 1 -o "$TRACE" -- \
		sh -c "read line; ./script late $(url late); exit 5"
	eventually 20 grep -q '^tlssnoop: 0 chunks' "$TARGET_ERR"
	! gone "$TARGET_PID" || fail '-d: it has ended'
	go
	status=0
	wait_pid 20 "$TARGET_PID" || status=$?
	((status == 5)) || fail "-d: status $status"
	[[ -s $WITNESS/late.body && ! -s $TRACE ]]

	"$TLSSNOOP" -j -- sh -c "./script three $(url three); ./script four $(url four); exit 6" \
		2>"$SNOOP_ERR" | head -c 1 >"$TRACE"
	((PIPESTATUS[0] == 6)) || fail "closed: status ${PIPESTATUS[0]}"
	[[ -s $WITNESS/four.body ]]
}

# ---- as if a shell had started it ----

@test "signals, limits, environment: as without tlssnoop" {
	local how
	# shellcheck disable=SC2016 # for sh
	script 'grep "^Sig[BIC]" /proc/self/status; ulimit -a; umask; pwd; env | grep -v -e ^_= -e ^BATS_; nice; echo "$0" "$@"'
	umask 027
	for how in '' --ignore-signal=INT,TERM,HUP,PIPE,USR1,CHLD --default-signal=INT,PIPE \
		--block-signal=USR1,CONT; do
		env $how ./script a 'b  c' >plain
		env $how "$TLSSNOOP" -o "$TRACE" -- ./script a 'b  c' >traced 2>"$SNOOP_ERR"
		diff plain traced || fail "$how"
	done
	grep -q '^SigIgn' plain
}

# made once: says how it stands to its terminal, and what comes to it
make_member() {
	cat >member <<-'EOF'
		import os, signal, sys
		def took(number, _):
		    print("took", signal.Signals(number).name, flush=True)
		    sys.exit(5)
		for number in signal.SIGINT, signal.SIGTERM:
		    signal.signal(number, took)
		print("session", os.getsid(0) == os.getsid(os.getppid()), "group",
		      os.getpgrp() == os.getpgid(os.getppid()), "foreground",
		      os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp(), flush=True)
		open("member.pid", "w").write(str(os.getpid()))
		print("ready", flush=True)
		print("read", sys.stdin.readline().strip(), flush=True)
	EOF
}

# dialogue STATUS STEP...: with terminal.py
dialogue() {
	local status=0
	timeout 100 "$PYTHON" "$TESTS/terminal.py" "${@:2}" >"$TARGET_OUT" 2>"$TARGET_ERR" 3>&- || status=$?
	((status == $1)) || fail "status $status" "$(cat "$TARGET_OUT")"
}

@test "on a terminal: its session, group and foreground; ^C goes to both" {
	make_member
	dialogue 5 expect 'session True group True foreground True' expect ready send '\x03' \
		expect 'took SIGINT' expect 'tlssnoop: 0 chunks' \
		-- "$TLSSNOOP" -o "$TRACE" -- /usr/bin/python3 member
	(($(grep -c 'took SIGINT' "$TARGET_OUT") == 1))
	dialogue 0 expect ready send 'a line\n' expect 'read a line' expect 'tlssnoop: 0 chunks' \
		-- "$TLSSNOOP" -o "$TRACE" -- /usr/bin/python3 member
	dialogue 130 expect Tracing send '\x03' expect 'tlssnoop: 0 chunks' \
		-- "$TLSSNOOP" -o "$TRACE" -- sleep 60
}

@test "on a terminal: ^Z stops both, fg and bg go on" {
	make_member
	export TLSSNOOP TRACE
	# the shell waits for tlssnoop alone; until member has stopped it may still take a line
	# shellcheck disable=SC2016 # for bash
	dialogue 0 expect '\$ ' \
		send '"$TLSSNOOP" -o "$TRACE" -- /usr/bin/python3 member\n' expect 'foreground True' expect ready \
		send '\x1a' expect Stopped stopped member.pid expect '\$ ' \
		send 'grep -c State:.T /proc/$(cat member.pid)/status /proc/$!/status; jobs -s\n' \
		expect 'status:1' expect 'Stopped' expect '\$ ' \
		send 'fg\n' expect 'member' \
		send 'a line\n' expect 'read a line' expect 'tlssnoop: 0 chunks' expect '\$ ' \
		send 'exit 0\n' -- env PS1='$ ' bash --norc --noprofile -i
}

@test "a signal for tlssnoop alone is passed on; the second ends it" {
	make_member
	start_target "$TLSSNOOP" -o "$TRACE" -- /usr/bin/python3 member
	kill -TERM "$TARGET_PID"
	STATUS=0
	wait_pid 20 "$TARGET_PID" || STATUS=$?
	grep -q '^took SIGTERM' "$TARGET_OUT"
	((STATUS == 5)) || fail "status $STATUS"
	grep -q '^tlssnoop: 0 chunks' "$TARGET_ERR"

	start_target "$TLSSNOOP" -o "$TRACE" -- sh -c 'trap "echo took" TERM; echo $$ >pid; echo ready
		while ! read line; do :; done; echo over'
	kill -TERM "$TARGET_PID"
	eventually 20 grep -q '^took' "$TARGET_OUT"
	kill -TERM "$TARGET_PID"
	STATUS=0
	wait_pid 20 "$TARGET_PID" || STATUS=$?
	((STATUS == 143)) || fail "status $STATUS"
	! gone "$(<pid)" || fail 'the command is gone'
	go
	eventually 20 grep -q '^over' "$TARGET_OUT"
	eventually 20 gone "$(<pid)"
}

has_state() {
	grep -q "State:.$2" "/proc/$1/status"
}

@test "a command that the user stops stays stopped" {
	local pid
	start_nginx 1
	mkfifo later
	# the child works while its parent is stopped
	# shellcheck disable=SC2016 # for sh
	start_target "$TLSSNOOP" -j -o "$TRACE" -- sh -c 'echo $$ >pid
		(read line; exec "$TESTS/fetch" "$WITNESS" child "$0" >"$WITNESS/child.body") <later &
		echo ready; read line; exit 7' "$(url child)"
	pid=$(<pid)
	kill -STOP "$pid"
	eventually 10 has_state "$pid" T
	echo go >later
	eventually 20 lines_of_child
	has_state "$pid" T
	kill -CONT "$pid"
	go
	STATUS=0
	wait_pid 20 "$TARGET_PID" || STATUS=$?
	((STATUS == 7)) || fail "status $STATUS"
	compare_witnesses --alone
}

lines_of_child() {
	(($(wc -l <"$TRACE") == 2))
}

@test "no parent takes notice of its children being stopped" {
	local number
	for number in 1 2 3 4; do
		cp "$RELEASE/std_target" "new$number"
	done
	cat >parent <<-'EOF'
		import subprocess, sys
		children = [subprocess.Popen(["./new" + number, "--truth", "truth" + number, "bulk", "3", "100"],
		                             stdin=subprocess.PIPE) for number in ("1", "2")]
		for child in children:
		    child.communicate(b"go\n")
		    if child.returncode:
		        sys.exit(f"child {child.pid}: {child.returncode}")
	EOF
	snoop_well /usr/bin/python3 parent
	(($(grep -c ready "$TARGET_OUT") == 2))
	# shellcheck disable=SC2016 # for bash
	snoop_well bash -mc './new3 --truth truth3 bulk 3 100 <<<go; echo "status $?"; jobs -s'
	[[ $(grep -v '^ready' "$TARGET_OUT") == 'status 0' ]] || fail "$(<"$TARGET_OUT")"
	snoop_well su root -s /bin/sh -c "cd '$PWD' && ./new4 --truth truth4 bulk 3 100; echo \"status \$?\"" <<<go
	[[ $(grep -v '^ready' "$TARGET_OUT") == 'status 0' ]] || fail "$(<"$TARGET_OUT")"
}

chain_ended() {
	[[ -e finished ]] && gone "$(<pid)"
}

@test "kill -9 of tlssnoop does the command no harm" {
	local i status
	start_nginx 1
	# shellcheck disable=SC2016 # for sh
	start_target "$TLSSNOOP" -j -o "$TRACE" -- sh -c 'echo ready; read line
		"$TESTS/fetch" "$WITNESS" one "$0" >"$WITNESS/one.body"; echo "status $?"' "$(url one)"
	kill -KILL "$TARGET_PID"
	wait_pid 20 "$TARGET_PID" || :
	go
	eventually 20 grep -q '^status 0' "$TARGET_OUT"

	# shellcheck disable=SC2016 # for sh
	script 'echo $$ >pid' 'if [ "$1" = 0 ]; then : >finished; exit; fi' 'exec "$0" $(($1 - 1))'
	for ((i = 0; i < 7; i++)); do
		rm -f finished pid
		: >"$SNOOP_ERR"
		"$TLSSNOOP" -o "$TRACE" -- ./script 31 2>"$SNOOP_ERR" 3>&- &
		SNOOP_PID=$!
		STARTED+=("$SNOOP_PID")
		line_comes '^Tracing' "$SNOOP_ERR" "$SNOOP_PID"
		sleep "0.0$((i * 13 + 10))"	# at many places of its way
		kill -KILL "$SNOOP_PID" || :
		wait_pid 20 "$SNOOP_PID" || :
		eventually 20 chain_ended || fail "the command $(<pid): $(grep State "/proc/$(<pid)/status")"
	done
}
