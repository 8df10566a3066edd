#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Wrong targets and hard circumstances: what cannot be traced gets one message that says what, on
# what and why, and status 1; what can be traced is traced as if nothing were special about it.
# Needs root and tlssnoop; takes namespaces of its own for whatever it changes on the machine.
# It must never take silence for a refusal, nor pass a trace that was not compared.

# shellcheck disable=SC2030,SC2031 # each test is a subshell of its own, and what it sets ends with it

load lib

NOBODY=(setpriv --reuid nobody --regid nogroup --clear-groups)

teardown() {
	finish
}

# ---- what every test needs ----

# refused MESSAGE COMMAND...: COMMAND says just this, hints apart, and has status 1. MESSAGE is a
# pattern; a line's end would be a | in it.
refused() {
	local status=0 said
	timeout 20 "${@:2}" >"$TRACE" 2>"$SNOOP_ERR" 3>&- || status=$?
	said=$(grep -v '^tlssnoop: hint: ' "$SNOOP_ERR" || :)
	# shellcheck disable=SC2053 # a pattern
	[[ ${said//[^ -~]/|} == "tlssnoop: "$1 ]] ||
		fail "${*:2}" "expected: tlssnoop: $1" "seen:     $said"
	((status == 1)) || fail "${*:2}: status $status"
}

# hinted TEXT: there was a hint that has this in it
hinted() {
	grep -q "^tlssnoop: hint: .*$1" "$SNOOP_ERR" || fail "no hint with: $1"
}

# start_ssl ARG...: ssl_target; TARGET_PID is its own, LAUNCHED that of what started it
start_ssl() {
	start_target "${BY[@]}" "$TESTS/ssl_target" --truth "$TRUTH" "$@"
	LAUNCHED=$TARGET_PID
	TARGET_PID=$(innermost "$LAUNCHED")
}

# seen_whole: the target does its work; the trace is what it says of it
seen_whole() {
	go
	wait_pid 60 "$LAUNCHED" || fail "the target failed" "$(cat "$TARGET_ERR")"
	ended_well
	compare json
}

observe() {
	start_tlssnoop -j -p "$TARGET_PID"
	seen_whole
}

# launch_silent SECONDS: a process with libssl that says nothing; sets TARGET_PID
launch_silent() {
	LD_PRELOAD=$LIBSSL sleep "$1" 3>&- &
	TARGET_PID=$!
	STARTED+=("$TARGET_PID")
}

start_silent() {
	launch_silent 60
	eventually 10 grep -q /libssl "/proc/$TARGET_PID/maps"
}

is_stopped() {
	grep -q 'State:.T' "/proc/$1/status"
}

# ---- no such target ----

@test "no such process" {
	local pid
	pid=$(</proc/sys/kernel/pid_max)
	refused "cannot trace: pid $pid: no such process" "$TLSSNOOP" -p "$pid"
	refused "cannot trace: pid $pid: no such process" "$TLSSNOOP" -L -p "$pid"
	refused "cannot trace: pid $pid: no such process" "$TLSSNOOP" -p "$BASHPID,$pid"
}

@test "a kernel thread" {
	[[ $(cat /proc/2/comm) == kthreadd ]] || skip 'pid 2 is not kthreadd here'
	refused 'nothing to trace: pid 2 (kthreadd): a kernel thread, or no longer running' \
		"$TLSSNOOP" -p 2
}

@test "a thread that is no process" {
	local thread
	start_target "$PYTHON" -c 'if True:
		import sys, threading
		threading.Thread(target=sys.stdin.readline).start()
		print("ready", flush=True)'
	eventually 10 test -e "/proc/$TARGET_PID/task"
	thread=$(find "/proc/$TARGET_PID/task" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n | tail -n 1)
	((thread != TARGET_PID))
	refused "cannot trace: pid $thread: this is a thread, not a process" "$TLSSNOOP" -p "$thread"
	go
	wait_target
}

@test "a zombie" {
	local zombie
	start_target "$PYTHON" -c 'if True:
		import os, sys
		child = os.fork()
		if child:
		    print(f"{child}\nready", flush=True)
		    sys.stdin.readline()'
	zombie=$(head -n 1 "$TARGET_OUT")
	eventually 10 grep -qs 'State:.Z' "/proc/$zombie/status"
	refused "nothing to trace: pid $zombie ($(cat "/proc/$zombie/comm")): a kernel thread, or no longer running" \
		"$TLSSNOOP" -p "$zombie"
}

@test "a process without a TLS library" {
	start_target sh -c 'echo ready; exec sleep 60'
	eventually 10 grep -q sleep "/proc/$TARGET_PID/comm"
	refused "nothing to trace: pid $TARGET_PID (sleep): no TLS library mapped" \
		"$TLSSNOOP" -p "$TARGET_PID"
}

@test "a process that ends while it is looked at" {
	local i status said
	for i in {0..29}; do
		launch_silent "$(printf '0.%03d' $((i * 6)))"
		status=0
		timeout 20 "$TLSSNOOP" -q -p "$TARGET_PID" >"$TRACE" 2>"$SNOOP_ERR" 3>&- || status=$?
		wait_pid 10 "$TARGET_PID"
		case $status in
		0)	grep -q '^Tracing' "$SNOOP_ERR" ;;
		1)	(($(grep -c . "$SNOOP_ERR") == 1)) ;;
		*)	false ;;
		esac || fail "after $((i * 6)) ms: status $status" "$(cat "$SNOOP_ERR")"
		said=$(grep -Ev "^(Tracing pid|tlssnoop: (0 chunks|(cannot|nothing to) trace: pid $TARGET_PID))" \
			"$SNOOP_ERR" || :)
		[[ -z $said ]] || fail "after $((i * 6)) ms: $said"
		[[ ! -s $TRACE ]]
	done
}

# ---- wrong files ----

@test "-l on what is no program" {
	local dir=$BATS_TEST_TMPDIR
	echo 'just text' >"$dir/text"
	: >"$dir/empty"
	mkfifo "$dir/fifo"
	refused "cannot trace: $dir/text: not an ELF file" "$TLSSNOOP" -l "$dir/text"
	refused "cannot trace: $dir/empty: not an ELF file" "$TLSSNOOP" -l "$dir/empty"
	refused 'cannot trace: /dev/null: not an ELF file' "$TLSSNOOP" -l /dev/null
	refused "cannot trace: $dir/missing: No such file or directory" "$TLSSNOOP" -l "$dir/missing"
	refused "cannot trace: $dir: not an ELF file" "$TLSSNOOP" -l "$dir"
	refused "cannot trace: $dir/fifo: not an ELF file" "$TLSSNOOP" -l "$dir/fifo"
}

# damaged FILE: what tlssnoop says to it
damaged() {
	refused "cannot trace: $1: the ELF file is damaged" "$TLSSNOOP" -l "$1"
}

# overwrite FILE OFFSET HEX: a copy of libssl with other bytes there
overwrite() {
	"$PYTHON" - "$LIBSSL" "$@" <<-'EOF'
		import sys
		source, target, offset, digits = sys.argv[1:]
		data = bytearray(open(source, "rb").read())
		if offset == "sections":
		    offset = int.from_bytes(data[0x28:0x30], "little")
		offset, new = int(offset), bytes.fromhex(digits)
		data[offset:offset + len(new)] = new
		open(target, "wb").write(data)
	EOF
}

@test "-l on a truncated program" {
	local size
	for size in 64 1000 4096 300000 $(($(stat -L -c %s "$LIBSSL") - 1)); do
		head -c "$size" "$LIBSSL" >"$BATS_TEST_TMPDIR/truncated.$size"
		damaged "$BATS_TEST_TMPDIR/truncated.$size"
	done
}

@test "-l on a program with damaged section headers" {
	overwrite "$BATS_TEST_TMPDIR/sections" sections "$(printf 'ff%.0s' {1..1280})"
	damaged "$BATS_TEST_TMPDIR/sections"
	overwrite "$BATS_TEST_TMPDIR/offset" $((0x28)) 0000000000000010
	damaged "$BATS_TEST_TMPDIR/offset"
}

@test "-l on a program of another kind" {
	local why='a program of 32 bits or for another machine, which tlssnoop does not trace'
	local machine=b700	# arm64
	[[ $(uname -m) == x86_64 ]] || machine=3e00
	overwrite "$BATS_TEST_TMPDIR/machine" $((0x12)) "$machine"
	overwrite "$BATS_TEST_TMPDIR/elf32" 4 01
	refused "cannot trace: $BATS_TEST_TMPDIR/machine: $why" "$TLSSNOOP" -l "$BATS_TEST_TMPDIR/machine"
	refused "cannot trace: $BATS_TEST_TMPDIR/elf32: $why" "$TLSSNOOP" -l "$BATS_TEST_TMPDIR/elf32"
	refused 'nothing to trace: /bin/true: it defines no function of a TLS library that tlssnoop knows' \
		"$TLSSNOOP" -l /bin/true
}

@test "a target of 32 bits" {
	local program=$BATS_TEST_TMPDIR/target32
	[[ $(uname -m) == x86_64 ]] || skip 'this compiler makes no programs of 32 bits'
	# a C library for 32 bits is seldom there
	gcc -m32 -nostdlib -static -fno-pic -no-pie -O1 -x c -o "$program" - <<-'EOF'
		static int call(int number, int fd, const void *bytes, int size)
		{
			__asm__ volatile("int $0x80" : "+a"(number) : "b"(fd), "c"(bytes), "d"(size) : "memory");
			return number;
		}
		void _start(void)
		{
			char byte;
			call(4, 1, "ready\n", 6);
			call(1, call(3, 0, &byte, 1) != 1, 0, 0);
		}
	EOF
	start_target "$program"
	refused "cannot trace: pid $TARGET_PID (target32): /+([^|]): a program of 32 bits or for another machine, which tlssnoop does not trace" \
		"$TLSSNOOP" -p "$TARGET_PID"
	go
	wait_target
}

# ---- missing privilege, missing features ----

# The program is found by its descriptor: its path may lead through directories that only root enters

@test "not root" {
	local fd options
	exec {fd}<"$TLSSNOOP"
	start_silent
	refused 'not permitted: tracing: it needs CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON where the kernel has multi-uprobe links (Linux 6.10)' \
		"${NOBODY[@]}" "/proc/self/fd/$fd" -p "$TARGET_PID"
	hinted 'root.*CAP_SYS_PTRACE'
	for options in '' "-f -p $TARGET_PID" "-l $LIBSSL" '-- true'; do
		# shellcheck disable=SC2086 # several
		refused 'not permitted: tracing: it needs CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON where the kernel has multi-uprobe links (Linux 6.6)' \
			"${NOBODY[@]}" "/proc/self/fd/$fd" $options
	done
	[[ $(mandoc -T ascii "$TESTS/../man/tlssnoop.8" | col -b | tr -s '[:space:]' ' ') == \
		*' multi-uprobe links (6.6, with -p and without -f 6.10)'* ]] || fail 'the manual says otherwise'
	refused "cannot look into: pid $TARGET_PID (sleep): Permission denied" \
		"${NOBODY[@]}" --inh-caps +sys_admin --ambient-caps +sys_admin \
		"/proc/self/fd/$fd" -p "$TARGET_PID"
	hinted CAP_SYS_PTRACE
	refused "cannot look into: pid $TARGET_PID (sleep): Permission denied" \
		"${NOBODY[@]}" "/proc/self/fd/$fd" -L -p "$TARGET_PID"
}

@test "not root, with the capabilities that are needed" {
	local fd caps sets=('+sys_admin,+sys_ptrace')
	exec {fd}<"$TLSSNOOP"
	! "$TLSSNOOP" -v -p $$ 2>&1 | grep -q 'multi-uprobe links yes' ||
		sets+=('+bpf,+perfmon,+sys_ptrace')
	for caps in "${sets[@]}"; do
		start_ssl --mode edges
		"${NOBODY[@]}" --inh-caps +sys_ptrace --ambient-caps +sys_ptrace \
			"/proc/self/fd/$fd" -L -p "$TARGET_PID" >"$TRACE"
		grep -q "^$TARGET_PID .*SSL_write " "$TRACE"
		instead_of_tlssnoop "${NOBODY[@]}" --inh-caps "$caps" --ambient-caps "$caps" \
			"/proc/self/fd/$fd"
		observe
	done
}

@test "a kernel without type information" {
	start_silent
	# shellcheck disable=SC2016 # for the inner shell
	refused 'cannot trace: /sys/kernel/btf/vmlinux: No such file or directory' \
		unshare -m sh -c 'mount -t tmpfs none /sys/kernel/btf && exec "$@"' sh \
		"$TLSSNOOP" -p "$TARGET_PID"
	hinted CONFIG_DEBUG_INFO_BTF=y
}

@test "a kernel without ring buffer" {
	start_silent
	TLSSNOOP_WITHOUT=ringbuf refused \
		'cannot trace: BPF ring buffer: this kernel has none: it came with Linux 5.8' \
		"$TLSSNOOP" -p "$TARGET_PID"
}

@test "root of a user namespace only, on a kernel that is locked down" {
	local mock='mount -t tmpfs none /sys/kernel/security &&
		echo "none integrity [confidentiality]" >/sys/kernel/security/lockdown && exec "$@"'
	unshare -Urm sh -c "$mock" sh true || skip 'no user namespaces here'
	start_silent
	refused 'cannot trace: BPF ring buffer: Operation not permitted' \
		unshare -Urm sh -c "$mock" sh "$TLSSNOOP" -p "$TARGET_PID"
	hinted 'locked down (confidentiality)'
	hinted 'user namespace'
}

@test "-L where nobody may look" {
	unshare -Ur true || skip 'no user namespaces here'
	start_silent
	refused "cannot look into: pid $TARGET_PID (sleep): Permission denied" \
		unshare -Ur "$TLSSNOOP" -L -p "$TARGET_PID"
}

@test "tracefs is not mounted" {
	# shellcheck disable=SC2016 # for the inner shell
	instead_of_tlssnoop unshare -m sh -c 'umount -a -t tracefs,debugfs
		! grep -E "tracefs|debugfs" /proc/self/mounts && exec "$@"' sh "$TLSSNOOP"
	start_ssl --mode edges
	observe
}

# ---- namespaces ----

@test "a target in a PID namespace of its own" {
	BY=(unshare -p -f --mount-proc)
	start_ssl --mode edges
	[[ $(readlink "/proc/$TARGET_PID/ns/pid") != $(readlink /proc/self/ns/pid) ]]
	observe
}

# make_namespace: of PIDs, for this test; INSIDE runs a command in it
make_namespace() {
	launch_target unshare -p -f --kill-child --mount-proc sleep 300
	eventually 10 pgrep -P "$TARGET_PID" -x sleep
	INSIDE=(nsenter -t "$(innermost "$TARGET_PID")" -p -m)
}

@test "tlssnoop and its target in a PID namespace" {
	local outer
	make_namespace
	BY=("${INSIDE[@]}")
	instead_of_tlssnoop "${INSIDE[@]}" "$TLSSNOOP"
	start_ssl --mode edges
	outer=$TARGET_PID
	TARGET_PID=$(awk '/^NSpid:/ { print $NF }' "/proc/$outer/status")
	((TARGET_PID != outer))
	observe
}

@test "a target in another root directory, with a libssl of its own" {
	chroot_with_target
	start_target chroot "$ROOT" /ssl_target --mode edges --truth /truth
	LAUNCHED=$TARGET_PID TRUTH=$ROOT/truth
	observe
}

@test "a target in a mount namespace, with another libssl at the same path" {
	cp -L "$LIBSSL" "$BATS_TEST_TMPDIR/other"
	# shellcheck disable=SC2016 # for the inner shell
	BY=(unshare -m sh -c 'mount --bind "$0" "$1" && shift && exec "$@"'
		"$BATS_TEST_TMPDIR/other" "$(realpath "$LIBSSL")")
	start_ssl --mode edges
	[[ $(stat -L -c %i "$LIBSSL") != $(stat -L -c %i "/proc/$TARGET_PID/root$LIBSSL") ]]
	observe
}

# ---- the output ----

@test "standard output is closed" {
	start_silent
	# shellcheck disable=SC2016 # for the inner shell
	for format in -x -j -L; do
		refused 'cannot write: standard output: Bad file descriptor' \
			sh -c '"$@" >&-' sh "$TLSSNOOP" $format -d 2 -p "$TARGET_PID"
	done
}

# complained MESSAGE: after "Tracing" and before the summary
complained() {
	((SNOOP_STATUS == 1)) || fail "tlssnoop ended with status $SNOOP_STATUS"
	[[ $(grep -Ev '^Tracing|^tlssnoop: ([0-9]+ chunks|hint)' "$SNOOP_ERR") == "tlssnoop: $1" ]] ||
		fail "expected: tlssnoop: $1" "seen: $(cat "$SNOOP_ERR")"
}

@test "no space for the output" {
	local TRACE=/dev/full
	start_ssl --mode edges
	start_tlssnoop -p "$TARGET_PID"
	wait_tlssnoop
	complained 'cannot write: standard output: No space left on device'
	start_tlssnoop -j -p "$TARGET_PID" -o /dev/full
	go
	wait_tlssnoop
	complained 'cannot write: /dev/full: No space left on device'
	wait_pid 60 "$LAUNCHED"
}

@test "-o where nothing can be created" {
	start_silent
	refused "cannot write: $BATS_TEST_TMPDIR/none/file: No such file or directory" \
		"$TLSSNOOP" -p "$TARGET_PID" -o "$BATS_TEST_TMPDIR/none/file"
}

@test "the reader of the output goes away" {
	start_ssl --mode bulk 1009 256
	: >"$SNOOP_ERR"
	# shellcheck disable=SC2016 # for the inner shell
	bash -c '"$1" -p "$2" 2>"$3" | head -n 3; exit "${PIPESTATUS[0]}"' bash \
		"$TLSSNOOP" "$TARGET_PID" "$SNOOP_ERR" >"$TRACE" 3>&- &
	SNOOP_PID=$!
	STARTED+=("$SNOOP_PID")
	line_comes '^Tracing' "$SNOOP_ERR" "$SNOOP_PID"
	go
	wait_pid 60 "$LAUNCHED"
	wait_tlssnoop
	((SNOOP_STATUS == 0))
	(($(wc -l <"$TRACE") == 3))
	(($(wc -l <"$SNOOP_ERR") == 1)) || fail "not silent: $(cat "$SNOOP_ERR")"
}

# ---- several at once, and ends ----

@test "two tlssnoop on the same process, and a third that comes and goes" {
	local other other_err=$BATS_TEST_TMPDIR/other.stderr whole=$BATS_TEST_TMPDIR/other.trace
	start_ssl --mode bulk 10007 256
	TRACE=$whole SNOOP_ERR=$other_err start_tlssnoop -j -p "$TARGET_PID"
	other=$SNOOP_PID
	TRACE=$TRACE.third start_tlssnoop -j -p "$TARGET_PID"
	stop_tlssnoop
	((SNOOP_STATUS == 0))
	start_tlssnoop -j -p "$TARGET_PID"
	seen_whole
	SNOOP_PID=$other SNOOP_ERR=$other_err
	ended_well
	TRACE=$whole compare json
}

@test "a target that is stopped when tlssnoop comes" {
	start_ssl --mode edges
	kill -STOP "$TARGET_PID"
	eventually 10 is_stopped "$TARGET_PID"
	start_tlssnoop -j -p "$TARGET_PID"
	kill -CONT "$TARGET_PID"
	seen_whole
}

@test "SIGINT, SIGTERM and SIGHUP end with a summary" {
	local signal
	start_silent
	for signal in INT TERM HUP; do
		start_tlssnoop -p "$TARGET_PID"
		kill -s "$signal" "$SNOOP_PID"
		ended_well
	done
}

@test "SIGINT that the parent ignored" {
	instead_of_tlssnoop env --ignore-signal=INT "$TLSSNOOP"
	start_silent
	start_tlssnoop -p "$TARGET_PID"
	kill -INT "$SNOOP_PID"
	ended_well
}

# has_taken_sigint PID: the handler is set for one signal
has_taken_sigint() {
	(((0x$(awk '/^SigCgt:/ { print $2 }' "/proc/$1/status") & 2) == 0))
}

@test "a second SIGINT ends at once, even if nobody reads the output" {
	local pipe=$BATS_TEST_TMPDIR/pipe fd
	mkfifo "$pipe"
	exec {fd}<>"$pipe"	# nobody reads it
	start_ssl --mode bulk 1009 256
	TRACE=$pipe start_tlssnoop -p "$TARGET_PID"
	go
	wait_pid 60 "$LAUNCHED"
	kill -INT "$SNOOP_PID"
	eventually 10 has_taken_sigint "$SNOOP_PID"
	kill -INT "$SNOOP_PID"
	wait_tlssnoop
	exec {fd}>&-
	((SNOOP_STATUS == 130)) || fail "status $SNOOP_STATUS" "$(cat "$SNOOP_ERR")"
}

# ends_soon ARG...: within a second of SIGINT, for whoever reads its output, too; longer, if there is
# more than one who wants a processor. The best of three.
ends_soon() {
	local pipe=$BATS_TEST_TMPDIR/output reader begin took limit i
	[[ -p $pipe ]] || mkfifo "$pipe"
	for ((i = 0; i < 3; i++)); do
		cat "$pipe" >"$TRACE.read" 3>&- &
		reader=$!
		TRACE=$pipe start_tlssnoop "$@"
		begin=${EPOCHREALTIME/[.,]/}
		kill -INT "$SNOOP_PID"
		ended_well
		wait_pid 20 "$reader"
		took=$(((${EPOCHREALTIME/[.,]/} - begin) / 1000))
		limit=$(awk -v n="$(nproc)" '{ print int(1000 * ($1 > n ? $1 / n : 1)) }' /proc/loadavg)
		echo "# without ${TLSSNOOP_WITHOUT:-nothing}, $*: $took ms" >&3
		((took >= limit)) || return 0
	done
	fail "it takes $took ms to end"
}

@test "it ends within a second, also where probes go one after the other" {
	local before
	start_ssl --mode edges
	before=$(code_at SSL_write)
	for TLSSNOOP_WITHOUT in '' pidfilter multi; do
		export TLSSNOOP_WITHOUT
		ends_soon -j -p "$TARGET_PID"
		ends_soon -j
		eventually 60 code_is "$before" || fail "a probe is left: $(code_at SSL_write), not $before"
	done
	go
	wait_pid 60 "$LAUNCHED"
}

@test "-d with a silent target" {
	local begin
	start_silent
	begin=$EPOCHSECONDS
	start_tlssnoop -d 1 -p "$TARGET_PID"
	ended_well
	((EPOCHSECONDS - begin <= 20))	# of the target's 60
	(($(wc -l <"$TRACE") == 1)) || fail 'more than the header'
}

# code_at FUNCTION: its first bytes, as they are in the target now
code_at() {
	local offset start from
	offset=$(readelf --wide --dyn-syms "$LIBSSL" | awk -v name="$1" '$8 ~ "^" name "(@|$)" { print $2 }')
	read -r start from < <(awk '/libssl/ && $2 ~ /x/ { split($1, a, "-"); print a[1], $3 }' \
		"/proc/$TARGET_PID/maps")
	dd if="/proc/$TARGET_PID/mem" iflag=skip_bytes skip=$((0x$start - 0x$from + 0x$offset)) \
		bs=8 count=1 status=none | od -An -tx1
}

code_is() {
	[[ $(code_at SSL_write) == "$1" ]]
}

# objects_gone KIND ID...: the kernel has none of them any more
objects_gone() {
	local id
	for id in "${@:2}"; do
		! bpftool "$1" show id "$id" >"$BATS_TEST_TMPDIR/bpftool" 2>&1 || return 1
	done
}

@test "kill -9 leaves no probe behind" {
	local before programs links
	start_ssl --mode edges
	before=$(code_at SSL_write)
	[[ $before != ' cc '* ]] || skip 'somebody else has a probe there'
	start_tlssnoop -j -p "$TARGET_PID"
	[[ $before && $(code_at SSL_write) != "$before" ]] || fail 'no probe to be seen'
	mapfile -t programs < <(our_objects prog)
	mapfile -t links < <(our_objects link)
	((${#programs[@]} >= 5 && ${#links[@]} >= 5)) ||
		fail "only ${#programs[@]} programs, ${#links[@]} links"
	# which is there, but does not work for every kernel
	! bpftool version || ! objects_gone prog "${programs[0]}" || fail 'no program to be seen'
	kill -KILL "$SNOOP_PID"
	wait_tlssnoop
	((SNOOP_STATUS == 137))
	eventually 10 code_is "$before" || fail "a probe is left: $(code_at SSL_write), not $before"
	if bpftool version; then
		eventually 10 objects_gone prog "${programs[@]}" || fail 'a program is left'
		eventually 10 objects_gone link "${links[@]}" || fail 'a link is left'
	fi
	go
	wait_pid 60 "$LAUNCHED"
}

# ---- what changes under way ----

attached_times() {
	(($(grep -c '^tlssnoop: attached: ' "$SNOOP_ERR") >= $1))
}

lines_in() {
	(($(grep -c "$1" "$2") >= $3))
}

# talk.py COMMAND...: on a line, talk TLS to itself, then become COMMAND
make_talker() {
	make_certificate
	cat >"$BATS_TEST_TMPDIR/talk.py" <<-EOF
		import os, socket, ssl, sys, threading
		def talk(context, sock, **how):
		    with context.wrap_socket(sock, **how) as tls:
		        tls.sendall(b"before exec")
		        tls.recv(100)
		server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
		server.load_cert_chain("$CERT", "$KEY")
		client = ssl.create_default_context(cafile="$CERT")
		ends = socket.socketpair()
		print("ready", flush=True)
		os.read(0, 100)
		thread = threading.Thread(target=talk, args=(server, ends[0]), kwargs={"server_side": True})
		thread.start()
		talk(client, ends[1], server_hostname="localhost")
		thread.join()
		os.execv(sys.argv[1], sys.argv[1:])
	EOF
}

@test "a target that executes another TLS program" {
	local probes
	make_talker
	start_target /usr/bin/python3 "$BATS_TEST_TMPDIR/talk.py" \
		"$TESTS/ssl_target" --mode edges --truth "$TRUTH"
	LAUNCHED=$TARGET_PID
	start_tlssnoop -v -j -p "$TARGET_PID"
	probes=$(grep -c '^tlssnoop: attached: ' "$SNOOP_ERR")
	echo talk >&"$TARGET_STDIN"
	eventually 20 lines_in '^ready$' "$TARGET_OUT" 2
	eventually 20 attached_times $((2 * probes)) || fail 'the new program is not traced'
	seen_whole_but 'before exec' 4
}

# seen_whole_but TEXT COUNT: apart from so many lines with this TEXT
seen_whole_but() {
	go
	wait_pid 60 "$LAUNCHED" || fail "the target failed" "$(cat "$TARGET_ERR")"
	ended_well
	(($(grep -c "$1" "$TRACE") == $2))
	grep -v "$1" "$TRACE" >"$TRACE.rest"
	TRACE=$TRACE.rest compare json
}

@test "a library that is loaded while we trace" {
	local silent probes
	make_certificate
	start_silent
	silent=$TARGET_PID
	start_target /usr/bin/python3 -c 'if True:
		import runpy, sys
		print("ready", flush=True)
		sys.stdin.readline()
		import ssl
		del sys.argv[0]
		runpy.run_path(sys.argv[0], run_name="__main__")' \
		"$TESTS/py_target.py" --cert "$CERT" --key "$KEY" --truth "$TRUTH"
	LAUNCHED=$TARGET_PID
	start_tlssnoop -v -j -p "$TARGET_PID" -p "$silent"
	grep -q "^tlssnoop: nothing to trace: pid $TARGET_PID (python3): no TLS library mapped$" "$SNOOP_ERR"
	probes=$(grep -c '^tlssnoop: attached: ' "$SNOOP_ERR")
	echo load >&"$TARGET_STDIN"
	eventually 20 lines_in '^ready$' "$TARGET_OUT" 2
	eventually 20 attached_times $((2 * probes)) || fail 'the library is not traced'
	kill -TERM "$silent"
	seen_whole
}

# lines_in_time OPTION...: those of the pacer while COMMAND is done with OTHER, without multi-uprobe links
lines_in_time() {
	watch_lines
	TRACE=$LINES start_tlssnoop -v -j "$@" -p "$PACER" -p "$OTHER"
	go
	"$COMMAND"
	wait_pid 60 "$PACER" || fail "the target failed" "$(cat "$TARGET_ERR")"
	kill "$OTHER"
	ended_well
	lines_within 150
	TARGET_PID=$PACER compare json
	rm "$LINES"
}

executes() {
	echo go >&"$OTHER_STDIN"
	eventually 60 attached_below "$BATS_TEST_TMPDIR" 2 || fail 'the program is not traced'
}

is_written_to() {
	echo >>"$OWN"
}

@test "lines do not wait for probes that go one after the other" {
	export TLSSNOOP_WITHOUT=multi
	own_libssl
	for COMMAND in executes is_written_to; do
		start_target env "LD_PRELOAD=$OWN" sh -c 'echo ready; read line; exec sleep 60'
		OTHER=$TARGET_PID OTHER_STDIN=$TARGET_STDIN
		start_pacer
		if [[ $COMMAND == executes ]]; then
			lines_in_time
		else
			lines_in_time -f -B 131072
		fi
	done
}

# own_libssl: sets OWN, a copy of libssl that the targets of this test load
own_libssl() {
	OWN=$BATS_TEST_TMPDIR/lib/$(basename "$LIBSSL")
	mkdir -p "${OWN%/*}"
	cp -L "$LIBSSL" "$OWN"
	BY=(env "LD_LIBRARY_PATH=${OWN%/*}")
}

@test "a library whose file is deleted" {
	own_libssl
	start_ssl --mode edges
	rm "$OWN"
	grep -q "$OWN (deleted)" "/proc/$TARGET_PID/maps"
	observe
}

@test "a library whose file is replaced" {
	local other
	for other in "$LIBSSL" /bin/true /etc/hostname; do
		own_libssl
		start_ssl --mode edges
		cp -L "$other" "$OWN.new"
		mv "$OWN.new" "$OWN"
		observe
	done
}

# start_as PID COMMAND...: as start_target, with this pid in the namespace; LAUNCHED is what has it
start_as() {
	# shellcheck disable=SC2016 # for sh
	start_target "${INSIDE[@]}" sh -c 'exec 4<&0; echo $(($0 - 1)) >/proc/sys/kernel/ns_last_pid
		"$@" <&4 4<&- & [ $! = "$0" ] || kill $!
		wait $!' "$@"
	LAUNCHED=$TARGET_PID
	TARGET_PID=$1
}

# put_to_sleep: tlssnoop inside; nsenter, which started it, stops as well
put_to_sleep() {
	kill -STOP "$(innermost "$SNOOP_PID")"
	eventually 10 is_stopped "$SNOOP_PID"
}

# with_pid_again PID WHEN SNOOP-OPTION...: it is "first"'s, then "second"'s, which is another user's;
# both have TLS on the same fds with objects at the same addresses. tlssnoop is awake all the time, or
# asleep from before the one's end until the other is done. Their truths are theirs with .truth.
with_pid_again() {
	local name as
	for name in first second; do
		cp "$TESTS/ssl_target" "$BATS_TEST_TMPDIR/$name"
		: >"$BATS_TEST_TMPDIR/$name.truth"
		chmod 666 "$BATS_TEST_TMPDIR/$name.truth"
		as=()
		[[ $name == first ]] || as=(setpriv --reuid 4242 --clear-groups)
		start_as "$1" "${as[@]}" setarch -R "$BATS_TEST_TMPDIR/$name" --bio mem --mode mixed \
			--truth "$BATS_TEST_TMPDIR/$name.truth"
		[[ $name == second ]] || start_tlssnoop "${@:3}"
		[[ $name$2 != firstasleep ]] || put_to_sleep
		go
		wait_pid 60 "$LAUNCHED" || fail "$name failed" "$(cat "$TARGET_ERR")"
	done
	[[ $2 == awake ]] || kill -CONT "$SNOOP_PID"
	kill -INT "$(innermost "$SNOOP_PID")"
	ended_well
}

# prepare_pids: so that they may be had
prepare_pids() {
	[[ -e /proc/sys/kernel/ns_last_pid ]] || skip 'this kernel gives nobody the pid that he wants'
	chmod 711 "$BATS_TEST_TMPDIR" "$BATS_FILE_TMPDIR" "$BATS_RUN_TMPDIR"
	make_namespace
	instead_of_tlssnoop "${INSIDE[@]}" "$TLSSNOOP"
}

@test "a PID that another program gets: -p does not mean that one" {
	local when
	prepare_pids
	start_as 4000 "$TESTS/ssl_target" --mode edges --truth /dev/null	# so that it goes on
	for TLSSNOOP_WITHOUT in '' multi cookie,multi; do
		export TLSSNOOP_WITHOUT
		for when in awake asleep; do
			with_pid_again 5000 "$when" -j -p 5000,4000
			TRUTH=$BATS_TEST_TMPDIR/first.truth compare json --comm first
		done
	done
	unset TLSSNOOP_WITHOUT
	with_pid_again 5000 awake -j -f -p 5000,4000	# its probes are in all processes
	TRUTH=$BATS_TEST_TMPDIR/first.truth compare json --comm first
}

@test "a PID that another program gets, among all processes: each its own lines" {
	local when name
	prepare_pids
	for when in awake asleep; do
		with_pid_again 5000 "$when" -j -B 131072
		for name in first second; do
			jq -c "select(.pid == 5000 and .comm == \"$name\")" "$TRACE" >"$TRACE.$name"
			TRACE=$TRACE.$name TRUTH=$BATS_TEST_TMPDIR/$name.truth compare json
			jq -r .conn "$TRACE.$name" | sort -u >"$TRACE.$name.conn"
		done
		[[ -z $(comm -12 "$TRACE".{first,second}.conn) ]] || fail 'one connection of both'
		[[ $(jq -r .uid "$TRACE.first" | sort -u) == 0 ]]
		[[ $(jq -r .uid "$TRACE.second" | sort -u) == 4242 ]]
	done
}

# ---- loss ----

# true_lines: every line of the trace is a chunk of the truth, in order and on its fd, if any; with
# those that the summary calls lost they are all
true_lines() {
	"$PYTHON" - "$TESTS" "$TRACE" "$TRUTH" "$(sed -n 's/.*, \([0-9]*\) lost.*/\1/p' "$SNOOP_ERR")" <<-'EOF'
		import sys
		sys.path.insert(0, sys.argv[1])
		import trace as snoop_trace
		lines = snoop_trace.read_trace(sys.argv[2], "json")
		lost = int(sys.argv[4])
		truth = {key: [data for _, _, data in snoop_trace.chunks(calls)]
		         for key, calls in snoop_trace.read_truth(sys.argv[3]).items()}
		begin = dict.fromkeys(truth, 0)
		for line in lines:
		    for key in truth:   # which of them, if the line does not say
		        if line.fd in (key[0], None) and line.dir == key[1]:
		            try:
		                begin[key] = truth[key].index(line.data, begin[key]) + 1
		                break
		            except ValueError:
		                pass
		    else:
		        sys.exit(f"{line.where()}: not in the truth, or not there: {line.json}")
		sent = sum(map(len, truth.values()))
		if not lost or not lines or len(lines) + lost != sent:
		    sys.exit(f"{len(lines)} lines, {lost} lost, {sent} in truth")
		unknown = sum(line.fd is None for line in lines)
		print(f"{len(lines)} lines, {lost} lost, {unknown} without fd")
	EOF
}

@test "a ring that is too small: what is lost is counted" {
	start_ssl --mode bulk 10007 256
	start_tlssnoop -j -B 64 -p "$TARGET_PID"
	kill -STOP "$SNOOP_PID"
	go
	wait_pid 60 "$LAUNCHED"
	kill -CONT "$SNOOP_PID"
	ended_well
	hinted '-B'
	true_lines
}

@test "a small ring and a fast target" {
	start_ssl --mode bulk 10007 8192
	start_tlssnoop -j -B 64 -p "$TARGET_PID"
	go
	wait_pid 60 "$LAUNCHED"
	ended_well
	true_lines
}

@test "bytes in a file that nobody has read yet" {
	local size=3000000 without
	make_certificate
	for without in '' sleepable; do
		seq 1000000 | head -c "$size" >"$BATS_TEST_TMPDIR/file"
		sync "$BATS_TEST_TMPDIR/file"
		start_target /usr/bin/python3 "$TESTS/mapped_target.py" \
			--cert "$CERT" --key "$KEY" --truth "$TRUTH" "$BATS_TEST_TMPDIR/file"
		LAUNCHED=$TARGET_PID
		TLSSNOOP_WITHOUT=$without observe
	done
}

# ---- kernels that have less ----

@test "without multi-uprobe links, sleepable programs, attach cookies: OpenSSL" {
	for TLSSNOOP_WITHOUT in multi sleepable cookie,multi,sleepable; do
		export TLSSNOOP_WITHOUT
		start_ssl --mode edges
		observe
		start_ssl --bio mem --mode mixed
		observe
	done
}

@test "without multi-uprobe links, sleepable programs, attach cookies: rustls" {
	local release program
	release=$("$TESTS/rustls/build" release)
	for TLSSNOOP_WITHOUT in multi sleepable cookie,multi,sleepable; do
		export TLSSNOOP_WITHOUT
		for program in "std_target edges" "tokio_target both"; do
			start_target "$release/${program% *}" --truth "$TRUTH" "${program#* }"
			start_tlssnoop -j -p "$TARGET_PID"
			go
			wait_target
			ended_well
			compare json --stream --peer-truth "$TRUTH"
		done
	done
}

@test "no program uses a stack that a new kernel would share" {
	local without
	for without in '' sleepable; do
		start_silent
		TLSSNOOP_WITHOUT=$without "$TLSSNOOP" -vv -d 1 -p "$TARGET_PID" >"$TRACE" 2>"$SNOOP_ERR"
		low_stacks 7
	done
}

@test "ready soon, with little memory" {
	local begin ready anon silent most=30000
	start_silent
	silent=$TARGET_PID
	start_ssl --mode bulk 10007 256
	begin=${EPOCHREALTIME/[.,]/}
	start_tlssnoop -j -p "$TARGET_PID,$silent"
	ready=$(((${EPOCHREALTIME/[.,]/} - begin) / 1000))
	go
	wait_pid 60 "$LAUNCHED"
	eventually 10 lines_in . "$TRACE" 40028
	anon=$(awk '/^RssAnon:/ { print $2 }' "/proc/$SNOOP_PID/status")
	echo "# ready after $ready ms, $anon KiB of its own memory after 40028 chunks" >&3
	((ready < 5000))
	# a sanitizer keeps what was freed, and a shadow of it all
	! nm -D "$TLSSNOOP" | grep -q __asan_init || most=300000
	((anon > 0 && anon < most))
	stop_tlssnoop
	((SNOOP_STATUS == 0))
}
