//! A page of the documentation as the steps of somebody who follows it: files to save and commands to run.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use demo::{images, repository};
use testbed::parts::{self, Part};

use super::super::World;

/// What is written in place of a reader's own registry, and of images from public ones. Nothing else is replaced.
const IMAGES: [(&str, &str); 2] = [
    ("registry.example.com/otelagent", "docker.io/otelagent"),
    ("otel/opentelemetry-collector:0.162.0", images::COLLECTOR),
];

/// What the reader has to install with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Kubectl,
    Helm,
}

/// A block of a page.
#[derive(Debug)]
struct Block {
    /// The heading that it is below.
    section: String,
    /// The words behind the three backticks.
    info: Vec<String>,
    text: String,
}

/// One page.
pub(super) struct Page {
    name: &'static str,
    blocks: Vec<Block>,
}

impl Page {
    /// Reads a page of `docs`.
    pub(super) fn read(name: &'static str) -> Self {
        let text = std::fs::read_to_string(repository().join("docs").join(name)).unwrap();
        let mut blocks: Vec<Block> = Vec::new();
        let (mut section, mut is_inside) = (String::new(), false);
        for line in text.lines() {
            if let Some(info) = line.strip_prefix("```") {
                is_inside = !is_inside;
                if is_inside {
                    blocks.push(Block {
                        section: section.clone(),
                        info: info.split(' ').map(str::to_owned).collect(),
                        text: String::new(),
                    });
                }
            } else if is_inside {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            } else if let Some(heading) = line.strip_prefix("## ") {
                heading.clone_into(&mut section);
            }
        }
        assert!(!blocks.is_empty() && !is_inside, "{name}");
        for block in &mut blocks {
            for (written, here) in IMAGES {
                block.text = block.text.replace(written, here);
            }
        }
        Self { name, blocks }
    }

    /// The block whose second word is this one.
    pub(super) fn block(&self, word: &str) -> &str {
        let found = self.blocks.iter().find(|block| block.is(word));
        let found = found.unwrap_or_else(|| panic!("{} has no block `{word}`", self.name));
        &found.text
    }
}

impl Block {
    fn is(&self, word: &str) -> bool {
        self.info.iter().skip(1).any(|other| other == word)
    }

    /// The file that the reader saves it as.
    fn file(&self) -> Option<&str> {
        let mut words = self.info.iter();
        words.find_map(|word| word.strip_prefix("file="))
    }

    fn is_run(&self, tool: Tool) -> bool {
        let other = match tool {
            Tool::Kubectl => "run=kubectl",
            Tool::Helm => "run=helm",
        };
        self.is("run") || self.is(other)
    }
}

/// Somebody who follows pages, in a directory with what the repository ships.
pub(super) struct Reader<'a> {
    world: &'a World,
    tool: Tool,
    directory: PathBuf,
}

impl<'a> Reader<'a> {
    pub(super) fn new(world: &'a World, tool: Tool) -> Self {
        let name = format!("otelagent-book-{tool:?}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(directory.join("bin")).unwrap();
        for shipped in ["manifests", "crds", "charts"] {
            let original = repository().join(shipped);
            if original.exists() {
                symlink(original, directory.join(shipped)).unwrap();
            }
        }
        let kubectl = world.cluster.kubectl().expect("kubectl");
        symlink(kubectl.get_program(), directory.join("bin/kubectl")).unwrap();
        if tool == Tool::Helm {
            let helm = parts::ensure(Part::Helm).expect("Helm");
            symlink(helm, directory.join("bin/helm")).unwrap();
        }
        Self {
            world,
            tool,
            directory,
        }
    }

    /// Does what a page says below a heading that begins so, and returns what the commands said.
    pub(super) fn section(&self, page: &Page, heading: &str) -> String {
        let mut said = String::new();
        let mut done = 0;
        let blocks = page.blocks.iter();
        for block in blocks.filter(|block| block.section.starts_with(heading)) {
            if let Some(file) = block.file() {
                std::fs::write(self.directory.join(file), &block.text).unwrap();
                done += 1;
            } else if block.is_run(self.tool) {
                said.push_str(&self.run(page.name, &block.text));
                done += 1;
            }
        }
        assert!(done > 0, "{}: nothing to do below {heading:?}", page.name);
        said
    }

    /// The commands of one block, as typed into a shell that stops at the first that fails.
    fn run(&self, page: &str, commands: &str) -> String {
        let mut shell = Command::new("bash");
        shell
            .args(["-eu", "-o", "pipefail", "-c", commands])
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        let kubectl = self.world.cluster.kubectl().expect("kubectl");
        for (name, value) in kubectl.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.env("PATH", path_with(&self.directory.join("bin")));
        let output = shell.output().expect("bash runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout);
        assert!(
            output.status.success(),
            "docs/{page}:\n{commands}\n{said}{}",
            text(&output.stderr)
        );
        said
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The search path with one more directory, which comes first.
fn path_with(directory: &Path) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = [directory.to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&rest));
    std::env::join_paths(all).unwrap()
}
