//! A set of sequence numbers that counts how often it was given a number it already had.
//!
//! Knows numbers only, not what they count.

/// Numbers from here on are not kept: two mebibytes of bits per set are enough for any test.
pub(crate) const LIMIT: u64 = 1 << 24;

/// Which numbers were seen.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    bits: Vec<u64>,
    distinct: u64,
    duplicates: u64,
    /// One more than the highest number seen.
    end: u64,
}

impl Numbers {
    /// Notes a number; false where it is beyond the limit and so not kept.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        if number >= LIMIT {
            return false;
        }
        let Ok(word) = usize::try_from(number / 64) else {
            return false;
        };
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        if self.bits[word] & bit == 0 {
            self.bits[word] |= bit;
            self.distinct += 1;
        } else {
            self.duplicates += 1;
        }
        self.end = self.end.max(number + 1);
        true
    }

    /// How many different numbers were seen.
    pub(crate) fn distinct(&self) -> u64 {
        self.distinct
    }

    /// How often a number came that had been there before.
    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// One more than the highest number seen; 0 where none was.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// How many numbers below the highest have not been seen.
    pub(crate) fn missing(&self) -> u64 {
        self.end - self.distinct
    }

    /// The lowest missing numbers below the highest, at most `count` of them.
    pub(crate) fn first_missing(&self, count: usize) -> Vec<u64> {
        let unseen = |number: &u64| {
            let word = usize::try_from(number / 64).ok();
            let bits = word.and_then(|word| self.bits.get(word)).copied();
            bits.unwrap_or_default() & (1 << (number % 64)) == 0
        };
        (0..self.end).filter(unseen).take(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_there_twice_and_missing() {
        let mut numbers = Numbers::default();
        for number in [0, 1, 3, 3, 64, 3] {
            assert!(numbers.insert(number));
        }
        assert_eq!(numbers.distinct(), 4);
        assert_eq!(numbers.duplicates(), 2);
        assert_eq!(numbers.end(), 65);
        assert_eq!(numbers.missing(), 61);
        assert_eq!(numbers.first_missing(3), [2, 4, 5]);
        assert_eq!(numbers.first_missing(100).len(), 61);
    }

    #[test]
    fn late_number_closes_its_gap() {
        let mut numbers = Numbers::default();
        numbers.insert(1);
        assert_eq!((numbers.missing(), numbers.first_missing(9)), (1, vec![0]));
        numbers.insert(0);
        assert_eq!((numbers.missing(), numbers.first_missing(9)), (0, vec![]));
    }

    #[test]
    fn beyond_the_limit_nothing_is_kept() {
        let mut numbers = Numbers::default();
        assert!(!numbers.insert(LIMIT));
        assert!(!numbers.insert(u64::MAX));
        assert_eq!((numbers.distinct(), numbers.end()), (0, 0));
        assert!(numbers.insert(LIMIT - 1));
        assert_eq!(numbers.end(), LIMIT);
    }
}
