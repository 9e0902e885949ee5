//! What the hook leaves in the audit log: a record for each skill that a container was given, or why it was not.

use std::path::{Path, PathBuf};

use super::super::record::{Recorder, on_list, user};
use crate::audit::{Action, Event, Outcome, User};
use crate::env::Env;
use crate::error::Error;
use crate::hook::place::Place;
use crate::hook::{Bound, SYSTEM_DATA};
use crate::output::harmless_line;

/// The log of root.
const SYSTEM: &str = "/var/log/skillctl";

/// The log that belongs to a container.
pub struct Mounts {
    recorder: Result<Recorder, Error>,
    user: User,
    container: Option<String>,
}

impl Mounts {
    /// Finds it from where the container is: the environment of hooks is empty.
    pub fn of(env: &Env, place: Option<&Place>) -> Self {
        let user = user();
        let home = |uid| on_list(uid).map(|(_, home)| home).filter(|home| home.is_absolute());
        let (dir, config) = places(env, place.and_then(Place::data), user.uid, home);
        let recorder = Recorder::new(dir, config.as_deref());
        Self { recorder, user, container: place.and_then(Place::id).map(str::to_owned) }
    }

    /// Records what became of what a container asks for, and passes it on. `warn` is told where that cannot be.
    ///
    /// # Errors
    /// Those of the action; [`Error::Unavailable`] where there has to be a record.
    pub fn recorded<T>(
        &self,
        done: Result<T, Error>,
        asks: &str,
        bound: impl FnOnce(&T) -> Vec<Bound>,
        warn: impl FnOnce(&str),
    ) -> Result<T, Error> {
        let mut events: Vec<Event> = match &done {
            Ok(done) => bound(done).iter().map(event).collect(),
            Err(e) => {
                let outcome = if e.is_refusal() { Outcome::Refused } else { Outcome::Failed };
                vec![Event::of(Action::Mount, asks).not(outcome, harmless_line(&e.to_string()))]
            }
        };
        for event in &mut events {
            event.container.clone_from(&self.container);
        }
        let recorded = match &self.recorder {
            Ok(recorder) => recorder.record(&events, &self.user),
            // It may be required.
            Err(e) => Err(Error::Unavailable { reason: e.to_string(), hint: e.hint() }),
        };
        let required = self.recorder.as_ref().map_or(true, Recorder::is_required);
        match (&done, recorded) {
            (Ok(_), Err(e)) if required => Err(e),
            (_, Err(e)) => {
                warn(&e.to_string());
                done
            }
            _ => done,
        }
    }
}

fn event(bound: &Bound) -> Event {
    Event::of(Action::Mount, &bound.reference)
        .digest(&bound.digest)
        .signers(bound.signers.clone())
        .at(&bound.destination)
}

/// Returns the directory of the log, and that of the user's configuration.
fn places(
    env: &Env,
    data: Option<PathBuf>,
    uid: u32,
    home_of: impl FnOnce(u32) -> Option<PathBuf>,
) -> (PathBuf, Option<PathBuf>) {
    let is_system = data.as_deref() == Some(Path::new(SYSTEM_DATA));
    let home = match &data {
        _ if is_system || uid == 0 => None,
        // By what podman has said, since not every user is in the host's list.
        Some(data) if data.ends_with(".local/share/skillctl") => data.ancestors().nth(3).map(Path::to_owned),
        _ => home_of(uid),
    };
    let state = env.xdg_state_home.as_ref().map(|state| state.join("skillctl"));
    let dir = match &home {
        Some(home) => home.join(".local/state/skillctl"),
        None => SYSTEM.into(),
    };
    (state.unwrap_or(dir), home.map(|home| home.join(".config")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_that_of_whoever_has_the_container() {
        let home = "/home/u/.local/state/skillctl";
        let cases = [
            (Some("/var/lib/skillctl"), 0, None, "/var/log/skillctl", None),
            // In a user namespace of the container.
            (Some("/var/lib/skillctl"), 100_000, None, "/var/log/skillctl", None),
            (Some("/srv/data/skillctl"), 0, Some("/root"), "/var/log/skillctl", None),
            (None, 0, Some("/root"), "/var/log/skillctl", None),
            (Some("/home/u/.local/share/skillctl"), 1000, None, home, Some("/home/u/.config")),
            (Some("/data/skillctl"), 1000, Some("/home/u"), home, Some("/home/u/.config")),
            (None, 1000, Some("/home/u"), home, Some("/home/u/.config")),
            (None, 1000, None, "/var/log/skillctl", None),
        ];
        for (data, uid, known, dir, config) in cases {
            let found = places(&Env::default(), data.map(Into::into), uid, |_| known.map(Into::into));
            assert_eq!(found, (dir.into(), config.map(Into::into)), "{data:?} {uid}");
        }
        let env = Env { xdg_state_home: Some("/state".into()), ..Env::default() };
        assert_eq!(places(&env, None, 0, |_| None), ("/state/skillctl".into(), None));
    }
}
