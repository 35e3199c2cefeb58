//! Queues of acknowledged requests, one lane per signal, in memory or on disk.

mod batch;
mod compression;
mod disk;
mod durable;
mod lane;
mod lane_disk;
mod maintenance;
mod request;
mod writer;

pub(crate) use self::batch::Batch;
pub(crate) use self::durable::DurableQueue;
pub(crate) use self::lane::Lane;
pub(crate) use self::maintenance::Maintenance;
pub(crate) use self::request::{BOOKKEEPING, Origin, QueuedRequest};
