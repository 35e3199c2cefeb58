//! Files with which clients find and enter the cluster.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::command::write;
use crate::error::Result;
use crate::pki::Identity;

/// Writes a kubeconfig that contains all it needs, so that it can be copied anywhere. It is JSON,
/// which every reader of YAML understands.
pub(crate) fn write_kubeconfig(
    path: &Path,
    name: &str,
    server: &str,
    ca: &str,
    user: &Identity,
) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(ca)}}],
        "users": [{"name": name, "user": {
            "client-certificate-data": STANDARD.encode(&user.certificate),
            "client-key-data": STANDARD.encode(&user.key),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    });
    write(path, serde_json::to_vec_pretty(&config)?)
}
