# SPDX-License-Identifier: Apache-2.0
# bash completion of swprofctl(1)
_swprofctl() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}

        COMPREPLY=()
        case $prev in
        -s|--socket)
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return ;;
        -t|--timeout)
                return ;;
        esac
        if [[ $cur == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W '--socket= --json --timeout= --help --version' -- "$cur")
                [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
        else
                mapfile -t COMPREPLY < <(compgen -W 'status stats instances tasks slots check version reload help' -- "$cur")
        fi
}
complete -F _swprofctl swprofctl
