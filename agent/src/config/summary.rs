//! The effective configuration as `otelagent-agent check` prints it, without header values.

use std::fmt;

use super::model::{
    Address, AttributeAction, BindAddress, ClientTls, Config, Exporter, MetricsPush, Pem, Protocol,
    ReceiverConfig, Retry, Tokens,
};

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl Exporter {
    /// Its id, and the signal if it carries only one.
    pub fn name(&self) -> String {
        match self.signal {
            Some(signal) => format!("{} ({})", self.id, signal.name()),
            None => self.id.clone(),
        }
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{path}"),
        }
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => formatter.write_str(path),
            Self::Inline(_) => formatter.write_str("the configuration"),
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for listener in &self.receiver.listen {
            let place = &listener.address;
            let Some(tls) = &listener.tls else {
                writeln!(formatter, "listen    {place} (gRPC and HTTP)")?;
                continue;
            };
            writeln!(
                formatter,
                "listen    {place} (gRPC and HTTP, TLS), certificate of {}",
                tls.identity.certificate
            )?;
            if let Some(ca) = &tls.client_ca {
                writeln!(formatter, "          clients verified by {ca}")?;
            }
        }
        writeln!(
            formatter,
            "limits    gRPC message {}, HTTP body {}, memory {}",
            size(self.receiver.max_grpc_message),
            size(self.receiver.max_http_body),
            size(self.memory.limit),
        )?;
        write_receiver(formatter, &self.receiver)?;
        for pipeline in &self.pipelines {
            let exporter = self.exporters.get(pipeline.exporter);
            let name = exporter.map_or_else(String::new, Exporter::name);
            writeln!(formatter, "{:<9} to {name}", pipeline.signal.name())?;
            for edit in &pipeline.attributes {
                let (verb, value) = match &edit.action {
                    AttributeAction::Insert(value) => ("insert", format!(" = {value}")),
                    AttributeAction::InsertFrom(other) => ("insert", format!(" = that of {other}")),
                    AttributeAction::Update(value) => ("update", format!(" = {value}")),
                    AttributeAction::Upsert(value) => ("upsert", format!(" = {value}")),
                    AttributeAction::Delete => ("delete", String::new()),
                };
                writeln!(formatter, "          {verb} {}{value}", edit.key)?;
            }
        }
        for exporter in &self.exporters {
            write_exporter(formatter, exporter)?;
        }
        if let Some(health) = &self.health {
            writeln!(formatter, "health    {}{}", health.listen, health.path)?;
        }
        if let Some(metrics) = &self.telemetry.metrics {
            writeln!(formatter, "metrics   {}/metrics", metrics.listen)?;
        }
        let telemetry = &self.telemetry;
        if let Some(push) = &telemetry.push {
            write_push(formatter, push, &telemetry.resource)?;
        }
        writeln!(
            formatter,
            "log       {:?} and worse, {:?}, to {:?}",
            telemetry.log_level, telemetry.log_encoding, telemetry.log_output
        )?;
        Ok(())
    }
}

fn write_receiver(formatter: &mut fmt::Formatter<'_>, receiver: &ReceiverConfig) -> fmt::Result {
    for (path, signal) in &receiver.url_paths {
        writeln!(formatter, "          {path} takes {}", signal.name())?;
    }
    if let Some(auth) = &receiver.auth {
        let tokens: &dyn fmt::Display = match &auth.tokens {
            Tokens::File(path) => path,
            Tokens::Inline(_) => &"the configuration",
        };
        let (header, scheme) = (&auth.header, &auth.scheme);
        let space = if scheme.is_empty() { "" } else { " " };
        writeln!(
            formatter,
            "          clients must send `{header}: {scheme}{space}` and a token of {tokens}"
        )?;
    }
    if let Some(cors) = &receiver.cors {
        let origins = cors.allowed_origins.join(", ");
        write!(formatter, "          browsers may send from {origins}")?;
        if !cors.allowed_headers.is_empty() {
            write!(formatter, " with {}", cors.allowed_headers.join(", "))?;
        }
        writeln!(formatter)?;
    }
    let connections = &receiver.connections;
    write!(
        formatter,
        "          {} calls per connection, idle after {:?} HTTP/1.1, {:?} HTTP/2",
        receiver.max_concurrent_streams, connections.idle_http1, connections.idle_http2
    )?;
    if connections.max_age.is_zero() {
        writeln!(formatter)
    } else {
        writeln!(formatter, ", renewed after {:?}", connections.max_age)
    }
}

fn write_push(
    formatter: &mut fmt::Formatter<'_>,
    push: &MetricsPush,
    resource: &[(String, Option<String>)],
) -> fmt::Result {
    let exporter = &push.exporter;
    let protocol = match exporter.protocol {
        Protocol::Grpc => "gRPC",
        _ => "HTTP",
    };
    writeln!(
        formatter,
        "metrics   pushed every {:?}: {protocol} {}{}, compression {:?}, timeout {:?}",
        push.interval,
        exporter.endpoint,
        exporter.base_path,
        exporter.compression,
        exporter.timeout
    )?;
    if let Some(tls) = &exporter.tls {
        write_tls(formatter, tls)?;
    }
    write_proxy(formatter, exporter)?;
    write_headers(formatter, exporter)?;
    for (name, value) in resource {
        match value {
            Some(value) => writeln!(formatter, "          resource {name} = {value}")?,
            None => writeln!(formatter, "          resource without {name}")?,
        }
    }
    Ok(())
}

fn write_headers(formatter: &mut fmt::Formatter<'_>, exporter: &Exporter) -> fmt::Result {
    for (name, _) in &exporter.headers {
        writeln!(formatter, "          header {name}")?;
    }
    Ok(())
}

fn write_exporter(formatter: &mut fmt::Formatter<'_>, exporter: &Exporter) -> fmt::Result {
    let name = exporter.name();
    let protocol = match exporter.protocol {
        Protocol::Grpc => "gRPC",
        Protocol::Http => "HTTP",
        Protocol::Debug => return writeln!(formatter, "{name}: counted in the log, then dropped"),
        Protocol::Nop => return writeln!(formatter, "{name}: dropped"),
    };
    writeln!(
        formatter,
        "{name}: {protocol} {}{}, compression {:?}, timeout {:?}",
        exporter.endpoint, exporter.base_path, exporter.compression, exporter.timeout
    )?;
    if let Some(tls) = &exporter.tls {
        write_tls(formatter, tls)?;
    }
    write_proxy(formatter, exporter)?;
    write_backups(formatter, exporter)?;
    if let Some(authority) = &exporter.authority {
        writeln!(formatter, "          authority {authority}")?;
    }
    if let Some(user_agent) = &exporter.user_agent {
        writeln!(formatter, "          user-agent {user_agent}")?;
    }
    write_headers(formatter, exporter)?;
    let queue = &exporter.queue;
    writeln!(
        formatter,
        "          queue {} per signal, {} in flight; batches of {} to {} or after {:?}",
        size(queue.capacity),
        queue.consumers,
        size(queue.min_size),
        size(queue.max_size),
        queue.flush_timeout
    )?;
    if let Some(storage) = &exporter.storage {
        writeln!(
            formatter,
            "          on disk in {}, {}",
            storage.directory,
            if storage.fsync {
                "synced before an acknowledgement"
            } else {
                "not synced"
            }
        )?;
    }
    write_retry(formatter, &exporter.retry)
}

fn write_backups(formatter: &mut fmt::Formatter<'_>, exporter: &Exporter) -> fmt::Result {
    for backup in &exporter.backups {
        let tls = if backup.tls.is_some() { ", TLS" } else { "" };
        let (endpoint, path) = (&backup.endpoint, &backup.base_path);
        writeln!(formatter, "          or else {endpoint}{path}{tls}")?;
        write_proxy(formatter, backup)?;
    }
    if !exporter.backups.is_empty() {
        let interval = exporter.failover_interval;
        writeln!(
            formatter,
            "          the earlier ones are tried again every {interval:?}"
        )?;
    }
    Ok(())
}

fn write_proxy(formatter: &mut fmt::Formatter<'_>, exporter: &Exporter) -> fmt::Result {
    let Some(proxy) = &exporter.proxy else {
        return Ok(());
    };
    let (address, origin) = (&proxy.address, proxy.origin);
    let with = if proxy.credentials.is_some() {
        ", with credentials"
    } else {
        ""
    };
    writeln!(
        formatter,
        "          through the proxy {address}, by {origin}{with}"
    )
}

fn write_retry(formatter: &mut fmt::Formatter<'_>, retry: &Retry) -> fmt::Result {
    if !retry.enabled {
        return writeln!(formatter, "          no retry");
    }
    write!(
        formatter,
        "          retry after {:?} to {:?}, or {:?} where the upstream asks for more",
        retry.initial_interval, retry.max_interval, retry.max_wait
    )?;
    if retry.max_elapsed_time.is_zero() {
        writeln!(formatter, ", without end")?;
    } else {
        writeln!(formatter, ", given up after {:?}", retry.max_elapsed_time)?;
    }
    let denied = if retry.hold { "waits" } else { "is lost" };
    writeln!(
        formatter,
        "          {denied} while the upstream refuses the agent"
    )
}

fn write_tls(formatter: &mut fmt::Formatter<'_>, tls: &ClientTls) -> fmt::Result {
    write!(formatter, "          TLS, ")?;
    match &tls.ca {
        _ if tls.insecure_skip_verify => write!(formatter, "the upstream is NOT verified")?,
        Some(ca) if tls.include_system_ca => {
            write!(
                formatter,
                "verified by {ca} or the system's CA certificates"
            )?;
        }
        Some(ca) => write!(formatter, "verified by {ca}")?,
        None => write!(formatter, "verified by the system's CA certificates")?,
    }
    if let Some(name) = &tls.server_name_override {
        write!(formatter, " as {name}")?;
    }
    if let Some(identity) = &tls.identity {
        write!(formatter, ", certificate of {}", identity.certificate)?;
    }
    writeln!(formatter)
}

/// Bytes, or MiB if the number is whole.
fn size(bytes: usize) -> String {
    const MIB: usize = 1024 * 1024;
    if bytes >= MIB && bytes.is_multiple_of(MIB) {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{bytes} B")
    }
}
