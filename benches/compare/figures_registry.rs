//! The figures with a registry: real, on loopback, in plain HTTP, shared by all of them.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use skillctl::image::{STATUS, oci};

use super::figures::{Bench, Figure, Target, ms, settled};
use super::measure::{Contestant, own_memory, run};
use super::peers::{Storage, installed, must};
use super::registry::{Registry, sends_blob, slowed};

/// Tags of the repository that is listed.
const TAGS: usize = 500;
/// What the proxy adds to each request for a list.
const DELAY: Duration = Duration::from_millis(20);
/// Most memory of our own process, in MiB.
const OWN_MIB: u64 = 64;

impl Bench {
    pub fn registry(&self) -> Result<&Registry> {
        if let Some(registry) = self.registry.get() {
            return Ok(registry);
        }
        let started = Registry::start(&self.world)?;
        Ok(self.registry.get_or_init(|| started))
    }

    pub fn push_small(&self, name: &'static str) -> Result<Figure> {
        let (world, registry) = (&self.world, self.registry()?);
        // Each image is new, in content and name, for both, so that its blobs are really sent; and both take it from a
        // layout of one image, and are told that there is no TLS.
        let ours = Contestant::new("ours", |round| {
            let version = format!("1.0.{round}");
            let store = world.path(format!("push-store-{round}"));
            must(&mut self.build(&store, &self.small_in("push-ours", &version, "Pushed by us.")?))?;
            let mut push = world.ours(&store);
            push.args(["push", "--tls-verify=false", &format!("bench/small:{version}-draft")]);
            run(push.arg(registry.name(&format!("push/small:{version}"))))
        });
        let skopeo = Contestant::new("skopeo copy", |round| {
            let version = format!("2.0.{round}");
            let layout = world.path(format!("push-layout-{round}"));
            must(&mut self.build(&layout, &self.small_in("push-theirs", &version, "Pushed by them.")?))?;
            let mut copy = self.skopeo_copy("--dest-tls-verify=false");
            copy.arg(format!("oci:{}", layout.display()));
            run(copy.arg(format!("docker://{}", registry.name(&format!("push/small:{version}")))))
        });
        let contestants = vec![ours, skopeo.only_if(installed("skopeo")), self.spawn_probe()];
        Ok(self.figure(name, 30, contestants, vec![Target::Ratio("skopeo copy", 1.15)]))
    }

    pub fn pull_small(&self, name: &'static str) -> Result<Figure> {
        let (world, registry) = (&self.world, self.registry()?);
        let (source, store, layout) = (world.path("pull-source"), world.path("pull-store"), world.path("pull-layout"));
        // Each image is new, in content and name, for both, and goes where others are already.
        let fresh = |who: &str, round: u32| -> Result<String> {
            let version = format!("1.0.{round}");
            let image = registry.name(&format!("pull/{who}:{version}"));
            let dir = self.small_in("pull-small", &version, &format!("Pulled by {who}."))?;
            self.seed(&source, &dir, "bench/small", &image)?;
            Ok(image)
        };
        let ours = Contestant::new("ours", |round| {
            let image = fresh("ours", round)?;
            let mut pull = world.ours(&store);
            run(pull.args(["pull", "--tls-verify=false", "--load=never", &image]))
        });
        let skopeo = Contestant::new("skopeo copy", |round| {
            let image = fresh("theirs", round)?;
            let mut copy = self.skopeo_copy("--src-tls-verify=false");
            run(copy.arg(format!("docker://{image}")).arg(format!("oci:{}:round-{round}", layout.display())))
        });
        let contestants = vec![ours, skopeo.only_if(installed("skopeo")), self.spawn_probe()];
        Ok(self.figure(name, 30, contestants, vec![Target::Ratio("skopeo copy", 1.15)]))
    }

    pub fn pull_big(&self, name: &'static str) -> Result<Figure> {
        let world = &self.world;
        let (image, _) = self.big_on_registry()?;
        let pull = |store: &Path, storage: &Storage| {
            let mut pull = world.ours(store);
            pull.args(storage.flags()).args(["pull", "--load=always", &image]);
            pull
        };
        let removed = |dir: &Path| fs::remove_dir_all(dir).with_context(|| dir.display().to_string());
        let ours = Contestant::new("ours", |round| {
            let (store, storage) = (world.path("pull-big"), world.storage(&format!("pull-ours-{round}"), "overlay"));
            let sample = run(&pull(&store, &storage))?;
            removed(&store)?;
            Ok(sample)
        });
        let podman = Contestant::new("podman pull", |round| {
            let storage = world.storage(&format!("pull-theirs-{round}"), "overlay");
            let mut pull = world.command("podman");
            run(pull.args(storage.flags()).args(["pull", "--quiet", "--tls-verify=false", &image]))
        });
        let contestants = vec![settled(ours), settled(podman.only_if(installed("podman")))];
        // Beside the rounds, because the peak that those tell is that of the largest process, which is skopeo's.
        let (store, storage) = (world.path("pull-big"), world.storage("pull-memory", "overlay"));
        let memory = own_memory(&mut pull(&store, &storage))?;
        removed(&store)?;
        drop(storage);
        let targets = vec![
            Target::Ratio("podman pull", 1.2),
            Target::Count("MiB of our own process", memory.div_ceil(1 << 10), OWN_MIB),
        ];
        Ok(self.figure(name, 3, contestants, targets))
    }

    pub fn promote_remote(&self, name: &'static str) -> Result<Figure> {
        let (world, registry) = (&self.world, self.registry()?);
        let (_, manifest) = self.big_on_registry()?;
        let tested = |version: &str| -> Result<String> {
            let tag = format!("{version}-testing");
            registry.put("bench/big", &tag, &variant(&manifest, version, "testing"))?;
            Ok(registry.name(&format!("bench/big:{tag}")))
        };
        let sent = Cell::new(0);
        // A new version each time, which also gets `latest`.
        let ours = Contestant::new("ours", |round| {
            let mut promote = world.ours(&world.path("promote-store"));
            promote.args(["promote", "--to=published", &tested(&format!("1.0.{round}"))?]);
            let (sample, asked) = registry.asked(|| run(&promote))?;
            sent.set(sent.get() + asked.iter().filter(|request| sends_blob(request)).count());
            Ok(sample)
        });
        let skopeo = Contestant::new("skopeo copy", |round| {
            let mut copy = self.skopeo_copy("--src-tls-verify=false");
            copy.arg("--dest-tls-verify=false").arg(format!("docker://{}", tested(&format!("2.0.{round}"))?));
            run(copy.arg(format!("docker://{}", registry.name(&format!("bench/big:2.0.{round}")))))
        });
        let contestants = vec![ours, skopeo.only_if(installed("skopeo")), self.spawn_probe()];
        let mut figure = self.figure(name, 20, contestants, vec![Target::Ratio("skopeo copy", 2.0)]);
        figure.targets.push(Target::Count("requests that send blobs", sent.get() as u64, 0));
        Ok(figure)
    }

    pub fn inspect_remote(&self, name: &'static str) -> Result<Figure> {
        let (world, registry) = (&self.world, self.registry()?);
        let image = registry.name("inspect/small:1.0.0");
        let dir = self.small_in("inspect-remote", "1.0.0", "")?;
        self.seed(&world.path("inspect-source"), &dir, "bench/small", &image)?;
        let mut ours = world.ours(&world.path("no-store"));
        ours.args(["inspect", &format!("docker://{image}")]);
        let (_, asked) = registry.asked(|| must(&mut ours))?;
        let manifests = asked.iter().filter(|request| request.contains("/manifests/")).count();
        let mut skopeo = world.command("skopeo");
        skopeo.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{image}")]);
        let contestants = vec![
            Contestant::command("ours", Some(ours)),
            Contestant::command("skopeo inspect --raw", installed("skopeo").then_some(skopeo)),
            self.spawn_probe(),
        ];
        let targets = vec![
            Target::Ratio("skopeo inspect --raw", 1.1),
            Target::Count("requests for manifests", manifests as u64, 1),
        ];
        Ok(self.figure(name, 60, contestants, targets))
    }

    pub fn list_remote(&self, name: &'static str) -> Result<Figure> {
        let (world, registry) = (&self.world, self.registry()?);
        let image = registry.name("list/small:1.0.0");
        let dir = self.small_in("list-remote", "1.0.0", "")?;
        let manifest = self.seed(&world.path("list-source"), &dir, "bench/small", &image)?;
        for n in 1..TAGS {
            let version = format!("1.0.{n}");
            registry.put("list/small", &version, &variant(&manifest, &version, "draft"))?;
        }
        let mut ours = world.ours(&world.path("no-store"));
        ours.args(["list", "--remote", &format!("{}/list/small", slowed(registry, DELAY)?)]);
        let contestants = vec![Contestant::command("ours", Some(ours)), self.spawn_probe()];
        Ok(self.figure(name, 10, contestants, vec![Target::Time(ms(2_000))]))
    }

    fn skopeo_copy(&self, flag: &str) -> Command {
        let mut command = self.world.command("skopeo");
        command.args(["copy", flag]);
        command
    }

    /// Builds the skill in `dir` into `store`, pushes it as `image`, and returns its manifest.
    pub fn seed(&self, store: &Path, dir: &Path, skill: &str, image: &str) -> Result<String> {
        let built = must(self.build(store, dir).arg("--format=json"))?;
        let built: Value = serde_json::from_str(&built)?;
        must(self.world.ours(store).args(["push", &format!("{skill}:1.0.0-draft"), image]))?;
        let digest = built["digest"].as_str().context("no digest")?;
        Ok(fs::read_to_string(store.join("blobs").join(digest.replace(':', "/")))?)
    }

    /// Has *big* on the registry, and returns its name there and its manifest. Nothing is sent if it is there already.
    fn big_on_registry(&self) -> Result<(String, String)> {
        let image = self.registry()?.name("bench/big:1.0.0-draft");
        let manifest = self.seed(&self.world.path("big-store"), &self.inputs.big()?, "bench/big", &image)?;
        Ok((image, manifest))
    }
}

/// Returns a manifest with another version and state, over the same blobs.
pub fn variant(manifest: &str, version: &str, state: &str) -> String {
    let mut manifest: Value = serde_json::from_str(manifest).unwrap_or_default();
    manifest["annotations"][oci::VERSION] = version.into();
    manifest["annotations"][STATUS] = state.into();
    manifest.to_string()
}
