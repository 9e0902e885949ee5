//! Writes a man page for every verb into the directory that is its only argument.
//!
//! `cargo run --example man -- DIR`; the generator is not part of the binary. What a verb's long help ends with becomes
//! sections: a line without indentation that ends in a colon is a heading. The pages of formats are in `contrib/man`, by hand.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// On the pages of verbs that say nothing of their own.
const EXIT_STATUS: &str =
    "0 fine, 1 the answer is no (invalid, damaged, or something will not work), 2 could not do it.";

/// The pages of formats, by hand, that belong to some verbs only; that of skillctl itself names all.
const FORMATS: [(&str, &[&str]); 6] = [
    ("skillctl-audit.toml(5)", &["audit"]),
    ("skillctl-annotations(7)", &["hook"]),
    ("skillctl-hook.toml(5)", &["hook"]),
    ("skillctl-skill.yaml(5)", &["init", "validate", "build"]),
    ("skillctl-skills.json(5)", &["add", "remove", "update", "sync"]),
    ("skillctl-collection(5)", &["collection"]),
];

fn main() -> io::Result<()> {
    let directory = env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or_else(|| io::Error::other("usage: man DIRECTORY"))?;
    fs::create_dir_all(&directory)?;
    let mut command = skillctl::cli::command().disable_help_subcommand(true).version(env!("CARGO_PKG_VERSION"));
    command.build();
    pages(&command, None, &directory)
}

/// Writes the page of a command and those of its subcommands.
fn pages(command: &Command, parent: Option<&Command>, directory: &Path) -> io::Result<()> {
    for verb in command.get_subcommands() {
        pages(verb, Some(command), directory)?;
    }
    fs::write(directory.join(format!("{}.1", page_name(command))), page(command, parent)?)
}

fn page(command: &Command, parent: Option<&Command>) -> io::Result<Vec<u8>> {
    let source = format!("skillctl {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone());
    // Without a date, so that the pages are the same whenever they are built.
    let title = format!(".TH {} 1 \"\" \"{source}\" \"User Commands\"\n", page_name(command).to_uppercase());
    let mut page = title.into_bytes();
    man.render_name_section(&mut page)?;
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").lines().map(str::trim).collect();
    section("SYNOPSIS", usage).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let after = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    for (heading, lines) in sections(&after) {
        section(&heading, lines).to_writer(&mut page)?;
    }
    if !after.contains("Exit status:") {
        section("EXIT STATUS", vec![EXIT_STATUS]).to_writer(&mut page)?;
    }
    section("SEE ALSO", vec![&see_also(command, parent)]).to_writer(&mut page)?;
    Ok(page)
}

fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// Returns the headings in `text`, in upper case, and the lines below each.
fn sections(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            Some(heading) => sections.push((heading.to_uppercase(), Vec::new())),
            None => sections.iter_mut().last().into_iter().for_each(|(_, lines)| lines.push(line)),
        }
    }
    for (_, lines) in &mut sections {
        lines.truncate(lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1));
    }
    sections
}

/// Returns a section whose lines stay as they are, except that one line alone is a paragraph.
fn section(heading: &str, lines: Vec<&str>) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    let filled = lines.len() == 1;
    if !filled {
        roff.control("nf", []);
    }
    for line in lines {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    if !filled {
        roff.control("fi", []);
    }
    roff
}

fn see_also(command: &Command, parent: Option<&Command>) -> String {
    let mut pages: Vec<String> =
        parent.into_iter().chain(command.get_subcommands()).map(page_name).map(str::to_owned).collect();
    pages.extend(["podman", "podman-run", "skopeo"].map(str::to_owned));
    let mut pages: Vec<String> = pages.into_iter().map(|page| format!("{page}(1)")).collect();
    let verb = page_name(command).split('-').nth(1);
    let own = FORMATS.iter().filter(|(_, verbs)| verb.is_none_or(|verb| verbs.contains(&verb)));
    pages.extend(own.map(|(page, _)| (*page).to_owned()));
    let formats = ["skillctl-image(5)", "containers-storage.conf(5)", "containers-policy.json(5)"];
    pages.extend(formats.map(str::to_owned));
    pages.join(", ")
}
