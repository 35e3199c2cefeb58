//! Numbers of spans as ids that look random, as real ones do: a counter would compress far better. Must not know
//! requests.

use std::sync::LazyLock;

/// Differs between processes, so that spans of another one are not taken for ours.
static KEY: LazyLock<u64> = LazyLock::new(|| scatter(u64::from(std::process::id())));

/// Distinguishes the halves of a trace id.
const LOW_HALF: u64 = 0x5bd1_e995_97f4_a7c1;

/// The ids of one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds {
    /// Both halves.
    pub trace: [[u8; 8]; 2],
    /// The whole.
    pub span: [u8; 8],
}

impl SpanIds {
    /// The ids of the span with this number.
    pub fn of(number: u64) -> Self {
        let half = |key: u64| scatter(number ^ key).to_le_bytes();
        Self {
            trace: [half(!*KEY), half(*KEY ^ LOW_HALF)],
            span: half(*KEY),
        }
    }

    /// The number that all parts of the ids agree on; none if they were altered or are of another process.
    pub fn number(&self) -> Option<u64> {
        let number = gather(u64::from_le_bytes(self.span)) ^ *KEY;
        (Self::of(number) == *self).then_some(number)
    }
}

/// A permutation of all 64-bit numbers: the finalizer of `SplitMix64` (Steele, Lea and Flood, 2014).
fn scatter(mut number: u64) -> u64 {
    number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The number that [`scatter`] made this of.
fn gather(mut scattered: u64) -> u64 {
    scattered = unshift(scattered, 31).wrapping_mul(inverse(0x94d0_49bb_1331_11eb));
    scattered = unshift(scattered, 27).wrapping_mul(inverse(0xbf58_476d_1ce4_e5b9));
    unshift(scattered, 30).wrapping_sub(0x9e37_79b9_7f4a_7c15)
}

/// Undoes `x ^ (x >> by)`, for shifts of more than 21 bits.
const fn unshift(number: u64, by: u32) -> u64 {
    number ^ (number >> by) ^ (number >> (2 * by))
}

/// The inverse of an odd number modulo 2^64, by Newton's method.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_give_their_number_back_unless_a_bit_is_altered() {
        for number in [1, 2, 40_000, 1 << 29, u64::MAX] {
            let ids = SpanIds::of(number);
            assert_eq!(ids.number(), Some(number));
            let mut altered = ids;
            altered.trace[1][3] ^= 1;
            assert_eq!(altered.number(), None);
            altered = ids;
            altered.span[7] ^= 0x80;
            assert_eq!(altered.number(), None);
        }
    }

    #[test]
    fn ids_of_neighbours_share_nothing() {
        let (one, two) = (SpanIds::of(1), SpanIds::of(2));
        let same = one.span.iter().zip(two.span).filter(|(a, b)| **a == *b);
        assert!(same.count() < 4, "{one:?} {two:?}");
    }
}
