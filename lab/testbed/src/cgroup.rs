//! Control groups of a bed, on version 1 and version 2 hosts.
//!
//! Every process of a bed is in a group of it, so that killing a bed is complete even for
//! processes that no longer have a parent. Knows paths, not components.
//! Version 2 is written to the kernel's documentation; the bed was only ever run on version 1.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{make_dir, read, write};
use crate::error::{Error, Result};

/// Controllers a version 2 kubelet needs below its root.
const V2_CONTROLLERS: &str = "+cpuset +cpu +io +memory +pids";

/// The hierarchies of this host.
enum Hierarchies {
    /// Mount points of version 1 controllers, and of a version 2 tree beside them if there is one.
    V1(Vec<PathBuf>),
    V2(PathBuf),
}

fn hierarchies() -> Result<Hierarchies> {
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let mut first: Vec<PathBuf> = Vec::new();
    let mut second: Vec<PathBuf> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(place) = left.split(' ').nth(4) else {
            continue;
        };
        match right.split(' ').next() {
            Some("cgroup") => first.push(PathBuf::from(place)),
            Some("cgroup2") => second.push(PathBuf::from(place)),
            _ => {}
        }
    }
    if first.is_empty() {
        let missing = || Error::Missing {
            what: "a mounted control group hierarchy".to_owned(),
            remedy: "mount cgroup2 at /sys/fs/cgroup".to_owned(),
        };
        return second
            .into_iter()
            .next()
            .map(Hierarchies::V2)
            .ok_or_else(missing);
    }
    first.extend(second);
    Ok(Hierarchies::V1(first))
}

/// Makes a group (a path below the hierarchy's root) in every hierarchy, with all groups above it.
/// Returns the files a process joins through, separated by colons.
pub(crate) fn create(group: &str) -> Result<String> {
    let roots = match hierarchies()? {
        Hierarchies::V1(roots) => {
            for root in &roots {
                for_each_level(root, group, inherit_cpuset)?;
            }
            roots
        }
        Hierarchies::V2(root) => {
            for_each_level(&root, group, |above, _| {
                delegate(above);
                Ok(())
            })?;
            vec![root]
        }
    };
    let files: Vec<String> = roots
        .iter()
        .map(|root| format!("{}/{group}/cgroup.procs", root.display()))
        .collect();
    Ok(files.join(":"))
}

fn for_each_level(root: &Path, group: &str, prepare: fn(&Path, &Path) -> Result<()>) -> Result<()> {
    let mut above = root.to_owned();
    for level in group.split('/') {
        let dir = above.join(level);
        if !dir.is_dir() {
            make_dir(&dir)?;
            prepare(&above, &dir)?;
        }
        above = dir;
    }
    Ok(())
}

/// A new version 1 cpuset has no processors, and nothing can run in it.
fn inherit_cpuset(above: &Path, dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if above.join(file).exists() && dir.join(file).exists() {
            write(&dir.join(file), read(&above.join(file))?.trim())?;
        }
    }
    Ok(())
}

/// A version 2 group has the controllers its parent hands down. Some may not exist on this host;
/// the kubelet says which one it misses.
fn delegate(above: &Path) {
    let control = above.join("cgroup.subtree_control");
    for controller in V2_CONTROLLERS.split(' ') {
        let _ = fs::write(&control, controller);
    }
}
