//! The table of fields: `exporters`. Must not know how a field is read.

use super::{Field, ignored, only, refused, taken};

const ONE_CONNECTION: &str =
    "calls share one HTTP/2 connection, which is renewed from time to time";

const AS_MANY: &str =
    "connections are as many as requests in flight, see sending_queue.num_consumers";

#[rustfmt::skip]
pub(super) const FIELDS: &[Field] = &[
    taken("exporters.otlp_grpc.endpoint", "address or URL", "", "Host and port of the upstream; `http://` before it means plaintext. The port is 4317 where none is given"),
    taken("exporters.otlp_http.endpoint", "URL", "", "`/v1/<signal>` is appended"),
    taken("exporters.otlp_http.traces_endpoint", "URL", "", "Used as it stands, for traces, in place of `endpoint`"),
    taken("exporters.otlp_http.metrics_endpoint", "URL", "", "The same for metrics"),
    taken("exporters.otlp_http.logs_endpoint", "URL", "", "The same for logs"),
    taken("exporters.otlp_http.profiles_endpoint", "URL", "", "The same for profiles"),
    taken("exporters.otlp_http.encoding", "`proto`", "proto", "Encoding of bodies"),
    taken("exporters.otlp_*.tls.insecure", "`true`", "false", "Plaintext, where the endpoint has no scheme"),
    taken("exporters.otlp_*.compression", "`none`, `gzip` or `zstd`", "gzip", "Compression of requests, always at level 1"),
    taken("exporters.otlp_*.timeout", "duration", "5s gRPC, 30s HTTP", "Limit of one attempt, connecting included"),
    taken("exporters.otlp_*.headers", "mapping of strings", "", "Sent with every request; values are never printed"),
    taken("exporters.otlp_grpc.user_agent", "string", "otelagent-agent/<version>", "`user-agent` of every request"),
    taken("exporters.otlp_grpc.authority", "string", "the endpoint", "`:authority` of every request"),
    taken("exporters.otlp_*.sending_queue.enabled", "`true`", "true", "The queue cannot be switched off"),
    taken("exporters.otlp_*.sending_queue.block_on_overflow", "`false`", "false", "A full queue answers retryable at once"),
    taken("exporters.otlp_*.sending_queue.wait_for_result", "`false`", "false", "Clients are answered once their telemetry is held"),
    taken("exporters.otlp_*.sending_queue.sizer", "`bytes`", "", "Required with `queue_size`: this agent counts bytes"),
    taken("exporters.otlp_*.sending_queue.queue_size", "bytes", "67108864", "Uncompressed bytes one signal may have waiting and in flight, in memory and on disk"),
    taken("exporters.otlp_*.sending_queue.num_consumers", "1 to 1000", "10", "Requests in flight per signal"),
    taken("exporters.otlp_*.sending_queue.storage", "id of an extension", "", "A `file_storage` that keeps the queue on disk as well"),
    taken("exporters.otlp_*.sending_queue.batch.flush_timeout", "duration", "200ms", "The oldest request waits this long for company"),
    taken("exporters.otlp_*.sending_queue.batch.sizer", "`bytes`", "", "Required with `min_size` or `max_size`"),
    taken("exporters.otlp_*.sending_queue.batch.min_size", "bytes", "3145728", "A batch this large is sent at once"),
    taken("exporters.otlp_*.sending_queue.batch.max_size", "bytes", "3145728", "Requests are never merged beyond this"),
    refused("exporters.otlp_*.sending_queue.batch.partition", "headers of clients are not kept, so there is nothing to partition by"),
    taken("exporters.otlp_*.retry_on_failure.enabled", "`true` or `false`", "true", "`false`: one attempt, then the batch is lost and counted"),
    taken("exporters.otlp_*.retry_on_failure.initial_interval", "duration", "5s", "First wait"),
    taken("exporters.otlp_*.retry_on_failure.max_interval", "duration", "30s", "Longest wait, unless the upstream asks for more"),
    taken("exporters.otlp_*.retry_on_failure.multiplier", "1 to 100", "1.5", "Growth from one wait to the next"),
    taken("exporters.otlp_*.retry_on_failure.randomization_factor", "0 to 1", "0.5", "Each wait is spread by this share in both directions"),
    taken("exporters.otlp_*.retry_on_failure.max_elapsed_time", "duration", "0s", "A batch is given up after this; 0 means never. The collector's default is 5m"),
    only("exporters.otlp_grpc.balancer_name", "round_robin", "every new connection goes to a random address of the name"),
    only("exporters.otlp_http.compression_params.level", "1", "higher levels cost several times the CPU for a few percent of size"),
    ignored("exporters.otlp_grpc.wait_for_ready", "a batch waits for the upstream in any case"),
    ignored("exporters.otlp_grpc.keepalive", ONE_CONNECTION),
    ignored("exporters.otlp_grpc.read_buffer_size", "answers are a few bytes"),
    ignored("exporters.otlp_grpc.write_buffer_size", "batches are sent as they lie in memory"),
    refused("exporters.otlp_*.auth", "there are no authenticators; give credentials as headers, with ${file:PATH}"),
    refused("exporters.otlp_*.middlewares", "there are no extensions that could be called"),
    ignored("exporters.otlp_http.read_buffer_size", "answers are a few bytes"),
    ignored("exporters.otlp_http.write_buffer_size", "batches are sent as they lie in memory"),
    ignored("exporters.otlp_http.max_idle_conns", AS_MANY),
    ignored("exporters.otlp_http.max_idle_conns_per_host", AS_MANY),
    ignored("exporters.otlp_http.max_conns_per_host", AS_MANY),
    ignored("exporters.otlp_http.idle_conn_timeout", "connections are renewed from time to time"),
    ignored("exporters.otlp_http.force_attempt_http2", "HTTP/1.1 costs the upstream less"),
    ignored("exporters.otlp_http.http2_read_idle_timeout", "HTTP/1.1 costs the upstream less"),
    ignored("exporters.otlp_http.http2_ping_timeout", "HTTP/1.1 costs the upstream less"),
    refused("exporters.otlp_http.proxy_url", "proxies are not supported; neither are HTTP_PROXY and its kin read"),
    refused("exporters.otlp_http.cookies", "cookies are not kept"),
    taken("exporters.debug.verbosity", "`basic`", "basic", "What it writes to the log: per signal one line a second at most, with the number of requests, items and bytes"),
    ignored("exporters.debug.sampling_initial", "lines are folded, one a second"),
    ignored("exporters.debug.sampling_thereafter", "lines are folded, one a second"),
    ignored("exporters.debug.use_internal_logger", "the log of the agent is the only one there is"),
    refused("exporters.debug.output_paths", "the log of the agent is the only one there is"),
];
