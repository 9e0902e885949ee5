//! A bind mount between two descriptors, read-only: mount(2) takes paths, and those of descriptors in /proc mean what is open.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use cap_std::fs::Dir;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::rootfs::Rootfs;
use crate::error::{Error, Result};

/// Mounts the tree at `source` at `destination` of a root file system, where there is a directory.
///
/// # Errors
/// [`Error::Unavailable`] if the runtime, the kernel or a user namespace does not allow it.
pub fn bind(open: &fn(&Path) -> io::Result<Dir>, source: &Path, root: &Rootfs, destination: &str) -> Result<()> {
    let from = open(source).map_err(|e| out_of_reach(source, &e))?;
    let target = root.directory(destination)?;
    let failed = |what: &str, errno: Errno| Error::Unavailable {
        reason: format!("cannot {what} {} at {destination} in the container: {}", source.display(), errno.desc()),
        hint: None,
    };
    let none: Option<&str> = None;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(path(&from).as_str()), path(&target).as_str(), none, flags, none).map_err(|e| failed("bind", e))?;
    // What was opened before is what lies below the mount.
    let mounted = root.directory(destination)?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let kept = kept(&mounted).map_err(|e| failed("look at", e))?;
    mount(none, path(&mounted).as_str(), none, flags | kept, none).map_err(|e| failed("make read-only", e))
}

/// Returns the flags of a mount that a user namespace may not take away.
fn kept(mounted: &OwnedFd) -> nix::Result<MsFlags> {
    let flags = fstatvfs(mounted)?.flags();
    let pairs = [
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let found = pairs.into_iter().filter(|(has, _)| flags.contains(*has));
    Ok(found.fold(MsFlags::empty(), |all, (_, flag)| all | flag))
}

fn path(fd: &impl std::os::fd::AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn out_of_reach(source: &Path, error: &io::Error) -> Error {
    let reason = format!("{} cannot be reached from the container's user namespace: {error}", source.display());
    Error::Unavailable { reason, hint: Some("skillctl hook enable has podman mount it before".into()) }
}
