//! The flags of `podman run` that mount skills.
//!
//! `--mount type=image` is there since podman 2.2 and needs the image in local storage: it does not pull.

use crate::error::{Error, Result};

/// The first podman with `--mount type=image`.
const IMAGE_MOUNTS: (u64, u64) = (2, 2);
/// Nothing goes to or below these: the kernel's file systems, and what runtimes and podman keep there.
const RESERVED: [&str; 4] = ["/proc", "/sys", "/dev", "/run/secrets"];

/// A skill and where it is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Fully qualified name in containers-storage.
    pub source: String,
    /// Absolute path in the container.
    pub destination: String,
}

/// Returns the words to put after `podman run`; none of them needs quoting.
///
/// # Errors
/// [`Error::Unavailable`] for a podman that cannot mount images, and for paths that `--mount` or a shell would split.
pub fn flags(mounts: &[Mount], podman: Option<(u64, u64)>) -> Result<Vec<String>> {
    if let Some((major, minor)) = podman.filter(|version| *version < IMAGE_MOUNTS) {
        let reason = format!("podman {major}.{minor} cannot mount images (2.2 and newer can)");
        let hint = Some("copy the skill instead: podman create NAME none, then podman cp".into());
        return Err(Error::Unavailable { reason, hint });
    }
    let mut seen = Vec::new();
    let mut words = Vec::new();
    for Mount { source, destination } in mounts {
        check_path(destination)?;
        if seen.contains(&destination) {
            let reason = format!("two skills would be mounted at {destination}");
            return Err(Error::Unavailable { reason, hint: Some("mount them with separate --mount-root".into()) });
        }
        seen.push(destination);
        words.push("--mount".to_owned());
        // `destination=`, because `dest=` is new in podman 5.6.
        words.push(format!("type=image,source={source},destination={destination}"));
    }
    Ok(words)
}

/// Refuses a path that is not absolute and plain, or that a shell or `--mount` would not take as one word.
pub(super) fn check_path(path: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%".contains(c);
    let parts = path.strip_prefix('/').map(|rest| rest.split('/').collect::<Vec<_>>()).unwrap_or_default();
    let whole = !parts.is_empty() && parts.iter().all(|part| !matches!(*part, "" | "." | ".."));
    if !whole || !path.chars().all(plain) {
        let reason =
            format!("{path:?} cannot be a mount point here: it must be absolute, without '..' and of plain characters");
        return Err(Error::Unavailable { reason, hint: None });
    }
    check_reserved(path)
}

/// Refuses a path of a container that is the runtime's, or in what is.
///
/// # Errors
/// [`Error::Unavailable`] that names both.
pub fn check_reserved(path: &str) -> Result<()> {
    let within = |own: &&&str| path.strip_prefix(**own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match RESERVED.iter().find(within) {
        Some(own) => {
            let reason = format!("the destination {path} is in {own}, which is the runtime's");
            Err(Error::Unavailable { reason, hint: None })
        }
        None => Ok(()),
    }
}

/// Returns where a container user's home is, by passwd(5), and whether the user is root.
///
/// `user` is the `User` of the image config: a name or number, and maybe a group after a colon. A number that passwd does
/// not have lives at `/`, as podman has it.
pub fn home(user: &str, passwd: &str) -> (String, bool) {
    let user = user.split(':').next().unwrap_or_default();
    let user = if user.is_empty() { "root" } else { user };
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, uid, _, _, home, ..] = fields[..]
            && (name == user || uid == user)
        {
            return (home.to_owned(), uid == "0");
        }
    }
    match user {
        "root" | "0" => ("/root".to_owned(), true),
        _ => ("/".to_owned(), false),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mount(destination: &str) -> Mount {
        Mount { source: "localhost/acme/hr:1.0.0".into(), destination: destination.into() }
    }

    #[test]
    fn flags_need_no_quoting() {
        let words = flags(&[mount("/skills/hr"), mount("/home/u/.claude/skills/hr")], Some((4, 3))).unwrap();
        assert_eq!(
            words,
            [
                "--mount",
                "type=image,source=localhost/acme/hr:1.0.0,destination=/skills/hr",
                "--mount",
                "type=image,source=localhost/acme/hr:1.0.0,destination=/home/u/.claude/skills/hr",
            ]
        );
    }

    #[test]
    fn hostile_or_ambiguous_mounts_are_refused() {
        for path in ["relative", "/a/../b", "/a b", "/a,rw=true", "/", "/a//b", "/$(id)", "/a;b"] {
            assert!(flags(&[mount(path)], None).unwrap_err().to_string().contains("mount point"), "{path}");
        }
        for path in ["/proc", "/sys/fs/hr", "/dev/hr", "/run/secrets/hr"] {
            let error = flags(&[mount(path)], None).unwrap_err().to_string();
            assert!(error.ends_with("which is the runtime's"), "{error}");
        }
        assert!(flags(&[mount("/process/hr"), mount("/run/secretsx/hr")], None).is_ok());
        let twice = flags(&[mount("/skills/hr"), mount("/skills/hr")], None).unwrap_err();
        assert_eq!(twice.to_string(), "two skills would be mounted at /skills/hr");
        let old = flags(&[mount("/skills/hr")], Some((2, 1))).unwrap_err();
        assert_eq!(old.to_string(), "podman 2.1 cannot mount images (2.2 and newer can)");
    }

    #[test]
    fn homes_are_found_as_podman_finds_them() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\ntoor:x:0:0::/toor:/bin/sh\nbroken\n";
        let cases = [
            ("", "/root", true),
            ("0", "/root", true),
            ("agent", "/home/agent", false),
            ("1000:1000", "/home/agent", false),
            ("toor", "/toor", true),
            ("4711", "/", false),
            ("nobody", "/", false),
        ];
        for (user, path, root) in cases {
            assert_eq!(home(user, passwd), (path.to_owned(), root), "{user}");
        }
    }
}
