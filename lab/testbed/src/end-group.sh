# Kills everything in a control group, in every hierarchy, and removes the group. Processes may
# fork or join meanwhile, so both are repeated until the group is gone.
end_group() {
    rounds=0
    while :; do
        set --
        for root in "/sys/fs/cgroup/$group" /sys/fs/cgroup/*/"$group"; do
            [ -d "$root" ] && set -- "$@" "$root"
        done
        [ $# -eq 0 ] && return 0
        # A 0 stands for a process outside this pid namespace, and would mean our own group.
        pids=$(find "$@" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un | grep -vx 0)
        [ -n "$pids" ] && kill -9 $pids 2>/dev/null
        find "$@" -depth -type d -exec rmdir {} + 2>/dev/null
        rounds=$((rounds + 1))
        if [ $rounds -gt 300 ]; then
            echo "control group $group still has processes: $pids"
            return 1
        fi
        sleep 0.03
    done
}
