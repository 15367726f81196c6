//! The guard of the house: rules about the source that no compiler checks.
//!
//! Modules name only what stands below them in `src/lib.rs`; files have a header and a bearable
//! length; a table is written by its owner alone; a handler says what it handles; no file is called
//! `utils`; every dependency is explained. Each rule is a function from files to complaints, shown
//! to fire on a made-up bad input below.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

const HEADER_LINES_MAX: usize = 12;
const FILE_LINES_MAX: usize = 700;
const SPECIFICATION: &str = "https://spec.matrix.org/v1.19/";
const PROPOSALS: &str = "https://github.com/matrix-org/matrix-spec-proposals/";

/// A file of the repository, by its path from the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Tests may write any table.
    fn is_test(&self) -> bool {
        let in_folder = |folder| self.path.contains(&format!("/{folder}/"));
        self.path.starts_with("tests/")
            || self.path.starts_with("benches/")
            || self.path.ends_with("/tests.rs")
            || in_folder("tests")
            || in_folder("benches")
    }

    /// The module directly below `src/lib.rs` that the file belongs to.
    fn module(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    fn complaint(&self, offset: usize, text: &str) -> String {
        let line = self.text[..offset].matches('\n').count() + 1;
        format!("{}:{line}: {text}", self.path)
    }
}

type Complaints = Vec<String>;

// Reading Rust, as far as the rules need it.

/// The same text with comments, and if wanted the insides of literals, turned into spaces: offsets
/// and lines stay.
fn blank(text: &str, with_literals: bool) -> String {
    let bytes = text.as_bytes();
    let mut result = bytes.to_vec();
    let mut position = 0;
    while position < bytes.len() {
        let (end, is_comment) = token_end(bytes, position);
        let is_long = end > position + 1;
        if is_comment || (with_literals && is_long) {
            for byte in &mut result[position..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        position = end;
    }
    String::from_utf8(result).expect("whole tokens were replaced by spaces")
}

/// Where the comment or literal that begins here ends (or just the next byte), and whether it is a
/// comment.
fn token_end(bytes: &[u8], start: usize) -> (usize, bool) {
    let rest = &bytes[start..];
    let after_word = start > 0 && is_word(bytes[start - 1]);
    if rest.starts_with(b"//") {
        let length = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        (start + length, true)
    } else if rest.starts_with(b"/*") {
        (start + find(rest, b"*/").map_or(rest.len(), |at| at + 2), true)
    } else if rest[0] == b'"' {
        (start + string_length(rest), false)
    } else if rest[0] == b'r' && !after_word && raw_hashes(&rest[1..]).is_some() {
        let hashes = raw_hashes(&rest[1..]).unwrap_or_default();
        let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
        let open = 2 + hashes;
        (
            start + find(&rest[open..], &close).map_or(rest.len(), |at| open + at + close.len()),
            false,
        )
    } else if rest[0] == b'\'' {
        (start + char_length(rest), false)
    } else {
        (start + 1, false)
    }
}

fn raw_hashes(after_r: &[u8]) -> Option<usize> {
    let hashes = after_r.iter().take_while(|&&byte| byte == b'#').count();
    (after_r.get(hashes) == Some(&b'"')).then_some(hashes)
}

fn string_length(text: &[u8]) -> usize {
    let mut position = 1;
    while position < text.len() {
        match text[position] {
            b'\\' => position += 2,
            b'"' => return position + 1,
            _ => position += 1,
        }
    }
    text.len()
}

/// The length of a character literal; a lifetime counts as its quote alone.
fn char_length(text: &[u8]) -> usize {
    if text.get(1) == Some(&b'\\') {
        return text.iter().skip(3).position(|&byte| byte == b'\'').map_or(1, |at| at + 4);
    }
    let after_one = |&at: &usize| text.get(at) == Some(&b'\'');
    // A character has one to four bytes.
    match (2..=5).find(after_one) {
        Some(2) => 3,
        Some(at) if !text[1].is_ascii() => at + 1,
        _ => 1,
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// The word at the start of the text.
fn word(text: &str) -> &str {
    let length = text.bytes().take_while(|&byte| is_word(byte)).count();
    &text[..length]
}

/// The offsets at which `pattern` begins and no word goes on before it.
fn occurrences<'a>(text: &'a str, pattern: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_start = |at: usize| at == 0 || !is_word(text.as_bytes()[at - 1]);
    text.match_indices(pattern).map(|(at, _)| at).filter(move |&at| is_start(at))
}

/// The first words of a path, or of each path in a group: `a::b` and `{a::b, c::{d, e}}`.
fn path_heads(text: &str) -> Vec<&str> {
    let text = text.trim_start();
    let Some(group) = text.strip_prefix('{') else { return vec![word(text)] };
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                heads.push(word(group[start..at].trim_start()));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

// The order of the modules.

/// The modules of `src/lib.rs`, the highest first.
fn module_order(lib: &str) -> Vec<String> {
    let code = blank(lib, true);
    let declarations = code.lines().filter_map(|line| {
        let line = line.trim().strip_suffix(';')?;
        line.rsplit_once("mod ").map(|(_, name)| name.trim().to_owned())
    });
    declarations.collect()
}

/// A module names only itself and modules below it.
fn order_complaints(order: &[String], sources: &[Source]) -> Complaints {
    let place = |name: &str| order.iter().position(|module| module == name);
    let mut complaints = Vec::new();
    for source in sources {
        let Some(module) = source.module() else { continue };
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(own) = place(module) else {
            complaints.push(format!("{}: `{module}` is not in src/lib.rs", source.path));
            continue;
        };
        for (offset, name) in root_references(source) {
            match place(&name) {
                Some(other) if other < own => complaints.push(source.complaint(
                    offset,
                    &format!("`{module}` names `{name}`, which stands above it in src/lib.rs"),
                )),
                Some(_) => {}
                None => complaints.push(
                    source
                        .complaint(offset, &format!("`crate::{name}` is no module of src/lib.rs")),
                ),
            }
        }
    }
    complaints
}

/// What a file names right below the crate's root, as `crate::…` or by climbing there.
fn root_references(source: &Source) -> Vec<(usize, String)> {
    let code = blank(&source.text, true);
    let depth = match source.path.strip_suffix("/mod.rs") {
        Some(folder) => folder.split('/').count() - 1,
        None => source.path.split('/').count() - 1,
    };
    let climb = format!("use {}", "super::".repeat(depth));
    let mut references = Vec::new();
    for at in occurrences(&code, "crate::") {
        // `$crate::` in a macro and `pub(in crate::…)` both name the crate's root.
        let heads = path_heads(&code[at + "crate::".len()..]);
        references.extend(heads.into_iter().map(|head| (at, head.to_owned())));
    }
    for at in occurrences(&code, &climb) {
        // Inside of a module within the file the same words climb less far.
        if at == 0 || code.as_bytes()[at - 1] == b'\n' {
            let heads = path_heads(&code[at + climb.len()..]);
            references.extend(heads.into_iter().map(|head| (at, head.to_owned())));
        }
    }
    references.retain(|(_, head)| !head.is_empty() && head != "self" && head != "super");
    references
}

// Files: header, length, name.

fn file_complaints(source: &Source) -> Complaints {
    let mut complaints = Vec::new();
    let header = source.text.lines().take_while(|line| line.starts_with("//!")).count();
    if header == 0 {
        complaints.push(format!("{}: the file does not begin with a `//!` header", source.path));
    }
    if header > HEADER_LINES_MAX {
        complaints.push(format!(
            "{}: the header has {header} lines, more than {HEADER_LINES_MAX}",
            source.path
        ));
    }
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        complaints.push(format!("{}: {lines} lines, more than {FILE_LINES_MAX}", source.path));
    }
    complaints.extend(name_complaint(&source.path));
    complaints
}

/// A name that says nothing gathers everything.
fn name_complaint(path: &str) -> Option<String> {
    const EMPTY: [&str; 8] =
        ["utils", "util", "common", "helpers", "helper", "core", "manager", "misc"];
    let mut names = path.split('/').map(|name| name.strip_suffix(".rs").unwrap_or(name));
    let name = names.find(|name| EMPTY.contains(name))?;
    Some(format!("{path}: `{name}` says nothing; name it for what it is about"))
}

// Tables: tags and owners.

/// A declaration such as
/// `pub const EVENTS: Table<EventKey, EventBytes> = Table::new("events", EV, 0, "rooms");`.
#[derive(Debug, PartialEq)]
struct TableDeclaration {
    constant: String,
    name: String,
    family: String,
    tag: String,
    owner: String,
}

fn table_declarations(source: &Source) -> Vec<TableDeclaration> {
    let code = blank(&source.text, false);
    let found = occurrences(&code, "Table::new(").filter_map(|at| {
        let before = &code[..at];
        let constant = word(&before[before.rfind("const ")? + "const ".len()..]).to_owned();
        let arguments = &code[at + "Table::new(".len()..];
        let arguments = arguments[..arguments.find(')')?].split(',').map(str::trim);
        let mut arguments = arguments.map(|argument| argument.trim_matches('"').to_owned());
        Some(TableDeclaration {
            constant,
            name: arguments.next()?,
            family: arguments.next()?,
            tag: arguments.next()?,
            owner: arguments.next()?,
        })
    });
    found.collect()
}

/// Names and constants are unique, and so are tags within a family.
fn tag_complaints(tables: &[TableDeclaration]) -> Complaints {
    let mut seen: BTreeSet<(&str, String)> = BTreeSet::new();
    let mut complaints = Vec::new();
    for table in tables {
        let TableDeclaration { constant, name, family, tag, .. } = table;
        let number = match tag.strip_prefix("0x") {
            Some(digits) => u8::from_str_radix(digits, 16).ok(),
            None => tag.parse().ok(),
        };
        let place = format!("{family} {}", number.map_or(tag.clone(), |number| number.to_string()));
        for (what, value) in [("constant", constant), ("name", name), ("tag", &place)] {
            if !seen.insert((what, value.clone())) {
                complaints.push(format!("two tables have the {what} `{value}`: one is `{name}`"));
            }
        }
        if number == Some(u8::MAX) {
            complaints.push(format!("the tag of `{name}` is 255, which ends a family"));
        }
    }
    complaints
}

/// A table is written below `src/<owner>/`, in tests, and by migrations.
fn writer_complaints(tables: &[TableDeclaration], sources: &[Source]) -> Complaints {
    let owners: BTreeMap<&str, &str> =
        tables.iter().map(|table| (table.constant.as_str(), table.owner.as_str())).collect();
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        if !source.path.starts_with("src/") || source.path.starts_with("src/storage/migrations") {
            continue;
        }
        for (offset, constant) in table_writes(&source.text) {
            let Some(owner) = owners.get(constant.as_str()) else { continue };
            let is_owner = source.path == format!("src/{owner}.rs")
                || source.path.starts_with(&format!("src/{owner}/"));
            if !is_owner {
                complaints.push(source.complaint(
                    offset,
                    &format!("`{constant}` is written here, but only `{owner}` may"),
                ));
            }
        }
    }
    complaints
}

/// Calls such as `.put(&schema::rooms::EVENTS, …)` outside of the file's own tests.
fn table_writes(text: &str) -> Vec<(usize, String)> {
    let code = blank(text, true);
    let tests = code.find("#[cfg(test)]\nmod ").filter(|&at| {
        let rest = &code[at..];
        rest.find('{').unwrap_or(usize::MAX) < rest.find(';').unwrap_or(usize::MAX)
    });
    let code = &code[..tests.unwrap_or(code.len())];
    let mut writes = Vec::new();
    for method in [".put(", ".delete(", ".delete_range(", ".add("] {
        for (at, _) in code.match_indices(method) {
            let argument = code[at + method.len()..].trim_start().trim_start_matches('&');
            let path: String = argument
                .chars()
                .take_while(|&c| c == ':' || c == '_' || c.is_alphanumeric())
                .collect();
            let last = path.rsplit("::").next().unwrap_or_default().to_owned();
            writes.push((at, last));
        }
    }
    writes
}

// Handlers: what they handle, and where it is specified.

fn handler_complaints(source: &Source) -> Complaints {
    let apis = ["src/client_api/", "src/federation_api/", "src/appservice_api/"];
    if source.is_test() || !apis.iter().any(|api| source.path.starts_with(api)) {
        return Vec::new();
    }
    let code = blank(&source.text, true);
    let mut complaints = Vec::new();
    for at in occurrences(&code, "async fn ") {
        let start = code[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let signature = &code[at..at + code[at..].find('{').unwrap_or(0)];
        let is_public = code[start..at].trim_start().starts_with("pub");
        if is_public && takes_a_request(signature) {
            let name = word(&signature["async fn ".len()..]);
            let docs = docs_above(&source.text, start);
            complaints.extend(
                docs_complaint(&docs)
                    .map(|text| source.complaint(at, &format!("handler `{name}`: {text}"))),
            );
        }
    }
    complaints
}

fn takes_a_request(signature: &str) -> bool {
    occurrences(signature, "Request").any(|at| {
        let end = at + "Request".len();
        signature.as_bytes().get(end).is_none_or(|&byte| !is_word(byte))
    })
}

/// The lines of the doc comment above an item that begins at `start`.
fn docs_above(text: &str, start: usize) -> Vec<String> {
    let mut docs: Vec<String> = Vec::new();
    for line in text[..start].lines().rev().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            docs.push(text.trim().to_owned());
        } else if !docs.is_empty() || line.is_empty() || line == "}" {
            break;
        }
    }
    docs.reverse();
    docs
}

fn docs_complaint(docs: &[String]) -> Option<String> {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
    let names_endpoint = docs
        .first()
        .is_some_and(|line| METHODS.iter().any(|method| line.contains(&format!("`{method} /"))));
    if !names_endpoint {
        return Some("line 1 of its docs names no method and path, as in `GET /…`".to_owned());
    }
    let has_link =
        docs.get(1).is_some_and(|line| line.contains(SPECIFICATION) || line.contains(PROPOSALS));
    (!has_link).then(|| format!("line 2 of its docs has no link to {SPECIFICATION}…"))
}

// Dependencies.

/// The names in the tables of dependencies of a manifest, without the crates of this workspace.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_inside = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            is_inside = section.trim_end_matches(']').ends_with("dependencies");
        } else if is_inside && !line.contains("path = ") {
            names.extend(line.split_once('=').map(|(name, _)| name.trim().to_owned()));
        }
    }
    names
}

fn dependency_complaints(dependencies: &BTreeSet<String>, explained: &str) -> Complaints {
    let rows = explained.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let rows: BTreeSet<String> = rows.map(str::to_owned).collect();
    let missing = dependencies.difference(&rows);
    let stale = rows.difference(dependencies);
    missing
        .map(|name| format!("docs/dependencies.md does not say why `{name}` is there"))
        .chain(stale.map(|name| format!("docs/dependencies.md explains `{name}`, which is gone")))
        .collect()
}

// The repository.

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file of the workspace.
fn rust_sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "crates", "tests", "benches"] {
        collect(folder, ".rs", &mut paths);
    }
    paths.sort();
    paths.into_iter().map(|path| Source { text: read(&path), path }).collect()
}

/// The files below a folder whose path ends so; without what a package manager put there.
fn collect(folder: &str, ending: &str, paths: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{folder}/{name}");
        if entry.path().is_dir() && name != "node_modules" {
            collect(&path, ending, paths);
        } else if path.ends_with(ending) {
            paths.push(path);
        }
    }
}

fn schema_tables(sources: &[Source]) -> Vec<TableDeclaration> {
    let schema = sources.iter().filter(|source| source.path.starts_with("src/storage/schema"));
    schema.flat_map(table_declarations).collect()
}

#[track_caller]
fn assert_tidy(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn modules_name_only_what_stands_below_them() {
    let order = module_order(&read("src/lib.rs"));
    assert_tidy(&order_complaints(&order, &rust_sources()));
}

#[test]
fn files_have_a_header_a_length_and_a_name() {
    assert_tidy(&rust_sources().iter().flat_map(file_complaints).collect::<Vec<_>>());
}

#[test]
fn tables_are_told_apart() {
    assert_tidy(&tag_complaints(&schema_tables(&rust_sources())));
}

#[test]
fn tables_are_written_by_their_owners() {
    let sources = rust_sources();
    assert_tidy(&writer_complaints(&schema_tables(&sources), &sources));
}

#[test]
fn handlers_say_what_they_handle() {
    assert_tidy(&rust_sources().iter().flat_map(handler_complaints).collect::<Vec<_>>());
}

#[test]
fn dependencies_are_explained() {
    let mut manifests = vec!["Cargo.toml".to_owned()];
    for folder in ["crates", "tests", "benches"] {
        collect(folder, "Cargo.toml", &mut manifests);
    }
    let names = manifests.iter().flat_map(|path| dependencies(&read(path))).collect();
    assert_tidy(&dependency_complaints(&names, &read("docs/dependencies.md")));
}

// The rules fire.

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn comments_and_literals_are_blanked() {
    let text = "a // x\n\"b // c\" 'd' '\\'' 'é' r#\"e\"#; fn f<'g>(h: &'g str) /* i */ {}";
    let code = blank(text, true);
    assert_eq!(code.len(), text.len());
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", ";", "fn", "f<'g>(h:", "&'g", "str)", "{}"]);
    assert!(blank(text, false).contains("\"b // c\""));
}

#[test]
fn a_reference_upwards_is_found() {
    let order =
        module_order("//! mod no;\npub mod top;\n\n// Text.\npub(crate) mod middle;\nmod low;");
    assert_eq!(order, ["top", "middle", "low"]);
    let bad = [
        ("src/low.rs", "use crate::middle::X;"),
        ("src/low/a.rs", "use crate::{\n    low::{self, top},\n    top::{X, Y},\n};"),
        ("src/low/a/b.rs", "fn f() { crate::top::g(); }"),
        ("src/low/mod.rs", "use super::middle;"),
        ("src/low/a.rs", "use super::super::{low, middle};"),
        ("src/low/tests.rs", "use crate::middle;"),
        ("src/other.rs", ""),
        ("src/low.rs", "use crate::Hidden;"),
    ];
    for (path, text) in bad {
        assert_eq!(order_complaints(&order, &[source(path, text)]).len(), 1, "{path} {text}");
    }
    let good = [
        ("src/top.rs", "use crate::{middle::{X, Y}, low};"),
        ("src/low/a.rs", "// crate::top\nuse super::middle; const A: &str = \"crate::top\";"),
        ("src/low.rs", "pub(crate) fn f() {}\nmod tests {\n    use super::top;\n}"),
        ("src/main.rs", "use crate::top;"),
        ("crates/kv/src/lib.rs", "use crate::top;"),
    ];
    for (path, text) in good {
        assert_tidy(&order_complaints(&order, &[source(path, text)]));
    }
}

#[test]
fn a_bad_file_is_found() {
    let long = format!("//! Fine.\n{}", "x\n".repeat(FILE_LINES_MAX));
    let headers = "//! x\n".repeat(HEADER_LINES_MAX + 1);
    let bad = [("src/a.rs", "use x;"), ("src/a.rs", long.as_str()), ("src/a.rs", headers.as_str())];
    for (path, text) in bad {
        assert_eq!(file_complaints(&source(path, text)).len(), 1);
    }
    for path in ["src/utils.rs", "src/rooms/common/mod.rs", "tests/helpers.rs", "src/core/x.rs"] {
        assert_eq!(file_complaints(&source(path, "//! Fine.")).len(), 1, "{path}");
    }
}

#[test]
fn tables_that_clash_are_found() {
    let text = "/// Table::new(\"no\", A, 9, \"x\")\npub const ONE: Table<K, V> =\n    \
                Table::new(\"one\", EV, 1, \"rooms\");\npub const TWO: Table<A<K>, V> = \
                Table::new(\"two\", EV, 0x01, \"users\");";
    let mut tables = table_declarations(&source("src/storage/schema.rs", text));
    assert_eq!(tables.len(), 2);
    assert_eq!((tables[1].constant.as_str(), tables[1].owner.as_str()), ("TWO", "users"));
    assert_eq!(tag_complaints(&tables), ["two tables have the tag `EV 1`: one is `two`"]);
    tables[1].tag = "255".to_owned();
    assert_eq!(tag_complaints(&tables).len(), 1);
    tables[1].family = "EM".to_owned();
    tables[1].tag = "1".to_owned();
    assert_tidy(&tag_complaints(&tables));
    tables[1].name = "one".to_owned();
    assert_eq!(tag_complaints(&tables).len(), 1);
}

#[test]
fn a_foreign_writer_is_found() {
    let text = "pub const ONE: Table<K, V> = Table::new(\"one\", EV, 1, \"rooms\");";
    let tables = table_declarations(&source("src/storage/schema.rs", text));
    let writes = [
        "batch.put(&schema::ONE, &key, &value);",
        "batch\n    .delete(\n        &ONE, &key);",
        "batch.add(&crate::storage::schema::rooms::ONE, &key, 1);",
        "batch.delete_range(&ONE, range);",
    ];
    for write in writes {
        for path in ["src/users/a.rs", "src/roomsy/a.rs", "src/users.rs"] {
            assert_eq!(writer_complaints(&tables, &[source(path, write)]).len(), 1, "{write}");
        }
        let in_test = format!("#[cfg(test)]\nmod tests {{\n{write}\n}}");
        for path in ["src/rooms/a.rs", "src/rooms.rs", "tests/a.rs", "src/users/tests.rs"] {
            assert_tidy(&writer_complaints(&tables, &[source(path, write)]));
        }
        assert_tidy(&writer_complaints(&tables, &[source("src/users/a.rs", &in_test)]));
    }
    let reads = "snapshot.get(&ONE, &key); set.add(&two, 1); // batch.put(&ONE, ..)";
    assert_tidy(&writer_complaints(&tables, &[source("src/users/a.rs", reads)]));
}

#[test]
fn a_handler_without_docs_is_found() {
    let link = "/// <https://spec.matrix.org/v1.19/client-server-api/#x>\n";
    let first = "/// `GET /_matrix/client/v3/x`\n";
    let handler =
        "#[expect(x)]\npub(crate) async fn x(app: App, request: x::v3::Request) -> R {}\n";
    let path = "src/client_api/x.rs";
    let bad = [
        handler.to_owned(),
        format!("{first}{handler}"),
        format!("{first}///\n{link}{handler}"),
        format!("{link}{handler}"),
        format!("{first}/// <https://spec.matrix.org/latest/>\n{handler}"),
        format!("{first}{link}fn other() {{\n}}\n{handler}"),
    ];
    for text in bad {
        assert_eq!(handler_complaints(&source(path, &text)).len(), 1, "{text}");
    }
    let good = [
        format!("{first}{link}{handler}"),
        format!("{first}/// <{PROPOSALS}pull/4186>\n/// More.\n{handler}"),
        "pub async fn x(auth: Requester) {}".to_owned(),
        "async fn private(request: Request) {}".to_owned(),
    ];
    for text in good {
        assert_tidy(&handler_complaints(&source(path, &text)));
    }
    assert_tidy(&handler_complaints(&source("src/rooms/x.rs", handler)));
}

#[test]
fn an_unexplained_dependency_is_found() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na = \"1\"\nown = { path = \"y\" }\n\
                    [dev-dependencies]\nb = { version = \"1\" }\n[profile.dev]\ndebug = 1\n";
    let names = dependencies(manifest);
    assert_eq!(names, ["a", "b"].map(str::to_owned).into());
    assert_tidy(&dependency_complaints(&names, "| `a` | x |\n| `b` | y |\n"));
    assert_eq!(dependency_complaints(&names, "| `a` | x |\n| `c` | y |\n").len(), 2);
}
