#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Every TLS library that there are rows for, under tlssnoop, in versions that this system does not
# have: each function, each length, refused and repeated calls. tests/libraries/get brings them; a
# library in the executable itself is that of libssl-dev. Needs root, pip, cargo and a C compiler.
# It must never pass without having compared a trace with the target's truth.

load lib

setup() {
	make_certificate
}

teardown() {
	finish
}

# talks KIND PATH VERSION ARG...: the library at PATH, which must say that it is that VERSION
talks() {
	local directory=${2%/*}
	[[ -e $2 ]] || fail "no library: $2"
	# shellcheck disable=SC2034 # lib.bash looks at it
	BY=(/usr/bin/python3)
	LD_LIBRARY_PATH=$directory traced_calls json "-j -B 65536" "$TESTS/any_tls_target.py" \
		--kind "$1" --library "$2" --key "$KEY" --cert "$CERT" "${@:4}"
	grep -q "^version $3" "$TARGET_OUT" || fail "not $3:" "$(head -n 1 "$TARGET_OUT")"
}

# system_library NAME: its path
system_library() {
	local path
	path=$("${CC:-cc}" -print-file-name="$1")
	[[ $path == /* ]] || path=$(find /usr/lib -name "$1" -print -quit)
	realpath "$path"
}

@test "OpenSSL 1.0.2" {
	talks openssl "$("$TESTS/libraries/get" openssl-1.0.2)" 'OpenSSL 1\.0\.2'
}

@test "OpenSSL 1.1.1" {
	talks openssl "$("$TESTS/libraries/get" openssl-1.1.1)" 'OpenSSL 1\.1\.1'
}

@test "OpenSSL 3.5" {
	talks openssl "$("$TESTS/libraries/get" openssl-3.5)" 'OpenSSL 3\.5'
}

@test "OpenSSL 4.0" {
	talks openssl "$("$TESTS/libraries/get" openssl-4.0)" 'OpenSSL 4\.0'
}

@test "LibreSSL" {
	talks openssl "$("$TESTS/libraries/get" libressl)" 'LibreSSL'
}

@test "BoringSSL" {
	talks openssl "$(system_library android/libssl.so.0)" 'BoringSSL'
}

@test "this system's OpenSSL" {
	talks openssl "$(system_library libssl.so.3)" 'OpenSSL 3'
}

@test "GnuTLS, with early data" {
	talks gnutls "$(system_library libgnutls.so.30)" 'GnuTLS 3' --early
}

@test "GnuTLS through its interface of OpenSSL: not twice" {
	talks openssl "$(system_library libgnutls-openssl.so.27)" 3 --blocking
	grep -q '^Tracing .*: openssl, gnutls,' "$SNOOP_ERR"
}

@test "NSS" {
	make_nss_database
	CERT=$NSS_DATABASE talks nss "$(system_library libssl3.so)" 'NSS 3'
}

# linked OPTION...: ssl_target with its own OpenSSL; sets STATIC
linked() {
	local needed
	STATIC=$BATS_TEST_TMPDIR/ssl_static
	# some builds of it want zlib and zstd
	read -r -a needed < <(pkg-config --static --libs-only-l libcrypto | sed 's/-lcrypto//')
	"${CC:-cc}" -O2 "$@" -o "$STATIC" "$TESTS/ssl_target.c" -Wl,-Bstatic -lssl -lcrypto -luring \
		-Wl,-Bdynamic "${needed[@]}" -lpthread
	(($(ldd "$STATIC" | grep -cE 'ssl|crypto') == 0))
}

# in_all_modes: what OpenSSL's library is tested with, too
in_all_modes() {
	local tls mode
	for tls in 1.2 1.3; do
		for mode in edges ex nonblock fail peek; do
			traced_calls json -j "$STATIC" --tls "$tls" --bio socket --mode "$mode"
		done
		traced_calls json -j "$STATIC" --tls "$tls" --bio mem --mode mixed
	done
	traced_calls json -j "$STATIC" --tls 1.3 --bio socket --mode early
}

@test "OpenSSL in the executable, with symbols" {
	linked
	in_all_modes
}

@test "a function with several names: every byte once" {
	local text name aliases=()
	linked
	text=0x$(readelf --wide --sections "$STATIC" | sed -nE 's/.* \.text +PROGBITS +([0-9a-f]+) .*/\1/p')
	for name in SSL_read SSL_write; do
		aliases+=(--add-symbol "$name=.text:$((0x$(nm "$STATIC" | sed -nE "s/^(\\w+) T $name$/\\1/p") - text)),function,local")
	done
	objcopy "${aliases[@]}" "$STATIC"
	(($(nm "$STATIC" | grep -c ' SSL_read$') == 2))
	(($("$TLSSNOOP" -L -l "$STATIC" | grep -c ' SSL_read  ') == 1))
	traced_calls json -j "$STATIC" --tls 1.3 --bio socket --mode edges
}

@test "OpenSSL in the executable, stripped" {
	linked -s
	"$TLSSNOOP" -L -l "$STATIC" | grep -q ' tables .* ssl3_read '
	in_all_modes
}
