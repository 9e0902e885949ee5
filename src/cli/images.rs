//! `list` and `inspect`: what is where, without reading a layer.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::Utc;

use super::shell::{Format, Shell};
use crate::error::Error;
use crate::image::TAGS;
use crate::ops::inspect::{Inspected, inspect_proxied, inspect_storage, inspect_store};
use crate::ops::list::{Loaded, Row, list};
use crate::output::{cell, harmless_line, relative, table};
use crate::reference::Transport;
use crate::store::proxy::ProxyOptions;

/// Number of hexadecimal digits of a digest that the table shows.
const SHORT_DIGEST: usize = 12;

/// Longest annotation that is shown, in characters; JSON has all of it.
const MAX_FIELD: usize = 4096;

const EXAMPLES: &str = "\
Examples:
  Everything, with whole digests and dates:
    skillctl list --no-trunc
  What podman cannot mount yet:
    skillctl list --format json | jq -r '.[] | select(.loaded == \"no\").reference'";

/// List images, and which of them are loaded
///
/// Shows what is in the store and what is in containers-storage. LOADED says whether containers-storage has the image
/// under that name: yes, other (the name is there, with other content or another state), no, or only (it is there and
/// not in the store).
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ListArgs {
    /// Show digests and dates whole
    #[arg(long)]
    no_trunc: bool,
    /// How to print the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl ListArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
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
        let rows: Vec<Vec<String>> = rows.iter().map(|row| self.cells(row)).collect();
        shell.print(table(&["NAME", "TAG", "STATUS", "DIGEST", "CREATED", "LOADED"], &rows))?;
        Ok(ExitCode::SUCCESS)
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let (digest, created) = if self.no_trunc {
            (row.digest.clone(), row.created.clone())
        } else {
            let hex = row.digest.strip_prefix("sha256:").unwrap_or(&row.digest);
            (hex.chars().take(SHORT_DIGEST).collect(), relative(&row.created, Utc::now()))
        };
        let loaded = row.loaded.map_or("?", Loaded::as_str).to_owned();
        let cells = [&row.name, &row.tag, &row.status, &digest, &created, &loaded];
        cells.into_iter().map(|text| cell(text)).collect()
    }
}

/// Describe an image
///
/// Looks in the store, then in containers-storage; containers-storage:NAME looks only there. Only the manifest is read.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The image: a name, a digest, or the first 12 digits of one
    reference: String,
    /// How to print the description
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl InspectArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let inspected = self.inspect(shell)?;
        match self.format {
            Format::Text => shell.print(text(&inspected))?,
            Format::Json => shell.print_json(&inspected)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn inspect(&self, shell: &Shell) -> Result<Inspected> {
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
            // The store is the place to be named: containers-storage was only a second guess.
            _ => Err(error.context(format!("Inspecting {}", self.reference))),
        }
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
    text += &format!(
        "\nOCI Image:\n  Digest:     {}\n  Created:    {}\n  Size:       {} bytes\n  Layers:     {}\n",
        image.digest,
        field(&image.created),
        image.size,
        image.layers
    );
    text += &format!("  Image ID:   {}\n  Found in:   {}\n", image.image_id, image.location);
    text
}

/// Returns text by strangers for one line. `Digest:` is broken up, because scripts look for that word in this output.
fn field(text: &str) -> String {
    let end = text.char_indices().nth(MAX_FIELD).map_or(text.len(), |(end, _)| end);
    harmless_line(&text[..end]).replace("Digest:", "Digest :")
}
