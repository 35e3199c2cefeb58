//! The messages of OTLP (opentelemetry-proto 1.11, with the deprecated field 1000 that its Go
//! implementation still reads; profiles are v1development).

use crate::schema::{FieldSchema, Kind, Label, Message, Type, by_number, message};

/// A request of a stable signal: resources, and the scopes in each.
macro_rules! request {
    (
        $request:ident $entries:ident,
        $entry:ident $scopes:ident,
        $scope_entry:ident $items:ident $kind:ident ($item:ident)
    ) => {
        message!($request {
            1 $entries: Many Message(&$entry),
        });
        message!($entry or $scope_entry in 1000 {
            1 resource: One Message(&RESOURCE),
            2 $scopes: Many Message(&$scope_entry),
            3 schemaUrl: One Text,
        });
        message!($scope_entry {
            1 scope: One Message(&SCOPE),
            2 $items: Many $kind(&$item),
            3 schemaUrl: One Text,
        });
    };
}

request!(TRACES resourceSpans, RESOURCE_SPANS scopeSpans, SCOPE_SPANS spans Item(SPAN));
request!(METRICS resourceMetrics, RESOURCE_METRICS scopeMetrics, SCOPE_METRICS metrics Message(METRIC));
request!(LOGS resourceLogs, RESOURCE_LOGS scopeLogs, SCOPE_LOGS logRecords Item(LOG_RECORD));

message!(RESOURCE {
    1 attributes: Many Message(&KEY_VALUE),
    2 droppedAttributesCount: One Uint32,
    3 entityRefs: Many Message(&ENTITY_REF),
});
message!(ENTITY_REF {
    1 schemaUrl: One Text,
    2 type: One Text,
    3 idKeys: Many Text,
    4 descriptionKeys: Many Text,
});
message!(SCOPE {
    1 name: One Text,
    2 version: One Text,
    3 attributes: Many Message(&KEY_VALUE),
    4 droppedAttributesCount: One Uint32,
});
message!(KEY_VALUE {
    1 key: One Text,
    2 value: One Message(&ANY_VALUE),
    3 keyStrindex: One Int32,
});
message!(ANY_VALUE {
    1 stringValue: Choice Text,
    2 boolValue: Choice Bool,
    3 intValue: Choice Int64,
    4 doubleValue: Choice Double,
    5 arrayValue: Choice Message(&ARRAY_VALUE),
    6 kvlistValue: Choice Message(&KEY_VALUE_LIST),
    7 bytesValue: Choice Bytes,
    8 stringValueStrindex: Choice Int32,
});
message!(ARRAY_VALUE {
    1 values: Many Message(&ANY_VALUE),
});
message!(KEY_VALUE_LIST {
    1 values: Many Message(&KEY_VALUE),
});

message!(SPAN {
    1 traceId: One Id,
    2 spanId: One Id,
    3 traceState: One Text,
    4 parentSpanId: One Id,
    5 name: One Text,
    6 kind: One Enum(SPAN_KIND),
    7 startTimeUnixNano: One Fixed64,
    8 endTimeUnixNano: One Fixed64,
    9 attributes: Many Message(&KEY_VALUE),
    10 droppedAttributesCount: One Uint32,
    11 events: Many Message(&EVENT),
    12 droppedEventsCount: One Uint32,
    13 links: Many Message(&LINK),
    14 droppedLinksCount: One Uint32,
    15 status: One Message(&STATUS),
    16 flags: One Fixed32,
});
message!(EVENT {
    1 timeUnixNano: One Fixed64,
    2 name: One Text,
    3 attributes: Many Message(&KEY_VALUE),
    4 droppedAttributesCount: One Uint32,
});
message!(LINK {
    1 traceId: One Id,
    2 spanId: One Id,
    3 traceState: One Text,
    4 attributes: Many Message(&KEY_VALUE),
    5 droppedAttributesCount: One Uint32,
    6 flags: One Fixed32,
});
message!(STATUS {
    2 message: One Text,
    3 code: One Enum(STATUS_CODE),
});

const SPAN_KIND: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUS_CODE: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

message!(LOG_RECORD {
    1 timeUnixNano: One Fixed64,
    2 severityNumber: One Enum(SEVERITY_NUMBER),
    3 severityText: One Text,
    5 body: One Message(&ANY_VALUE),
    6 attributes: Many Message(&KEY_VALUE),
    7 droppedAttributesCount: One Uint32,
    8 flags: One Fixed32,
    9 traceId: One Id,
    10 spanId: One Id,
    11 observedTimeUnixNano: One Fixed64,
    12 eventName: One Text,
});

const SEVERITY_NUMBER: &[&str] = &[
    "SEVERITY_NUMBER_UNSPECIFIED",
    "SEVERITY_NUMBER_TRACE",
    "SEVERITY_NUMBER_TRACE2",
    "SEVERITY_NUMBER_TRACE3",
    "SEVERITY_NUMBER_TRACE4",
    "SEVERITY_NUMBER_DEBUG",
    "SEVERITY_NUMBER_DEBUG2",
    "SEVERITY_NUMBER_DEBUG3",
    "SEVERITY_NUMBER_DEBUG4",
    "SEVERITY_NUMBER_INFO",
    "SEVERITY_NUMBER_INFO2",
    "SEVERITY_NUMBER_INFO3",
    "SEVERITY_NUMBER_INFO4",
    "SEVERITY_NUMBER_WARN",
    "SEVERITY_NUMBER_WARN2",
    "SEVERITY_NUMBER_WARN3",
    "SEVERITY_NUMBER_WARN4",
    "SEVERITY_NUMBER_ERROR",
    "SEVERITY_NUMBER_ERROR2",
    "SEVERITY_NUMBER_ERROR3",
    "SEVERITY_NUMBER_ERROR4",
    "SEVERITY_NUMBER_FATAL",
    "SEVERITY_NUMBER_FATAL2",
    "SEVERITY_NUMBER_FATAL3",
    "SEVERITY_NUMBER_FATAL4",
];

message!(METRIC {
    1 name: One Text,
    2 description: One Text,
    3 unit: One Text,
    5 gauge: Choice Message(&GAUGE),
    7 sum: Choice Message(&SUM),
    9 histogram: Choice Message(&HISTOGRAM),
    10 exponentialHistogram: Choice Message(&EXPONENTIAL_HISTOGRAM),
    11 summary: Choice Message(&SUMMARY),
    12 metadata: Many Message(&KEY_VALUE),
});
message!(GAUGE {
    1 dataPoints: Many Item(&NUMBER_DATA_POINT),
});
message!(SUM {
    1 dataPoints: Many Item(&NUMBER_DATA_POINT),
    2 aggregationTemporality: One Enum(TEMPORALITY),
    3 isMonotonic: One Bool,
});
message!(HISTOGRAM {
    1 dataPoints: Many Item(&HISTOGRAM_DATA_POINT),
    2 aggregationTemporality: One Enum(TEMPORALITY),
});
message!(EXPONENTIAL_HISTOGRAM {
    1 dataPoints: Many Item(&EXPONENTIAL_HISTOGRAM_DATA_POINT),
    2 aggregationTemporality: One Enum(TEMPORALITY),
});
message!(SUMMARY {
    1 dataPoints: Many Item(&SUMMARY_DATA_POINT),
});
message!(NUMBER_DATA_POINT {
    2 startTimeUnixNano: One Fixed64,
    3 timeUnixNano: One Fixed64,
    4 asDouble: Choice Double,
    5 exemplars: Many Message(&EXEMPLAR),
    6 asInt: Choice Sfixed64,
    7 attributes: Many Message(&KEY_VALUE),
    8 flags: One Uint32,
});
message!(HISTOGRAM_DATA_POINT {
    2 startTimeUnixNano: One Fixed64,
    3 timeUnixNano: One Fixed64,
    4 count: One Fixed64,
    5 sum: Optional Double,
    6 bucketCounts: Many Fixed64,
    7 explicitBounds: Many Double,
    8 exemplars: Many Message(&EXEMPLAR),
    9 attributes: Many Message(&KEY_VALUE),
    10 flags: One Uint32,
    11 min: Optional Double,
    12 max: Optional Double,
});
message!(EXPONENTIAL_HISTOGRAM_DATA_POINT {
    1 attributes: Many Message(&KEY_VALUE),
    2 startTimeUnixNano: One Fixed64,
    3 timeUnixNano: One Fixed64,
    4 count: One Fixed64,
    5 sum: Optional Double,
    6 scale: One Sint32,
    7 zeroCount: One Fixed64,
    8 positive: One Message(&BUCKETS),
    9 negative: One Message(&BUCKETS),
    10 flags: One Uint32,
    11 exemplars: Many Message(&EXEMPLAR),
    12 min: Optional Double,
    13 max: Optional Double,
    14 zeroThreshold: One Double,
});
message!(BUCKETS {
    1 offset: One Sint32,
    2 bucketCounts: Many Uint64,
});
message!(SUMMARY_DATA_POINT {
    2 startTimeUnixNano: One Fixed64,
    3 timeUnixNano: One Fixed64,
    4 count: One Fixed64,
    5 sum: One Double,
    6 quantileValues: Many Message(&VALUE_AT_QUANTILE),
    7 attributes: Many Message(&KEY_VALUE),
    8 flags: One Uint32,
});
message!(VALUE_AT_QUANTILE {
    1 quantile: One Double,
    2 value: One Double,
});
message!(EXEMPLAR {
    2 timeUnixNano: One Fixed64,
    3 asDouble: Choice Double,
    4 spanId: One Id,
    5 traceId: One Id,
    6 asInt: Choice Sfixed64,
    7 filteredAttributes: Many Message(&KEY_VALUE),
});

const TEMPORALITY: &[&str] = &[
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
];

message!(PROFILES {
    1 resourceProfiles: Many Message(&RESOURCE_PROFILES),
    2 dictionary: One Message(&DICTIONARY),
});
message!(RESOURCE_PROFILES {
    1 resource: One Message(&RESOURCE),
    2 scopeProfiles: Many Message(&SCOPE_PROFILES),
    3 schemaUrl: One Text,
});
message!(SCOPE_PROFILES {
    1 scope: One Message(&SCOPE),
    2 profiles: Many Message(&PROFILE),
    3 schemaUrl: One Text,
});
message!(DICTIONARY {
    1 mappingTable: Many Message(&MAPPING),
    2 locationTable: Many Message(&LOCATION),
    3 functionTable: Many Message(&FUNCTION),
    4 linkTable: Many Message(&PROFILE_LINK),
    5 stringTable: Many Text,
    6 attributeTable: Many Message(&KEY_VALUE_AND_UNIT),
    7 stackTable: Many Message(&STACK),
});
message!(PROFILE {
    1 sampleType: One Message(&VALUE_TYPE),
    2 samples: Many Item(&SAMPLE),
    3 timeUnixNano: One Fixed64,
    4 durationNano: One Uint64,
    5 periodType: One Message(&VALUE_TYPE),
    6 period: One Int64,
    7 profileId: One Id,
    8 droppedAttributesCount: One Uint32,
    9 originalPayloadFormat: One Text,
    10 originalPayload: One Bytes,
    11 attributeIndices: Many Int32,
});
message!(PROFILE_LINK {
    1 traceId: One Id,
    2 spanId: One Id,
});
message!(VALUE_TYPE {
    1 typeStrindex: One Int32,
    2 unitStrindex: One Int32,
});
message!(SAMPLE {
    1 stackIndex: One Int32,
    2 attributeIndices: Many Int32,
    3 linkIndex: One Int32,
    4 values: Many Int64,
    5 timestampsUnixNano: Many Fixed64,
});
message!(MAPPING {
    1 memoryStart: One Uint64,
    2 memoryLimit: One Uint64,
    3 fileOffset: One Uint64,
    4 filenameStrindex: One Int32,
    5 attributeIndices: Many Int32,
});
message!(STACK {
    1 locationIndices: Many Int32,
});
message!(LOCATION {
    1 mappingIndex: One Int32,
    2 address: One Uint64,
    3 lines: Many Message(&LINE),
    4 attributeIndices: Many Int32,
});
message!(LINE {
    1 functionIndex: One Int32,
    2 line: One Int64,
    3 column: One Int64,
});
message!(FUNCTION {
    1 nameStrindex: One Int32,
    2 systemNameStrindex: One Int32,
    3 filenameStrindex: One Int32,
    4 startLine: One Int64,
});
message!(KEY_VALUE_AND_UNIT {
    1 keyStrindex: One Int32,
    2 value: One Message(&ANY_VALUE),
    3 unitStrindex: One Int32,
});
