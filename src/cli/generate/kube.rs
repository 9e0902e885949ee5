//! `generate kube`

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::skills::{SkillArgs, image_name, whole_name};
use crate::cli::shell::{Format, Shell};
use crate::error::Error;
use crate::generate::Skill;
use crate::generate::kube::inject::{Choice, MAX_BYTES, inject};
use crate::generate::kube::{self, PULLER, PullSecret, Puller, Quantity, SIZE_LIMIT, addition, is_subdomain, pod};
use crate::generate::quote::label;
use crate::ops::generate::pins::Reader;
use crate::output::harmless_line;
use crate::reference::Reference;
use crate::store::remote::not_found;

/// What stands for the image of the container where none is named, so that the rest can be looked at.
const PLACEHOLDER: &str = "my-agent";

const EXAMPLES: &str = "\
Examples:
  A pod:
    skillctl generate kube --image registry.example/acme/agent:2 registry.example/acme/hr:1.0.0 | kubectl apply -f -
  Into a Deployment that is there:
    skillctl generate kube -f deployment.yaml --container agent registry.example/acme/hr:1.0.0 | kubectl apply -f -
  For a cluster without image volumes, with the credentials of a secret:
    skillctl generate kube -f - --style init-container --pull-secret regcred \\
        --puller-image registry.example/acme/skillctl:1 registry.example/acme/hr:1.0.0 < job.yaml";

/// How skills come into a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Style {
    /// As image volumes: Kubernetes 1.35, 1.31 with its gate ImageVolume, podman 5.3
    ImageVolume,
    /// Pulled by an init container: every cluster
    InitContainer,
}

/// Write a pod with skills, or put skills into a manifest
///
/// Every skill is named by the digest that the store, containers-storage or its registry has for it now, with its tag in an
/// annotation. In a manifest (-f) the pod of one workload gets the skills: a Pod, Deployment, StatefulSet, DaemonSet, Job or
/// CronJob among any other documents, in YAML or JSON. Every byte of the manifest stays; only text is inserted.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct KubeArgs {
    #[command(flatten)]
    skills: SkillArgs,
    /// Put the skills into this manifest, and print it; - is standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Of several workloads in the manifest the one that gets the skills
    #[arg(long, value_name = "[NAMESPACE/]KIND/NAME", requires = "file")]
    workload: Option<String>,
    /// Of several containers the one that gets the skills
    #[arg(long, value_name = "NAME", requires = "file")]
    container: Option<String>,
    /// The image of the container [default: my-agent, to be replaced]
    #[arg(long, value_name = "IMAGE", conflicts_with = "file", value_parser = image_name)]
    image: Option<String>,
    /// The name of the pod [default: that of the image]
    #[arg(long, value_name = "NAME", conflicts_with = "file", value_parser = subdomain)]
    name: Option<String>,
    /// How the skills come into the pod
    #[arg(long, value_enum, value_name = "STYLE", default_value = "image-volume")]
    style: Style,
    /// The image of the init container, with skillctl and skopeo
    ///
    /// It is named by the digest that its registry has for it now, with its tag in an annotation.
    #[arg(long, value_name = "IMAGE", default_value = PULLER, value_parser = image_name)]
    puller_image: String,
    /// A secret with the credentials of registries; repeatable
    ///
    /// The kubelet uses each for any registry. An init container can use one: that of its registry, else the one without.
    #[arg(long, value_name = "[REGISTRY=]NAME", value_parser = PullSecret::parse)]
    pull_secret: Vec<PullSecret>,
    /// Most that the init container may store, packed and in files, and most of each skill
    #[arg(long, value_name = "QUANTITY", default_value = SIZE_LIMIT, value_parser = Quantity::parse)]
    size_limit: Quantity,
    /// How to print the pod
    #[arg(long, value_enum, default_value_t, conflicts_with = "file")]
    format: Format,
}

impl KubeArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let by_init = self.style == Style::InitContainer;
        let skills = self.skills.skills(shell, if by_init { Reader::Pull } else { Reader::Runtime })?;
        let puller = by_init.then(|| self.puller(shell, &skills)).transpose()?;
        let style = match &puller {
            Some(puller) => kube::Style::InitContainer { puller, size_limit: &self.size_limit },
            None => kube::Style::ImageVolume,
        };
        let addition = addition(&skills, &self.skills.below(shell, self.image.as_deref())?, style, &self.pull_secret)?;
        for skill in skills.iter().filter(|skill| skill.is_local()) {
            shell.note(format!("note: {} has no registry: it has to be loaded on the node", skill.shown()));
        }
        if let Some(file) = &self.file {
            let choice = Choice { workload: self.workload.as_deref(), container: self.container.as_deref() };
            let context = || format!("Putting skills into {}", file.display());
            let text = read(file).with_context(context)?;
            shell.print(inject(&text, &addition, choice).with_context(context)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let image = self.image.as_deref().map_or_else(|| PLACEHOLDER.to_owned(), |image| whole_name(shell, image));
        if self.image.is_none() {
            shell.note(format!("note: {PLACEHOLDER} stands for the container's image: --image names it"));
        }
        let basename = image.parse::<Reference>()?.basename().to_owned();
        let name = self.name.clone().unwrap_or_else(|| label(&basename));
        let pod = pod(&name, &image, &addition);
        match self.format {
            Format::Text => shell.print(kube::yaml(&pod))?,
            Format::Json => shell.print_json(&pod)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the image of the init container by the digest that its registry has for it, as skills are named. Where that
    /// cannot be asked the tag has to do, which is said.
    fn puller(&self, shell: &Shell, skills: &[Skill]) -> Result<Puller> {
        let image = &self.puller_image;
        let by_tag = || Puller { image: image.clone(), tagged: None };
        let reference: Reference = image.parse()?;
        if image.starts_with("localhost/") {
            shell.note(format!("note: {image} has to be on the node; --puller-image names where a cluster pulls it"));
            return Ok(by_tag());
        }
        if reference.digest().is_some() {
            return Ok(by_tag());
        }
        match self.found(shell, &reference.or_latest(), skills) {
            Ok((tagged, pinned)) => Ok(Puller { image: pinned.to_string(), tagged: Some(tagged.to_string()) }),
            Err(e) if shell.cancel().is_cancelled() => Err(e),
            Err(e) => {
                let reason = harmless_line(&format!("{e:#}"));
                shell.warn(format!("warning: {image} stays named by its tag, which may move: {reason}"));
                Ok(by_tag())
            }
        }
    }

    /// Returns an image as its registry has it: by its tag, and by its digest.
    fn found(&self, shell: &Shell, image: &Reference, skills: &[Skill]) -> Result<(Reference, Reference)> {
        let registry = self.skills.registry();
        let image = registry.resolve(shell, &image.to_string())?;
        // One password is for one registry.
        let all: Vec<Reference> = skills.iter().map(|skill| &skill.image).chain([&image]).cloned().collect();
        registry.check_single(&all)?;
        let digest = registry.registry(shell)?.digest(&image)?.ok_or_else(|| not_found(&image))?;
        Ok((image.clone(), image.with_digest(&digest)?))
    }
}

fn read(file: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    // One byte more, so that what is too long is refused and not cut.
    let limit = MAX_BYTES as u64 + 1;
    match file.as_os_str() == "-" {
        true => std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?,
        false => std::fs::File::open(file)?.take(limit).read_to_end(&mut bytes)?,
    };
    String::from_utf8(bytes).map_err(|_| Error::Unavailable { reason: "it is not UTF-8".into(), hint: None }.into())
}

fn subdomain(text: &str) -> Result<String, String> {
    match is_subdomain(text) {
        true => Ok(text.to_owned()),
        false => Err("lower-case letters, digits, '-' and '.' are taken".into()),
    }
}
