//! The values of numbers: integers exactly, others as the nearest double.

use super::error::{Error, excerpt};
use super::reader::number_length;

/// An integer as `T`.
pub(super) fn integer<T: TryFrom<i128>>(text: &[u8]) -> Result<T, Error> {
    let value = whole(text)
        .ok_or_else(|| Error::fault(format!("`{}` is not a whole number", excerpt(text))))?;
    T::try_from(value).map_err(|_| {
        let bits = 8 * size_of::<T>();
        Error::fault(format!("`{}` does not fit into {bits} bits", excerpt(text)))
    })
}

/// An integer; one beyond every integer type becomes `i128::MAX` or `-i128::MAX`.
fn whole(text: &[u8]) -> Option<i128> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // Nearly all numbers are only digits.
    let magnitude = if (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) {
        let value = digits
            .iter()
            .fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
        i128::from(value)
    } else {
        decimal(text, digits)?
    };
    Some(if is_negative { -magnitude } else { magnitude })
}

/// The same for a number with a fraction or an exponent, without rounding: 1.5e3 is whole, 1.5 is not.
fn decimal(text: &[u8], unsigned: &[u8]) -> Option<i128> {
    if number_length(text) != Some(text.len()) {
        return None;
    }
    let at = unsigned.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = unsigned.split_at_checked(at.unwrap_or(unsigned.len()))?;
    let point = mantissa.iter().position(|&byte| byte == b'.');
    let (before, after) = mantissa.split_at_checked(point.unwrap_or(mantissa.len()))?;
    let digits = || {
        before
            .iter()
            .chain(after)
            .filter(|byte| byte.is_ascii_digit())
    };
    let zeros = digits().rev().take_while(|&&digit| digit == b'0').count();
    let significant = digits().count() - zeros;
    if significant == 0 {
        return Some(0);
    }
    // The number of zeros after the significant digits.
    let power = exponent_of(exponent)
        .saturating_add(i64::try_from(zeros).ok()?)
        .saturating_sub(i64::try_from(after.len().saturating_sub(1)).ok()?);
    let power = u32::try_from(power.min(1000)).ok()?;
    let mut value = Some(0_i128);
    for digit in digits().take(significant) {
        value = value
            .and_then(|value| value.checked_mul(10))
            .and_then(|value| value.checked_add(i128::from(digit - b'0')));
    }
    let scale = 10_i128.checked_pow(power);
    let scaled = value
        .zip(scale)
        .and_then(|(value, scale)| value.checked_mul(scale));
    Some(scaled.unwrap_or(i128::MAX))
}

/// The number after an `e`, saturated.
fn exponent_of(text: &[u8]) -> i64 {
    let digits = text.get(1..).unwrap_or_default();
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    match digits.parse::<i64>() {
        Ok(value) => value,
        Err(_) if digits.is_empty() => 0,
        Err(_) if digits.starts_with('-') => i64::MIN,
        Err(_) => i64::MAX,
    }
}

/// A double, also by the names of values that JSON numbers cannot express.
pub(super) fn double(text: &[u8]) -> Result<f64, Error> {
    match text {
        b"NaN" => return Ok(f64::NAN),
        b"Infinity" => return Ok(f64::INFINITY),
        b"-Infinity" => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    let value = (number_length(text) == Some(text.len()))
        .then(|| std::str::from_utf8(text).ok()?.parse::<f64>().ok())
        .flatten()
        .ok_or_else(|| Error::fault(format!("`{}` is not a number", excerpt(text))))?;
    if value.is_infinite() {
        let text = excerpt(text);
        return Err(Error::fault(format!("`{text}` does not fit into a double")));
    }
    Ok(value)
}
