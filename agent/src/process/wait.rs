//! `otelagent-agent wait`: keeps a program from starting before an agent takes its telemetry, for a limited time.
//!
//! Whatever happens, the wait ends well: telemetry that is missed is better than a program that does not start.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Address, address, duration};
use crate::export::acknowledges;
use crate::logging::causes;

/// The time limit of one attempt: enough for the first packet to be sent twice.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The first pause between two attempts, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];

/// Where an agent is expected, and for how long.
#[derive(Debug, PartialEq, Eq)]
struct Wait {
    limit: Duration,
    address: Address,
}

/// How a wait has ended.
#[derive(Debug)]
enum Waited {
    Acknowledged(Address, Duration),
    InVain(Wait, String),
    Interrupted,
    Impossible(String),
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledged(address, after) => {
                write!(
                    f,
                    "an agent takes telemetry at {address}, after {after:.0?}"
                )
            }
            Self::InVain(Wait { limit, address }, why) => write!(
                f,
                "no agent takes telemetry at {address} within {limit:?}; going on without one: {why}"
            ),
            Self::Interrupted => f.write_str("ended by a signal before an agent was there"),
            Self::Impossible(why) => write!(f, "not waiting for an agent: {why}"),
        }
    }
}

/// Waits as the arguments say, and says in one line how it ended.
pub(super) fn wait(args: &[String]) -> impl fmt::Display {
    parse(args).and_then(run).unwrap_or_else(Waited::Impossible)
}

/// Reads a duration and a URL.
fn parse(args: &[String]) -> Result<Wait, String> {
    let [limit, url] = args else {
        return Err("it takes a duration and a URL, such as 60s http://127.0.0.1:4317".into());
    };
    let place = url.strip_prefix("http://");
    let place = place.ok_or_else(|| format!("`{url}` does not begin with http://"))?;
    Ok(Wait {
        limit: duration(limit)?,
        address: address(place.trim_end_matches('/'))?,
    })
}

fn run(wait: Wait) -> Result<Waited, String> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let waited = runtime.block_on(until_there(wait));
    // A resolver that does not answer must not delay the end.
    runtime.shutdown_background();
    waited.map_err(|error| error.to_string())
}

async fn until_there(wait: Wait) -> io::Result<Waited> {
    let begin = Instant::now();
    // The first process of a container ends on no signal that it does not handle.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut why = "there was no answer".to_owned();
    let there = timeout(wait.limit, asked_again(&wait.address, &mut why));
    let there = tokio::select! {
        there = there => there,
        _ = terminate.recv() => return Ok(Waited::Interrupted),
    };
    Ok(match there {
        Ok(()) => Waited::Acknowledged(wait.address, begin.elapsed()),
        Err(_) => Waited::InVain(wait, why),
    })
}

/// Ends when telemetry is taken; until then notes why it is not.
async fn asked_again(address: &Address, why: &mut String) {
    let [mut pause, longest] = PAUSES;
    loop {
        match timeout(ATTEMPT, acknowledges(address)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => *why = causes(&error),
            Err(_) => *why = format!("no answer within {ATTEMPT:?}"),
        }
        sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Wait, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        parse(&args)
    }

    #[test]
    fn arguments_are_a_duration_and_a_url() {
        let there = |host: &str| {
            Ok(Wait {
                limit: Duration::from_mins(1),
                address: Address {
                    host: host.into(),
                    port: 4317,
                },
            })
        };
        assert_eq!(read(&["60s", "http://192.0.2.1:4317"]), there("192.0.2.1"));
        assert_eq!(
            read(&["1m", "http://[2001:db8::1]:4317"]),
            there("2001:db8::1")
        );
        assert_eq!(
            read(&["60s", "http://node.observability.svc:4317/"]),
            there("node.observability.svc")
        );
    }

    #[test]
    fn arguments_that_cannot_be_meant_are_refused_with_what_is_wrong() {
        for (args, wrong) in [
            (&[][..], "takes a duration and a URL"),
            (&["60s"][..], "takes a duration and a URL"),
            (
                &["60s", "http://a:1", "more"][..],
                "takes a duration and a URL",
            ),
            (&["soon", "http://a:1"][..], "`soon` is not a duration"),
            (&["60s", "https://a:1"][..], "does not begin with http://"),
            (
                &["60s", "http://$(OTELAGENT_HOST_IP)"][..],
                "is not an address",
            ),
            (&["60s", "http://a:b"][..], "is not a port"),
        ] {
            let found = read(args).unwrap_err();
            assert!(found.contains(wrong), "{args:?}: {found}");
        }
    }
}
