# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# For scripts that download packages of Debian, of any suite, and leave the system as it is. Sourced.

skip() {
        printf 'SKIP: %s\n' "$*" >&2
        exit 77
}

# Sets `work`, a folder beside what will be there, which goes with the script.
debian_work() { # CACHE
        mkdir -p "$1" 2>/dev/null || true
        work=$(mktemp -d "$1/fetch-XXXXXX" 2>/dev/null) || skip "$1 cannot be written"
        trap 'rm -rf "$work"' EXIT
        chmod 0755 "$work" # apt downloads as a user of its own
}

# Sets `archive`, and `options` for apt: sources, lists and a cache of its own in `work`. Reads the lists.
debian_lists() { # FOR SUITE...
        local uri release suite security='' for=$1
        shift
        # Where this host gets Debian from, by what it gets there.
        archive=''
        # shellcheck disable=SC2016 # apt's own
        while read -r uri release; do
                case $release in
                bookworm-security) security=${uri%/} ;;
                bookworm) archive=${uri%/} ;;
                esac
        done < <(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null)
        [ -n "$archive" ] || skip "apt has no source of bookworm here"
        for suite in "$@"; do
                uri=$archive
                [[ $suite != *-security ]] || uri=${security:-$archive-security}
                printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$uri" "$suite"
        done >"$work/sources"
        mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
        options=(-q -o Dir::Etc::sourcelist="$work/sources" -o Dir::Etc::sourceparts=/dev/null
                -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Acquire::Languages=none
                -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
        apt-get "${options[@]}" -o APT::Update::Error-Mode=any update >"$work/log" 2>&1 ||
                skip "no package lists for $for: $(grep -m 1 '^[EW]:' "$work/log")"
}
