//! One API server for all tests of this module, and a connection to it that a test can cut.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::LazyLock;

use kube::Config;
use testbed::Bed;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::client::direct_config;

/// Ends with this process: the bed watches it.
static BED: LazyLock<Bed> = LazyLock::new(|| {
    let name = format!("process-{}", std::process::id());
    Bed::builder().name(name).start().expect("a control plane")
});

/// The client configuration of the administrator.
pub(super) async fn config() -> Config {
    let path = tokio::task::spawn_blocking(|| BED.kubeconfig().to_owned());
    direct_config(&path.await.unwrap()).await
}

/// The output of kubectl, run in the repository: both streams, and whether it succeeded.
pub(super) fn kubectl(words: &[&str]) -> (bool, String) {
    let mut command: Command = BED.kubectl();
    let output = command
        .args(words)
        .current_dir(demo::repository())
        .output()
        .expect("kubectl runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// A connection to the API server that drops everything while the sender says `true`: connections stay open without
/// an answer.
pub(super) async fn black_hole() -> (Config, watch::Sender<bool>) {
    let mut config = config().await;
    let host = config.cluster_url.host().unwrap().to_owned();
    let port = config.cluster_url.port_u16().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (sender, swallows) = watch::channel(false);
    config.cluster_url = format!("https://{address}").parse().unwrap();
    config.tls_server_name = Some(host.clone());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (host, mut swallows) = (host.clone(), swallows.clone());
            tokio::spawn(async move {
                let mut far = TcpStream::connect((host.as_str(), port)).await.unwrap();
                tokio::select! {
                    _ = swallows.wait_for(|swallows| *swallows) => {}
                    _ = copy_bidirectional(&mut near, &mut far) => return,
                }
                let _ = swallows.wait_for(|swallows| !*swallows).await;
            });
        }
    });
    (config, sender)
}
