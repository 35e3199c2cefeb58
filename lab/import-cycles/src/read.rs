//! Reads a crate's source, file by file, as `mod` declarations name them. Code for tests is left out.

use std::path::{Path, PathBuf};

use proc_macro2::{Spacing, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Meta, UseTree, Visibility};

use crate::modules::{Crate, Error, Module, Name, Sources, Type, Use};

/// Reads the crate whose root is this file.
pub(crate) fn read(root: &Path, sources: Sources<'_>) -> Result<Crate, Error> {
    let mut reader = Reader {
        sources,
        found: Crate::default(),
        module: 0,
        bodies: 0,
        children: root.parent().map(Path::to_owned).unwrap_or_default(),
        error: None,
    };
    reader.enter("crate", root.to_owned(), None);
    reader.file(root);
    match reader.error {
        Some(error) => Err(error),
        None => Ok(reader.found),
    }
}

struct Reader<'a> {
    sources: Sources<'a>,
    found: Crate,
    /// The module that is being read.
    module: usize,
    /// How many function bodies, one in another, the item is in.
    bodies: usize,
    /// Where the files of its child modules are.
    children: PathBuf,
    error: Option<Error>,
}

impl Reader<'_> {
    /// Adds a module, in a file of its own or, with the unit of its parent, inline.
    fn enter(&mut self, name: &str, file: PathBuf, unit: Option<usize>) -> usize {
        let index = self.found.modules.len();
        let parent = (index > 0).then_some(self.module);
        let path = match parent {
            Some(parent) if parent > 0 => format!("{}::{name}", self.found.modules[parent].path),
            _ => name.to_owned(),
        };
        let unit = unit.unwrap_or(index);
        self.found.modules.push(Module {
            path,
            file,
            parent,
            unit,
            names: [].into(),
            globs: Vec::new(),
        });
        index
    }

    fn file(&mut self, path: &Path) {
        let Some(text) = (self.sources)(path) else {
            self.error
                .get_or_insert(Error::Missing(path.display().to_string()));
            return;
        };
        match syn::parse_file(&text) {
            Ok(file) => self.visit_file(&file),
            Err(error) => drop(
                self.error
                    .get_or_insert(Error::Syntax(path.to_owned(), error)),
            ),
        }
    }

    fn child(&mut self, item: &ItemMod) {
        let name = item.ident.to_string();
        let children = self.children.join(&name);
        let here = self.found.modules[self.module].unit;
        let (file, unit) = if item.content.is_some() {
            (self.found.modules[here].file.clone(), Some(here))
        } else {
            let files = match path_attribute(&item.attrs) {
                Some(path) => [self.children.join(path), PathBuf::new()],
                None => [children.with_extension("rs"), children.join("mod.rs")],
            };
            let Some(file) = files
                .into_iter()
                .find(|file| (self.sources)(file).is_some())
            else {
                self.error
                    .get_or_insert(Error::Missing(children.display().to_string()));
                return;
            };
            (file, None)
        };
        let child = self.enter(&name, file.clone(), unit);
        self.name(&name, Name::Module(child));
        let outer = (self.module, std::mem::replace(&mut self.children, children));
        self.module = child;
        match &item.content {
            Some((_, items)) => items.iter().for_each(|item| self.visit_item(item)),
            None => self.file(&file),
        }
        (self.module, self.children) = outer;
    }

    fn name(&mut self, name: &str, meaning: Name) {
        self.found.modules[self.module]
            .names
            .entry(name.to_owned())
            .or_default()
            .push(meaning);
    }

    fn type_name(&mut self, item: &Item, ident: &syn::Ident) {
        let is_type = matches!(
            item,
            Item::Enum(_) | Item::Struct(_) | Item::Trait(_) | Item::Type(_) | Item::Union(_)
        );
        if is_type && self.bodies == 0 {
            self.found.types.push(Type {
                name: ident.to_string(),
                module: self.module,
                line: ident.span().start().line,
            });
        }
    }

    fn used(&mut self, path: Vec<String>, line: usize, reexport: bool) {
        self.found.uses.push(Use {
            module: self.module,
            path,
            line,
            reexport,
        });
    }

    /// Takes every import out of a `use` item.
    fn import(&mut self, tree: &UseTree, prefix: &[String], reexport: bool) {
        let (ident, alias) = match tree {
            UseTree::Path(path) => {
                let prefix = [prefix, &[path.ident.to_string()]].concat();
                return self.import(&path.tree, &prefix, reexport);
            }
            UseTree::Group(group) => {
                return group
                    .items
                    .iter()
                    .for_each(|tree| self.import(tree, prefix, reexport));
            }
            UseTree::Glob(_) => {
                return self.found.modules[self.module]
                    .globs
                    .push(prefix.to_owned());
            }
            UseTree::Name(name) => (&name.ident, &name.ident),
            UseTree::Rename(rename) => (&rename.ident, &rename.rename),
        };
        let mut path = prefix.to_owned();
        let mut alias = alias.to_string();
        if ident != "self" {
            path.push(ident.to_string());
        } else if let Some(last) = prefix.last().filter(|_| alias == "self") {
            alias.clone_from(last);
        }
        self.name(&alias, Name::Import(path.clone()));
        self.used(path, ident.span().start().line, reexport);
    }

    /// Finds paths in what only a macro or an attribute understands.
    fn tokens(&mut self, tokens: TokenStream, attribute: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let colons = |at: usize| {
            let two = tokens.get(at..at + 2);
            two.is_some_and(|two| punct(&two[0], ':') && joint(&two[0]) && punct(&two[1], ':'))
        };
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream(), attribute),
                TokenTree::Literal(literal) if attribute => {
                    let text: Result<syn::LitStr, _> = syn::parse_str(&literal.to_string());
                    if let Some(path) = text.ok().and_then(|text| text.parse::<syn::Path>().ok()) {
                        self.used(segments(&path), literal.span().start().line, false);
                    }
                }
                TokenTree::Ident(ident) => {
                    let field = at > 0
                        && punct(&tokens[at - 1], '.')
                        && !(at > 1 && punct(&tokens[at - 2], '.'));
                    let tail = at > 1 && colons(at - 2);
                    let mut path = vec![ident.to_string()];
                    while colons(at + 1)
                        && let Some(TokenTree::Ident(next)) = tokens.get(at + 3)
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    if !field && !tail {
                        self.used(path, ident.span().start().line, false);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, ident) = match item {
            Item::Const(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::ExternCrate(item) => (&item.attrs, None),
            Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            Item::Impl(item) => (&item.attrs, None),
            Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
            Item::Mod(item) => (&item.attrs, None),
            Item::Static(item) => (&item.attrs, Some(&item.ident)),
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            Item::Union(item) => (&item.attrs, Some(&item.ident)),
            Item::Use(item) => (&item.attrs, None),
            _ => return visit::visit_item(self, item),
        };
        if attributes.iter().any(for_tests) {
            return;
        }
        if let Some(ident) = ident {
            self.name(&ident.to_string(), Name::Item);
            self.type_name(item, ident);
        }
        visit::visit_item(self, item);
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.bodies += 1;
        visit::visit_block(self, block);
        self.bodies -= 1;
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.child(item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.used(segments(path), path.span().start().line, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone(), false);
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone(), true);
        }
        visit::visit_attribute(self, attribute);
    }
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments
        .iter()
        .map(|segment| segment.ident.to_string())
        .collect()
}

fn punct(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

fn joint(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.spacing() == Spacing::Joint)
}

/// `#[cfg(test)]`, or `#[cfg(all(test, ...))]`.
fn for_tests(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    let condition = list.tokens.to_string();
    list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all (test"))
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes
        .iter()
        .find_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                syn::Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(path),
                    ..
                }) => Some(path.value()),
                _ => None,
            },
            _ => None,
        })
}
