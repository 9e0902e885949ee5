//! Names and texts that mean themselves in whatever they are put into: labels of Kubernetes, words of a shell, YAML.

use sha2::{Digest as _, Sha256};

use crate::card::emit;

/// Longest label of RFC 1123, such as the name of a volume of a pod.
pub const MAX_LABEL: usize = 63;
/// Hexadecimal digits after a name that was changed: enough for two of a thousand never to be the same.
const HASH: usize = 8;

/// Returns a name as a label of RFC 1123. One that has to be changed or cut for that ends in the hash of the whole, so that
/// no two become one.
pub fn label(name: &str) -> String {
    label_of(name, false)
}

/// Returns the same with the dots and underscores that a volume of podman may have.
pub fn dotted(name: &str) -> String {
    label_of(name, true)
}

fn label_of(name: &str, dots: bool) -> String {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let plain = |c: char| alnum(c) || c == '-' || dots && matches!(c, '.' | '_');
    if name.len() <= MAX_LABEL && name.starts_with(alnum) && name.ends_with(alnum) && name.chars().all(plain) {
        return name.to_owned();
    }
    let hash = hex::encode(Sha256::digest(name.as_bytes()));
    let kept: String = name.to_ascii_lowercase().chars().map(|c| if alnum(c) { c } else { '-' }).collect();
    let kept: String = kept.trim_start_matches('-').chars().take(MAX_LABEL - HASH - 1).collect();
    match kept.trim_end_matches('-') {
        "" => format!("skill-{}", &hash[..HASH]),
        kept => format!("{kept}-{}", &hash[..HASH]),
    }
}

/// Returns a text as YAML, in quotes where it needs them.
pub fn scalar(text: &str) -> String {
    let mut out = String::new();
    emit::scalar(&mut out, text);
    out
}

/// Returns a text as one word of a shell.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@=+%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_cut_with_a_hash_that_stays() {
        let long = "x".repeat(64);
        let cases = [
            ("hr", "hr", "hr"),
            ("a.b_c", "a-b-c-", "a.b_c"),
            ("Hr", "hr-", "hr-"),
            ("日本", "skill-", "skill-"),
            (&long, "xxxx", "xxxx"),
            ("-x", "x-", "x-"),
        ];
        for (name, begin, with_dots) in cases {
            let (one, other) = (label(name), dotted(name));
            assert!(one.starts_with(begin) && other.starts_with(with_dots), "{one} {other}");
            assert!(one.len() <= MAX_LABEL && one == label(name), "{one}");
        }
    }

    #[test]
    fn texts_are_quoted_where_they_need_it() {
        let yaml = [
            ("hr", "hr"),
            ("1e5", "\"1e5\""),
            ("yes", "\"yes\""),
            ("a: b", "\"a: b\""),
            ("/skills/hr", "/skills/hr"),
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1"),
            ("a/b #c", "\"a/b #c\""),
            ("a\nb", "\"a\\nb\""),
            ("{a}", "\"{a}\""),
            ("\"", "\"\\\"\""),
        ];
        for (text, want) in yaml {
            assert_eq!(scalar(text), want);
        }
        for (text, want) in [("a/b:1", "a/b:1"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("$x", "'$x'"), ("", "''")] {
            assert_eq!(word(text), want);
        }
    }
}
