//! The load generator: saturating, at a rate, or as SDKs send. Everything runs on one thread; nothing
//! here is shared. Must not know what is measured or why.

mod client;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, spawn_local, yield_now};
use tokio::time::sleep;

pub use client::{Link, Reply, Target, Transport};

use crate::Outcome;
use crate::ledger::Ledger;
use crate::telemetry::{EncodedRequest, Stock};

/// A sender that is refused waits this long when it saturates.
const BREATH: Duration = Duration::from_millis(1);

/// Waits of clients that behave as SDKs do, only faster.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// What happened to everything sent.
#[derive(Debug, Default)]
pub struct Tally {
    /// By span.
    pub ledger: Ledger,
    /// Requests that were taken.
    pub acked: u64,
    /// Spans in them.
    pub acked_spans: u64,
    /// Requests whose answer asked for a retry.
    pub refused: u64,
    /// Requests without an answer.
    pub unanswered: u64,
    /// Requests that were refused for good.
    pub permanent: u64,
    /// Requests that were due while too many were under way.
    pub skipped: u64,
    /// From when a request was due until it was acknowledged, in units of 100 ns, in no order.
    pub latencies: Vec<u32>,
    /// What the last answer that was no acknowledgement said.
    pub complaint: Option<String>,
}

impl Tally {
    fn note(&mut self, request: &EncodedRequest, reply: Reply) {
        match reply {
            Reply::Acked => {
                self.acked += 1;
                self.acked_spans += request.spans;
                self.ledger.acked(request.first, request.spans);
            }
            Reply::Refused(why) => {
                self.refused += 1;
                self.complaint = Some(why);
            }
            Reply::Unanswered(why) => {
                self.unanswered += 1;
                self.complaint = Some(why);
            }
            Reply::Permanent(why) => {
                self.permanent += 1;
                self.complaint = Some(why);
            }
        }
    }

    /// The latency that `percent` of the acknowledged requests did not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a position in a list of millions at most"
        )]
        let at = (sorted.len() as f64 * percent / 100.0) as usize;
        let units = sorted.get(at.min(sorted.len().saturating_sub(1)));
        Duration::from_nanos(u64::from(units.copied().unwrap_or_default()) * 100)
    }
}

/// What all tasks of one load share.
struct Shared {
    stock: RefCell<Stock>,
    tally: RefCell<Tally>,
    stop: Cell<bool>,
}

impl Shared {
    fn new(stock: Stock) -> Rc<Self> {
        Rc::new(Self {
            stock: RefCell::new(stock),
            tally: RefCell::default(),
            stop: Cell::new(false),
        })
    }

    fn next(&self) -> Outcome<EncodedRequest> {
        let request = self.stock.borrow_mut().draw()?;
        let mut tally = self.tally.borrow_mut();
        tally.ledger.sent(request.first, request.spans);
        Ok(request)
    }

    fn note(&self, request: &EncodedRequest, reply: Reply) {
        self.tally.borrow_mut().note(request, reply);
    }

    /// The tally and the stock, to go on with.
    fn end(self: Rc<Self>) -> Outcome<(Tally, Stock)> {
        let shared = Rc::into_inner(self).ok_or("a sender is still at work")?;
        Ok((shared.tally.into_inner(), shared.stock.into_inner()))
    }
}

fn links(target: Target, count: usize) -> Outcome<Vec<Rc<Link>>> {
    (0..count)
        .map(|_| Ok(Rc::new(Link::new(target)?)))
        .collect()
}

/// Keeps `streams` requests in flight on each of `connections` connections for a while.
pub async fn saturate(
    target: Target,
    stock: Stock,
    (connections, streams): (usize, usize),
    duration: Duration,
) -> Outcome<(Tally, Stock)> {
    let shared = Shared::new(stock);
    let end = Instant::now() + duration;
    let mut senders = JoinSet::new();
    for link in links(target, connections)? {
        for _ in 0..streams {
            let (link, shared) = (Rc::clone(&link), Rc::clone(&shared));
            senders.spawn_local(async move {
                while Instant::now() < end {
                    let request = shared.next()?;
                    let reply = link.send(&request).await;
                    let taken = reply == Reply::Acked;
                    shared.note(&request, reply);
                    if !taken {
                        sleep(BREATH).await;
                    }
                }
                Outcome::Ok(())
            });
        }
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    shared.end()
}

/// An open loop: requests leave when they are due, whether or not earlier ones were answered.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Requests per second.
    pub per_second: f64,
    /// Connections they are spread over.
    pub connections: usize,
    /// Requests that may be under way; more are skipped.
    pub at_most: usize,
    /// Whether to spin until a request is due. Sleeping is a millisecond off.
    pub precise: bool,
    /// Latencies count from here on.
    pub warm_up: Duration,
}

/// Sends at a rate for a while. Nothing is sent again.
pub async fn at_rate(
    target: Target,
    stock: Stock,
    rate: Rate,
    duration: Duration,
) -> Outcome<(Tally, Stock)> {
    let shared = Shared::new(stock);
    let links = links(target, rate.connections)?;
    let under_way = Rc::new(Cell::new(0));
    let interval = Duration::from_secs_f64(1.0 / rate.per_second);
    let begun = Instant::now();
    let mut due = begun;
    for link in links.iter().cycle() {
        while Instant::now() < due {
            if rate.precise {
                yield_now().await;
            } else {
                sleep(due - Instant::now()).await;
            }
        }
        if due >= begun + duration {
            break;
        }
        if under_way.get() >= rate.at_most {
            shared.tally.borrow_mut().skipped += 1;
            yield_now().await;
        } else {
            under_way.set(under_way.get() + 1);
            let (link, shared) = (Rc::clone(link), Rc::clone(&shared));
            let under_way = Rc::clone(&under_way);
            let scheduled = due;
            let request = shared.next()?;
            spawn_local(async move {
                let reply = link.send(&request).await;
                if reply == Reply::Acked && scheduled >= begun + rate.warm_up {
                    let units = scheduled.elapsed().as_nanos() / 100;
                    let units = u32::try_from(units).unwrap_or(u32::MAX);
                    shared.tally.borrow_mut().latencies.push(units);
                }
                shared.note(&request, reply);
                under_way.set(under_way.get() - 1);
                drop(shared);
            });
        }
        due += interval;
    }
    while under_way.get() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    yield_now().await;
    shared.end()
}

/// Clients that send again what was refused or not answered until it is acknowledged, waiting longer
/// each time, as SDKs do.
pub struct Clients {
    shared: Rc<Shared>,
    tasks: JoinSet<Outcome<()>>,
}

impl Clients {
    /// Starts `count` of them, each with a connection of its own, sending `per_second` together.
    pub fn start(target: Target, stock: Stock, count: usize, per_second: u32) -> Outcome<Self> {
        let shared = Shared::new(stock);
        let mut tasks = JoinSet::new();
        let pause = Duration::from_secs(1) * u32::try_from(count)? / per_second;
        for link in links(target, count)? {
            tasks.spawn_local(client(link, Rc::clone(&shared), pause));
        }
        Ok(Self { shared, tasks })
    }

    /// Requests acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.shared.tally.borrow().acked
    }

    /// No more requests; what is under way is sent until it is acknowledged, or until time is up.
    pub async fn stop(mut self, at_most: Duration) -> Outcome<Tally> {
        self.shared.stop.set(true);
        let ended = async {
            while let Some(task) = self.tasks.join_next().await {
                task??;
            }
            Outcome::Ok(())
        };
        match tokio::time::timeout(at_most, ended).await {
            Ok(ended) => ended?,
            Err(_) => self.tasks.shutdown().await,
        }
        drop(self.tasks);
        Ok(self.shared.end()?.0)
    }
}

async fn client(link: Rc<Link>, shared: Rc<Shared>, pause: Duration) -> Outcome<()> {
    let mut due = Instant::now() + pause.mul_f64(fastrand::f64());
    while !shared.stop.get() {
        sleep(due.saturating_duration_since(Instant::now())).await;
        due = (due + pause).max(Instant::now());
        let request = shared.next()?;
        let mut wait = FIRST_WAIT;
        loop {
            let reply = link.send(&request).await;
            let settled = matches!(reply, Reply::Acked | Reply::Permanent(_));
            shared.note(&request, reply);
            if settled {
                break;
            }
            sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
    Ok(())
}
