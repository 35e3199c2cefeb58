//! Waiting for something to come about, and saying what was there instead when it does not.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// What one look found.
#[derive(Debug)]
pub enum Seen<T> {
    /// What was waited for.
    Done(T),
    /// Something else; in words.
    NotYet(String),
}

impl Seen<()> {
    /// Done if `done`; otherwise this was seen.
    pub fn check(done: bool, seen: impl Into<String>) -> Self {
        if done {
            Self::Done(())
        } else {
            Self::NotYet(seen.into())
        }
    }
}

/// Looks until it is done. An error is something seen too: while a cluster changes, not every question is
/// answered.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let seen = match look() {
            Ok(Seen::Done(found)) => return Ok(found),
            Ok(Seen::NotYet(seen)) => seen,
            Err(error) => error.to_string(),
        };
        if begun.elapsed() >= patience {
            return Err(Error::Timeout {
                what: what.to_owned(),
                waited: patience,
                seen,
            });
        }
        sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_says_what_was_seen_last() {
        let mut looks = 0;
        let error = until::<()>("the moon", Duration::from_millis(300), || {
            looks += 1;
            Ok(Seen::NotYet(format!("cloud {looks}")))
        })
        .unwrap_err();
        assert!(looks > 1);
        assert_eq!(error.reason(), "Timeout");
        assert_eq!(
            error.to_string(),
            format!("the moon did not come about in 0 s; last seen: cloud {looks}")
        );
    }

    #[test]
    fn error_before_success_does_not_end_the_wait() {
        let mut looks = 0;
        let found = until("it", Duration::from_secs(5), || {
            looks += 1;
            if looks < 2 {
                return Err(Error::Io {
                    doing: "look".to_owned(),
                    source: std::io::ErrorKind::TimedOut.into(),
                });
            }
            Ok(Seen::Done(looks))
        });
        assert_eq!(found.unwrap(), 2);
    }
}
