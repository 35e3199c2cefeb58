//! Where the process reports the webhook's readiness and the outcome of each review.

use std::time::Duration;

/// Readiness: webhook configurations and namespaces have been seen once.
pub const WATCHES: &str = "watches";
/// Readiness: there is a certificate to serve.
pub const CERTIFICATE: &str = "certificate";
/// Readiness: no shutdown was asked for.
pub const SERVING: &str = "serving";

/// Where the process reports the webhook's readiness and the outcome of each review.
pub trait Observer: Send + Sync + 'static {
    /// A part, one of the constants above, became ready.
    fn ready(&self, part: &'static str);
    /// A part is no longer ready.
    fn not_ready(&self, part: &'static str);
    /// A review was answered, in one of a closed set of ways.
    fn reviewed(&self, outcome: &'static str, took: Duration);
}
