//! Texts: configurations, and the encodings of a status in headers.

use std::time::Duration;

use otelagent_agent::config;
use otlp_wire::status::{self, Code, Status};

/// A configuration that is taken can be printed, and is read the same way twice; one that is not says
/// why, and never more than a person would read.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match config::check(text) {
        Ok(config) => {
            let printed = config.to_string();
            assert!(!printed.is_empty());
            for exporter in &config.exporters {
                for (_, secret) in &exporter.headers {
                    let hidden = secret.value().len() < 8 || !printed.contains(secret.value());
                    assert!(hidden || text.matches(secret.value()).count() > 1);
                }
            }
            let again = config::check(text).expect("it was taken a moment ago");
            assert_eq!(format!("{again:?}"), format!("{config:?}"));
            assert!(config.memory.spike <= config.memory.limit);
            for pipeline in &config.pipelines {
                assert!(config.exporters.get(pipeline.exporter).is_some());
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            for problem in problems {
                assert!(!problem.message.is_empty());
            }
        }
    }
}

/// Encoding and decoding are each other's opposite, whatever is in between.
pub fn status(bytes: &[u8]) {
    let encoded = status::base64_encode(bytes);
    assert_eq!(
        status::base64_decode(encoded.as_bytes()).as_deref(),
        Some(bytes)
    );
    if let Some(decoded) = status::base64_decode(bytes) {
        let again = status::base64_encode(&decoded);
        assert_eq!(status::base64_decode(again.as_bytes()), Some(decoded));
    }
    let text = String::from_utf8_lossy(bytes);
    let percent = status::percent_encode(&text);
    assert!(percent.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    assert_eq!(status::percent_decode(percent.as_bytes()), text);
    let _ = status::percent_decode(bytes);
    // An answer of an upstream, which may be anything.
    let _ = status::partial_success(bytes);
    let _ = status::message(bytes);
    let _ = status::retry_delay(bytes);
    let Some((&[code, seconds], _)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let asked = (seconds > 0).then(|| Duration::new(seconds.into(), u32::from(code) * 1_000_000));
    let status = Status {
        code: Code(code.into()),
        message: text.clone().into_owned(),
        retry_after: asked,
    };
    let encoded = status.encode();
    assert_eq!(status::retry_delay(&encoded), asked);
    assert_eq!(status::message(&encoded).as_deref(), Some(&*text));
}
