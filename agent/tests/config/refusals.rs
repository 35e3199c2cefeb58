//! One change to the contract at a time, and the one problem it must lead to.

/// What is replaced, by what, and the message.
pub const REFUSALS: &[(&str, &str, &str)] = &[
    (
        "compression: gzip",
        "compression: lz5",
        "exporters.otlp_grpc.compression: `lz5` is not supported; use none, gzip or zstd",
    ),
    (
        "timeout: 10s",
        "timeout: 10",
        "exporters.otlp_grpc.timeout: 10 has no unit; write for example 200ms, 10s or 5m",
    ),
    (
        "timeout: 10s",
        "timeout: ten seconds",
        "exporters.otlp_grpc.timeout: `ten seconds` is not a duration; write for example 200ms, 10s or 5m",
    ),
    (
        "timeout: 10s",
        "timeout: 10s\n    colour: red",
        "exporters.otlp_grpc.colour: is not supported here; known are endpoint, timeout, user_agent, authority, tls, \
          compression, headers, sending_queue, retry_on_failure, failover",
    ),
    (
        "timeout: 10s",
        "timeout: 10s\n    balancer_name: pick_first",
        "exporters.otlp_grpc.balancer_name: only `round_robin` is supported: every new connection goes to a random \
          address of the name",
    ),
    (
        "timeout: 10s",
        "timeout: 10s\n    authority: http://a",
        "exporters.otlp_grpc.authority: `http://a` is not a host, with or without a port",
    ),
    (
        "timeout: 10s",
        "timeout: 10s\n    traces_endpoint: http://a",
        "exporters.otlp_grpc.traces_endpoint: is not supported here; known are endpoint, timeout, user_agent, authority, tls, \
          compression, headers, sending_queue, retry_on_failure, failover",
    ),
    (
        "grpc: {",
        "grpc: {include_metadata: true, ",
        "receivers.otlp.protocols.grpc.include_metadata: only `false` is supported: the headers of clients are not kept \
          with their telemetry",
    ),
    (
        "http: {",
        "http: {cors: {allowed_origins: ['https://*.a.*']}, ",
        "receivers.otlp.protocols.http.cors.allowed_origins[0]: `https://*.a.*` is not an origin with at most one `*`",
    ),
    (
        "http: {",
        "http: {cors: {allowed_origins: ['*'], allowed_headers: ['a b']}, ",
        "receivers.otlp.protocols.http.cors.allowed_headers[0]: `a b` is not the name of a header",
    ),
    (
        "http: {",
        "http: {auth: {}, ",
        "receivers.otlp.protocols.http.auth.authenticator: is missing; name a bearertokenauth under extensions",
    ),
    (
        "  health_check:",
        "  bearertokenauth: {}\n  health_check:",
        "extensions.bearertokenauth: names no token; set token, tokens or filename",
    ),
    (
        "  health_check:",
        "  bearertokenauth: {token: a, tokens: [b]}\n  health_check:",
        "extensions.bearertokenauth.tokens: token is set, too; leave out one of them",
    ),
    (
        "  health_check:",
        "  bearertokenauth: {tokens: [a, ' ']}\n  health_check:",
        "extensions.bearertokenauth.tokens[1]: is empty: everyone could send it",
    ),
    (
        "  health_check:",
        "  bearertokenauth: {token: a, header: 'x y'}\n  health_check:",
        "extensions.bearertokenauth.header: `x y` is not the name of a header",
    ),
    (
        "http: {",
        "http: {traces_url_path: v1, ",
        "receivers.otlp.protocols.http.traces_url_path: `v1` is not a path; start it with a slash",
    ),
    (
        "http: {",
        "http: {traces_url_path: /v1/logs, ",
        "receivers.otlp.protocols.http.traces_url_path: `/v1/logs` is the path of another signal",
    ),
    (
        "http: {",
        "http: {traces_url_path: /v1development/profiles, ",
        "receivers.otlp.protocols.http.traces_url_path: `/v1development/profiles` is the path of another signal",
    ),
    (
        "grpc: {",
        "grpc: {keepalive: {server_parameters: {max_connection_age: 10}}, ",
        "receivers.otlp.protocols.grpc.keepalive.server_parameters.max_connection_age: 10 has no unit; write for \
          example 200ms, 10s or 5m",
    ),
    (
        "  otlp_grpc:\n",
        "  debug: {verbosity: detailed}\n  otlp_grpc:\n",
        "exporters.debug.verbosity: `detailed` is not supported; use basic",
    ),
    (
        "  otlp_grpc:\n",
        "  kafka: {}\n  otlp_grpc:\n",
        "exporters.kafka: `kafka` is not supported; use otlp_grpc, otlp_http, otlp, otlphttp, debug or nop",
    ),
    (
        "  health_check:",
        "  oauth2client: {}\n  health_check:",
        "extensions.oauth2client: `oauth2client` is not supported; use health_check, file_storage, bearertokenauth, zpages or pprof",
    ),
    (
        "encoding: json",
        "encoding: json, output_paths: [/var/log/agent]",
        "service.telemetry.logs.output_paths: only [stderr] and [stdout] are supported",
    ),
    (
        "readers: [",
        "address: 'localhost:8888', readers: [",
        "service.telemetry.metrics.address: the collector no longer supports it either; use readers",
    ),
    (
        "${env:OTELAGENT_NODE_NAME}",
        "${yaml:a}",
        "processors.resource/host.attributes[0].value: `${yaml:…}` is not supported; use ${env:NAME} or ${file:PATH}",
    ),
    (
        "http://otel",
        "unix://otel",
        "exporters.otlp_grpc.endpoint: `unix://` is not supported; use https:// or http://",
    ),
    (
        ".svc:4317",
        ".svc:4317/path",
        "exporters.otlp_grpc.endpoint: `/path`: a gRPC endpoint has no path",
    ),
    (
        ".svc:4317",
        ".svc:port",
        "exporters.otlp_grpc.endpoint: `port` is not a port; use 0 to 65535",
    ),
    (
        ".svc:4317",
        ".svc:4317/v1/traces",
        "exporters.otlp_grpc.endpoint: `/v1/traces`: a gRPC endpoint has no path; leave it out, or send by OTLP/HTTP",
    ),
    (
        "timeout: 10s",
        "failover: {endpoints: ['http://a:1', 'ftp://b']}",
        "exporters.otlp_grpc.failover.endpoints[1]: `ftp://` is not supported; use https:// or http://",
    ),
    (
        "timeout: 10s",
        "tls: {insecure: false}",
        "exporters.otlp_grpc.endpoint: `http://` is plaintext, but tls is configured; write https://, or \
          `insecure: true` under tls",
    ),
    (
        "timeout: 10s",
        "tls: {insecure: true, ca_file: /ca}",
        "exporters.otlp_grpc.tls.insecure: `true` switches TLS off, but certificates are configured; leave out one of them",
    ),
    (
        "endpoint: http://otel",
        "tls: {cert_file: /c}\n    endpoint: https://otel",
        "exporters.otlp_grpc.tls.key_file: is missing; cert_file needs its private key",
    ),
    (
        "endpoint: http://otel",
        "tls: {key_pem: x}\n    endpoint: https://otel",
        "exporters.otlp_grpc.tls.cert_file: is missing; key_file needs its certificate",
    ),
    (
        "endpoint: http://otel",
        "tls: {ca_file: /ca, ca_pem: x}\n    endpoint: https://otel",
        "exporters.otlp_grpc.tls.ca_pem: ca_file is set, too; leave out one of them",
    ),
    (
        "endpoint: http://otel",
        "tls: {cipher_suites: [TLS_RSA]}\n    endpoint: https://otel",
        "exporters.otlp_grpc.tls.cipher_suites: is not supported; the agent uses only suites without known weaknesses, \
          set min_version instead",
    ),
    (
        "endpoint: http://otel",
        "tls: {curve_preferences: [P521]}\n    endpoint: https://otel",
        "exporters.otlp_grpc.tls.curve_preferences: is not supported; the agent offers X25519, P-256 and P-384, in this order",
    ),
    (
        "endpoint: http://otel",
        "tls: {min_version: '1.1'}\n    endpoint: https://otel",
        "exporters.otlp_grpc.tls.min_version: `1.1` is not supported; use 1.2 or 1.3",
    ),
    (
        "endpoint: http://otel",
        "tls: {min_version: '1.3', max_version: '1.2'}\n    endpoint: https://otel",
        "exporters.otlp_grpc.tls.min_version: must not be higher than max_version",
    ),
    (
        "queue_size: 67108864",
        "queue_size: 0",
        "exporters.otlp_grpc.sending_queue.queue_size: 0 is out of range; use 1 to 68719476736",
    ),
    (
        "block_on_overflow: false",
        "block_on_overflow: true",
        "exporters.otlp_grpc.sending_queue.block_on_overflow: only `false` is supported: a full queue answers at once that the client may \
          retry",
    ),
    (
        "block_on_overflow: false",
        "storage: file_storage",
        "exporters.otlp_grpc.sending_queue.storage: `file_storage` is not defined under extensions as a file_storage",
    ),
    (
        "enabled: true, sizer: bytes",
        "enabled: true, sizer: requests",
        "exporters.otlp_grpc.sending_queue.sizer: `requests` is not supported; use bytes",
    ),
    (
        "enabled: true, sizer: bytes",
        "enabled: true",
        "exporters.otlp_grpc.sending_queue.sizer: is missing; this agent counts bytes, write `sizer: bytes`",
    ),
    (
        "enabled: true, sizer",
        "enabled: false, sizer",
        "exporters.otlp_grpc.sending_queue.enabled: only `true` is supported: the queue cannot be switched off",
    ),
    (
        "min_size: 3145728",
        "min_size: 3145729",
        "exporters.otlp_grpc.sending_queue.batch.min_size: must not be larger than max_size",
    ),
    (
        "x-tenant: a",
        "te: a",
        "exporters.otlp_grpc.headers.te: is set by the protocol and cannot be configured",
    ),
    (
        "x-tenant: a",
        "x tenant: a",
        "exporters.otlp_grpc.headers.x tenant: is not the name of a header",
    ),
    (
        "x-tenant: a",
        "x-tenant: \"a\\nb\"",
        "exporters.otlp_grpc.headers.x-tenant: contains characters that a header value cannot have",
    ),
    (
        "0.0.0.0:4317",
        "fe80::1:4317",
        "receivers.otlp.protocols.grpc.endpoint: `fe80::1:4317` needs brackets around its IPv6 address: [fe80::1]:4317",
    ),
    (
        "0.0.0.0:4318",
        "0.0.0.0:4317",
        "receivers.otlp.protocols.http.endpoint: is already used by the other protocol; one port accepts both \
          protocols, leave the other section out",
    ),
    (
        "grpc: {",
        "grpc: {tls: {cert_file: a}, ",
        "receivers.otlp.protocols.grpc.tls.key_file: is missing; cert_file needs its private key",
    ),
    (
        "grpc: {",
        "grpc: {tls: {client_ca_file: a}, ",
        "receivers.otlp.protocols.grpc.tls.cert_file: is missing; a server needs a certificate",
    ),
    (
        "grpc: {",
        "grpc: {tls: {cert_file: a, key_file: b, ca_file: c}, ",
        "receivers.otlp.protocols.grpc.tls.ca_file: means nothing to a server; clients are verified by client_ca_file",
    ),
    (
        "grpc: {",
        "grpc: {transport: udp, ",
        "receivers.otlp.protocols.grpc.transport: `udp` is not supported; use tcp or unix",
    ),
    (
        "grpc: {",
        "grpc: {transport: unix, ",
        "receivers.otlp.protocols.grpc.endpoint: `0.0.0.0:4317` is not the path of a socket; write for example \
          /run/otelagent/otlp.sock",
    ),
    (
        "grpc: {endpoint: \"0.0.0.0:4317\"}",
        "grpc: {transport: unix}",
        "receivers.otlp.protocols.grpc.endpoint: is missing; name the path of the socket",
    ),
    (
        "grpc: {endpoint: \"0.0.0.0:4317\"}",
        "grpc: {transport: unix, endpoint: /a, tls: {cert_file: a, key_file: b}}",
        "receivers.otlp.protocols.grpc.tls: is not supported on a Unix socket; leave it out",
    ),
    (
        "limit_mib: 64",
        "limit_percentage: 80, limit_mib: 64",
        "processors.memory_limiter.limit_percentage: percentages are not supported; use limit_mib",
    ),
    (
        "limit_mib: 64",
        "limit_mib: much",
        "processors.memory_limiter.limit_mib: expected a whole number, found a string",
    ),
    (
        "action: insert",
        "action: hash",
        "processors.resource/attributes.attributes[0].action: `hash` is not supported; use insert, update, upsert or delete",
    ),
    (
        "value: production, ",
        "from_attribute: x, value: y, ",
        "processors.resource/attributes.attributes[0].from_attribute: is supported with action insert and without a value; \
          give a literal value",
    ),
    (
        "value: production, ",
        "",
        "processors.resource/attributes.attributes[0].value: is missing; give a string, number or boolean",
    ),
    (
        "${env:OTELAGENT_NODE_NAME}",
        "${env:9NAME}",
        "processors.resource/host.attributes[0].value: `9NAME` is not the name of an environment variable; letters, \
          digits and _ only, no digit first",
    ),
    (
        "${env:OTELAGENT_NODE_NAME}",
        "${http://x}",
        "processors.resource/host.attributes[0].value: `${http:…}` is not supported; use ${env:NAME} or ${file:PATH}",
    ),
    (
        "${env:OTELAGENT_NODE_NAME}",
        "${env:OTELAGENT",
        "processors.resource/host.attributes[0].value: `${env:OTELAGENT` opens `${` and never closes it",
    ),
    (
        "exporters: [otlp_grpc]}\n    metrics",
        "exporters: [oltp]}\n    metrics",
        "service.pipelines.traces.exporters[0]: `oltp` is not defined under exporters; defined: otlp_grpc",
    ),
    (
        "exporters: [otlp_grpc]}\n    metrics",
        "exporters: []}\n    metrics",
        "service.pipelines.traces.exporters: is empty; name an exporter",
    ),
    (
        "    traces: {receivers: [otlp], processors: [memory_limiter, resource/attributes, resource/host]",
        "    profiles: {receivers: [otlp], processors: [memory_limiter, resource/attributes]",
        "service.pipelines.profiles.processors[1]: `resource/attributes` cannot be used for profiles, which pass unchanged",
    ),
    (
        "    traces: {",
        "    spans: {",
        "service.pipelines.spans: `spans` is not supported; use traces, metrics, logs or profiles",
    ),
    (
        "    traces: {",
        "    logs/2: {",
        "service.pipelines.logs: more than one logs pipeline is not supported",
    ),
    (
        "extensions: [health_check]",
        "extensions: [zpages]",
        "service.extensions[0]: `zpages` is not defined under extensions; defined: health_check",
    ),
    (
        "level: info",
        "level: trace",
        "service.telemetry.logs.level: `trace` is not supported; use debug, info, warn or error",
    ),
    (
        "service:\n",
        "connectors: {}\nservice:\n",
        "connectors: connectors are not supported by this agent",
    ),
    (
        "  memory_limiter: {check",
        "  batch: {}\n  memory_limiter: {check",
        "processors.batch: `batch` is not supported; set sending_queue.batch of the exporter instead",
    ),
    (
        "  memory_limiter: {check",
        "  filter/x: {}\n  memory_limiter: {check",
        "processors.filter/x: `filter` is not supported; use memory_limiter or resource",
    ),
];
