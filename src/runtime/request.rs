//! What a request to the API server is, by its address.

use http::Uri;

/// Whether the answer is meant to go on and on.
pub(super) fn is_watch(uri: &Uri) -> bool {
    uri.query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}
