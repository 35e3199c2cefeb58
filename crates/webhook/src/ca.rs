//! The webhook's own CA over time: which certificates are trusted at a moment, which one signs, and when
//! the next is due.
//!
//! The Secret records only what was created when. Controller and replicas decide from the Secret and the
//! clock alone, so they need no other coordination:
//!
//! - after two thirds of an issuer's life, the controller creates the next one;
//! - the new one is trusted immediately, and signs only once every API server knows it;
//! - the old one is trusted until it expires, and no certificate that it signed lives longer.
//!
//! Does not know how certificates are created or stored.

use std::fmt;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// For this fraction of its life, a new issuer is trusted but does not sign yet.
const LEAD_PART: u32 = 24;
/// A serving certificate lives for this fraction of its issuer's life.
const SERVING_PART: u32 = 12;

/// How long the webhook waits before it serves a changed certificate: by then the API server trusts its CA. A kubelet
/// brings a changed Secret to each pod within about two minutes, to the operator's perhaps last.
pub const SETTLE: Duration = Duration::from_mins(3);
/// How long the previous CA certificates of a changed file stay trusted: until the last replica has seen its own change
/// and waited.
pub const TRUSTED_ON: Duration = Duration::from_mins(10);

/// A period of validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// Its beginning.
    pub made: Timestamp,
    /// Its end.
    pub ends: Timestamp,
}

impl Life {
    /// A period that begins now.
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

    /// Whether two thirds are over. A beginning in the future does not matter, because clocks differ.
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

/// The CA certificates of a file that another program renews: the current ones and, for a while, the
/// previous ones, because replicas may read their changed certificates later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedFile {
    holds: String,
    held: Option<(String, Timestamp)>,
}

impl TrustedFile {
    /// A file that held these certificates when it was last read, by a process before this one.
    pub fn that_held(text: String) -> Self {
        Self {
            holds: text,
            held: None,
        }
    }

    /// Takes the current content of the file, and returns all trusted certificates as PEM: the previous ones, too,
    /// for a time such as [`TRUSTED_ON`].
    pub fn read(&mut self, text: String, now: Timestamp, trusted_on: Duration) -> String {
        if text != self.holds {
            let before = std::mem::replace(&mut self.holds, text);
            self.held = (!before.is_empty()).then_some((before, now));
        }
        let is_recent = |(_, since): &(String, Timestamp)| !is_past(*since, trusted_on, now);
        match self.held.as_ref().filter(|held| is_recent(held)) {
            Some((held, _)) => format!("{}\n{held}", self.holds.trim_end()),
            None => self.holds.clone(),
        }
    }
}

/// Whether a certificate from a file, first seen at a moment, may replace another one now: after a time such as
/// [`SETTLE`].
pub fn may_serve(first_seen: Timestamp, now: Timestamp, settle: Duration) -> bool {
    is_past(first_seen, settle, now)
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
    /// When it may sign, or serve.
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
    /// Reads the text of [`Self::to_text`]; `None` for anything else, and for a CA without issuers.
    pub fn parse(text: &str) -> Option<Self> {
        let read: Self = serde_json::from_str(text).ok()?;
        (!read.issuers.is_empty()).then_some(read)
    }

    /// The text to store, with private keys.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn living(&self, now: Timestamp) -> impl DoubleEndedIterator<Item = &Certified> {
        self.issuers
            .iter()
            .filter(move |issuer| !issuer.life.has_ended(now))
    }

    /// Whether the next issuer is due.
    pub fn is_to_be_renewed(&self, now: Timestamp) -> bool {
        self.living(now)
            .next_back()
            .is_none_or(|newest| newest.life.is_to_be_renewed(now))
    }

    /// Adds an issuer and drops expired ones.
    pub fn with(&self, issuer: Certified, now: Timestamp) -> Self {
        let mut issuers: Vec<Certified> = self.living(now).cloned().collect();
        issuers.push(issuer);
        Self { issuers }
    }

    /// The trusted certificates, as PEM; empty if there are none.
    pub fn bundle(&self, now: Timestamp) -> String {
        let certificates = self.living(now).map(|issuer| issuer.certificate.trim_end());
        certificates
            .flat_map(|certificate| [certificate, "\n"])
            .collect()
    }

    /// The issuer that signs: the newest that has been trusted for long enough, or else the oldest.
    pub fn signer(&self, now: Timestamp) -> Option<&Certified> {
        self.living(now)
            .rfind(|issuer| issuer.life.signs_from() <= now)
            .or_else(|| self.living(now).next())
    }
}

/// The life of a serving certificate that is signed now; it ends no later than its issuer's.
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

    /// Day by day over years, with a replica that reads a week late: every serving certificate is trusted.
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
        let mut read = |text: &str, at| file.read(text.into(), second(at), TRUSTED_ON);
        assert_eq!(read("a\n", 0), "a\n");
        assert_eq!(read("a\n", 900), "a\n");
        assert_eq!(read("b\n", 1000), "b\na\n");
        assert_eq!(read("b\n", 1599), "b\na\n");
        assert_eq!(read("b\n", 1600), "b\n");
        let may_serve = |at| may_serve(second(1000), second(at), SETTLE);
        assert!(!may_serve(1179) && may_serve(1180));
    }

    #[test]
    fn what_was_trusted_before_a_restart_stays_trusted() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut file = TrustedFile::that_held("a\n".into());
        let mut read = |at| file.read("b\n".into(), second(at), TRUSTED_ON);
        assert_eq!([read(0), read(599), read(600)], ["b\na\n", "b\na\n", "b\n"]);
    }

    #[test]
    fn every_replica_serves_a_certificate_that_is_trusted_however_late_a_kubelet_is() {
        let kubelet = Duration::from_mins(2);
        // The webhook's pod sees the change first, the operator's last.
        assert!(kubelet < SETTLE);
        // The operator's pod sees the change first, a replica last.
        assert!(kubelet + SETTLE < TRUSTED_ON);
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
