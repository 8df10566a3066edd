#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# What can be tested without tracing anything: the parts of tlssnoop by themselves, and the table
# of its hooks against the symbols of real programs. Needs the test programs and tlssnoop, and no
# privilege, but for what -L asks for.
# It must never need the network, nor leave more than its own temporary files.

load lib

teardown() {
	finish
}

# tap PROGRAM ARG...: all that it checks is well; shows what is not, and the program's remarks
tap() {
	local status=0
	"$@" >"$BATS_TEST_TMPDIR/tap" || status=$?
	grep -A 2 '^not ok' "$BATS_TEST_TMPDIR/tap" && return 1
	((status == 0)) || fail "$1 ended with status $status"
	grep -q '^1\.\.[1-9]' "$BATS_TEST_TMPDIR/tap" || fail "$1 did not say what it checked"
	grep '^#' "$BATS_TEST_TMPDIR/tap" >&3 || :
}

@test "which socket a chunk belongs to: one rule after the other" {
	tap "$TESTS/correlate_test"
}

@test "which socket a chunk belongs to: generated schedules" {
	tap "$TESTS/schedules_test"
}

@test "which socket a chunk belongs to: recordings of real programs" {
	tap "$TESTS/replay_test" "$TESTS"/recordings/*.txt
}

@test "ELF files, whole and damaged" {
	tap "$TESTS/elfsym_test"
}

@test "how traces are compared" {
	"$PYTHON" "$TESTS/trace_test.py"
}

@test "the hooks match the symbols of real programs, and no others" {
	local file=$BATS_TEST_TMPDIR/symbols
	"$TESTS/elfsym_test" "$TESTS/symbols.txt" "$file"
	awk 'BEGIN {
			hook["MessageEncrypter::encrypt"] = hook["RecordEncrypter::encrypt"] = "encrypt"
			hook["ExpectTraffic::handle"] = "handle"
			hook["ExpectEarlyData::handle"] = "early-handle"
		}
		/^#/ { next }
		NR == FNR { symbol[sprintf("0x%08x", 512 + 16 * ++n)] = $2; next }
		FNR > 1 { print hook[$(NF - 1)], symbol[$(NF - 2)] }' \
		"$TESTS/symbols.txt" <("$TLSSNOOP" -L -l "$file") >"$file.listed"
	grep '^[^-#]' "$TESTS/symbols.txt" >"$file.expected"
	diff -u "$file.expected" "$file.listed"
}

@test "what takes their place matches as exactly" {
	local names=$BATS_TEST_TMPDIR/names file=$BATS_TEST_TMPDIR/symbols
	grep '^- ' "$TESTS/symbols.txt" | grep -v '7decrypt' >"$names"
	"$TESTS/elfsym_test" "$names" "$file"
	"$TLSSNOOP" -q -L -l "$file" | awk '!/^#/ && NR > 1 { print $(NF - 1) }' | sort >"$file.listed"
	cut -d ' ' -f 2 "$names" | c++filt | sed -nE \
		-e 's/\[[0-9a-f]+\]//g; s/::h[0-9a-f]{16}$//' \
		-e 's/^<?rustls::common_state::(CommonState)>?(::(buffer|send_early)_plaintext)$/\1\2/p' \
		-e 's/^<rustls::conn::(connection::)?(Reader) as std::io::Read>(::read)$/\2\3/p' |
		sort >"$file.expected"
	grep -q buffer_plaintext "$file.expected"
	diff -u "$file.expected" "$file.listed"
}

@test "a file of 200 MB with 500,000 functions" {
	local file=$BATS_TEST_TMPDIR/big most=100
	# a sanitizer keeps what was freed, and a shadow of it all
	! nm -D "$TLSSNOOP" | grep -q __asan_init || most=300
	"$TESTS/elfsym_test" big "$file"
	"$PYTHON" - "$most" "$TLSSNOOP" -L -l "$file" <<-'END' >"$file.measured"
		import resource, subprocess, sys, time
		began = time.monotonic()
		text = subprocess.run(sys.argv[2:], check=True, capture_output=True, text=True).stdout
		seconds = time.monotonic() - began
		used = resource.getrusage(resource.RUSAGE_CHILDREN)
		mib = used.ru_maxrss // 1024
		print(f"{seconds:.2f} s, {used.ru_utime + used.ru_stime:.2f} of the processor, {mib} MiB")
		sys.exit(text.count("SSL_read") != 1 or mib > int(sys.argv[1]))
	END
	echo "# $(<"$file.measured")" >&3
}
