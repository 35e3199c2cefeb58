//! A registry that asks for a password.

use std::net::{IpAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use demo::wait::{Seen, until};
use demo::{images, steps};
use serde_json::json;
use testbed::image::write_index;
use testbed::parts::{self, Part};

use super::{PATIENCE, World, condition, world};
use crate::test_scale::is_full;

const USER: &str = "puller:let-me-pull";
/// The same as the registry has it.
const HASHED: &str = "puller:$2b$05$Vs/IRbMMVIxMEubX9r1dqevJCpZdDpnPbFtSCwj3.w6NO1uDGQPH2";

/// With `make test-full`: the registry takes a minute to build.
#[test]
fn agents_are_pulled_with_the_secret_that_the_spec_names() {
    if !is_full() {
        return;
    }
    let Some(world) = world("a registry with a password") else {
        return;
    };
    let Some(bed) = world.bed("a registry with a password", "pulling from a registry") else {
        return;
    };
    let registry = Registry::start(bed.host_ip());
    bed.trust_registry(&registry.address).unwrap();
    let image = registry.with_our_images();

    world.agent(
        "pulled",
        "nobody",
        &format!("mode: NodeLocal, agent: {{image: '{image}'}}"),
    );
    world.until_status("pulled", "why it cannot be pulled", |status| {
        let message = condition(status, "Ready")["message"].as_str();
        message.is_some_and(|message| {
            message.contains("Pull") && message.contains("pull access denied")
        })
    });
    secret(&world, &registry.address);
    let secrets = json!([{"name": "registry"}]);
    world.patch(
        "pulled",
        &json!({"spec": {"agent": {"imagePullSecrets": secrets}}}),
    );
    world.until_serving("pulled", "NodeLocal");
}

/// What `kubectl create secret docker-registry` makes.
fn secret(world: &World, registry: &str) {
    let (name, password) = USER.split_once(':').unwrap();
    let words = [
        "create",
        "secret",
        "docker-registry",
        "registry",
        "--namespace",
        steps::PLATFORM,
        &format!("--docker-server={registry}"),
        &format!("--docker-username={name}"),
        &format!("--docker-password={password}"),
    ];
    world.kubectl.run(&words).expect("the Secret");
}

/// Ends with the test.
struct Registry {
    process: Child,
    address: String,
    directory: std::path::PathBuf,
}

impl Registry {
    fn start(host: IpAddr) -> Self {
        let program = parts::ensure(Part::Registry).expect("the registry");
        let directory = std::env::temp_dir().join(format!("registry-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let free = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap();
        let [config, users] = ["config.yaml", "users"].map(|file| directory.join(file));
        std::fs::write(&users, HASHED).unwrap();
        let json = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": directory.join("files")}},
            "http": {"addr": free.to_string()},
            "auth": {"htpasswd": {"realm": "test", "path": users}},
        });
        std::fs::write(&config, json.to_string()).unwrap();
        let mut command = Command::new(program);
        command
            .arg(config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().expect("the registry runs");
        until("the registry", PATIENCE, || {
            let connected = std::net::TcpStream::connect(free);
            Ok(Seen::check(connected.is_ok(), format!("{connected:?}")))
        })
        .unwrap();
        let address = free.to_string();
        Self {
            process,
            address,
            directory,
        }
    }
}

impl Registry {
    /// Pushes the images as people do who released them, and returns the agent's name there.
    fn with_our_images(&self) -> String {
        let release = self.directory.join("release");
        std::fs::create_dir_all(&release).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        for built in images::ensure_all().expect("the images") {
            let file = built.file_name().unwrap().to_string_lossy().into_owned();
            let name = ["agent", "operator"].into_iter().find(|name| {
                let ours = images::file_of(&format!("otelagent/{name}:{version}"));
                file == ours
            });
            let Some(name) = name else { continue };
            let tar = release.join(format!("otelagent-{name}-{version}.oci.tar"));
            write_index(&format!("otelagent/{name}:{version}"), &[built], &tar).unwrap();
        }
        let (account, password) = USER.split_once(':').unwrap();
        let auths = json!({&self.address: {"username": account, "password": password}});
        let config = json!({"auths": auths}).to_string();
        std::fs::write(self.directory.join("config.json"), config).unwrap();
        let output = Command::new("make")
            .current_dir(demo::repository())
            .arg("images-push")
            .arg(format!("REGISTRY={}/team", self.address))
            .arg(format!("RELEASE={}", release.display()))
            .arg("CRANE_FLAGS=--insecure")
            .env("DOCKER_CONFIG", &self.directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        format!("{}/team/agent:{version}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
