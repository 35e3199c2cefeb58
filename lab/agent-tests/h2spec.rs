//! HTTP/2 as h2spec understands it: every case of it against a running agent.

use std::process::Command;

use crate::support::agent::{Setup, temporary};
use crate::support::sink::Sink;

/// Cases that may fail for a reason, by their section and name.
const KNOWN: &[(&str, &str)] = &[
    // The port speaks HTTP/1.1, too: what is no preface of HTTP/2 is answered in that, with 400, and
    // closed (RFC 9113, section 3.4, lets a server leave out GOAWAY then).
    ("http2/3.5", "Sends invalid connection preface"),
    // The request is answered, and its stream over, before the window is made too large.
    (
        "http2/6.9.1",
        "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
    ),
];

/// Attributes and content of every element `name` of a report.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<(&'a str, &'a str)> {
    let (open, close) = (format!("<{name} "), format!("</{name}>"));
    xml.split(open.as_str())
        .skip(1)
        .map(|rest| {
            let (attributes, content) = rest.split_once('>').unwrap();
            (attributes, content.split(close.as_str()).next().unwrap())
        })
        .collect()
}

fn attribute<'a>(attributes: &'a str, name: &str) -> &'a str {
    let (_, rest) = attributes.split_once(&format!("{name}=\"")).unwrap();
    rest.split('"').next().unwrap()
}

#[tokio::test]
async fn http_2_is_spoken_as_h2spec_demands() {
    let h2spec = testbed::parts::ensure(testbed::parts::Part::H2spec).unwrap();
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let report = temporary("h2spec.xml");
    let run = Command::new(h2spec)
        .args(["--strict", "--timeout", "5", "--path", "/v1/traces"])
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            &agent.port().port().to_string(),
        ])
        .arg("--junit-report")
        .arg(&report)
        .output()
        .unwrap();
    let xml = std::fs::read_to_string(&report).unwrap();
    std::fs::remove_file(report).unwrap();
    let cases = elements(&xml, "testcase");
    assert!(cases.len() > 140, "{} cases were run: {run:?}", cases.len());
    let failed: Vec<_> = cases
        .iter()
        .filter(|(_, content)| !content.is_empty())
        .map(|(case, _)| (attribute(case, "package"), attribute(case, "classname")))
        .filter(|case| !KNOWN.contains(case))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}
