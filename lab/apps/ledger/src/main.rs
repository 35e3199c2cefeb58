//! The ledger: an OTLP endpoint that keeps no telemetry but counts it, so that a test can say what was
//! lost, what came twice, and by which way it came.
//!
//! It knows how its test programs number what they send, and nothing of who carried it.

mod book;
mod numbers;
mod otlp;
mod query;
mod receive;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::book::Book;

/// An OTLP endpoint that counts.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where OTLP/gRPC is served.
    #[arg(long, default_value_t = any(4317))]
    grpc: SocketAddr,
    /// Where OTLP/HTTP is served.
    #[arg(long, default_value_t = any(4318))]
    http: SocketAddr,
    /// Where the JSON interface is served.
    #[arg(long, default_value_t = any(8080))]
    query: SocketAddr,
}

/// A port at all addresses, of both families where the kernel has both.
fn any(port: u16) -> SocketAddr {
    let both = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let ip: IpAddr = if both {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    (ip, port).into()
}

/// The one book all servers write.
#[derive(Clone, Default)]
struct SharedBook(Arc<Mutex<Book>>);

impl SharedBook {
    /// Works on the book, with the time in milliseconds since 1970.
    fn write<T>(&self, work: impl FnOnce(&mut Book, u64) -> T) -> T {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        work(
            &mut self.0.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        )
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ledger: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until one server fails or SIGTERM comes.
async fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let book = SharedBook::default();
    let http = TcpListener::bind(args.http).await?;
    let query = TcpListener::bind(args.query).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = receive::grpc(book.clone(), args.grpc) => ended?,
        ended = axum::serve(http, receive::http(book.clone())) => ended?,
        ended = axum::serve(query, query::routes(book)) => ended?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
