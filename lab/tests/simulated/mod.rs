//! The controller in this process, on a real control plane whose nodes are simulated.
//!
//! One bed serves every run: API server, etcd, scheduler and controllers are real, nodes and what runs on
//! them are [`kubelet`]'s. A run has a namespace of its own, which holds its `OtelAgent`, its vehicles and
//! its applications, and a controller of its own that sees no other's: its lists and watches of `OtelAgent`s
//! and pods are narrowed to that namespace on their way, those of policies to its own, so many runs go on
//! at once. It acts with the rights of the installed `ServiceAccount`.
//!
//! A crash is [`faults`]' doing: from some write on no call of that client ends any more, then the
//! controller's tasks are aborted, everything it knew is dropped, and another starts with a client of its
//! own. Nothing of the controller lives in statics, so that is all that a killed process loses.
//!
//! What goes wrong:
//!
//! - [`crashes`]: the controller is killed before and after each of its writes, or the write is refused,
//!   lost, unanswered or sent twice.
//! - [`stale`]: it is shown an old view, by watches that lag, break off or lose what happened ([`views`]),
//!   and by lists of an earlier time when it starts.
//! - [`leaders`]: of two replicas over the real lease, the one that leads can no longer reach it.
//! - [`killed`]: the real process is killed, or paused past its lease. It has a bed of its own, as it sees
//!   all there is.
//!
//! - [`reports`]: whichever way a reconcile ends, the status names the reason.
//!
//! `make test-full` (`OTELAGENT_FULL=1`) runs every pair, every write and every view, which takes an hour or
//! more. `make test` runs some of each kind (20, 8, 1 and 3) in a few minutes: every change then meets each
//! kind of fault, and what it breaks for one write it seldom breaks for that write alone. Which these are is
//! fixed, so that a failure is the change's and not chance's, or drawn by `OTELAGENT_SEED`. With
//! `OTELAGENT_FULL=1 OTELAGENT_ONLY='Sidecar to HostPort: CrashAfter at'` only those runs are made whose lines begin
//! so. With `--nocapture` each run prints its verdict when it is over.

mod children;
mod cluster;
mod crashes;
mod faults;
mod killed;
pub(crate) mod kubelet;
mod leaders;
mod operator;
mod reports;
mod run;
mod sample;
mod stale;
mod topology;
mod views;
