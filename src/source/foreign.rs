//! Skills in images and artifacts of other tools: read into a tree, where they are looked for.
//!
//! Archives of a container image are laid over each other; those of an artifact, and its files, are put side by side.
//! `SKILL.md` may then be at the root, in a directory of the skill's name, in `payload/`, or in several directories.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageConfiguration};

use crate::card::is_name;
use crate::error::{Error, Result};
use crate::format::{Format, NAME, Part, Shape};
use crate::frontmatter::{self, FILE as SKILL_FILE, MAX_FRONT_MATTER};
use crate::image::Info;
use crate::layer::{Encoding, Expected, PackOptions, Selection, Subtree, Tree, UnpackOptions, pack_tree};
use crate::store::layout::Layout;

/// Where NVIDIA's agent packages have their files: no name of a skill.
const PAYLOAD: &str = "payload";
/// Most skills that an error names.
const NAMED: usize = 20;
/// Most bytes of a `SKILL.md` that are looked at for its name.
const HEAD: u64 = MAX_FRONT_MATTER as u64 + 1024;

/// What gzip and Zstandard begin with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The skills of an image or artifact.
#[derive(Debug)]
pub struct Foreign {
    /// In which form they are.
    pub format: Format,
    tree: Tree,
    skills: Vec<Skill>,
    /// What it is called in messages.
    object: String,
}

/// One skill.
#[derive(Debug)]
struct Skill {
    /// Its name, where anything says it.
    name: Option<String>,
    /// Where it is in the tree.
    root: String,
}

/// One skill as an archive of our own, which nobody can name.
#[derive(Debug, Clone)]
pub struct Spooled {
    file: Arc<File>,
    /// What it is.
    pub expected: Expected,
}

impl Foreign {
    /// Reads the layers of an image that is in the store, called `object` in messages.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it is in no known form, has no skill, or has several and its form has one;
    /// [`Error::Damaged`], [`Error::RefusedEntry`] and [`Error::LimitExceeded`] as for layers of our own.
    pub fn read(
        layout: &Layout,
        info: &Info,
        (format, object): (Format, &str),
        options: &UnpackOptions<'_>,
    ) -> Result<Self> {
        let mut tree = Tree::new(layout.scratch()?, options.limits);
        let diff_ids = match format.shape {
            Shape::Parts => Vec::new(),
            Shape::Own | Shape::Image => diff_ids(layout, info)?,
        };
        for (at, layer) in info.layers.iter().enumerate() {
            let part = match format.shape {
                Shape::Parts => format.part(layer, object)?,
                Shape::Own | Shape::Image => Part::Archive,
            };
            let mut blob = layout.open_blob(layer)?;
            match part {
                Part::Beside => {}
                Part::File(path) => {
                    tree.add_file(&path, false, (&mut blob, layer.size()))?;
                    end(&mut blob, layer)?;
                }
                Part::Archive => {
                    let mut file = blob.into_inner();
                    let expected = expected(&mut file, layer, diff_ids.get(at))?;
                    match format.shape {
                        Shape::Parts => tree.add_archive(file, &expected, "", options)?,
                        Shape::Own | Shape::Image => tree.add_layer(file, &expected, options)?,
                    }
                }
            }
        }
        let skills = find(&tree, info);
        let foreign = Self { format, tree, skills, object: object.to_owned() };
        match &foreign.skills[..] {
            [] => Err(refused(format!("{object} has no {SKILL_FILE}: it is no skill"), None)),
            [_, _, ..] if !format.several => {
                let reason = format!("{object} has {} skills, and its form ({}) has one", foreign.named(), format.name);
                Err(refused(reason, None))
            }
            _ => Ok(foreign),
        }
    }

    /// Returns the names of the skills; one that has none is called `otherwise`.
    pub fn names<'a>(&'a self, otherwise: &'a str) -> Vec<&'a str> {
        self.skills.iter().map(|skill| skill.name.as_deref().unwrap_or(otherwise)).collect()
    }

    /// Returns the tree of a skill: the one of that name, or the only one, whatever its name is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there are several, and none or more than one has that name.
    pub fn skill(&self, name: &str) -> Result<Subtree<'_>> {
        let mut named = self.skills.iter().filter(|skill| skill.name.as_deref().unwrap_or(name) == name);
        let skill = match (&self.skills[..], named.next(), named.next()) {
            ([only], _, _) | (_, Some(only), None) => only,
            (_, Some(_), Some(_)) => {
                return Err(refused(format!("{} has two skills called {name}", self.object), None));
            }
            (_, None, _) => {
                let reason = format!("{} has no skill {name}: there is {}", self.object, self.named());
                return Err(refused(reason, None));
            }
        };
        self.tree.below(&skill.root).ok_or_else(|| Error::damaged(&self.object, format!("{} is gone", skill.root)))
    }

    /// Writes a skill as the archive that a layer of ours would be.
    ///
    /// # Errors
    /// As [`Self::skill`] and [`pack_tree`].
    pub fn spool(&self, layout: &Layout, name: &str, options: &UnpackOptions<'_>) -> Result<Spooled> {
        let file = layout.scratch()?;
        let pack = PackOptions {
            encoding: Encoding::Tar,
            limits: options.limits,
            cancelled: options.cancelled,
            ..PackOptions::default()
        };
        let out = io::BufWriter::with_capacity(1 << 18, &file);
        let packed = pack_tree(&self.skill(name)?, out, Selection::All, &pack)?;
        let expected = Expected {
            digest: packed.digest,
            size: packed.size,
            diff_id: Some(packed.diff_id),
            encoding: Encoding::Tar,
        };
        Ok(Spooled { file: Arc::new(file), expected })
    }

    fn named(&self) -> String {
        let names: Vec<&str> = self.names(SKILL_FILE).into_iter().take(NAMED).collect();
        let more = if self.skills.len() > NAMED { ", …" } else { "" };
        format!("{} ({}{more})", self.skills.len(), names.join(", "))
    }
}

impl Spooled {
    /// Returns a reader of it, from its beginning.
    ///
    /// # Errors
    /// If it cannot be opened again.
    pub fn open(&self) -> Result<impl io::Read + Send + use<>> {
        Ok(At { file: Arc::clone(&self.file), at: 0 })
    }
}

/// Reads a file that others read at the same time.
struct At {
    file: Arc<File>,
    at: u64,
}

impl io::Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let got = self.file.read_at(buffer, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// Reads what is left of a blob, which is verified by then.
fn end(blob: &mut impl io::Read, layer: &Descriptor) -> Result<()> {
    let object = || format!("blob {}", layer.digest());
    match io::copy(blob, &mut io::sink()) {
        Ok(0) => Ok(()),
        Ok(more) => Err(Error::damaged(object(), format!("it has {more} more bytes than expected"))),
        Err(e) => Err(Error::damaged(object(), e)),
    }
}

/// Returns what an archive has to be; how it is compressed is seen in its first bytes.
fn expected(file: &mut File, layer: &Descriptor, diff_id: Option<&String>) -> Result<Expected> {
    let object = || format!("blob {}", layer.digest());
    let mut head = Vec::new();
    file.take(ZSTD.len() as u64).read_to_end(&mut head).map_err(Error::io(object()))?;
    file.rewind().map_err(Error::io(object()))?;
    if head == ZSTD {
        let reason = format!("{} is compressed with zstd, which is not supported", object());
        return Err(refused(reason, Some("copy it with: skopeo copy --dest-compress-format gzip".into())));
    }
    Ok(Expected {
        digest: layer.digest().to_string(),
        size: layer.size(),
        diff_id: diff_id.cloned(),
        encoding: if head.starts_with(&GZIP) { Encoding::Gzip } else { Encoding::Tar },
    })
}

/// Returns what the config says of the archives, where it is an image's and says it of all.
fn diff_ids(layout: &Layout, info: &Info) -> Result<Vec<String>> {
    let Some(config) = &info.config else { return Ok(Vec::new()) };
    let config: Option<ImageConfiguration> = serde_json::from_slice(&layout.read_json(config)?).ok();
    let diff_ids = config.map(|config| config.rootfs().diff_ids().clone()).unwrap_or_default();
    Ok(if diff_ids.len() == info.layers.len() { diff_ids } else { Vec::new() })
}

fn find(tree: &Tree, info: &Info) -> Vec<Skill> {
    let roots = tree.with_file(SKILL_FILE);
    // What the annotations say is said of the only one.
    let annotated = || NAME.iter().map(|key| info.get(key)).find(|name| is_name(name)).filter(|_| roots.len() == 1);
    let name = |root: &str| {
        let own = tree.below(root).and_then(|skill| front_name(&skill));
        let directory = root.rsplit('/').next().filter(|name| is_name(name) && *name != PAYLOAD);
        own.or_else(|| directory.or(annotated()).map(str::to_owned))
    };
    roots.iter().map(|root| Skill { name: name(root), root: root.clone() }).collect()
}

/// Returns the name in the front matter of a skill, where it is one.
pub(crate) fn front_name(skill: &Subtree<'_>) -> Option<String> {
    let (_, content) = skill.open(SKILL_FILE)?;
    let mut head = Vec::new();
    content.take(HEAD).read_to_end(&mut head).ok()?;
    let name = frontmatter::parse(&head).front?.name?.value;
    let name = name.trim().rsplit(':').next().unwrap_or_default();
    is_name(name).then(|| name.to_owned())
}

fn refused(reason: String, hint: Option<String>) -> Error {
    Error::Unavailable { reason, hint }
}
