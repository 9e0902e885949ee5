//! Names of repositories, as policies and pins have them: one repository is written in several ways, and none may lead around what is
//! asked of another.

use std::net::Ipv6Addr;

/// Where Docker Hub has what is in no namespace.
const LIBRARY: &str = "library/";
const HUB: &str = "docker.io";

/// Returns a name, or a beginning of one, with its host as all spellings of it have it: in lower case, with the port as a number, where
/// it is not the usual one, and with one name for Docker Hub.
pub fn with_one_host(name: &str) -> String {
    let (host, rest) = name.split_at(name.find('/').unwrap_or(name.len()));
    if !host.contains(['.', ':']) {
        return name.to_owned();
    }
    let host = host.to_ascii_lowercase();
    let numbered = host.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let numbered = numbered.map(|(host, port)| (one_address(host), port));
    let host = match numbered {
        Some((host, 443)) => host,
        Some((host, port)) => format!("{host}:{port}"),
        None => one_address(&host),
    };
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => format!("{HUB}{rest}"),
        host => format!("{host}{rest}"),
    }
}

/// Returns a host with an address of IPv6 as all spellings of that have it.
fn one_address(host: &str) -> String {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok());
    address.map_or_else(|| host.to_owned(), |address| format!("[{address}]"))
}

/// Returns the one spelling of the name of a repository.
pub fn repository(name: &str) -> String {
    let name = with_one_host(name);
    match in_hub(&name) {
        Some(own) if !own.contains('/') => format!("{HUB}/{LIBRARY}{own}"),
        _ => name,
    }
}

/// Returns what scopes may call a repository: what is in no namespace of Docker Hub has a shorter name, too.
pub fn spellings(name: &str) -> Vec<String> {
    let name = repository(name);
    let short = in_hub(&name).and_then(|own| own.strip_prefix(LIBRARY)).filter(|own| !own.contains('/'));
    let short = short.map(|own| format!("{HUB}/{own}"));
    [name].into_iter().chain(short).collect()
}

/// Returns whether both are the name of one repository.
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || repository(one) == repository(other)
}

/// Returns whether both are so for podman, which knows the names of Docker Hub, and takes any other host as it is written.
pub fn is_same_for_podman(one: &str, other: &str) -> bool {
    one == other || in_hub(&repository(one)).is_some() && is_same(one, other)
}

fn in_hub(name: &str) -> Option<&str> {
    name.strip_prefix(HUB)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_one_name_however_it_is_written() {
        let cases = [
            ("acme/hr", "acme/hr"),
            ("r.io/acme/hr", "r.io/acme/hr"),
            ("R.io:443/acme/hr", "r.io/acme/hr"),
            ("r.io:0443/acme/hr", "r.io/acme/hr"),
            ("r.io:05000/acme/hr", "r.io:5000/acme/hr"),
            ("r.io:99999/acme/hr", "r.io:99999/acme/hr"),
            ("localhost:0443/hr", "localhost/hr"),
            ("[::1]:0443/hr", "[::1]/hr"),
            ("[0:0::1]/hr", "[::1]/hr"),
            ("[::0001]:05000/hr", "[::1]:5000/hr"),
            ("docker.io/hr", "docker.io/library/hr"),
            ("index.docker.io/hr", "docker.io/library/hr"),
            ("registry-1.docker.io:443/library/hr", "docker.io/library/hr"),
            ("docker.io/acme/hr", "docker.io/acme/hr"),
        ];
        for (name, wanted) in cases {
            assert_eq!(repository(name), wanted, "{name}");
            assert!(is_same(name, wanted));
        }
        assert!(!is_same("r.io/hr", "r.io/library/hr") && !is_same("docker.io/library/hr/x", "docker.io/hr/x"));
        assert!(is_same("r.io:443/hr", "r.io/hr") && !is_same_for_podman("r.io:443/hr", "r.io/hr"));
        assert!(is_same_for_podman("index.docker.io/library/hr", "docker.io/hr") && is_same_for_podman("hr", "hr"));
        assert_eq!(spellings("docker.io/hr"), ["docker.io/library/hr", "docker.io/hr"]);
        assert_eq!(spellings("docker.io/library/a/b"), ["docker.io/library/a/b"]);
        assert_eq!(spellings("R.io/hr"), ["r.io/hr"]);
        assert_eq!(with_one_host("index.docker.io/hr"), "docker.io/hr");
    }
}
