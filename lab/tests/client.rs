//! The client configuration for a bed's API server, for every module that talks to one. Tests of another
//! user, or of a broken connection, change it.

use std::path::Path;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// As the administrator whom the file names, and directly: a proxy of this machine does not know beds.
pub(crate) async fn direct_config(kubeconfig: &Path) -> Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options);
    let mut config = config.await.unwrap();
    config.proxy_url = None;
    config
}
