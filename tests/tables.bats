#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Files without symbols: what elfsym_tables() finds in a stripped program is what the symbols of
# the same program say, no more and no less, and in files without rustls there is nothing. Needs a
# C compiler with sanitizers, binutils, nginx, and a cargo that tests/rustls/build accepts.
# It must never pass without having compared an address.

load lib

setup_file() {
	build_rustls
	make_tables_test
}

# stripped DIRECTORY: the targets there: TLS 1.3 and two ciphers of TLS 1.2, a client and a server
stripped() {
	local target copy=$BATS_TEST_TMPDIR/stripped
	for target in "$1"/{std,tokio}_target; do
		echo "# $target"
		strip -o "$copy" "$target"
		rustls_symbols "$target" >"$copy.expected"
		[[ $(cut -d ' ' -f 1 "$copy.expected" | uniq -c | xargs) == \
			'3 decrypt 1 early 3 encrypt 4 handle' ]] || fail "$(cat "$copy.expected")"
		"$TABLES" "$copy" >"$copy.found"
		cut -d ' ' -f 1,3 "$copy.found" | sort -u | diff -u "$copy.expected" -
		[[ $(cut -d ' ' -f 1,2 "$copy.found" | grep -v -e handle -e early | sort | xargs) == \
			"$(printf '%s ' {de,en}crypt\ tls1{2-{chacha,gcm},3} | xargs)" ]] ||
			fail "$(cat "$copy.found")"
	done
}

# without .eh_frame_hdr, some of decrypt may be missed
@test "no .eh_frame_hdr" {
	local copy=$BATS_TEST_TMPDIR/stripped
	strip -o "$copy" "$RELEASE/std_target"
	rustls_symbols "$RELEASE/std_target" >"$copy.expected"
	without_unwind "$copy"
	"$TABLES" "$copy" | cut -d ' ' -f 1,3 | grep -v '^no-decrypt ' | sort -u >"$copy.found"
	diff -u <(grep -v '^decrypt ' "$copy.expected") <(grep -v '^decrypt ' "$copy.found")
	[[ -z $(comm -13 "$copy.expected" "$copy.found") ]]
}

# found FILE: the roles of what is found in a file
found() {
	echo "# $1"
	[[ -s $1 ]] || fail "$1 is not there"
	"$TABLES" "$1" >"$BATS_TEST_TMPDIR/found"
	ROLES=$(cut -d ' ' -f 1 "$BATS_TEST_TMPDIR/found" | xargs)
}

@test "an optimised program" {
	stripped "$RELEASE"
}

@test "fat LTO that aborts on panic" {
	stripped "$FAT"
}

@test "unoptimised" {
	stripped "$DEV"
}

@test "v0 symbol names" {
	stripped "$MANGLED_V0"
}

@test "nothing in programs without rustls" {
	local file
	for file in "$(command -v bash)" "$(command -v nginx)" /usr/bin/python3 \
		"$("${CC:-cc}" -print-file-name=libc.so.6)" \
		"$("${CC:-cc}" -print-file-name=libcrypto.so.3)"; do
		found "$file"
		[[ -z $ROLES ]] || fail "$(cat "$BATS_TEST_TMPDIR/found")"
	done
}

@test "OpenSSL's method and BIO, and no rustls in libssl" {
	found "$("${CC:-cc}" -print-file-name=libssl.so.3)"
	[[ $ROLES == 'ssl-read ssl-write bio-read bio-write' ]] || fail "$(cat "$BATS_TEST_TMPDIR/found")"
}

@test "a file that ends too early" {
	local copy=$BATS_TEST_TMPDIR/stripped size status
	strip -o "$copy" "$RELEASE/std_target"
	for ((size = $(stat -c %s "$copy"); size > 8; size = size * 4 / 5)); do
		truncate -s "$size" "$copy"
		status=0
		"$TABLES" "$copy" >"$copy.found" 2>"$copy.error" || status=$?
		((status == 0)) || grep -q '^tables_test: ' "$copy.error" ||
			fail "$size bytes" "$(cat "$copy.error")"
	done
}

@test "a file that is none of ELF" {
	run "$TABLES" "$BATS_TEST_FILENAME"
	[[ $status -eq 1 && $output == *': Exec format error' ]]
}
