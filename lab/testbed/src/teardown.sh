# Ends one bed: its processes, links, network namespaces, mounts and directory. The only way a bed
# ends, run by `down`, by the end of a test, and by the reaper when its parent was killed. Needs
# nothing but the system's own tools, so it works when no program of ours is left.
# Arguments: slot, directory ("" if unknown), token the bed must have ("" for any).
slot=$1 dir=$2 token=$3
if [ -n "$token" ] && [ "$(cat "$dir/token" 2>/dev/null)" != "$token" ]; then
    exit 0 # Ended already, and the name may belong to another bed by now.
fi
failed=0
group=otelagent-bed-$slot
end_group || failed=1
ip link del "oab$slot-host" 2>/dev/null
for netns in /run/netns/oab"$slot"-*; do
    [ -e "$netns" ] && { ip netns del "${netns##*/}" || failed=1; }
done
if [ -n "$dir" ]; then
    # Mounts are made inside the nodes' own mount namespaces; should one have escaped, removing
    # files through it would be worse than leaving it.
    awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
        while read -r mount; do umount -l "$mount"; done
    [ $failed -eq 0 ] && { rm -rf --one-file-system "$dir" || failed=1; }
fi
exit $failed
