//! The flags that say where skills are: agents, a scope, or a directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;
use clap::{Args, ValueEnum};

use super::shell::{Shell, open_dir};
use crate::agent::{AGENTS, Agent, SHARED};
use crate::error::Error;
use crate::lockfile::INTENT;
use crate::skills::SkillsDir;

/// The word for all agents that are found.
const ALL: &str = "all";

/// Whose skills they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Scope {
    /// This user's
    #[default]
    User,
    /// Those of the project in the working directory
    Project,
    /// Those of all users
    System,
}

/// Flags of verbs that install, or look at what is installed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where")]
pub struct TargetArgs {
    /// Agents, separated by commas; all: those that are found here
    #[arg(long, short, value_name = "AGENT", value_delimiter = ',')]
    pub target: Vec<String>,
    /// Whose skills: this user's, the project's, or those of all users
    #[arg(long, value_enum, value_name = "SCOPE", default_value_t)]
    pub scope: Scope,
    /// A directory of skills, instead of agents
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// A directory in which skills are, or may be.
#[derive(Debug, Clone)]
pub struct Place {
    /// The agents that look there, or the directory as it was given.
    pub label: String,
    /// Where it is.
    pub path: PathBuf,
    /// The project that it is in: nothing in there may lead out of it.
    project: Option<PathBuf>,
}

impl Place {
    /// Opens the directory; `None` where there is none.
    pub fn open(&self) -> Result<Option<SkillsDir>> {
        let context = || format!("Looking for installed skills in {}", self.path.display());
        match self.dir() {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            dir => Ok(Some(SkillsDir::new(dir.with_context(context)?, &self.path))),
        }
    }

    /// Opens the directory, making it where there is none.
    pub fn ensure(&self) -> Result<SkillsDir> {
        let context = || format!("Installing in {}", self.path.display());
        match (&self.project, self.beneath()) {
            (Some(project), Some(below)) => open_dir(project).and_then(|dir| dir.create_dir_all(below)),
            _ => fs::create_dir_all(&self.path),
        }
        .with_context(context)?;
        Ok(SkillsDir::new(self.dir().with_context(context)?, &self.path))
    }

    fn dir(&self) -> io::Result<Dir> {
        let (Some(project), Some(below)) = (&self.project, self.beneath()) else { return open_dir(&self.path) };
        let root = open_dir(project)?;
        let dir = root.open_dir(below)?;
        // By whatever links: what is in there is run by git.
        match root.canonicalize(below)?.components().any(|part| part.as_os_str() == ".git") {
            true => Err(io::Error::other("it is in the repository's own files")),
            false => Ok(dir),
        }
    }

    fn beneath(&self) -> Option<&Path> {
        self.path.strip_prefix(self.project.as_ref()?).ok()
    }
}

impl TargetArgs {
    /// Returns the directories that the flags name, each once.
    pub fn places(&self, shell: &Shell) -> Result<Vec<Place>> {
        if let Some(output) = &self.output {
            if !self.target.is_empty() {
                return Err(refused("use --target or -o, not both", None));
            }
            let path = expand_home(output, shell.env.home.as_deref());
            let label = path.display().to_string();
            return Ok(vec![Place { label, path: absolute(shell, &path), project: None }]);
        }
        let mut named = self.target.iter().filter(|target| !target.is_empty()).peekable();
        if named.peek().is_none() {
            let hint = "skillctl agents shows the agents, and which of them are here".to_owned();
            return Err(refused("specify --target <agent> or -o <directory>", Some(hint)));
        }
        let mut places = Vec::new();
        for target in named {
            if target.eq_ignore_ascii_case(ALL) {
                let found: Vec<&Agent> = AGENTS.iter().filter(|agent| is_here(shell, agent)).collect();
                if found.is_empty() {
                    let hint = "name them, for example: --target claude".to_owned();
                    return Err(refused("no agent was found in the home directory", Some(hint)));
                }
                let all = found.into_iter().filter_map(|agent| place(shell, agent, self.scope, agent.name).ok());
                places.extend(all);
            } else {
                places.push(place(shell, Agent::find(target)?, self.scope, target)?);
            }
        }
        Ok(once(places))
    }

    /// Returns the directories that the flags name, or else all in which skills may be.
    pub fn places_or_all(&self, shell: &Shell) -> Result<Vec<Place>> {
        if self.target.is_empty() && self.output.is_none() {
            let all = AGENTS.iter().filter_map(|agent| place(shell, agent, self.scope, agent.name).ok());
            return Ok(owned(once(all.collect())));
        }
        self.places(shell)
    }

    /// Returns the directory whose skills others link to.
    pub fn shared(&self, shell: &Shell) -> Result<Place> {
        place(shell, Agent::find(SHARED)?, self.scope, SHARED)
    }
}

/// Returns every directory in which an agent looks: of this user, of this project and of all users.
pub fn everywhere(shell: &Shell) -> Vec<Place> {
    let scopes = [Scope::User, Scope::Project, Scope::System];
    let all =
        scopes.iter().flat_map(|scope| AGENTS.iter().filter_map(|agent| place(shell, agent, *scope, agent.name).ok()));
    once(all.collect())
}

/// Returns whether an agent is used on this machine.
pub fn is_here(shell: &Shell, agent: &Agent) -> bool {
    let marker = shell.home().ok().and_then(|home| agent.marker_path(home));
    marker.is_some_and(|path| path.is_dir())
}

/// Returns where an agent looks.
pub fn place(shell: &Shell, agent: &Agent, scope: Scope, label: &str) -> Result<Place> {
    let label = label.to_owned();
    match scope {
        Scope::User => match agent.user_dir(shell.home()?) {
            Some(path) => Ok(Place { label, path, project: None }),
            None => {
                let hint = format!("--scope project: {} in the project", agent.project);
                Err(refused(&format!("{} has no skills of a user", agent.name), Some(hint)))
            }
        },
        Scope::Project => {
            let root = project_root(shell)?;
            Ok(Place { label, path: root.join(agent.project), project: Some(root) })
        }
        Scope::System => match agent.system {
            Some(path) => Ok(Place { label, path: path.into(), project: None }),
            None => {
                let with: Vec<&str> = AGENTS.iter().filter(|a| a.system.is_some()).map(|a| a.name).collect();
                let reason = format!("{} has no directory for all users that is known", agent.name);
                Err(refused(&reason, Some(format!("these have one: {}", with.join(", ")))))
            }
        },
    }
}

/// Returns the root of the project in the working directory: the directory above that has skills.json, else that of the
/// Git repository, else the working directory.
pub fn project_root(shell: &Shell) -> Result<PathBuf> {
    let cwd = shell.env.cwd.clone().context("Looking for the working directory: it is not there any more")?;
    // The home directory may well be in version control, and is no project.
    let above = || cwd.ancestors().take_while(|dir| *dir == cwd || Some(*dir) != shell.env.home.as_deref());
    let with = |name: &str| above().find(|dir| dir.join(name).symlink_metadata().is_ok()).map(Path::to_owned);
    if let Some(root) = with(INTENT) {
        // As in git: who can write to a directory above could have us install what he likes.
        let owner = root.join(INTENT).symlink_metadata().with_context(|| root.display().to_string())?.uid();
        if ![0, shell.env.uid].contains(&owner) && shell.env.sudo_uid != Some(owner) {
            let reason = format!("{} belongs to another user ({owner})", root.join(INTENT).display());
            return Err(refused(&reason, Some("work in a directory of your own".to_owned())));
        }
        return Ok(root);
    }
    Ok(with(".git").unwrap_or(cwd))
}

/// Makes places that are one directory one.
fn once(places: Vec<Place>) -> Vec<Place> {
    let mut seen: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut all: Vec<Place> = Vec::new();
    for place in places {
        let path = resolved(&place.path);
        match seen.get(&path) {
            Some(&at) => {
                let own = &mut all[at].label;
                if !own.split(',').any(|label| label == place.label) {
                    own.push(',');
                    own.push_str(&place.label);
                }
            }
            None => {
                seen.insert(path, all.len());
                all.push(place);
            }
        }
    }
    all
}

/// Names each directory by one of the agents that look there: the shared one, else the first.
fn owned(mut places: Vec<Place>) -> Vec<Place> {
    for place in &mut places {
        let own = place.label.split(',').find(|label| *label == SHARED);
        let own = own.or(place.label.split(',').next()).unwrap_or_default().to_owned();
        place.label = own;
    }
    places
}

/// Returns a path with the links in it resolved, where it is there.
pub fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn absolute(shell: &Shell, path: &Path) -> PathBuf {
    shell.env.cwd.as_ref().map_or_else(|| path.to_owned(), |cwd| cwd.join(path))
}

/// Expands a leading `~`, which a shell leaves alone in `--output=~/skills`.
fn expand_home(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

fn refused(reason: &str, hint: Option<String>) -> anyhow::Error {
    Error::Unavailable { reason: reason.to_owned(), hint }.into()
}
