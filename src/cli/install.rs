//! `install`

use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::gather::{address, gather};
use super::pull::When;
use super::record;
use super::registry::RegistryArgs;
use super::shell::{Format, Shell};
use super::targets::{Place, TargetArgs, resolved};
use super::verify::{VerifyArgs, check_unsigned, signed};
use crate::address::Address;
use crate::audit::Action;
use crate::card::Provenance;
use crate::error::Error;
use crate::layer::UnpackOptions;
use crate::limits::Limits;
use crate::ops::changes::Changes;
use crate::ops::contents::Contents;
use crate::ops::gather::{Gathered, build_one};
use crate::ops::install::{self, Installed, Options, Source};
use crate::ops::pull::{self, Rule};
use crate::ops::{self};
use crate::output::{backup, harmless_line, shown};
use crate::process::Cancel;
use crate::redact::without_credentials;
use crate::reference::Reference;
use crate::source::Filter;
use crate::store::layout::Layout;
use crate::store::{self, Found, trusted};
use crate::trust::check::Verified;
use crate::trust::policy::Rule as Trust;

const EXAMPLES: &str = "\
Examples:
  For one agent, or for several:
    skillctl install registry.example/acme/hr:1.0.0 --target claude
    skillctl install registry.example/acme/hr:1.0.0 -t claude,codex
  From Git, at a tag, the skills of one directory:
    skillctl install -t claude https://github.com/acme/skills#v2:skills/hr
  For every agent that is here, one copy that the others link to:
    skillctl install --link -t all registry.example/acme/hr:1.0.0
  For whoever works on this project:
    skillctl install --scope project -t claude registry.example/acme/hr:1.0.0";

/// Install skills where agents look
///
/// A skill is pulled into the store where that does not have it, verified, and appears whole or not at all. Files that you
/// added to an installed skill stay. Files that you changed, and directories that skillctl did not make, are replaced with
/// --force only, which keeps them in a backup.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Images of the store or of registries, Git repositories (URL[#REF[:DIRECTORY]]), indexes of web sites, directories
    /// (./DIRECTORY) or archives
    #[arg(required = true, value_name = "REFERENCE|URL")]
    references: Vec<String>,
    /// Of an artifact with several skills those of this name; repeatable
    #[arg(long, value_name = "NAME")]
    skill: Vec<String>,
    #[command(flatten)]
    targets: TargetArgs,
    /// Make one copy, and relative links to it for the other agents
    #[arg(long, conflicts_with = "output")]
    link: bool,
    /// Replace what is in the way, and keep it in a backup
    #[arg(long, short)]
    force: bool,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// When the registry is asked, as in podman
    #[arg(long, value_enum, value_name = "WHEN", default_value = "newer")]
    pull: When,
    /// Most bytes, packed and in files
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size)]
    max_size: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let places = self.targets.places(shell)?;
        let trust = self.verify.rule(shell)?;
        if !self.dry_run {
            shell.can_record()?;
        }
        let mut status = ExitCode::SUCCESS;
        let mut rows = Vec::new();
        for text in &self.references {
            let installed = self.install(shell, &places, (text, trust.as_ref()), &mut rows);
            if let Err(e) = installed.with_context(|| format!("Installing {}", without_credentials(text))) {
                status = shell.fail(&e);
            }
        }
        if self.format == Format::Json {
            shell.print_json(&rows)?;
        }
        Ok(status)
    }

    fn install(
        &self,
        shell: &Shell,
        places: &[Place],
        (text, trust): (&str, Option<&Trust>),
        rows: &mut Vec<serde_json::Value>,
    ) -> Result<()> {
        let layout = shell.store()?;
        if let Some(address) = address(text)? {
            check_unsigned(trust)?;
            return self.elsewhere(shell, places, (text, &address), rows);
        }
        let rule = Rule { trust, ..Rule::looking(self.pull.rule(), self.max_size) };
        let (found, reference) = fetch(shell, &layout, text, rule, &self.registry)?;
        let cancel = shell.cancel();
        let unpack = unpack_options(self.max_size, &cancel);
        let manifest = &found.entry.descriptor;
        let contents = Contents::of(&layout, manifest, &unpack)?;
        let names = contents.names(&found.info, &reference);
        let mut verified = None;
        for name in chosen(&names, &self.skill)? {
            let (info, reference) = (&found.info, &reference);
            let source =
                Source { layout: &layout, contents: &contents, manifest, info, reference, name, origin: None, trust };
            verified = self.install_one(shell, places, (text, &source), unpack, rows)?;
        }
        if self.format == Format::Text {
            shell.print(signed(verified.as_ref()))?;
        }
        Ok(())
    }

    /// Builds the skills of what is no image yet, and installs what came of them.
    fn elsewhere(
        &self,
        shell: &Shell,
        places: &[Place],
        (text, address): (&str, &Address),
        rows: &mut Vec<serde_json::Value>,
    ) -> Result<()> {
        let layout = shell.store()?;
        let cancel = shell.cancel();
        let unpack = unpack_options(self.max_size, &cancel);
        let filter = (&Filter::parse(&self.skill)?, unpack.limits);
        let gathered = gather(shell, (&layout, None), address, filter, &self.registry)?;
        shell.warnings(&gathered.warnings);
        // All before any is installed: one that is not valid keeps the others out, too.
        for Made { found, reference, origin } in built(shell, &layout, &gathered, &unpack)? {
            let manifest = &found.entry.descriptor;
            let contents = Contents::of(&layout, manifest, &unpack)?;
            let (info, reference) = (&found.info, &reference);
            for name in contents.names(info, reference) {
                let (layout, contents) = (&layout, &contents);
                let source =
                    Source { layout, contents, manifest, info, reference, name, origin: Some(&origin), trust: None };
                self.install_one(shell, places, (text, &source), unpack, rows)?;
            }
        }
        Ok(())
    }

    fn install_one(
        &self,
        shell: &Shell,
        places: &[Place],
        (text, source): (&str, &Source<'_>),
        unpack: UnpackOptions<'_>,
        rows: &mut Vec<serde_json::Value>,
    ) -> Result<Option<Verified>> {
        let (name, cancel) = (source.name, shell.cancel());
        let options =
            Options { force: self.force, back: None, content: None, any_source: false, unpack, cancel: &cancel };
        // What was typed, as the Go tool says it, unless it is not what the place will say.
        let mut say = |installed: &Installed, place: &Place, link: Option<&str>| -> Result<()> {
            let path = place.path.join(name);
            if self.format == Format::Text {
                shell.print(said(text, installed, &path, self.dry_run))?;
            }
            shell.warnings(&installed.warnings);
            let mut row = serde_json::to_value(installed)?;
            row["target"] = json!(place.label);
            row["path"] = json!(path);
            row["link"] = json!(link);
            rows.push(row);
            Ok(())
        };
        let install = |place: &Place| match self.dry_run {
            true => install::preview(source, place.open()?.as_ref(), &options),
            false => {
                let installed = install::install(source, &place.ensure()?, &options);
                let (reference, path) = (source.reference.to_string(), place.path.join(name));
                let events = |one: &Installed| record::installed(Action::Install, one, &path);
                shell.recorded((Action::Install, &reference), installed, events)
            }
        };
        if !self.link {
            let mut verified = None;
            for place in places {
                let installed = install(place)?;
                say(&installed, place, None)?;
                verified = installed.verified;
            }
            return Ok(verified);
        }
        let shared = self.targets.shared(shell)?;
        let installed = install(&shared)?;
        say(&installed, &shared, None)?;
        let real = resolved(&shared.path);
        for place in places.iter().filter(|place| resolved(&place.path) != real) {
            if self.dry_run {
                say(&Installed { written: true, changes: Changes::default(), ..installed.clone() }, place, None)?;
                continue;
            }
            let skills = place.ensure()?;
            let target = relative(&resolved(&place.path), &real).join(name).display().to_string();
            let (written, kept) = install::link(source, &skills, &target, &installed.content_digest, &options)?;
            let linked = Installed { written, backup: kept, changes: Changes::default(), ..installed.clone() };
            shell.record(record::installed(Action::Install, &linked, &place.path.join(name)))?;
            say(&linked, place, Some(&target))?;
        }
        Ok(installed.verified)
    }
}

/// Returns an image of the store, pulled by the rule where its name has a registry, and its whole reference.
pub fn fetch(
    shell: &Shell,
    layout: &Layout,
    text: &str,
    rule: Rule<'_>,
    registry: &RegistryArgs,
) -> Result<(Found, Reference)> {
    // What only the store can have.
    let local = |reference: &Reference| reference.registry().is_none();
    let here = text.parse::<Reference>().map_or(true, |reference| local(&reference)).then(|| store::open(layout, text));
    if let Some(Ok(found)) = here {
        let reference = trusted::called(&found, text)?;
        let verified = trusted::found(layout, &found, text, rule.trust).map_err(Into::into);
        if let Some(verified) = shell.recorded_verification(text, verified)? {
            shell.warnings(&verified.warnings);
        }
        return Ok((found, reference));
    }
    let resolved = registry.resolve(shell, text);
    let reference = match here {
        Some(Err(Error::ImageNotFound(what))) => resolved.with_context(|| format!("the store has no {what}"))?,
        _ => resolved?,
    };
    let reference = reference.or_latest();
    let remote = registry.remote(shell)?;
    let tools = shell.tools();
    let board = shell.board();
    let progress = board.add(&reference.to_string());
    let report = |bytes, total| progress.towards(bytes, total);
    let copying = registry.copying(&tools, &report);
    shell.can_record()?;
    let pulled = pull::pull((layout, &remote), &reference, rule, copying);
    let pulled = shell.recorded((Action::Pull, text), pulled, record::pulled)?;
    drop(progress);
    drop(board);
    shell.warnings(&pulled.warnings);
    Ok((store::read(layout, pulled.entry)?, reference))
}

/// A skill that was built just now.
pub struct Made {
    /// The image.
    pub found: Found,
    /// Its name in the store.
    pub reference: Reference,
    /// The commit or the digest that it is from.
    pub origin: Provenance,
}

/// Builds skills into the store.
///
/// # Errors
/// If one is not valid, which is reported.
pub fn built(shell: &Shell, layout: &Layout, gathered: &Gathered, unpack: &UnpackOptions<'_>) -> Result<Vec<Made>> {
    let options = ops::build::Options { limits: unpack.limits, cancelled: unpack.cancelled, ..Default::default() };
    let mut all = Vec::new();
    for one in &gathered.skills {
        let built = build_one(layout, gathered, one, &options);
        match built.with_context(|| format!("Packing {}", one.path))? {
            Ok(built) => {
                let reference = built.reference.parse()?;
                all.push(Made { found: store::read(layout, built.entry)?, reference, origin: one.provenance.clone() });
            }
            Err(findings) => {
                super::validate::report(shell, Path::new(&one.path), &findings, Format::Text)?;
                let reason = format!("{} in {} is no valid skill", one.path, gathered.from);
                return Err(Error::Unavailable { reason, hint: None }.into());
            }
        }
    }
    Ok(all)
}

/// Returns the skills that are asked for: all of them, unless some are named.
///
/// # Errors
/// If one that is named is not there.
pub fn chosen<'a>(names: &[&'a str], wanted: &[String]) -> Result<Vec<&'a str>> {
    if let Some(missing) = wanted.iter().find(|wanted| !names.contains(&wanted.as_str())) {
        let reason = format!("it has no skill {missing}: there is {}", names.join(", "));
        return Err(Error::Unavailable { reason, hint: None }.into());
    }
    Ok(names.iter().copied().filter(|name| wanted.is_empty() || wanted.iter().any(|own| own == name)).collect())
}

/// Returns how layers are read for an installation.
pub fn unpack_options(max_size: u64, cancel: &Cancel) -> UnpackOptions<'_> {
    UnpackOptions {
        limits: Limits { size: max_size, ..Limits::default() },
        cancelled: Some(cancel.flag()),
        ..UnpackOptions::default()
    }
}

fn said(text: &str, installed: &Installed, path: &Path, dry_run: bool) -> String {
    let (text, path) = (harmless_line(&without_credentials(text)), shown(path));
    let line = match (dry_run, installed.written) {
        (_, false) => format!("Already installed: {text} in {path}\n"),
        (true, true) => format!("Would install {text} to {path}\n") + &listed(&installed.changes),
        (false, true) => format!("Installed {text} to {path}\n"),
    };
    line + &backup(installed.backup.as_deref())
}

/// Returns one line for each file that changes: A added, M modified, D deleted, ! the user's.
pub fn listed(changes: &Changes) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut put = |mark: char, path: &str, note: &str| {
        let path = harmless_line(path);
        lines.push((path.clone(), format!("  {mark} {path}{note}\n")));
    };
    changes.added.iter().for_each(|path| put('A', path, ""));
    let conflicts = |path: &&String| changes.conflicts.iter().any(|conflict| conflict.path == **path);
    changes.modified.iter().filter(|path| !conflicts(path)).for_each(|path| put('M', path, ""));
    changes.removed.iter().for_each(|path| put('D', path, ""));
    changes.kept.iter().for_each(|path| put('!', path, "  yours, kept"));
    for conflict in &changes.conflicts {
        put('!', &conflict.path, "  yours, replaced with --force only");
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Returns the way from one directory to another; both are absolute and have no links in them.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<Component<'_>>, Vec<_>) = (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n(Component::ParentDir, from.len() - common);
    up.chain(to[common..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative() {
        let cases = [
            ("/home/u/.claude/skills", "/home/u/.agents/skills", "../../.agents/skills"),
            ("/home/u/.codeium/windsurf/skills", "/home/u/.agents/skills", "../../../.agents/skills"),
            ("/p/skills", "/p/.agents/skills", "../.agents/skills"),
            ("/a", "/a/b", "b"),
        ];
        for (from, to, want) in cases {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(want));
        }
    }
}
