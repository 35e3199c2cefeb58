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

/// Bytes of a size such as `64Mi`; `None` where it is malformed or does not fit.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => MIB,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A number of bytes in the form Kubernetes itself prints: the largest binary unit that divides it, or, where
/// none does, the largest decimal one.
pub(crate) fn memory(bytes: u64) -> Quantity {
    let binary = [
        ("Ti", 1 << 40),
        ("Gi", 1 << 30),
        ("Mi", MIB),
        ("Ki", 1 << 10),
    ];
    let unit = binary
        .into_iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    Quantity(unit.map_or_else(
        || decimal(bytes),
        |(unit, factor)| format!("{}{unit}", bytes / factor),
    ))
}

/// A number with the largest decimal unit that divides it.
fn decimal(number: u64) -> String {
    let units = [
        ("T", 1_000_000_000_000),
        ("G", 1_000_000_000),
        ("M", 1_000_000),
        ("k", 1_000),
    ];
    units
        .into_iter()
        .find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor))
        .map_or_else(
            || number.to_string(),
            |(unit, factor)| format!("{}{unit}", number / factor),
        )
}

/// No nodes at all, as a count or as a percentage.
pub(crate) fn no_nodes(value: &IntOrString) -> bool {
    matches!(value, IntOrString::Int(0)) || *value == IntOrString::String("0%".into())
}

/// Thousandths of a processor of an amount such as `50m`, `1` or `0.5`.
pub(crate) fn millicores(text: &str) -> Option<u64> {
    if let Some(milli) = text.strip_suffix('m') {
        return milli.parse().ok();
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(fraction)
}

/// Processor time in the form Kubernetes itself prints.
pub(crate) fn cpu(millicores: u64) -> Quantity {
    Quantity(if millicores.is_multiple_of(1000) {
        decimal(millicores / 1000)
    } else {
        format!("{millicores}m")
    })
}

/// A duration as Go writes it, such as `1m30s`; `None` where it is malformed, negative or too long.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let parsed: otelagent_api::KubeDuration = text.parse().ok()?;
    if parsed.is_negative() {
        None
    } else {
        Some(parsed.into())
    }
}

/// A duration in whole milliseconds, as collector configuration takes it.
pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// Whether two quantities are the same amount. Texts that are no quantities must be equal as texts.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a == b || matches!((billionths(a), billionths(b)), (Some(a), Some(b)) if a == b)
}

/// The amount in billionths, the smallest unit of a quantity. `None` where it is finer or too large.
pub(crate) fn billionths(text: &str) -> Option<i128> {
    let end = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.')
        .map(|last| last + 1)?;
    let (number, suffix) = text.split_at(end);
    let (number, exponent) = match number.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse().ok()?),
        None => (number, 0),
    };
    let (negative, number) = number
        .strip_prefix('-')
        .map_or((false, number), |number| (true, number));
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (factor, power): (i128, i32) = match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => return None,
    };
    let power = power + 9 + exponent - i32::try_from(fraction.len()).ok()?;
    let scale = 10_i128.checked_pow(power.unsigned_abs())?;
    let amount = digits.checked_mul(factor)?;
    let amount = if power >= 0 {
        amount.checked_mul(scale)?
    } else {
        (amount % scale == 0).then_some(amount / scale)?
    };
    Some(if negative { -amount } else { amount })
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
}
