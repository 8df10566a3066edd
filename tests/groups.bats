#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# rustls where neither symbols nor tables tell of the functions that every build has: those that
# take their place show the same bytes, and say that they are makeshifts; and rustls-ffi, whose C
# API is one of them. What counts for a profile how often it comes where is such a program, as no
# function in it is as short as the tables want some; the symbols are taken from it. Needs root,
# tlssnoop, binutils and what tests/rustls/build needs.
# It must never pass without having compared a trace with the target's truth.
# shellcheck disable=SC2030,SC2031 # each test is a shell of its own

load lib

COUNTING=-Cprofile-generate

setup_file() {
	export LLVM_PROFILE_FILE=/dev/null # for what was counted, by build scripts too
	RELEASE=$(built rustls release "$COUNTING")
	DEV=$(built rustls dev "$COUNTING")
	FFI=$(built ffi release)
	FFI_COUNTING=$(built ffi release "$COUNTING")
	export RELEASE DEV FFI FFI_COUNTING
}

setup() {
	make_certificate
}

teardown() {
	finish
}

# through FUNCTION FILE DIRECTION: this one is hooked, and nothing else but what sends early data
through() {
	local functions
	functions=$("$TLSSNOOP" -q -L -l "$2" | awk -v dir="$3" '!/^#/ && $4 == dir { print $7 }' |
		grep -v send_early | sort -u)
	[[ $functions == "$1" ]] || fail "hooked: $functions"
}

# start_c_api LIBRARY
start_c_api() {
	start_target /usr/bin/python3 "$TESTS/any_tls_target.py" --kind rustls --library "$1" \
		--cert "$CERT" --key "$KEY" --truth "$TRUTH"
	start_tlssnoop -j -p "$TARGET_PID"
	go
	wait_target
	ended_well
	pairs "$TRUTH"
}

@test "rustls-ffi, each record once" {
	local library=$BATS_TEST_TMPDIR/librustls.so
	start_c_api "$FFI/librustls.so"
	compare json --stream --peer-truth "$TRUTH"
	strip -o "$library" "$FFI/librustls.so"
	start_c_api "$library"
	compare json --stream --peer-truth "$TRUTH"
}

@test "rustls-ffi, by its C API alone" {
	local library=$BATS_TEST_TMPDIR/librustls.so
	strip -o "$library" "$FFI_COUNTING/librustls.so"
	through rustls_connection_write "$library" write
	start_c_api "$library"
	compare json
}

# without EXPRESSION PROGRAM: the program with no symbol that matches, in the test's directory
without() {
	local dir=$BATS_TEST_TMPDIR
	nm "$2" | awk -v names="$1" '$3 ~ names { print $3 }' >"$dir/names"
	[[ -s $dir/names ]]
	objcopy --strip-symbols="$dir/names" "$2" "$dir/target"
}

# hinted FUNCTION
hinted() {
	grep -q "hint: .*$1: it may not get all" "$SNOOP_ERR" || fail "no hint: $1"
}

@test "buffer_plaintext, where there is no encrypt" {
	local build tls mode
	for build in "$RELEASE" "$DEV"; do
		without 'Encrypter.*7encrypt(17h|C|$)' "$build/std_target"
		through CommonState::buffer_plaintext "$BATS_TEST_TMPDIR/target" write
		for mode in edges vectored limit before; do
			for tls in 1.2 1.3; do
				# where it was written before there was a connection, no fd is known
				[[ $mode-$tls != before-1.3 ]] || continue
				traced "$BATS_TEST_TMPDIR/target" --tls "$tls" "$mode"
				hinted CommonState::buffer_plaintext
			done
		done
	done
}

@test "Reader::read and Writer::write, where there is nothing else" {
	local build tls
	for build in "$RELEASE" "$DEV"; do
		without 'crypter.*7(en|de)crypt(17h|C|$)|16buffer_plaintext|6handle(17h|C|$)' \
			"$build/std_target"
		through Reader::read "$BATS_TEST_TMPDIR/target" read
		through Writer::write "$BATS_TEST_TMPDIR/target" write
		for tls in 1.2 1.3; do
			start_target "$BATS_TEST_TMPDIR/target" --truth "$TRUTH" --tls "$tls" edges
			start_tlssnoop -j -p "$TARGET_PID"
			go
			wait_target
			ended_well
			hinted Reader::read
			compare json
		done
	done
}

@test "the programs for these use little stack" {
	without 'crypter.*7(en|de)crypt(17h|C|$)|16buffer_plaintext|6handle(17h|C|$)' \
		"$RELEASE/std_target"
	observe -vv "$BATS_TEST_TMPDIR/target" edges
	low_stacks 10
	grep -q "^'io_entry'" "$TRACE.stacks"
	grep -q "^'slices_entry'" "$TRACE.stacks"
	grep -q "^'method_return_" "$TRACE.stacks"
}
