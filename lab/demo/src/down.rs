//! Removing what the demo made.

use demo::{Kubectl, Result, apps, ledger, repository};
use testbed::{Bed, BedName, Builder, Cluster};

use crate::show::Show;
use crate::up::BED;

/// Whether `KUBECONFIG` names the demo's bed, as it does for somebody who looks around in it.
fn names_own_bed() -> bool {
    let named = Cluster::from_env_or_bed(Builder::default());
    let bed = Bed::attach(BED);
    matches!((named, bed), (Ok(named), Ok(bed)) if named.kubeconfig() == bed.kubeconfig())
}

/// Ends the demo's bed; on an external cluster, removes the demo's objects.
pub(crate) fn down(show: &Show) -> Result<()> {
    if !Cluster::is_named() || names_own_bed() {
        let was_up = show.step("bed removed", || {
            Ok(testbed::down(&BED.parse::<BedName>()?)?)
        })?;
        if !was_up {
            show.remark("There was none.");
        }
        return Ok(());
    }
    let cluster = Cluster::from_env_or_bed(Builder::default())?;
    let kubectl = Kubectl::new(&cluster.kubectl()?);
    show.step("applications, collector and ledger removed", || {
        kubectl.run(&[
            "delete",
            "namespace",
            apps::NAMESPACE,
            ledger::NAMESPACE,
            "--ignore-not-found",
        ])
    })?;
    show.step(
        "operator removed (kubectl delete -k manifests/default)",
        || {
            let manifests = repository().join("manifests/default").display().to_string();
            kubectl.run(&["delete", "--ignore-not-found", "--kustomize", &manifests])
        },
    )?;
    Ok(())
}
