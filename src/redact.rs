//! Addresses in texts, without what nobody else may see.

/// Returns a text in which no address has a user or a query, which may be tokens. A user of ssh stays, who is a part of the
/// address. Texts have addresses that nobody typed: git shows those of its configuration, and sites redirect.
pub(crate) fn without_credentials(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean += before;
        let (user, address) = split_user(word(after));
        if before.ends_with("ssh://") && !user.contains(':') {
            clean += user;
        }
        rest = &after[user.len()..];
        let own = &address[..address.find("://").unwrap_or(address.len())];
        if let Some(query) = own.find('?') {
            clean += &own[..query];
            // What ends a sentence or a part of it is none of the query.
            rest = &rest[address.trim_end_matches([':', ',', ';', '.', ')']).len().max(query)..];
        }
    }
    clean + rest
}

/// Returns what an address at the beginning of a text is at most.
fn word(text: &str) -> &str {
    &text[..text.find(|c: char| c.is_whitespace() || "'\"<>".contains(c)).unwrap_or(text.len())]
}

/// Splits an address after its user, with the `@`; a password may have slashes, which it should not.
fn split_user(address: &str) -> (&str, &str) {
    let (authority, path) = address.split_at(address.find('/').unwrap_or(address.len()));
    // What is pinned has no user, either: `docker://hr@sha256:…`.
    let last = |text: &str| text.rfind('@').filter(|at| !text[*at..].starts_with("@sha256:"));
    let at = last(authority).map_or(0, |at| at + 1);
    let port = authority[at..].rsplit_once(':').map_or("", |(_, port)| port);
    let is_port = port.ends_with(']') || port.bytes().all(|b| b.is_ascii_digit());
    let late = last(path).filter(|_| !is_port).map(|at| authority.len() + at + 1);
    address.split_at(late.unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_users_and_queries() {
        let cases = [
            ("https://u:p/q@h/a", "https://h/a"),
            ("https://u@v:p/q@h/a, https://u:p?q@h/a", "https://h/a, https://h/a"),
            ("https://[::1]:80/a@b", "https://[::1]:80/a@b"),
            ("https://h:80/a@b", "https://h:80/a@b"),
            ("https://h/a?sig=x: not found", "https://h/a: not found"),
            ("(https://h/a?to=https://u:p@i/b), really?", "(https://h/a), really?"),
            ("https://h/https://u:p@i/b?x", "https://h/https://i/b"),
            ("docker://hr:1@sha256:00", "docker://hr:1@sha256:00"),
        ];
        for (text, want) in cases {
            assert_eq!(without_credentials(text), want, "{text}");
        }
    }
}
