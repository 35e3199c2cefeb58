//! The messages of OTLP as tables from field number to kind (opentelemetry-proto 1.11, including the
//! fields its Go implementation still reads under number 1000). Must not know how tables are walked.

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Not in the schema: kept and passed on.
    Unknown,
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
    /// A string: must be UTF-8.
    Text,
    Message(&'static Message),
    /// A message that counts as one item.
    Item(&'static Message),
    PackedFixed64,
    PackedVarint,
}

/// Field number to kind.
pub(super) struct Message {
    /// Kinds of fields 1, 2, 3, …
    fields: &'static [Kind],
    /// `instrumentation_library_spans` and its like, before they were renamed.
    deprecated_1000: Option<&'static Message>,
}

impl Message {
    const fn new(fields: &'static [Kind]) -> Self {
        Self {
            fields,
            deprecated_1000: None,
        }
    }

    pub(super) fn kind(&'static self, number: u32) -> Kind {
        let index = (number as usize).wrapping_sub(1);
        match self.fields.get(index) {
            Some(kind) => *kind,
            None => match self.deprecated_1000 {
                Some(inner) if number == 1000 => Kind::Message(inner),
                _ => Kind::Unknown,
            },
        }
    }
}

const NONE: Kind = Kind::Unknown;
const VARINT: Kind = Kind::Varint;
const FIXED64: Kind = Kind::Fixed64;
const FIXED32: Kind = Kind::Fixed32;
const BYTES: Kind = Kind::Bytes;
const TEXT: Kind = Kind::Text;
const ATTRIBUTES: Kind = Kind::Message(&KEY_VALUE);

/// A request: repeated resource entries.
macro_rules! request {
    ($request:ident, $entry:ident, $scope_entry:ident) => {
        pub(super) static $request: Message = Message::new(&[Kind::Message(&$entry)]);
        static $entry: Message = Message {
            fields: &[Kind::Message(&RESOURCE), Kind::Message(&$scope_entry), TEXT],
            deprecated_1000: Some(&$scope_entry),
        };
    };
}

request!(TRACES, RESOURCE_SPANS, SCOPE_SPANS);
request!(METRICS, RESOURCE_METRICS, SCOPE_METRICS);
request!(LOGS, RESOURCE_LOGS, SCOPE_LOGS);

static RESOURCE: Message = Message::new(&[ATTRIBUTES, VARINT, Kind::Message(&ENTITY_REF)]);
static ENTITY_REF: Message = Message::new(&[TEXT, TEXT, TEXT, TEXT]);
static SCOPE: Message = Message::new(&[TEXT, TEXT, ATTRIBUTES, VARINT]);
pub(super) static KEY_VALUE: Message = Message::new(&[TEXT, Kind::Message(&ANY_VALUE), VARINT]);
static ANY_VALUE: Message = Message::new(&[
    TEXT,
    VARINT,
    VARINT,
    FIXED64,
    Kind::Message(&ARRAY_VALUE),
    Kind::Message(&KEY_VALUE_LIST),
    BYTES,
    VARINT,
]);
static ARRAY_VALUE: Message = Message::new(&[Kind::Message(&ANY_VALUE)]);
static KEY_VALUE_LIST: Message = Message::new(&[Kind::Message(&KEY_VALUE)]);

static SCOPE_SPANS: Message = Message::new(&[Kind::Message(&SCOPE), Kind::Item(&SPAN), TEXT]);
static SPAN: Message = Message::new(&[
    BYTES,
    BYTES,
    TEXT,
    BYTES,
    TEXT,
    VARINT,
    FIXED64,
    FIXED64,
    ATTRIBUTES,
    VARINT,
    Kind::Message(&EVENT),
    VARINT,
    Kind::Message(&LINK),
    VARINT,
    Kind::Message(&STATUS),
    FIXED32,
]);
static EVENT: Message = Message::new(&[FIXED64, TEXT, ATTRIBUTES, VARINT]);
static LINK: Message = Message::new(&[BYTES, BYTES, TEXT, ATTRIBUTES, VARINT, FIXED32]);
static STATUS: Message = Message::new(&[NONE, TEXT, VARINT]);

static SCOPE_LOGS: Message = Message::new(&[Kind::Message(&SCOPE), Kind::Item(&LOG_RECORD), TEXT]);
static LOG_RECORD: Message = Message::new(&[
    FIXED64,
    VARINT,
    TEXT,
    NONE,
    Kind::Message(&ANY_VALUE),
    ATTRIBUTES,
    VARINT,
    FIXED32,
    BYTES,
    BYTES,
    FIXED64,
    TEXT,
]);

static SCOPE_METRICS: Message =
    Message::new(&[Kind::Message(&SCOPE), Kind::Message(&METRIC), TEXT]);
static METRIC: Message = Message::new(&[
    TEXT,
    TEXT,
    TEXT,
    NONE,
    Kind::Message(&GAUGE),
    NONE,
    Kind::Message(&SUM),
    NONE,
    Kind::Message(&HISTOGRAM),
    Kind::Message(&EXPONENTIAL_HISTOGRAM),
    Kind::Message(&SUMMARY),
    ATTRIBUTES,
]);
static GAUGE: Message = Message::new(&[Kind::Item(&NUMBER_DATA_POINT)]);
static SUM: Message = Message::new(&[Kind::Item(&NUMBER_DATA_POINT), VARINT, VARINT]);
static HISTOGRAM: Message = Message::new(&[Kind::Item(&HISTOGRAM_DATA_POINT), VARINT]);
static EXPONENTIAL_HISTOGRAM: Message =
    Message::new(&[Kind::Item(&EXPONENTIAL_HISTOGRAM_DATA_POINT), VARINT]);
static SUMMARY: Message = Message::new(&[Kind::Item(&SUMMARY_DATA_POINT)]);
static NUMBER_DATA_POINT: Message = Message::new(&[
    NONE,
    FIXED64,
    FIXED64,
    FIXED64,
    Kind::Message(&EXEMPLAR),
    FIXED64,
    ATTRIBUTES,
    VARINT,
]);
static HISTOGRAM_DATA_POINT: Message = Message::new(&[
    NONE,
    FIXED64,
    FIXED64,
    FIXED64,
    FIXED64,
    Kind::PackedFixed64,
    Kind::PackedFixed64,
    Kind::Message(&EXEMPLAR),
    ATTRIBUTES,
    VARINT,
    FIXED64,
    FIXED64,
]);
static EXPONENTIAL_HISTOGRAM_DATA_POINT: Message = Message::new(&[
    ATTRIBUTES,
    FIXED64,
    FIXED64,
    FIXED64,
    FIXED64,
    VARINT,
    FIXED64,
    Kind::Message(&BUCKETS),
    Kind::Message(&BUCKETS),
    VARINT,
    Kind::Message(&EXEMPLAR),
    FIXED64,
    FIXED64,
    FIXED64,
]);
static BUCKETS: Message = Message::new(&[VARINT, Kind::PackedVarint]);
static SUMMARY_DATA_POINT: Message = Message::new(&[
    NONE,
    FIXED64,
    FIXED64,
    FIXED64,
    FIXED64,
    Kind::Message(&VALUE_AT_QUANTILE),
    ATTRIBUTES,
    VARINT,
]);
static VALUE_AT_QUANTILE: Message = Message::new(&[FIXED64, FIXED64]);
static EXEMPLAR: Message =
    Message::new(&[NONE, FIXED64, FIXED64, BYTES, BYTES, FIXED64, ATTRIBUTES]);
