//! The connection to the upstream.
