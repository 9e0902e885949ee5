//! Units for Quadlet, podman's generator of systemd services, and the links by which bootc binds their images.
//!
//! Quadlet makes volumes with `--ignore`, which keeps an old skill of the same name, and the service of a volume stays active,
//! so that it does not run again for a unit that has changed. So volume and unit have the digest in their name, and the container
//! looks at its volumes before it starts. An `.image` unit pulls at each start; it is for images of registries only.

use super::{Skill, destination, since, volume};
use crate::error::{Error, Result};
use crate::reference::Reference;

/// The first podman with `.image` units, and with `Driver=image` in `.volume` units.
const FIRST: (u64, u64) = (4, 8);
/// The first podman whose `.image` units have `Policy=`; older generators refuse a unit with a key that they do not know.
const POLICY: (u64, u64) = (5, 6);
/// Where an image build puts units.
const UNITS: &str = "usr/share/containers/systemd";
/// Where bootc finds which images are bound.
const BOUND: &str = "usr/lib/bootc/bound-images.d";
/// Where bootc keeps those images.
const STORAGE: &str = "--storage-opt=additionalimagestore=/usr/lib/bootc/storage";

/// What the description of a unit of a skill begins with.
const SKILL: &str = "Skill ";

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its path, relative to a directory of units, or with bootc to the root of an image.
    pub path: String,
    /// What it is.
    pub content: Content,
}

/// What a path holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file with this text.
    Text(String),
    /// A symlink to this path.
    Link(String),
}

/// The container that gets the skills.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its image, as it was named.
    pub image: &'a str,
}

/// What the units are for.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The directory of the container that skills are mounted below.
    pub below: &'a str,
    /// The container, where a unit of it is wanted.
    pub container: Option<Container<'a>>,
    /// The version of podman.
    pub podman: (u64, u64),
    /// Whether the images are bound to an image that bootc boots.
    pub bootc: bool,
}

/// Returns the units of skills.
///
/// # Errors
/// For a podman without such units, for images that cannot be bound, and for names and paths that no unit can have.
pub fn units(skills: &[Skill], options: Options<'_>) -> Result<Vec<Unit>> {
    let hint = "skillctl generate volume prints commands instead, for podman 4.3 and newer";
    since("units for images", options.podman, FIRST, hint)?;
    let mut units = Vec::new();
    let (mut mounts, mut before) = (Vec::new(), Vec::new());
    for skill in skills {
        let stem = volume::name(skill);
        let destination = destination(options.below, skill)?;
        if options.bootc && skill.is_local() {
            return Err(unbound(&skill.shown()));
        }
        if !skill.is_local() {
            units.push(Unit::text(format!("{stem}.image"), image(skill, options)));
        }
        units.push(Unit::text(format!("{stem}.volume"), volume_unit(skill, &stem, options)));
        mounts.push(("Volume", format!("{stem}.volume:{destination}:ro")));
        before.extend(looks(skill, options));
    }
    if let Some(container) = options.container {
        let name = unit_name(container.name)?;
        if options.bootc && container.image.parse::<Reference>()?.registry().is_none() {
            return Err(unbound(container.image));
        }
        let mut keys = vec![("ContainerName", name.to_owned()), ("Image", container.image.to_owned())];
        keys.extend(mounts);
        keys.extend(global(options));
        let text = section("Unit", &[("Description", format!("{name}, with skills"))])
            + &section("Container", &keys)
            + &section("Service", &before)
            + &section("Install", &[("WantedBy", "default.target".into())]);
        units.push(Unit::text(format!("{name}.container"), text.trim_end().to_owned() + "\n"));
    }
    Ok(if options.bootc { bound(units) } else { units })
}

impl Unit {
    fn text(path: String, text: String) -> Self {
        Self { path, content: Content::Text(text) }
    }
}

fn unbound(image: &str) -> Error {
    let reason = format!("{image} cannot be bound: bootc pulls from registries");
    Error::Unavailable { reason, hint: Some("push it, and name it with its registry".into()) }
}

/// Returns what a container runs before it starts, so that it starts with its skill or not at all: its volume is made again where
/// somebody has removed it, and has to be of the image.
fn looks(skill: &Skill, options: Options<'_>) -> [(&'static str, String); 2] {
    let podman = if options.bootc { format!("podman {STORAGE}") } else { "podman".to_owned() };
    let (name, image) = (volume::name(skill), skill.image.in_storage());
    let create = format!("{podman} volume create --ignore --driver image --opt image={image} {name}");
    // systemd takes one dollar of two away.
    let check = volume::check(&podman, &name, &image).replace('$', "$$");
    [("ExecStartPre", create), ("ExecStartPre", format!("/bin/sh -c '{check}'"))]
}

/// Returns the image that a unit of ours is of.
pub fn skill_of(unit: &str) -> Option<Reference> {
    let lines = unit.strip_prefix("[Unit]\nDescription=")?;
    lines.lines().next()?.strip_prefix(SKILL)?.parse().ok()
}

/// Returns the units as files of an image, and a link for each that names an image to pull: bootc reads `.image` and
/// `.container`.
fn bound(units: Vec<Unit>) -> Vec<Unit> {
    let named = |unit: &Unit| !unit.path.ends_with(".volume");
    let link = |unit: &Unit| Unit {
        path: format!("{BOUND}/{}", unit.path),
        content: Content::Link(format!("/{UNITS}/{}", unit.path)),
    };
    let links: Vec<Unit> = units.iter().filter(|unit| named(unit)).map(link).collect();
    let files = units.into_iter().map(|unit| Unit { path: format!("{UNITS}/{}", unit.path), ..unit });
    files.chain(links).collect()
}

/// Bound images are in a store of their own, which podman searches only when told.
fn global(options: Options<'_>) -> Option<(&'static str, String)> {
    options.bootc.then(|| ("GlobalArgs", STORAGE.to_owned()))
}

fn image(skill: &Skill, options: Options<'_>) -> String {
    let mut keys = vec![("Image", skill.image.to_string())];
    if options.podman >= POLICY {
        keys.push(("Policy", "missing".into()));
    }
    keys.extend(global(options));
    text(skill, &section("Image", &keys))
}

fn volume_unit(skill: &Skill, stem: &str, options: Options<'_>) -> String {
    // Of a bound image nothing is to be pulled at a start, so no unit that pulls may be named.
    let source = match skill.is_local() || options.bootc {
        true => skill.image.in_storage(),
        false => format!("{stem}.image"),
    };
    let mut keys = vec![("Driver", "image".to_owned()), ("Image", source), ("VolumeName", volume::name(skill))];
    keys.extend(global(options));
    text(skill, &section("Volume", &keys))
}

fn text(skill: &Skill, section_text: &str) -> String {
    let unit = section("Unit", &[("Description", format!("{SKILL}{}", skill.shown()))]);
    (unit + section_text).trim_end().to_owned() + "\n"
}

/// Returns a section. Values are references, names and checked paths, in which only `%` means something to systemd.
fn section(name: &str, keys: &[(&str, String)]) -> String {
    let line = |(key, value): &(&str, String)| format!("{key}={}\n", value.replace('%', "%%"));
    format!("[{name}]\n{}\n", keys.iter().map(line).collect::<String>())
}

/// Refuses a name that could be more than one word, or a path.
fn unit_name(name: &str) -> Result<&str> {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    match name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(inner) && name.len() <= 200 {
        true => Ok(name),
        false => {
            let reason = format!("{name:?} cannot be the name of a unit: letters, digits, '.', '_' and '-' are taken");
            Err(Error::Unavailable { reason, hint: None })
        }
    }
}

/// Returns the units one after the other, each below a line with its path.
pub fn listing(units: &[Unit]) -> String {
    let show = |unit: &Unit| match &unit.content {
        Content::Text(text) => format!("# {}\n{text}", unit.path),
        Content::Link(target) => format!("# {} -> {target}\n", unit.path),
    };
    units.iter().map(show).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::generate::volume::tests::skill;

    fn options(podman: (u64, u64), bootc: bool) -> Options<'static> {
        Options { below: "/skills", container: None, podman, bootc }
    }

    fn find<'a>(units: &'a [Unit], path: &str) -> &'a Content {
        &units.iter().find(|unit| unit.path == path).unwrap().content
    }

    #[test]
    fn local_images_are_named_in_the_volume() {
        let skills = [skill("acme/hr", "hr", Some("1.0.0"))];
        let digest = skills[0].digest();
        let want = format!(
            "[Unit]\nDescription=Skill acme/hr:1.0.0\n\n[Volume]\nDriver=image\nImage=localhost/acme/hr@{digest}\n\
             VolumeName=skill-hr-1.0.0-1234567890ab\n"
        );
        let units = units(&skills, options((5, 8), false)).unwrap();
        assert_eq!(
            units,
            [Unit { path: "skill-hr-1.0.0-1234567890ab.volume".into(), content: Content::Text(want.clone()) }]
        );
        assert_eq!(listing(&units), format!("# skill-hr-1.0.0-1234567890ab.volume\n{want}"));
    }

    #[test]
    fn images_of_registries_get_a_unit_that_pulls_what_is_missing() {
        let skills = [skill("quay.io/acme/hr", "hr", Some("1.0.0"))];
        let container = Some(Container { name: "agent", image: "quay.io/acme/agent:2" });
        for (podman, policy) in [((4, 8), ""), ((5, 5), ""), ((5, 6), "Policy=missing\n")] {
            let units = units(&skills, Options { container, ..options(podman, false) }).unwrap();
            let pull = format!(
                "[Unit]\nDescription=Skill quay.io/acme/hr:1.0.0\n\n[Image]\nImage={}\n{policy}",
                skills[0].image
            );
            assert_eq!(find(&units, "skill-hr-1.0.0-1234567890ab.image"), &Content::Text(pull));
            let Content::Text(volume) = find(&units, "skill-hr-1.0.0-1234567890ab.volume") else { panic!() };
            assert!(volume.contains("\nImage=skill-hr-1.0.0-1234567890ab.image\n"), "{volume}");
            let (name, image) = ("skill-hr-1.0.0-1234567890ab", &skills[0].image);
            let run = format!(
                "[Unit]\nDescription=agent, with skills\n\n[Container]\nContainerName=agent\n\
                 Image=quay.io/acme/agent:2\nVolume={name}.volume:/skills/hr:ro\n\n[Service]\n\
                 ExecStartPre=podman volume create --ignore --driver image --opt image={image} {name}\n\
                 ExecStartPre=/bin/sh -c '[ \"$$(podman volume inspect -f \"{{{{.Driver}}}} {{{{.Options.image}}}}\" {name})\" = \
                 \"image {image}\" ] || {{ echo \"{name} is not the volume of its skill: podman volume rm {name}\" >&2; false; \
                 }}'\n\n[Install]\nWantedBy=default.target\n"
            );
            assert_eq!(find(&units, "agent.container"), &Content::Text(run));
        }
    }

    #[test]
    fn bound_images_are_linked_and_found_where_bootc_keeps_them() {
        let skills = [skill("quay.io/acme/hr", "hr", Some("1.0.0"))];
        let container = Some(Container { name: "agent", image: "quay.io/acme/agent:2" });
        let units = units(&skills, Options { container, ..options((5, 8), true) }).unwrap();
        for name in ["skill-hr-1.0.0-1234567890ab.image", "agent.container"] {
            let link = find(&units, &format!("usr/lib/bootc/bound-images.d/{name}"));
            assert_eq!(link, &Content::Link(format!("/usr/share/containers/systemd/{name}")));
        }
        assert!(
            !units.iter().any(|unit| unit.path == "usr/lib/bootc/bound-images.d/skill-hr-1.0.0-1234567890ab.volume")
        );
        for name in ["skill-hr-1.0.0-1234567890ab.image", "skill-hr-1.0.0-1234567890ab.volume", "agent.container"] {
            let Content::Text(text) = find(&units, &format!("usr/share/containers/systemd/{name}")) else { panic!() };
            let args = "\nGlobalArgs=--storage-opt=additionalimagestore=/usr/lib/bootc/storage\n";
            assert!(text.contains(args) && !text.contains("Mount="), "{text}");
        }
        let Content::Text(text) = find(&units, "usr/share/containers/systemd/skill-hr-1.0.0-1234567890ab.volume")
        else {
            panic!()
        };
        assert!(text.contains(&format!("\nImage={}\n", skills[0].image)), "{text}");
        let local = super::units(&[skill("acme/hr", "hr", None)], options((5, 8), true)).unwrap_err();
        assert!(local.to_string().contains("cannot be bound: bootc pulls from registries"), "{local}");
        for image in ["localhost/agent", "agent:1", "localhost/acme/agent"] {
            let container = Some(Container { name: "agent", image });
            let options = Options { container, ..options((5, 8), true) };
            let refused = super::units(&skills, options).unwrap_err().to_string();
            assert_eq!(refused, format!("{image} cannot be bound: bootc pulls from registries"));
            assert!(super::units(&skills, Options { bootc: false, ..options }).is_ok());
        }
    }

    /// The service of a volume is active from its first start on, so that it does not run again for a unit of the same name.
    #[test]
    fn another_content_is_another_unit() {
        let old = skill("quay.io/acme/hr", "hr", Some("1.0.0"));
        let image = format!("quay.io/acme/hr@sha256:{}", "f".repeat(64)).parse().unwrap();
        let rebuilt = Skill { image, ..old.clone() };
        let next = skill("quay.io/acme/hr", "hr", Some("1.0.1"));
        let paths = |skill: &Skill| -> Vec<String> {
            let units = units(std::slice::from_ref(skill), options((5, 8), false)).unwrap();
            units.into_iter().map(|unit| unit.path).collect()
        };
        for (one, other) in [(&old, &rebuilt), (&old, &next), (&rebuilt, &next)] {
            assert!(paths(one).iter().all(|path| !paths(other).contains(path)), "{:?} {:?}", paths(one), paths(other));
        }
        assert_eq!(paths(&rebuilt), ["skill-hr-1.0.0-ffffffffffff.image", "skill-hr-1.0.0-ffffffffffff.volume"]);
        let units = units(&[old], options((5, 8), false)).unwrap();
        for unit in &units {
            let Content::Text(text) = &unit.content else { panic!() };
            assert_eq!(skill_of(text), Some("quay.io/acme/hr:1.0.0".parse().unwrap()));
        }
        for other in ["", "[Volume]\n", "[Unit]\nDescription=My skill\n", "[Unit]\nDescription=Skill\n"] {
            assert_eq!(skill_of(other), None, "{other}");
        }
    }

    #[test]
    fn what_no_unit_can_have_is_refused() {
        let old = units(&[skill("acme/hr", "hr", None)], options((4, 7), false)).unwrap_err().to_string();
        assert_eq!(old, "podman 4.7 has no units for images (4.8 and newer have)");
        for name in ["", "a b", "a\nExecStart=x", "../a", "-a", "a@b"] {
            let container = Some(Container { name, image: "agent" });
            let units = units(&[skill("acme/hr", "hr", None)], Options { container, ..options((5, 8), false) });
            assert!(units.is_err(), "{name}");
        }
        let units = units(&[skill("acme/hr", "hr", None)], Options { below: "/a%b", ..options((5, 8), false) });
        assert!(units.is_ok());
        assert_eq!(section("Container", &[("Volume", "x:/a%b:ro".into())]), "[Container]\nVolume=x:/a%%b:ro\n\n");
    }
}
