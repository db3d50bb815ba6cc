# SPDX-License-Identifier: Apache-2.0
# bash completion of swprofctl(1)
_swprofctl() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}

        COMPREPLY=()
        case $prev in
        -s|--socket|-i|--input|-o|--output)
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return ;;
        -f|--format)
                mapfile -t COMPREPLY < <(compgen -W 'html folded speedscope pprof' -- "$cur")
                return ;;
        -t|--timeout|-d|--duration|-n|--iterations|--interval|--min|--depth|-S|--service|--threshold|--period|--count)
                return ;;
        task)
                mapfile -t COMPREPLY < <(compgen -W 'start list stop' -- "$cur")
                return ;;
        esac
        if [[ $cur == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W '--socket= --json --timeout= --input= --min= --depth= --format= --output= --duration= --interval= --iterations= --service= --threshold= --period= --count= --wait --help --version' -- "$cur")
                [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
        else
                mapfile -t COMPREPLY < <(compgen -W 'status stats instances tasks slots task segments report export dump record top check version reload help' -- "$cur")
        fi
}
complete -F _swprofctl swprofctl
