//! What families of metrics mean, for `# HELP` lines.

/// By the name without items, unit and `_total`.
#[rustfmt::skip]
const MEANINGS: &[(&str, &str)] = &[
    ("otelcol_receiver_accepted", "Acknowledged items."),
    ("otelcol_receiver_refused", "Items refused after they were counted."),
    ("otelcol_receiver_failed", "Always 0: what fails is refused or lost."),
    ("otelcol_receiver_requests", "Requests by outcome."),
    ("otelagent_refused_requests", "Refused requests by reason."),
    ("otelagent_repaired_strings", "Strings that were not UTF-8; their bad bytes became question marks."),
    ("otelcol_processor_incoming_items", "Items into a processor."),
    ("otelcol_processor_outgoing_items", "Items out of a processor."),
    ("otelcol_processor_memory_limiter_accepted", "Items accepted under the memory limit."),
    ("otelcol_processor_memory_limiter_refused", "Items refused because of the memory limit."),
    ("otelcol_exporter_sent", "Delivered items."),
    ("otelcol_exporter_send_failed", "Lost items, all reasons together."),
    ("otelagent_lost", "Lost items by reason."),
    ("otelcol_exporter_enqueue_failed", "Items refused because the queue was full."),
    ("otelcol_exporter_queue_size", "Bytes held in the queue."),
    ("otelcol_exporter_queue_capacity", "Limit of the queue in bytes."),
    ("otelagent_queue", "Items held in the queue."),
    ("otelcol_exporter_in_flight_requests", "Requests to the upstream in flight."),
    ("otelcol_exporter_queue_batch_send_size", "Sizes of batches in items."),
    ("otelcol_exporter_queue_batch_send_size_bytes", "Sizes of batches in uncompressed bytes."),
    ("otelagent_exporter_plain", "Bytes of all attempts before compression."),
    ("otelagent_exporter_wire", "Bytes of all attempts after compression."),
    ("otelagent_exporter_failed_attempts", "Attempts that failed and were repeated."),
    ("otelagent_exporter_endpoint_index", "Which endpoint is in use: 0 is the first, others are of failover."),
    ("otelagent_sender_held", "Bytes held of one of the senders that hold the most."),
    ("otelagent_sender_refused_requests", "Requests refused for lack of room, of one of the senders refused most often."),
    ("otelagent_recovered", "Items taken over from an earlier process through the disk."),
    ("otelagent_storage_failing", "1 while the queue cannot be on disk."),
    ("otelagent_storage_damaged_records", "Records skipped on disk because of a wrong checksum."),
    ("otelagent_storage_damaged", "Bytes skipped on disk because of a wrong checksum."),
    ("otelagent_books_imbalance", "Accepted + recovered - delivered - held - lost: always 0."),
    ("otelagent_connections", "Accepted connections."),
    ("otelagent_open_connections", "Open connections."),
    ("otelagent_connections_limit", "Limit of open connections."),
    ("otelagent_accept_errors", "Connections that the system could not accept."),
    ("otelagent_tls_handshakes_failed", "Connections that ended before the TLS handshake was complete."),
    ("otelagent_config_reloads", "How often the configuration was read, by result."),
    ("otelagent_config_last_success_timestamp", "When the configuration in use was read, in seconds since 1970."),
    ("otelagent_config_info", "1, with the fingerprint of the configuration in use."),
    ("otelagent_memory_held", "Telemetry in memory, in bytes."),
    ("otelagent_memory_limit", "The limit above which telemetry is refused, in bytes."),
    ("otelcol_process_uptime", "Seconds since the start of the process."),
    ("otelcol_process_cpu_seconds", "CPU time of the process."),
    ("otelcol_process_memory_rss", "Resident memory in bytes."),
    ("otelcol_process_runtime_heap_alloc_bytes", "Anonymous memory in bytes."),
    ("otelcol_process_runtime_total_sys_memory_bytes", "Address space in bytes."),
    ("otelagent_build_info", "1, with the version."),
];

/// What a family means.
pub(super) fn help(family: &str) -> Option<&'static str> {
    let mut meanings = MEANINGS.iter();
    meanings.find_map(|(name, meaning)| (*name == family).then_some(*meaning))
}
