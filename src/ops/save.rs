//! `save`: images with all that belongs to them in one file or directory, for where no registry is.

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt as _};
use serde::Serialize;

use super::collection::Means;
use super::set::gather;
use crate::error::Error;
use crate::store::set::{Archive, Directory, Member, Sink, make_empty, plan, write};

/// Bytes that are written at once: a stick takes large pieces best.
const PIECE: usize = 1 << 20;

/// Where a set goes.
pub enum To<'a> {
    /// A file of a directory, as a tar archive.
    File(&'a Dir, &'a str),
    /// A directory.
    Directory(&'a Dir),
    /// A stream, as a tar archive.
    Stream(&'a mut (dyn Write + Send)),
}

impl std::fmt::Debug for To<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(..) => "File",
            Self::Directory(_) => "Directory",
            Self::Stream(_) => "Stream",
        })
    }
}

/// An image that was saved.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    /// Its name.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Number of images of signatures and of other things that belong to it.
    pub attached: usize,
}

/// A set that was saved.
#[derive(Debug, Clone, Serialize)]
pub struct Saved {
    /// Where it is.
    pub destination: String,
    /// Its images.
    pub images: Vec<Image>,
    /// Number of bytes of all blobs.
    pub size: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Saves images, with `single` from one registry alone; `name` is what the destination is called.
///
/// A file appears whole, by rename; a directory is a layout when all of it is there.
///
/// # Errors
/// If an image cannot be had, or the destination cannot be written. A file that was there is then as it was.
pub fn save(means: &Means<'_>, (texts, single): (&[String], bool), (name, to): (&str, To<'_>)) -> Result<Saved> {
    // What comes from registries gets no name: until it is written nothing else keeps it.
    let _writing = means.layout.writing()?;
    let gathered = gather(means, texts, single)?;
    let size = write_set(means, &gathered.members, (name, to))?;
    let image = |member: &Member| Image {
        reference: member.name.to_string(),
        digest: member.manifest.digest.clone(),
        attached: member.attached.len(),
    };
    let images = gathered.members.iter().map(image).collect();
    Ok(Saved { destination: name.to_owned(), images, size, warnings: gathered.warnings })
}

/// Writes images of the store, and returns the number of bytes. The caller holds the store's lock.
///
/// # Errors
/// As [`save`].
pub fn write_set(means: &Means<'_>, members: &[Member], (name, to): (&str, To<'_>)) -> Result<u64> {
    let plan = plan(means.layout, members)?;
    let size = plan.size();
    let put = |sink: &mut dyn Sink| {
        let progress = |done| (means.copying.progress)(done, Some(size));
        write(means.layout, &plan, (name, sink), &means.copying.tools.cancel, &progress)
    };
    match to {
        To::Stream(stream) => put(&mut Archive(BufWriter::with_capacity(PIECE, stream)))?,
        To::Directory(dir) => {
            make_empty(dir, name)?;
            put(&mut Directory(dir))?;
        }
        To::File(dir, file) => {
            let part = Part::create(dir, file).map_err(Error::io(name))?;
            let mut archive = Archive(BufWriter::with_capacity(PIECE, &part.file));
            put(&mut archive)?;
            drop(archive);
            part.publish(file).map_err(Error::io(name))?;
        }
    }
    Ok(size)
}

/// A file beside the one that it becomes; removed unless that happens.
struct Part<'a> {
    dir: &'a Dir,
    name: String,
    file: File,
}

impl<'a> Part<'a> {
    fn create(dir: &'a Dir, name: &str) -> io::Result<Self> {
        let part = format!(".{name}.{}.part", std::process::id());
        let file = dir.open_with(&part, OpenOptions::new().write(true).create_new(true).mode(0o644))?;
        Ok(Self { dir, name: part, file })
    }

    fn publish(self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        self.dir.rename(&self.name, self.dir, name)?;
        // Some file systems cannot sync a directory; the file itself is there.
        let _ = self.dir.open(".").and_then(|dir| dir.sync_all());
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        // After a rename there is none.
        let _ = self.dir.remove_file(&self.name);
    }
}
