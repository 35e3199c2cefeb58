//! From a kubeconfig to a client.

use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::args::Options;
use crate::error::CliError;

/// The time limit of a connection attempt.
const CONNECT: Duration = Duration::from_secs(5);
/// For the API server's logs.
const AGENT: &str = concat!("kubectl-otelagent/", env!("CARGO_PKG_VERSION"));

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Cluster {
    pub(super) client: Client,
    /// The namespace of the command line, or of the context.
    pub namespace: String,
    /// The address of the API server.
    pub server: String,
    /// The time limit of a request.
    pub(super) limit: Duration,
}

impl Cluster {
    /// The cluster of these options. Nothing is sent yet.
    ///
    /// # Errors
    /// If the kubeconfig cannot be used.
    pub async fn of(options: &Options) -> Result<Self, CliError> {
        let limit = Duration::from_secs(options.request_timeout);
        let mut config = config(options).await?;
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT.min(limit));
        config
            .headers
            .push((USER_AGENT, HeaderValue::from_static(AGENT)));
        let namespace = options.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        Ok(Self {
            client,
            namespace,
            server: server.trim_end_matches('/').to_owned(),
            limit,
        })
    }
}

fn unusable(error: &dyn std::error::Error) -> CliError {
    CliError::Kubeconfig(otelagent_core::in_full(error))
}

/// As kubectl: the file of the command line, else those of KUBECONFIG, else ~/.kube/config; without any, the account of
/// the pod in which the command runs.
async fn config(options: &Options) -> Result<Config, CliError> {
    let wanted = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    let read = match &options.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let found = match read {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &wanted).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(config) => Ok(config),
        Err(error) if options.kubeconfig.is_some() || options.context.is_some() => {
            Err(unusable(&error))
        }
        Err(error) => Config::incluster().map_err(|_| unusable(&error)),
    }
}
