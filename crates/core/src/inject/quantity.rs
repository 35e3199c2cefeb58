//! Kubernetes quantities as amounts, to compare them: the API server rewrites `0.5` as `500m`.

/// Exact comparison; texts that are no quantities are equal only as texts.
pub(super) fn same(a: &str, b: &str) -> bool {
    a == b || matches!((billionths(a), billionths(b)), (Some(a), Some(b)) if a == b)
}

/// The amount in billionths, the smallest unit of a quantity. `None` where it is finer or too large.
pub(super) fn billionths(text: &str) -> Option<i128> {
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
