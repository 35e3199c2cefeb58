//! Which spans were sent, acknowledged and received, by number. Must not know networks.

use crate::ids::SpanIds;
use crate::wire;

/// Counts per span number.
#[derive(Debug, Default)]
pub struct Ledger {
    spans: Vec<Counts>,
    /// Spans whose ids are none of ours: altered on the way.
    pub foreign: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    sent: u32,
    acked: u32,
    received: u32,
}

/// Sums over all spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Acknowledged to the client.
    pub acked: u64,
    /// Arrived upstream.
    pub received: u64,
    /// Acknowledged, and not upstream.
    pub missing: u64,
    /// Upstream more often than they were sent, not counting what a client sent again.
    pub duplicates: u64,
    /// Altered on the way.
    pub foreign: u64,
}

impl Ledger {
    fn at(&mut self, number: u64) -> Option<&mut Counts> {
        let index = usize::try_from(number).ok()?;
        // A number beyond this was never given out: the span was altered.
        if index >= 1 << 30 {
            return None;
        }
        if index >= self.spans.len() {
            self.spans.resize(index + 1, Counts::default());
        }
        self.spans.get_mut(index)
    }

    /// A client sends these spans for the first time.
    pub fn sent(&mut self, first: u64, count: u64) {
        for number in first..first + count {
            if let Some(counts) = self.at(number) {
                counts.sent += 1;
            }
        }
    }

    /// They were acknowledged.
    pub fn acked(&mut self, first: u64, count: u64) {
        for number in first..first + count {
            if let Some(counts) = self.at(number) {
                counts.acked += 1;
            }
        }
    }

    /// A request arrived upstream; the number of spans in it, none where it is not readable.
    pub fn received(&mut self, request: &[u8]) -> Option<u64> {
        let mut spans = 0;
        wire::each_span(request, |ids| {
            spans += 1;
            let number = number(request, ids);
            match number.and_then(|number| self.at(number)) {
                Some(counts) => counts.received += 1,
                None => self.foreign += 1,
            }
        })?;
        Some(spans)
    }

    /// The sums.
    pub fn balance(&self) -> Balance {
        let mut balance = Balance {
            foreign: self.foreign,
            ..Balance::default()
        };
        for counts in &self.spans {
            balance.acked += u64::from(counts.acked);
            balance.received += u64::from(counts.received);
            balance.missing += u64::from(counts.acked.saturating_sub(counts.received));
            balance.duplicates += u64::from(counts.received.saturating_sub(counts.sent));
        }
        balance
    }
}

/// The number that the ids of a span agree on.
fn number(request: &[u8], ids: wire::Ids) -> Option<u64> {
    let bytes = |at: usize| -> Option<[u8; 8]> { request.get(at..at + 8)?.try_into().ok() };
    let ids = SpanIds {
        trace: [bytes(ids.trace)?, bytes(ids.trace + 8)?],
        span: bytes(ids.span)?,
    };
    ids.number()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Encoding, Stock};

    #[test]
    fn missing_duplicate_and_altered_spans_are_distinguished() {
        let mut stock = Stock::numbered(2, Encoding::Identity).unwrap();
        let mut ledger = Ledger::default();
        let requests: Vec<_> = (0..3).map(|_| stock.draw().unwrap()).collect();
        for request in &requests {
            ledger.sent(request.first, request.spans);
            ledger.acked(request.first, request.spans);
        }
        let mut altered = requests[0].message().to_vec();
        assert_eq!(ledger.received(&altered), Some(2));
        assert_eq!(ledger.received(&requests[1].message()), Some(2));
        assert_eq!(ledger.received(&requests[1].message()), Some(2));
        let id = SpanIds::of(requests[0].first).span;
        let at = altered.windows(8).position(|bytes| bytes == id).unwrap();
        altered[at] ^= 1;
        assert_eq!(ledger.received(&altered), Some(2));
        assert_eq!(ledger.received(&altered[1..]), None);
        let expected = Balance {
            acked: 6,
            received: 7,
            missing: 2,
            duplicates: 3,
            foreign: 1,
        };
        assert_eq!(ledger.balance(), expected);
    }
}
