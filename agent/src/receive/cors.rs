//! Cross-origin requests: whether a browser may send for a page (Fetch standard, "CORS protocol").

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Response, StatusCode};

use super::answer::Answer;
use crate::config::Cors;

/// Headers that pages may always send.
const ALWAYS: &str = "accept, content-type, x-requested-with";

/// Whether a request asks what a page may send, before it sends something.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to such a request. It says nothing to pages of other origins.
pub(super) fn preflight(cors: &Cors, headers: &HeaderMap) -> Response<Answer> {
    let mut response = Response::new(Answer::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let out = response.headers_mut();
    let depends = "origin, access-control-request-method, access-control-request-headers";
    out.insert(VARY, HeaderValue::from_static(depends));
    if !admit(cors, headers.get(ORIGIN), out) {
        return response;
    }
    out.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST"),
    );
    let names = cors.allowed_headers.join(", ");
    let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
    let allowed = match asked {
        // With credentials, browsers take a `*` literally.
        Some(asked) if cors.allowed_headers.iter().any(|name| name == "*") => Ok(asked.clone()),
        _ if names.is_empty() => Ok(HeaderValue::from_static(ALWAYS)),
        _ => HeaderValue::from_str(&format!("{ALWAYS}, {names}")),
    };
    if let Ok(allowed) = allowed {
        out.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    if !cors.max_age.is_zero() {
        let seconds = HeaderValue::from(cors.max_age.as_secs());
        out.insert(ACCESS_CONTROL_MAX_AGE, seconds);
    }
    response
}

/// Lets a page of an allowed origin read this answer.
pub(super) fn expose(cors: &Cors, origin: Option<&HeaderValue>, out: &mut HeaderMap) {
    out.insert(VARY, HeaderValue::from_static("origin"));
    admit(cors, origin, out);
}

fn admit(cors: &Cors, origin: Option<&HeaderValue>, out: &mut HeaderMap) -> bool {
    let allowed = origin.filter(|origin| {
        let mut patterns = cors.allowed_origins.iter();
        patterns.any(|pattern| matches(pattern, origin.as_bytes()))
    });
    let Some(origin) = allowed else {
        return false;
    };
    out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    // Beacons are sent with credentials, whether there are any or not.
    let credentials = HeaderValue::from_static("true");
    out.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials);
    true
}

/// Whether an origin has the form of a pattern in lower case, in which one `*` stands for any characters.
fn matches(pattern: &str, origin: &[u8]) -> bool {
    let origin = origin.to_ascii_lowercase();
    match pattern.split_once('*') {
        None => origin == pattern.as_bytes(),
        Some((start, end)) => {
            origin.len() >= start.len() + end.len()
                && origin.starts_with(start.as_bytes())
                && origin.ends_with(end.as_bytes())
        }
    }
}
