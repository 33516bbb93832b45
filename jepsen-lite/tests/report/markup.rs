//! A strict look at a page: every tag closes in its order, and nothing stands where it should not.

const VOID: [&str; 3] = ["meta", "br", "link"];
/// What stands inside is no markup.
const RAW: [&str; 2] = ["style", "script"];

/// Names of the elements in order, or what is wrong.
pub(crate) fn elements(page: &str) -> Result<Vec<String>, String> {
    let (mut open, mut found) = (Vec::<String>::new(), Vec::new());
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    while let Some(at) = rest.find('<') {
        if rest[..at].contains('>') {
            return Err(format!("`>` in text: {:?}", &rest[..at]));
        }
        entities(&rest[..at])?;
        let end = at + rest[at..].find('>').ok_or("a tag does not end")?;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            let last = open.pop().ok_or(format!("`{name}` closes what is not open"))?;
            if last != name {
                return Err(format!("`{name}` closes `{last}`"));
            }
            continue;
        }
        let empty = tag.ends_with('/');
        let tag = tag.trim_end_matches('/');
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        attributes_are_quoted(attributes).map_err(|error| format!("in `{tag}`: {error}"))?;
        found.push(name.to_owned());
        if VOID.contains(&name) && !empty {
            return Err(format!("`{name}` is not closed"));
        }
        if RAW.contains(&name) {
            let end = rest.find(&format!("</{name}>")).ok_or(format!("`{name}` does not end"))?;
            rest = &rest[end + name.len() + 3..];
        } else if !empty {
            open.push(name.to_owned());
        }
    }
    if open.is_empty() { Ok(found) } else { Err(format!("left open: {open:?}")) }
}

fn attributes_are_quoted(mut rest: &str) -> Result<(), String> {
    let mut names = Vec::new();
    while !rest.trim().is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or(format!("`{rest}` has no value"))?;
        let name = name.trim();
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if !name.chars().all(legal) || names.contains(&name) || name.starts_with("on") {
            return Err(format!("attribute `{name}`"));
        }
        names.push(name);
        let (value, after) = after.split_once('"').ok_or(format!("`{after}` does not end"))?;
        entities(value)?;
        rest = after;
    }
    Ok(())
}

fn entities(text: &str) -> Result<(), String> {
    let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
    let bare = text.split('&').skip(1).find(|after| !known.iter().any(|name| after.starts_with(name)));
    bare.map_or(Ok(()), |after| Err(format!("bare & before {after:?}")))
}

/// Every `href="#..."` leads to an id that is there once.
pub(crate) fn dangling(page: &str) -> Vec<String> {
    let targets = |before: &str| -> Vec<String> {
        page.split(before)
            .skip(1)
            .map(|after| after.split('"').next().expect("a split has a first part").to_owned())
            .collect()
    };
    let ids = targets(" id=\"");
    let wrong = |target: &String| ids.iter().filter(|id| *id == target).count() != 1;
    targets("href=\"#").into_iter().filter(wrong).collect()
}
