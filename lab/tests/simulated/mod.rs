//! The controller in this process, on a real control plane whose nodes are simulated.
//!
//! One bed serves every run: API server, etcd, scheduler and controllers are real; [`kubelet`] simulates the nodes and
//! their pods. A run has its own namespace, which holds its `OtelAgent`, its agent workloads and its applications. It
//! has its own controller too, which sees no other run: a layer narrows its lists and watches of `OtelAgent`s and
//! pods to that namespace, and those of policies to its own. So many runs go on at once. The controller has the
//! rights of the installed `ServiceAccount`.
//!
//! [`faults`] makes crashes: from some write on no call of that client returns, then the test aborts the controller's
//! tasks, drops everything it knew, and starts another controller with a client of its own. The controller keeps no
//! state in statics, so a killed process loses no more than that.
//!
//! The faults:
//!
//! - [`crashes`]: the controller is killed before and after each of its writes, or the write is refused, lost,
//!   unanswered or sent twice.
//! - [`stale`]: the controller sees an old view, by watches that lag, break or lose events ([`views`]), and by lists
//!   of an earlier time when it starts.
//! - [`leaders`]: of two replicas over the real lease, the leader can no longer reach it.
//! - [`killed`]: the real process ([`process`]) is killed, or paused past its lease. It has its own bed, since it sees everything
//!   there.
//! - [`drift`]: users change the operator's objects.
//! - [`ports`], [`nodes`], [`blocked`]: two `OtelAgent`s need one port of the nodes; nodes are not for agents; agents
//!   cannot be created.
//! - [`start_gate`]: nodes join before their agents do.
//! - [`delivering`]: agents answer falsely, too much or never when they are asked whether they deliver.
//! - [`admission`]: other people's admission changes the operator's own objects.
//! - [`rights`]: the operator lacks one of its rights.
//! - [`revoked`]: a platform namespace is taken off the operator's argument.
//! - [`leftovers`]: something of an `OtelAgent` that is gone cannot be removed.
//! - [`gitops`]: what kstatus and Argo CD read in a status, and what the operator writes into an `OtelAgent`.
//! - [`observed`]: what the real process and real agents expose is what dashboard and alerts ask for, and the alerts fire
//!   in a real Prometheus.
//! - [`reports`]: the status names the reason for every way in which a reconcile ends.
//!
//! `make test-full` (`OTELAGENT_FULL=1`) runs every pair, every write and every view, which takes an hour or more.
//! `make test` runs some of each kind (20, 8, 1 and 3) in a few minutes, so every change meets each kind of fault. The
//! sample is fixed, so a failure comes from the change and not from chance; `OTELAGENT_SEED` draws another one. With
//! `OTELAGENT_FULL=1 OTELAGENT_ONLY='Sidecar to HostPort: CrashAfter at'` only the runs whose lines begin so are
//! made. With `--nocapture` each run prints its verdict when it ends.

mod admission;
mod blocked;
pub(crate) mod cluster;
mod crashes;
mod delivering;
mod drift;
mod faults;
mod gitops;
mod killed;
pub(crate) mod kubelet;
mod leaders;
mod leftovers;
mod nodes;
mod observed;
mod operator;
mod ports;
mod process;
mod reports;
mod revoked;
mod rights;
mod run;
mod sample;
mod stale;
mod start_gate;
mod topology;
mod views;
