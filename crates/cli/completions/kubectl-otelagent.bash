# Completion of kubectl-otelagent in bash: source <(kubectl otelagent completion bash)
_kubectl_otelagent() {
    local word line out
    word=${COMP_WORDS[COMP_CWORD]}
    out=$("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2> /dev/null) || return
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :0) compopt -o default; COMPREPLY=() ;;
            :*) ;;
            *)
                line=${line%%$'\t'*}
                # bash breaks words at =, so that only what follows it is replaced.
                [[ $line == *=* && $word != -* ]] && line=${line#*=}
                [[ $line == "$word"* || $word == = ]] && COMPREPLY+=("$line")
                ;;
        esac
    done <<< "$out"
}
complete -F _kubectl_otelagent kubectl-otelagent kubectl-oa
