//! Whether a request can be merged with others, and how one that is too large for the upstream is cut.

use std::sync::Arc;

use bytes::Bytes;

use crate::inspect::count;
use crate::schema::{Kind, Message};
use crate::signal::Signal;
use crate::wire::{Value, fields, varint_length, write_varint};

/// A request is not cut further where what is repeated in each part is this many times as large as what is left to
/// cut: the parts would hardly get smaller, and their sum would become many times the request.
const MOST_REPEATED: usize = 8;

/// Fields that stand in more places than this are copied together; encoders write those of a kind in a row.
const MOST_RUNS: usize = 4;

/// Whether a request that [`inspect`](crate::inspect()) has accepted has nothing but entries, so that
/// concatenated requests form one request. Other top-level fields may belong to all entries, so they would
/// change the meaning of neighbours; as the dictionary of profiles does.
pub fn is_mergeable(signal: Signal, request: &[u8]) -> bool {
    signal.is_mergeable() && fields(request).all(|field| field.is_ok_and(|field| field.number == 1))
}

/// A part of a request, itself a request: some of its items in order, with all that is said about them. Resource,
/// scope, the name and type of a metric, schema URLs and unknown fields are repeated in each part. It refers to the
/// bytes of the whole request and copies none of them, except for fields in an order that no encoder writes.
#[derive(Clone, Debug)]
pub struct RequestPart {
    signal: Signal,
    /// The messages around `body`, from an entry of the request inwards; none if `body` is of the request itself.
    around: Vec<Arc<Around>>,
    /// Whole fields that items are in, of the innermost of these messages.
    body: Bytes,
}

/// A message around the items of a part.
#[derive(Debug)]
struct Around {
    /// Its field number in the message around it.
    number: u32,
    /// Its fields without items.
    repeated: Vec<Bytes>,
}

impl Around {
    fn repeated(&self) -> usize {
        self.repeated.iter().map(Bytes::len).sum()
    }
}

impl RequestPart {
    /// A whole request that [`inspect`](crate::inspect()) has accepted.
    pub fn whole(signal: Signal, request: Bytes) -> Self {
        Self {
            signal,
            around: Vec::new(),
            body: request,
        }
    }

    /// The size as a request, in bytes.
    pub fn bytes(&self) -> usize {
        let sizes = self.sizes();
        sizes.first().map_or(self.body.len(), |(_, field)| *field)
    }

    /// The bytes that are in no other part. Those of all parts together are at most those of the whole.
    pub fn own_bytes(&self) -> usize {
        self.body.len()
    }

    /// The number of items, as [`inspect`](crate::inspect()) counts them.
    pub fn items(&self) -> usize {
        let mut schema = Some(self.signal.request());
        for around in &self.around {
            schema = schema.and_then(|schema| inner(schema, around.number));
        }
        schema.map_or(0, |schema| count(&self.body, schema))
    }

    /// The request, as chunks that follow each other.
    pub fn chunks(&self) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        for (around, (content, _)) in self.around.iter().zip(self.sizes()) {
            let mut head = Vec::new();
            write_varint(tag(around.number) as u64, &mut head);
            write_varint(content as u64, &mut head);
            chunks.push(Bytes::from(head));
            chunks.extend(around.repeated.iter().cloned());
        }
        chunks.push(self.body.clone());
        chunks
    }

    /// Splits off the second half, between the entries, scopes, items or data points nearest to the middle. `None`
    /// for a single item, and where it would be of no use: requests with other top-level fields, which may belong
    /// to all entries, profiles, and parts whose repeated fields are many times as large as the others.
    ///
    /// Where fields must be copied, `grant` has agreed to that many bytes.
    pub fn split(&mut self, grant: &mut dyn FnMut(usize) -> bool) -> Option<Self> {
        if !self.signal.is_mergeable() {
            return None;
        }
        let mut part = self.clone();
        let middle = loop {
            match part.middle()? {
                Middle::Between(at) => break at,
                Middle::Inside => part = part.inside(grant)?,
            }
        };
        let repeated: usize = part.around.iter().map(|around| around.repeated()).sum();
        if repeated / MOST_REPEATED > part.body.len() {
            return None;
        }
        let second = part.body.split_off(middle);
        *self = part;
        Some(Self {
            body: second,
            ..self.clone()
        })
    }

    /// The sizes of the messages around, outermost first: without and with tag and length.
    fn sizes(&self) -> Vec<(usize, usize)> {
        let mut size = self.body.len();
        let inwards = self.around.iter().rev();
        let mut sizes: Vec<_> = inwards
            .map(|around| {
                let content = size + around.repeated();
                let tag = varint_length(tag(around.number));
                size = tag + varint_length(content) + content;
                (content, size)
            })
            .collect();
        sizes.reverse();
        sizes
    }

    fn middle(&self) -> Option<Middle> {
        let half = self.body.len() / 2;
        let (mut best, mut at, mut many) = (0_usize, 0, 0);
        for field in fields(&self.body) {
            let field = field.ok()?;
            if !has_items(self.signal, self.around.len(), field.number) {
                return None;
            }
            at += field.raw.len();
            many += 1;
            if at < self.body.len() && (best == 0 || at.abs_diff(half) < best.abs_diff(half)) {
                best = at;
            }
        }
        // The data of a metric is one of its fields; a second one replaces or extends it.
        let is_metric = self.signal == Signal::Metrics && self.around.len() == METRIC;
        match many {
            0 => None,
            1 => Some(Middle::Inside),
            _ if is_metric => None,
            _ => Some(Middle::Between(best)),
        }
    }

    /// The same part with the fields of its only message as its body.
    fn inside(mut self, grant: &mut dyn FnMut(usize) -> bool) -> Option<Self> {
        let field = fields(&self.body).next()?.ok()?;
        let Value::Length(content) = field.value else {
            return None;
        };
        let (number, content) = (field.number, self.body.slice_ref(content));
        let depth = self.around.len() + 1;
        let signal = self.signal;
        if depth > deepest(signal) {
            return None;
        }
        let is_body = |number| has_items(signal, depth, number);
        let repeated = gather(&content, MOST_RUNS, |number| !is_body(number), grant)?;
        let mut body = gather(&content, 1, is_body, grant)?;
        self.around.push(Arc::new(Around { number, repeated }));
        self.body = body.pop().unwrap_or_default();
        Some(self)
    }
}

/// Where a part can be cut.
enum Middle {
    /// Between two fields of its body.
    Between(usize),
    /// Inside of the only field of its body.
    Inside,
}

/// How deep the metrics of a request are in it.
const METRIC: usize = 3;

/// How deep the messages are that hold items.
fn deepest(signal: Signal) -> usize {
    match signal {
        Signal::Metrics => METRIC + 1,
        _ => METRIC - 1,
    }
}

/// Whether a field of a message `depth` levels below the request has items in it, or is one.
fn has_items(signal: Signal, depth: usize, number: u32) -> bool {
    match depth {
        0 => number == 1,
        // 1000 is the earlier number of 2.
        1 => matches!(number, 2 | 1000),
        2 => number == 2,
        METRIC => signal == Signal::Metrics && matches!(number, 5 | 7 | 9 | 10 | 11),
        _ => number == 1,
    }
}

fn inner(schema: &'static Message, number: u32) -> Option<&'static Message> {
    match schema.kind(number) {
        Kind::Message(inner) | Kind::Item(inner) => Some(inner),
        _ => None,
    }
}

/// The tag of a message.
fn tag(number: u32) -> usize {
    (number as usize) << 3 | 2
}

/// The fields of a message with the numbers that `pick` wants, in order: slices of it, or a copy if they are in more
/// than `most` places.
fn gather(
    message: &Bytes,
    most: usize,
    pick: impl Fn(u32) -> bool,
    grant: &mut dyn FnMut(usize) -> bool,
) -> Option<Vec<Bytes>> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let (mut at, mut total) = (0, 0);
    for field in fields(message) {
        let field = field.ok()?;
        let start = at;
        at += field.raw.len();
        if !pick(field.number) {
            continue;
        }
        total += field.raw.len();
        if let Some((_, end)) = runs.last_mut().filter(|(_, end)| *end == start) {
            *end = at;
        } else if runs.len() <= most {
            runs.push((start, at));
        }
    }
    if runs.len() <= most {
        let slices = runs
            .into_iter()
            .map(|(start, end)| message.slice(start..end));
        return Some(slices.collect());
    }
    if !grant(total) {
        return None;
    }
    let mut copy = Vec::with_capacity(total);
    for field in fields(message) {
        let field = field.ok()?;
        if pick(field.number) {
            copy.extend_from_slice(field.raw);
        }
    }
    Some(vec![Bytes::from(copy)])
}
