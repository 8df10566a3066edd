#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Where functions are found in files that were stripped, and in files of which a process has several:
# symbols in .gnu_debugdata, debug files by build-id and by link, the tables; shared objects with
# rustls of another version. Needs root, binutils, xz, unshare, a cargo that tests/rustls/build
# accepts, and tlssnoop. What is to lie in /usr/lib/debug lies in a mount namespace of the test.
# It must never change that directory itself, nor trust a source because something was found.

load lib

setup_file() {
	RELEASE=$(built rustls release)
	FAT=$(built rustls fat)
	PLUGIN=$(built plugin release)/libtlssnoop_plugin.so
	export RELEASE FAT PLUGIN
}

setup() {
	WHOLE=$RELEASE/std_target
	DIR=$BATS_TEST_TMPDIR/bin			# of the program
	DEBUG=$BATS_TEST_TMPDIR/debug		# what is /usr/lib/debug in the namespace
	PROGRAM=$DIR/program
	SYMBOLS=$DIR/program.debug
	OVER=$BATS_TEST_TMPDIR/over		# what makes room for it, where there is none
	mkdir -p "$DIR" "$DEBUG" "$OVER"
	objcopy --strip-all "$WHOLE" "$PROGRAM"
}

teardown() {
	finish
}

# private COMMAND...: where /usr/lib/debug is DEBUG
private() {
	# shellcheck disable=SC2016 # for the inner shell
	PRIVATE=(unshare -m sh -c 'debug=$0 && if [ ! -d /usr/lib/debug ]; then
			mount -t tmpfs none "$1" && mkdir -p "$1/up/debug" "$1/work" &&
				mount -t overlay -o "lowerdir=/usr/lib,upperdir=$1/up,workdir=$1/work" none /usr/lib
		fi && mount --bind "$debug" /usr/lib/debug && shift && exec "$@"'
		"$DEBUG" "$OVER")
	"${PRIVATE[@]}" "$@"
}

# functions: direction, place and function of what -L lists on stdin
functions() {
	awk '$2 == "rustls" { print $4, $6, $7 }' | sort
}

# source_is SOURCE [FILE]: what private tlssnoop finds in it; by symbols, all that the whole one has
source_is() {
	local file=${2:-$PROGRAM}
	private "$TLSSNOOP" -L -l "$file" >"$TRACE" 2>"$SNOOP_ERR" || fail "$(<"$SNOOP_ERR")"
	[[ $(awk '$2 == "rustls" { print $5 }' "$TRACE" | sort -u) == "$1" ]] ||
		fail "the source is not $1:" "$(<"$TRACE")"
	[[ $1 == tables ]] ||
		diff <("$TLSSNOOP" -L -l "$WHOLE" | functions) <(functions <"$TRACE")
}

# debug_file [PROGRAM]: makes SYMBOLS of it
debug_file() {
	objcopy --only-keep-debug "${1:-$WHOLE}" "$SYMBOLS"
}

# by_build_id: the path in DEBUG of the program's debug file
by_build_id() {
	local id
	id=$(readelf -n "$PROGRAM" | sed -n 's/ *Build ID: //p')
	[[ -n $id ]]
	mkdir -p "$DEBUG/.build-id/${id:0:2}"
	echo "$DEBUG/.build-id/${id:0:2}/${id:2}.debug"
}

# link_debug: the program's .gnu_debuglink names SYMBOLS
link_debug() {
	objcopy --remove-section .gnu_debuglink "$PROGRAM"
	objcopy --add-gnu-debuglink="$SYMBOLS" "$PROGRAM"
}

# mini PROGRAM: SYMBOLS as find-debuginfo of rpm makes it: functions that .dynsym does not have, in xz
mini() {
	debug_file "$1"
	nm -D --format=posix --defined-only "$1" | cut -d ' ' -f 1 | sort >"$DIR/dynamic"
	nm --format=posix --defined-only "$SYMBOLS" | awk '$2 ~ /^[TtD]$/ { print $1 }' | sort |
		comm -13 "$DIR/dynamic" - >"$DIR/keep"
	objcopy -S --remove-section .gdb_index --remove-section .comment \
		--keep-symbols="$DIR/keep" "$SYMBOLS" "$DIR/mini"
	xz -f "$DIR/mini"
	rm "$SYMBOLS"
}

# trace_it COMMAND...: the program that COMMAND runs, with what is compared
trace_it() {
	start_target "$@" --truth "$TRUTH" --tls 1.3 edges
	start_tlssnoop -j -p "$TARGET_PID"
	go
	wait_target
	ended_well
	compare json --stream --peer-truth "$TRUTH"
}

@test "symbols in .gnu_debugdata" {
	mini "$WHOLE"
	objcopy --add-section .gnu_debugdata="$DIR/mini.xz" "$PROGRAM"
	source_is debugdata
	trace_it "$PROGRAM"
}

@test "a damaged .gnu_debugdata" {
	local size
	mini "$WHOLE"
	size=$(stat -c %s "$DIR/mini.xz")
	truncate -s $((size * 2 / 3)) "$DIR/mini.xz"
	objcopy --add-section .gnu_debugdata="$DIR/mini.xz" "$PROGRAM"
	source_is tables
	trace_it "$PROGRAM"
	objcopy --remove-section .gnu_debugdata "$PROGRAM"
	mini "$FAT/std_target" # of another build
	objcopy --add-section .gnu_debugdata="$DIR/mini.xz" "$PROGRAM"
	source_is tables
}

@test "a debug file by build-id" {
	debug_file
	mv "$SYMBOLS" "$(by_build_id)"
	source_is build-id
}

@test "a debug file in the root of the process" {
	debug_file
	mv "$SYMBOLS" "$(by_build_id)"
	private true
	trace_it "${PRIVATE[@]}" "$PROGRAM"
	start_target "${PRIVATE[@]}" "$PROGRAM" --truth "$TRUTH" edges
	"$TLSSNOOP" -L -p "$TARGET_PID" >"$TRACE"
	[[ $(awk '$2 == "rustls" { print $5 }' "$TRACE" | sort -u) == build-id ]] || fail "$(<"$TRACE")"
	go
	wait_target
}

@test "a debug file by link" {
	local place at=$DIR
	debug_file
	link_debug
	source_is debuglink
	for place in "$DIR/.debug" "$DEBUG$DIR"; do
		mkdir -p "$place"
		mv "$at/${SYMBOLS##*/}" "$place"
		at=$place
		source_is debuglink
	done
	mv "$at/${SYMBOLS##*/}" "$DIR"
	trace_it "$PROGRAM"
}

@test "a debug file by link, without build-ids" {
	objcopy --remove-section .note.gnu.build-id "$WHOLE" "$DIR/whole"
	objcopy --strip-all "$DIR/whole" "$PROGRAM"
	debug_file "$DIR/whole"
	link_debug
	source_is debuglink
	debug_file "$WHOLE" # with one
	link_debug
	source_is tables
}

@test "one source after the other" {
	cp "$WHOLE" "$PROGRAM"
	mini "$WHOLE"
	debug_file
	cp "$SYMBOLS" "$(by_build_id)"
	objcopy --add-section .gnu_debugdata="$DIR/mini.xz" "$PROGRAM"
	link_debug
	source_is .symtab
	objcopy --strip-all "$PROGRAM"
	source_is debugdata
	objcopy --remove-section .gnu_debugdata "$PROGRAM"
	source_is build-id
	rm "$(by_build_id)"
	source_is debuglink
	rm "$SYMBOLS"
	source_is tables
}

@test "debug files that are not the program's" {
	local path
	path=$(by_build_id)
	debug_file "$FAT/std_target"
	cp "$SYMBOLS" "$path"
	source_is tables
	link_debug # the checksum is right, the build-id is not
	source_is tables
	debug_file
	link_debug
	printf x >>"$SYMBOLS" # and the other way round
	source_is tables
	objcopy --remove-section .gnu_debuglink "$PROGRAM"
	cp "$PROGRAM" "$path" # no symbols
	source_is tables
	head -c 100000 "$WHOLE" >"$path"
	source_is tables
}

@test "debug files that are no files of reasonable size" {
	local path
	path=$(by_build_id)
	mkfifo "$path"
	source_is tables
	rm "$path"
	mkdir "$path"
	source_is tables
	rmdir "$path"
	debug_file
	cp "$SYMBOLS" "$path"
	truncate -s 3G "$path"
	source_is tables
	rm "$path"
	ln -s "$path" "$path"
	source_is tables
}

@test "a link in the root of a process leads nowhere else" {
	local root=$BATS_TEST_TMPDIR/root path
	debug_file
	path=$(by_build_id)
	mkdir -p "$root/usr/lib/debug${path%/*}" "$root/usr/lib/debug/$(dirname "${path#"$DEBUG"/}")"
	ldd "$PROGRAM" | grep -o '/[^ ]*' | xargs cp --parents -L -t "$root"
	cp "$PROGRAM" "$root/program"
	ln -s "$SYMBOLS" "$root/usr/lib/debug/${path#"$DEBUG"/}"
	start_target chroot "$root" /program --truth /truth edges
	"$TLSSNOOP" -L -p "$TARGET_PID" >"$TRACE"
	[[ $(awk '$2 == "rustls" { print $5 }' "$TRACE" | sort -u) == tables ]] || fail "$(<"$TRACE")"
	mkdir -p "$root${SYMBOLS%/*}"
	cp "$SYMBOLS" "$root$SYMBOLS"
	"$TLSSNOOP" -L -p "$TARGET_PID" >"$TRACE"
	[[ $(awk '$2 == "rustls" { print $5 }' "$TRACE" | sort -u) == build-id ]] || fail "$(<"$TRACE")"
	go
	wait_target
}

@test "a server that does not answer, where debug files should be" {
	debug_file
	mv "$SYMBOLS" "$(by_build_id)"
	# a file system without the program that should stand behind it
	private "$PYTHON" - "$TLSSNOOP" -L -l "$PROGRAM" <<-'END' >"$TRACE" 2>"$SNOOP_ERR"
		import ctypes, os, subprocess, sys
		fuse = os.open("/dev/fuse", os.O_RDWR)
		options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
		libc = ctypes.CDLL(None, use_errno=True)
		if libc.mount(b"nobody", b"/usr/lib/debug", b"fuse", 0, options.encode()):
		    sys.exit(os.strerror(ctypes.get_errno()))
		sys.exit(subprocess.run(sys.argv[1:], timeout=60).returncode)
	END
	[[ $(awk '$2 == "rustls" { print $5 }' "$TRACE" | sort -u) == tables ]] || fail "$(<"$TRACE")"
	[[ $(grep -c '/usr/lib/debug/.build-id: its file system does not answer$' "$SNOOP_ERR") == 1 ]]
}

# strip_symbols PATTERN: the program without the symbols whose names match
strip_symbols() {
	nm "$PROGRAM" | awk -v pattern="$1" '$3 ~ pattern { print $3 }' >"$DIR/stripped"
	[[ -s $DIR/stripped ]]
	objcopy --strip-symbols="$DIR/stripped" "$PROGRAM"
}

@test "a symbol table that has only some of the functions" {
	local pattern
	# what the tables tell is there in any case, and nothing that is not in the whole table
	"$TLSSNOOP" -L -l "$PROGRAM" | functions >"$DIR/least"
	"$TLSSNOOP" -L -l "$WHOLE" | functions >"$DIR/most"
	[[ $(cut -d ' ' -f 1,3 "$DIR/least" | sort | uniq -c | xargs) == \
		'1 read ExpectEarlyData::handle 4 read ExpectTraffic::handle 3 write MessageEncrypter::encrypt' ]]
	for pattern in '6handle17h|7decrypt17h' 'ExpectTraffic.*6handle17h' 'MessageEncrypter.*7encrypt17h' \
		'tls13.*MessageEncrypter.*7encrypt17h' 'rustls|Message(En|De)crypter'; do
		cp "$WHOLE" "$PROGRAM"
		strip_symbols "$pattern"
		"$TLSSNOOP" -L -l "$PROGRAM" >"$TRACE"
		grep -q ' tables ' "$TRACE"
		functions <"$TRACE" >"$DIR/found"
		[[ -z $(comm -23 "$DIR/least" "$DIR/found") && -z $(comm -13 "$DIR/most" "$DIR/found") ]] ||
			fail "$pattern" "$(<"$TRACE")"
	done
	trace_it "$PROGRAM"
}

# remarks FILE: what -L remarks on it
remarks() {
	"$TLSSNOOP" -L -l "$1" | sed -n "s|: $1\$||; s/^# - //p"
}

@test "what -L says of Rust" {
	local rustc reads
	rustc=$(strings "$PROGRAM" | sed -n 's/.*rustc version \([^ ]*\).*/\1/p' | head -n 1)
	[[ -n $rustc ]]
	remarks "$PROGRAM" >"$TRACE"
	grep -qE "^rustls 0\.23\.[0-9]+ rustc $rustc read handle tables: the first choice$" "$TRACE"
	grep -qE "^rustls 0\.23\.[0-9]+ rustc $rustc write encrypt tables: the first choice$" "$TRACE"
	(($(wc -l <"$TRACE") == 2))
	objcopy --strip-all "$PLUGIN" "$PROGRAM"
	remarks "$PROGRAM" >"$TRACE"
	grep -qE "^rustls 0\.21\.12 rustc $rustc read handle tables: the first choice$" "$TRACE" ||
		fail "$(<"$TRACE")"
	cp "$WHOLE" "$PROGRAM"
	mapfile -t reads < <(nm "$WHOLE" | awk '$3 ~ /6handle17h|7decrypt/ { print $1 }')
	hide "${reads[@]}"
	strip_symbols '6handle17h|7decrypt'
	remarks "$PROGRAM" >"$TRACE"
	grep -qE "^rustls 0\.23\.[0-9]+ rustc $rustc read read \.symtab: there is no ExpectTraffic::handle,.*$" \
		"$TRACE" || fail "$(<"$TRACE")"
	strip_symbols '4read17h'
	remarks "$PROGRAM" >"$TRACE"
	grep -qE "^rustls 0\.23\.[0-9]+ rustc $rustc read - -: no function found$" "$TRACE" ||
		fail "$(<"$TRACE")"
}

@test "a cipher that cannot be decrypted is named, by -L too" {
	local handles decrypts decrypt missing named=()
	mapfile -t handles < <(nm "$WHOLE" | awk '$3 ~ /ExpectTraffic.*6handle17h/ { print $1 }')
	mapfile -t decrypts < <(nm "$WHOLE" |
		awk '$3 ~ /MessageDecrypter.*7decrypt17h/ && $3 !~ /InvalidMessage|wrapped|[$]u7b[$]/ { print $1 }')
	((${#handles[@]} == 4 && ${#decrypts[@]} == 3))
	for decrypt in "${decrypts[@]}"; do
		objcopy --strip-all "$WHOLE" "$PROGRAM"
		hide "${handles[@]}" "$decrypt"
		"$TLSSNOOP" -L -l "$PROGRAM" >"$TRACE"
		missing=$(sed -n "s|^# - rustls .* read - -: no function found that decrypts \\(.*\\): $PROGRAM\$|\\1|p" \
			"$TRACE")
		start_tlssnoop -l "$PROGRAM"
		stop_tlssnoop
		if [[ -n $missing ]]; then
			grep -qx "tlssnoop: not all is seen: $PROGRAM: rustls: no function found that decrypts $missing" \
				"$SNOOP_ERR"
			named+=("$missing")
		else
			! grep 'not all is seen' "$SNOOP_ERR"
		fi
	done
	# of ChaCha20 with TLS 1.2 the encrypter is not believed either
	[[ $(printf '%s\n' "${named[@]}" | sort | xargs) == 'tls12-gcm tls13' ]] || fail "${named[*]}"
}

# loaded LIBRARY...: the program's own rustls, and those of the libraries
loaded() {
	start_target "$RELEASE/plugin_target" --truth "$TRUTH" "$@"
	"$TLSSNOOP" -L -p "$TARGET_PID" >"$TRACE.list"
	start_tlssnoop -j -p "$TARGET_PID"
	go
	wait_target
	ended_well
	pairs "$TRUTH"
	compare json --stream --peer-truth "$TRUTH"
}

@test "a shared object with another rustls" {
	loaded "$PLUGIN"
	(($(awk '$2 == "rustls" { print $3 }' "$TRACE.list" | sort -u | wc -l) == 2))
}

@test "the same, stripped, and both at a time, once by two names" {
	objcopy --strip-all "$PLUGIN" "$DIR/stripped.so"
	ln "$DIR/stripped.so" "$DIR/again.so"
	loaded "$DIR/stripped.so"
	loaded "$PLUGIN" "$DIR/stripped.so" "$DIR/again.so"
	(($(awk '$2 == "rustls" { print $8 }' "$TRACE.list" | sort -u | wc -l) == 3))
}
