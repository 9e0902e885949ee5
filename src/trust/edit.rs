//! Changes to `trust.toml`, in whose text everything else stays as it is.

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::key::PublicKey;
use super::policy::{Written, prefix};
use crate::error::{Error, Result};

/// Adds what a scope asks for: to the scope of that prefix in the file, or as a new one.
///
/// # Errors
/// If the file is none, or the prefix could be that of no repository.
pub fn add(text: &str, path: &str, new: &Written) -> Result<String> {
    let mut document = parse(text, path)?;
    let prefix = prefix(&new.prefix).map_err(|reason| Error::Unavailable { reason, hint: None })?;
    let tables = scopes(&mut document, path)?;
    let at = tables.iter().position(|table| is_of(table, &prefix));
    let table = match at.and_then(|at| tables.get_mut(at)) {
        Some(table) => table,
        None => {
            let mut table = Table::new();
            table["prefix"] = value(&prefix);
            tables.push(table);
            let last = tables.len() - 1;
            tables.get_mut(last).ok_or_else(|| no_list(path))?
        }
    };
    for (key, added) in [("keys", &new.keys), ("states", &new.states), ("attestations", &new.attestations)] {
        append(table, key, added, path)?;
    }
    if let Some(signed_as) = &new.signed_as {
        table["signed-as"] = value(signed_as);
    }
    if new.pin {
        table["pin"] = value(true);
    }
    Ok(document.to_string())
}

/// Removes a scope, or of it the keys that `is_gone` says. Returns `None` where there is nothing to remove.
///
/// # Errors
/// If the file is none, or the scope would be left with nothing to ask for.
pub fn remove(text: &str, path: &str, wanted: &str, is_gone: Option<&dyn Fn(&str) -> bool>) -> Result<Option<String>> {
    let mut document = parse(text, path)?;
    let prefix = prefix(wanted).map_err(|reason| Error::Unavailable { reason, hint: None })?;
    let tables = scopes(&mut document, path)?;
    let before = tables.len();
    let Some(is_gone) = is_gone else {
        tables.retain(|table| !is_of(table, &prefix));
        return Ok((tables.len() < before).then(|| document.to_string()));
    };
    let mut removed = false;
    for table in tables.iter_mut().filter(|table| is_of(table, &prefix)) {
        let Some(keys) = table.get_mut("keys").and_then(Item::as_array_mut) else { continue };
        let before = keys.len();
        keys.retain(|key| !key.as_str().is_some_and(is_gone));
        if keys.is_empty() && before > 0 {
            return Err(Error::Unavailable {
                reason: format!("{path}: {prefix} would have no key any more, and ask for no signature"),
                hint: Some(format!("skillctl trust remove {prefix} removes the scope; add the new key first")),
            });
        }
        removed |= keys.len() < before;
    }
    Ok(removed.then(|| document.to_string()))
}

fn parse(text: &str, path: &str) -> Result<DocumentMut> {
    text.parse().map_err(|e: toml_edit::TomlError| Error::Unavailable {
        reason: format!("{path}: {}", e.message()),
        hint: None,
    })
}

fn scopes<'a>(document: &'a mut DocumentMut, path: &str) -> Result<&'a mut ArrayOfTables> {
    let scopes = document.entry("scope").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    scopes.as_array_of_tables_mut().ok_or_else(|| no_list(path))
}

fn no_list(path: &str) -> Error {
    Error::Unavailable { reason: format!("{path}: its scopes are no [[scope]] tables"), hint: None }
}

fn is_of(table: &Table, wanted: &str) -> bool {
    table.get("prefix").and_then(Item::as_str).and_then(|own| prefix(own).ok()).as_deref() == Some(wanted)
}

/// Adds values to a list of a scope that it does not have yet.
fn append(table: &mut Table, key: &str, added: &[String], path: &str) -> Result<()> {
    if added.is_empty() {
        return Ok(());
    }
    let list = table.entry(key).or_insert_with(|| value(Array::new()));
    let list = list
        .as_array_mut()
        .ok_or_else(|| Error::Unavailable { reason: format!("{path}: {key} is no list"), hint: None })?;
    for one in added {
        if !list.iter().any(|own| own.as_str().is_some_and(|own| is_same(own, one))) {
            list.push(one);
        }
    }
    Ok(())
}

/// Returns whether two entries are one: keys are, however their text is broken into lines.
fn is_same(one: &str, other: &str) -> bool {
    let key = |text: &str| PublicKey::from_pem(text.as_bytes(), "").ok();
    one == other || key(one).is_some_and(|own| Some(own) == key(other))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn scope(prefix: &str, keys: &[&str]) -> Written {
        Written {
            prefix: prefix.into(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            ..Written::default()
        }
    }

    #[test]
    fn what_was_written_by_hand_stays() {
        let text = "# ours\n[[scope]]\nprefix = \"acme\" # all of it\nkeys = [\"a.pub\"]\n\n[other]\nx = 1\n";
        let cases = [
            (
                scope("acme", &["b.pub", "a.pub"]),
                "# ours\n[[scope]]\nprefix = \"acme\" # all of it\nkeys = [\"a.pub\", \"b.pub\"]\n",
            ),
            (scope("localhost/acme/", &["b.pub"]), "keys = [\"a.pub\", \"b.pub\"]\n"),
            (scope("quay.io/o", &["c.pub"]), "[[scope]]\nprefix = \"quay.io/o\"\nkeys = [\"c.pub\"]\n"),
            (
                Written { pin: true, states: vec!["published".into()], ..scope("acme", &[]) },
                "states = [\"published\"]\npin = true\n",
            ),
        ];
        for (new, want) in cases {
            let changed = add(text, "trust.toml", &new).unwrap();
            assert!(changed.contains(want), "{changed}");
            assert!(changed.contains("[other]\nx = 1\n") && changed.starts_with("# ours\n"), "{changed}");
        }
        assert_eq!(
            add("", "trust.toml", &scope("acme", &["a"])).unwrap(),
            "[[scope]]\nprefix = \"acme\"\nkeys = [\"a\"]\n"
        );
    }

    #[test]
    fn a_scope_or_a_key_goes_alone() {
        let text = "[[scope]]\nprefix = \"acme\"\nkeys = [\"a\", \"b\"]\n\n[[scope]]\nprefix = \"quay.io/o\"\nkeys = [\"c\"]\n";
        let gone = |key: &str| remove(text, "t", "acme", Some(&move |own: &str| own == key));
        assert!(gone("a").unwrap().unwrap().starts_with("[[scope]]\nprefix = \"acme\"\nkeys = [ \"b\"]\n"));
        assert_eq!(gone("x").unwrap(), None);
        assert_eq!(remove(text, "t", "other", None).unwrap(), None);
        let rest = remove(text, "t", "acme", None).unwrap().unwrap();
        assert_eq!(rest.trim_start(), "[[scope]]\nprefix = \"quay.io/o\"\nkeys = [\"c\"]\n");
        let last = remove(text, "t", "quay.io/o", Some(&|own: &str| own == "c")).unwrap_err();
        assert!(last.to_string().contains("would have no key"), "{last}");
    }

    #[test]
    fn what_is_no_such_file_is_left_alone() {
        for text in ["scope = 1", "=", "[[scope]]\nprefix = \"acme\"\nkeys = 1"] {
            assert!(add(text, "t", &scope("acme", &["a"])).unwrap_err().to_string().starts_with("t: "), "{text}");
        }
        assert!(add("", "t", &scope("*", &["a"])).is_err());
    }
}
