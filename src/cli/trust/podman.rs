//! `trust show` and `trust install`: the same policy for podman, skopeo and CRI-O.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use nix::fcntl::Flock;
use serde_json::{Value, json};

use super::real;
use crate::audit::{Action, Event};
use crate::cli::hook::write;
use crate::cli::shell::{Format, Shell, label, open_dir};
use crate::error::Error;
use crate::lock::{How, lock_dir};
use crate::output::harmless_line;
use crate::store::canary::holds_to;
use crate::trust::noted::{self, Note};
use crate::trust::podman::Proposal;
use crate::trust::policy::prefix;
use crate::yaml;

/// Where podman looks, below the directory of a configuration.
const POLICY: &str = "containers/policy.json";
const REGISTRIES_D: &str = "containers/registries.d";
/// What we write there.
const OWN: &str = "50-skillctl.yaml";
/// The attribute that has the label of SELinux.
const SELINUX: &str = "security.selinux";
/// Largest file of registries.d, in bytes: ten thousand registries.
const MAX_YAML: usize = 1 << 20;

const INSTALL: &str = "\
Examples:
  What would be written:
    skillctl trust install --dry-run
  Where policy.json rejects what it does not name, which has to hold in the new scopes, too:
    skillctl trust install --inherit
  After skillctl trust remove, to have podman forget the scope:
    skillctl trust install";

const SHOW: &str = "\
Examples:
  skillctl trust show
  skillctl trust show --format json";

/// Show what podman has to be told to hold to the policy
///
/// Prints what belongs in policy.json and registries.d, and what podman cannot hold to. Nothing is written.
#[derive(Debug, clap::Args)]
#[command(after_long_help = SHOW)]
pub struct ShowArgs {
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Tell podman, skopeo and CRI-O to hold to the policy
///
/// Adds its scopes to policy.json, and has signatures read in registries.d. Everything else in these files stays; nothing that is
/// written there is made weaker or changed, unless the flags say so. Scopes that an earlier installation has written, and that are gone,
/// are taken out again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = INSTALL)]
pub struct InstallArgs {
    /// The policy [default: /etc/containers/policy.json]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The directory for the names whose signatures are read [default: /etc/containers/registries.d]
    #[arg(long = "registries.d", value_name = "DIR")]
    registries_d: Option<PathBuf>,
    /// Change scopes that are there and different
    #[arg(long)]
    replace: bool,
    /// Repeat in each scope what broader ones of the file ask for: podman takes the narrowest alone
    #[arg(long)]
    inherit: bool,
    /// Only say what would be written
    #[arg(long)]
    dry_run: bool,
}

impl ShowArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let proposal = Proposal::of(&shell.policy())?;
        // One of the user's hides the machine's; none is made for that.
        let below = |name: &str| users(shell, name).unwrap_or_else(|| Path::new("/etc").join(name));
        let (path, registries_d) = (below(POLICY), below(REGISTRIES_D));
        let (own, shown) = (registries_d.join(OWN), path.display().to_string());
        let own_text = text_of(&own)?.unwrap_or_default();
        let notes = noted::read(&own_text, &own.display().to_string())?;
        let there = there(text_of(&path)?.as_deref());
        // As with all flags of install: what counts of it now is repeated.
        let merged = proposal.merge(&there, &shown, (true, true), &notes)?;
        let told = proposal.reading(&merged.notes, &own_text);
        let told = unread(&told, &registries_d).unwrap_or_else(|e| {
            shell.warn(harmless_line(&format!("warning: trust install would not write this: {e:#}")));
            told
        });
        shell.warnings(&merged.warnings);
        match self.format {
            Format::Json => shell.print_json(&json!({
                "policy": serde_json::from_str::<Value>(&merged.text)?,
                "registries_d": told.attachments.iter().collect::<Vec<_>>(),
                "not_enforced": proposal.unsaid,
            }))?,
            Format::Text if proposal.scopes.is_empty() => {
                shell.print("There is nothing that podman could hold to.\n")?;
            }
            Format::Text => {
                shell.print(format!(
                    "In {shown}:\n\n{}\nIn {}:\n\n{}",
                    merged.text,
                    own.display(),
                    file(&merged.notes, &told)
                ))?;
            }
        }
        if self.format == Format::Text {
            tell_unsaid(shell, &proposal);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tell_unsaid(shell: &Shell, proposal: &Proposal) {
    for unsaid in &proposal.unsaid {
        shell.warn(format!("note: podman does not hold to this: {}", harmless_line(unsaid)));
    }
}

impl InstallArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        shell.can_record()?;
        let proposal = Proposal::of(&shell.policy())?;
        let policy = match &self.policy {
            Some(path) => path.clone(),
            None => machines(shell, POLICY, "--policy")?,
        };
        if let (false, Some(dir)) = (self.dry_run, policy.parent()) {
            // Before it is named: a link in a path that is not there leads nowhere.
            fs::create_dir_all(dir).with_context(|| format!("Changing {}", policy.display()))?;
        }
        let policy = real(&policy)?;
        let registries_d = match &self.registries_d {
            Some(path) => path.clone(),
            None => machines(shell, REGISTRIES_D, "--registries.d")?,
        };
        let (own, shown) = (registries_d.join(OWN), policy.display().to_string());
        let context = || format!("Changing {shown}");
        let _locks = match self.dry_run {
            true => Vec::new(),
            false => locks(shell, [&registries_d, policy.parent().unwrap_or(&policy)]).with_context(context)?,
        };
        let own_text = text_of(&own)?.unwrap_or_default();
        let notes = noted::read(&own_text, &own.display().to_string())?;
        if proposal.scopes.is_empty() && notes.iter().all(|note| note.policy != shown) {
            let hint = Some("skillctl trust add REGISTRY/NAME --key FILE names keys for a repository".into());
            return Err(Error::Unavailable { reason: "there is nothing that podman could hold to".into(), hint }.into());
        }
        let there = text_of(&policy)?;
        let merged = proposal.merge(&self::there(there.as_deref()), &shown, (self.replace, self.inherit), &notes)?;
        let told = unread(&proposal.reading(&merged.notes, &own_text), &registries_d)?;
        // Where it cannot hold to them, everything of these scopes would be refused.
        if shell.env.find_program("skopeo").is_some() {
            let (layout, tools) = (shell.store()?, shell.tools());
            for (_, requirements) in &proposal.scopes {
                holds_to(&layout, &tools, requirements).with_context(context)?;
            }
        }
        shell.warnings(&merged.warnings);
        let gone = merged.gone.iter();
        let is_gone = merged.notes.is_empty() && told.attachments.is_empty();
        if self.dry_run {
            let gone = gone.map(|scope| format!("Would take {scope} out of {shown}\n")).collect::<String>();
            let own = match is_gone {
                true => format!("Would remove {}\n", own.display()),
                false => format!("Would write {}:\n{}", own.display(), file(&merged.notes, &told)),
            };
            shell.print(format!("{gone}Would write {shown}:\n{}\n{own}", merged.text))?;
        } else {
            // What is read and what is noted before the policy: one without signatures would refuse what is signed, and one without notes
            // would be nobody's. What is gone goes after it.
            let mut both = told.clone();
            both.attachments.extend(noted::names(&own_text).map(str::to_owned));
            let known = |note: &&Note| !merged.notes.contains(note);
            let both_notes: Vec<Note> = merged.notes.iter().chain(notes.iter().filter(known)).cloned().collect();
            write(&own, &file(&both_notes, &both)).with_context(context)?;
            replace_policy(&policy, (there.as_deref(), &merged.text)).with_context(context)?;
            match is_gone {
                true => fs::remove_file(&own).with_context(context)?,
                false => write(&own, &file(&merged.notes, &told)).with_context(context)?,
            }
            let scopes = proposal.scopes.iter().map(|(scope, _)| Event::of(Action::Trust, scope).at(&shown));
            let taken = gone.clone().map(|scope| Event::of(Action::Trust, scope).at(format!("removed from {shown}")));
            shell.record(scopes.chain(taken).collect())?;
            let gone = gone.map(|scope| format!("Took {scope} out of {shown}\n")).collect::<String>();
            let own = own.display();
            shell.print(match is_gone {
                true => format!("{gone}Wrote {shown}, and removed {own}\n"),
                false => format!("{gone}Wrote {shown} and {own}\n"),
            })?;
        }
        tell_unsaid(shell, &proposal);
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns what a user has of the machine's configuration, which hides that from podman.
fn users(shell: &Shell, name: &str) -> Option<PathBuf> {
    shell.env.home.as_ref().map(|home| home.join(".config").join(name)).filter(|path| path.exists())
}

/// Returns the machine's. One of the user's hides it, and nothing here makes such a file.
fn machines(shell: &Shell, name: &str, flag: &str) -> Result<PathBuf> {
    if let Some(user) = users(shell, name) {
        let reason = format!("podman reads {} in place of /etc/{name} for this user", user.display());
        let hint = Some(format!("{flag} {} changes that one", user.display()));
        return Err(Error::Unavailable { reason, hint }.into());
    }
    Ok(Path::new("/etc").join(name))
}

/// Returns what belongs in our file of `registries.d`, with the names that no other file has: one in two files stops every pull.
fn unread(proposal: &Proposal, dir: &Path) -> Result<Proposal> {
    let mut missing = proposal.clone();
    for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|end| end != "yaml") || path.ends_with(OWN) {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("Reading {}", path.display()))?;
        let document = yaml::parse(text.as_bytes(), MAX_YAML).map_err(|e| Error::damaged(path.display(), e))?;
        let docker = document.root.as_ref().and_then(|root| root.get("docker"));
        for name in &proposal.attachments {
            let Some(own) = docker.and_then(|docker| docker.get(name)) else { continue };
            let reads = own.get("use-sigstore-attachments").and_then(yaml::Node::text);
            if reads != Some("true") {
                let reason = format!("{} has {name} and does not have its signatures read", path.display());
                let hint = Some(format!("add to it there:  use-sigstore-attachments: true   (below {name}:)"));
                return Err(Error::Unavailable { reason, hint }.into());
            }
            missing.attachments.remove(name);
        }
    }
    Ok(missing)
}

/// Replaces the policy, of which one copy is kept, with the same owner, mode and label. What is new has the label of the directory.
///
/// # Errors
/// If it is not what it was when it was read: others write it, too, and lock nothing.
fn replace_policy(path: &Path, (before, after): (Option<&str>, &str)) -> Result<()> {
    if before == Some(after) {
        return Ok(());
    }
    let beside = path.with_extension("json.skillctl-new");
    write(&beside, after)?;
    if let (Ok(metadata), Some(before)) = (fs::metadata(path), before) {
        fs::set_permissions(&beside, fs::Permissions::from_mode(metadata.mode() & 0o777))?;
        std::os::unix::fs::chown(&beside, Some(metadata.uid()), Some(metadata.gid()))?;
        if label().is_some() {
            keep_label(path, &beside, SELINUX)?;
        }
        let backup = path.with_extension("json.before-skillctl");
        if !backup.exists() {
            write(&backup, before)?;
        }
    }
    fs::File::open(&beside)?.sync_all()?;
    if text_of(path)?.as_deref() != before {
        fs::remove_file(&beside)?;
        let reason = format!("somebody else has changed {} meanwhile", path.display());
        return Err(Error::Unavailable { reason, hint: Some("run it again".into()) }.into());
    }
    fs::rename(&beside, path)?;
    Ok(fs::File::open(path.parent().unwrap_or(path))?.sync_all()?)
}

/// Returns a policy, or what counts where there is none.
fn there(policy: Option<&str>) -> String {
    policy.map(str::to_owned).unwrap_or_else(|| {
        // Where podman 6 looks next; ours will hide it.
        let next = fs::read_to_string(Path::new("/usr/share").join(POLICY));
        next.unwrap_or_else(|_| r#"{"default": [{"type": "insecureAcceptAnything"}]}"#.to_owned())
    })
}

/// Locks directories for ourselves, each once, and makes them where they are not there.
fn locks(shell: &Shell, dirs: [&Path; 2]) -> Result<Vec<Flock<fs::File>>> {
    let mut unique: Vec<PathBuf> = Vec::new();
    for dir in dirs {
        fs::create_dir_all(dir)?;
        unique.push(fs::canonicalize(dir)?);
    }
    // In one order, and none twice: a second lock would wait for the first.
    unique.sort();
    unique.dedup();
    let lock = |dir: PathBuf| Ok(lock_dir(&open_dir(&dir)?, How::Exclusive, &shell.cancel())?);
    unique.into_iter().map(lock).collect()
}

/// Reads a file; `None` where there is none.
fn text_of(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("Reading {}", path.display())),
    }
}

/// Returns our file of `registries.d`.
fn file(notes: &[Note], told: &Proposal) -> String {
    let names = if told.attachments.is_empty() { "docker: {}\n".to_owned() } else { told.registries_d() };
    noted::lines(notes) + &names
}

/// Gives a file the label of another one, where that has one.
fn keep_label(from: &Path, to: &Path, name: &str) -> io::Result<()> {
    match xattr::get(from, name)? {
        Some(label) if xattr::get(to, name)?.as_ref() != Some(&label) => xattr::set(to, name, &label),
        _ => Ok(()),
    }
}

/// Tells of a scope that is removed, or asks for other things, where podman holds to what it was.
pub fn warn_of_podman(shell: &Shell, scope: &str) {
    let text = text_of(&Path::new("/etc").join(REGISTRIES_D).join(OWN)).ok().flatten().unwrap_or_default();
    let Ok(scope) = prefix(scope) else { return };
    let notes = noted::read(&text, OWN).unwrap_or_default();
    if noted::names(&text).any(|name| name == scope) || notes.iter().any(|note| note.scope == scope) {
        let scope = harmless_line(&scope);
        shell.warn(format!("note: podman holds to what {scope} asked for until: skillctl trust install"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_writes_meanwhile_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.json");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        replace_policy(&path, (None, "new")).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names()), ("new", 1));
        for before in [None, Some("old")] {
            let refused = replace_policy(&path, (before, "mine")).unwrap_err().to_string();
            assert_eq!(refused, format!("somebody else has changed {} meanwhile", path.display()));
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        }
        replace_policy(&path, (Some("new"), "mine")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_file_has_the_label_of_the_one_that_it_replaces() {
        const NAME: &str = "user.label";
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        for file in [&old, &new] {
            fs::write(file, "x").unwrap();
        }
        if xattr::set(&old, NAME, b"own").is_err() {
            return; // This file system has none.
        }
        keep_label(&old, &new, NAME).unwrap();
        assert_eq!(xattr::get(&new, NAME).unwrap().as_deref(), Some(&b"own"[..]));
    }
}
