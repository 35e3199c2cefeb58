//! The `testbed` command: beds from a shell.
//!
//! Reads arguments and prints; everything else is the library's.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use testbed::image::{ImageSpec, write_index};
use testbed::parts::{self, Part};
use testbed::{Addresses, Bed, BedName, Builder, Component, Error, KubernetesVersion, Result};

/// A real Kubernetes cluster on this machine, without a container engine.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(clap::Args)]
struct Named {
    /// Which bed.
    #[arg(long, default_value = "default")]
    name: BedName,
}

#[derive(clap::Args)]
struct UpArgs {
    #[command(flatten)]
    named: Named,
    /// How many nodes; 0 for a control plane only.
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// How many simulated nodes, instead of real ones.
    #[arg(long, default_value_t = 0, conflicts_with = "nodes")]
    simulated_nodes: u16,
    /// Which addresses nodes, pods and Services have.
    #[arg(long, value_enum, default_value_t, conflicts_with = "simulated_nodes")]
    addresses: Addresses,
    /// The Kubernetes release.
    #[arg(long, default_value_t)]
    kubernetes: KubernetesVersion,
    /// Note every request to the API server in audit.log beside the other logs.
    #[arg(long)]
    audit: bool,
    /// One more argument for the API server; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    apiserver_arg: Vec<String>,
}

#[derive(clap::Args)]
struct ImageArgs {
    /// Its name with tag.
    #[arg(long)]
    name: String,
    /// The command; repeat for its arguments.
    #[arg(long, required = true, allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Who it runs as.
    #[arg(long, default_value = "65532:65532")]
    user: String,
    /// NAME=VALUE; may be repeated.
    #[arg(long, value_parser = pair)]
    env: Vec<(String, String)>,
    /// NAME=VALUE; may be repeated.
    #[arg(long, value_parser = pair)]
    label: Vec<(String, String)>,
    /// Add this machine's CA certificates.
    #[arg(long)]
    ca_bundle: bool,
    /// What its programs run on, amd64 or arm64; this machine's architecture if it is not said.
    #[arg(long)]
    architecture: Option<String>,
    /// Where to write it.
    #[arg(long, short)]
    out: PathBuf,
    /// FILE=/PATH/IN/IMAGE
    #[arg(required = true, value_parser = pair)]
    files: Vec<(String, String)>,
}

#[derive(Subcommand)]
enum Action {
    /// Bring a bed up and leave it up.
    Up(UpArgs),
    /// End a bed and remove all of it but its logs.
    Down {
        #[command(flatten)]
        named: Named,
        /// End all beds of this machine, and what is left of dead ones.
        #[arg(long)]
        all: bool,
    },
    /// List the beds of this machine.
    Status,
    /// Give image files to every node.
    LoadImage {
        #[command(flatten)]
        named: Named,
        /// Tar files, as `testbed image` or other builders write them.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print where the kubeconfig is.
    Kubeconfig {
        #[command(flatten)]
        named: Named,
    },
    /// Run kubectl on a bed.
    Kubectl {
        #[command(flatten)]
        named: Named,
        /// What kubectl shall do.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Print a component's log, or where the logs are; also of a bed that is gone.
    Logs {
        #[command(flatten)]
        named: Named,
        /// For example kube-apiserver or node1-kubelet.
        component: Option<Component>,
    },
    /// Build every part that is missing; of older releases only the API server is of that release.
    Build {
        /// The Kubernetes release.
        #[arg(long, default_value_t)]
        kubernetes: KubernetesVersion,
        /// Also what is no part of a cluster, or not of every one: OpenTelemetry Collectors, kwok and h2spec.
        #[arg(long)]
        extras: bool,
    },
    /// Write an image from static binaries.
    Image(ImageArgs),
    /// Write one image for several architectures from one for each.
    Index {
        /// Its name with tag.
        #[arg(long)]
        name: String,
        /// Where to write it.
        #[arg(long, short)]
        out: PathBuf,
        /// What `testbed image` wrote.
        #[arg(required = true)]
        images: Vec<PathBuf>,
    },
    /// Print kubectl's path, once it is built.
    KubectlPath,
}

fn pair(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write LEFT=RIGHT")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {}: {error}", error.reason());
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<ExitCode> {
    match action {
        Action::Up(args) => up(args)?,
        Action::Down { all: true, .. } => testbed::down_all()?,
        Action::Down { named, .. } => {
            if !testbed::down(&named.name)? {
                print(&format!("there is no bed named {}", named.name))?;
            }
        }
        Action::Status => status()?,
        Action::LoadImage { named, files } => {
            let bed = attach(&named)?;
            for file in files {
                bed.load_image(&file)?;
            }
        }
        Action::Kubeconfig { named } => print(&attach(&named)?.kubeconfig().display().to_string())?,
        Action::Kubectl { named, args } => return kubectl(&attach(&named)?, &args),
        Action::Logs { named, component } => logs(&named, component)?,
        Action::Build { kubernetes, extras } => {
            parts::ensure_all(kubernetes, kubernetes.has_nodes())?;
            // Collectors last: who needs them first builds them at once.
            for part in [
                Part::Kwok,
                Part::H2spec,
                Part::Collector,
                Part::CollectorWithoutZstd,
            ] {
                if extras {
                    parts::ensure_for(part, kubernetes)?;
                }
            }
            print("every part is there")?;
        }
        Action::Image(args) => image(args)?,
        Action::Index { name, out, images } => write_index(&name, &images, &out)?,
        Action::KubectlPath => print(&parts::ensure(Part::Kubectl)?.display().to_string())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(args: UpArgs) -> Result<()> {
    let builder = Bed::builder()
        .name(args.named.name.to_string())
        .nodes(if args.simulated_nodes > 0 {
            0
        } else {
            args.nodes
        })
        .simulated_nodes(args.simulated_nodes)
        .addresses(args.addresses)
        .kubernetes(args.kubernetes)
        .audit(args.audit);
    let builder = args
        .apiserver_arg
        .into_iter()
        .fold(builder, Builder::apiserver_arg);
    let mut bed = builder.start()?;
    bed.keep()?;
    print(&format!("export KUBECONFIG={}", bed.kubeconfig().display()))
}

fn image(args: ImageArgs) -> Result<()> {
    let mut spec = ImageSpec {
        name: args.name,
        entrypoint: args.entrypoint,
        user: args.user,
        ca_bundle: args.ca_bundle,
        ..ImageSpec::default()
    };
    spec.architecture = args.architecture.unwrap_or(spec.architecture);
    spec.env.extend(args.env);
    spec.labels.extend(args.label);
    spec.files = args
        .files
        .into_iter()
        .map(|(from, to)| (PathBuf::from(from), to))
        .collect();
    spec.write(&args.out)
}

fn attach(named: &Named) -> Result<Bed> {
    Bed::attach(&named.name.to_string())
}

fn print(line: &str) -> Result<()> {
    writeln!(stdout(), "{line}").map_err(|source| Error::Io {
        doing: "print".to_owned(),
        source,
    })
}

fn status() -> Result<()> {
    for bed in testbed::list()? {
        let down: Vec<String> = bed
            .components
            .iter()
            .filter(|(_, alive)| !alive)
            .map(|(component, _)| component.to_string())
            .collect();
        let state = match (bed.owned, down.is_empty()) {
            (false, _) => "abandoned".to_owned(),
            (true, true) => "up".to_owned(),
            (true, false) => format!("not running: {}", down.join(", ")),
        };
        print(&format!(
            "{}\tKubernetes {}\t{} nodes\t{state}",
            bed.name,
            bed.kubernetes,
            u16::from(bed.nodes) + bed.simulated_nodes
        ))?;
    }
    Ok(())
}

fn kubectl(bed: &Bed, args: &[String]) -> Result<ExitCode> {
    let mut kubectl = bed.kubectl();
    kubectl.args(args).stdin(std::process::Stdio::inherit());
    let status = kubectl.status().map_err(|source| Error::Io {
        doing: "run kubectl".to_owned(),
        source,
    })?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Works for beds that are gone, too: that is when one needs logs most.
fn logs(named: &Named, component: Option<Component>) -> Result<()> {
    let dir = named.name.log_dir();
    let Some(component) = component else {
        return print(&dir.display().to_string());
    };
    let path = dir.join(format!("{component}.log"));
    let reading = |source| Error::Io {
        doing: format!("read {}", path.display()),
        source,
    };
    let mut file = std::fs::File::open(&path).map_err(reading)?;
    let copied = std::io::copy(&mut file, &mut stdout());
    copied.map(drop).map_err(|source| Error::Io {
        doing: "print".to_owned(),
        source,
    })
}
