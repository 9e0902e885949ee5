//! Changes to `trust.toml`, in whose text everything else stays as it is.

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use super::identity::Written;
use super::key::PublicKey;
use super::policy::{self, prefix};
use crate::error::{Error, Result};

/// Adds what a scope asks for: to the scope of that prefix in the file, or as a new one.
///
/// # Errors
/// If the file is none, or the prefix could be that of no repository.
pub fn add(text: &str, path: &str, new: &policy::Written) -> Result<String> {
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
    if !new.identities.is_empty() {
        make_inline(table);
    }
    if let Some(root) = &new.trusted_root {
        let before = table.get("trusted-root").and_then(Item::as_str).filter(|before| before != root);
        if let (Some(before), false) = (before, new.identities.iter().all(|one| has(table, one))) {
            return Err(Error::Unavailable {
                reason: format!("{path}: {prefix} has the trusted root {before}, by which its identities are known"),
                hint: Some("another root is for all of them: give it with one that the scope has".into()),
            });
        }
    }
    for identity in &new.identities {
        name(table, identity, path)?;
    }
    if let Some(root) = &new.trusted_root {
        table["trusted-root"] = value(root);
    }
    for (key, added) in [("keys", &new.keys), ("states", &new.states), ("attestations", &new.attestations)] {
        append(table, key, added, path)?;
    }
    if let Some(signed_as) = &new.signed_as {
        if let Some(before) = table.get("signed-as").and_then(Item::as_str).filter(|before| before != signed_as) {
            return Err(Error::Unavailable {
                reason: format!("{path}: signatures have {before} in place of {prefix} already"),
                hint: Some(format!("skillctl trust remove {prefix} first, and add it anew")),
            });
        }
        table["signed-as"] = value(signed_as);
    }
    if new.pin {
        table["pin"] = value(true);
    }
    Ok(document.to_string())
}

/// Which keys and identities of a scope are to go, as they are written.
#[derive(Clone, Copy)]
pub enum Gone<'a> {
    /// The keys that this says.
    Keys(&'a dyn Fn(&str) -> bool),
    /// The identities of this name or pattern.
    Identity(&'a str),
}

impl std::fmt::Debug for Gone<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Keys(_) => "Keys",
            Self::Identity(_) => "Identity",
        })
    }
}

/// Removes a scope, or of it what `gone` says. Returns `None` where there is nothing to remove.
///
/// # Errors
/// If the file is none, or the scope would be left with nothing to ask for.
pub fn remove(text: &str, path: &str, wanted: &str, gone: Option<Gone<'_>>) -> Result<Option<String>> {
    let mut document = parse(text, path)?;
    let prefix = prefix(wanted).map_err(|reason| Error::Unavailable { reason, hint: None })?;
    let tables = scopes(&mut document, path)?;
    let before = tables.len();
    let Some(gone) = gone else {
        tables.retain(|table| !is_of(table, &prefix));
        return Ok((tables.len() < before).then(|| document.to_string()));
    };
    let mut removed = false;
    for table in tables.iter_mut().filter(|table| is_of(table, &prefix)) {
        let list = match gone {
            Gone::Keys(_) => "keys",
            Gone::Identity(_) => {
                make_inline(table);
                "identities"
            }
        };
        let Some(own) = table.get_mut(list).and_then(Item::as_array_mut) else { continue };
        let before = own.len();
        own.retain(|one| match gone {
            Gone::Keys(is_gone) => !one.as_str().is_some_and(is_gone),
            Gone::Identity(wanted) => !identity(one).is_some_and(|own| own.is_called(wanted)),
        });
        let left = own.len();
        if left == before {
            continue;
        }
        removed = true;
        if left > 0 {
            continue;
        }
        table.remove(list);
        if list == "identities" {
            table.remove("trusted-root");
        }
        if ["keys", "identities"].iter().all(|list| is_empty(table, list)) {
            return Err(Error::Unavailable {
                reason: format!("{path}: {prefix} would have no key any more, and ask for no signature"),
                hint: Some(format!("skillctl trust remove {prefix} removes the scope; add the new key first")),
            });
        }
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

fn is_empty(table: &Table, list: &str) -> bool {
    match table.get(list) {
        Some(Item::ArrayOfTables(tables)) => tables.is_empty(),
        list => list.and_then(Item::as_array).is_none_or(Array::is_empty),
    }
}

/// Makes a list of identities that are written as `[[scope.identities]]`.
fn make_inline(table: &mut Table) {
    if table.get("identities").is_some_and(Item::is_array_of_tables)
        && let Some(Ok(list)) = table.remove("identities").map(Item::into_value)
    {
        table["identities"] = value(list);
    }
}

/// Returns whether a scope has an identity.
fn has(table: &Table, wanted: &Written) -> bool {
    let list = table.get("identities").and_then(Item::as_array);
    list.is_some_and(|list| list.iter().any(|own| identity(own).as_ref() == Some(wanted)))
}

/// Adds an identity to a scope that does not have it yet.
fn name(table: &mut Table, new: &Written, path: &str) -> Result<()> {
    if has(table, new) {
        return Ok(());
    }
    let list = list(table, "identities", path)?;
    let mut own = InlineTable::new();
    let fields = [
        ("identity", &new.identity),
        ("identity-regexp", &new.identity_regexp),
        ("issuer", &new.issuer),
        ("issuer-regexp", &new.issuer_regexp),
    ];
    for (key, text) in fields {
        if let Some(text) = text {
            own.insert(key, text.into());
        }
    }
    list.push(own);
    Ok(())
}

/// Returns an identity of a list; `None` for what is none.
fn identity(value: &Value) -> Option<Written> {
    let table = value.as_inline_table()?;
    let text = |key| table.get(key).and_then(Value::as_str).map(str::to_owned);
    let (identity, identity_regexp) = (text("identity"), text("identity-regexp"));
    Some(Written { identity, identity_regexp, issuer: text("issuer"), issuer_regexp: text("issuer-regexp") })
}

/// Adds values to a list of a scope that it does not have yet.
fn append(table: &mut Table, key: &str, added: &[String], path: &str) -> Result<()> {
    if added.is_empty() {
        return Ok(());
    }
    let list = list(table, key, path)?;
    for one in added {
        if !list.iter().any(|own| own.as_str().is_some_and(|own| is_same(own, one))) {
            list.push(one);
        }
    }
    Ok(())
}

/// Returns a list of a scope, made where there is none.
fn list<'a>(table: &'a mut Table, key: &str, path: &str) -> Result<&'a mut Array> {
    let list = table.entry(key).or_insert_with(|| value(Array::new())).as_array_mut();
    list.ok_or_else(|| Error::Unavailable { reason: format!("{path}: {key} is no list"), hint: None })
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

    fn scope(prefix: &str, keys: &[&str]) -> policy::Written {
        policy::Written {
            prefix: prefix.into(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            ..policy::Written::default()
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
                policy::Written { pin: true, states: vec!["published".into()], ..scope("acme", &[]) },
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
        let gone = |key: &str| remove(text, "t", "acme", Some(Gone::Keys(&move |own: &str| own == key)));
        assert!(gone("a").unwrap().unwrap().starts_with("[[scope]]\nprefix = \"acme\"\nkeys = [ \"b\"]\n"));
        assert_eq!(gone("x").unwrap(), None);
        assert_eq!(remove(text, "t", "other", None).unwrap(), None);
        let rest = remove(text, "t", "acme", None).unwrap().unwrap();
        assert_eq!(rest.trim_start(), "[[scope]]\nprefix = \"quay.io/o\"\nkeys = [\"c\"]\n");
        let last = remove(text, "t", "quay.io/o", Some(Gone::Keys(&|own: &str| own == "c"))).unwrap_err();
        assert!(last.to_string().contains("would have no key"), "{last}");
    }

    #[test]
    fn an_identity_comes_and_goes() {
        let some = |text: &str| Some(text.to_owned());
        let ana = Written { identity: some("ana@x"), issuer: some("https://y"), ..Written::default() };
        let like = Written { identity_regexp: some("^.*@x$"), issuer: some("https://y"), ..Written::default() };
        let new = |one: &Written, root: &str| policy::Written {
            identities: vec![one.clone()],
            trusted_root: some(root),
            ..scope("acme", &[])
        };
        let head = "[[scope]]\nprefix = \"acme\"\n";
        let first = add("", "t", &new(&ana, "a.json")).unwrap();
        let entry = "{ identity = \"ana@x\", issuer = \"https://y\" }";
        assert_eq!(first, format!("{head}identities = [{entry}]\ntrusted-root = \"a.json\"\n"));
        // Once is enough, and the root is the newest.
        let again = add(&first, "t", &new(&ana, "b.json")).unwrap();
        assert_eq!(again, first.replace("a.json", "b.json"));
        // It is the one of all, and nobody else is believed by another by accident.
        let other = add(&again, "t", &new(&like, "c.json")).unwrap_err().to_string();
        assert_eq!(other, "t: acme has the trusted root b.json, by which its identities are known");
        let both = add(&again, "t", &new(&like, "b.json")).unwrap();
        let pattern = "{ identity-regexp = \"^.*@x$\", issuer = \"https://y\" }";
        assert_eq!(both, format!("{head}identities = [{entry}, {pattern}]\ntrusted-root = \"b.json\"\n"));
        let gone = |text: &str, name: &str| remove(text, "t", "acme", Some(Gone::Identity(name)));
        assert_eq!(gone(&both, "eve@x").unwrap(), None);
        let left = gone(&both, "ana@x").unwrap().unwrap();
        assert_eq!(left, format!("{head}identities = [ {pattern}]\ntrusted-root = \"b.json\"\n"));
        assert!(gone(&left, "^.*@x$").unwrap_err().to_string().contains("would have no key"));
        let keyed = add(&left, "t", &scope("acme", &["a.pub"])).unwrap();
        assert_eq!(gone(&keyed, "^.*@x$").unwrap().unwrap(), format!("{head}keys = [\"a.pub\"]\n"));
        // Of the keys the last may go where an identity is left.
        let without = remove(&keyed, "t", "acme", Some(Gone::Keys(&|own: &str| own == "a.pub"))).unwrap().unwrap();
        assert_eq!(without, left);
    }

    #[test]
    fn identities_are_changed_however_they_are_written() {
        let text = "[[scope]]\nprefix = \"acme\"\ntrusted-root = \"r\"\n\n\
                    [[scope.identities]]\nidentity = \"a@x\"\nissuer = \"y\"\n\n\
                    [[scope.identities]]\nidentity = \"b@x\"\nissuer = \"y\"\n\n[[scope]]\nprefix = \"other\"\n";
        let new = policy::Written {
            identities: vec![Written { identity: Some("c@x".into()), issuer: Some("y".into()), ..Written::default() }],
            trusted_root: Some("r".into()),
            ..scope("acme", &[])
        };
        let names = |text: &str| {
            let file: toml::Table = text.parse().unwrap();
            let list = file["scope"][0]["identities"].as_array().unwrap().iter();
            list.map(|one| one["identity"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&add(text, "t", &new).unwrap()), ["a@x", "b@x", "c@x"]);
        let left = remove(text, "t", "acme", Some(Gone::Identity("a@x"))).unwrap().unwrap();
        assert_eq!(names(&left), ["b@x"]);
        // Whatever changes only keys leaves them as they are, with their comments.
        let noted = text.replace("identity = \"b", "# Who builds.\nidentity = \"b");
        let keyed = add(&noted, "t", &scope("acme", &["a.pub"])).unwrap();
        assert!(keyed.contains("\n[[scope.identities]]\n# Who builds.\nidentity = \"b@x\"\n"), "{keyed}");
        let gone = remove(&keyed, "t", "acme", Some(Gone::Keys(&|own: &str| own == "a.pub"))).unwrap().unwrap();
        assert_eq!(gone, noted);
        assert!(left.ends_with("[[scope]]\nprefix = \"other\"\n"), "{left}");
    }

    #[test]
    fn what_signatures_say_is_not_replaced() {
        let signed_as = |name: &str| policy::Written { signed_as: Some(name.into()), ..scope("acme", &["a"]) };
        let first = add("", "t", &signed_as("quay.io/acme")).unwrap();
        assert_eq!(add(&first, "t", &signed_as("quay.io/acme")).unwrap(), first);
        let refused = add(&first, "t", &signed_as("quay.io/other")).unwrap_err();
        assert_eq!(refused.to_string(), "t: signatures have quay.io/acme in place of acme already");
    }

    #[test]
    fn what_is_no_such_file_is_left_alone() {
        for text in ["scope = 1", "=", "[[scope]]\nprefix = \"acme\"\nkeys = 1"] {
            assert!(add(text, "t", &scope("acme", &["a"])).unwrap_err().to_string().starts_with("t: "), "{text}");
        }
        assert!(add("", "t", &scope("*", &["a"])).is_err());
    }
}
