//! What verbs and the hook leave in the audit log.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use chrono::Utc;

use super::journal;
use super::shell::{Shell, not_verified, open_dir};
use crate::audit::log::Log;
use crate::audit::settings::{self, Effective, Mode, Settings};
use crate::audit::{Action, Event, Outcome, Record, User, hash};
use crate::error::Error;
use crate::ops::install::Installed;
use crate::ops::promote::Promoted;
use crate::ops::pull::Pulled;
use crate::ops::uninstall::Uninstalled;
use crate::output::public_line;
use crate::redact::without_credentials;
use crate::trust::check::Verified;
use crate::trust::verify::Signer;

/// Whom the journal says that a record is by.
const IDENTIFIER: &str = "skillctl-audit";
/// Most bytes of a file of settings.
const MAX_FILE: u64 = 1 << 20;
/// What the kernel says where nobody has logged in.
const NOBODY: u32 = u32::MAX;

/// The log of one user, and whether it has to be written.
#[derive(Debug)]
pub struct Recorder {
    dir: PathBuf,
    settings: Effective,
}

/// What a process knows of its records.
#[derive(Debug, Default)]
pub struct Known {
    /// Who has signed what was verified, by the digests of manifests.
    signers: RefCell<BTreeMap<String, Vec<String>>>,
    /// Whether it was told that nothing can be logged.
    told: std::cell::Cell<bool>,
}

impl Recorder {
    /// Returns what is to be done by the settings of this machine and those in the user's configuration.
    ///
    /// # Errors
    /// If one of the files cannot be read: it may require the log.
    pub fn new(dir: PathBuf, config: Option<&Path>) -> Result<Self, Error> {
        let machine = read(Path::new(super::policy::ETC))?;
        let user = config.map(read).transpose()?.flatten();
        Ok(Self { dir, settings: Settings::effective(machine, user) })
    }

    /// Returns whether actions without a record are not to be done.
    pub fn is_required(&self) -> bool {
        self.settings.mode == Mode::Required
    }

    /// Makes sure that what is about to be done can be recorded.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn check(&self) -> Result<(), Error> {
        self.opened(|dir| Log::open(dir)?.reserve())
    }

    /// Records what has happened.
    ///
    /// # Errors
    /// If the log cannot be written. The journal gets the records all the same, outside of the chain.
    pub fn record(&self, events: &[Event], user: &User) -> Result<(), Error> {
        if self.settings.mode == Mode::Off || events.is_empty() {
            return Ok(());
        }
        let written = self.opened(|dir| Log::open(dir)?.append(events, user, self.is_required()));
        if self.settings.journald {
            match &written {
                Ok(lines) => lines.iter().for_each(|line| to_journal(line, Some(&hash(line.as_bytes())))),
                Err(_) => events.iter().for_each(|event| {
                    let record = Record { seq: 0, ..Record::following(None, event, user, Utc::now()) };
                    to_journal(&record.line().unwrap_or_default(), None);
                }),
            }
        }
        written.map(drop)
    }

    fn opened<T>(&self, act: impl FnOnce(&cap_std::fs::Dir) -> io::Result<T>) -> Result<T, Error> {
        let opened = || match open_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
                open_dir(&self.dir)
            }
            dir => dir,
        };
        let done = || act(&opened()?);
        done().map_err(|e| {
            let reason = format!("the audit log {} cannot be written: {e}", self.file().display());
            let hint = match self.is_required() {
                true => format!("audit = \"required\" in {} lets nothing be done without it", settings::FILE),
                false => format!("audit = \"off\" in {} ends it", settings::FILE),
            };
            Error::Unavailable { reason, hint: Some(hint) }
        })
    }

    /// Returns the file that is written.
    pub fn file(&self) -> PathBuf {
        self.dir.join(crate::audit::files::FILE)
    }
}

/// Tells the journal, where there is one: whoever reads that has the records that were, whatever becomes of the file.
fn to_journal(line: &str, head: Option<&str>) {
    let head = head.map(|head| ("AUDIT_HEAD", head));
    let fields = [("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", IDENTIFIER), ("MESSAGE", line)];
    let _ = journal::send(&fields.into_iter().chain(head).collect::<Vec<_>>());
}

fn read(config: &Path) -> Result<Option<Settings>, Error> {
    let path = config.join(settings::FILE);
    let shown = path.display().to_string();
    match fs::symlink_metadata(&path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Ok(metadata) if metadata.len() > MAX_FILE => {
            return Err(Error::Unavailable { reason: format!("{shown} is too large"), hint: None });
        }
        _ => {}
    }
    let text = fs::read_to_string(&path).map_err(Error::io(shown.clone()))?;
    Settings::parse(&text, &shown).map(Some)
}

/// Returns who runs this process, by what the kernel says.
pub fn user() -> User {
    let uid = on_host(nix::unistd::geteuid().as_raw(), &of_kernel("/proc/self/uid_map"));
    let login_uid = of_kernel("/proc/self/loginuid").trim().parse().ok().filter(|login| *login != NOBODY);
    User { uid, login_uid, name: None }
}

/// Reads a short file of /proc, in one go: the hook has no time to ask for its size.
fn of_kernel(path: &str) -> String {
    let mut text = [0; 4096];
    let read = fs::File::open(path).and_then(|mut file| file.read(&mut text)).unwrap_or_default();
    String::from_utf8_lossy(&text[..read]).into_owned()
}

/// Returns name and home directory of a user, by the host's list; other lists would have to be asked for by programs.
pub fn on_list(uid: u32) -> Option<(String, PathBuf)> {
    passwd(uid, &fs::read_to_string("/etc/passwd").ok()?)
}

/// Returns what a user of a user namespace is called outside of it.
fn on_host(uid: u32, map: &str) -> u32 {
    let outside = map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let nth = uid.checked_sub(inside).filter(|nth| *nth < count)?;
        outside.checked_add(nth)
    });
    outside.unwrap_or(uid)
}

/// Returns name and home directory of a user.
fn passwd(uid: u32, text: &str) -> Option<(String, PathBuf)> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, own, _, _, home, ..] = fields[..] else { return None };
        (own.parse() == Ok(uid)).then(|| (name.to_owned(), home.into()))
    })
}

/// Returns what came of something that failed.
fn outcome(error: &anyhow::Error) -> Outcome {
    match not_verified(error) {
        Some(_) => Outcome::Refused,
        None => Outcome::Failed,
    }
}

/// Returns the record of a verification.
pub fn verified(verified: &Verified) -> Vec<Event> {
    let event = Event::of(Action::Verify, &verified.reference).digest(&verified.digest);
    vec![event.signers(keys(&verified.signers))]
}

/// Returns the records of an image that is in the store now.
pub fn pulled(pulled: &Pulled) -> Vec<Event> {
    taken((&pulled.reference, &pulled.digest), pulled.verified.as_ref(), pulled.fetched)
}

/// Returns the records of an image that is used, and may have been verified or fetched for that.
pub fn taken((reference, digest): (&str, &str), verified: Option<&Verified>, fetched: bool) -> Vec<Event> {
    let signers = keys(verified.map(|verified| &verified.signers[..]).unwrap_or_default());
    let of = |action| Event::of(action, reference).digest(digest).signers(signers.clone());
    let verified = (!signers.is_empty()).then(|| of(Action::Verify));
    verified.into_iter().chain(fetched.then(|| of(Action::Pull))).collect()
}

/// Returns the record of a skill that was installed at `path`, where anything was written.
pub fn installed(action: Action, installed: &Installed, path: &Path) -> Vec<Event> {
    let signers = || keys(installed.verified.as_ref().map(|verified| &verified.signers[..]).unwrap_or_default());
    let event = || Event::of(action, &installed.reference).digest(&installed.digest).at(path.display());
    installed.written.then(|| event().signers(signers())).into_iter().collect()
}

/// Returns the record of a skill that was taken away.
pub fn uninstalled(gone: &Uninstalled) -> Event {
    Event::of(Action::Uninstall, &gone.name).at(gone.path.display())
}

/// Returns the record of a promotion.
pub fn promoted(reference: &str, promoted: &Promoted) -> Vec<Event> {
    let now = promoted.reference.as_deref().unwrap_or(promoted.to.as_str());
    vec![Event::of(Action::Promote, reference).digest(&promoted.digest).signers(promoted.signer.clone()).at(now)]
}

fn keys(signers: &[Signer]) -> Vec<String> {
    let mut keys: Vec<String> = signers.iter().map(Signer::id).collect();
    keys.sort();
    keys.dedup();
    keys
}

impl Shell {
    /// Returns the directory of this user's audit log.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn audit_dir(&self) -> Result<PathBuf> {
        let dir = self.env.audit_dir().ok_or_else(|| Error::Unavailable {
            reason: "no place for the audit log: HOME is not set".into(),
            hint: Some("set XDG_STATE_HOME".into()),
        })?;
        Ok(dir)
    }

    /// Refuses what is about to be done where it has to be recorded and cannot be.
    ///
    /// # Errors
    /// That; if the settings cannot be read, which may require it.
    pub fn can_record(&self) -> Result<()> {
        // Without a place nothing is there to check, unless it is required.
        let dir = self.audit_dir();
        let recorder = self.recorder(dir.as_ref().map(Clone::clone).unwrap_or_default())?;
        match recorder.is_required() {
            true => dir.and_then(|_| Ok(recorder.check()?)),
            false => Ok(()),
        }
    }

    fn recorder(&self, dir: PathBuf) -> Result<Recorder> {
        Ok(Recorder::new(dir, self.config_home().ok().as_deref())?)
    }

    /// Records what became of an action on `reference`, and passes it on.
    ///
    /// # Errors
    /// Those of the action; if it was done and has to be recorded, and is not.
    pub fn recorded<T>(
        &self,
        (action, reference): (Action, &str),
        done: Result<T>,
        events: impl FnOnce(&T) -> Vec<Event>,
    ) -> Result<T> {
        let events = match &done {
            Ok(done) => events(done),
            Err(e) => {
                let event = Event::of(action, reference).not(outcome(e), public_line(&format!("{e:#}")));
                vec![Event { digest: not_verified(e).map(|refusal| refusal.digest.clone()), ..event }]
            }
        };
        let recorded = self.record(events);
        match (&done, recorded) {
            (Ok(_), Err(e)) => Err(e),
            (Err(_), Err(e)) => {
                self.warn(format!("warning: {}", public_line(&format!("{e:#}"))));
                done
            }
            _ => done,
        }
    }

    /// Records whether an image is what it has to be, and passes it on.
    ///
    /// # Errors
    /// As [`Self::recorded`].
    pub fn recorded_verification(&self, reference: &str, done: Result<Option<Verified>>) -> Result<Option<Verified>> {
        self.recorded((Action::Verify, reference), done, |verified| verified.iter().flat_map(self::verified).collect())
    }

    /// Records that an image is not what it has to be, where something failed by that, and passes it on. What goes well leaves nothing.
    ///
    /// # Errors
    /// Those of what was done.
    pub fn recorded_refusal<T>(&self, done: Result<T>) -> Result<T> {
        match done.as_ref().err().and_then(not_verified).map(|refusal| refusal.image.clone()) {
            Some(image) => self.recorded((Action::Verify, &image), done, |_| Vec::new()),
            None => done,
        }
    }

    /// Records what has happened; where that cannot be, it is told once.
    ///
    /// # Errors
    /// Only where it has to be recorded.
    pub fn record(&self, mut events: Vec<Event>) -> Result<()> {
        for event in &mut events {
            event.reference = without_credentials(&event.reference);
            let Some(digest) = event.digest.clone() else { continue };
            let mut known = self.known.signers.borrow_mut();
            match event.signers.is_empty() {
                true => event.signers = known.get(&digest).cloned().unwrap_or_default(),
                false => drop(known.insert(digest, event.signers.clone())),
            }
        }
        let recorder = self.audit_dir().and_then(|dir| self.recorder(dir));
        let required = recorder.as_ref().is_ok_and(Recorder::is_required);
        let user = || {
            let user = user();
            User { name: on_list(user.uid).map(|(name, _)| name), ..user }
        };
        match recorder.and_then(|recorder| Ok(recorder.record(&events, &user())?)) {
            Err(e) if required => Err(e.context("It was done, and is not recorded")),
            Err(e) if !self.known.told.replace(true) => {
                self.warn(format!("warning: {}", public_line(&format!("{e:#}"))));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_those_of_the_host() {
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        let cases =
            [(0, rootless, 1000), (1, rootless, 100_000), (65_536, rootless, 165_535), (65_537, rootless, 65_537)];
        let all = [(0, "0 0 4294967295", 0), (1000, "0 0 4294967295", 1000), (5, "", 5), (5, "x y z", 5)];
        for (uid, map, want) in cases.into_iter().chain(all) {
            assert_eq!(on_host(uid, map), want, "{uid} {map}");
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\nbroken\n";
        assert_eq!(super::passwd(1000, passwd), Some(("u".to_owned(), "/home/u".into())));
        assert_eq!(super::passwd(1001, passwd), None);
    }
}
