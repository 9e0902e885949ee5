//! The figures of signatures: one that is verified, one that is made, and those of a set that comes on a stick.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::figures::{Bench, Figure, Target, ms};
use super::inputs;
use super::measure::{Contestant, run};
use super::peers::{Storage, installed, must};

/// Skills of a set.
const SET: usize = 100;
const COSIGN: &str = "cosign verify";
const IMAGE: &str = "bench/signed:1.0.0-draft";

impl Bench {
    /// Ours from the store, and cosign's from a registry on loopback: it reads no store, and verifies no layout that it has not written.
    pub fn verify_one(&self, name: &'static str) -> Result<Figure> {
        let (mut sign, verify) = self.signed()?;
        must(&mut sign)?;
        let cosign = self.world.cosign().map(|cosign| self.cosign_verify(cosign)).transpose()?;
        let contestants =
            vec![Contestant::command("ours", Some(verify)), Contestant::command(COSIGN, cosign), self.spawn_probe()];
        Ok(self.figure(name, 100, contestants, vec![Target::Time(ms(5)), Target::Ratio(COSIGN, 0.1)]))
    }

    /// Signs the same image on the registry, and returns how cosign verifies it there, without the network as ours.
    fn cosign_verify(&self, mut cosign: Command) -> Result<Command> {
        let (world, registry) = (&self.world, self.registry()?);
        let (store, key) = (world.path("trust/store"), world.path("trust/acme"));
        let name = registry.name(IMAGE);
        must(world.ours(&store).args(["push", "--tls-verify=false", IMAGE, &name]))?;
        let sign = ["sign", "--tls-verify=false", &name, "--key"];
        must(world.ours(&store).args(sign).arg(key.with_extension("key")).env("COSIGN_PASSWORD", "bench"))?;
        cosign.args(["verify", "--insecure-ignore-tlog", "--key"]).arg(key.with_extension("pub")).arg(name);
        Ok(cosign)
    }

    /// Both forms, in a store without any: scrypt opens the key, and takes most of it.
    pub fn sign_one(&self, name: &'static str) -> Result<Figure> {
        let (sign, _) = self.signed()?;
        let index = self.world.path("trust/store/index.json");
        let before = fs::read(&index)?;
        let ours = Contestant::new("ours", move |_| {
            fs::write(&index, &before)?;
            run(&sign)
        });
        Ok(self.figure(name, 20, vec![ours], vec![Target::Time(ms(400))]))
    }

    /// A hundred small skills from one archive, all verified, into a store without any of them.
    pub fn load_set(&self, name: &'static str) -> Result<Figure> {
        let (archive, key) = self.set()?;
        let world = &self.world;
        let ours = Contestant::new("ours", move |round| {
            let mut command = world.ours(&fresh(world.path(format!("trust/loaded-{round}")))?);
            run(command.args(["load", "--load=never", "--key"]).arg(&key).arg("-i").arg(&archive))
        });
        Ok(self.figure(name, 20, vec![ours], vec![Target::Time(ms(500))]))
    }

    /// The same into a containers-storage without any of them, beside a bare `skopeo copy` of each from the same archive, unpacked.
    pub fn load_set_mounted(&self, name: &'static str) -> Result<Figure> {
        let (archive, key) = self.set()?;
        let world = &self.world;
        let layout = world.path("trust/layout");
        if !layout.exists() {
            fs::create_dir(&layout)?;
            must(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&layout))?;
        }
        let storage = |whose: &str, round| -> Storage { world.storage(&format!("set-{whose}-{round}"), "overlay") };
        let ours = Contestant::new("ours", |round| {
            let at = storage("ours", round);
            let mut command = world.ours(&fresh(world.path(format!("trust/mounted-{round}")))?);
            command.args(at.flags()).args(["load", "--load=always", "--key"]).arg(&key);
            run(command.arg("-i").arg(&archive))
        });
        let skopeo = Contestant::new("skopeo copy", |round| {
            let at = storage("theirs", round);
            let copies = (0..SET).map(|n| {
                let name = format!("bench/set-{n}:1.0.0-draft");
                format!(
                    "skopeo copy -q oci:{}:{name} '{}'",
                    layout.display(),
                    at.reference(&format!("localhost/{name}"))
                )
            });
            run(&world.shell(&copies.collect::<Vec<_>>().join(" && "), [""; 0]))
        });
        let contestants = vec![ours, skopeo.only_if(installed("skopeo"))];
        Ok(self.figure(name, 3, contestants, vec![Target::Ratio("skopeo copy", 1.10)]))
    }

    /// Builds and signs the skills of a set, and returns its archive and the key.
    fn set(&self) -> Result<(PathBuf, PathBuf)> {
        let world = &self.world;
        let (store, key) = (world.path("trust/set-store"), world.path("trust/set-key"));
        let archive = world.path("trust/skills.bundle");
        if !archive.exists() {
            fs::create_dir_all(world.path("trust"))?;
            must(world.ours(&store).args(["key", "generate"]).arg(&key).env("COSIGN_PASSWORD", "bench"))?;
            let names: Vec<String> = (0..SET).map(|n| format!("set-{n}")).collect();
            for name in &names {
                let skill = world.path(format!("trust/skills/{name}"));
                inputs::named(&skill, name, "1.0.0", "")?;
                must(&mut self.build(&store, &skill))?;
                let mut sign = world.ours(&store);
                sign.arg("sign").arg(format!("bench/{name}:1.0.0-draft")).arg("--key").arg(key.with_extension("key"));
                must(sign.env("COSIGN_PASSWORD", "bench"))?;
            }
            let names = names.iter().map(|name| format!("bench/{name}:1.0.0-draft"));
            must(world.ours(&store).arg("save").arg("-o").arg(&archive).args(names))?;
        }
        Ok((archive, key.with_extension("pub")))
    }

    /// Builds a skill into a store of its own, and returns what signs it and what verifies it then.
    fn signed(&self) -> Result<(Command, Command)> {
        let world = &self.world;
        let (store, key, skill) = (world.path("trust/store"), world.path("trust/acme"), world.path("trust/signed"));
        if !store.exists() {
            inputs::named(&skill, "signed", "1.0.0", "")?;
            must(&mut self.build(&store, &skill))?;
            must(world.ours(&store).args(["key", "generate"]).arg(&key).env("COSIGN_PASSWORD", "bench"))?;
        }
        let (mut sign, mut verify) = (world.ours(&store), world.ours(&store));
        sign.args(["sign", IMAGE, "--key"]).arg(key.with_extension("key")).env("COSIGN_PASSWORD", "bench");
        verify.args(["verify", IMAGE, "--key"]).arg(key.with_extension("pub"));
        Ok((sign, verify))
    }
}

/// Returns a path at which nothing is.
fn fresh(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    Ok(path)
}
