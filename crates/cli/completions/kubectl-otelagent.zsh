#compdef kubectl-otelagent kubectl-oa
# Completion of kubectl-otelagent in zsh: source <(kubectl otelagent completion zsh)
_kubectl_otelagent() {
    local line out
    local -a found
    out=$("${words[1]}" __complete "${(@)words[2,$CURRENT]}" 2> /dev/null) || return
    for line in "${(@f)out}"; do
        case $line in
            :0) _files; return ;;
            :*) ;;
            *) found+=("${${line//:/\\:}/$'\t'/:}") ;;
        esac
    done
    _describe 'kubectl otelagent' found
}
compdef _kubectl_otelagent kubectl-otelagent kubectl-oa
