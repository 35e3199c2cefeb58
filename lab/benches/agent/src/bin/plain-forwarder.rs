//! The plain forwarder: what one gets from tonic and prost in an afternoon, measured as a baseline.
//! Receives traces by gRPC, decodes them, gathers batches by size and by age, encodes them again and
//! forwards them; senders wait while the upstream does not keep up. Nothing is tuned on purpose.

use std::env;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Requests that wait to be batched, and batches that wait to be sent.
const WAITING_REQUESTS: usize = 1000;
const WAITING_BATCHES: usize = 10;

/// Pause before a batch is sent again.
const PAUSE: Duration = Duration::from_millis(100);

struct Receiver {
    queue: mpsc::Sender<Vec<ResourceSpans>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans;
        let sent = self.queue.send(spans).await;
        sent.map_err(|_| Status::unavailable("shutting down"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let listen = env::var("PLAIN_LISTEN")?.parse()?;
    let upstream = Channel::from_shared(env::var("PLAIN_UPSTREAM")?)?.connect_lazy();
    let compression = match env::var("PLAIN_COMPRESSION")?.as_str() {
        "gzip" => Some(CompressionEncoding::Gzip),
        "zstd" => Some(CompressionEncoding::Zstd),
        _ => None,
    };
    let batch_spans: usize = env::var("PLAIN_BATCH_SPANS")?.parse()?;
    let flush = env::var("PLAIN_FLUSH")?;
    let flush = Duration::from_millis(flush.trim_end_matches("ms").parse()?);
    let mut client = TraceServiceClient::new(upstream);
    if let Some(encoding) = compression {
        client = client.send_compressed(encoding);
    }
    let (queue, requests) = mpsc::channel(WAITING_REQUESTS);
    let (batches, ready) = mpsc::channel(WAITING_BATCHES);
    tokio::spawn(gather(requests, batches, batch_spans, flush));
    tokio::spawn(forward(ready, client));
    let service = TraceServiceServer::new(Receiver { queue })
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    Server::builder().add_service(service).serve(listen).await?;
    Ok(())
}

fn spans(entries: &[ResourceSpans]) -> usize {
    let scopes = entries.iter().flat_map(|entry| &entry.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum()
}

async fn gather(
    mut requests: mpsc::Receiver<Vec<ResourceSpans>>,
    batches: mpsc::Sender<Vec<ResourceSpans>>,
    batch_spans: usize,
    flush: Duration,
) {
    while let Some(mut batch) = requests.recv().await {
        let due = Instant::now() + flush;
        let mut gathered = spans(&batch);
        while gathered < batch_spans {
            let Ok(Some(more)) = timeout_at(due, requests.recv()).await else {
                break;
            };
            gathered += spans(&more);
            batch.extend(more);
        }
        if batches.send(batch).await.is_err() {
            return;
        }
    }
}

async fn forward(
    mut batches: mpsc::Receiver<Vec<ResourceSpans>>,
    mut client: TraceServiceClient<Channel>,
) {
    while let Some(resource_spans) = batches.recv().await {
        let request = ExportTraceServiceRequest { resource_spans };
        while client.export(request.clone()).await.is_err() {
            sleep(PAUSE).await;
        }
    }
}
