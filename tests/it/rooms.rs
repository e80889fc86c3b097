//! The rooms of the source: which module uses which, read from its paths. Siblings never use one another in a circle, at
//! any level of the tree, so each can be understood, and moved, without the other.
//!
//! What a child takes from its parent and a parent from its children does not count: they are one room. `cargo test
//! --test it rooms -- --nocapture` prints the picture.

use crate::tidy::{CRATES, Source, sources};
use std::collections::{BTreeMap, BTreeSet};

/// A module's path inside its crate; the crate itself is empty.
type Module = Vec<String>;
/// By parent: child → the siblings that it uses, each with a line that does.
type Rooms = BTreeMap<Module, BTreeMap<String, BTreeMap<String, String>>>;

fn module_of(path: &str) -> Module {
    let parts = path.trim_end_matches(".rs").split('/').map(str::to_owned);
    parts.filter(|part| !["lib", "main"].contains(&part.as_str())).collect()
}

/// Every path that a `use` tree names: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn flatten(tree: &str, before: &[String], paths: &mut Vec<Module>) {
    let tree = tree.trim();
    if let Some(inner) = tree.strip_prefix('{').and_then(|tree| tree.strip_suffix('}')) {
        let (mut depth, mut from) = (0, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    flatten(&inner[from..at], before, paths);
                    from = at + 1;
                }
                _ => {}
            }
        }
        return flatten(&inner[from..], before, paths);
    }
    match tree.split_once("::") {
        Some((first, rest)) => flatten(rest, &[before, &[first.trim().to_owned()]].concat(), paths),
        None if tree.is_empty() => {}
        None => {
            let name = tree.split_whitespace().next().expect("checked to be not empty");
            paths.push([before, &[name.to_owned()]].concat());
        }
    }
}

/// The paths that a source names, from `use` declarations and in its code, as written, with the line.
fn paths(source: &Source) -> Vec<(Module, String)> {
    let mut found = vec![];
    let mut lines = source.code();
    while let Some((number, line)) = lines.next() {
        let place = format!("{}:{number}", source.path);
        let declared = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(super) ");
        let declared = declared.trim_start_matches("pub(crate) ");
        if let Some(start) = declared.strip_prefix("use ") {
            let mut tree = start.to_owned();
            while !tree.contains(';') {
                let Some((_, more)) = lines.next() else { break };
                tree.push_str(more);
            }
            let mut flat = vec![];
            flatten(tree.trim().trim_end_matches(';'), &[], &mut flat);
            found.extend(flat.into_iter().map(|path| (path, place.clone())));
            continue;
        }
        for root in ["crate::", "super::"] {
            for (at, _) in line.match_indices(root) {
                if line[..at].ends_with("::") || line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                    continue;
                }
                let end = line[at..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
                let path = &line[at..end.map_or(line.len(), |end| at + end)];
                found.push((path.split("::").map(str::to_owned).collect(), place.clone()));
            }
        }
    }
    found
}

/// Where a path as written leads: the deepest module of the crate on it. `None`: out of the crate.
fn target(own: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    let (mut at, mut rest) = match path.first()?.as_str() {
        "crate" => (vec![], &path[1..]),
        "super" => (own.clone(), path),
        // A child by its bare name is the parent's own room.
        _ => return None,
    };
    while rest.first().is_some_and(|part| part == "super") {
        at.pop()?;
        rest = &rest[1..];
    }
    for part in rest {
        let next = [at.clone(), vec![part.clone()]].concat();
        if !modules.contains(&next) {
            break;
        }
        at = next;
    }
    Some(at)
}

fn rooms(folder: &str) -> Rooms {
    let sources: Vec<(Module, Source)> = sources(&[folder])
        .into_iter()
        .filter(|source| !source.is_test())
        .map(|source| (module_of(source.path.strip_prefix(folder).unwrap().trim_start_matches('/')), source))
        .collect();
    let modules: BTreeSet<Module> = sources.iter().map(|(module, _)| module.clone()).collect();
    let mut rooms = Rooms::new();
    for (own, source) in &sources {
        for (path, place) in paths(source) {
            let Some(target) = target(own, &path, &modules) else { continue };
            let common = own.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (own.get(common), target.get(common)) {
                let uses = rooms.entry(own[..common].to_vec()).or_default().entry(from.clone()).or_default();
                uses.entry(to.clone()).or_insert(place);
            }
        }
    }
    rooms
}

/// A circle among siblings, if there is one.
fn circle(uses: &BTreeMap<String, BTreeMap<String, String>>) -> Option<Vec<String>> {
    fn visit<'r>(
        at: &'r str,
        uses: &'r BTreeMap<String, BTreeMap<String, String>>,
        way: &mut Vec<&'r str>,
        done: &mut BTreeSet<&'r str>,
    ) -> Option<Vec<String>> {
        if let Some(first) = way.iter().position(|step| *step == at) {
            return Some(way[first..].iter().chain([&at]).map(|step| (*step).to_owned()).collect());
        }
        if !done.insert(at) {
            return None;
        }
        way.push(at);
        let found = uses.get(at).into_iter().flat_map(BTreeMap::keys).find_map(|next| visit(next, uses, way, done));
        way.pop();
        found
    }
    let (mut way, mut done) = (vec![], BTreeSet::new());
    uses.keys().find_map(|from| visit(from, uses, &mut way, &mut done))
}

#[test]
fn rooms_do_not_use_one_another_in_circles() {
    let mut circles = vec![];
    for folder in CRATES {
        for (parent, uses) in rooms(folder) {
            println!("{folder} {}", parent.join("::"));
            for (from, to) in &uses {
                println!("  {from} → {}", to.keys().cloned().collect::<Vec<_>>().join(" "));
            }
            if let Some(circle) = circle(&uses) {
                let places = circle.windows(2).map(|pair| format!("{} ({})", pair[0], uses[&pair[0]][&pair[1]]));
                circles.push(format!("{folder} {}: {}", parent.join("::"), places.collect::<Vec<_>>().join(" → ")));
            }
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found_wherever_it_begins() {
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses = BTreeMap::<String, BTreeMap<String, String>>::new();
        for (from, to) in pairs {
            uses.entry((*from).into()).or_default().insert((*to).into(), String::new());
        }
        uses
    };
    assert_eq!(circle(&uses(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let found = circle(&uses(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")])).unwrap();
    assert_eq!(found, ["b", "c", "d", "b"]);
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let text = "use crate::a::{b::C, d};\nuse super::{super::e::F,\n  g};\nfn f() { crate::h::i() }\n";
    let source = Source { path: "runtime/src/x/y.rs".into(), text: text.into() };
    let modules = ["a", "a/b", "a/d", "e", "x", "x/g", "h"].map(module_of).into();
    let own = module_of("x/y");
    let found: Vec<String> =
        paths(&source).iter().filter_map(|(path, _)| target(&own, path, &modules)).map(|to| to.join("/")).collect();
    assert_eq!(found, ["a/b", "a/d", "e", "x/g", "h"]);
}
