# Completion of kubectl-otelagent in fish: kubectl otelagent completion fish | source
function __kubectl_otelagent
    set -l words (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token)
    for line in ($words[1] __complete $words[2..] 2> /dev/null)
        switch $line
            case ':0'
                __fish_complete_path (commandline --current-token)
            case ':*'
            case '*'
                echo $line
        end
    end
end
complete --command kubectl-otelagent --no-files --arguments '(__kubectl_otelagent)'
complete --command kubectl-oa --no-files --arguments '(__kubectl_otelagent)'
