//! `list` and `inspect`: what is where, without reading a layer.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::Utc;

use super::attestations::AttestationArgs;
use super::gather::{no_image, only_image};
use super::installed::Installed;
use super::registry::RegistryArgs;
use super::shell::{Format, Shell};
use super::targets::TargetArgs;
use crate::collection::collection_name;
use crate::error::Error;
use crate::format::OWN as OWN_FORMAT;
use crate::image::{TAGS, oci};
use crate::ops::inspect::{Inspected, inspect_proxied, inspect_registry, inspect_storage, inspect_store};
use crate::ops::list::{Loaded, Row, list};
use crate::ops::remote_list;
use crate::output::{cell, harmless_line, relative, table};
use crate::redact::without_credentials;
use crate::reference::{Reference, Transport};
use crate::store::proxy::ProxyOptions;

/// Number of hexadecimal digits of a digest that the table shows.
const SHORT_DIGEST: usize = 12;

/// Longest annotation that is shown, in characters; JSON has all of it.
const MAX_FIELD: usize = 4096;

const EXAMPLES: &str = "\
Examples:
  Everything, with whole digests and dates:
    skillctl list --no-trunc
  What is installed, what has a newer version, and what was changed:
    skillctl list --installed
    skillctl list --installed --upgradable --target claude
    skillctl list --installed --verify
  What podman cannot mount yet:
    skillctl list --format json | jq -r '.[] | select(.loaded == \"no\").reference'";

/// List images, and which of them are loaded
///
/// Shows what is in the store and what is in containers-storage. LOADED says whether containers-storage has the image
/// under that name: yes, other (the name is there, with other content or another state), no, only (it is there and
/// not in the store), or - (it is no image that could be loaded). Where there are images of read-only stores, R/O says
/// which. With --remote, shows the tags of a repository with their
/// states; only manifests are read. With --installed, shows the skills that are installed, here for all agents unless some
/// are named.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ListArgs {
    /// List a repository, or one tag of it, on its registry
    #[arg(long, value_name = "REPOSITORY[:TAG]", conflicts_with = "installed")]
    remote: Option<String>,
    /// List the skills that are installed for agents, or in a directory
    #[arg(long, short)]
    installed: bool,
    /// Of the installed ones, those with a newer published version
    #[arg(long, short, conflicts_with = "verify")]
    upgradable: bool,
    /// Say how installed skills differ from what was installed; exit status 1 if any does
    #[arg(long, requires = "installed")]
    verify: bool,
    #[command(flatten)]
    targets: TargetArgs,
    /// Show digests and dates whole
    #[arg(long)]
    no_trunc: bool,
    /// How to print the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl ListArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        if self.upgradable && !self.installed {
            return Err(Error::Unavailable { reason: "--upgradable requires --installed".into(), hint: None }.into());
        }
        if self.installed {
            let installed = Installed { targets: &self.targets, registry: &self.registry, format: self.format };
            return match (self.upgradable, self.verify) {
                (true, _) => installed.upgradable(shell),
                (_, true) => installed.verify(shell),
                _ => installed.list(shell),
            };
        }
        if let Some(repository) = &self.remote {
            return self.on_registry(shell, repository).with_context(|| format!("Listing {repository}"));
        }
        let layout = shell.existing_store()?;
        let storage = shell.storage_to_read();
        let rows = list(layout.as_ref(), storage.as_ref().ok())?;
        if let Err(e) = &storage {
            shell.note(format!("containers-storage was not looked at: {e:#}"));
        }
        if self.format == Format::Json {
            shell.print_json(&rows)?;
            return Ok(ExitCode::SUCCESS);
        }
        if rows.is_empty() {
            shell.print("No images found in local store.\n")?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut heading = vec!["NAME", "TAG", "STATUS", "DIGEST", "CREATED", "LOADED"];
        let mut cells: Vec<Vec<String>> = rows.iter().map(|row| self.cells(row)).collect();
        // As in podman, a column only where it says something.
        if rows.iter().any(|row| row.read_only) {
            heading.push("R/O");
            rows.iter().zip(&mut cells).for_each(|(row, cells)| cells.push(row.read_only.to_string()));
        }
        shell.print(table(&heading, &cells))?;
        Ok(ExitCode::SUCCESS)
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let loaded = row.loaded.map_or("?", Loaded::as_str).to_owned();
        let (digest, created) = (short(&row.digest, self.no_trunc), self.date(&row.created));
        let cells = [&row.name, &row.tag, &row.status, &digest, &created, &loaded];
        cells.into_iter().map(|text| cell(text)).collect()
    }

    fn date(&self, created: &str) -> String {
        if self.no_trunc { created.to_owned() } else { relative(created, Utc::now()) }
    }

    /// Returns the date of an image that a registry has; reproducible ones say 1970, which is none.
    fn built(&self, created: &str) -> String {
        match self.no_trunc || !created.starts_with("1970-01-01T") {
            true => self.date(created),
            false => "-".to_owned(),
        }
    }

    fn on_registry(&self, shell: &Shell, repository: &str) -> Result<ExitCode> {
        let remote = self.registry.remote(shell)?;
        let rows = remote_list::list(&remote.registry, &self.registry.resolve(shell, repository)?)?;
        if self.format == Format::Json {
            shell.print_json(&rows)?;
            return Ok(ExitCode::SUCCESS);
        }
        if rows.is_empty() {
            shell.print("No images found on the registry.\n")?;
            return Ok(ExitCode::SUCCESS);
        }
        let cells = |row: &remote_list::Row| {
            let (digest, created) = (short(&row.digest, self.no_trunc), self.built(&row.created));
            [&row.name, &row.tag, &row.status, &digest, &created].map(|text| cell(text)).into()
        };
        let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
        shell.print(table(&["NAME", "TAG", "STATUS", "DIGEST", "CREATED"], &rows))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns a digest as tables show it.
pub fn short(digest: &str, whole: bool) -> String {
    if whole {
        return digest.to_owned();
    }
    digest.strip_prefix("sha256:").unwrap_or(digest).chars().take(SHORT_DIGEST).collect()
}

/// Describe an image
///
/// Looks in the store, then in containers-storage, then on the registry that the name has. A transport before the name
/// looks only there: docker://NAME, containers-storage:NAME, oci:DIR:NAME. Only the manifest is read.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The image: a name, a digest, or the first 12 digits of one
    reference: String,
    /// How to print the description
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    attestations: AttestationArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl InspectArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        if self.attestations.attestations {
            let listed = self.attestations.run(shell, &self.reference, (self.format, &self.registry));
            return listed.with_context(|| format!("Inspecting {}", self.reference));
        }
        let inspected = self.inspect(shell)?;
        match self.format {
            Format::Text => shell.print(text(&inspected))?,
            Format::Json => shell.print_json(&inspected)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn inspect(&self, shell: &Shell) -> Result<Inspected> {
        only_image(&self.reference).with_context(|| format!("Inspecting {}", self.reference))?;
        let (transport, rest) = Transport::split(&self.reference);
        match transport {
            Some(Transport::ContainersStorage) => match inspect_storage(&shell.storage_to_read()?, rest) {
                // Not plain files, or not in a place that was found: skopeo knows every driver and option.
                Err(e) if matches!(e.downcast_ref(), Some(Error::Unavailable { .. })) => {
                    let options = ProxyOptions { unshare: shell.env.uid != 0, ..ProxyOptions::default() };
                    inspect_proxied(&shell.tools(), &options, &self.reference).context(e)
                }
                inspected => inspected,
            },
            Some(Transport::Docker) => self.on_registry(shell),
            Some(_) => inspect_proxied(&shell.tools(), &ProxyOptions::default(), &self.reference),
            None => self.inspect_bare(shell),
        }
    }

    fn inspect_bare(&self, shell: &Shell) -> Result<Inspected> {
        let in_store = match shell.existing_store()? {
            Some(layout) => inspect_store(&layout, &self.reference),
            None => Err(Error::ImageNotFound(self.reference.clone()).into()),
        };
        let Err(error) = in_store else {
            return in_store;
        };
        let missing = matches!(error.downcast_ref(), Some(Error::ImageNotFound(_)));
        let storage = shell.storage_to_read().ok().filter(|_| missing);
        match storage.map(|storage| inspect_storage(&storage, &self.reference)) {
            Some(Ok(inspected)) => Ok(inspected),
            _ if missing && self.reference.parse::<Reference>().is_ok_and(|r| r.registry().is_some()) => {
                self.on_registry(shell)
            }
            _ if missing && Path::new(&self.reference).is_dir() => {
                let error = no_image(&format!("./{}", self.reference), "a directory");
                Err(error).with_context(|| format!("Inspecting {}", self.reference))
            }
            // The store is the place to be named: containers-storage was only a second guess.
            _ => Err(error.context(format!("Inspecting {}", self.reference))),
        }
    }
}

impl InspectArgs {
    fn on_registry(&self, shell: &Shell) -> Result<Inspected> {
        let context = || format!("Inspecting {}", self.reference);
        let reference = self.registry.resolve(shell, &self.reference).with_context(context)?;
        let remote = self.registry.remote(shell).with_context(context)?;
        inspect_registry(&remote.registry, &reference).with_context(context)
    }
}

/// Returns the description in the lines of the Go tool, and ours after them.
fn text(image: &Inspected) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str, always: bool| {
        if always || !value.is_empty() {
            text.push_str(format!("{label:<14}{}", field(value.trim_end())).trim_end());
            text.push('\n');
        }
    };
    line("Skill:", &image.skill, true);
    line("Display Name:", &image.display_name, false);
    line("Version:", &image.version, true);
    line("Status:", &image.status, true);
    line("Description:", &image.description, false);
    if image.description.ends_with('\n') {
        // The Go tool prints the newline that YAML's folded scalars end in.
        line("", "", true);
    }
    line("Authors:", &image.authors, false);
    line("License:", &image.license, false);
    line("Tags:", image.annotations.get(TAGS).map_or("", String::as_str), false);
    line("Compat:", &image.compatibility, false);
    line("Word Count:", &image.word_count.map(|words| words.to_string()).unwrap_or_default(), false);
    if let Some(name) = collection_name(&image.annotations) {
        text += &format!("{:<14}{} (its skills: skillctl collection pull)\n", "Collection:", field(name));
    }
    text += &format!(
        "\nOCI Image:\n  Digest:     {}\n  Created:    {}\n  Size:       {} bytes\n  Layers:     {}\n",
        image.digest,
        field(&image.created),
        image.size,
        image.layers
    );
    match &image.platforms[..] {
        [] => text += &format!("  Image ID:   {}\n", image.image_id),
        platforms => text += &format!("  Platforms:  {}\n", field(&platforms.join(", "))),
    }
    if !matches!(&*image.format, "" | OWN_FORMAT) {
        text += &format!("  Format:     {}\n", image.format);
    }
    for (label, key) in [("Source:", oci::SOURCE), ("Revision:", oci::REVISION)] {
        if let Some(from) = image.annotations.get(key).filter(|from| !from.is_empty()) {
            text += &format!("  {label:<12}{}\n", field(&without_credentials(from)));
        }
    }
    let read_only = if image.read_only { "read-only " } else { "" };
    text += &format!("  Found in:   {read_only}{}\n", image.location);
    text
}

/// Returns text by strangers for one line. `Digest:` is broken up, because scripts look for that word in this output.
fn field(text: &str) -> String {
    let end = text.char_indices().nth(MAX_FIELD).map_or(text.len(), |(end, _)| end);
    harmless_line(&text[..end]).replace("Digest:", "Digest :")
}
