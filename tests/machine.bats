#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# The whole machine under tlssnoop, and the children of a process: what ran before, what starts
# later, what ends soon, containers, and hard circumstances. Each process says itself what it sent
# and received, and the trace is compared with that. Needs root, curl, nginx, the programs next to
# this file and tests/rustls, and bindfs for one test.
# It must never depend on what else runs on the machine, nor leave a process or a mount behind.

load lib

setup_file() {
	RELEASE=$("$BATS_TEST_DIRNAME/rustls/build" release)
	export RELEASE
}

setup() {
	make_certificate
	witnesses
}

teardown() {
	local undo
	for undo in "${UNDO[@]}"; do
		eval "$undo" || :
	done
	finish
}

UNDO=()	# commands for the end of the test, in whatever way it ends

# start_machine ARG...: tlssnoop for all processes, in JSON
start_machine() {
	start_tlssnoop -j -B 131072 "$@"
}

stop_machine() {
	stop_tlssnoop
	((SNOOP_STATUS == 0)) || fail "tlssnoop ended with status $SNOOP_STATUS"
}

start_some() {
	start_witness "$TESTS/ssl_target" --mode edges --truth TRUTH
	start_witness /usr/bin/python3 "$TESTS/py_target.py" --cert "$CERT" --key "$KEY" --truth TRUTH
	start_witness "$RELEASE/std_target" --truth TRUTH edges
}

# run_witness PROGRAM ARG...: as start_witness, but all of it, at once
run_witness() {
	local truth=$WITNESS/new
	"${@//TRUTH/$truth}" <<<go >"$TARGET_OUT" 2>"$TARGET_ERR" 3>&- &
	TARGET_PID=$!
	STARTED+=("$TARGET_PID")
	wait_target
	mv "$truth" "$WITNESS/$TARGET_PID.stream"
}

@test "what ran before, and what starts later" {
	start_nginx 2
	start_some
	start_machine
	start_some
	fetch late /n/late
	fetch big /1048576
	let_witnesses_go
	stop_machine
	compare_witnesses --server "${WORKERS[0]}" --server "${WORKERS[1]}"
}

@test "a library that is loaded while we trace, by dlopen" {
	local load='if True:
		import runpy, sys
		print("ready", flush=True)
		sys.stdin.readline()
		import ssl
		del sys.argv[0]
		runpy.run_path(sys.argv[0], run_name="__main__")'
	start_witness /usr/bin/python3 -c "$load" \
		"$TESTS/py_target.py" --cert "$CERT" --key "$KEY" --truth TRUTH
	! grep -q libssl "/proc/$TARGET_PID/maps"
	start_machine
	echo load >&"$TARGET_STDIN"
	let_witnesses_go
	stop_machine
	compare_witnesses
}

@test "211 of 211 short-lived curls, and nginx" {
	local i
	start_nginx 1
	start_machine
	for ((i = 0; i < 211; i++)); do
		if ((i % 2)); then
			fetch "$i" "/n/$i"
		else
			fetch "$i" "/16385?$i"
		fi
	done
	stop_machine
	compare_witnesses --server "${WORKERS[0]}"
}

@test "53 of 53 short-lived rustls programs of a file already seen" {
	local i
	start_witness "$RELEASE/std_target" --truth TRUTH bulk 3 100
	start_machine
	let_witnesses_go
	for ((i = 0; i < 53; i++)); do
		run_witness "$RELEASE/std_target" --truth TRUTH bulk 3 100
	done
	stop_machine
	compare_witnesses
}

# of_file FILE: how many functions of it have probes
of_file() {
	grep -c "^tlssnoop: attached: $1: " "$SNOOP_ERR"
}

own_links() {
	our_objects link | wc -l
}

@test "2,000 processes of one libssl cost one set of probes" {
	local family=$BATS_TEST_TMPDIR/family own=$BATS_TEST_TMPDIR/own anon number begin
	local -A functions
	cp -L "$LIBSSL" "$own"
	gcc -Wall -x c -o "$family" - <<-'EOF'
		#include <signal.h>
		#include <stdio.h>
		#include <stdlib.h>
		#include <sys/prctl.h>
		#include <unistd.h>

		/* has argv[1] idle children, which end with it */
		int main(int argc, char **argv)
		{
			int i, n = argc == 2 ? atoi(argv[1]) : 0;
			pid_t pid;

			for (i = 0; i < n; i++) {
				pid = fork();
				if (pid < 0)
					return perror("fork"), 1;
				if (!pid) {
					prctl(PR_SET_PDEATHSIG, SIGKILL);
					for (;;)
						pause();
				}
			}
			puts("ready");
			fflush(stdout);
			return getchar() == EOF;
		}
	EOF
	start_nginx 1
	for number in 1 2000; do
		start_target env "LD_PRELOAD=$own" "$family" "$number"
		begin=${EPOCHREALTIME/[.,]/}
		start_machine -v
		begin=$(((${EPOCHREALTIME/[.,]/} - begin) / 1000))
		functions[$number]=$(of_file "$own")
		fetch "among-$number" "/n/$number"
		anon=$(awk '/^RssAnon:/ { print $2 }' "/proc/$SNOOP_PID/status")
		echo "# $number children: ready after $begin ms, ${functions[$number]} functions, $(own_links) links, $anon KiB of its own memory" >&3
		begin=${EPOCHREALTIME/[.,]/}
		stop_machine
		echo "# ended after $(((${EPOCHREALTIME/[.,]/} - begin) / 1000)) ms" >&3
		cat "$TRACE" >>"$TRACE.all"
		go
		wait_target
	done
	((functions[1] >= 6 && functions[2000] == functions[1])) || fail "functions: ${functions[*]}"
	nm -D "$TLSSNOOP" | grep -q __asan_init || ((anon < 60000)) || fail "$anon KiB"
	TRACE=$TRACE.all compare_witnesses --server "${WORKERS[0]}"
}

# ---- -f ----

@test "-f on nginx: workers that run, and those that come" {
	local pid options=() old
	start_nginx 2
	start_tlssnoop -j -f -p "$NGINX_PID"
	fetch one /n/one
	old=("${WORKERS[@]}")
	kill -HUP "$NGINX_PID"
	for pid in "${old[@]}"; do
		eventually 20 gone "$pid" || fail "worker $pid stays"
	done
	eventually 20 has_children "$NGINX_PID" 2
	mapfile -t WORKERS < <(pgrep -P "$NGINX_PID")
	fetch two /16385
	fetch three /n/three
	kill -QUIT "$NGINX_PID"
	wait_pid 20 "$NGINX_PID"
	ended_well
	for pid in "${old[@]}" "${WORKERS[@]}"; do
		options+=(--server "$pid")
	done
	compare_witnesses --alone --only-server "${options[@]}"
}

@test "-f on a shell: children, theirs, and one that outlives it all" {
	local script
	start_nginx 1
	mkfifo "$BATS_TEST_TMPDIR/later"
	cat >"$BATS_TEST_TMPDIR/script" <<-EOF
		echo ready
		read line
		fetch() {
			"$TESTS/fetch" "$WITNESS" "\$1" "https://localhost:$NGINX_PORT/n/\$1" >"$WITNESS/\$1.body"
		}
		fetch child
		sh -c 'sh -c "
			\"$TESTS/fetch\" \"$WITNESS\" third https://localhost:$NGINX_PORT/16385 >\"$WITNESS/third.body\"
			true"
			true'
		(
			read line
			fetch orphan
		) <"$BATS_TEST_TMPDIR/later" &
		exit 0
	EOF
	start_target sh "$BATS_TEST_TMPDIR/script"
	start_tlssnoop -j -f -p "$TARGET_PID"
	go
	exec {later}>"$BATS_TEST_TMPDIR/later"
	wait_target
	! gone "$SNOOP_PID" || fail 'it did not wait for the last'
	echo go >&"$later"
	exec {later}>&-
	ended_well
	[[ -s $WITNESS/orphan.body ]]
	compare_witnesses --alone
}
