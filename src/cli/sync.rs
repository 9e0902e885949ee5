//! `add`, `remove`, `update` and `sync`: the skills of a project.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::SecondsFormat;
use serde_json::json;

use super::install::unpack_options;
use super::make::epoch;
use super::record;
use super::registry::RegistryArgs;
use super::shell::{Format, NO, Shell, open_dir};
use super::targets::project_root;
use super::verify::VerifyArgs;
use super::wanted::Lookup;
use crate::agent::Agent;
use crate::audit::Action;
use crate::error::Error;
use crate::limits::Limits;
use crate::lockfile::import::{self, From, Imported};
use crate::lockfile::{BASE, INTENT, Intent, LOCK, Lock, Locked, MAX_FILE, Wanted};
use crate::ops::install::{Installed, Options};
use crate::ops::sync::{self, Problem, Project, Resolved, check, superfluous};
use crate::output::{backup, harmless_line, shown};
use crate::process::Cancel;
use crate::redact::without_credentials;
use crate::skills::read_bounded;
use crate::trust::check::Against;
use crate::trust::policy::Rule;

const EXAMPLES: &str = "\
Examples:
  Install what the files say; in CI, fail where they disagree:
    skillctl sync
    skillctl sync --locked
  Take nothing that a key has not signed:
    skillctl sync --key acme.pub
  Say what is not as the files say, or not signed, without a network:
    skillctl sync --check
    skillctl sync --check --key acme.pub";

/// What was looked up already, by the names of skills.
type Ready = BTreeMap<String, Resolved>;

const ADD_EXAMPLES: &str = "\
Examples:
  The newest published version, and one that stays:
    skillctl add registry.example/acme/hr
    skillctl add registry.example/acme/hr:1.0.0
  From Git, one directory at a branch, whose commit is locked:
    skillctl add https://github.com/acme/skills#main:skills/hr
  A directory of the project itself:
    skillctl add ./skills/hr";

/// Which skills of a project are worked on.
#[derive(Clone, Copy)]
struct Part<'a> {
    /// Those of these names, and all others stay as they are.
    only: Option<&'a [String]>,
    /// Those whose tags are looked up anew.
    renew: &'a [String],
    /// Whether the lock file stays as it is.
    keep: bool,
    /// What need not be looked up.
    ready: &'a Ready,
}

/// What the verbs of a project share.
struct Work<'a> {
    shell: &'a Shell,
    project: Project,
    registry: &'a RegistryArgs,
    /// What has to hold of the images, beside the policy.
    trust: Option<Rule>,
    force: bool,
    format: Format,
}

/// Install what this project wants, and nothing else
///
/// What is wanted is in skills.json, and what exactly that is in skills.lock.json; both are in the directory above that has
/// the first of them. Every skill is in .agents/skills, and copied to where its entry says. Skills that are not wanted any
/// more are uninstalled.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct SyncArgs {
    /// Only say what is not as the files say, or not signed as it has to be; exit status 1 if anything is
    #[arg(long, conflicts_with_all = ["locked", "force"])]
    check: bool,
    /// Fail where the lock file has not all that is wanted, instead of changing it
    #[arg(long)]
    locked: bool,
    /// Replace what is in the way, and keep it in a backup
    #[arg(long, short)]
    force: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Add skills to this project
///
/// Installs each skill, and writes it into skills.json and skills.lock.json, which are made in the root of the repository,
/// or in the working directory, where there are none. With a tag or digest that version stays; without, update takes the
/// newest published one.
#[derive(Debug, clap::Args)]
#[command(after_long_help = ADD_EXAMPLES)]
pub struct AddArgs {
    /// Images of the store or of registries, Git repositories (URL[#REF[:DIRECTORY]]), indexes of web sites, directories
    /// (./DIRECTORY) or archives
    #[arg(required_unless_present = "import", value_name = "REFERENCE|URL")]
    references: Vec<String>,
    /// Add the skills of a lock file of npx skills, gh skill or ToolHive, too
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    /// Agents that do not look in .agents/skills, separated by commas
    #[arg(long, short, value_name = "AGENT", value_delimiter = ',')]
    target: Vec<String>,
    /// Replace what is in the way, and keep it in a backup
    #[arg(long, short)]
    force: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Remove skills from this project
///
/// Takes them out of skills.json and skills.lock.json, and uninstalls them.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// Names of skills
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Remove files of yours, too, and keep them in a backup
    #[arg(long, short)]
    force: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Update the skills of this project
///
/// Those without a version in skills.json go to the newest published one, and tags are looked up anew.
#[derive(Debug, clap::Args)]
pub struct UpdateArgs {
    /// Names of skills; all unless some are given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Replace what is in the way, and keep it in a backup
    #[arg(long, short)]
    force: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl SyncArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let work = Work::new(shell, (&self.verify, &self.registry), self.force, self.format)?;
        if self.check {
            return work.check(&work.intent()?, &work.project.locked()?);
        }
        let _alone = work.project.lock(&shell.cancel())?;
        let (intent, lock) = (work.intent()?, work.project.locked()?);
        if self.locked {
            let up_to_date = |wanted: &Wanted, own: &Locked| wanted.is(own) && wanted.paths().eq(own.paths());
            let own = |wanted: &Wanted| lock.get(&wanted.name).is_some_and(|own| up_to_date(wanted, own));
            let missing = intent.skills.iter().find(|wanted| !own(wanted));
            let more = lock.skills.iter().find(|own| intent.get(&own.name).is_none());
            if let Some(name) = missing.map(|wanted| &wanted.name).or(more.map(|own| &own.name)) {
                let reason = format!("{LOCK} is not up to date: {name} is not as in {INTENT}");
                let hint = Some("skillctl sync brings it up to date".to_owned());
                return Err(Error::Unavailable { reason, hint }.into());
            }
            work.check_own(&intent, &lock)?;
        }
        work.install(&intent, &lock, Part { only: None, renew: &[], keep: self.locked, ready: &Ready::new() })
    }
}

impl AddArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let work = Work::new(shell, (&self.verify, &self.registry), self.force, self.format)?;
        let mut paths = Vec::new();
        for target in &self.target {
            let path = Agent::find(target)?.project;
            if path != BASE && !paths.iter().any(|own| own == path) {
                paths.push(path.to_owned());
            }
        }
        let _alone = work.project.lock(&shell.cancel())?;
        let mut intent = work.project.intent()?.unwrap_or_default();
        let mut lock = work.project.locked()?;
        let layout = shell.store()?;
        let lookup = work.lookup();
        let (mut names, mut renew, mut ready) = (Vec::new(), Vec::new(), Ready::new());
        for text in &self.references {
            let context = || format!("Adding {}", without_credentials(text));
            for (wanted, resolved) in lookup.wanted(&layout, text, &paths).with_context(context)? {
                let wanted = self.merged(&intent, wanted).with_context(context)?;
                ready.extend(resolved.map(|resolved| (wanted.name.clone(), resolved)));
                names.push(wanted.name.clone());
                renew.push(wanted.name.clone());
                intent.put(wanted);
            }
        }
        let mut status = ExitCode::SUCCESS;
        for imported in self.imported()? {
            match imported.from {
                From::Image(reference, digest) => {
                    let version = reference.tag().unwrap_or(&digest);
                    let wanted = Wanted::new(&imported.name, &reference, Some(version), paths.clone());
                    let wanted = self.merged(&intent, wanted).with_context(|| format!("Adding {reference}"))?;
                    lock.skills.retain(|own| own.name != wanted.name);
                    // Its content is what the digest says; what others call its digest is another thing.
                    lock.skills.push(Locked { content_digest: None, ..Locked::new(&wanted, &reference, &digest, "") });
                    names.push(imported.name);
                    intent.put(wanted);
                }
                From::Git(url) => {
                    let add = || -> Result<Vec<(Wanted, Option<Resolved>)>> {
                        let mut all = lookup.wanted(&layout, &url, &paths)?;
                        // Of a repository whose directory the file does not say.
                        if all.iter().any(|(wanted, _)| wanted.name == imported.name) {
                            all.retain(|(wanted, _)| wanted.name == imported.name);
                        }
                        all.into_iter().map(|(wanted, ready)| Ok((self.merged(&intent, wanted)?, ready))).collect()
                    };
                    match add().with_context(|| format!("Adding {} from {url}", imported.name)) {
                        Ok(all) => all.into_iter().for_each(|(wanted, resolved)| {
                            ready.extend(resolved.map(|resolved| (wanted.name.clone(), resolved)));
                            names.push(wanted.name.clone());
                            intent.put(wanted);
                        }),
                        Err(e) => status = shell.fail(&e),
                    }
                }
                From::Other(source) => {
                    let reason = format!("Adding {}: it comes from {source}, which is no image", imported.name);
                    let hint = Some("build it there, and add the image: skillctl build DIR".to_owned());
                    status = shell.fail(&Error::Unavailable { reason, hint }.into());
                }
            }
        }
        let adds = Part { only: Some(&names), renew: &renew, keep: false, ready: &ready };
        work.install(&intent, &lock, adds)?;
        Ok(status)
    }

    /// Adds to what is wanted already: its directories stay, and its repository unless that is forced.
    fn merged(&self, intent: &Intent, mut wanted: Wanted) -> Result<Wanted> {
        let Some(own) = intent.get(&wanted.name) else { return Ok(wanted) };
        if own.source != wanted.source && !self.force {
            let reason = format!("{} is in {INTENT} already, from {}", own.name, own.source);
            let hint = Some("replace it by that of another repository with --force".to_owned());
            return Err(Error::Unavailable { reason, hint }.into());
        }
        let mut paths = own.additional_base_paths.clone();
        paths.extend(wanted.additional_base_paths.into_iter().filter(|path| !own.additional_base_paths.contains(path)));
        wanted.additional_base_paths = paths;
        Ok(wanted)
    }

    fn imported(&self) -> Result<Vec<Imported>> {
        let Some(path) = &self.import else { return Ok(Vec::new()) };
        let context = || format!("Reading {}", path.display());
        let (dir, name) = (path.parent().filter(|dir| !dir.as_os_str().is_empty()), path.file_name());
        let dir = open_dir(dir.unwrap_or(Path::new("."))).with_context(context)?;
        let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let bytes = read_bounded(&dir, &name, MAX_FILE).with_context(context)?;
        let bytes = bytes.with_context(|| format!("there is no file {}", path.display()))?;
        Ok(import::read(&bytes, &path.display().to_string())?)
    }
}

impl RemoveArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let (verify, registry) = (VerifyArgs::default(), RegistryArgs::default());
        let work = Work::new(shell, (&verify, &registry), self.force, self.format)?;
        let _alone = work.project.lock(&shell.cancel())?;
        let mut intent = work.intent()?;
        let lock = work.project.locked()?;
        for name in &self.names {
            if intent.get(name).is_none() && lock.get(name).is_none() {
                return Err(work.not_wanted(name).into());
            }
        }
        intent.skills.retain(|wanted| !self.names.contains(&wanted.name));
        // What else may be out of date is not looked at.
        let mut kept = lock.clone();
        kept.skills.retain(|own| !self.names.contains(&own.name));
        let mut gone = lock;
        gone.skills.retain(|own| self.names.contains(&own.name));
        let mut rows = Vec::new();
        work.uninstall(&intent, &gone, &mut rows)?;
        work.project.write_intent(&intent)?;
        work.project.write_locked(&kept)?;
        work.finish(&rows)
    }
}

impl UpdateArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let work = Work::new(shell, (&self.verify, &self.registry), self.force, self.format)?;
        let _alone = work.project.lock(&shell.cancel())?;
        let (intent, lock) = (work.intent()?, work.project.locked()?);
        for name in &self.names {
            if intent.get(name).is_none() {
                return Err(work.not_wanted(name).into());
            }
        }
        let names: Vec<String> = match self.names.is_empty() {
            true => intent.skills.iter().map(|wanted| wanted.name.clone()).collect(),
            false => self.names,
        };
        work.install(&intent, &lock, Part { only: None, renew: &names, keep: false, ready: &Ready::new() })
    }
}

impl<'a> Work<'a> {
    fn new(shell: &'a Shell, from: (&VerifyArgs, &'a RegistryArgs), force: bool, format: Format) -> Result<Self> {
        let (trust, registry) = (from.0.rule(shell)?, from.1);
        let path = project_root(shell)?;
        let root = open_dir(&path).with_context(|| format!("Opening {}", path.display()))?;
        Ok(Self { shell, project: Project::new(root, path), registry, trust, force, format })
    }

    fn intent(&self) -> Result<Intent> {
        self.project.intent()?.ok_or_else(|| {
            let reason = format!("there is no {INTENT} in {} or above", self.project.path().display());
            Error::Unavailable { reason, hint: Some("skillctl add REFERENCE makes one".into()) }.into()
        })
    }

    fn lookup(&self) -> Lookup<'_> {
        Lookup::new(self.shell, (self.registry, self.trust.as_ref()), self.project.path())
    }

    fn not_wanted(&self, name: &str) -> Error {
        let reason = format!("{name} is not in {}", self.project.path().join(INTENT).display());
        Error::Unavailable { reason, hint: None }
    }

    /// Installs what is wanted, uninstalls what is not, and writes both files.
    fn install(&self, intent: &Intent, lock: &Lock, part: Part<'_>) -> Result<ExitCode> {
        let layout = self.shell.store()?;
        let cancel = self.shell.cancel();
        let unpack = unpack_options(Limits::default().size, &cancel);
        let lookup = self.lookup();
        let mut rows = Vec::new();
        let mut written = Lock::default();
        // No date, so that the same skills make the same file, unless the environment has one.
        written.generated_at = epoch(self.shell)?.map(|date| date.to_rfc3339_opts(SecondsFormat::Secs, true));
        // What is not worked on stays, also what only the lock file has: the next sync takes that away.
        let stays = |own: &&Locked| part.only.is_some_and(|only| !only.contains(&own.name));
        written.skills.extend(lock.skills.iter().filter(stays).cloned());
        for wanted in intent.skills.iter().filter(|wanted| part.only.is_none_or(|only| only.contains(&wanted.name))) {
            // A directory of the project is taken as it is, unless the lock has to hold.
            let renew = |own: &Locked| part.renew.contains(&own.name) || (!part.keep && sync::is_own(wanted, own));
            let known = lock.get(&wanted.name).filter(|own| wanted.is(own) && !renew(own));
            let options = Options {
                force: self.force,
                back: None,
                content: known.and_then(|known| known.content_digest.as_deref()),
                // The file says where it comes from.
                any_source: true,
                unpack,
                cancel: &cancel,
            };
            let work = || -> Result<_> {
                let install = |resolved: &Resolved| sync::install(&self.project, &layout, wanted, resolved, &options);
                match part.ready.get(&wanted.name).filter(|_| known.is_none()) {
                    Some(resolved) => install(resolved),
                    None => install(&lookup.image(&layout, wanted, known)?),
                }
            };
            self.shell.can_record()?;
            let installed = work().with_context(|| format!("Installing {}", wanted.name));
            let (locked, installed) =
                self.shell.recorded((Action::Install, &wanted.source), installed, |(_, all)| {
                    all.iter().flat_map(|(one, path)| record::installed(Action::Install, one, path)).collect()
                })?;
            for (one, path) in installed {
                self.say(&one, &path)?;
                let mut row = serde_json::to_value(&one)?;
                row["path"] = json!(path);
                rows.push(row);
            }
            written.skills.push(locked);
        }
        written.skills.sort_by(|one, other| one.name.cmp(&other.name));
        match part.only {
            Some(_) => self.project.write_intent(intent)?,
            None => self.uninstall(intent, lock, &mut rows)?,
        }
        if !part.keep {
            self.project.write_locked(&written)?;
        }
        let left = check(&self.project, intent, &written, &unpack, &cancel)?;
        for problem in left.iter().filter(|_| part.only.is_none()) {
            // Files of the user's, which stay.
            let found: Vec<String> = problem.differences.iter().map(ToString::to_string).collect();
            let found = if found.is_empty() { problem.reason.clone() } else { found.join(", ") };
            self.shell.note(harmless_line(&format!("note: {} ({}): {found}", problem.name, problem.path)));
        }
        self.finish(&rows)
    }

    fn uninstall(&self, intent: &Intent, lock: &Lock, rows: &mut Vec<serde_json::Value>) -> Result<()> {
        let cancel: Cancel = self.shell.cancel();
        let unpack = unpack_options(Limits::default().size, &cancel);
        self.shell.can_record()?;
        let layout = self.shell.existing_store()?;
        let paths = superfluous(intent, lock).into_iter();
        for gone in sync::remove(&self.project, layout.as_ref(), (paths, intent), self.force, (&unpack, &cancel))? {
            if self.format == Format::Text {
                let (name, path) = (harmless_line(&gone.name), shown(&gone.path));
                let backup = backup(gone.backup.as_deref());
                self.shell.print(format!("Uninstalled {name} from {path}\n{backup}"))?;
            }
            self.shell.record(vec![record::uninstalled(&gone)])?;
            self.shell.warnings(&gone.warnings);
            rows.push(serde_json::to_value(&gone)?);
        }
        Ok(())
    }

    fn say(&self, installed: &Installed, path: &Path) -> Result<()> {
        self.shell.warnings(&installed.warnings);
        if self.format == Format::Text && installed.written {
            let (reference, path) = (harmless_line(&installed.reference), shown(path));
            let backup = backup(installed.backup.as_deref());
            self.shell.print(format!("Installed {reference} to {path}\n{backup}"))?;
        }
        Ok(())
    }

    fn finish(&self, rows: &[serde_json::Value]) -> Result<ExitCode> {
        match self.format {
            Format::Json => self.shell.print_json(&rows)?,
            Format::Text => {
                let skills = self.project.intent()?.unwrap_or_default().skills.len();
                let path = self.project.path().join(INTENT);
                self.shell.print(format!("In sync with {}: {skills} skill(s).\n", shown(&path)))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Refuses to install the project's own directories where they are not what is locked.
    fn check_own(&self, intent: &Intent, lock: &Lock) -> Result<()> {
        let cancel = self.shell.cancel();
        let changed = sync::changed(&self.project, intent, lock, &unpack_options(Limits::default().size, &cancel))?;
        let Some(Problem { name, reason, .. }) = changed.into_iter().next() else { return Ok(()) };
        let reason = format!("{LOCK} is not up to date: {name}: {reason}");
        Err(Error::Unavailable { reason, hint: Some("skillctl sync takes what is there".into()) }.into())
    }

    fn check(&self, intent: &Intent, lock: &Lock) -> Result<ExitCode> {
        let cancel = self.shell.cancel();
        let unpack = unpack_options(Limits::default().size, &cancel);
        let mut problems = check(&self.project, intent, lock, &unpack, &cancel)?;
        problems.extend(sync::changed(&self.project, intent, lock, &unpack)?);
        let against = Against { given: self.trust.as_ref(), policy: &self.shell.policy() };
        problems.extend(sync::unverified(self.shell.existing_store()?.as_ref(), (intent, lock), against)?);
        match self.format {
            Format::Json => self.shell.print_json(&problems)?,
            Format::Text if problems.is_empty() => return self.finish(&[]),
            Format::Text => self.shell.print(problems.iter().map(line).collect::<String>())?,
        }
        Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
    }
}

fn line(problem: &Problem) -> String {
    let place = if problem.path.is_empty() { String::new() } else { format!(" ({})", harmless_line(&problem.path)) };
    let differences =
        problem.differences.iter().map(|difference| format!("  {}\n", harmless_line(&difference.to_string())));
    format!("✗ {}{place}: {}\n", harmless_line(&problem.name), harmless_line(&problem.reason))
        + &differences.collect::<String>()
}
