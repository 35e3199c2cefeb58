//! Quantities and durations: read as users write them, printed as Kubernetes prints them, compared by
//! amount.
//!
//! Printed quantities are canonical, so that a rendered object equals what the API server stores. Texts
//! from elsewhere may be spelled in another way: the API server rewrites `0.5` as `500m`.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Bytes in one mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// Billionths, the smallest unit of a quantity, in one.
const ONE: i128 = 1_000_000_000;

/// Suffixes of quantities, and what they stand for in billionths.
const SUFFIXES: [(&str, i128); 16] = [
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("", ONE),
    ("k", 1_000 * ONE),
    ("M", 1_000_000 * ONE),
    ("G", ONE * ONE),
    ("T", 1_000 * ONE * ONE),
    ("P", 1_000_000 * ONE * ONE),
    ("E", ONE * ONE * ONE),
    ("Ki", ONE << 10),
    ("Mi", ONE << 20),
    ("Gi", ONE << 30),
    ("Ti", ONE << 40),
    ("Pi", ONE << 50),
    ("Ei", ONE << 60),
];

/// Bytes of a size such as `64Mi`; `None` where it is malformed, not whole or does not fit.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    whole(text, ONE)
}

/// Thousandths of a processor of an amount such as `50m`, `1` or `0.5`; `None` as for [`bytes`].
pub(crate) fn millicores(text: &str) -> Option<u64> {
    whole(text, ONE / 1_000)
}

fn whole(text: &str, unit: i128) -> Option<u64> {
    let amount = billionths(text)?;
    let number = u64::try_from(amount / unit).ok()?;
    (amount % unit == 0).then_some(number)
}

/// A number of bytes in the form Kubernetes itself prints: the largest binary unit that divides it, or, where
/// none does, the largest decimal one.
pub(crate) fn memory(bytes: u64) -> Quantity {
    let units = [
        ("Ti", 1 << 40),
        ("Gi", 1 << 30),
        ("Mi", MIB),
        ("Ki", 1 << 10),
    ];
    Quantity(in_largest(&units, bytes).unwrap_or_else(|| decimal(bytes)))
}

/// Processor time in the form Kubernetes itself prints.
pub(crate) fn cpu(millicores: u64) -> Quantity {
    Quantity(if millicores.is_multiple_of(1000) {
        decimal(millicores / 1000)
    } else {
        format!("{millicores}m")
    })
}

/// A number with the largest decimal unit that divides it.
fn decimal(number: u64) -> String {
    let units = [
        ("T", 1_000_000_000_000),
        ("G", 1_000_000_000),
        ("M", 1_000_000),
        ("k", 1_000),
    ];
    in_largest(&units, number).unwrap_or_else(|| number.to_string())
}

fn in_largest(units: &[(&str, u64)], number: u64) -> Option<String> {
    let divides = |unit: u64| number >= unit && number.is_multiple_of(unit);
    let (suffix, unit) = units.iter().find(|(_, unit)| divides(*unit))?;
    Some(format!("{}{suffix}", number / unit))
}

/// No nodes at all, as a count or as a percentage.
pub(crate) fn no_nodes(value: &IntOrString) -> bool {
    matches!(value, IntOrString::Int(0)) || *value == IntOrString::String("0%".into())
}

/// How many nodes may be without a ready agent when a mode starts to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxUnready {
    /// A count.
    Nodes(usize),
    /// Percent of the nodes that should have an agent, rounded down.
    Percent(u8),
}

impl Default for MaxUnready {
    fn default() -> Self {
        Self::Nodes(0)
    }
}

impl MaxUnready {
    /// A count such as `3` or a percentage such as `5%`, as users write them; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            None => text.parse().ok().map(Self::Nodes),
            Some(percent) => {
                let percent = percent.parse().ok().filter(|percent| *percent <= 100);
                percent.map(Self::Percent)
            }
        }
    }

    /// The count, if `desired` nodes should have an agent.
    pub fn of(self, desired: usize) -> usize {
        match self {
            Self::Nodes(nodes) => nodes,
            Self::Percent(percent) => desired.saturating_mul(percent.into()) / 100,
        }
    }
}

/// A duration as Go writes it, such as `1m30s`; `None` where it is malformed, negative or too long.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let parsed: otelagent_api::KubeDuration = text.parse().ok()?;
    (!parsed.is_negative()).then(|| parsed.into())
}

/// A duration in whole milliseconds, as collector configuration takes it.
pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// Whether two quantities are the same amount. Texts that are no quantities must be equal as texts.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a == b || matches!((billionths(a), billionths(b)), (Some(a), Some(b)) if a == b)
}

/// The amount in billionths. `None` where it is finer or too large.
pub(crate) fn billionths(text: &str) -> Option<i128> {
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let (number, suffix) = text.split_at(text.rfind(is_digit)? + 1);
    let (_, unit) = SUFFIXES.iter().find(|(known, _)| *known == suffix)?;
    let (number, exponent): (_, i32) = match number.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let amount = digits.checked_mul(*unit)?;
    let power = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let scale = 10_i128.checked_pow(power.unsigned_abs())?;
    if power >= 0 {
        amount.checked_mul(scale)
    } else {
        (amount % scale == 0).then_some(amount / scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed_in_canonical_form() {
        for (text, canonical) in [
            ("64Mi", "64Mi"),
            ("1024Mi", "1Gi"),
            ("65536", "64Ki"),
            ("1000000", "1M"),
            ("123456k", "123456k"),
            ("1024Gi", "1Ti"),
            ("1000001", "1000001"),
        ] {
            assert_eq!(memory(bytes(text).unwrap()).0, canonical, "{text}");
        }
        assert_eq!(bytes("64MB"), None);
        assert_eq!(bytes("99999999999999999999"), None);
    }

    #[test]
    fn processor_time_is_read_and_printed_in_canonical_form() {
        for (text, canonical) in [
            ("50m", "50m"),
            ("0.5", "500m"),
            ("2", "2"),
            ("1000m", "1"),
            ("1000", "1k"),
        ] {
            assert_eq!(cpu(millicores(text).unwrap()).0, canonical, "{text}");
        }
        assert_eq!(millicores("0.12345"), None);
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("-1s"), None);
        assert_eq!(duration("soon"), None);
    }

    #[test]
    fn amounts_are_compared_and_not_spellings() {
        for (a, b) in [
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1e3", "1k"),
            ("1.5Gi", "1536Mi"),
            ("64Mi", "67108864"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("1M", "1Mi"),
            ("1", "1m"),
            ("x", "y"),
            ("", "0"),
            ("0.5", "0.6"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn number_of_nodes_is_a_count_or_a_percentage() {
        assert_eq!(MaxUnready::parse("3"), Some(MaxUnready::Nodes(3)));
        assert_eq!(MaxUnready::parse("5%"), Some(MaxUnready::Percent(5)));
        for wrong in ["", "-1", "101%", "5 %", "%", "a few"] {
            assert_eq!(MaxUnready::parse(wrong), None, "{wrong}");
        }
    }
}
