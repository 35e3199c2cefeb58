//! Where the process reports the webhook's readiness and the outcome of each review.

use std::time::Duration;

/// Readiness: webhook configurations and namespaces are cached.
pub const WATCHES: &str = "watches";
/// Readiness: there is a certificate to serve.
pub const CERTIFICATE: &str = "certificate";
/// Readiness: no shutdown has begun.
pub const SERVING: &str = "serving";

/// Where the process reports the webhook's readiness and the outcome of each review.
pub trait Observer: Send + Sync + 'static {
    /// Marks a part, one of the constants above, as ready.
    fn ready(&self, part: &'static str);
    /// Marks a part as not ready.
    fn not_ready(&self, part: &'static str);
    /// Notes the outcome of a review, one of a closed set.
    fn reviewed(&self, outcome: &'static str, took: Duration);
}
