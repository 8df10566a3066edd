#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# The same options everywhere: --help, the manual, the completion, the README. Each set is taken
# from its file as it stands, not from a list of ours. Needs tlssnoop and mandoc, no privilege.
# It must never pass on an empty set.

load lib

TOP=$TESTS/..

# "-x --hex" or "-k --kind LIST" or "- --usage" for each line that names an option, sorted
options_in() {
	sed -nE -e 's/^ +(-., )?(--[a-z]+)(=([^ ]+))?( .*)?$/\1 \2 \4/p' |
		sed -E -e 's/^ /- /' -e 's/,? +/ /g' -e 's/ $//' | LC_ALL=C sort
}

of_help() {
	"$TLSSNOOP" --help | options_in
}

of_manual() {
	mandoc -T ascii "$TOP/man/tlssnoop.8" | col -b | expand | sed -n '/^OPTIONS/,/^EXAMPLES/p' |
		options_in
}

# completions WORD...: what is offered for the last word
completions() {
	# shellcheck disable=SC2034 # the function looks at them
	local COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
	COMPREPLY=()
	_tlssnoop
	printf '%s\n' "${COMPREPLY[@]}"
}

setup() {
	# the real one works within a completion only
	# shellcheck disable=SC2317 # called by what is sourced
	compopt() {
		:
	}
	# shellcheck source=/dev/null
	source "$TOP/man/tlssnoop.bash"
	of_help >"$BATS_TEST_TMPDIR/help"
	(($(wc -l <"$BATS_TEST_TMPDIR/help") > 15)) || fail 'the help text names too few options'
}

@test "the manual has the options of --help, with the same arguments" {
	diff "$BATS_TEST_TMPDIR/help" <(of_manual)
}

@test "the synopsis of the manual is that of --help" {
	local synopsis
	synopsis=$(mandoc -T ascii "$TOP/man/tlssnoop.8" | col -b | sed -n '/^SYNOPSIS/,/^DESC/p')
	while read -r line; do
		[[ $synopsis == *"tlssnoop [option...] $line"* ]] || fail "not in the manual: $line"
	done < <("$TLSSNOOP" --help | sed -nE 's/^.*tlssnoop \[OPTION\.\.\.\] //p')
}

@test "the completion offers the options of --help" {
	diff <(grep -oE -- '--?[A-Za-z]+' "$BATS_TEST_TMPDIR/help" | sort) \
		<(completions tlssnoop - | sort)
}

@test "the completion knows which options take an argument" {
	local short long argument option
	while read -r short long argument; do
		for option in "$short" "$long"; do
			if [[ -z $argument ]]; then
				[[ $(completions tlssnoop "$option" -) == *--help* ]] ||
					fail "no options after $option, which takes no argument"
			else
				[[ $(completions tlssnoop "$option" -) != *--help* ]] ||
					fail "options after $option, which takes an argument"
			fi
		done
	done <"$BATS_TEST_TMPDIR/help"
}

@test "the completion offers the values of -Q and -k, and pids" {
	[[ $(completions tlssnoop -Q '') == $'read\nwrite' ]]
	[[ $(completions tlssnoop -k '') == $'openssl\nrustls\ngnutls\nnss' ]]
	[[ $(completions tlssnoop --kind = openssl,r) == openssl,rustls ]]
	grep -q 'Only these: openssl, rustls, gnutls, nss$' <("$TLSSNOOP" --help)
	completions tlssnoop -p '' | grep -qx "$$"
	completions tlssnoop -p 1, | grep -qx "1,$$"
}

@test "the README names no option that does not exist" {
	local words word found=0
	# code in the line that begins with -, and the words of each command up to a pipe
	words=$({
		# shellcheck disable=SC2016 # no command
		grep -oE '`-[^`]*`' "$TOP/README.md" | tr -d '`'
		grep -oE 'tlssnoop( +[^|`#]*)' "$TOP/README.md" | sed 's/^tlssnoop//'
	} | grep -oE '(^| )--?[A-Za-z][a-z-]*' | tr -d ' ' | sort -u)
	for word in $words; do
		found=$((found + 1))
		case $word in
		--*) grep -qE -- "^-.? $word( |$)" "$BATS_TEST_TMPDIR/help" ;;
		*) grep -q -- "^$word " "$BATS_TEST_TMPDIR/help" ;;
		esac || fail "no such option: $word"
	done
	((found > 5))
}

@test "one version" {
	local version
	version=$("$TLSSNOOP" --version)
	grep -qE '^tlssnoop [0-9]+\.[0-9]+$' <<<"$version"
	[[ $(sed -n 's/^VERSION := //p' "$TOP/Makefile") == "${version#tlssnoop }" ]]
	grep -qE "^\.TH TLSSNOOP 8 [0-9-]+ \"$version\" " "$TOP/man/tlssnoop.8"
}
