//! Image-backed volumes: the commands that make them and a container with them.
//!
//! podman makes an empty volume of a name that it does not know, and keeps the old image of one that it does. So the name
//! has the digest in it, and nothing runs unless all volumes are there and of their images.

use super::quote::{dotted, word};
use super::{Skill, destination, since};
use crate::error::Result;

/// The first podman with `volume create --driver image`.
const DRIVER: (u64, u64) = (4, 3);
/// Digits of a digest that keep two images of one version apart.
const DIGITS: usize = 12;

/// A volume of a skill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name, which says what is in it.
    pub name: String,
    /// The image, as podman is told it.
    pub image: String,
    /// Where it is mounted.
    pub destination: String,
    /// What gets the image to where podman looks.
    pub fetch: Vec<String>,
}

/// Returns the name of the volume of a skill: `skill-NAME-VERSION-DIGEST`.
pub fn name(skill: &Skill) -> String {
    let digest = skill.digest().trim_start_matches("sha256:");
    let digest = digest.get(..DIGITS).unwrap_or(digest);
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let version: String = skill.version.to_ascii_lowercase().chars().map(|c| if plain(c) { c } else { '-' }).collect();
    let parts = ["skill", skill.name.as_str(), version.as_str(), digest];
    dotted(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-"))
}

/// Returns the volumes of skills that are mounted below a directory.
///
/// # Errors
/// For a podman without such volumes, and a directory that is none of a container.
pub fn volumes(skills: &[Skill], below: &str, podman: (u64, u64)) -> Result<Vec<Volume>> {
    since("volumes of images", podman, DRIVER, "skillctl generate podman has flags without volumes")?;
    let volume = |skill: &Skill| {
        let image = skill.image.in_storage();
        // By digest: the tag may be another skill's when the commands run.
        let fetch = match skill.is_local() {
            true => ["skillctl", "load", &skill.image.to_string()].map(str::to_owned).to_vec(),
            false => ["podman", "pull", &image].map(str::to_owned).to_vec(),
        };
        Ok(Volume { name: name(skill), destination: destination(below, skill)?, image, fetch })
    };
    skills.iter().map(volume).collect()
}

impl Volume {
    /// Returns the command that makes it.
    pub fn create(&self) -> Vec<String> {
        let option = format!("image={}", self.image);
        ["podman", "volume", "create", "--driver", "image", "--opt", &option, &self.name].map(str::to_owned).to_vec()
    }

    /// Returns the words that mount it. Without `ro` a container could write into the volume, and the next would see that.
    pub fn flags(&self) -> [String; 2] {
        ["-v".to_owned(), format!("{}:{}:ro", self.name, self.destination)]
    }
}

/// Returns what a shell has to run so that nothing runs with another volume: the test whether that of the name is of the image. One
/// that podman made because there was none is of nothing, and would do for `podman volume exists`.
pub fn check(podman: &str, name: &str, image: &str) -> String {
    format!(
        "[ \"$({podman} volume inspect -f \"{{{{.Driver}}}} {{{{.Options.image}}}}\" {name})\" = \"image {image}\" ] || \
         {{ echo \"{name} is not the volume of its skill: podman volume rm {name}\" >&2; false; }}"
    )
}

/// Returns a script that runs a container with the volumes: of `image`, else of what the script is given.
pub fn script(volumes: &[Volume], image: Option<&str>) -> String {
    let line = |words: &[String]| words.iter().map(|text| word(text)).collect::<Vec<_>>().join(" ");
    let mut text = String::new();
    for volume in volumes {
        // What they print is not the agent's output.
        let (image, name) = (word(&volume.image), word(&volume.name));
        text += &format!("{{ podman image exists {image} || {} >/dev/null; }} &&\n", line(&volume.fetch));
        text += &format!("{{ podman volume exists {name} || {} >/dev/null; }} &&\n", line(&volume.create()));
        text += &format!("{{ {}; }} &&\n", check("podman", &volume.name, &volume.image));
    }
    text += "podman run --rm";
    for volume in volumes {
        text += &format!(" \\\n  {}", line(&volume.flags()));
    }
    let run = image.map_or_else(|| "\"$@\"".to_owned(), word);
    text + &format!(" \\\n  {run}\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn skill(image: &str, name: &str, tag: Option<&str>) -> Skill {
        let image = format!("{image}@sha256:{}", "1234567890ab".repeat(6).get(..64).unwrap()).parse().unwrap();
        let tag = tag.map(str::to_owned);
        Skill { image, version: tag.clone().unwrap_or_default(), tag, name: name.to_owned() }
    }

    #[test]
    fn names_say_what_is_in_a_volume() {
        let cases = [
            ("hr", Some("1.0.0"), "skill-hr-1.0.0-1234567890ab"),
            ("hr", None, "skill-hr-1234567890ab"),
            ("hr", Some("1.0.0-RC_1"), "skill-hr-1.0.0-rc_1-1234567890ab"),
        ];
        for (skill_name, tag, want) in cases {
            assert_eq!(name(&skill("acme/hr", skill_name, tag)), want);
        }
        let long = name(&skill("acme/hr", &"x".repeat(64), Some("1.0.0")));
        assert_eq!((long.len(), &long[..8]), (63, "skill-xx"));
    }

    #[test]
    fn nothing_runs_without_its_volumes() {
        let skills = [skill("acme/hr", "hr", Some("1.0.0")), skill("quay.io/acme/legal", "legal", Some("2.0.0"))];
        let volumes = volumes(&skills, "/skills", (4, 3)).unwrap();
        let digest = skills[0].digest();
        let check = |name: &str, image: &str| {
            format!(
                "{{ [ \"$(podman volume inspect -f \"{{{{.Driver}}}} {{{{.Options.image}}}}\" {name})\" = \"image \
                 {image}@{digest}\" ] || {{ echo \"{name} is not the volume of its skill: podman volume rm {name}\" >&2; \
                 false; }}; }} &&\n"
            )
        };
        let hr = check("skill-hr-1.0.0-1234567890ab", "localhost/acme/hr");
        let legal = check("skill-legal-2.0.0-1234567890ab", "quay.io/acme/legal");
        let want = format!(
            "{{ podman image exists localhost/acme/hr@{digest} || skillctl load acme/hr@{digest} >/dev/null; }} &&\n\
             {{ podman volume exists skill-hr-1.0.0-1234567890ab || podman volume create --driver image --opt \
             image=localhost/acme/hr@{digest} skill-hr-1.0.0-1234567890ab >/dev/null; }} &&\n{hr}\
             {{ podman image exists quay.io/acme/legal@{digest} || podman pull quay.io/acme/legal@{digest} >/dev/null; }} &&\n\
             {{ podman volume exists skill-legal-2.0.0-1234567890ab || podman volume create --driver image --opt \
             image=quay.io/acme/legal@{digest} skill-legal-2.0.0-1234567890ab >/dev/null; }} &&\n{legal}\
             podman run --rm \\\n  -v skill-hr-1.0.0-1234567890ab:/skills/hr:ro \\\n  -v \
             skill-legal-2.0.0-1234567890ab:/skills/legal:ro \\\n"
        );
        assert_eq!(script(&volumes, None), format!("{want}  \"$@\"\n"));
        assert_eq!(script(&volumes, Some("a;b")), format!("{want}  'a;b'\n"));
    }

    #[test]
    fn old_podman_and_other_paths_are_refused() {
        let skills = [skill("acme/hr", "hr", Some("1.0.0"))];
        let error = volumes(&skills, "/skills", (4, 2)).unwrap_err().to_string();
        assert_eq!(error, "podman 4.2 has no volumes of images (4.3 and newer have)");
        assert!(volumes(&skills, "/a b", (5, 8)).is_err());
    }
}
