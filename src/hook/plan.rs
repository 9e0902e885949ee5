//! Which skill goes where: decided, and held against all rules, before anything is made.

use std::path::Path;

use super::request::{self, Request};
use super::rootfs::Rootfs;
use super::spec::{Mount, Spec};
use super::stores::{Skill, Stores};
use crate::agent::Home;
use crate::error::{Error, Result};
use crate::generate::podman::home;

/// Where skills are mounted unless an agent or a path is named.
const MOUNT_ROOT: &str = "/skills";

/// A skill and its place.
pub struct Planned<'a> {
    /// What was asked for.
    pub reference: String,
    /// Its place in the container, without links on the way as far as that can be seen.
    pub destination: String,
    /// What goes there.
    pub skill: Skill<'a>,
}

/// A mount of the container, and where it is without links on the way.
pub type Mounted = (String, Mount);

/// Returns all mounts of a container, resolved in its root file system as far as that can be seen.
///
/// # Errors
/// If they are no list of mounts.
pub fn mounted(spec: &Spec<'_>, root: &Rootfs) -> Result<Vec<Mounted>> {
    let at = |mount: &Mount| root.resolve(&mount.destination).unwrap_or_else(|_| mount.destination.clone());
    Ok(spec.mounts()?.into_iter().map(|mount| (at(&mount), mount)).collect())
}

/// Finds all skills that a container asks for, and their places. What is mounted already as we would is left out.
///
/// # Errors
/// If one is not here or may not be had, or a place is reserved, taken, in another skill, or over something that is mounted.
pub fn plan<'a>(
    (spec, mounts): (&Spec<'_>, &[Mounted]),
    request: &Request,
    root: &Rootfs,
    stores: &'a Stores<'_>,
) -> Result<Vec<Planned<'a>>> {
    let below = below(spec, request, root)?;
    let mut all: Vec<Planned<'a>> = Vec::new();
    for wanted in &request.skills {
        let skill = stores.find(wanted)?;
        let asked = wanted.destination.clone().unwrap_or_else(|| format!("{below}/{}", skill.name));
        request::check(&asked)?;
        let destination = root.resolve(&asked)?;
        request::check(&destination)?;
        let refused = |what: String| Error::Unavailable { reason: format!("{}: {what}", wanted.reference), hint: None };
        if let Some((_, mount)) = mounts.iter().find(|(at, _)| *at == destination) {
            if mount.source.as_deref().is_some_and(|source| stores.is_tree(Path::new(source), &skill)) {
                continue;
            }
            return Err(refused(format!("something is mounted at {destination} in the container already")));
        }
        if let Some((at, _)) = mounts.iter().find(|(at, _)| is_below(at, &destination)) {
            return Err(refused(format!("at {destination} it would hide what is mounted at {at} in the container")));
        }
        let meets = |one: &str| one == destination || is_below(one, &destination) || is_below(&destination, one);
        if let Some(other) = all.iter().find(|other| meets(&other.destination)) {
            let what = format!(
                "at {destination} it would meet {}, which is mounted at {}",
                other.reference, other.destination
            );
            return Err(refused(what));
        }
        all.push(Planned { reference: wanted.reference.to_string(), destination, skill });
    }
    Ok(all)
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

/// Returns the directory that skills go to which have no place of their own.
fn below(spec: &Spec<'_>, request: &Request, root: &Rootfs) -> Result<String> {
    let Some(agent) = request.agent else { return Ok(MOUNT_ROOT.into()) };
    let from_passwd = || home(&spec.user().uid.to_string(), &root.passwd().unwrap_or_default()).0;
    let home = spec.variable("HOME").filter(|home| home.starts_with('/')).map_or_else(from_passwd, str::to_owned);
    let parts: Vec<&str> = home.split('/').filter(|part| !part.is_empty()).collect();
    let home = format!("/{}", parts.join("/"));
    let dir = agent.user_dir(Home::plain(Path::new(&home))).ok_or_else(|| {
        let reason = format!("{} looks for skills in projects only: name the place as REFERENCE=/PATH", agent.name);
        Error::Unavailable { reason, hint: None }
    })?;
    Ok(dir.display().to_string())
}
