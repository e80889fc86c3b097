//! What somebody who mistyped a name probably meant.

/// The known name that `text` was probably meant to be.
pub(crate) fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    let text = text.to_ascii_lowercase().replace('-', "_");
    let distance = |name: &str| strsim::damerau_levenshtein(&text, name);
    let near = known.iter().copied().min_by_key(|name| distance(name))?;
    let tolerated = (near.len() / 3).max(1);
    let begins =
        || known.iter().copied().find(|name| text.len() >= 3 && (name.starts_with(&text) || text.starts_with(name)));
    if distance(near) <= tolerated { Some(near) } else { begins() }
}
