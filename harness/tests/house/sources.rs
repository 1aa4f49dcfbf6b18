//! Reads the Rust files of the repository, and lists what the rules ask about.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, ImplItem, Item, LitStr, Meta, UseTree};

/// Every Rust file of the repository.
pub static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let mut sources = Vec::new();
    for folder in ["benches", "harness", "src", "tests"] {
        read(folder, &mut sources);
    }
    sources
});

/// A name with its line.
pub struct Named {
    pub name: String,
    pub line: usize,
}

/// A Rust file. Its tests are only in the text.
#[derive(Default)]
pub struct Source {
    /// The path from the root of the repository.
    pub file: String,
    /// The module, from its crate on, such as `harness::report::page`.
    pub module: String,
    pub text: String,
    /// The paths of `use` trees, `mod` declarations and code, from their crate on.
    pub paths: Vec<Named>,
    /// The functions, each with its number of lines.
    pub functions: Vec<(Named, usize)>,
    /// The structs, enums, traits and type aliases.
    pub types: Vec<Named>,
    /// The string literals.
    pub literals: Vec<Named>,
}

impl Source {
    pub fn parse(file: &str, text: &str) -> Self {
        let module = module(file);
        let mut reader = Reader { scope: module.clone(), ..Reader::default() };
        if !is_test(file) {
            reader.visit_file(&syn::parse_file(text).expect(file));
        }
        let (file, text) = (file.to_owned(), text.to_owned());
        Self { file, module, text, paths: reader.paths(), ..reader.source }
    }
}

/// Returns the folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the text of a file of the repository.
pub fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).expect(file)
}

fn read(folder: &str, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{folder}/{name}");
        if entry.file_type().unwrap().is_dir() && name != "target" {
            read(&path, sources);
        } else if name.ends_with(".rs") {
            sources.push(Source::parse(&path, &text(&path)));
        }
    }
}

/// Returns whether a file holds nothing but tests.
fn is_test(file: &str) -> bool {
    file.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Returns the module that a file holds: `harness::report` for `harness/src/report.rs`.
fn module(file: &str) -> String {
    let path = match file.split_once("src/") {
        Some(("", "lib.rs")) => "ringmark".to_owned(),
        Some(("", "main.rs")) => "server".to_owned(),
        Some(("", inner)) => format!("ringmark/{inner}"),
        Some(("harness/", "main.rs")) => "harness".to_owned(),
        Some(("harness/", inner)) => format!("harness/{inner}"),
        _ => file.to_owned(),
    };
    path.trim_end_matches(".rs").replace('/', "::")
}

/// Lists what stands in one file.
#[derive(Default)]
struct Reader {
    source: Source,
    /// The module that is being read, which may lie within the file's.
    scope: String,
    /// The paths as they are written, each with its scope.
    written: Vec<(String, Named)>,
    /// The imported names, each with its path.
    aliases: BTreeMap<String, String>,
}

impl Reader {
    /// Returns the paths, each from its crate on.
    fn paths(&self) -> Vec<Named> {
        let mut paths = Vec::new();
        for (scope, Named { name, line }) in &self.written {
            let name =
                match name.split_once("::").map(|(first, _)| self.aliases.get_key_value(first)) {
                    Some(Some((alias, path))) => name.replacen(alias, path, 1),
                    _ => name.clone(),
                };
            paths.push(Named { name: absolute(scope, &name), line: *line });
        }
        paths
    }

    fn add_path(&mut self, name: String, line: usize) {
        self.written.push((self.scope.clone(), Named { name, line }));
    }

    fn add_literal(&mut self, name: &str, line: usize) {
        // Serde finds functions by such literals.
        if name.starts_with("crate::") {
            self.add_path(name.to_owned(), line);
        }
        self.source.literals.push(Named { name: name.to_owned(), line });
    }

    fn add_function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.fn_token.span.start().line;
        let last = block.brace_token.span.close().end().line;
        self.source.functions.push((named(&signature.ident), last - first + 1));
    }

    fn add_use(&mut self, prefix: &str, tree: &UseTree) {
        let (name, alias) = match tree {
            UseTree::Path(path) => {
                return self.add_use(&format!("{prefix}{}::", path.ident), &path.tree);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|item| self.add_use(prefix, item));
            }
            UseTree::Glob(glob) => {
                return self.add_path(format!("{prefix}*"), glob.star_token.span.start().line);
            }
            UseTree::Name(name) => (&name.ident, None),
            UseTree::Rename(name) => (&name.ident, Some(&name.rename)),
        };
        let path = format!("{prefix}{name}").trim_end_matches("::self").to_owned();
        let last = path.rsplit("::").next().unwrap_or_default();
        self.aliases.insert(alias.map_or(last.to_owned(), Ident::to_string), path.clone());
        self.add_path(path, named(name).line);
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a Item) {
        match item {
            Item::Use(item) => self.add_use("", &item.tree),
            Item::Fn(item) => self.add_function(&item.sig, &item.block),
            Item::Struct(syn::ItemStruct { ident, .. })
            | Item::Enum(syn::ItemEnum { ident, .. })
            | Item::Trait(syn::ItemTrait { ident, .. })
            | Item::Type(syn::ItemType { ident, .. }) => self.source.types.push(named(ident)),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        let Named { name, line } = named(&item.ident);
        if item.attrs.iter().any(is_for_tests) {
            return;
        }
        if item.content.is_none() {
            return self.add_path(name, line);
        }
        let outer = self.scope.clone();
        self.scope = format!("{outer}::{name}");
        visit::visit_item_mod(self, item);
        self.scope = outer;
    }

    fn visit_impl_item(&mut self, item: &'a ImplItem) {
        if let ImplItem::Fn(item) = item {
            self.add_function(&item.sig, &item.block);
        }
        visit::visit_impl_item(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        item.default.iter().for_each(|block| self.add_function(&item.sig, block));
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if !attribute.path().is_ident("doc") {
            visit::visit_attribute(self, attribute);
        }
    }

    fn visit_lit_str(&mut self, literal: &'a LitStr) {
        self.add_literal(&literal.value(), literal.span().start().line);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if names.len() > 1 {
            self.add_path(names.join("::"), named(&path.segments[0].ident).line);
        }
        visit::visit_path(self, path);
    }

    /// Reads macros and attributes, which syn leaves as tokens.
    fn visit_token_stream(&mut self, tokens: &'a TokenStream) {
        let mut tokens = tokens.clone().into_iter().peekable();
        while let Some(token) = tokens.next() {
            let line = token.span().start().line;
            match token {
                TokenTree::Ident(first) => {
                    let mut path = first.to_string();
                    while let Some(next) = tokens.next_if(|next| goes_on(&path, next)) {
                        path += &next.to_string();
                    }
                    if path.contains("::") {
                        self.add_path(path.trim_end_matches(':').to_owned(), line);
                    }
                }
                TokenTree::Group(group) => self.visit_token_stream(&group.stream()),
                TokenTree::Literal(text) => {
                    self.add_literal(text.to_string().trim_matches('"'), line);
                }
                TokenTree::Punct(_) => {}
            }
        }
    }
}

fn named(name: &Ident) -> Named {
    Named { name: name.to_string(), line: name.span().start().line }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    }
}

/// Returns whether a token belongs to the path before it.
fn goes_on(path: &str, next: &TokenTree) -> bool {
    match next {
        TokenTree::Punct(sign) => sign.as_char() == ':',
        TokenTree::Ident(_) => path.ends_with("::"),
        _ => false,
    }
}

/// Returns a path from its crate on. A path into no crate of ours follows the scope.
fn absolute(scope: &str, written: &str) -> String {
    let mut path = scope.to_owned();
    for (index, segment) in written.split("::").enumerate() {
        match (segment, index) {
            ("crate", _) => path.truncate(path.find("::").unwrap_or(path.len())),
            ("super", _) => path.truncate(path.rfind("::").unwrap_or(path.len())),
            ("self", _) => {}
            ("ringmark", 0) => path = segment.to_owned(),
            _ => path = format!("{path}::{segment}"),
        }
    }
    path
}

#[test]
fn functions_are_counted_from_fn_to_brace() {
    let text = "/// Doc\n#[inline]\npub fn a() {\n}\ntrait T { fn b() {} fn c(); }
impl T for u8 {\n  fn d(\n  ) {}\n}\n#[cfg(test)] mod tests { fn e() {} }";
    let functions = Source::parse("src/a.rs", text).functions;
    let functions: Vec<_> = functions.iter().map(|(f, lines)| (&*f.name, f.line, *lines)).collect();
    assert_eq!(functions, [("a", 3, 2), ("b", 5, 1), ("d", 7, 2)]);
}

#[test]
fn types_and_literals_are_found() {
    let text = "enum A { X } type B = u8; impl T for A { type Error = ();
} fn f() { g(\"a\", matches!(x, \"b\")) }";
    let source = Source::parse("src/a.rs", text);
    let names = |list: &[Named]| list.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&source.types), ["A", "B"]);
    assert_eq!(names(&source.literals), ["a", "b"]);
}
