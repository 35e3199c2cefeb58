//! Writes container images from static binaries, as OCI layout tars, without any builder.
//!
//! The same content gives the same bytes on every machine: names sorted, no times, no owners.
//! Knows the image format, and nothing of who loads it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::command::make_dir;
use crate::error::{Error, Result};

/// Where a machine keeps its CA certificates, and where images want them.
const CA_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What an image shall be.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// Its full name with tag, as in `bed.local/app:1`.
    pub name: String,
    /// The command.
    pub entrypoint: Vec<String>,
    /// Files: where each is now, and its absolute path in the image. All become executable.
    pub files: Vec<(PathBuf, String)>,
    /// Who the command runs as; numbers, so that `runAsNonRoot` can be checked.
    pub user: String,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether to add this machine's CA certificates.
    pub ca_bundle: bool,
    /// What its programs run on, as the image format names it: `amd64` or `arm64`.
    pub architecture: String,
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            entrypoint: Vec::new(),
            files: Vec::new(),
            user: "65532:65532".to_owned(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]),
            labels: BTreeMap::new(),
            ca_bundle: false,
            architecture: architecture().to_owned(),
        }
    }
}

impl ImageSpec {
    /// Writes the image.
    pub fn write(&self, out: &Path) -> Result<()> {
        check_name(&self.name)?;
        let layer = self.layer()?;
        let config = self.config(&layer)?;
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
        }))?;
        let entry = manifest.descriptor(MANIFEST);
        write_layout(&self.name, entry, &[layer, config, manifest], out)
    }

    /// The image's one layer. Sorted by path, parents first.
    fn layer(&self) -> Result<Blob> {
        let mut files = BTreeMap::new();
        for (source, target) in &self.files {
            let bytes =
                fs::read(source).map_err(Error::io(format!("read {}", source.display())))?;
            files.insert(inner_path(target)?, (0o755, bytes));
        }
        if self.ca_bundle {
            files.insert(inner_path(CA_BUNDLE)?, (0o644, ca_bundle()?));
        }
        let mut archive = Archive::new();
        let mut dirs = vec!["tmp".to_owned()];
        for path in files.keys() {
            dirs.extend(
                path.match_indices('/')
                    .map(|(end, _)| path[..end].to_owned()),
            );
        }
        dirs.sort();
        dirs.dedup();
        for dir in dirs {
            archive.dir(&dir, if dir == "tmp" { 0o1777 } else { 0o755 })?;
        }
        for (path, (mode, bytes)) in &files {
            archive.file(path, *mode, bytes)?;
        }
        Ok(Blob::new(archive.finish()?))
    }

    fn config(&self, layer: &Blob) -> Result<Blob> {
        let env: Vec<String> = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Blob::json(&json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {"User": self.user, "Entrypoint": self.entrypoint, "Env": env, "Labels": self.labels},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
        }))
    }
}

/// Writes one image for several architectures from images that [`ImageSpec::write`] wrote, one for each.
pub fn write_index(name: &str, images: &[PathBuf], out: &Path) -> Result<()> {
    check_name(name)?;
    let (mut entries, mut blobs) = (Vec::new(), Vec::new());
    for image in images {
        let files = read_tar(image)?;
        let foreign = || Error::Invalid(format!("{} is no image of ours", image.display()));
        let json = |path: &str| -> Result<Value> {
            let bytes = files.get(path).ok_or_else(foreign)?;
            Ok(serde_json::from_slice(bytes)?)
        };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap_or_default();
            format!("blobs/{}", digest.replace(':', "/"))
        };
        let mut entry = json("index.json")?["manifests"][0].take();
        let config = json(&blob(&json(&blob(&entry))?["config"]))?;
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("annotations");
        }
        entry["platform"] = json!({"architecture": config["architecture"], "os": config["os"]});
        entries.push(entry);
        let of_blobs = files
            .into_iter()
            .filter(|(path, _)| path.starts_with("blobs/"));
        blobs.extend(of_blobs.map(|(_, bytes)| Blob::new(bytes)));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let index = Blob::json(&index)?;
    let entry = index.descriptor(INDEX);
    blobs.push(index);
    // A layer that two images share is one blob.
    blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
    blobs.dedup_by(|one, other| one.digest == other.digest);
    write_layout(name, entry, &blobs, out)
}

fn check_name(name: &str) -> Result<()> {
    let parts = name.rsplit_once(':');
    if parts.is_none_or(|(name, tag)| name.is_empty() || tag.is_empty() || tag.contains('/')) {
        return Err(Error::Invalid(format!(
            "{name:?} is no image name with a tag; write for example bed.local/app:1"
        )));
    }
    Ok(())
}

/// Writes an OCI layout, as a tar, whose one entry is the image of this name.
fn write_layout(name: &str, mut entry: Value, blobs: &[Blob], out: &Path) -> Result<()> {
    entry["annotations"] = json!({
        "io.containerd.image.name": full_name(name),
        "org.opencontainers.image.ref.name": name.rsplit(':').next(),
    });
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [entry],
    }))?;
    let mut archive = Archive::new();
    archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.file("index.json", 0o644, &index)?;
    for blob in blobs {
        archive.file(&format!("blobs/sha256/{}", blob.digest), 0o644, &blob.bytes)?;
    }
    if let Some(parent) = out.parent() {
        make_dir(parent)?;
    }
    // In one step: another process may load the file at any time.
    let fresh = out.with_extension(format!("tar-{}", std::process::id()));
    let doing = format!("write {}", out.display());
    let mut file = fs::File::create(&fresh).map_err(Error::io(doing.clone()))?;
    file.write_all(&archive.finish()?)
        .map_err(Error::io(doing.clone()))?;
    fs::rename(&fresh, out).map_err(Error::io(doing))
}

/// The files of a tar, by path.
fn read_tar(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let doing = || format!("read {}", path.display());
    let file = fs::File::open(path).map_err(Error::io(doing()))?;
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(file)
        .entries()
        .map_err(Error::io(doing()))?
    {
        let mut entry = entry.map_err(Error::io(doing()))?;
        let name = entry
            .path()
            .map_err(Error::io(doing()))?
            .display()
            .to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(Error::io(doing()))?;
        files.insert(name, bytes);
    }
    Ok(files)
}

/// Rust's name for the machine is not the image format's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn ca_bundle() -> Result<Vec<u8>> {
    let found = CA_BUNDLES.iter().find_map(|path| fs::read(path).ok());
    found.ok_or_else(|| Error::Missing {
        what: "a bundle of certificate authorities".to_owned(),
        remedy: "on Debian: sudo apt-get install ca-certificates".to_owned(),
    })
}

/// A path in the image, relative as tars have it.
fn inner_path(path: &str) -> Result<String> {
    let inner = path.strip_prefix('/').filter(|inner| {
        !inner.is_empty() && !inner.split('/').any(|part| part == ".." || part.is_empty())
    });
    inner.map(str::to_owned).ok_or_else(|| {
        Error::Invalid(format!(
            "{path:?} is no absolute path of a file in an image"
        ))
    })
}

/// A piece of content, known by its digest.
struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = Sha256::digest(&bytes)
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        Self { bytes, digest }
    }

    fn json(value: &Value) -> Result<Self> {
        Ok(Self::new(serde_json::to_vec(value)?))
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.bytes.len()})
    }
}

/// A tar in memory whose bytes depend on its content alone.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.entry(path, tar::EntryType::Regular, mode, bytes)
    }

    fn dir(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(&format!("{path}/"), tar::EntryType::Directory, mode, &[])
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        self.0
            .append_data(&mut header, path, bytes)
            .map_err(Error::io(format!("add {path} to an image")))
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().map_err(Error::io("finish an image"))
    }
}
/// The name as kubelets ask containerd for it: a short name is completed the way Docker began it, or a
/// pod that names `team/app:1` would look for an image that was loaded and never find it.
fn full_name(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed_and_full_ones_left_alone() {
        assert_eq!(full_name("app:1"), "docker.io/library/app:1");
        assert_eq!(full_name("team/app:1"), "docker.io/team/app:1");
        assert_eq!(full_name("bed.local/app:1"), "bed.local/app:1");
    }
}
