//! The figures of signatures: one that is verified, and one that is made.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::figures::{Bench, Figure, Target, ms};
use super::inputs;
use super::measure::{Contestant, run};
use super::peers::must;

const IMAGE: &str = "bench/signed:1.0.0-draft";

impl Bench {
    pub fn verify_one(&self, name: &'static str) -> Result<Figure> {
        let (mut sign, verify) = self.signed()?;
        must(&mut sign)?;
        let contestants = vec![Contestant::command("ours", Some(verify)), self.spawn_probe()];
        Ok(self.figure(name, 300, contestants, vec![Target::Time(ms(5))]))
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
