//! Pure. The webhook's own CA over time: which certificates are trusted at a moment, which signs, and when
//! the next is due.
//!
//! Nothing but what was made when is remembered, so controller and replicas, which only share a Secret
//! and a clock, come to the same answers by themselves, and need no other coordination:
//!
//! - an issuer lives for a while; at two thirds of it the next one is made;
//! - the new one is trusted at once, and signs after a lead, when every API server knows it;
//! - the old one is trusted to its end, and no certificate it signed lives longer.
//!
//! Must not know how certificates are made or where they are kept.

use std::fmt;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Of its life an issuer is trusted, but does not sign yet, one part in so many.
const LEAD_PART: u32 = 24;
/// Of its issuer's life a serving certificate lives one part in so many.
const SERVING_PART: u32 = 12;

/// How long the CA certificates that a file held before it changed stay trusted.
const TRUSTED_ON: Duration = Duration::from_mins(1);
/// How long a changed certificate of a file waits until it serves: the API server trusts its CA by then.
const SETTLE: Duration = Duration::from_secs(20);

/// From when to when something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// When it was made.
    pub made: Timestamp,
    /// When it ends.
    pub ends: Timestamp,
}

impl Life {
    /// Beginning now.
    pub fn of(now: Timestamp, length: Duration) -> Self {
        let ends = now.checked_add(length).unwrap_or(Timestamp::MAX);
        Self { made: now, ends }
    }

    fn length(&self) -> Duration {
        Duration::try_from(self.ends.duration_since(self.made)).unwrap_or_default()
    }

    fn has_ended(&self, now: Timestamp) -> bool {
        now >= self.ends
    }

    /// Whether two thirds are over. A beginning that lies in the future is no reason: clocks differ.
    pub fn is_to_be_renewed(&self, now: Timestamp) -> bool {
        let age = Duration::try_from(now.duration_since(self.made)).unwrap_or_default();
        age >= self.length() * 2 / 3
    }

    fn signs_from(&self) -> Timestamp {
        self.made
            .checked_add(self.length() / LEAD_PART)
            .unwrap_or(Timestamp::MAX)
    }
}

/// The CA certificates of a file that another program renews: those it holds and, for a while, those it held
/// before, since it is not known when replicas read what changes beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedFile {
    holds: String,
    held: Option<(String, Timestamp)>,
}

impl TrustedFile {
    /// Takes in what the file holds now, and says what is to be trusted, as PEM.
    pub fn read(&mut self, text: String, now: Timestamp) -> String {
        if text != self.holds {
            let before = std::mem::replace(&mut self.holds, text);
            self.held = (!before.is_empty()).then_some((before, now));
        }
        let is_recent = |(_, since): &(String, Timestamp)| !is_past(*since, TRUSTED_ON, now);
        match self.held.as_ref().filter(|held| is_recent(held)) {
            Some((held, _)) => format!("{}\n{held}", self.holds.trim_end()),
            None => self.holds.clone(),
        }
    }
}

/// Whether a certificate of a file that was first seen at a moment may serve in the place of another.
pub fn may_serve(first_seen: Timestamp, now: Timestamp) -> bool {
    is_past(first_seen, SETTLE, now)
}

fn is_past(since: Timestamp, length: Duration, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).unwrap_or_default() >= length
}

/// A certificate and its private key: a CA's, or one that it signed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certified {
    /// The certificate, as PEM.
    pub certificate: String,
    /// The private key, as PEM.
    pub key: String,
    /// From when to when it may sign, or serve.
    #[serde(flatten)]
    pub life: Life,
}

impl fmt::Debug for Certified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Certified")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

/// The webhook's CA: its issuers, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ca {
    issuers: Vec<Certified>,
}

impl Ca {
    /// Reads what [`Self::to_text`] wrote; `None` where it is anything else, or holds nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let read: Self = serde_json::from_str(text).ok()?;
        (!read.issuers.is_empty()).then_some(read)
    }

    /// As text to be kept. Holds private keys.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn living(&self, now: Timestamp) -> impl DoubleEndedIterator<Item = &Certified> {
        self.issuers
            .iter()
            .filter(move |issuer| !issuer.life.has_ended(now))
    }

    /// Whether another issuer must be made now.
    pub fn is_to_be_renewed(&self, now: Timestamp) -> bool {
        self.living(now)
            .next_back()
            .is_none_or(|newest| newest.life.is_to_be_renewed(now))
    }

    /// With one more, and without those that have ended.
    pub fn with(&self, issuer: Certified, now: Timestamp) -> Self {
        let mut issuers: Vec<Certified> = self.living(now).cloned().collect();
        issuers.push(issuer);
        Self { issuers }
    }

    /// The certificates to be trusted, as PEM; empty where there are none.
    pub fn bundle(&self, now: Timestamp) -> String {
        let certificates = self.living(now).map(|issuer| issuer.certificate.trim_end());
        certificates
            .flat_map(|certificate| [certificate, "\n"])
            .collect()
    }

    /// Who signs: the newest that has been trusted for long enough, or the oldest there is.
    pub fn signer(&self, now: Timestamp) -> Option<&Certified> {
        self.living(now)
            .rfind(|issuer| issuer.life.signs_from() <= now)
            .or_else(|| self.living(now).next())
    }
}

/// The life of a serving certificate signed now; no longer than its issuer's.
pub fn serving_life(issuer: &Certified, now: Timestamp) -> Life {
    let life = Life::of(now, issuer.life.length() / SERVING_PART);
    Life {
        ends: life.ends.min(issuer.life.ends),
        ..life
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_hours(365 * 24);

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * 86_400).unwrap()
    }

    fn issuer(name: &str, made: Timestamp) -> Certified {
        Certified {
            certificate: name.into(),
            key: "secret".into(),
            life: Life::of(made, YEAR),
        }
    }

    #[test]
    fn empty_ca_needs_an_issuer_that_signs_at_once() {
        let none = Ca::default();
        assert!(none.is_to_be_renewed(at(0)) && none.signer(at(0)).is_none());
        let one = none.with(issuer("a", at(0)), at(0));
        assert!(!one.is_to_be_renewed(at(0)));
        assert_eq!(one.signer(at(0)).unwrap().certificate, "a");
        assert_eq!(one.bundle(at(0)), "a\n");
    }

    #[test]
    fn next_issuer_is_trusted_before_it_signs() {
        let one = Ca::default().with(issuer("a", at(0)), at(0));
        assert!(!one.is_to_be_renewed(at(243)) && one.is_to_be_renewed(at(244)));
        let both = one.with(issuer("b", at(244)), at(244));
        assert!(!both.is_to_be_renewed(at(300)));
        let signer = |day| both.signer(at(day)).unwrap().certificate.clone();
        assert_eq!(both.bundle(at(244)), "a\nb\n");
        assert_eq!([signer(244), signer(259), signer(260)], ["a", "a", "b"]);
        assert_eq!(both.bundle(at(364)), "a\nb\n");
        assert_eq!(both.bundle(at(365)), "b\n");
    }

    /// Day by day over years, with a replica that looks a week late: whatever serves is trusted.
    #[test]
    fn served_certificate_is_trusted_on_every_day() {
        let mut ca = Ca::default();
        let mut seen = Ca::default();
        let mut serving: Option<(String, Life)> = None;
        for day in 0..1500 {
            let now = at(day);
            if ca.is_to_be_renewed(now) {
                ca = ca.with(issuer(&format!("issuer-{day}"), now), now);
            }
            if day % 7 == 0 {
                seen = ca.clone();
            }
            let signer = seen.signer(now).unwrap();
            let is_due = serving
                .as_ref()
                .is_none_or(|(by, life)| *by != signer.certificate || life.is_to_be_renewed(now));
            if is_due {
                serving = Some((signer.certificate.clone(), serving_life(signer, now)));
            }
            let (by, life) = serving.as_ref().unwrap();
            assert!(!life.has_ended(now), "day {day}");
            assert!(ca.bundle(now).contains(&format!("{by}\n")), "day {day}");
            assert!(ca.issuers.len() <= 2, "day {day}");
        }
    }

    #[test]
    fn ended_issuer_neither_signs_nor_is_trusted_after_a_long_sleep() {
        let one = Ca::default().with(issuer("a", at(0)), at(0));
        assert!(one.is_to_be_renewed(at(400)) && one.signer(at(400)).is_none());
        assert!(one.bundle(at(400)).is_empty());
        assert_eq!(
            one.with(issuer("b", at(400)), at(400)).bundle(at(400)),
            "b\n"
        );
    }

    #[test]
    fn slow_clock_neither_renews_nor_stops_signing() {
        let one = Ca::default().with(issuer("a", at(10)), at(10));
        assert!(!one.is_to_be_renewed(at(0)));
        assert!(one.signer(at(0)).is_some());
    }

    #[test]
    fn replaced_file_stays_trusted_until_every_replica_serves_the_new_one() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut file = TrustedFile::default();
        assert_eq!(file.read("a\n".into(), second(0)), "a\n");
        assert_eq!(file.read("a\n".into(), second(900)), "a\n");
        assert_eq!(file.read("b\n".into(), second(1000)), "b\na\n");
        assert!(!may_serve(second(1000), second(1019)) && may_serve(second(1000), second(1020)));
        assert_eq!(file.read("b\n".into(), second(1059)), "b\na\n");
        assert_eq!(file.read("b\n".into(), second(1060)), "b\n");
    }

    #[test]
    fn stored_ca_reads_back_and_debug_shows_no_key() {
        let one = Ca::default().with(issuer("a", at(0)), at(0));
        assert_eq!(Ca::parse(&one.to_text()), Some(one.clone()));
        assert!(!format!("{one:?}").contains("secret"));
        for other in ["", "{}", "{\"issuers\":[]}", "x"] {
            assert_eq!(Ca::parse(other), None, "{other}");
        }
    }
}
