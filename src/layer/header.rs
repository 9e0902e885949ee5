//! Headers of the entries that a layer is made of: USTAR, with PAX where a path does not fit.

use tar::{EntryType, Header};

use super::pax;

/// Size of a tar block.
pub(super) const TAR_BLOCK: u64 = 512;

/// Two blocks of zeros that end an archive.
pub(super) const END: [u8; 1024] = [0; 1024];

/// Lengths of the `name` and `prefix` fields of a USTAR header.
const NAME: usize = 100;
const PREFIX: usize = 155;

/// What a header says about an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    /// A directory, or else a regular file.
    pub(super) directory: bool,
    /// Whether it may be executed; directories always.
    pub(super) executable: bool,
    /// Bytes of content.
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) mtime: u64,
}

/// Appends the header blocks of the entry `path` to `out`. Directories get a trailing slash.
pub(super) fn encode(path: &str, meta: Meta, out: &mut Vec<u8>) {
    let name = if meta.directory { format!("{path}/") } else { path.to_owned() };
    let kind = if meta.directory { EntryType::Directory } else { EntryType::Regular };
    let mode = if meta.directory || meta.executable { 0o755 } else { 0o644 };
    let (prefix, short) = match split(&name) {
        Some(fields) => fields,
        None => {
            encode_pax(&name, meta.mtime, out);
            ("", truncated(&name, NAME))
        }
    };
    push(prefix, short, kind, meta, mode, out);
}

/// Splits a name over the two fields; `None` where it does not fit or is not ASCII, which USTAR says nothing about.
fn split(name: &str) -> Option<(&str, &str)> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= NAME {
        return Some(("", name));
    }
    // The slash of a directory is part of its name, not a place to split at.
    let body = name.strip_suffix('/').unwrap_or(name);
    let end = body.len().min(PREFIX + 1);
    let at = body[..end].rfind('/')?;
    let (prefix, rest) = (&name[..at], &name[at + 1..]);
    (rest.len() <= NAME && !prefix.is_empty()).then_some((prefix, rest))
}

fn truncated(name: &str, len: usize) -> &str {
    let mut end = name.len().min(len);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

fn encode_pax(name: &str, mtime: u64, out: &mut Vec<u8>) {
    let record = pax::record("path", name);
    let size = record.len() as u64;
    let meta = Meta { directory: false, executable: false, size, mtime };
    push("", "././@PaxHeader", EntryType::XHeader, meta, 0o644, out);
    out.extend_from_slice(record.as_bytes());
    out.resize(out.len() + padding(size), 0);
}

/// Returns how many zeros follow `size` bytes of content.
pub(super) fn padding(size: u64) -> usize {
    (size.next_multiple_of(TAR_BLOCK) - size) as usize
}

fn push(prefix: &str, name: &str, kind: EntryType, meta: Meta, mode: u32, out: &mut Vec<u8>) {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(meta.mtime);
    header.set_size(meta.size);
    let fields = header.as_ustar_mut().expect("the header was made as USTAR");
    fields.name[..name.len()].copy_from_slice(name.as_bytes());
    fields.prefix[..prefix.len()].copy_from_slice(prefix.as_bytes());
    // Without these some readers print an empty device number; Go and GNU tar write zeros as well.
    fields.set_device_major(0);
    fields.set_device_minor(0);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_where_they_fit() {
        let long = "d/".repeat(60) + "file";
        let cases = [
            ("SKILL.md".to_owned(), Some((0, 8))),
            ("a".repeat(100), Some((0, 100))),
            ("a".repeat(101), None),
            (long.clone(), Some((119, 4))),
            (format!("{}/{}", "p".repeat(155), "n".repeat(100)), Some((155, 100))),
            (format!("{}/{}", "p".repeat(156), "n".repeat(100)), None),
            (format!("{}/", "p".repeat(120)), None),
            ("grün".to_owned(), None),
        ];
        for (name, want) in cases {
            let got = split(&name).map(|(prefix, rest)| (prefix.len(), rest.len()));
            assert_eq!(got, want, "{name}");
        }
    }
}
