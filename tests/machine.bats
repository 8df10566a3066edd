#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# The whole machine under tlssnoop, and the children of a process: what ran before, what starts
# later, what ends soon, containers, and hard circumstances. Each process says itself what it sent
# and received, and the trace is compared with that. Needs root, curl, nginx, the programs next to
# this file and tests/rustls, and mergerfs for some tests.
# It must never depend on what else runs on the machine, nor leave a process or a mount behind.

# shellcheck disable=SC2030,SC2031,SC2153 # each test is a subshell of its own, and what it sets ends with it

load lib

setup_file() {
	RELEASE=$(built rustls release)
	FAT=$(built rustls fat)
	DEV=$(built rustls dev)
	export RELEASE FAT DEV
}

setup() {
	make_certificate
	witnesses
	cd "$BATS_TEST_TMPDIR" || return
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
	! has_library "$TARGET_PID" libssl || fail 'it has libssl already'
	start_machine -v
	echo load >&"$TARGET_STDIN"
	eventually 20 has_library "$TARGET_PID" libssl
	eventually 20 has_files "${LIBSSL##*/}" 1 || fail 'not seen'
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

# ---- one file, many files ----

# files_of NAME: how many files of such a name have their probes
files_of() {
	grep -c "^tlssnoop: attached: .*/$1: SSL_write at " "$SNOOP_ERR" || :
}

has_files() {
	(($(files_of "$1") >= $2))
}

# own_libssl NAME: a copy in a directory of its own, $BATS_TEST_TMPDIR/NAME
own_libssl() {
	mkdir -p "$BATS_TEST_TMPDIR/$1"
	cp -L "${2:-$LIBSSL}" "$BATS_TEST_TMPDIR/$1/${LIBSSL##*/}"
}

# start_with NAME: ssl_target with that libssl
start_with() {
	start_witness env "LD_LIBRARY_PATH=$BATS_TEST_TMPDIR/$1" "$TESTS/ssl_target" --mode edges --truth TRUTH
	grep -q "$BATS_TEST_TMPDIR/$1/libssl" "/proc/$TARGET_PID/maps"
}

@test "one file under several names: every byte once" {
	local name=${LIBSSL##*/} dir
	own_libssl one
	mkdir two three
	ln "one/$name" "two/$name"
	touch "three/$name"
	mount --bind "one/$name" "three/$name"
	UNDO+=("umount '$PWD/three/$name'")
	for dir in one two three; do
		start_with "$dir"
	done
	start_machine -v
	for dir in one two three; do
		start_with "$dir"
	done
	let_witnesses_go
	stop_machine
	(($(grep -c "^tlssnoop: attached: $PWD/.*: SSL_write at" "$SNOOP_ERR") == 1))
	compare_witnesses
}

@test "-l: a file in whatever runs it, before and later; with -p, too" {
	own_libssl one
	start_with one
	start_tlssnoop -j -B 65536 -l "$PWD/one/${LIBSSL##*/}"
	some_run_it
	start_with one
	start_witness "$RELEASE/std_target" --truth TRUTH edges
	start_tlssnoop -j -B 65536 -p "$TARGET_PID" -l "$PWD/one/${LIBSSL##*/}"
	some_run_it
}

# some_run_it: and one that has another libssl
some_run_it() {
	start_with one
	start_target "$TESTS/ssl_target" --mode edges --truth "$TRUTH"
	go
	wait_target
	let_witnesses_go
	stop_machine
	compare_witnesses --alone
	rm "$WITNESS"/[0-9]*
}

# probes_of FILE: how many times its probes were set
probes_of() {
	grep -c "^tlssnoop: attached: $1: MessageEncrypter::encrypt at " "$SNOOP_ERR" || :
}

has_more_probes() {
	(($(probes_of "$1") > $2))
}

@test "a program that is written to between its runs" {
	local from had program=$PWD/rustls/program
	mkdir rustls
	start_machine -v
	for from in "$RELEASE" "$FAT" "$DEV" "$RELEASE" "$DEV"; do
		had=$(probes_of "$program")
		cp "$from/std_target" "$program"	# the inode stays
		start_witness "$program" --truth TRUTH bulk 3 100
		eventually 20 has_more_probes "$program" "$had" || fail "not seen: $from"
		let_witnesses_go
		run_witness "$program" --truth TRUTH bulk 3 100
	done
	stop_machine
	compare_witnesses
}

# opens_a_fifo PID: and waits for who opens its other end
opens_a_fifo() {
	[[ $(<"/proc/$1/wchan") == wait_for_partner ]]
}

@test "-l of a file that is written to after it was read" {
	local status=0 pid
	cp "$LIBSSL" written
	mkfifo output
	# it waits for the reader of its output, and has read the file by then
	"$TLSSNOOP" -l "$PWD/written" -o output 2>"$SNOOP_ERR" 3>&- &
	pid=$!
	STARTED+=("$pid")
	eventually 20 opens_a_fifo "$pid"
	echo >>written
	cat output >"$TRACE" &
	wait_pid 20 "$pid" || status=$?
	((status == 1)) || fail "status $status"
	[[ $(<"$SNOOP_ERR") == "tlssnoop: cannot trace: $PWD/written: it is written to" ]] ||
		fail "$(<"$SNOOP_ERR")"
}

@test "a library that is deleted, or replaced" {
	own_libssl gone
	own_libssl new
	start_with gone
	start_with new
	rm "gone/${LIBSSL##*/}"
	start_machine -v
	other_libssl other
	cp other "new/next"
	mv "new/next" "new/${LIBSSL##*/}"
	start_with new
	eventually 20 attached_below "$PWD/new" 2 || fail 'the new one has no probes'
	let_witnesses_go
	stop_machine
	compare_witnesses
}

# other_libssl FILE: another build of the library, whose functions lie elsewhere
other_libssl() {
	local static
	static=$(gcc -print-file-name=libssl.a)
	nm -D --defined-only --with-symbol-versions "$LIBSSL" | awk '
		split($3, name, "@@") == 2 { of[name[2]] = of[name[2]] " " name[1] ";" }
		END { for (version in of) print version " { global:" of[version] " };" }' >"$1.map"
	echo 'char padding[100000] = {1}; int moved(int n) { return n * 3 + padding[n]; }' |
		gcc -x c -c -fPIC -o "$1.o" -
	# of the other archive what the shared libcrypto keeps for itself
	gcc -shared -o "$1" "$1.o" -Wl,--whole-archive "$static" -Wl,--no-whole-archive \
		-Wl,--version-script="$1.map" -Wl,-soname,"${LIBSSL##*/}" \
		-lcrypto "${static/libssl/libcrypto}"
	[[ $(offset_of "$1") != "$(offset_of "$LIBSSL")" ]] || fail 'the same place'
}

offset_of() {
	readelf --wide --dyn-syms "$1" | awk '$8 ~ /^SSL_write(@|$)/ { print $2 }'
}

# ---- containers ----

# start_in ROOT: ssl_target in namespaces of its own, and a root that it cannot write to
start_in() {
	local pid stdin truth
	mkdir -p "$1$WITNESS"
	# shellcheck disable=SC2016 # for sh
	start_witness unshare -m -p -f sh -c 'mount --bind "$0" "$0" && mount --bind "$1" "$0$1" &&
		mount -o remount,bind,ro "$0" && shift && exec chroot "$0" "$@"' "$1" "$WITNESS" \
		/ssl_target --mode edges --truth TRUTH
	read -r pid stdin truth _ <<<"${WITNESSES[-1]}"
	WITNESSES[-1]="$pid $stdin $truth $(innermost "$pid")"
}

# newer_libssl ROOT: another version of OpenSSL there, at the same path
newer_libssl() {
	local library crypto dir=$1${LIBSSL%/*}
	library=$("$TESTS/libraries/get" openssl-3.5)
	crypto=$(ldd "$library" | awk '/libcrypto/ { print $3 }')
	cp "$library" "$1$LIBSSL"
	cp "$crypto" "$dir/libcrypto.so.3"
	ln -s libcrypto.so.3 "$dir/${crypto##*/}"
	ldd "$library" | awk '/lib(z|dl|pthread)[.]/ { print $3 }' | xargs cp -L -t "$dir"
}

@test "containers: another library at the same path, a root on overlayfs, read-only" {
	local root other=$BATS_TEST_TMPDIR/other newer=$BATS_TEST_TMPDIR/newer files
	chroot_with_target
	cp -a "$ROOT" "$newer"
	newer_libssl "$newer"
	cp -a "$ROOT" "$other"
	other_libssl "$BATS_TEST_TMPDIR/build"
	cp "$BATS_TEST_TMPDIR/build" "$other$LIBSSL"
	for root in "$ROOT" "$other" "$newer"; do
		start_in "$root"
	done
	start_machine -v
	files=$(files_of libssl.so.3)
	((files >= 3))
	for root in "$ROOT" "$other" "$newer"; do	# files that are known
		start_in "$root"
	done
	mkdir lower-upper work merged
	if mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=lower-upper,workdir=work" merged; then
		UNDO+=("umount -l '$PWD/merged'")
		start_in "$PWD/merged"
		eventually 20 has_files libssl.so.3 $((files + 1)) || fail 'not seen: overlayfs'
		start_in "$PWD/merged"
	fi
	cp -a "$other" third
	start_in "$PWD/third"
	eventually 20 has_files libssl.so.3 $((files + 2)) || fail 'not seen: the third root'
	let_witnesses_go
	stop_machine
	compare_witnesses
}

# ---- what is looked at ----

# run_program: for longer than the test needs
run_program() {
	"$program" 300 3>&- &
	STARTED+=("$!")
}

# opened_times COUNT: by tlssnoop, as the kernel told
opened_times() {
	(($(grep -c "^opened by $SNOOP_PID$" "$OPENED") == $1))
}

@test "a program without TLS is read once" {
	local program=$PWD/program noticer
	cp /bin/sleep "$program"
	# how many times who opens the file: the kernel tells (fanotify)
	OPENED=$BATS_TEST_TMPDIR/opened
	TARGET_OUT=$OPENED start_target "$PYTHON" -u -c 'if True:
		import ctypes, os, struct, sys
		libc = ctypes.CDLL(None, use_errno=True)
		notices = libc.fanotify_init(0, os.O_RDONLY)
		if notices < 0 or libc.fanotify_mark(notices, 1, ctypes.c_uint64(0x20), -100, sys.argv[1].encode()):
		    sys.exit(os.strerror(ctypes.get_errno()))
		print("ready")
		while True:
		    data = os.read(notices, 4096)
		    for at in range(0, len(data), 24):
		        fd, pid = struct.unpack_from("=ii", data, at + 16)
		        os.close(fd)
		        print("opened by", pid)' "$program"
	noticer=$TARGET_PID
	start_machine -v
	run_program
	eventually 20 opened_times 1 || fail 'it is not looked at'
	for _ in {1..7}; do
		run_program
	done
	own_libssl next
	start_with next
	eventually 20 attached_below "$PWD/next" 1	# what came before was looked at, too
	opened_times 1 || fail 'it is read again' "$(<"$OPENED")"
	stop_machine
	kill -TERM "$noticer"
	let_go_unseen
}

# ---- hard circumstances ----

# make_storm: $BATS_TEST_TMPDIR/storm COUNT PROGRAM: runs it so often, two at a time
make_storm() {
	gcc -Wall -O2 -x c -o storm - <<-'EOF'
		#include <spawn.h>
		#include <stdio.h>
		#include <stdlib.h>
		#include <sys/wait.h>

		extern char **environ;

		int main(int argc, char **argv)
		{
			int i, n = atoi(argv[1]);
			pid_t pid;

			for (i = 0; i < n; i++) {
				if (posix_spawn(&pid, argv[2], NULL, NULL, argv + 2, environ))
					return perror(argv[2]), 1;
				if (i)
					wait(NULL);
			}
			return wait(NULL) < 0;
		}
	EOF
}

@test "5,000 short processes, and a program after them" {
	local begin
	make_storm
	start_nginx 1
	start_some
	start_machine
	begin=$EPOCHSECONDS
	./storm 5000 /bin/true
	echo "# 5,000 in $((EPOCHSECONDS - begin)) s" >&3
	fetch after /n/after
	let_witnesses_go
	stop_machine
	compare_witnesses --server "${WORKERS[0]}"
}

# traced_pids: the processes that the kernel side has in its map
traced_pids() {
	local id
	for id in $(our_objects map); do
		[[ $(bpftool -j map show id "$id" | jq -r .name) != processes ]] ||
			bpftool -j map dump id "$id" | jq '.[].formatted.key'
	done
}

none_is_gone() {
	local pid
	for pid in $(traced_pids); do
		[[ -e /proc/$pid ]] || return 1
	done
}

@test "499 short programs with libssl leave nothing behind" {
	make_storm
	start_some
	start_machine
	[[ $(traced_pids) == *"$TARGET_PID"* ]] || fail 'what runs is not among the traced'
	LD_PRELOAD=$LIBSSL ./storm 499 /bin/true
	eventually 10 none_is_gone || fail "$(traced_pids | wc -l) processes are traced, and not all are there"
	let_witnesses_go
	stop_machine
	compare_witnesses
}

@test "programs that end while they are looked at" {
	local i said
	start_nginx 1
	start_machine
	for ((i = 0; i < 31; i++)); do
		cp "$RELEASE/std_target" "brief$i"
		"./brief$i" >/dev/null 2>&1 && fail 'it works without arguments'
		rm "brief$i"
	done
	fetch after /n/after
	stop_machine
	said=$(grep "brief" "$SNOOP_ERR" | grep -v '^tlssnoop: hint' || :)
	[[ -z $said ]] || fail "$said"
	compare_witnesses --server "${WORKERS[0]}"
}

@test "more new mappings than there is room for: it says so, and looks at all again" {
	make_storm
	start_some	# so that their files are known
	start_machine -v
	kill -STOP "$SNOOP_PID"
	own_libssl meanwhile
	start_with meanwhile
	./storm 4001 /bin/true
	kill -CONT "$SNOOP_PID"
	eventually 30 grep -q '^tlssnoop: hint: too many new mappings at once' "$SNOOP_ERR" || fail 'it does not say so'
	eventually 30 attached_below "$PWD/meanwhile" 1 || fail 'it has not looked again'
	start_some
	let_witnesses_go
	stop_machine
	compare_witnesses
}

# start_served COUNT: so many processes with a libssl on a file system whose server is FUSE_PID
start_served() {
	mkdir -p real mounted
	cp -L "$LIBSSL" real
	mergerfs -f real mounted 2>mergerfs.stderr 3>&- &
	FUSE_PID=$!
	STARTED+=("$FUSE_PID")
	UNDO+=("kill -CONT $FUSE_PID" "umount -l '$PWD/mounted'")
	eventually 10 mountpoint -q mounted || skip "no FUSE here: $(<mergerfs.stderr)"
	local i
	for ((i = 0; i < $1; i++)); do
		start_with mounted
	done
}

# start_hanging COUNT: and it stops
start_hanging() {
	start_served "$1"
	kill -STOP "$FUSE_PID"
}

# let_go_unseen: the witnesses, to their end; nobody is to compare them
let_go_unseen() {
	local witness stdin
	for witness in "${WITNESSES[@]}"; do
		read -r _ stdin _ <<<"$witness"
		echo go >&"$stdin"
		wait_pid 30 "${witness%% *}"
	done
}

@test "where libraries usually lie: one that is damaged, one that cannot be opened" {
	local dir=$BATS_TEST_TMPDIR/lib
	mkdir "$dir"
	head -c 100 "$LIBSSL" >"$dir/libssl.so.96"
	ln -s libssl.so.97 "$dir/libssl.so.97"
	ln -s gone "$dir/libssl.so.98"
	# shellcheck disable=SC2016 # for the shell
	instead_of_tlssnoop unshare -m sh -c \
		'mount --bind "$0" /usr/local/lib && exec "$@"' "$dir" "$TLSSNOOP"
	start_machine
	stop_machine
	grep -x 'tlssnoop: cannot trace: /usr/local/lib/libssl.so.96: the ELF file is damaged' "$SNOOP_ERR"
	grep -x 'tlssnoop: cannot open: /usr/local/lib/libssl.so.97: Too many .*symbolic links' "$SNOOP_ERR"
	# a package may have left that behind
	[[ $(<"$SNOOP_ERR") != *libssl.so.98* ]] || fail "$(<"$SNOOP_ERR")"
}

@test "a file system that does not answer" {
	local begin i
	start_nginx 1
	mkdir real
	for ((i = 0; i < 23; i++)); do
		cp -L "$LIBSSL" "real/$i"
	done
	start_served 1
	start_target "$PYTHON" -c 'if True:
		import mmap, os, sys
		maps = [mmap.mmap(os.open(f"mounted/{i}", os.O_RDONLY), 0, mmap.MAP_PRIVATE,
		                  mmap.PROT_READ | mmap.PROT_EXEC) for i in range(23)]
		print("ready", flush=True)
		sys.stdin.readline()'
	kill -STOP "$FUSE_PID"
	begin=$EPOCHSECONDS
	start_machine
	echo "# ready after $((EPOCHSECONDS - begin)) s" >&3
	((EPOCHSECONDS - begin < 40)) || fail 'it waits for each file'
	(($(grep -c "^tlssnoop: not looked at: $PWD/mounted/.*: its file system does not answer" "$SNOOP_ERR") == 24)) ||
		fail 'it does not say so'
	fetch meanwhile /n/meanwhile
	kill -CONT "$FUSE_PID"
	fetch after /n/after
	stop_machine
	go
	wait_target
	let_go_unseen
	compare_witnesses --server "${WORKERS[0]}"
}

# serve LIMIT: tests/served.py has taken this
serve() {
	echo "$1" >&"$SERVE"
	eventually 10 grep -qx "limit ${1:-None}" served.stdout
}

# says STATUS MESSAGE ARG...: tlssnoop does, in some seconds
says() {
	local status=0
	timeout 30 "$TLSSNOOP" "${@:3}" >"$TRACE" 2>"$SNOOP_ERR" 3>&- || status=$?
	((status == $1)) || fail "${*:3}: status $status"
	grep -qxF "tlssnoop: $2" "$SNOOP_ERR" || fail "${*:3}: $(<"$SNOOP_ERR")"
}

@test "lines do not wait for a file system that does not answer" {
	local stdin
	start_served 0
	start_target "$PYTHON" -c 'if True:
		import ctypes, os, sys
		file = os.open(sys.argv[1], os.O_RDONLY)
		print("ready", flush=True)
		sys.stdin.readline()
		ctypes.CDLL(None).mmap(None, ctypes.c_size_t(4096), 5, 2, file, 0)	# of which the server does not hear
		sys.stdin.readline()' "mounted/${LIBSSL##*/}"
	kill -STOP "$FUSE_PID"
	stdin=$TARGET_STDIN
	start_pacer
	watch_lines
	TRACE=$LINES start_machine
	go
	echo map >&"$stdin"
	wait_pid 60 "$PACER" || fail 'the target failed' "$(<"$TARGET_ERR")"
	grep -q "^tlssnoop: not looked at: $PWD/mounted/" "$SNOOP_ERR" || fail 'it is not asked for'
	stop_machine
	lines_within 150
	grep "\"pid\":$PACER," "$TRACE" >"$TRACE.own"
	TRACE=$TRACE.own TARGET_PID=$PACER compare json
	kill -CONT "$FUSE_PID"
}

@test "a file system that ceases to answer in the middle of a file" {
	local program=$PWD/rustls/program why='its file system does not answer' symbols
	[[ -c /dev/fuse ]] || skip 'no FUSE here'
	mkdir real rustls
	cp "$RELEASE/std_target" real/program
	TARGET_OUT=served.stdout start_target "$PYTHON" "$TESTS/served.py" real rustls
	UNDO+=("umount -l '$PWD/rustls'")
	SERVE=$TARGET_STDIN
	# a program that runs does not read its symbols, but tlssnoop does
	symbols=$(readelf -SW real/program | sed -nE 's/.* SYMTAB +[0-9a-f]+ ([0-9a-f]+) .*/0x\1/p')
	((symbols > 1000000))
	serve $((symbols / 4096 * 4096))
	start_nginx 1
	start_machine
	start_witness "$program" --truth TRUTH edges
	fetch during /n/during
	eventually 8 grep -q 'GET /n/during' "$TRACE" || fail 'lines wait'
	! grep -q 'not looked at' "$SNOOP_ERR" || fail 'it did not wait'
	eventually 30 grep -qx "tlssnoop: not looked at: $program: $why" "$SNOOP_ERR" || fail 'it does not say so'
	grep -q '^tlssnoop: hint: start tlssnoop again when it does' "$SNOOP_ERR"
	fetch after /n/after
	stop_machine
	compare_witnesses --server "${WORKERS[0]}"
	rm "$WITNESS"/{during,after}.*

	says 1 "not looked at: $program: $why" -p "$TARGET_PID"
	says 1 "not looked at: $program: $why" -L -p "$TARGET_PID"
	says 1 "cannot trace: $program: $why" -l "$program"
	serve ''
	start_tlssnoop -j -p "$TARGET_PID"
	let_witnesses_go
	ended_well
	compare_witnesses
}

@test "a file system that ceases to answer when its files have their probes" {
	start_nginx 1
	start_served 1
	start_machine -v
	attached_below "$PWD/mounted" 1 || fail 'its library has no probes'
	kill -STOP "$FUSE_PID"
	fetch meanwhile /n/meanwhile
	stop_machine
	compare_witnesses --server "${WORKERS[0]}"
	kill -CONT "$FUSE_PID"

	start_tlssnoop -j -v -p "$TARGET_PID"
	attached_below "$PWD/mounted" 1 || fail 'its library has no probes'
	kill -STOP "$FUSE_PID"
	stop_machine
	kill -CONT "$FUSE_PID"

	rm "$WITNESS"/meanwhile.*
	start_tlssnoop -j -p "$TARGET_PID"
	let_witnesses_go
	ended_well
	compare_witnesses
}

@test "a look at all processes that takes long is shown on a terminal, and nowhere else" {
	start_hanging 1
	timeout 60 "$PYTHON" "$TESTS/terminal.py" \
		expect '\rtlssnoop: looked at [0-9]+ of [0-9]+ processes' expect '\r\x1b\[K' \
		expect 'Tracing all processes' send '\x03' -- "$TLSSNOOP" -o "$TRACE" >"$TARGET_OUT" ||
		fail "$(<"$TARGET_OUT")"
	timeout 60 "$PYTHON" "$TESTS/terminal.py" expect 'does not answer' expect Tracing send '\x03' \
		-- "$TLSSNOOP" -q -o "$TRACE" >"$TARGET_OUT" || fail "$(<"$TARGET_OUT")"
	! grep -q 'looked at [0-9]' "$TARGET_OUT" || fail 'with -q'
	start_machine
	stop_machine
	grep -q 'does not answer' "$SNOOP_ERR"
	! grep -q 'looked at [0-9]' "$SNOOP_ERR" || fail 'no terminal'
	kill -CONT "$FUSE_PID"
	let_go_unseen
}

# make_idle FILE BYTES: a program of this size, nearly all holes, that does nothing
make_idle() {
	gcc -Wall -x c -o "$1.whole" - <<-EOF
		#include <unistd.h>

		const char data[$2] = {1};

		int main(void) { return data[0] ? pause() : 0; }
	EOF
	cp --sparse=always "$1.whole" "$1"
	rm "$1.whole"
}

@test "300 processes to look at: the lines of the first do not wait" {
	own_libssl first
	# what has used most time is looked at first
	start_witness env "LD_LIBRARY_PATH=$PWD/first" "$PYTHON" -c 'if True:
		import runpy, sys, time
		while time.process_time() < 1:
		    pass
		del sys.argv[0]
		runpy.run_path(sys.argv[0], run_name="__main__")' \
		"$TESTS/py_target.py" --cert "$CERT" --key "$KEY" --truth TRUTH
	make_idle small 1
	make_idle large 600000000	# which takes a second
	start_target "$PYTHON" -c 'if True:
		import ctypes, os, signal, subprocess, sys
		end_with_us = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL)
		for n in range(300):
		    kind = "small" if n % 41 else "large"
		    subprocess.run(["cp", "--sparse=always", kind, f"{kind}{n}"], check=True)
		    subprocess.Popen([f"./{kind}{n}"], preexec_fn=end_with_us)
		print("ready", flush=True)
		sys.stdin.readline()'
	watch_lines
	"$TLSSNOOP" -j -v -B 131072 >"$LINES" 2>"$SNOOP_ERR" 3>&- &
	SNOOP_PID=$!
	STARTED+=("$SNOOP_PID")
	eventually 60 attached_below "$PWD/first" 1 || fail 'not attached'
	let_witnesses_go
	eventually 10 compare_witnesses || fail 'not all of it has come'
	! grep '^Tracing' "$SNOOP_ERR" || fail 'all was looked at before the lines came'
	line_comes '^Tracing' "$SNOOP_ERR" "$SNOOP_PID"
	stop_machine
	lines_within 250
	compare_witnesses
}

@test "a program of a gigabyte" {
	local program
	cp "$TESTS/ssl_target" huge1
	cp "$RELEASE/std_target" huge2
	strip -o huge3 "$RELEASE/std_target"
	for program in huge1 huge2 huge3; do
		truncate -s 1G "$program"
	done
	mkdir rustls
	mv huge2 huge3 rustls
	start_witness ./huge1 --mode edges --truth TRUTH
	start_witness "$PWD/rustls/huge2" --truth TRUTH edges
	start_witness "$PWD/rustls/huge3" --truth TRUTH edges
	start_machine
	let_witnesses_go
	stop_machine
	compare_witnesses
}

@test "root of a user namespace may not, and the command is not started" {
	local status=0
	unshare -Ur true || skip 'no user namespaces here'
	unshare -Ur "$TLSSNOOP" >"$TRACE" 2>"$SNOOP_ERR" || status=$?
	((status == 1)) || fail "status $status"
	grep -q '^tlssnoop: cannot trace: BPF ring buffer: Operation not permitted$' "$SNOOP_ERR"
	status=0
	unshare -Ur "$TLSSNOOP" -- touch started >"$TRACE" 2>"$SNOOP_ERR" || status=$?
	((status == 1)) || fail "status $status"
	grep -q '^tlssnoop: cannot trace: BPF ring buffer: Operation not permitted$' "$SNOOP_ERR"
	[[ ! -e started ]] || fail 'the command was started'
}

@test "only one user, only one name" {
	start_nginx 1
	start_machine -u nobody
	fetch root /n/root
	rm "$WITNESS"/root.*
	setpriv --reuid nobody --clear-groups --inh-caps=-all curl -q -s --http1.1 -k -o /dev/null \
		"https://localhost:$NGINX_PORT/n/nobody"
	stop_machine
	(($(wc -l <"$TRACE") >= 2))
	[[ $(jq -s "map(select(.uid != $(id -u nobody))) | length" "$TRACE") == 0 ]]
	grep -q '"data":"GET /n/nobody ' "$TRACE"

	start_machine -n curl
	fetch named /n/named
	stop_machine
	compare_witnesses
	[[ $(jq -s 'map(select(.comm != "curl")) | length' "$TRACE") == 0 ]]
}

@test "what others send does not even fill the ring" {
	local filter lost
	for filter in '' "-u 4242" "-n nobody-has-it"; do
		start_target "$TESTS/ssl_target" --bio mem --mode bulk 101 8192 --truth "$TRUTH"
		# shellcheck disable=SC2086 # an option and its argument
		start_tlssnoop -B 64 $filter
		kill -STOP "$SNOOP_PID"
		go
		wait_target
		kill -CONT "$SNOOP_PID"
		stop_machine
		lost=$(sed -nE 's/^tlssnoop: .* bytes, ([0-9]+) lost.*/\1/p' "$SNOOP_ERR")
		if [[ $filter ]]; then
			# -n says nothing of system calls, and others on the machine have some
			grep -qE '^tlssnoop: 0 chunks, 0 bytes, 0 lost(, [0-9]+ system calls unseen)?$' "$SNOOP_ERR" ||
				fail "$filter: $(tail -n 2 "$SNOOP_ERR")"
		else
			((lost > 300)) || fail "the ring holds it all: $lost lost"
		fi
	done
}

# lists PID FUNCTION: -L has it
lists() {
	grep -qE "^$1 .* $2 +/" "$TRACE" || fail "pid $1: no $2"
}

@test "-L for the whole machine, and for a process and its children" {
	local ssl rustls shell child busy
	start_witness "$TESTS/ssl_target" --mode edges --truth TRUTH
	ssl=$TARGET_PID
	start_witness "$RELEASE/std_target" --truth TRUTH edges
	rustls=$TARGET_PID
	"$TLSSNOOP" -L >"$TRACE" 2>"$SNOOP_ERR"
	lists "$ssl" SSL_read
	lists "$ssl" SSL_write_ex
	lists "$rustls" MessageEncrypter::encrypt
	! grep -q "^$$ " "$TRACE" || fail 'bash has no TLS'
	# the busiest come first
	start_target env "LD_PRELOAD=$LIBSSL" "$PYTHON" -c $'print("ready", flush=True)\nwhile True: pass'
	busy=$TARGET_PID
	"$TLSSNOOP" -L >"$TRACE"
	lists "$busy" SSL_read
	[[ $(grep -E "^($busy|$ssl) " "$TRACE" | head -n 1) == "$busy "* ]] || fail 'not in order'
	kill "$busy"
	# shellcheck disable=SC2016 # for sh
	ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=$LIBSSL sh -c 'echo $$ >pid; exec "$@"' sh "$TLSSNOOP" -L >"$TRACE"
	lists "$ssl" SSL_read
	! grep -q "^$(<pid) " "$TRACE" || fail 'it has found itself'
	# shellcheck disable=SC2016 # for sh
	start_target sh -c '"$@"; true' sh sh -c '"$@"; true' sh \
		"$TESTS/ssl_target" --truth "$TRUTH" --mode edges
	shell=$TARGET_PID
	child=$(innermost "$shell")
	"$TLSSNOOP" -L -p "$shell" >"$TRACE" 2>"$SNOOP_ERR" && fail 'the shell has no TLS'
	"$TLSSNOOP" -L -f -p "$shell" >"$TRACE" 2>"$SNOOP_ERR"
	lists "$child" SSL_read
	! grep -qE "^($ssl|$rustls) " "$TRACE" || fail 'others'
	go
	wait_target
	let_go_unseen
}
