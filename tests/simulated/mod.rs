//! The controller in this process, on a real control plane whose nodes are simulated.
//!
//! One bed serves every run: API server, etcd, scheduler and controllers are real, nodes and what runs on
//! them are [`kubelet`]'s. A run has a namespace of its own, which holds its `OtelAgent`, its vehicles and
//! its applications, and a controller of its own that sees no other's: its lists and watches of `OtelAgent`s
//! and pods are narrowed to that namespace on their way, those of policies to its own, so many runs go on at once. It acts with the rights
//! of the installed `ServiceAccount`.
//!
//! A crash is [`faults`]' doing: from some write on no call of that client ends any more, then the
//! controller's tasks are aborted, everything it knew is dropped, and another starts with a client of its
//! own. Nothing of the controller lives in statics, so that is all that a killed process loses.
//!
//! `make test-full` (`OTELAGENT_FULL=1`) runs every pair, every write, before and after. `make test` runs a
//! sample that takes two minutes: a fixed one, so that a failure is the change's and not chance's, or the one
//! that `OTELAGENT_SEED` draws.

mod children;
mod cluster;
mod crashes;
mod faults;
mod killed;
mod kubelet;
mod leaders;
mod operator;
mod run;
mod sample;
mod stale;
mod topology;
mod views;
