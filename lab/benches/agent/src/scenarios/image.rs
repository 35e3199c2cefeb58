//! Size of the image: the binary and the CA certificates, as `make images` writes it.

use std::fs;

use testbed::image::ImageSpec;

use super::{Bench, progress};
use crate::Outcome;
use crate::peers::{Kind, Peer};
use crate::report::{Line, Report, Verdict};

const BAR: f64 = 7.0;

#[expect(
    clippy::cast_precision_loss,
    reason = "megabytes, one decimal is printed"
)]
pub(super) fn run(bench: &Bench) -> Outcome<Report> {
    let mut sizes = Vec::new();
    for peer in &bench.peers {
        let megabytes = size(bench, peer)? as f64 / 1e6;
        progress(&format!("image, {}: {megabytes:.2} MB", peer.kind.name()));
        sizes.push((peer.kind, megabytes));
    }
    let ours = super::of(&sizes, Kind::Otelagent);
    let ratio = match (ours, super::of(&sizes, Kind::Collector)) {
        (Some(ours), Some(theirs)) => format!("{:.2} of collector", ours / theirs),
        _ => String::new(),
    };
    let line = Line {
        measure: "image: binary and CA certificates, uncompressed".to_owned(),
        bar: "≤ 7 MB".to_owned(),
        figures: sizes
            .iter()
            .map(|(kind, megabytes)| {
                let libc = match kind {
                    Kind::Rotel | Kind::Plain => ", and a C library",
                    Kind::Otelagent | Kind::Collector => "",
                };
                (*kind, format!("{megabytes:.1} MB{libc}"))
            })
            .collect(),
        ratio,
        verdict: ours.map_or(Verdict::Open, |ours| Verdict::from(ours < BAR)),
    };
    Ok(Report {
        lines: vec![line],
        ..Report::default()
    })
}

fn size(bench: &Bench, peer: &Peer) -> Outcome<u64> {
    let out = bench.place.scratch.join("image.tar");
    ImageSpec {
        name: "bench.local/measured:1".to_owned(),
        entrypoint: vec!["/measured".to_owned()],
        files: vec![(peer.program.clone(), "/measured".to_owned())],
        ca_bundle: true,
        ..ImageSpec::default()
    }
    .write(&out)?;
    let size = fs::metadata(&out)?.len();
    fs::remove_file(out)?;
    Ok(size)
}
