#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# The sources and what is made of them: format and warnings, the kernel side for the other
# machine, installation and its reverse, what is said when a tool is missing. Works on copies and in
# directories of its own; needs what the build needs, and no privilege.
# It must never change a file of the tree.

load lib

teardown() {
	finish
}

# a copy of the sources, without what was built
copy_sources() {
	COPY=$BATS_TEST_TMPDIR/copy
	mkdir -p "$COPY"
	cp "$TESTS"/../*.[ch] "$TESTS"/../Makefile "$COPY"
	rm -f "$COPY"/*.skel.h
	cp -r "$TESTS/../man" "$COPY"
}

@test "format, warnings, shell, manual" {
	"$TESTS/lint"
}

@test "the kernel side for arm64" {
	copy_sources
	make -C "$COPY" ARCH=arm64 tlssnoop.skel.h
	llvm-objdump -h "$COPY/tlssnoop.bpf.o" | grep -q tp_btf/sys_exit
}

@test "install and uninstall" {
	local root=$BATS_TEST_TMPDIR/root
	copy_sources
	make -C "$COPY" install DESTDIR="$root" PREFIX=/usr
	"$root/usr/sbin/tlssnoop" -V
	[[ -s $root/usr/share/man/man8/tlssnoop.8 ]]
	[[ -s $root/usr/share/bash-completion/completions/tlssnoop ]]
	make -C "$COPY" uninstall DESTDIR="$root" PREFIX=/usr
	[[ -z $(find "$root" -type f) ]]
	make -C "$COPY" clean
	[[ -z $(find "$COPY" -newer "$root" -name '*.o') && ! -e $COPY/tlssnoop ]]
}

@test "a tool that is missing is named, with its package" {
	local output library
	copy_sources
	output=$(make -C "$COPY" BPFTOOL=no-such-bpftool 2>&1) && fail 'it was built'
	[[ $output == *'no-such-bpftool is missing: apt-get install bpftool'* ]] || fail "$output"
	output=$(make -C "$COPY" CLANG=no-such-clang 2>&1) && fail 'it was built'
	[[ $output == *'no-such-clang is missing: apt-get install clang'* ]] || fail "$output"
	for library in libbpf libelf liblzma; do
		printf '%s\n' '#!/bin/sh' "[ \"\${2%% *}\" != $library ] && exec pkg-config \"\$@\"" >"$COPY/without"
		chmod +x "$COPY/without"
		output=$(make -C "$COPY" PKG_CONFIG=./without 2>&1) && fail 'it was built'
		[[ $output == *"the library $library"*" is missing: apt-get install $library-dev"* ]] ||
			fail "$output"
	done
}

@test "every file says its licence" {
	local file
	cd "$TESTS/.."
	for file in *.[ch] Makefile man/* tests/*.{c,h,py,bats,bash,js} tests/{run,lint,install,demo,bench} .ci/run; do
		case $file in *.skel.h) continue ;; esac
		head -n 3 "$file" | grep -q 'SPDX-License-Identifier: GPL-2.0-only' || fail "$file does not"
	done
}
