//! The modules of one crate: which names each one has, and which paths its code uses.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Where source text comes from: `None` for a file that does not exist.
pub(crate) type Sources<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// One module, in a file of its own or inline.
pub(crate) struct Module {
    /// The path within the crate, `crate` for the root.
    pub(crate) path: String,
    /// The file that holds it.
    pub(crate) file: PathBuf,
    pub(crate) parent: Option<usize>,
    /// The module whose file this is: itself, unless it is inline.
    pub(crate) unit: usize,
    pub(crate) names: HashMap<String, Vec<Name>>,
    /// Modules whose names are all imported.
    pub(crate) globs: Vec<Vec<String>>,
}

/// What a name in a module stands for. One name can stand for several things, such as a module and a function.
pub(crate) enum Name {
    Item,
    Module(usize),
    Import(Vec<String>),
}

/// A path that the code of a module uses.
pub(crate) struct Use {
    pub(crate) module: usize,
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
    /// The path is only passed on, by `pub use`.
    pub(crate) reexport: bool,
}

/// A type or trait that a module defines, outside of function bodies.
pub(crate) struct Type {
    pub(crate) name: String,
    pub(crate) module: usize,
    pub(crate) line: usize,
}

/// A crate as far as its source is read.
#[derive(Default)]
pub(crate) struct Crate {
    pub(crate) modules: Vec<Module>,
    pub(crate) uses: Vec<Use>,
    pub(crate) types: Vec<Type>,
}

/// Why a crate cannot be read.
#[derive(Debug)]
pub(crate) enum Error {
    Missing(String),
    Syntax(PathBuf, syn::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(module) => write!(f, "no file holds the module {module}"),
            Self::Syntax(file, error) => write!(f, "{}: {error}", file.display()),
        }
    }
}

impl std::error::Error for Error {}

impl Crate {
    /// A line for each name that several types have: a reader could take one for the other.
    pub(crate) fn shared_type_names(&self) -> Vec<String> {
        let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for Type { name, module, line } in &self.types {
            let place = format!("{}:{line}", self.modules[*module].file.display());
            places.entry(name).or_default().push(place);
        }
        let shared = places.into_iter().filter(|(_, places)| places.len() > 1);
        shared
            .map(|(name, places)| format!("types named {name}: {}", places.join(", ")))
            .collect()
    }

    /// What a path means in a module: the module that defines the item, or the module that the path names.
    pub(crate) fn resolve(&self, module: usize, path: &[String]) -> Option<Target> {
        self.walk(module, path, false, 0)
    }

    fn walk(
        &self,
        from: usize,
        path: &[String],
        want_module: bool,
        depth: usize,
    ) -> Option<Target> {
        let wants = |at: usize| want_module || at + 1 < path.len();
        let mut module = match path.first()?.as_str() {
            "crate" => 0,
            "self" => from,
            "super" => self.modules[from].parent?,
            name => match self.lookup(from, name, wants(0), depth)? {
                Target {
                    module,
                    item: false,
                } => module,
                item => return Some(item),
            },
        };
        for (at, name) in path.iter().enumerate().skip(1) {
            if name == "super" {
                module = self.modules[module].parent?;
                continue;
            }
            match self.lookup(module, name, wants(at), depth) {
                Some(Target {
                    module: inner,
                    item: false,
                }) => module = inner,
                Some(item) => return Some(item),
                // A macro made it, or it is another crate's, passed on here.
                None => return Some(Target { module, item: true }),
            }
        }
        Some(Target {
            module,
            item: false,
        })
    }

    fn lookup(&self, module: usize, name: &str, want_module: bool, depth: usize) -> Option<Target> {
        // An import of another crate's `name::name` finds itself.
        if depth > 16 {
            return None;
        }
        let names = self.modules[module]
            .names
            .get(name)
            .map_or(&[][..], Vec::as_slice);
        let inner = names.iter().find_map(|name| match name {
            Name::Module(inner) => Some(Target {
                module: *inner,
                item: false,
            }),
            _ => None,
        });
        let item = names.iter().find_map(|name| match name {
            Name::Item => Some(Target { module, item: true }),
            _ => None,
        });
        let import = || {
            let paths = names.iter().filter_map(|name| match name {
                Name::Import(path) => Some(path),
                _ => None,
            });
            let mut found = paths.map(|path| {
                self.walk(module, path, want_module, depth + 1)
                    .unwrap_or(Target { module, item: true })
            });
            found.next()
        };
        let glob = || {
            self.modules[module].globs.iter().find_map(|path| {
                let from = self.walk(module, path, true, depth + 1)?;
                if from.item || from.module == module {
                    return None;
                }
                self.lookup(from.module, name, want_module, depth + 1)
            })
        };
        if want_module {
            inner.or(item).or_else(import).or_else(glob)
        } else {
            item.or_else(import).or(inner).or_else(glob)
        }
    }
}

/// What a path leads to: an item, with the module that defines it, or a module.
pub(crate) struct Target {
    pub(crate) module: usize,
    pub(crate) item: bool,
}
