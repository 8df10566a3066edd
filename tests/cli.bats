#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# The command line: what each wrong use is told, and what each option does to the output of a
# small exchange. Needs root, tlssnoop, ssl_target next to this file, openssl, jq and script.
# It must never be content with a part of a message where the whole can be told.

load lib

CHUNKS=572 # of 200 bytes: what mode reuse exchanges
HEADER='TIME            PID     COMM             FD   DIR    LEN'

teardown() {
	finish
}

# wrong MESSAGE ARG...: wrong use, and what is said of it
wrong() {
	local status=0
	"$TLSSNOOP" "${@:2}" >"$TRACE" 2>"$SNOOP_ERR" || status=$?
	echo "# tlssnoop ${*:2}: $status"
	((status == 64))
	[[ ! -s $TRACE ]]
	[[ $(head -n 1 "$SNOOP_ERR") == "$1" ]] || fail "instead of: $1" "it says: $(<"$SNOOP_ERR")"
}

# range OPTION MIN MAX WRONG...: values that are not in the range
range() {
	local value
	for value in "${@:4}"; do
		wrong "tlssnoop: $1: '$value' is not a number from $2 to $3" "$1" "$value" -p 1
	done
}

# fails MESSAGE ARG...: the use is right, the message is the only one that is no hint
fails() {
	local status=0
	"${SNOOP[@]:-$TLSSNOOP}" "${@:2}" >"$TRACE" 2>"$SNOOP_ERR" || status=$?
	((status == 1)) || fail "status $status"
	[[ $(grep -v '^tlssnoop: hint: ' "$SNOOP_ERR") == "$1" ]] ||
		fail "instead of: $1" "it says: $(<"$SNOOP_ERR")"
}

# small: a small exchange that waits for go
small() {
	start_target "${1:-$TESTS/ssl_target}" --mode reuse --truth "$TRUTH"
}

# exchange ARG...: all of it under tlssnoop
exchange() {
	small
	start_tlssnoop -p "$TARGET_PID" "$@"
	go
	wait_target
	wait_tlssnoop
	((SNOOP_STATUS == 0)) || fail "tlssnoop ended with status $SNOOP_STATUS"
}

# summary CHUNKS: of 200 bytes each, nothing lost
summary() {
	grep -qx "tlssnoop: $1 chunks, $((200 * $1)) bytes, 0 lost" "$SNOOP_ERR"
}

# each CONDITION: holds for each object of a trace in JSON, of which there are CHUNKS
each() {
	[[ $(jq -s "map(select($1)) | length" "$TRACE") == "$CHUNKS" ]] || fail "not for all: $1"
	(($(wc -l <"$TRACE") == CHUNKS))
}

@test "numbers" {
	range -p 1 2147483647 '' x 0 -1 1x 0x10 2147483648 99999999999999999999
	wrong "tlssnoop: -p: '' is not a number from 1 to 2147483647" -p 1,
	wrong "tlssnoop: -p: 'x' is not a number from 1 to 2147483647" -p 1,x,2
	range -c 1 9223372036854775807 '' x 0 -1 1.5 9223372036854775808
	range -d 1 2147483647 '' 0 1s 2147483648
	range -s 0 2147483647 '' -1 2147483648
	range -B 64 1048576 '' 63 1048577 16M
	range -u 0 4294967294 '' -1 nobody-of-this-name 4294967295
}

@test "names" {
	wrong "tlssnoop: -k: 'wolfssl' is not a library that tlssnoop knows: openssl, rustls, gnutls, nss" -k wolfssl -p 1
	wrong "tlssnoop: -k: '' is not a library that tlssnoop knows: openssl, rustls, gnutls, nss" -k openssl, -p 1
	wrong "tlssnoop: -Q: 'both' is neither read nor write" -Q both -p 1
	wrong "tlssnoop: -Q: '' is neither read nor write" -Q '' -p 1
	wrong "tlssnoop: -n: '' is not a name of 1 to 15 bytes" -n '' -p 1
	wrong "tlssnoop: -n: 'sixteen-bytes-xx' is not a name of 1 to 15 bytes" -n sixteen-bytes-xx -p 1
	wrong "tlssnoop: -Q: '\\x1b[31mred\\x0a' is neither read nor write" -Q $'\e[31mred\n' -p 1
}

@test "formats exclude each other" {
	local a b
	for a in -x -X -A -j; do
		for b in -x -X -A -j; do
			[[ $a == "$b" ]] || wrong 'tlssnoop: -x, -X, -A and -j exclude each other' $a $b -p 1
		done
	done
}

@test "options and arguments that do not exist" {
	local option
	for option in 1 z; do
		wrong "tlssnoop: invalid option -- '$option'" -$option -p 1
	done
	wrong "tlssnoop: unrecognized option '--no-such'" --no-such -p 1
	for option in p l k n u Q s o c d B; do
		wrong "tlssnoop: option requires an argument -- '$option'" -$option
	done
	wrong "tlssnoop: '4127': no such argument; processes are named by -p, a command by --" 4127
	wrong "tlssnoop: '\\x07': no such argument; processes are named by -p, a command by --" $'\a'
	wrong 'tlssnoop: no COMMAND after --' --
	wrong 'tlssnoop: a COMMAND and -p exclude each other' -p 1 -- true
	wrong 'tlssnoop: a COMMAND and -L exclude each other' -L -- true
	wrong 'tlssnoop: -f follows the processes of -p, and there is none' -f
}

@test "wrong use points to help that exists" {
	local option options
	wrong 'tlssnoop: -f follows the processes of -p, and there is none' -f
	options=$(tail -n +2 "$SNOOP_ERR" | grep -oE -- '--[a-z]+')
	for option in $options; do
		"$TLSSNOOP" "$option" >"$TRACE" || fail "there is no $option"
		[[ -s $TRACE ]]
	done
}

@test "targets that cannot be traced" {
	fails 'tlssnoop: cannot trace: pid 4194305: no such process' -p 4194305
	fails "tlssnoop: nothing to trace: pid $$ ($(<"/proc/$$/comm")): no TLS library mapped" -p $$
	fails "tlssnoop: nothing to trace: pid $$ ($(<"/proc/$$/comm")): no TLS library mapped" -L -p $$
	fails 'tlssnoop: cannot trace: /etc/passwd: not an ELF file' -l /etc/passwd
	fails 'tlssnoop: cannot trace: /no/such: No such file or directory' -l /no/such
	fails 'tlssnoop: cannot trace: /: not an ELF file' -l /
	fails "tlssnoop: nothing to trace: /bin/sh: it defines no function of a TLS library that tlssnoop knows" \
		-l /bin/sh
	fails 'tlssnoop: cannot write: /no/such: No such file or directory' -o /no/such -p $$
	SNOOP=(setpriv --bounding-set "-sys_admin,-bpf" "$TLSSNOOP")
	fails "tlssnoop: not permitted: tracing: it needs CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON where the kernel has multi-uprobe links (Linux 6.10)" \
		-p $$
	grep -q '^tlssnoop: hint: run tlssnoop as root' "$SNOOP_ERR"
}

@test "lines, header and messages" {
	exchange
	[[ $(head -n 1 "$TRACE") == "$HEADER DATA" ]]
	(($(wc -l <"$TRACE") == CHUNKS + 1))
	grep -qxE "Tracing pid $TARGET_PID \(ssl_target\): openssl, [0-9]+ functions in 1 file\. Ctrl-C ends\." \
		"$SNOOP_ERR"
	summary "$CHUNKS"
	(($(wc -l <"$SNOOP_ERR") == 2))
}

@test "no header with -q" {
	exchange -q
	(($(grep -c "^[0-9:.]* $TARGET_PID " "$TRACE") == CHUNKS))
	(($(wc -l <"$TRACE") == CHUNKS))
	summary "$CHUNKS"
}

@test "no data with -s 0" {
	local line='[0-9:]{8}\.[0-9]{6} [0-9]+ +ssl_target +[0-9]+ +(read |write)  200' format
	for format in '' -x -X -A; do
		# shellcheck disable=SC2086 # none is no argument
		exchange -s 0 $format
		[[ $(head -n 1 "$TRACE") == "$HEADER" ]]
		(($(grep -cxE "$line" "$TRACE") == CHUNKS))
		(($(wc -l <"$TRACE") == CHUNKS + 1))
		summary "$CHUNKS"
	done
	exchange -s 0 -j
	each '.data == "" and .truncated and .len == 200'
}

@test "cut data with -s" {
	exchange -s 8
	(($(grep -cE '  200 conn .{3} \.\.\.$' "$TRACE") == CHUNKS))
	exchange -s 8 -x
	(($(grep -cE '  200 636f6e6e20[0-9a-f]{6} \.\.\.$' "$TRACE") == CHUNKS))
	exchange -s 8 -X
	(($(grep -cxE '  0000  63 6f 6e 6e 20 (.. ){2}.. {27}conn .{3}' "$TRACE") == CHUNKS))
	(($(grep -cxE '  \.\.\.' "$TRACE") == CHUNKS))
	exchange -s 8 -A
	(($(grep -cxE 'conn .{3}' "$TRACE") == CHUNKS))
	(($(grep -cxE '  \.\.\.' "$TRACE") == CHUNKS))
	exchange -s 8 -j
	each '(.data | length) == 8 and .truncated and .len == 200'
	exchange -s 200 -j
	each '(.data | length) > 8 and (.truncated | not)'
}

@test "the first lines with -c" {
	local n
	for n in 1 7; do
		small
		start_tlssnoop -q -c "$n" -p "$TARGET_PID"
		go
		wait_tlssnoop
		((SNOOP_STATUS == 0))
		(($(wc -l <"$TRACE") == n))
		summary "$n"
		wait_target
	done
}

@test "some time with -d" {
	local began
	small
	start_tlssnoop -d 1 -p "$TARGET_PID"
	began=${EPOCHREALTIME/./}
	wait_tlssnoop
	((SNOOP_STATUS == 0))
	((${EPOCHREALTIME/./} - began < 10000000))
	[[ $(<"$TRACE") == "$HEADER DATA" ]]
	summary 0
	gone "$TARGET_PID" && fail 'the target ended with it'
	go
	wait_target
}

@test "one direction with -Q" {
	local dir other
	for dir in read write; do
		exchange -j -Q $dir
		other=$([[ $dir == read ]] && echo write || echo read)
		sed -i "/^$other/d" "$TRUTH"
		compare json
		summary $((CHUNKS / 2))
	done
}

@test "names with -n, users with -u, libraries with -k" {
	exchange -q -n ssl_target -u 0 -k openssl,rustls
	(($(wc -l <"$TRACE") == CHUNKS))
	exchange -q -u root
	(($(wc -l <"$TRACE") == CHUNKS))
	exchange -n ssl_targe
	summary 0
	exchange -u nobody
	summary 0
	small
	run "$TLSSNOOP" -k rustls -p "$TARGET_PID"
	((status == 1))
	[[ $output == "tlssnoop: nothing to trace: pid $TARGET_PID (ssl_target): "* ]]
}

@test "a library in whatever process with -l, a process named twice" {
	small
	start_tlssnoop -q -j -l "$TESTS/ssl_target" -p "$TARGET_PID" || :
	wait_tlssnoop
	[[ $(<"$SNOOP_ERR") == *"it defines no function of a TLS library that tlssnoop knows"* ]]
	start_tlssnoop -j -n ssl_target -l "$(awk '/libssl/ {print $6; exit}' "/proc/$TARGET_PID/maps")"
	grep -qE '^Tracing whatever runs /.*/libssl[^ ]*: openssl, ' "$SNOOP_ERR"
	go
	wait_target
	stop_tlssnoop
	((SNOOP_STATUS == 0))
	compare json
	small
	start_tlssnoop -j -p "$TARGET_PID,$TARGET_PID" -p "$TARGET_PID"
	go
	wait_target
	wait_tlssnoop
	compare json
}

@test "addresses with -a" {
	local address='127\.0\.0\.1:[0-9]+'
	exchange -a
	[[ $(head -n 1 "$TRACE" | tr -s ' ') == 'TIME PID COMM FD DIR LEN LOCAL REMOTE DATA' ]]
	(($(grep -cE "(read |write)  200 $address +$address +conn " "$TRACE") == CHUNKS))
	exchange -q -a -X -s 0
	(($(grep -cE "(read |write)  200 $address +$address *$" "$TRACE") == CHUNKS))
	exchange -j
	each '(.local | test("^127.0.0.1:[0-9]+$")) and (.remote | test("^127.0.0.1:[0-9]+$"))'
}

@test "a file with -o" {
	local file=$BATS_TEST_TMPDIR/lines
	umask 0
	exchange -j -o "$file"
	[[ ! -s $TRACE ]]
	[[ $(stat -c %a "$file") == 600 ]]
	(($(wc -l <"$file") == CHUNKS))
	exchange -j -o "$file"
	(($(wc -l <"$file") == CHUNKS))
}

@test "the list of -L" {
	local version function
	version=$(openssl version | cut -d ' ' -f 2)
	small
	"$TLSSNOOP" -L -p "$TARGET_PID" >"$TRACE"
	[[ $(head -n 1 "$TRACE" | tr -s ' ') == 'PID LIBRARY VERSION DIR SOURCE OFFSET FUNCTION FILE' ]]
	for function in SSL_read SSL_read_ex SSL_read_early_data SSL_write SSL_write_ex \
		SSL_write_early_data; do
		(($(grep -cE "^$TARGET_PID +openssl +${version//./\\.} +${function:4:4}e? +\.dynsym +0x[0-9a-f]{8} $function +/.*/libssl\.so\.3$" \
			"$TRACE") == 1)) || fail "no such line for $function"
	done
	(($(awk 'NF != 8' "$TRACE" | wc -l) == 0))
	"$TLSSNOOP" -L -p "$TARGET_PID" -k openssl -o "$TRACE.file" >"$TRUTH"
	[[ ! -s $TRUTH ]]
	diff "$TRACE" "$TRACE.file"
	go
	wait_target
}

@test "version and help" {
	local option
	for option in -V --version; do
		run "$TLSSNOOP" $option
		((status == 0))
		[[ $output =~ ^tlssnoop\ [0-9.]+$ ]]
	done
	for option in -h --help; do
		"$TLSSNOOP" $option >"$TRACE" 2>"$SNOOP_ERR"
		[[ ! -s $SNOOP_ERR ]]
		[[ $(sed -n 2p "$TRACE") == '  or:  tlssnoop [OPTION...] -p PID[,PID...]' ]]
		grep -q '^Examples:$' "$TRACE"
	done
}

@test "what -v and -vv say" {
	small
	start_tlssnoop -v -d 1 -p "$TARGET_PID"
	grep -q '^tlssnoop: this kernel has: attach cookies ' "$SNOOP_ERR"
	grep -qE '^tlssnoop: attached: /.*libssl.*: SSL_read at 0x[0-9a-f]+ \(\.dynsym\)$' "$SNOOP_ERR"
	(($(grep -c '^libbpf: ' "$SNOOP_ERR") == 0))
	wait_tlssnoop
	start_tlssnoop -vv -d 1 -p "$TARGET_PID"
	grep -q '^libbpf: ' "$SNOOP_ERR"
	wait_tlssnoop
	go
	wait_target
}

# on_terminal WIDTH: tlssnoop writes to a terminal of this width from now on
on_terminal() {
	local program=$TLSSNOOP
	TLSSNOOP=$BATS_TEST_TMPDIR/on_terminal
	cat >"$TLSSNOOP" <<-END
		#!/bin/sh
		exec script -qefc "stty cols $1 -onlcr; exec $program \$* 2>&3" /dev/null 3>&2
	END
	chmod +x "$TLSSNOOP"
}

# widths: those of the lines
widths() {
	grep -v '^\(TIME\|Script\)' "$TRACE" | awk '{print length}' | sort -nu | xargs
}

@test "lines are cut to a terminal's width" {
	on_terminal 72
	exchange
	[[ $(widths) == 72 ]]
	(($(grep -cE '  200 conn .* \.\.\.$' "$TRACE") == CHUNKS))
	exchange -x
	[[ $(widths) == 72 ]]
	exchange -s 100
	(($(grep -cE '  200 conn .{90,} \.\.\.$' "$TRACE") == CHUNKS))
	exchange -j
	each '(.data | length) > 100'
}

@test "a name with a blank and an escape sequence" {
	local name=$'a b\e[1m\\'
	ln -s "$TESTS/ssl_target" "$BATS_TEST_TMPDIR/$name"
	small "$BATS_TEST_TMPDIR/$name"
	start_tlssnoop -q -s 0 -n "$name" -p "$TARGET_PID"
	grep -qF "Tracing pid $TARGET_PID (a b\\x1b[1m\\): openssl, " "$SNOOP_ERR"
	go
	wait_target
	wait_tlssnoop
	(($(awk '$3 == "a\\x20b\\x1b[1m\\x5c" && NF == 6' "$TRACE" | wc -l) == CHUNKS))
	small "$BATS_TEST_TMPDIR/$name"
	start_tlssnoop -j -p "$TARGET_PID"
	go
	wait_target
	wait_tlssnoop
	each ".comm == \"a b\\u001b[1m\\\\\""
	(($(grep -c $'\e' "$TRACE") == 0))
}

# What a terminal acts on, or does not show: control codes of both sets, direction and format
nasty() {
	printf 'begin \e]0;title\a \e[31m \u009b31m \x08 \x0b \x0c \x0e \e(0 \x7f \rover '
	printf '\u202e \u2066 \u200b \ufeff \u00ad \U000e0041 end'
}

# The same, and what is no UTF-8: a set code as one byte, half a character, a surrogate
nasty_bytes() {
	nasty
	printf '\x00 \x9b31m \xff \xc3 \xed\xa0\x80 \xf5\x80\x80\x80'
}

# received PAYLOAD SNOOP-OPTION...: what tlssnoop shows of it when a server receives it
received() {
	if [[ -z ${ADDRESS:-} ]]; then
		make_certificate
		launch_target openssl s_server -accept 127.0.0.1:0 -cert "$CERT" -key "$KEY"
		line_comes '^ACCEPT ' "$TARGET_OUT" "$TARGET_PID"
		ADDRESS=$(sed -n 's/^ACCEPT //p' "$TARGET_OUT")
	fi
	start_tlssnoop -c 1 -Q read -p "$TARGET_PID" "${@:2}"
	"$1" | openssl s_client -connect "$ADDRESS" -quiet -no_ign_eof \
		>"$BATS_TEST_TMPDIR/client" 2>&1 || :
	wait_tlssnoop
	((SNOOP_STATUS == 0))
}

@test "nothing raw reaches the output" {
	local format payload
	for format in -s100000 -x -X -A -j; do
		for payload in nasty nasty_bytes; do
			received $payload $format
			echo "# $payload, $format"
			"$PYTHON" "$TESTS/harmless.py" "$TRACE"
		done
	done
}

@test "JSON gives back what it escapes" {
	received nasty -j
	jq -j .data "$TRACE" | cmp - <(nasty)
	received nasty_bytes -j
	jq -r .data_base64 "$TRACE" | base64 -d | cmp - <(nasty_bytes)
}
