# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Bash completion for tlssnoop: options, and the values of those that take one.
# In: the words typed so far. Out: COMPREPLY. It must never run tlssnoop, which may want root.

# _tlssnoop_list VALUE...: completes the last item of a list with commas
_tlssnoop_list() {
	local before=
	[[ $cur == *,* ]] && before=${cur%,*},
	mapfile -t COMPREPLY < <(compgen -P "$before" -W "$*" -- "${cur##*,}")
	compopt -o nospace
}

_tlssnoop() {
	local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} pids i

	for ((i = 1; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} != -- ]] || break
	done
	if ((i < COMP_CWORD)); then # a command, then its arguments
		if ((i + 1 == COMP_CWORD)); then
			mapfile -t COMPREPLY < <(compgen -c -- "$cur")
		else
			compopt -o default
		fi
		return
	fi

	# --option=value comes in three words
	if [[ $cur == = ]]; then
		cur=
	elif [[ $previous == = ]]; then
		previous=${COMP_WORDS[COMP_CWORD - 2]}
	fi

	case $previous in
	-p | --pid)
		pids=$(cd /proc && echo [0-9]*)
		_tlssnoop_list "$pids"
		;;
	-k | --kind)
		_tlssnoop_list openssl rustls gnutls nss
		;;
	-l | --lib | -o | --output)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	-Q | --direction)
		mapfile -t COMPREPLY < <(compgen -W 'read write' -- "$cur")
		;;
	-u | --uid)
		mapfile -t COMPREPLY < <(compgen -u -- "$cur")
		;;
	-n | --comm | -s | --snap | -c | --count | -d | --duration | -B | --buffer)
		;;
	*)
		mapfile -t COMPREPLY < <(compgen -W '-p --pid -f --follow -l --lib -k --kind -n --comm -u --uid
			-Q --direction -L --list -x --hex -X --dump -A --text -j --json -a --addr
			-s --snap -o --output -c --count -d --duration -B --buffer -q --quiet -v --verbose
			-V --version -h --help --usage' -- "$cur")
		;;
	esac
}

complete -F _tlssnoop tlssnoop
