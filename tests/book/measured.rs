//! The measured figures in the product are those of the documentation.

use otelagent_core::measured::{
    BUSY_MEMORY, IDLE_MEMORY, MEASUREMENTS, SPANS_PER_CPU_SECOND, SWITCHES,
};
use otelagent_core::mode_option::ModeOption;
use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;

use super::rows;

const SOURCE: &str = "crates/core/src/measured.rs";
const BEGIN: &str = "    // measured: written by `make reference`, from here\n";
const END: &str = "    // measured: to here";

#[test]
fn measured_losses_are_those_of_the_documentation() {
    let source = text(SOURCE);
    let (before, rest) = source.split_once(BEGIN).expect("the marker");
    let (written, after) = rest.split_once(END).expect("the marker");
    let made = table();
    assert_eq!(made.lines().count(), MEASUREMENTS.len(), "{SWITCHES}");
    if std::env::var_os("OTELAGENT_WRITE_REFERENCE").is_some() {
        let source = format!("{before}{BEGIN}{made}{END}{after}");
        std::fs::write(repository().join(SOURCE), source).unwrap();
        return;
    }
    assert!(
        written == made,
        "{SOURCE} is not up to date: run `make reference`"
    );
}

/// The rows of both tables as the source has them.
fn table() -> String {
    let rows = rows(SWITCHES);
    let rows = rows.iter().filter_map(|cells| {
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        let from = option(cells[0])?;
        match cells[1..] {
            [to, sent, lost, _, _, _, rust, go, _, _] => {
                Some((from, option(to)?, sent, lost, [rust, go]))
            }
            [sent, lost, _, _, _, rust, go, _, _] => Some((from, from, sent, lost, [rust, go])),
            _ => None,
        }
    });
    let rows = rows.map(|(from, to, sent, lost, gaps)| {
        let gap = gaps.map(milliseconds).into_iter().max().unwrap();
        let [sent, lost] = [sent, lost].map(|figure| grouped(figure.parse().unwrap()));
        format!("    row({from:?}, {to:?}, {sent}, {lost}, {gap}),\n")
    });
    rows.collect()
}

fn option(name: &str) -> Option<ModeOption> {
    let mut all = ModeOption::ALL.into_iter();
    all.find(|option| option.to_string() == name)
}

/// Of a time such as `0.6 s`.
fn milliseconds(time: &str) -> u32 {
    let (seconds, tenths) = time.trim_end_matches(" s").split_once('.').unwrap();
    seconds.parse::<u32>().unwrap() * 1000 + tenths.parse::<u32>().unwrap() * 100
}

/// A number as the source has it.
fn grouped(number: u32) -> String {
    if number < 10_000 {
        return number.to_string();
    }
    format!("{}_{:03}", number / 1000, number % 1000)
}

#[test]
fn measured_costs_are_those_of_the_documentation() {
    let mib = |bytes: u64| {
        let tenths = (bytes * 10).div_ceil(1 << 20);
        format!("{}.{} MiB", tenths / 10, tenths % 10)
    };
    let (thousands, ones) = (SPANS_PER_CPU_SECOND / 1000, SPANS_PER_CPU_SECOND % 1000);
    for (row, figure) in [
        ("RSS, idle", mib(IDLE_MEMORY)),
        ("peak RSS, 10,000 spans/s", mib(BUSY_MEMORY)),
        (
            "spans per CPU second: gRPC, gzip in, gzip out, 10 spans a request",
            format!("{thousands},{ones:03}"),
        ),
    ] {
        let rows = rows("docs/benchmarks.md");
        let found = rows.iter().find(|cells| cells[0] == row);
        let found = found.unwrap_or_else(|| panic!("no row {row}"));
        assert_eq!(found[2], figure, "{row}");
    }
}
