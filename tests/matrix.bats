#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# The matrix: programs with rustls of seven generations, in many ways of building, with symbols and
# stripped. Each talks TLS 1.2 and 1.3, with AES-GCM and ChaCha20 and each of its providers, both
# ends in one process; every byte is to be there once, one line for each record, with its fd, and
# what is found in the stripped copy is what the symbols name. Out: the rows of README's table.
# Needs root, tlssnoop, binutils and what tests/rustls/build needs.
# It must never pass without having compared a trace with the target's truth.

load lib

setup_file() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
		-subj /CN=localhost -addext subjectAltName=DNS:localhost \
		-addext basicConstraints=critical,CA:FALSE -outform DER \
		-out "$BATS_FILE_TMPDIR/cert" -keyout "$BATS_FILE_TMPDIR/key.pem" 2>/dev/null
	openssl pkcs8 -topk8 -nocrypt -outform DER -in "$BATS_FILE_TMPDIR/key.pem" \
		-out "$BATS_FILE_TMPDIR/key"
	make_tables_test
}

teardown() {
	finish
}

# table COMMAND ARG...: see tests/matrix/table.py
table() {
	"$PYTHON" "$TESTS/matrix/table.py" "$@"
}

# traced_rustls PROGRAM: the trace stays in $TRACE
traced_rustls() {
	observe -j "$1" "$BATS_FILE_TMPDIR/cert" "$BATS_FILE_TMPDIR/key"
	pairs "$TRUTH"
	compare json --stream --peer-truth "$TRUTH" --lib rustls
	if grep 'only one direction\|not all is seen' "$SNOOP_ERR"; then
		return 1
	fi
	"$TLSSNOOP" -q -L -l "$1" >"$BATS_TEST_TMPDIR/list"
}

# sources SOURCE: all functions were found by this one
sources() {
	awk -v wanted="$1" 'NR > 1 && !/^#/ && $5 != wanted { bad = 1 } END { exit bad || NR < 2 }' \
		"$BATS_TEST_TMPDIR/list" || fail "$(cat "$BATS_TEST_TMPDIR/list")"
}

# mangled v0|legacy PROGRAM
mangled() {
	local names
	names=$(nm "$2" | awk '{ print $3 }' | grep -E '^(_RNvX|_ZN).*crypter.*7(en|de)crypt' |
		cut -c -2 | sort -u)
	[[ $names == "$([[ $1 == v0 ]] && echo _R || echo _Z)" ]] || fail "not $1: $names"
}

# refused PROGRAM: there is nothing to trace in it, and a message says why
refused() {
	start_target "$1" --truth "$TRUTH" "$BATS_FILE_TMPDIR/cert" "$BATS_FILE_TMPDIR/key"
	run "$TLSSNOOP" -p "$TARGET_PID"
	[[ $status -eq 1 && $output == *'rustls 0.19'*'its symbols are stripped'* ]] || fail "$output"
	go
	wait_target
}

# same_functions PROGRAM STRIPPED PACKAGE [ROLES]: by tables and by symbols, of which there are some
same_functions() {
	local copy=$BATS_TEST_TMPDIR/functions roles=${4:-encrypt|decrypt|handle|early}
	# their handle is not used: not all of them can be found
	[[ $3 != rustls-0.20 ]] || roles='encrypt|decrypt'
	# as silent as it is alike
	nm "$1" | sed -nE 's/^(\w+) .*ExpectQuicTraffic.*6handle.*/handle \1/p' >"$copy.quic"
	"$TABLES" "$2" | cut -d ' ' -f 1,3 | sort -u | grep -vxFf "$copy.quic" >"$copy.all"
	# without any handle it is decrypt that shows what is read
	grep -q '^handle' "$copy.all" || roles='encrypt|decrypt'
	rustls_symbols "$1" | grep -E "^($roles) " >"$copy.expected"
	[[ -s $copy.expected ]]
	grep -E "^($roles) " "$copy.all" | diff -u "$copy.expected" -
}

# check_build PACKAGE BUILD MANGLING PROGRAM: as it is, and stripped
check_build() {
	local program=$4 copy=$BATS_TEST_TMPDIR/stripped whole=$BATS_TEST_TMPDIR/whole
	mangled "$3" "$program"
	traced_rustls "$program"
	sources .symtab
	mv "$TRACE" "$whole"
	strip -o "$copy" "$program"
	if [[ $1 == rustls-0.19 ]]; then
		refused "$copy"
		TRACE=-
	else
		same_functions "$program" "$copy" "$1"
		traced_rustls "$copy"
		sources tables
		[[ $1 != rustls-0.21 ]] || grep -q ExpectTraffic::handle "$BATS_TEST_TMPDIR/list" ||
			fail "$(cat "$BATS_TEST_TMPDIR/list")"
	fi
	table row "$1" "$2" "$3" "$whole" "$TRACE" >>"$BATS_FILE_TMPDIR/rows"
}

# program PACKAGE MANGLING [PROFILE [SETTING...]]: builds it and prints where it is. A SETTING of
# the profile is NAME=VALUE as in cargo's environment.
program() {
	local flags=(-Csymbol-mangling-version="$2") settings=("${@:4}") directory
	# legacy is the default of released compilers, which refuse its name
	[[ $2 == v0 ]] || flags=()
	directory=$(env "${settings[@]/#/CARGO_PROFILE_RELEASE_}" \
		"$TESTS/matrix/$1/build" "${3:-release}" "${flags[@]}")
	echo "$directory/matrix_target"
}

# build PACKAGE MANGLING BUILD [PROFILE [SETTING...]]: BUILD says for people what the rest is
build() {
	check_build "$1" "$3" "$2" "$(program "$1" "$2" "${@:4}")"
}

# arm64 PACKAGE [PROFILE [SETTING...]]: the same functions in a program for arm64, which is not run
arm64() {
	local directory settings=("${@:3}") copy=$BATS_TEST_TMPDIR/stripped
	"$TESTS/matrix/build-arm64" --check || skip 'no library of Rust for arm64'
	directory=$(env "${settings[@]/#/CARGO_PROFILE_RELEASE_}" \
		"$TESTS/matrix/build-arm64" "$1" "${2:-release}")
	aarch64-linux-gnu-strip -o "$copy" "$directory/matrix_target"
	same_functions "$directory/matrix_target" "$copy" "$1"
	without_unwind "$copy"
	same_functions "$directory/matrix_target" "$copy" "$1" 'encrypt|handle|early'
}

THIN=(release LTO=thin)
FAT=(release LTO=fat CODEGEN_UNITS=1)

@test "0.19, release" {
	build rustls-0.19 legacy release
}

@test "0.20, rustc 1.63" {
	"$TESTS/matrix/build-1.63" --check || skip 'no rustc 1.63'
	check_build rustls-0.20 'release, rustc 1.63' legacy \
		"$("$TESTS/matrix/build-1.63" rustls-0.20)/matrix_target"
}

@test "0.20, fat LTO" {
	build rustls-0.20 legacy 'fat LTO, 1 codegen unit' "${FAT[@]}"
}

@test "0.21, thin LTO" {
	build rustls-0.21 v0 'thin LTO' "${THIN[@]}"
}

@test "0.21, fat LTO, aborts on panic" {
	build rustls-0.21 v0 'fat LTO, 1 codegen unit, panic=abort' "${FAT[@]}" PANIC=abort
}

@test "0.22, debug" {
	build rustls-0.22 v0 debug dev
}

@test "0.22, fat LTO" {
	build rustls-0.22 v0 'fat LTO, 1 codegen unit' "${FAT[@]}"
}

@test "0.23.0, for size" {
	build rustls-0.23.0 legacy 'opt-level z' release OPT_LEVEL=z
}

@test "0.23, release" {
	build rustls-0.23 legacy release
}

@test "0.23, thin LTO" {
	build rustls-0.23 legacy 'thin LTO' "${THIN[@]}"
}

@test "0.23, fat LTO, aborts on panic" {
	build rustls-0.23 legacy 'fat LTO, 1 codegen unit, panic=abort' "${FAT[@]}" PANIC=abort
}

@test "0.23, debug" {
	build rustls-0.23 legacy debug dev
}

@test "0.24, debug" {
	build rustls-0.24 v0 debug dev
}

@test "0.24, release" {
	build rustls-0.24 legacy release
}

@test "0.24, fat LTO" {
	build rustls-0.24 legacy 'fat LTO, 1 codegen unit' "${FAT[@]}"
}

@test "0.24, for size" {
	FEATURES='' build rustls-0.24 legacy 'opt-level z' release OPT_LEVEL=z
}

@test "0.23, debug, stripped: that a cipher is not found is said" {
	local copy=$BATS_TEST_TMPDIR/target program decrypts
	program=$(program rustls-0.23 legacy dev)
	mapfile -t decrypts < <(nm "$program" |
		awk '$3 ~ /aws_lc_rs..tls12..ChaCha20Poly1305MessageDecrypter.*7decrypt17h/ { print $1 }')
	((${#decrypts[@]} == 1))
	strip -o "$copy" "$program"
	PROGRAM=$copy hide "${decrypts[@]}"
	"$TLSSNOOP" -q -L -l "$copy" >"$BATS_TEST_TMPDIR/list"
	grep '^#.* write .*: no function found that encrypts tls12-chacha: ' "$BATS_TEST_TMPDIR/list"
	start_tlssnoop -l "$copy"
	stop_tlssnoop
	grep 'not all is seen: .*: rustls: no function found that encrypts tls12-chacha$' "$SNOOP_ERR"
}

@test "arm64: 0.21, fat LTO" {
	arm64 rustls-0.21 "${FAT[@]}"
}

@test "arm64: 0.22, debug" {
	arm64 rustls-0.22 dev
}

@test "arm64: 0.24, for size" {
	FEATURES='' arm64 rustls-0.24 release OPT_LEVEL=z
}

# in_between PROGRAM COPY: as if it came from a compiler whose enums are laid out in a way of which
# nothing is known
in_between() {
	printf 'rustc version 1.70.0\0' >"$BATS_TEST_TMPDIR/comment"
	objcopy --update-section .comment="$BATS_TEST_TMPDIR/comment" "$1" "$2"
}

# through_decrypt PACKAGE MANGLING: with symbols and without
through_decrypt() {
	local copy=$BATS_TEST_TMPDIR/target
	in_between "$(program "$1" "$2")" "$copy"
	for _ in whole stripped; do
		traced_rustls "$copy"
		[[ $(awk '$4 == "read" { print $7 }' "$BATS_TEST_TMPDIR/list" | sed 's/.*:://' | sort -u) == \
			decrypt ]] || fail "$(cat "$BATS_TEST_TMPDIR/list")"
		strip "$copy"
	done
}

@test "0.23, through decrypt" {
	through_decrypt rustls-0.23 legacy
}

@test "0.24, through decrypt" {
	through_decrypt rustls-0.24 legacy
}

# no_compiler PROGRAM COPY: as one built by a compiler that does not say its version
no_compiler() {
	sed 's|/rustc-1\.|/rustc-x.|g' "$1" >"$2"
	chmod +x "$2"
	objcopy --remove-section .comment "$2"
}

@test "0.19, compiler not known" {
	local copy=$BATS_TEST_TMPDIR/target
	no_compiler "$(program rustls-0.19 legacy)" "$copy"
	traced_rustls "$copy"
}

@test "0.19, rustc 1.63, known and not known" {
	local copy=$BATS_TEST_TMPDIR/target program
	"$TESTS/matrix/build-1.63" --check || skip 'no rustc 1.63'
	program=$("$TESTS/matrix/build-1.63" rustls-0.19)/matrix_target
	traced_rustls "$program"
	no_compiler "$program" "$copy"
	traced_rustls "$copy"
}

# as none of its functions is short, the tables do not find encrypt and decrypt
@test "0.20, rustc 1.63, through what the program calls" {
	local copy=$BATS_TEST_TMPDIR/target program
	"$TESTS/matrix/build-1.63" --check || skip 'no rustc 1.63'
	program=$("$TESTS/matrix/build-1.63" rustls-0.20 \
		-Cllvm-args=-align-all-functions=11)/matrix_target
	nm "$program" | awk '$3 ~ /crypter.*7(en|de)crypt17h|6handle17h/ { print $3 }' \
		>"$BATS_TEST_TMPDIR/names"
	objcopy --strip-symbols="$BATS_TEST_TMPDIR/names" "$program" "$copy"
	observe -j "$copy" "$BATS_FILE_TMPDIR/cert" "$BATS_FILE_TMPDIR/key"
	compare json
	[[ $(grep -c 'hint: .*\(Reader::read\|Writer::write\): it may not get all' "$SNOOP_ERR") -eq 2 ]]
}

@test "README's table says this" {
	table check "$TESTS/../README.md" "$BATS_FILE_TMPDIR/rows"
}
