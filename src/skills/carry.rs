//! Files of the user's, brought along when a skill is replaced.

use std::io;
use std::path::Path;

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, PermissionsExt as _};

/// Brings what is at `path` in `from` to the same path in `to`, as it is: files by hard links where that is possible, and
/// symbolic links without following them. Nothing is taken away in `from`. Devices, FIFOs and sockets are left out: there
/// is nothing in them, and whoever made them makes them again.
///
/// # Errors
/// If it cannot be read or written, or something is there already.
pub fn carry(from: &Dir, to: &Dir, path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        to.create_dir_all(above)?;
    }
    let metadata = from.symlink_metadata(path)?;
    if metadata.is_dir() {
        to.create_dir_with(path, DirBuilder::new().mode(metadata.permissions().mode() & 0o777))?;
        for entry in from.read_dir(path)? {
            carry(from, to, &path.join(entry?.file_name()))?;
        }
        return Ok(());
    }
    if metadata.is_symlink() {
        return to.symlink_contents(from.read_link_contents(path)?, path);
    }
    if !metadata.is_file() {
        return Ok(());
    }
    match from.hard_link(path, to, path) {
        // Not of this user, or of a file system without.
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => from.copy(path, to, path).map(drop),
        linked => linked,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_is_brought_along_is_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir_all(from.join("notes/more")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("notes/more/x.sh"), "x").unwrap();
        fs::set_permissions(from.join("notes/more/x.sh"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("/etc/passwd", from.join("notes/link")).unwrap();
        let open = |path: &Path| Dir::open_ambient_dir(path, cap_std::ambient_authority()).unwrap();
        carry(&open(&from), &open(&to), Path::new("notes")).unwrap();
        carry(&open(&from), &open(&to), Path::new("notes")).unwrap_err();
        assert_eq!(fs::read_to_string(to.join("notes/more/x.sh")).unwrap(), "x");
        assert_eq!(fs::metadata(to.join("notes/more/x.sh")).unwrap().permissions().mode() & 0o777, 0o750);
        assert_eq!(fs::read_link(to.join("notes/link")).unwrap(), Path::new("/etc/passwd"));
        assert!(from.join("notes/more/x.sh").exists());
        nix::unistd::mkfifo(&from.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        carry(&open(&from), &open(&to), Path::new("fifo")).unwrap();
        assert!(!to.join("fifo").exists());
    }
}
