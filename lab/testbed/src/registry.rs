//! The beds of this machine: claiming a slot, listing, and ending them.
//!
//! Each bed notes itself in its directory before anything else of it is made, so that whatever
//! dies, the next one finds what to clean. Knows nothing of what runs in a bed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::command::{command, lock, make_dir, read, run, run_words, write};
use crate::component::{self, Component};
use crate::error::{Error, Result};
use crate::layout::{BedName, SLOTS, Slot, beds_dir, lock_path};
use crate::options::{Options, Owner, Record};
use crate::progress::{Step, say};

/// The script that ends a bed.
pub(crate) const TEARDOWN: &str =
    concat!(include_str!("end-group.sh"), include_str!("teardown.sh"));
/// Directories of logs that are kept.
const KEPT_LOGS: usize = 40;

/// A line of `testbed status`.
#[derive(Debug)]
pub struct BedSummary {
    /// Its name.
    pub name: BedName,
    /// How many nodes it has.
    pub nodes: u8,
    /// How many simulated ones.
    pub simulated_nodes: u16,
    /// Its Kubernetes release.
    pub kubernetes: &'static str,
    /// Processes that should run, and whether they do.
    pub components: Vec<(Component, bool)>,
    /// False when its owner is gone, and the bed only waits to be cleaned up.
    pub owned: bool,
}

/// All beds of this machine.
pub fn list() -> Result<Vec<BedSummary>> {
    let summaries = records()?.into_iter().map(|record| {
        let layout = record.layout();
        let options = &record.options;
        let is_simulated = options.simulated_nodes > 0;
        let all = Component::all(options.nodes, is_simulated, options.network_policies);
        let alive = |component: &Component| component::pid(&layout, *component).is_some();
        BedSummary {
            nodes: record.options.nodes,
            simulated_nodes: record.options.simulated_nodes,
            kubernetes: record.options.kubernetes.release(),
            components: all
                .into_iter()
                .map(|component| (component, alive(&component)))
                .collect(),
            owned: is_owned(&record),
            name: record.name,
        }
    });
    Ok(summaries.collect())
}

/// Ends the bed of this name, of any owner. Succeeds when there is none.
pub fn down(name: &BedName) -> Result<bool> {
    let _held = hold()?;
    match load(name) {
        Ok(record) => {
            let step = Step::short(format!("end bed {name}"));
            teardown(record.slot, &name.dir(), &name.to_string())?;
            step.finish();
            Ok(true)
        }
        Err(Error::NoSuchBed(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends all beds, also what is left of beds whose note is lost.
pub fn down_all() -> Result<()> {
    let names: Vec<BedName> = records()?.into_iter().map(|record| record.name).collect();
    for name in names {
        down(&name)?;
    }
    let _held = hold()?;
    for slot in (0..SLOTS).map(Slot).filter(|slot| has_leftovers(*slot)) {
        say(&format!("remove what is left in slot {}", slot.0));
        teardown(slot, Path::new(""), "without a name")?;
    }
    Ok(())
}

/// Makes space for a new bed: cleans what dead ones left, chooses a slot and notes the bed.
pub(crate) fn claim(name: BedName, options: Options) -> Result<Record> {
    let _held = hold()?;
    let mut taken = Vec::new();
    for record in records()? {
        if is_owned(&record) {
            if record.name == name {
                return Err(Error::NameInUse(name.to_string()));
            }
            taken.push(record.slot);
        } else {
            say(&format!(
                "clean up after bed {}, whose owner is gone",
                record.name
            ));
            teardown(record.slot, &record.name.dir(), &record.name.to_string())?;
        }
    }
    let slot = free_slot(&taken)?;
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let record = Record {
        token: format!("{}-{}", std::process::id(), since_epoch.as_nanos()),
        owner: Some(this_process()?),
        boot_id: boot_id()?,
        name,
        slot,
        options,
    };
    fresh_directories(&record)?;
    save(&record)?;
    Ok(record)
}

fn fresh_directories(record: &Record) -> Result<()> {
    let (dir, logs) = (record.name.dir(), record.name.log_dir());
    if dir.exists() {
        // Without a note in it: its bed died while being claimed.
        fs::remove_dir_all(&dir).map_err(Error::io(format!("remove {}", dir.display())))?;
    }
    if logs.exists() {
        fs::remove_dir_all(&logs).map_err(Error::io(format!("remove {}", logs.display())))?;
    }
    prune_logs(&record.name.log_dir());
    make_dir(&logs)?;
    make_dir(&dir.join("pids"))?;
    make_dir(&dir.join("pki"))?;
    // A reader of the keys in here becomes root on this machine through a privileged pod.
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(&dir, private).map_err(Error::io(format!("protect {}", dir.display())))?;
    write(&dir.join("token"), &record.token)
}

/// Logs outlive their beds, but not without limit.
fn prune_logs(of_new_bed: &Path) {
    let Some(Ok(entries)) = of_new_bed.parent().map(fs::read_dir) else {
        return;
    };
    let mut dirs: Vec<_> = entries
        .flatten()
        .filter(|entry| !beds_dir().join(entry.file_name()).exists())
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    dirs.sort();
    let surplus = dirs.len().saturating_sub(KEPT_LOGS);
    for (_, dir) in dirs.into_iter().take(surplus) {
        let _ = fs::remove_dir_all(dir);
    }
}

/// The lowest unused slot: neither a bed nor a network of the host.
fn free_slot(taken: &[Slot]) -> Result<Slot> {
    let routes = run_words(&["ip", "-4", "route", "show", "table", "all"])?;
    for slot in (0..SLOTS).map(Slot).filter(|slot| !taken.contains(slot)) {
        if has_leftovers(slot) {
            say(&format!("remove what is left in slot {}", slot.0));
            teardown(slot, Path::new(""), "without a name")?;
        } else if routes
            .split_whitespace()
            .any(|word| word.starts_with(&slot.prefix()))
        {
            continue;
        }
        return Ok(slot);
    }
    Err(Error::NoFreeSlot)
}

/// Whether groups, links or namespaces of this slot exist.
fn has_leftovers(slot: Slot) -> bool {
    let group = slot.cgroup();
    let roots = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let in_group = Path::new("/sys/fs/cgroup").join(&group).exists()
        || roots.into_iter().any(|root| root.join(&group).exists());
    let netns_prefix = format!("oab{}-", slot.0);
    let names = fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    in_group
        || names
            .into_iter()
            .any(|name| name.to_string_lossy().starts_with(&netns_prefix))
        || Path::new("/sys/class/net").join(slot.host_link()).exists()
}

/// Runs the script that ends a bed. The caller holds the lock.
fn teardown(slot: Slot, dir: &Path, name: &str) -> Result<()> {
    let number = slot.0.to_string();
    let mut script = command("sh");
    script
        .args(["-c", TEARDOWN, "teardown", &number])
        .arg(dir)
        .arg("");
    run(&mut script).map(drop).map_err(|error| match error {
        Error::Command { output, .. } => Error::Leftovers {
            bed: name.to_owned(),
            output,
        },
        other => other,
    })
}

/// The note of a bed.
pub(crate) fn load(name: &BedName) -> Result<Record> {
    let path = name.dir().join("bed.json");
    if !path.exists() {
        return Err(Error::NoSuchBed(name.to_string()));
    }
    Ok(serde_json::from_str(&read(&path)?)?)
}

/// From now on the bed stays until it is ended by name.
pub(crate) fn keep(record: &mut Record) -> Result<()> {
    record.owner = None;
    save(record)
}

fn save(record: &Record) -> Result<()> {
    let dir = record.name.dir();
    write(
        &dir.join("bed.json.new"),
        serde_json::to_vec_pretty(record)?,
    )?;
    fs::rename(dir.join("bed.json.new"), dir.join("bed.json")).map_err(Error::io("note the bed"))
}

fn records() -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(beds_dir()).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().to_string_lossy().parse::<BedName>() else {
            continue;
        };
        match load(&name) {
            Ok(record) => records.push(record),
            Err(Error::NoSuchBed(_)) => {}
            Err(error) => return Err(error),
        }
    }
    records.sort_by_key(|record| record.slot);
    Ok(records)
}

fn hold() -> Result<fs::File> {
    lock(&lock_path(), || {
        say("wait for another bed that is being made or ended");
    })
}

/// Whether the owner of this bed still runs.
fn is_owned(record: &Record) -> bool {
    let same_boot = boot_id().is_ok_and(|now| now == record.boot_id);
    let alive = |owner: &Owner| begun(owner.pid).is_some_and(|begun| begun == owner.begun);
    same_boot && record.owner.as_ref().is_none_or(alive)
}

fn this_process() -> Result<Owner> {
    let pid = std::process::id();
    let begun = begun(pid).ok_or_else(|| Error::Invalid("/proc is not mounted".to_owned()))?;
    Ok(Owner { pid, begun })
}

/// When a process began, in clock ticks since boot: field 22 of its stat, counted behind the name.
fn begun(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

fn boot_id() -> Result<String> {
    read(Path::new("/proc/sys/kernel/random/boot_id")).map(|id| id.trim().to_owned())
}
