//! `check`: whether a cluster can have otelagent, and whether an installation is whole, line by line with what to do next.

mod certificate;
mod crd;
mod facts;
mod installed;
mod ports;
mod prepared;
mod report;
mod view;

pub use certificate::ends_of;
pub use crd::lacking;
pub use facts::{Access, Facts, Holder, Needed};
pub use installed::installed;
pub use ports::{PortPod, PortsOfPod};
pub use prepared::prepared;
pub use report::{CheckLine, CheckReport, State};
pub use view::view;
