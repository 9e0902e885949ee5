//! JSON that every reader reads alike.
//!
//! A manifest with a key twice, or in two spellings of upper and lower case, is one thing to a reader in Go, which takes
//! keys of any case and the last of equal ones, and another to us: what was checked would not be what runs. So are keys
//! that only look like ASCII, since Go's comparison folds some of them.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

/// Keys of manifests, indexes and descriptors, as the image specification spells them.
const KEYS: [&str; 18] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "digest",
    "size",
    "urls",
    "data",
    "platform",
    "architecture",
    "os",
    "os.version",
    "os.features",
    "variant",
];

/// Objects whose keys are anybody's, and are compared exactly by every reader.
const FREE: &str = "annotations";

/// Returns what is ambiguous in a manifest or an index.
///
/// # Errors
/// In one line, also where it is no JSON.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    read(bytes, Keys::Manifest)
}

/// Returns which key is there twice in a document whose keys are anybody's.
///
/// # Errors
/// In one line, also where it is no JSON.
pub fn unique(bytes: &[u8]) -> Result<(), String> {
    read(bytes, Keys::Free)
}

fn read(bytes: &[u8], keys: Keys) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Strict(keys).deserialize(&mut deserializer).map_err(|e| e.to_string())?;
    deserializer.end().map_err(|e| e.to_string())
}

/// What is asked of the keys of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// They are spelled as the image specification does.
    Manifest,
    /// They are anybody's, of this object and not of what is in it.
    Annotations,
    /// They are anybody's, everywhere.
    Free,
}

/// One value.
#[derive(Clone, Copy)]
struct Strict(Keys);

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if self.0 == Keys::Manifest {
                spelled_right(&key).map_err(A::Error::custom)?;
            }
            map.next_value_seed(Self(match self.0 {
                Keys::Manifest if key == FREE => Keys::Annotations,
                Keys::Manifest | Keys::Annotations => Keys::Manifest,
                Keys::Free => Keys::Free,
            }))?;
            if seen.contains(&key) {
                return Err(A::Error::custom(format!("the key {key:?} is there twice")));
            }
            seen.insert(key);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let own = if self.0 == Keys::Free { Keys::Free } else { Keys::Manifest };
        while list.next_element_seed(Self(own))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

fn spelled_right(key: &str) -> Result<(), String> {
    if !key.is_ascii() {
        return Err(format!("the key {key:?} is not ASCII"));
    }
    match KEYS.iter().find(|known| known.eq_ignore_ascii_case(key) && **known != key) {
        Some(known) => Err(format!("the key {key:?} is a misspelt {known:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_readers_would_read_differently_is_named() {
        let cases = [
            (
                r#"{"layers":[{"digest":"a","annotations":{"A":"1","a":"2","ſ":"3"}}],"x":1.5,"y":null,"z":[true,-1]}"#,
                None,
            ),
            (r#"{"layers":[],"layers":[]}"#, Some("the key \"layers\" is there twice")),
            (r#"{"layers":[],"Layers":[]}"#, Some("the key \"Layers\" is a misspelt \"layers\"")),
            (r#"{"layers":[],"layerſ":[]}"#, Some("the key \"layerſ\" is not ASCII")),
            (r#"{"layers":[{"Digest":"a"}]}"#, Some("the key \"Digest\" is a misspelt \"digest\"")),
            (r#"{"annotations":{"a":"1","a":"2"}}"#, Some("the key \"a\" is there twice")),
            (r#"{"Annotations":{}}"#, Some("the key \"Annotations\" is a misspelt \"annotations\"")),
            ("{} x", Some("trailing characters")),
        ];
        for (text, wrong) in cases {
            let found = check(text.as_bytes()).err();
            assert_eq!(found.is_some(), wrong.is_some(), "{text}: {found:?}");
            assert!(
                wrong.is_none_or(|wrong| found.as_ref().is_some_and(|f| f.starts_with(wrong))),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn keys_of_other_documents_are_anybodys_and_there_once() {
        let cases = [
            (r#"{"Data":1,"data":2,"ſ":[{"Size":1,"annotations":[{"a":1}]}]}"#, true),
            (r#"{"a":[{"b":{"c":1,"c":2}}]}"#, false),
            (r#"{"a":1,"a":1}"#, false),
            ("[1,", false),
        ];
        for (text, fine) in cases {
            assert_eq!(unique(text.as_bytes()).is_ok(), fine, "{text}");
        }
    }
}
