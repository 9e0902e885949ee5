//! The figures of signatures: one that is verified, and one that is made.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::figures::{Bench, Figure, Target, ms};
use super::inputs;
use super::measure::{Contestant, run};
use super::peers::must;

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
